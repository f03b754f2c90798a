"""What differs between two shapes of a workflow: steps that came, went, were renamed, or have another place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal, TypeAlias, final

from typing_extensions import override

from durable.describe.shape import Node, NodeKind, WorkflowShape

Change: TypeAlias = Literal["added", "removed", "renamed", "moved", "changed"]

_STRUCTURE: Final[frozenset[NodeKind]] = frozenset({"start", "end", "gather", "decision", "loop", "branch"})


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that changed. `before` is missing of what was added, `after` of what was removed."""

    change: Change
    before: Node | None
    after: Node | None

    @override
    def __str__(self) -> str:
        node = self.after or self.before
        assert node is not None
        what = f"{node.kind} {node.id}"
        match self.change:
            case "added":
                return f"+ {what}"
            case "removed":
                return f"- {what}"
            case "renamed":
                return f"~ {node.kind} {self.before.id if self.before else ''} is now {node.id}"
            case "moved":
                return f"> {what} has another place"
            case "changed":
                return f"! {what}: {', '.join(self.facts())}"

    def facts(self) -> Iterator[str]:
        """What is another of a node that is there in both: "timeout was 1h, is 2h"."""
        before, after = self.before, self.after
        assert before is not None
        assert after is not None
        for name in ("kind", "timeout", "signal", "workflow", "has_compensation", "in_transaction"):
            if getattr(before, name) != getattr(after, name):
                yield f"{name} was {getattr(before, name)}, is {getattr(after, name)}"


def differences(before: WorkflowShape, after: WorkflowShape) -> tuple[Difference, ...]:
    """What changed from one to the other, in the order of the present source, then what is gone.

    A node that is gone and one that is new, of one kind and between the same neighbours, are taken for one that was
    renamed. To live executions that is a removal and an addition.
    """
    old, new = _named(before), _named(after)
    by_id = {node.id: node for node in old}
    kept = [node for node in new if node.id in by_id]
    renamed = dict(_renamed(old, new))
    stay = _in_order([node.id for node in old], [node.id for node in kept])
    found: list[Difference] = []
    for node in new:
        was = by_id.get(node.id)
        if was is None:
            one = renamed.get(node.id)
            found.append(Difference("added" if one is None else "renamed", one, node))
            continue
        if node.id not in stay:
            found.append(Difference("moved", was, node))
        if any(Difference("changed", was, node).facts()):
            found.append(Difference("changed", was, node))
    ids = {node.id for node in new}
    gone = [node for node in old if node.id not in ids and node not in renamed.values()]
    return (*found, *(Difference("removed", node, None) for node in gone))


def _named(shape: WorkflowShape) -> list[Node]:
    return [node for node in shape.nodes if node.kind not in _STRUCTURE]


def _renamed(old: Sequence[Node], new: Sequence[Node]) -> Iterator[tuple[str, Node]]:
    """Of what is gone and what is new between two nodes that stayed, one for one."""
    before, after = {node.id for node in old}, {node.id for node in new}
    matcher = SequenceMatcher(None, [n.id for n in old], [n.id for n in new], autojunk=False)
    at_old = at_new = 0
    for i, j, size in matcher.get_matching_blocks():
        gone = [node for node in old[at_old:i] if node.id not in after]
        come = [node for node in new[at_new:j] if node.id not in before]
        if [node.kind for node in gone] == [node.kind for node in come]:
            yield from zip([node.id for node in come], gone, strict=True)
        at_old, at_new = i + size, j + size


def _in_order(old: Sequence[str], kept: Sequence[str]) -> set[str]:
    """The most of `kept` that come in the order that they had."""
    known = set(kept)
    matcher = SequenceMatcher(None, [id for id in old if id in known], kept, autojunk=False)
    return {id for block in matcher.get_matching_blocks() for id in kept[block.b : block.b + block.size]}
