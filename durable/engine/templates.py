"""`Template`: what is stored of a workflow, so that a process that does not have it can start it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

from durable.codec import plain
from durable.engine.options import Startable
from durable.flow_control import FlowControl
from durable.workflow import AnyWorkflow, Cancels, Registry, Workflow, natural_order


@final
@dataclass(frozen=True, slots=True)
class Template:
    """A workflow as plain data."""

    name: str
    version: str
    queue: str
    priority: int | str
    tags: Mapping[str, str]
    timeout_ms: int | None
    flow: FlowControl
    cancels: Sequence[Cancels]
    takes_input: bool
    needs_code: bool
    """It decides by a function: only a process that has it can start it."""

    @classmethod
    def of(cls, workflow: AnyWorkflow) -> Template:
        return cls(
            workflow.name,
            workflow.version,
            workflow.queue,
            0 if callable(workflow.priority) else workflow.priority,
            dict(workflow.tags),
            workflow.timeout_ms,
            workflow.flow,
            workflow.cancels,
            workflow.takes_input,
            workflow.flow.needs_code or callable(workflow.priority),
        )

    def to_dict(self) -> dict[str, object]:
        return {
            "version": self.version,
            "queue": self.queue,
            "priority": self.priority,
            "tags": self.tags,
            "timeout_ms": self.timeout_ms,
            "flow": self.flow.to_dict(),
            "cancels": [[each.event, dict(each.match)] for each in self.cancels],
            "takes_input": self.takes_input,
            "needs_code": self.needs_code,
        }

    @classmethod
    def from_dict(cls, name: str, found: Mapping[str, Any]) -> Template:
        return cls(
            name,
            found["version"],
            found["queue"],
            found["priority"],
            found["tags"],
            found["timeout_ms"],
            FlowControl.from_dict(name, found["flow"]),
            [Cancels(event, match) for event, match in found["cancels"]],
            found["takes_input"],
            found["needs_code"],
        )


def startable(template: Template, registry: Registry) -> Startable | None:
    """The workflow itself where it is registered; else what is stored of it, unless that is not enough."""
    return registry.newest_of(template.name) or (None if template.needs_code else template)


def decided_by(workflow: Startable, input: bytes) -> object:
    """The input as the rules of a workflow are to see it: as the body does, where one of them is a function."""
    needs_code = workflow.flow.needs_code or callable(workflow.priority)
    if isinstance(workflow, Workflow) and needs_code:
        known = cast("AnyWorkflow", workflow)
        return known.input_schema.load(input, f"the input of workflow {known.name}")
    return plain(input)


def is_newer(stored: str, ours: str) -> bool:
    """Whether the version that is stored is a later one."""
    return natural_order(stored) > natural_order(ours)
