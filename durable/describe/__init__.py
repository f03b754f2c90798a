"""The shape of a workflow, read from its source: what it may do, before it has done anything.

    describe(workflow)
      source       from the function to its source, and from a name to what it means
      expressions  what an expression is known to be            values, frames
      flow         where control goes                           drafts
      operations   what the calls of ctx are                    calls: functions that are followed
      body         the statements                               patterns
      live         the shape of a workflow that is imported
      shape        the result: nodes and edges                  mermaid, dot, picture
      overlay      what executions did of it
      revision     the shape at another revision of the source  changes: what differs

Nothing of the workflow runs, and nothing is imported for it. What only a run can decide is a `dynamic` node.
"""

from durable.describe.shape import Edge, Node, NodeKind, WorkflowShape
from durable.workflow import AnyWorkflow

__all__ = ["Edge", "Node", "NodeKind", "WorkflowShape", "describe"]


def describe(workflow: AnyWorkflow) -> WorkflowShape:
    """What the source of a workflow says may happen in it. No store is touched, and none of its code runs.

    Functions that are given the context are followed, wherever they are. Where there is no source (code that was
    typed into a REPL or made by `exec`), the shape is a single `dynamic` node, and its `notes` say so.

    Raises:
        ConfigurationError: it is no workflow.
    """
    from durable.describe.live import shape_of

    return shape_of(workflow)
