"""What executions did of a shape: each checkpoint is a node, by its kind and its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, final

from durable.describe.shape import Edge, Node, NodeKind, WorkflowShape
from durable.describe.ways import STRUCTURE, Visit, ways_taken
from durable.models import ExecutionDetail, ExecutionStatus, StepRecord

NodeState: TypeAlias = Literal["ran", "current", "failed", "not_taken", "ahead"]
"""`ahead`: it may still come. `not_taken`: the execution has ended without it."""

_KINDS: Final[Mapping[str, tuple[NodeKind, ...]]] = {
    "step": ("step", "map"),
    "start": ("child",),
    "signal": ("emit",),
    "cancel": ("emit",),
    "value": ("note",),
    "patched": ("decision",),
    "rollback": ("step", "map"),
}
"""Which nodes a checkpoint of a kind may be of; others are of their own kind."""
_BRANCH: Final = re.compile(r"#[0-9.]+#?/")
_USE: Final = re.compile(r"#[0-9]+$")
_ITEM: Final = re.compile(r"\[[0-9]+\]$")


@final
@dataclass(frozen=True, slots=True)
class Overlay:
    """A shape, with what one execution did of it."""

    shape: WorkflowShape
    states: Mapping[str, NodeState]
    """By the id of the node."""
    unknown: tuple[StepRecord, ...]
    """Checkpoints that no node is known for: the source is another one than that which ran."""

    def to_mermaid(self) -> str:
        """As that of the shape, each node in the look of its state."""
        from durable.describe.mermaid import mermaid

        return mermaid(self.shape, self.states)

    def to_dot(self) -> str:
        """As that of the shape, each node in the colour of its state."""
        from durable.describe.dot import dot

        return dot(self.shape, self.states)

    def to_svg(self) -> str:
        """A picture, as that of the shape. Raises `ConfigurationError` as `WorkflowShape.to_svg` does."""
        from durable.describe.picture import svg

        return svg(self.to_mermaid())


@final
@dataclass(frozen=True, slots=True)
class Coverage:
    """What of a shape executions have reached."""

    reached: tuple[Node, ...]
    missed: tuple[Node, ...]
    untaken: tuple[Edge, ...] = ()
    """Edges with a label (a case, `false`, `timeout` ...) that lead on from what was reached, and that none took."""

    @property
    def ratio(self) -> float:
        """From 0 to 1: how much of the shape was reached."""
        return len(self.reached) / (len(self.reached) + len(self.missed))


def overlay(shape: WorkflowShape, detail: ExecutionDetail) -> Overlay:
    """What one execution did of `shape`."""
    return _followed(shape, detail)[0]


def _followed(shape: WorkflowShape, detail: ExecutionDetail) -> tuple[Overlay, set[Edge]]:
    """What one execution did, and the edges that it took."""
    status = detail.execution.status
    visits: list[Visit] = []
    states: dict[str, NodeState] = {}
    unknown: list[StepRecord] = []
    chosen, barred = set[str](), set[str]()
    last: Node | None = None
    paths = _Paths(shape)
    for record in detail.steps:
        node = paths.nearest(candidates(shape, record), last, record)
        if node is None:
            unknown.append(record)
            continue
        if record.kind == "rollback":
            undone = [each for each in shape.nodes if each.kind == "rollback"]
            chosen.update(each.id for each in undone)
            continue
        if record.kind == "switch":
            taken, left = paths.branches(node, record)
            chosen |= taken
            barred |= left
        states[node.id] = _worse(states.get(node.id), _state(record, final=status.final))
        visits.append((record, node))
        last = node
    edges = ways_taken(shape, detail, visits, barred - chosen)
    start, end = shape.nodes[0].id, shape.nodes[-1].id
    if detail.execution.started_at is not None or detail.steps:
        states[start] = "ran"
    if status.final:
        states[end] = "ran" if status is ExecutionStatus.COMPLETED else "failed"
    for id in (*chosen, *paths.between(states, barred - chosen)):
        states.setdefault(id, "ran")
    rest: NodeState = "not_taken" if status.final else "ahead"
    whole: dict[str, NodeState] = {node.id: states.get(node.id, rest) for node in shape.nodes}
    return Overlay(shape, whole, tuple(unknown)), edges


def coverage(shape: WorkflowShape, details: Iterable[ExecutionDetail]) -> Coverage:
    """What any of `details` reached."""
    seen: set[str] = set()
    ways: set[Edge] = set()
    for detail in details:
        laid, edges = _followed(shape, detail)
        seen.update(id for id, state in laid.states.items() if state not in ("not_taken", "ahead"))
        ways |= edges
    reached = tuple(node for node in shape.nodes if node.id in seen)
    missed = tuple(node for node in shape.nodes if node.id not in seen)
    untaken = (e for e in shape.edges if e.label and e.source in seen and e not in ways)
    return Coverage(reached, missed, tuple(untaken))


def candidates(shape: WorkflowShape, record: StepRecord) -> list[Node]:
    """The nodes that a checkpoint may be of: by their names, or else those that are known only when they run."""
    kinds = _KINDS.get(record.kind, (record.kind,))
    id = record.id.removeprefix("rollback:") if record.kind == "rollback" else record.id
    id = _BRANCH.sub("", id, count=1) if id.startswith("#") else id
    names = {id, _USE.sub("", id)}
    names |= {_USE.sub("", _ITEM.sub("", name)) for name in names}
    found = [node for node in shape.nodes if node.kind in kinds and _is_called(node, names)]
    if record.kind == "rollback":
        found = [node for node in found if node.has_compensation]
    return found or [node for node in shape.nodes if node.kind == "dynamic"]


def _is_called(node: Node, names: Iterable[str]) -> bool:
    if node.pattern is not None:
        return any(re.fullmatch(node.pattern, name, re.DOTALL) for name in names)
    return any(name in (node.id, _USE.sub("", node.id)) for name in names)


def _state(record: StepRecord, *, final: bool) -> NodeState:
    if record.status == "failed":
        return "failed"
    if record.finished_at is None:
        return "failed" if final and record.status == "retrying" else "current"
    return "ran"


def _worse(one: NodeState | None, other: NodeState) -> NodeState:
    """Of a node that was visited several times what matters most: where it is now, then where it failed last."""
    return "current" if "current" in (one, other) else other


@final
class _Paths:
    """Ways through a shape."""

    def __init__(self, shape: WorkflowShape) -> None:
        self.nodes = {node.id: node for node in shape.nodes}
        self.after: dict[str, list[str]] = {id: [] for id in self.nodes}
        for edge in shape.edges:
            self.after[edge.source].append(edge.target)

    def nearest(self, found: Sequence[Node], last: Node | None, record: StepRecord) -> Node | None:
        """Of several nodes of one name that which comes first behind the last one, by its number where it has one."""
        if len(found) <= 1:
            return found[0] if found else None
        exact = [node for node in found if node.id == record.id]
        if exact and not any(self._distance(node.id, node.id) for node in found):
            return exact[0]
        origin = next(iter(self.nodes)) if last is None else last.id
        return min(found, key=lambda node: self._distance(origin, node.id) or len(self.nodes))

    def branches(self, switch: Node, record: StepRecord) -> tuple[set[str], set[str]]:
        """The branch that a switch took, and those that it did not take."""
        branches = [self.nodes[id] for id in self.after[switch.id] if self.nodes[id].kind == "branch"]
        result = record.result
        name = cast("Mapping[str, object]", result).get("branch") if isinstance(result, Mapping) else None
        taken = {node.id for node in branches if node.label == ("default" if name is None else name)}
        return taken, {node.id for node in branches} - taken

    def between(self, states: Mapping[str, NodeState], barred: Collection[str]) -> list[str]:
        """Decisions, loops and their kind on the shortest ways between what ran."""
        ran = set(states)
        found: set[str] = set()
        for source in ran:
            trail: dict[str, str] = {}
            left = [source]
            while left:
                here = left.pop(0)
                for target in self.after[here]:
                    if target in ran:
                        found.update(_back(here, source, trail))
                    elif self.nodes[target].kind in STRUCTURE and target not in {*trail, *barred}:
                        trail[target] = here
                        left.append(target)
        return [id for id in self.nodes if id in found]

    def _distance(self, source: str, target: str) -> int | None:
        """How many edges lead from one to the other, at least one; None if none do."""
        seen, level, distance = {source}, [source], 0
        while level:
            distance += 1
            following = [after for here in level for after in self.after[here]]
            if target in following:
                return distance
            level = [id for id in dict.fromkeys(following) if id not in seen]
            seen.update(level)
        return None


def _back(here: str, source: str, trail: Mapping[str, str]) -> Iterable[str]:
    while here != source:
        yield here
        here = trail[here]
