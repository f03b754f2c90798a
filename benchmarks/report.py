"""Medians of the rounds with their spread, beside the ceiling, the peers and the goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import BACKENDS, CONTRIBUTED, Figure
from benchmarks.one import WORKLOADS
from benchmarks.peers.catalogue import PEERS
from benchmarks.record import Record

SUBJECTS = (*BACKENDS, *CONTRIBUTED, *PEERS)
"""Everything that is measured, in the order in which it is shown."""


@dataclass(frozen=True)
class Row:
    """One figure on one subject."""

    workload: str
    figure: Figure
    subject: str
    values: Sequence[float]
    shares: Sequence[float] = ()
    """Of the ceiling in the same round, where one was measured: 1.0 is as good as a bare program."""
    times: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of a peer: how many times better each of our backends is that it is compared with. Of ours: the same, of each
    peer that it is to beat."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def share(self) -> float | None:
        return statistics.median(self.shares) if self.shares else None

    @property
    def must(self) -> float | None:
        return self.figure.must.get(self.subject)

    @property
    def goal(self) -> float | None:
        return self.figure.goal.get(self.subject)

    @property
    def verdict(self) -> str:
        """What is met: `goal`, `must`, or `below`; empty where nothing is asked or it cannot be told."""
        value = self.share if self.figure.limits_are_shares else self.median
        return _verdict(self.must, self.goal, value, self.figure.meets)

    def record(self) -> dict[str, object]:
        return {
            "workload": self.workload,
            "figure": self.figure.name,
            "subject": self.subject,
            "median": self.median,
            "values": list(self.values),
            "share_of_ceiling": self.share,
            "times": dict(self.times),
            "must": self.must,
            "goal": self.goal,
            "limits_are_shares": self.figure.limits_are_shares,
            "met": self.verdict,
        }


def rows(record: Record) -> list[Row]:
    """Workload by workload, in the order of `WORKLOADS`, of `SUBJECTS` and of the figures."""
    found: dict[tuple[str, str, str], Row] = {}
    for workload, known in WORKLOADS.items():
        for subject in SUBJECTS:
            rounds = record.of(workload, subject)
            for figure in known.figures:
                values = [figures[figure.name] for figures in rounds if figure.name in figures]
                if values:
                    shares = _shares(figure, workload, values, record.of("ceiling", subject))
                    found[workload, figure.name, subject] = Row(workload, figure, subject, values, shares)
    return [_compared(row, found) for row in found.values()]


def _shares(
    figure: Figure, workload: str, values: Sequence[float], ceilings: Sequence[Mapping[str, float]]
) -> list[float]:
    name = f"{workload}: {figure.name}"
    tops = [ceiling[name] for ceiling in ceilings if name in ceiling]
    pairs = zip(values, tops, strict=False)
    return [value / top if figure.higher_is_better else top / value for value, top in pairs if value and top]


def _compared(row: Row, found: Mapping[tuple[str, str, str], Row]) -> Row:
    """With `times`, which of peers look at ours and of ours at peers."""
    is_peer = row.subject in PEERS
    others = (
        PEERS[row.subject].against
        if is_peer
        else [name for name, peer in PEERS.items() if row.subject in peer.against]
    )
    times: dict[str, float] = {}
    for name in others:
        other = found.get((row.workload, row.figure.name, name))
        if other is None or not row.figure.is_compared or not row.median or not other.median:
            continue
        ours, theirs = (other.median, row.median) if is_peer else (row.median, other.median)
        times[name] = ours / theirs if row.figure.higher_is_better else theirs / ours
    return Row(row.workload, row.figure, row.subject, row.values, row.shares, times)


# ---- what we hold ourselves to


@dataclass(frozen=True)
class Aim:
    """A limit, what came of it, and what is met."""

    workload: str
    figure: str
    subject: str
    asked: str
    is_: str
    verdict: str


def aims(found: Sequence[Row]) -> Iterator[Aim]:
    """Each goal of the figures that was measured; without one, each must."""
    for row in found:
        if row.verdict:
            shares = row.figure.limits_are_shares
            value = f"{row.share:.0%}" if shares and row.share is not None else number(row.median)
            limit = row.must if row.goal is None else row.goal
            asked = _limit(row.figure, limit)
            yield Aim(row.workload, row.figure.name, row.subject, asked, value, row.verdict)
        for peer, (must, goal) in row.figure.ratios.get(row.subject, {}).items():
            times = row.times.get(peer)
            if times is not None:
                verdict = _verdict(must, goal, times, lambda value, limit: value >= limit)
                asked = f"{goal:g} × {peer}"
                yield Aim(row.workload, row.figure.name, row.subject, asked, f"{times:.3g} ×", verdict)


def losses(found: Sequence[Row]) -> Iterator[tuple[Row, str, float]]:
    """(A figure of ours, the peer that is better, how many times), for each backend that is compared with it."""
    for row in found:
        if row.subject not in PEERS:
            for peer, times in row.times.items():
                if times < 1:
                    yield row, peer, 1 / times


def _verdict(must: float | None, goal: float | None, value: float | None, meets: object) -> str:
    assert callable(meets)
    if value is None or (must is None and goal is None):
        return ""
    for name, limit in (("goal", goal), ("must", must)):
        if limit is not None and meets(value, limit):
            return name
    return "below"


def flips(one: Record, other: Record) -> Iterator[tuple[Row, Row]]:
    """(The better, the worse), for each comparison of ours with a peer that turns out the other way in `other`."""
    theirs = {(row.workload, row.figure.name, row.subject): row for row in rows(other)}
    mine = {(row.workload, row.figure.name, row.subject): row for row in rows(one)}
    for row in mine.values():
        again = theirs.get((row.workload, row.figure.name, row.subject))
        if row.subject in PEERS or again is None:
            continue
        for peer, times in row.times.items():
            if peer in again.times and (times >= 1) != (again.times[peer] >= 1):
                rival = mine[row.workload, row.figure.name, peer]
                yield (row, rival) if times >= 1 else (rival, row)


# ---- as text


_COLUMNS = ("", "figure", "on", "median", "least - most", "of ceiling", "must", "goal", "met", "better than")


def table(found: Sequence[Row]) -> str:
    lines = [_COLUMNS, *map(_cells, found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if 3 <= column <= 7 else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    ratios = ", ".join(f"{name} {times:.3g} ×" for name, times in row.times.items())
    return (
        row.workload,
        row.figure.name,
        row.subject,
        number(row.median),
        spread(row.values),
        "" if row.share is None else f"{row.share:.1%}",
        _limit(row.figure, row.must),
        _limit(row.figure, row.goal),
        row.verdict,
        "" if row.subject in PEERS else ratios,
    )


def _limit(figure: Figure, limit: float | None) -> str:
    if limit is None:
        return ""
    return f"{limit:.0%} of ceiling" if figure.limits_are_shares else f"{limit:g}"


def spread(values: Sequence[float]) -> str:
    return f"{number(min(values))} - {number(max(values))}"


def number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3f}"
