"""What of their workflows the tests of a run have reached: `pytest --durable-coverage`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, final

from durable.app import Durable
from durable.describe import describe
from durable.describe.overlay import Coverage
from durable.models import ExecutionDetail
from durable.workflow import AnyWorkflow

Triple: TypeAlias = tuple[str, str, str]
"""An edge: source, target and label."""

_PAGE: Final = 100


@final
@dataclass(slots=True)
class Reached:
    """What of one workflow was reached so far."""

    nodes: Mapping[str, str]
    """By id, what each is called in a report. All of the shape's but `start` and `end`."""
    edges: Sequence[Triple]
    """Those that have a label."""
    reached: set[str] = field(default_factory=set[str])
    taken: set[Triple] = field(default_factory=set[Triple])

    def add(self, coverage: Coverage) -> None:
        here = {node.id for node in coverage.reached}
        self.reached |= here
        untaken = {(edge.source, edge.target, edge.label) for edge in coverage.untaken}
        self.taken |= {edge for edge in self.edges if edge[0] in here} - untaken

    def lines(self) -> list[str]:
        """What is missing."""
        missed = [name for id, name in self.nodes.items() if id not in self.reached]
        untaken = [
            f"{self.nodes.get(source, source)} --{label}-->"
            for source, target, label in self.edges
            if source in self.reached and (source, target, label) not in self.taken
        ]
        return [*(f"never reached: {name}" for name in missed), *(f"never taken: {way}" for way in untaken)]


@final
class TestRun:
    """What all tests of a run have reached, in one process or in several."""

    __test__ = False

    def __init__(self) -> None:
        self._found: dict[str, Reached] = {}
        """By where the workflow is, and its name."""

    async def look(self, durable: Durable) -> None:
        """Take up what has become of the executions that there are."""
        details: dict[str, list[ExecutionDetail]] = {}
        cursor: str | None = None
        while True:
            page = await durable.operator.list_executions(limit=_PAGE, cursor=cursor)
            for execution in page.items:
                detail = await durable.operator.get_execution_detail(execution.id)
                details.setdefault(f"{execution.workflow} {execution.version}", []).append(detail)
            cursor = page.cursor
            if cursor is None:
                break
        for workflow in durable.definitions():
            self.add(workflow, details.get(f"{workflow.name} {workflow.version}", []))

    def add(self, workflow: AnyWorkflow, details: Iterable[ExecutionDetail]) -> None:
        shape = describe(workflow)
        code = getattr(workflow.fn, "__code__", None)
        place = "" if code is None else f"{_short(code.co_filename)}:{code.co_firstlineno} "
        names = {
            node.id: node.label if node.line is None else f"{node.label} (line {node.line})"
            for node in shape.nodes
            if node.kind not in ("start", "end")
        }
        edges = [(edge.source, edge.target, edge.label) for edge in shape.edges if edge.label]
        self._of(f"{place}{workflow.name}", names, edges).add(shape.coverage(details))

    def _of(self, key: str, nodes: Mapping[str, str], edges: Sequence[Triple]) -> Reached:
        return self._found.setdefault(key, Reached(nodes, edges))

    def pack(self) -> list[Any]:
        """Plain JSON, for another process to `join`."""
        return [
            [
                key,
                dict(each.nodes),
                [list(edge) for edge in each.edges],
                sorted(each.reached),
                sorted(each.taken),
            ]
            for key, each in self._found.items()
        ]

    def join(self, packed: Iterable[Any]) -> None:
        """Take up what another process has packed."""
        for key, nodes, edges, reached, taken in packed:
            mine = self._of(key, nodes, [(source, target, label) for source, target, label in edges])
            mine.reached.update(reached)
            mine.taken.update((source, target, label) for source, target, label in taken)

    def lines(self) -> list[str]:
        """The report, workflow by workflow."""
        report: list[str] = []
        for key, each in sorted(self._found.items()):
            known = len(each.nodes)
            report.append(f"{key}: {len(each.reached & set(each.nodes))} of {known} nodes")
            report += [f"  {line}" for line in each.lines()]
        return report


def _short(file: str) -> str:
    path = Path(file)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.name


class _Measured:
    run: TestRun | None = None


def current() -> TestRun | None:
    """The run that is being measured in this process, if one is."""
    return _Measured.run


def measure(run: TestRun | None) -> None:
    """Measure for this run from now on; for None, no more."""
    _Measured.run = run
