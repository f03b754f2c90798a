"""The graph while it is drawn: nodes without ids, and the loose ends that the next node is joined to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

from durable.describe.shape import Edge, Node, NodeKind


@final
@dataclass(slots=True, eq=False)
class Draft:
    """A node that is being drawn."""

    kind: NodeKind
    label: str
    line: int | None = None
    file: str | None = None
    name: str | None = None
    """Of what has a checkpoint: what its id is made of."""
    has_compensation: bool = False
    in_transaction: bool = False
    signal: str | None = None
    timeout: str | None = None
    workflow: str | None = None
    pattern: str | None = None
    within: str = ""
    """Of a branch its switch."""
    prunable: bool = False
    """It says nothing when all ways from it lead to the same place."""


@final
@dataclass(frozen=True, slots=True)
class Exit:
    """A loose end: the way out of a node, under a label, and how it leaves the function if it does: "raise Fail"."""

    draft: Draft
    label: str = ""
    outcome: str = ""

    def leaving(self, outcome: str) -> Exit:
        return Exit(self.draft, self.label, outcome)


Exits: TypeAlias = list[Exit]


@final
@dataclass(slots=True, eq=False)
class Drawing:
    """Nodes and edges so far. `ends` is where the next node is joined; empty where nothing can come next."""

    start: Draft
    end: Draft
    drafts: list[Draft] = field(default_factory=list[Draft])
    edges: dict[tuple[Exit, Draft], None] = field(default_factory=dict["tuple[Exit, Draft]", None])
    """In the order in which they were drawn."""
    ends: Exits = field(default_factory=list[Exit])

    def __post_init__(self) -> None:
        self.drafts.append(self.start)
        self.ends = [Exit(self.start)]

    def add(self, draft: Draft) -> Draft:
        """Join a node to the loose ends. It is the only loose end then."""
        self.drafts.append(draft)
        self.join(self.ends, draft)
        self.ends = [Exit(draft)]
        return draft

    def join(self, exits: Iterable[Exit], draft: Draft) -> None:
        for exit in exits:
            self.edges.setdefault((exit, draft))

    def finished(self) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
        """The nodes with their ids, and the edges, without what says nothing."""
        self.drafts.append(self.end)
        self._prune()
        ids = _ids(self.drafts)
        nodes = tuple(
            Node(
                id=ids[draft],
                kind=draft.kind,
                label=draft.label,
                line=draft.line,
                has_compensation=draft.has_compensation,
                in_transaction=draft.in_transaction,
                signal=draft.signal,
                timeout=draft.timeout,
                workflow=draft.workflow,
                file=draft.file,
                pattern=draft.pattern,
            )
            for draft in self.drafts
        )
        edges: dict[Edge, None] = {}
        place = {draft: index for index, draft in enumerate(self.drafts)}
        for exit, target in sorted(self.edges, key=lambda edge: place[edge[0].draft]):
            label = ", ".join(filter(None, (exit.label, exit.outcome)))
            edges[Edge(ids[exit.draft], ids[target], label)] = None
        return nodes, tuple(edges)

    def _prune(self) -> None:
        """Take out decisions and loops from which all ways lead to the same place, and nothing is on the way."""
        after: dict[Draft, list[tuple[Exit, Draft]]] = {draft: [] for draft in self.drafts}
        before: dict[Draft, list[Exit]] = {draft: [] for draft in self.drafts}
        for exit, target in self.edges:
            after[exit.draft].append((exit, target))
            before[target].append(exit)
        for draft in [draft for draft in self.drafts if draft.prunable]:
            ways = [way for way in after[draft] if way[1] is not draft]
            if _differ(ways):
                ways = _ways(draft, after)
                if _differ(ways):
                    continue
            self.drafts.remove(draft)
            for _, target in after.pop(draft):
                before[target] = [exit for exit in before[target] if exit.draft is not draft]
            for exit in before.pop(draft):
                after[exit.draft] = [way for way in after[exit.draft] if way[1] is not draft]
                for way, target in ways[:1]:
                    further = Exit(exit.draft, exit.label, way.outcome)
                    after[exit.draft].append((further, target))
                    before[target].append(further)
        self.edges = {edge: None for edges in after.values() for edge in edges}


def _ways(draft: Draft, after: Mapping[Draft, Sequence[tuple[Exit, Draft]]]) -> list[tuple[Exit, Draft]]:
    """Where it leads, through whatever else may be taken out."""
    ways: list[tuple[Exit, Draft]] = []
    seen, left = {draft}, [draft]
    while left:
        for exit, target in after[left.pop()]:
            if not target.prunable:
                ways.append((exit, target))
            elif target not in seen:
                seen.add(target)
                left.append(target)
    return ways


def _differ(ways: list[tuple[Exit, Draft]]) -> bool:
    return len({(id(target), exit.outcome) for exit, target in ways}) > 1


def _ids(drafts: list[Draft]) -> dict[Draft, str]:
    """Those with a checkpoint are named first, so that a step called `start` is `start`."""
    ids: dict[Draft, str] = {}
    used: set[str] = set()
    for draft in sorted(drafts, key=lambda draft: draft.name is None):
        base = draft.name if draft.name is not None else _structural(draft)
        id, number = base, 1
        while id in used:
            number += 1
            id = f"{base}#{number}"
        used.add(id)
        ids[draft] = id
    return ids


def _structural(draft: Draft) -> str:
    if draft.kind == "branch":
        return f"{draft.within}/{draft.label}"
    return draft.kind


def shortened(text: str, most: int = 80) -> str:
    """The text on one line, and no longer than a label should be."""
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= most else f"{text[: most - 1]}…"
