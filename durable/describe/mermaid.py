"""Shapes as Mermaid flowcharts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from durable.describe.shape import Node, NodeKind, WorkflowShape

if TYPE_CHECKING:
    from durable.describe.overlay import NodeState

OUTLINES: Final[Mapping[NodeKind, tuple[str, str]]] = {
    "start": ("([", "])"),
    "end": ("([", "])"),
    "step": ("[", "]"),
    "sleep": ("[/", "/]"),
    "wait_for_signal": ("{{", "}}"),
    "wait_for_event": ("{{", "}}"),
    "wait_for": ("{{", "}}"),
    "switch": ("{", "}"),
    "branch": ("(", ")"),
    "gather": ("[[", "]]"),
    "map": ("[[", "]]"),
    "child": ("[[", "]]"),
    "emit": (">", "]"),
    "note": (">", "]"),
    "rollback": ("[\\", "\\]"),
    "decision": ("{", "}"),
    "loop": ("{", "}"),
    "dynamic": ("[", "]"),
}
_LOOKS: Final[Mapping[str, str]] = {
    "dynamic": "stroke-dasharray:4 4",
    "ran": "fill:#d9f2dd,stroke:#2e7d32,color:#111",
    "current": "fill:#d6e8fb,stroke:#1565c0,stroke-width:3px,color:#111",
    "failed": "fill:#fbdada,stroke:#c62828,color:#111",
    "not_taken": "fill:#f4f4f4,stroke:#bbb,color:#888",
}
_HARMLESS: Final = frozenset(" .,_=()'+*/?!@$…")


def mermaid(shape: WorkflowShape, states: Mapping[str, NodeState] | None = None) -> str:
    """A flowchart; with `states`, each node in the look of its state."""
    names = {node.id: f"n{index}" for index, node in enumerate(shape.nodes)}
    lines = ["flowchart TD"]
    lines += [f"  {names[node.id]}{_outlined(node)}" for node in shape.nodes]
    for edge in shape.edges:
        arrow = f'-->|"{escaped(edge.label)}"|' if edge.label else "-->"
        lines.append(f"  {names[edge.source]} {arrow} {names[edge.target]}")
    looks: dict[str, list[str]] = {"dynamic": [names[n.id] for n in shape.nodes if n.kind == "dynamic"]}
    for id, state in (states or {}).items():
        looks.setdefault(state, []).append(names[id])
    for look, members in looks.items():
        if members and look in _LOOKS:
            lines += [f"  classDef {look} {_LOOKS[look]}", f"  class {','.join(members)} {look}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """The text with every sign that Mermaid or HTML could obey as a number."""
    return "".join(
        char if char.isalnum() or char in _HARMLESS else " " if char.isspace() else f"#{ord(char)};"
        for char in text
    )


def _outlined(node: Node) -> str:
    left, right = OUTLINES[node.kind]
    marks = " (transaction)" if node.in_transaction else ""
    if node.kind == "step" and node.has_compensation:
        marks += " (undo)"
    return f'{left}"{escaped(node.label + marks)}"{right}'
