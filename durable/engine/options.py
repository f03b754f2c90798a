"""What is stored of a start: the new execution, and the options that only the engine reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Protocol

from pydantic_core import from_json, to_json

from durable.codec import plain
from durable.engine.transitions import cancel_data
from durable.errors import InvalidInput
from durable.flow_control import FlowControl, Key
from durable.matching import MISSING, shape_of, topic_of, value_at
from durable.models import Cause
from durable.names import check_own_name, check_priority
from durable.protocols import Listen, NewExecution, keyed_id
from durable.retry import Retry
from durable.workflow import AnyWorkflow, Cancels


class Startable(Protocol):
    """What has to be known of a workflow to start it: itself, or what was stored of it."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def priority(self) -> int | Key: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def timeout_ms(self) -> int | None: ...
    @property
    def flow(self) -> FlowControl: ...
    @property
    def cancels(self) -> Sequence[Cancels]: ...


def new_execution(
    new_id: str | Callable[[], str],
    workflow: Startable,
    value: object,
    input: bytes,
    *,
    key: str | None = None,
    reuse_closed_key: bool = False,
    queue: str | None = None,
    priority: int | None = None,
    retry: Retry | None = None,
    timeout_ms: int | None = None,
    tags: Mapping[str, str] | None = None,
    delay_ms: int = 0,
    at_ms: int | None = None,
    parent_id: str | None = None,
    cause: Cause | None = None,
) -> NewExecution:
    """What `create` stores: the workflow's own settings, where the start gives no others. `input` is what is stored of
    `value`; a function gives an id that nobody has, and one that joins a group always gets such a one.

    Raises:
        InvalidInput: a computed priority is none; or a debounced or batched start has a key, or an instant of its own.
    """
    flow = workflow.flow
    join = flow.join(value, input) if flow else None
    if join is not None:
        if key is not None or delay_ms or at_ms is not None:
            rule = "debounced" if join.size is None else "batched"
            raise InvalidInput(
                f"workflow {workflow.name} is {rule}, and this start has a key or an instant of its own",
                "what joins a pending execution begins with it: leave out key=, delay= and at=",
            )
        own_id = new_id if isinstance(new_id, str) else new_id()
        # Of all of it: the ids of a schedule's ticks begin alike.
        own = sha256(own_id.encode()).hexdigest()[:16]
        execution_id = keyed_id(workflow.name, join.group, own)
    else:
        execution_id = new_id if isinstance(new_id, str) else new_id()
    return NewExecution(
        id=execution_id,
        workflow=workflow.name,
        version=workflow.version,
        input=input,
        queue=workflow.queue if queue is None else check_own_name(queue, "queue"),
        priority=_priority(workflow, value, input) if priority is None else priority,
        key=key,
        reuse_closed_key=reuse_closed_key,
        tags={**workflow.tags, **(tags or {})},
        options=pack_options(retry, by_definition=bool(flow) or bool(workflow.cancels)),
        delay_ms=delay_ms,
        at_ms=at_ms,
        timeout_ms=workflow.timeout_ms if timeout_ms is None else timeout_ms,
        parent_id=parent_id,
        gates=flow.gates(value, input) if flow else (),
        join=join,
        listens=listens_of(workflow, input) if workflow.cancels else (),
        cause=b"" if cause is None else to_json({"name": cause.name, "id": cause.id}),
    )


def pack_options(retry: Retry | None, *, by_definition: bool) -> bytes:
    """`by_definition`: what it passes and listens for follows from its workflow and its input."""
    options: dict[str, object] = {}
    if retry is not None:
        options["retry"] = retry.to_dict()
    if by_definition:
        options["by_definition"] = True
    return to_json(options) if options else b""


def run_retry(options: bytes, workflow: AnyWorkflow) -> Retry:
    """The run's retry policy: the start's, else the workflow's."""
    given = from_json(options).get("retry") if options else None
    return workflow.retry if given is None else Retry.from_dict(given, on=workflow.retry.on)


def causes(cause: bytes) -> Sequence[Cause]:
    """The events that started an execution, in the order in which they joined it."""
    return [Cause(**from_json(line)) for line in cause.split(b"\n") if line]


def _priority(workflow: Startable, value: object, input: bytes) -> int:
    priority = workflow.priority
    if isinstance(priority, int):
        return priority
    found = value_at(plain(input), priority) if isinstance(priority, str) else priority(value)
    return 0 if found is MISSING or found is None else check_priority(found)


def listens_of(workflow: Startable, input: bytes) -> Sequence[Listen]:
    """The events that cancel an execution of a workflow with this input."""
    structure = plain(input)
    listens: list[Listen] = []
    for number, cancels in enumerate(workflow.cancels):
        match = {path: value_at(structure, own) for path, own in cancels.match.items()}
        if MISSING in match.values():
            continue  # what is missing is equal to nothing
        reason = cancel_data(f"event {cancels.event}")
        step_id = f"__cancel:{number}"
        listens.append(
            Listen(cancels.event, step_id, topic_of(match), shape_of(match), seen=None, cancel=reason)
        )
    return listens
