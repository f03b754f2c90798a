"""Which ways executions went through a shape: the edges between what they came to, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from durable.describe.shape import Edge, Node, NodeKind, WorkflowShape
from durable.models import ExecutionDetail, ExecutionStatus, StepRecord

Visit: TypeAlias = tuple[StepRecord, Node]

STRUCTURE: Final[frozenset[NodeKind]] = frozenset({"gather", "decision", "loop", "branch", "rollback"})
"""What has no checkpoint, or none that says when it was passed."""
_RECEIVED: Final = "received"
_TIMEOUT: Final = "timeout"


def ways_taken(
    shape: WorkflowShape, detail: ExecutionDetail, visits: Sequence[Visit], barred: Collection[str]
) -> set[Edge]:
    """The edges that an execution went along, as far as its checkpoints tell.

    Between two of them it is the shortest way that leads by none of `barred`. Edges side by side, whose difference no
    checkpoint shows, are taken as well.
    """
    leaving: dict[str, list[Edge]] = {node.id: [] for node in shape.nodes}
    for edge in shape.edges:
        leaving[edge.source].append(edge)
    kinds: dict[str, NodeKind] = {node.id: node.kind for node in shape.nodes}
    start, end = shape.nodes[0].id, shape.nodes[-1].id
    consumed = {signal.consumed_by for signal in detail.signals}
    before: list[tuple[str, str | None]] = [(start, None)]
    found: set[Edge] = set()
    for record, node in visits:
        found.update(_from_any(before, node.id, leaving, kinds, barred))
        before.append((node.id, _outcome(record, consumed)))
    is_by_itself = not visits or visits[-1][0].status != "failed"
    if detail.execution.status.final and is_by_itself and _reaches_end(detail.execution.status):
        found.update(_from_any(before, end, leaving, kinds, barred))
    return found


def _reaches_end(status: ExecutionStatus) -> bool:
    """Whether the body came to an end of its own, by a `return` or a `raise`."""
    return status in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)


def _outcome(record: StepRecord, consumed: Collection[str | None]) -> str | None:
    """The label of the edge by which a wait was left; None where that is not known."""
    if not record.kind.startswith("wait_for") or record.finished_at is None:
        return None
    if record.id in consumed or record.result is not None:
        return _RECEIVED
    # Of an event without a payload nothing tells it from a timeout.
    return _TIMEOUT if record.kind == "wait_for_signal" else None


def _from_any(
    before: Sequence[tuple[str, str | None]],
    target: str,
    leaving: Mapping[str, Sequence[Edge]],
    kinds: Mapping[str, NodeKind],
    barred: Collection[str],
) -> Iterator[Edge]:
    """The way from the last place that has one: of branches side by side each begins where they parted."""
    for source, outcome in reversed(before):
        way = _way(source, outcome, target, leaving, kinds, barred)
        if way is not None:
            for edge in way:
                side_by_side = (e for e in leaving[edge.source] if e.target == edge.target)
                yield from (edge,) if edge.source == source and outcome else side_by_side
            return


def _way(
    source: str,
    outcome: str | None,
    target: str,
    leaving: Mapping[str, Sequence[Edge]],
    kinds: Mapping[str, NodeKind],
    barred: Collection[str],
) -> list[Edge] | None:
    by: dict[str, Edge] = {}
    left = [source]
    while left:
        here = left.pop(0)
        for edge in leaving[here]:
            if here == source and outcome and edge.label in (_RECEIVED, _TIMEOUT) and edge.label != outcome:
                continue
            if edge.target == target:
                way = [edge]
                while way[-1].source != source:
                    way.append(by[way[-1].source])
                return way
            if kinds[edge.target] in STRUCTURE and edge.target not in {source, *by, *barred}:
                by[edge.target] = edge
                left.append(edge.target)
    return None
