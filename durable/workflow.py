"""Workflows: async functions that outlive the process they run in. Their definitions know no backend."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, update_wrapper
from types import MappingProxyType, ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Never,
    NoReturn,
    Protocol,
    TypeAlias,
    cast,
    final,
    overload,
)

from typing_extensions import TypeVar, override

from durable._error import shown
from durable.calendar import Cron, Every
from durable.codec import Schema
from durable.duration import Duration, to_ms
from durable.errors import ConfigurationError, InvalidInput, UnknownWorkflow
from durable.flow_control import Batch, Concurrency, Debounce, FlowControl, Key, RateLimit, Rules, Throttle
from durable.matching import check_path
from durable.models import Failure, WorkflowInfo
from durable.names import check_name, check_own_name, check_priority, check_tags
from durable.retry import Retry
from durable.signals import Event, On

Rollback: TypeAlias = Literal["manual", "on_failure"]
"""Whether compensations run where the body asks for it only, or also when the run fails or is cancelled."""

_RETRY = Retry(attempts=3, base="1s", factor=2.0, cap="1h", jitter=0.2)


Trigger: TypeAlias = Event[Any] | On | Cron | Every
"""What starts executions of a workflow."""


@dataclass(frozen=True, slots=True)
class Cancels:
    """An event that cancels executions: those whose input has, at these paths, what the payload has."""

    event: str
    match: Mapping[str, str]
    """A path into the input for each path into the payload."""


class _Context(Protocol):
    """What tells a `Context` from an input, below the module that defines it."""

    @property
    def execution_id(self) -> str: ...
    @property
    def is_replaying(self) -> bool: ...


ContextT = TypeVar("ContextT", bound=_Context)
In = TypeVar("In")
Out = TypeVar("Out")
In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


@final
class Workflow(Generic[In_contra, Out_co]):
    """A workflow as `@workflow` defined it: a function, what it takes and gives, and plain data."""

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, Out_co]],
        *,
        name: str | None = None,
        version: str = "1",
        queue: str = "default",
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        priority: int | Key = 0,
        tags: Mapping[str, str] | None = None,
        on: Sequence[Trigger] = (),
        cancel_on: Sequence[On] = (),
        concurrency: Rules | None = None,
        throttle: Throttle | None = None,
        rate_limit: RateLimit | None = None,
        debounce: Debounce | None = None,
        batch: Batch | None = None,
        rollback: Rollback = "manual",
        on_failure: Workflow[Failure, Any] | None = None,
    ) -> None:
        self.takes_input = _takes_input(fn)
        """Whether the function has a parameter after the context."""
        self.fn = fn
        self.name = check_own_name(fn.__name__ if name is None else name, "the name of a workflow")
        self.version = check_name(version, f"the version of workflow {self.name}")
        self.queue = check_own_name(queue, f"the queue of workflow {self.name}")
        self.retry = Retry.of(retry, _RETRY)
        """Of the run as a whole."""
        self.timeout_ms = None if timeout is None else to_ms(timeout, what=f"timeout of workflow {self.name}")
        """Of the execution, from its creation on and across its attempts."""
        if isinstance(priority, str):
            check_path(priority, f"the priority of workflow {self.name}")
        self.priority = (
            priority if isinstance(priority, str) or callable(priority) else check_priority(priority)
        )
        """Greater goes first. A path into the input or a function of it gives each execution its own."""
        self.tags: Mapping[str, str] = MappingProxyType(dict(check_tags(tags or {})))
        self.rollback: Rollback = _rollback(rollback, self.name)
        self.on = tuple(_triggers(on, self.name))
        """What starts it."""
        self.cancels = tuple(Cancels(on.event.name, on.match or {}) for on in cancel_on)
        """The events that cancel its executions."""
        self.flow = FlowControl(
            self.name,
            concurrency=concurrency,
            throttle=throttle,
            rate_limit=rate_limit,
            debounce=debounce,
            batch=batch,
        )
        self.on_failure = on_failure
        """What is started when an execution fails."""
        update_wrapper(cast("Any", self), fn)

    @cached_property
    def input_schema(self) -> Schema[Any]:
        """What validates and stores the input. Of None, when the workflow takes none.

        Raises:
            ConfigurationError: the annotation cannot be resolved, or is no type that can be stored.
        """
        return Schema.parameter(self.fn, 1) if self.takes_input else Schema.of(None)

    @cached_property
    def output_schema(self) -> Schema[Any]:
        """What stores the result. Raises `ConfigurationError` as `input_schema` does."""
        return Schema.returned_by(self.fn)

    @property
    def info(self) -> WorkflowInfo:
        """What `durable.workflows()` tells about it."""
        return WorkflowInfo(
            name=self.name,
            version=self.version,
            queue=self.queue,
            tags=self.tags,
            input_schema=self.input_schema.json_schema(),
            output_schema=self.output_schema.json_schema(),
        )

    @property
    def where(self) -> str:
        """Where it is defined, for the text of an error."""
        code = inspect.unwrap(self.fn).__code__
        return f"{self.fn.__module__}.{self.fn.__qualname__} ({code.co_filename}:{code.co_firstlineno})"

    if not TYPE_CHECKING:  # so that the checkers too say that a workflow is not called

        def __call__(self, *args: object, **kwargs: object) -> NoReturn:
            raise ConfigurationError(
                f"workflow {self.name} was called like a function",
                "start it: `await durable.start(workflow, input)`, or `await ctx.run(workflow, input)` in "
                "another; its body alone is `workflow.fn`",
            )

    @override
    def __repr__(self) -> str:
        return f"<workflow {self.name} version {self.version}>"


AnyWorkflow: TypeAlias = Workflow[Never, object]
"""Whatever its input and its result are."""


@overload
def workflow(fn: Callable[[ContextT, In], Coroutine[Any, Any, Out]], /) -> Workflow[In, Out]: ...
@overload
def workflow(fn: Callable[[ContextT], Coroutine[Any, Any, Out]], /) -> Workflow[None, Out]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str = "1",
    queue: str = "default",
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    priority: int | Key = 0,
    tags: Mapping[str, str] | None = None,
    on: Sequence[Trigger] = (),
    cancel_on: Sequence[On] = (),
    concurrency: Rules | None = None,
    throttle: Throttle | None = None,
    rate_limit: RateLimit | None = None,
    debounce: Debounce | None = None,
    batch: Batch | None = None,
    rollback: Rollback = "manual",
    on_failure: Workflow[Failure, Any] | None = None,
) -> _Decorator: ...
def workflow(
    fn: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "1",
    queue: str = "default",
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    priority: int | Key = 0,
    tags: Mapping[str, str] | None = None,
    on: Sequence[Trigger] = (),
    cancel_on: Sequence[On] = (),
    concurrency: Rules | None = None,
    throttle: Throttle | None = None,
    rate_limit: RateLimit | None = None,
    debounce: Debounce | None = None,
    batch: Batch | None = None,
    rollback: Rollback = "manual",
    on_failure: Workflow[Failure, Any] | None = None,
) -> object:
    """Make a workflow of an async function that takes a `Context` and, if it wants one, an input value.

    By default it has the function's name, version "1", the queue "default" and three attempts. `timeout`
    counts from the execution's creation, across its attempts.

    `on` names what starts it: events, whose payload is the input, and times (`Cron`, `Every`), where there is none.
    `cancel_on` names the events that cancel its executions. `concurrency`, `throttle`, `rate_limit`, `debounce` and
    `batch` hold for every way of starting it. `on_failure` is started when an execution fails for good, with a
    `Failure`.

    Raises:
        InvalidInput: a bad duration, or a name that is hostile or reserved.
        ConfigurationError: it is not an async function, it does not take a context and at most one input, or its rules
            contradict each other.
    """

    def decorate(fn: Callable[..., Coroutine[Any, Any, Out]]) -> Workflow[Never, Out]:
        return Workflow(
            fn,
            name=name,
            version=version,
            queue=queue,
            retry=retry,
            timeout=timeout,
            priority=priority,
            tags=tags,
            on=on,
            cancel_on=cancel_on,
            concurrency=concurrency,
            throttle=throttle,
            rate_limit=rate_limit,
            debounce=debounce,
            batch=batch,
            rollback=rollback,
            on_failure=on_failure,
        )

    return decorate if fn is None else decorate(fn)


class _Decorator(Protocol):
    @overload
    def __call__(self, fn: Callable[[ContextT, In], Coroutine[Any, Any, Out]], /) -> Workflow[In, Out]: ...
    @overload
    def __call__(self, fn: Callable[[ContextT], Coroutine[Any, Any, Out]], /) -> Workflow[None, Out]: ...


@final
class Registry:
    """The workflows that one `Durable` knows, by name and version.

    Raises:
        ConfigurationError: two of them share name and version, or one has a type that cannot be stored.
    """

    def __init__(self, workflows: Iterable[AnyWorkflow | ModuleType] = ()) -> None:
        self._workflows: dict[str, dict[str, AnyWorkflow]] = {}
        self._scopes: dict[str, tuple[str, Concurrency]] = {}
        for source in workflows:
            for workflow in _workflows_of(source):
                self._add(workflow)

    def newest(self) -> list[AnyWorkflow]:
        """Of each name the highest version: the one that triggers start."""
        return [self.find(name) for name in sorted(self._workflows)]

    def newest_of(self, name: str) -> AnyWorkflow | None:
        """Its highest version, or None."""
        return self.find(name) if name in self._workflows else None

    def get(self, name: str, version: str) -> AnyWorkflow | None:
        """Exactly this version, or None."""
        return self._workflows.get(name, {}).get(version)

    def find(self, name: str, version: str | None = None) -> AnyWorkflow:
        """This version, or the highest one: "10" is higher than "9".

        Raises:
            UnknownWorkflow: it is not registered; the hint names the closest one that is.
        """
        versions = self._workflows.get(name, {})
        if versions and version is None:
            return versions[max(versions, key=natural_order)]
        if version is not None and version in versions:
            return versions[version]
        raise UnknownWorkflow(name, self._workflows, version)

    def infos(self) -> list[WorkflowInfo]:
        """What is registered, by name and version."""
        return [workflow.info for workflow in self]

    def __iter__(self) -> Iterator[AnyWorkflow]:
        for _, versions in sorted(self._workflows.items()):
            for version in sorted(versions, key=natural_order):
                yield versions[version]

    def __len__(self) -> int:
        return sum(map(len, self._workflows.values()))

    def _add(self, workflow: AnyWorkflow) -> None:
        versions = self._workflows.setdefault(workflow.name, {})
        other = versions.setdefault(workflow.version, workflow)
        if other is not workflow:
            raise ConfigurationError(
                f"two workflows are named {workflow.name}, version {workflow.version}: "
                f"{other.where} and {workflow.where}",
                'give one of them another name=, or version="2" if it replaces the other',
            )
        # Here and not at the first start, so that a type that cannot be stored stops the deployment.
        _ = workflow.input_schema, workflow.output_schema
        self._check_scopes(workflow)
        _check_starts(workflow)
        if (
            workflow.on_failure is not None
            and self.get(workflow.on_failure.name, workflow.on_failure.version) is None
        ):
            self._add(workflow.on_failure)  # whoever runs the one runs the other

    def _check_scopes(self, workflow: AnyWorkflow) -> None:
        """Who shares slots shares the rule."""
        for rule in workflow.flow.concurrency:
            if rule.scope is None:
                continue
            other, known = self._scopes.setdefault(rule.scope, (workflow.name, rule))
            if (known.limit, known.when_full, known.hold) != (rule.limit, rule.when_full, rule.hold):
                raise ConfigurationError(
                    f"workflows {other} and {workflow.name} share the scope {rule.scope} and disagree about it: "
                    f"{known} and {rule}",
                    "give both the same rule",
                )


def _check_starts(workflow: AnyWorkflow) -> None:
    """Does what starts it give it an input that it takes?"""
    if any(isinstance(trigger, Cron | Every) for trigger in workflow.on):
        try:
            workflow.input_schema.validate(None)
        except InvalidInput:
            raise ConfigurationError(
                f"workflow {workflow.name} is started by a time, without an input, and needs one",
                "let it take none (or None), or make a schedule with an input: durable.ensure_schedule(...)",
            ) from None
    if workflow.flow.batch is not None and workflow.input_schema.json_schema().get("type") != "array":
        raise ConfigurationError(
            f"workflow {workflow.name} has batch= and its input is no list",
            "let it take a list of what is collected",
        )


def _workflows_of(source: object) -> Iterable[AnyWorkflow]:
    if isinstance(source, Workflow):
        return [cast("AnyWorkflow", source)]
    if isinstance(source, ModuleType):
        return [cast("AnyWorkflow", found) for found in vars(source).values() if isinstance(found, Workflow)]
    raise ConfigurationError(
        f"{shown(source)} is neither a workflow nor a module",
        "pass functions that carry @workflow, or modules of them",
    )


def _takes_input(fn: Callable[..., object]) -> bool:
    text = shown(fn)
    if not inspect.iscoroutinefunction(fn) or isinstance(fn, partial):
        raise ConfigurationError(f"@workflow needs an async function, not {text}", "write `async def`")
    parameters = inspect.signature(fn).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not 1 <= len(parameters) <= 2 or any(parameter.kind not in positional for parameter in parameters):
        raise ConfigurationError(
            f"workflow {fn.__name__} must take a context and at most one input, not {inspect.signature(fn)}",
            "write `async def name(ctx: Context, order: Order) -> Receipt`, with several values in one model",
        )
    return len(parameters) == 2


def _rollback(rollback: Rollback, name: str) -> Rollback:
    if rollback not in ("manual", "on_failure"):
        raise ConfigurationError(
            f"rollback of workflow {name} is {shown(rollback)}", 'it is "manual" or "on_failure"'
        )
    return rollback


def _triggers(on: Sequence[Trigger], name: str) -> Iterator[On | Cron | Every]:
    for trigger in on:
        if isinstance(trigger, Event):
            yield On(trigger)
        elif isinstance(cast("object", trigger), On | Cron | Every):
            yield trigger
        else:
            raise ConfigurationError(
                f"workflow {name} is started on {shown(trigger)}",
                "on= takes events, On(...), Cron(...) and Every(...)",
            )


def natural_order(version: str) -> list[tuple[int, str]]:
    """Sorts text with numbers in it as people do."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", version)]
