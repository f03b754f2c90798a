"""Shapes in the DOT language of Graphviz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from durable.describe.shape import NodeKind, WorkflowShape

if TYPE_CHECKING:
    from durable.describe.overlay import NodeState

_OUTLINES: Final[Mapping[NodeKind, str]] = {
    "start": "oval",
    "end": "oval",
    "step": "box",
    "sleep": "parallelogram",
    "wait_for_signal": "hexagon",
    "wait_for_event": "hexagon",
    "wait_for": "hexagon",
    "switch": "diamond",
    "branch": "oval",
    "gather": "box3d",
    "map": "box3d",
    "child": "component",
    "emit": "cds",
    "note": "note",
    "rollback": "invtrapezium",
    "decision": "diamond",
    "loop": "diamond",
    "dynamic": "box",
}
_FILLS: Final[Mapping[str, str]] = {
    "ran": "#d9f2dd",
    "current": "#d6e8fb",
    "failed": "#fbdada",
    "not_taken": "#f4f4f4",
}


def dot(shape: WorkflowShape, states: Mapping[str, NodeState] | None = None) -> str:
    """A directed graph; with `states`, each node in the colour of its state."""
    names = {node.id: f"n{index}" for index, node in enumerate(shape.nodes)}
    lines = [f"digraph {quoted(shape.name)} {{"]
    for node in shape.nodes:
        facts = [f"label={quoted(node.label)}", f"shape={_OUTLINES[node.kind]}"]
        fill = _FILLS.get((states or {}).get(node.id, ""))
        if fill is not None:
            facts.append(f'style=filled, fillcolor="{fill}"')
        elif node.kind == "dynamic":
            facts.append("style=dashed")
        lines.append(f"  {names[node.id]} [{', '.join(facts)}];")
    for edge in shape.edges:
        label = f" [label={quoted(edge.label)}]" if edge.label else ""
        lines.append(f"  {names[edge.source]} -> {names[edge.target]}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def quoted(text: str) -> str:
    """A string of the DOT language that shows exactly this text, on one line."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
