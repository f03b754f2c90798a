"""The shape of a workflow that is imported here."""

from __future__ import annotations

from durable._error import shown
from durable.describe.body import Body, Modules, loaded
from durable.describe.drafts import Draft, Drawing
from durable.describe.frames import Frame
from durable.describe.shape import WorkflowShape
from durable.describe.source import live_function
from durable.describe.values import Function
from durable.errors import ConfigurationError
from durable.workflow import AnyWorkflow, Workflow


def shape_of(workflow: AnyWorkflow) -> WorkflowShape:
    """As `describe`."""
    if not _is_workflow(workflow):
        raise ConfigurationError(
            f"{shown(workflow)} is no workflow", "describe a function that carries @workflow"
        )
    function = live_function(workflow.fn)
    if function is None:
        return _without_source(workflow)
    return drawn(workflow.name, workflow.version, function, compensates=workflow.rollback == "on_failure")


def drawn(
    name: str, version: str, function: Function, *, compensates: bool, modules: Modules = loaded
) -> WorkflowShape:
    """The shape of a workflow's function."""
    line = function.node.lineno
    drawing = Drawing(Draft("start", name, line), Draft("end", "end"))
    Body(drawing, Frame(function.scope, function.node), modules).draw(function, compensates=compensates)
    nodes, edges = drawing.finished()
    return WorkflowShape(name, version, nodes, edges)


def _is_workflow(given: object) -> bool:
    return isinstance(given, Workflow)


def _without_source(workflow: AnyWorkflow) -> WorkflowShape:
    drawing = Drawing(Draft("start", workflow.name), Draft("end", "end"))
    drawing.add(Draft("dynamic", f"{workflow.name}: no source"))
    drawing.join(drawing.ends, drawing.end)
    nodes, edges = drawing.finished()
    note = f"the source of {workflow.where} is not there to be read, or is not what was loaded"
    return WorkflowShape(workflow.name, workflow.version, nodes, edges, (note,))
