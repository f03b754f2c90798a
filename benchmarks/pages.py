"""The generated parts of the pages of docs: whatever stands between two marks is made from the kept measurements.

<!-- generated: w1 -->
...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from benchmarks import model
from benchmarks.figures import BACKENDS, Figure
from benchmarks.one import WORKLOADS
from benchmarks.peers.catalogue import PEERS
from benchmarks.record import Record
from benchmarks.report import Row, aims, losses, number, rows, spread
from benchmarks.worlds import ROOT

_PART = re.compile(r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
_MANY = 8
_SUMMARY = ("w1", "w2", "w3", "w4", "w5", "w6", "w7")
PERFORMANCE = ROOT / "docs" / "performance.json"
PROFILE = ROOT / "docs" / "profile.json"
SCALING = ROOT / "docs" / "scaling.json"
PAGES = {
    ROOT / "README.md": PERFORMANCE,
    ROOT / "docs" / "performance.md": PERFORMANCE,
    ROOT / "docs" / "profile.md": PROFILE,
    ROOT / "docs" / "scaling.md": SCALING,
}
"""Page -> the measurements that it is made from."""


def write() -> None:
    for page, kept in PAGES.items():
        page.write_text(generated(page.read_text(), Record.load(kept)))


def origin(kept: Path) -> str:
    """What a plot says that it is made from, so that a test sees one that is left over."""
    return f"{kept.name} {sha256(kept.read_bytes()).hexdigest()[:16]}"


def generated(page: str, record: Record) -> str:
    """The page with its generated parts as the record has them."""
    found = rows(record)

    def part(mark: re.Match[str]) -> str:
        return f"{mark['begin']}{_part(mark['name'], record, found)}\n{mark['end']}"

    return _PART.sub(part, page)


def _part(name: str, record: Record, found: Sequence[Row]) -> str:
    if name in WORKLOADS:
        return _workload(name, [row for row in found if row.workload == name])
    return _PARTS[name](record, found)


def title(subject: str) -> str:
    return PEERS[subject].title if subject in PEERS else f"`{subject}`"


def described(record: Record) -> str:
    """The run, in a line or two."""
    machine = {name: value for name, value in record.machine.items() if value not in ("", 0)}
    parts = ", ".join(f"{name} {value}" for name, value in machine.items() if name not in ("system", "load"))
    told = f"{record.taken_at}; {machine['system']}, {parts}; load {machine['load']} before, {record.load_after} after."
    busy = (
        "\nThe machine was busy: the times are too long, and none of them is final." if record.is_busy else ""
    )
    scaled = f"\nAt scale {record.scale:g}: less work than the full." if record.scale != 1 else ""
    return f"{told} {record.rounds} rounds, {record.seconds / 60:.0f} minutes.{busy}{scaled}"


# ---- the parts


def _run(record: Record, found: Sequence[Row]) -> str:
    facts = [("Taken", record.taken_at), ("Command", f"`{record.command}`")]
    facts += [
        (name, str(value))
        for name, value in record.machine.items()
        if name != "load" and value not in ("", 0)
    ]
    facts += [
        ("load before, after", f"{record.machine['load']}, {record.load_after}"),
        ("rounds", f"{record.rounds}, interleaved; {record.seconds / 60:.0f} minutes in all"),
    ]
    notes: list[str] = []
    if record.is_busy:
        notes.append(
            "**Not final: the machine was busy with other work.** Times are too long, most of all where processes "
            "share the cores; ratios suffer less."
        )
    if record.scale != 1:
        notes.append(f"**Not final: at scale {record.scale:g}**, less work than the full.")
    absences = [
        f"- {title(each.subject)}{f', `{each.workload}`' if each.workload else ''}: {each.reason}"
        for each in record.absences
    ]
    parts = [*notes, markdown(("", ""), facts)]
    if absences:
        parts.append("Absent, with the reason:\n\n" + "\n".join(absences))
    return "\n\n".join(parts)


def _workload(name: str, found: Sequence[Row]) -> str:
    """A line for each subject and a column for each figure, or the other way where there are many figures."""
    figures = [figure for figure in WORKLOADS[name].figures if any(row.figure is figure for row in found)]
    subjects = list(dict.fromkeys(row.subject for row in found))
    by = {(row.figure.name, row.subject): row for row in found}
    compared = any(subject in PEERS for subject in subjects)
    if len(figures) > _MANY:
        lines = [
            [figure.name, *(_cell(by.get((figure.name, each))) for each in subjects)] for figure in figures
        ]
        table = markdown(["", *map(title, subjects)], lines)
    else:
        table = _by_subject(figures, subjects, by, compared)
    return f"{table}\n\nPrinted by `python -m benchmarks run {name}{' --peers' * compared}`."


def _by_subject(
    figures: Sequence[Figure], subjects: Sequence[str], by: Mapping[tuple[str, str], Row], compared: bool
) -> str:
    shared = [figure for figure in figures if any(by[key].shares for key in by if key[0] == figure.name)]
    of_ceiling = [f"of ceiling: {figure.name}" if len(shared) > 1 else "of ceiling" for figure in shared]
    columns = ["", *(figure.name for figure in figures), *of_ceiling, *["ours is better by"] * compared]
    lines: list[Sequence[str]] = []
    for subject in subjects:
        rows_of = [by.get((figure.name, subject)) for figure in figures]
        shares = [by.get((figure.name, subject)) for figure in shared]
        line = [title(subject), *map(_cell, rows_of)]
        line += ["" if row is None or row.share is None else f"{row.share:.0%}" for row in shares]
        if compared:
            line.append(_ratios([row for row in rows_of if row is not None]))
        lines.append(line)
    return markdown(columns, lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    return number(row.median) if len(row.values) == 1 else f"{number(row.median)} ({spread(row.values)})"


def _ratios(cells: Iterable[Row]) -> str:
    """Of a peer: of its first figure that can be compared."""
    for row in cells:
        if row.subject in PEERS and row.times:
            return ", ".join(f"`{name}` {_times(times)}" for name, times in row.times.items())
    return ""


def _times(times: float) -> str:
    return f"{number(times)} ×" if times < 10 else f"{times:,.0f} ×"


def _summary(record: Record, found: Sequence[Row]) -> str:
    """One figure of each workload, the first."""
    firsts = {name: WORKLOADS[name].figures[0] for name in _SUMMARY}
    columns = ["", *(f"`{name}` {figure.name}" for name, figure in firsts.items())]
    by = {(row.workload, row.figure.name, row.subject): row for row in found}
    lines = [
        [title(subject), *("-" if row is None else number(row.median) for row in cells)]
        for subject in (*BACKENDS, *PEERS)
        if any(
            cells := [by.get((name, figure.name, subject)) for name, figure in firsts.items()],
        )
    ]
    return markdown(columns, lines)


def _headline(record: Record, found: Sequence[Row]) -> str:
    """Nothing but what is final."""
    if record.is_busy or record.scale != 1:
        return "There are no final figures yet."
    return _summary(record, found)


def _losses(record: Record, found: Sequence[Row]) -> str:
    lines = [
        (
            f"`{row.workload}` {row.figure.name}",
            f"`{row.subject}`",
            number(row.median),
            title(peer),
            _times(times),
        )
        for row, peer, times in losses(found)
    ]
    if not lines:
        return "In this run in nothing that is compared."
    return markdown(("", "ours", "", "better", "by"), lines)


def _aims(record: Record, found: Sequence[Row]) -> str:
    lines = [
        (
            f"`{aim.workload}` {aim.figure}",
            f"`{aim.subject}`",
            aim.asked,
            aim.is_,
            "yes" if aim.verdict == "goal" else "no",
        )
        for aim in aims(found)
    ]
    return markdown(("", "on", "goal", "is", "met"), lines)


def _model(record: Record, found: Sequence[Row]) -> str:
    return model.text(record, markdown)


_PARTS: Mapping[str, Callable[[Record, Sequence[Row]], str]] = {
    "run": _run,
    "summary": _summary,
    "headline": _headline,
    "losses": _losses,
    "aims": _aims,
    "model": _model,
}


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" if column else "---" for column in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *lines))
