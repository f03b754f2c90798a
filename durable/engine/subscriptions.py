"""Whom an event starts, and what of it decides whom else it concerns.

What a workflow is started by is known to the store (`Subscriber`), so that an event starts it whoever sends it. A
process that has the workflow goes by its code, another one by the plain data that was stored of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from durable.codec import plain
from durable.engine.options import Startable, new_execution
from durable.engine.templates import Template, decided_by, is_newer
from durable.errors import ConfigurationError
from durable.matching import matches, shape_of, topics_in
from durable.models import Cause
from durable.protocols import Emit, NewExecution, Plan, Subscriber, keyed_id
from durable.signals import Event, On, When
from durable.workflow import AnyWorkflow, Registry


def compose(event: Event[Any], event_id: str, data: bytes, plan: Plan, known: Registry) -> Emit:
    """What is stored of an event, with the executions that it starts.

    Raises:
        ConfigurationError: a workflow that it would start decides by a function, and is not registered here.
    """
    structure = plain(data)
    cause = Cause(event.name, event_id)
    starts: list[NewExecution] = []
    for subscriber in plan.subscribers:
        workflow = _concerned(subscriber, data, structure, known)
        if workflow is not None:
            id = keyed_id(workflow.name, f"#event\n{event.name}\n{event_id}")
            input = _input(data, subscriber, is_batch=workflow.flow.batch is not None)
            starts.append(new_execution(id, workflow, decided_by(workflow, input), input, cause=cause))
    shapes = tuple(plan.shapes)
    return Emit(event_id, event.name, data, shapes, topics_in(structure, shapes), starts)


def _concerned(subscriber: Subscriber, data: bytes, structure: object, known: Registry) -> Startable | None:
    """The workflow, if this event starts it."""
    if not subscriber.data:
        return None
    here = known.newest_of(subscriber.workflow)
    if here is not None:
        ons = [on for on in here.on if isinstance(on, On) and on.event.name == subscriber.event]
        return here if any(_is_wanted(on, data, structure) for on in ons) else None
    found = from_json(subscriber.data)
    template = Template.from_dict(subscriber.workflow, found)
    if template.needs_code or found["filters_by_code"]:
        raise ConfigurationError(
            f"event {subscriber.event} starts workflow {subscriber.workflow}, which decides by a function and is not "
            "registered here",
            "register it with this Durable (on the command line, name yours with --app), or let it use dotted paths "
            "instead of functions",
        )
    return template if any(when is None or matches(structure, when) for when in found["whens"]) else None


def _is_wanted(on: On, data: bytes, structure: object) -> bool:
    if callable(on.when):  # as its own workflow declares the payload, which a sender may have done otherwise
        return bool(on.when(on.event.schema.load(data, f"the payload of event {on.event.name}")))
    return on.when is None or matches(structure, on.when)


def _input(data: bytes, subscriber: Subscriber, *, is_batch: bool) -> bytes:
    if not from_json(subscriber.data)["takes_input"]:
        return b"null"
    return b"[" + data + b"]" if is_batch else data


# ---- what is stored of the workflows that are registered here


def subscribers_of(registry: Registry) -> list[Subscriber]:
    """What the store is to know of all that is registered here."""
    return [each for workflow in registry.newest() for each in _subscribers(workflow)]


def to_change(
    declared: Sequence[Subscriber], stored: Iterable[Subscriber], registry: Registry
) -> tuple[list[Subscriber], list[Subscriber]]:
    """Whom to add and whom to remove. What a higher version of a workflow has said stays."""
    known = {(each.event, each.workflow): each for each in stored}
    ours = {(each.event, each.workflow) for each in declared}
    add = [
        each
        for each in declared
        if (other := known.get((each.event, each.workflow))) != each
        and not (other and _is_newer(other, each))
    ]
    names = {workflow.name for workflow in registry}
    remove = [
        each
        for key, each in known.items()
        if key not in ours and each.workflow in names and not _is_newer(each, registry.find(each.workflow))
    ]
    return add, remove


def _subscribers(workflow: AnyWorkflow) -> Iterable[Subscriber]:
    whens: dict[str, list[When | None]] = {}
    for on in workflow.on:
        if isinstance(on, On):
            whens.setdefault(on.event.name, []).append(on.when)
    shapes: dict[str, list[str]] = {name: [] for name in whens}
    for cancels in workflow.cancels:
        shapes.setdefault(cancels.event, []).append(shape_of(cancels.match))
    for event, of_event in shapes.items():
        data = _data(workflow, whens[event]) if event in whens else b""
        yield Subscriber(event, workflow.name, data, tuple(shape for shape in of_event if shape))


def _data(workflow: AnyWorkflow, whens: Sequence[When | None]) -> bytes:
    return to_json(
        {
            **Template.of(workflow).to_dict(),
            "whens": [None if callable(when) else when for when in whens],
            "filters_by_code": any(map(callable, whens)),
        }
    )


def _is_newer(stored: Subscriber, ours: Subscriber | AnyWorkflow) -> bool:
    return is_newer(_version(stored), _version(ours))


def _version(of: Subscriber | AnyWorkflow) -> str:
    if not isinstance(of, Subscriber):
        return of.version
    return from_json(of.data)["version"] if of.data else "0"
