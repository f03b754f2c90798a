"""The plots of the pages of docs, made from the kept measurements: one for each workload, and two of scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Drawing

from benchmarks.one import WORKLOADS
from benchmarks.pages import PERFORMANCE, SCALING, origin, title
from benchmarks.peers.catalogue import PEERS
from benchmarks.record import Record
from benchmarks.report import Row, number, rows
from benchmarks.scale.stored import LEVELS
from benchmarks.scale.workers import NUMBERS

matplotlib.use("svg")
matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "durable",  # so that the same measurements give the same file
        "font.size": 10,
        "font.family": ["sans-serif"],
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)

import matplotlib.pyplot as plt  # noqa: E402  (it looks at the settings above)

_OURS, _THEIRS, _CEILING = "#2563a8", "#b0b4ba", "#c2410c"
SHOWN = {
    "w1": ["executions/s"],
    "w2": ["p50 ms"],
    "w3": ["p50 ms"],
    "w4": ["seconds over", "greatest lateness ms"],
    "w5": ["seconds", "replay, in the body ms"],
    "w6": ["steps ms", "children ms"],
    "w7": ["all done s"],
}
"""Workload -> the figures that are drawn."""


def write() -> None:
    """Draw into the folder `plots` beside the pages."""
    folder = PERFORMANCE.parent / "plots"
    folder.mkdir(exist_ok=True)
    found = rows(Record.load(PERFORMANCE))
    for name, figures in SHOWN.items():
        _bars(name, figures, [row for row in found if row.workload == name], folder / f"{name}.svg")
    found = rows(Record.load(SCALING))
    levels = [f"{level:,}" for level in LEVELS]
    _lines("stored", levels, "executions/s at {}", found, folder / "stored.svg")
    _lines("workers", list(map(str, NUMBERS)), "executions/s of {}", found, folder / "workers.svg")


def _bars(workload: str, figures: Sequence[str], found: Sequence[Row], file: Path) -> None:
    """A bar for each subject, with the least and the most, and the ceiling of each of ours."""
    subjects = list(dict.fromkeys(row.subject for row in found))[::-1]
    height = 0.9 + 0.3 * len(subjects)
    drawing, all_axes = plt.subplots(1, len(figures), figsize=(8, height), sharey=True, squeeze=False)
    for axes, figure in zip(all_axes[0], figures, strict=True):
        for place, subject in enumerate(subjects):
            row = next((row for row in found if (row.figure.name, row.subject) == (figure, subject)), None)
            if row is None:
                continue
            axes.barh(place, row.median, color=_THEIRS if subject in PEERS else _OURS, height=0.7)
            axes.plot([min(row.values), max(row.values)], [place, place], color="black", linewidth=1)
            axes.annotate(
                number(row.median), (max(row.values), place), (3, -3), textcoords="offset points", size=8
            )
            if row.share:
                ceiling = row.median / row.share if row.figure.higher_is_better else row.median * row.share
                axes.plot(ceiling, place, marker="|", markersize=14, markeredgewidth=2, color=_CEILING)
        axes.set_xscale("log")
        axes.margins(x=0.15)
        better = any(each.higher_is_better for each in WORKLOADS[workload].figures if each.name == figure)
        axes.set_xlabel(f"{figure} ({'more' if better else 'less'} is better, log scale)", size=9)
    all_axes[0][0].set_yticks(range(len(subjects)), [title(subject).strip("`") for subject in subjects])
    _save(drawing, file, PERFORMANCE)


def _lines(workload: str, labels: Sequence[str], figure: str, found: Sequence[Row], file: Path) -> None:
    """A line for each backend, from zero up."""
    drawing, axes = plt.subplots(figsize=(8, 3))
    places = range(len(labels))
    by = {(row.subject, row.figure.name): row for row in found if row.workload == workload}
    for subject in dict.fromkeys(subject for subject, _ in by):
        values = [by[subject, figure.format(label)].median for label in labels]
        axes.plot(places, values, marker="o", label=subject)
    axes.set_xticks(places, labels)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("executions/s")
    axes.set_xlabel({"stored": "executions stored", "workers": "worker processes"}[workload])
    axes.legend(frameon=False)
    _save(drawing, file, SCALING)


def _save(drawing: Drawing, file: Path, kept: Path) -> None:
    drawing.savefig(
        file, bbox_inches="tight", metadata={"Date": None, "Creator": None, "Description": origin(kept)}
    )
    plt.close(drawing)
    # Matplotlib leaves spaces at the ends of lines.
    file.write_text("\n".join(map(str.rstrip, file.read_text().splitlines())) + "\n")
