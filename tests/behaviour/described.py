"""Whether `describe` knew what ran: each checkpoint of each execution is a node of its workflow's shape."""

from __future__ import annotations

from durable import Durable, ExecutionDetail, WorkflowShape, describe
from durable.workflow import Registry
from tests.support import World


async def check_shapes(world: World) -> None:
    """Compare all that ran in a world with what `describe` says of the workflows that its nodes knew."""
    shapes: dict[str, dict[int, WorkflowShape]] = {}
    for source in world.workflows:
        for workflow in Registry([source]):
            shapes.setdefault(workflow.name, {})[id(workflow)] = describe(workflow)
    for namespace in world.namespaces:
        client = Durable(store=world.url, worker=False, namespace=namespace, clock=world.clock)
        async with client:
            for execution in (await client.operator.list_executions(limit=1000)).items:
                known = shapes.get(execution.workflow)
                if known:
                    detail = await client.operator.get_execution_detail(execution.id)
                    # Of several versions of the code each may have run a part.
                    strange = set.intersection(*(unknown(shape, detail) for shape in known.values()))
                    assert not strange, (
                        f"{execution.workflow} did what describe() did not see coming: {strange}"
                    )


def unknown(shape: WorkflowShape, detail: ExecutionDetail) -> set[str]:
    """Checkpoints that are none of the shape's nodes."""
    return {f"{record.kind} {record.id}" for record in shape.overlay(detail).unknown}
