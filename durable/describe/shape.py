"""The shape of a workflow: what its source says may happen, as nodes and edges."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, final

if TYPE_CHECKING:
    from durable.describe.overlay import Coverage, Overlay
    from durable.models import ExecutionDetail

NodeKind: TypeAlias = Literal[
    "start",
    "end",
    "step",
    "sleep",
    "wait_for_signal",
    "wait_for_event",
    "wait_for",
    "switch",
    "branch",
    "gather",
    "map",
    "child",
    "emit",
    "note",
    "rollback",
    "decision",
    "loop",
    "dynamic",
]


@final
@dataclass(frozen=True, slots=True)
class Node:
    """One thing that the source says may happen. What a kind has no use for is None."""

    id: str
    """Unique in the shape. Of what has a checkpoint its name, with `#2` where the source names it again."""
    kind: NodeKind
    label: str
    """For people: a name, a duration, a condition. Of a `dynamic` node the source that could not be followed."""
    line: int | None = None
    """In the workflow's file, or in `file`."""
    has_compensation: bool = False
    in_transaction: bool = False
    """A step in a transaction of the store's database."""
    signal: str | None = None
    """The signal or the event; several, of `wait_for_any`, with commas between them."""
    timeout: str | None = None
    """As it is written: "3d". Of a sleep how long it is; the expression, where that is all that is known."""
    workflow: str | None = None
    """The workflow of a child."""
    file: str | None = None
    """None: the file of the workflow itself."""
    pattern: str | None = None
    """A regular expression for names of which a part is known when it runs: `f"charge-{n}"`."""


@final
@dataclass(frozen=True, slots=True)
class Edge:
    """`target` may come right after `source`."""

    source: str
    target: str
    label: str = ""
    """What has to hold: `true`, `timeout`, a case, an exception ... Empty: nothing in particular."""


@final
@dataclass(frozen=True, slots=True)
class WorkflowShape:
    """What may happen in a workflow, as `describe` read it from the source.

    There is one node for each call that the source makes of `ctx`, and again for each call of a function that makes
    it. What is decided only while it runs is a `dynamic` node: nothing is left out in silence.
    """

    name: str
    version: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    notes: tuple[str, ...] = field(default=())
    """What a reader should know of the shape itself: that there was no source, say."""

    def node(self, id: str) -> Node:
        """The node of that id. Raises `KeyError` when there is none."""
        for node in self.nodes:
            if node.id == id:
                return node
        raise KeyError(id)

    def to_json(self) -> str:
        """All of it, as JSON text."""
        return json.dumps(asdict(self), indent=2)

    def to_mermaid(self) -> str:
        """A Mermaid flowchart, which GitHub and many others show in Markdown."""
        from durable.describe.mermaid import mermaid

        return mermaid(self)

    def to_dot(self) -> str:
        """A graph in the DOT language of Graphviz."""
        from durable.describe.dot import dot

        return dot(self)

    def to_svg(self) -> str:
        """A picture, as SVG text.

        Raises:
            ConfigurationError: the extra `diagrams` is not installed.
        """
        from durable.describe.picture import svg

        return svg(self.to_mermaid())

    def to_ascii(self) -> str:
        """A picture of letters and lines, for a terminal. Raises `ConfigurationError` as `to_svg` does."""
        from durable.describe.picture import ascii_art

        return ascii_art(self.to_mermaid())

    def overlay(self, detail: ExecutionDetail) -> Overlay:
        """What one execution did of it: which nodes ran, failed, are current, or were not taken."""
        from durable.describe.overlay import overlay

        return overlay(self, detail)

    def coverage(self, details: Iterable[ExecutionDetail]) -> Coverage:
        """Which nodes any of these executions reached, and which none did."""
        from durable.describe.overlay import coverage

        return coverage(self, details)
