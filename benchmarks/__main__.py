"""`python -m benchmarks run` measures, round after round; `report` writes the pages of docs; `compare` holds two runs
against each other."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import pages, report
from benchmarks.figures import BACKENDS
from benchmarks.one import GROUPS, WORKLOADS
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import Absent
from benchmarks.record import Absence, Measurement, Notebook, Record
from benchmarks.servers import broker_run
from benchmarks.worlds import ProcessFailed, process

_HAVE_CEILING = {"w1", "w2", "w3", "w4", "w5", "w6"}
_STEADY = {"sleepers"}
"""What hardly varies: one round of it is enough."""
_SLOW_FOR_PEERS = {"w4", "w7"}
"""With the peers these take a minute each, so that they too are measured in the first round only."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    questions = "\n".join(f"  {name:9} {each.question}" for name, each in WORKLOADS.items())
    runs = commands.add_parser(
        "run",
        help="measure",
        epilog=f"workloads:\n{questions}\n\ngroups: {', '.join(GROUPS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    runs.add_argument(
        "workloads", nargs="*", metavar="workload", help="or a group; `everyday` without a name"
    )
    runs.add_argument(
        "--on", action="append", choices=report.SUBJECTS, help="may be repeated; ours without it"
    )
    runs.add_argument("--peers", action="store_true", help="besides, the same on every peer")
    runs.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    runs.add_argument("--scale", type=float, default=1.0, help="how much work, as a share of the full (1.0)")
    runs.add_argument("--save", type=Path, help="keep each measurement in this file, as JSON")
    runs.add_argument("-o", "--output", choices=("table", "json"), default="table")
    commands.add_parser(
        "report", help="write tables and plots of docs from the kept measurements"
    ).add_argument("--no-plots", action="store_true", help="the tables alone, which need no matplotlib")
    compares = commands.add_parser(
        "compare", help="say which comparisons with peers two runs decide differently"
    )
    compares.add_argument("one", type=Path)
    compares.add_argument("other", type=Path)
    given = parser.parse_args(argv)
    if given.command == "run":
        names = [each for name in given.workloads or ["everyday"] for each in GROUPS.get(name, [name])]
        for name in names:
            if name not in WORKLOADS:
                runs.error(f"no workload {name!r}; there are {', '.join((*WORKLOADS, *GROUPS))}")
        if given.rounds < 1 or given.scale <= 0:
            runs.error("--rounds must be at least 1, and --scale more than 0")
        given.workloads = names
        given.on = [*(given.on or BACKENDS), *(PEERS if given.peers else ())]
    return given


async def run(given: argparse.Namespace, notebook: Notebook) -> None:
    names = list(given.workloads)
    if _HAVE_CEILING.intersection(names) and "ceiling" not in names:
        names.append("ceiling")
    present = [subject for subject in given.on if subject not in PEERS or _is_installed(subject, notebook)]
    for number in range(1, given.rounds + 1):
        for name in names:
            for subject in present:
                if _is_measured(name, subject, number) and not _is_absent(name, subject, notebook):
                    await _measure(name, subject, number, given.scale, notebook)
                    if given.save:  # what there is by now, should the run be ended
                        notebook.record().save(given.save)


def _is_installed(subject: str, notebook: Notebook) -> bool:
    print(f"{subject}: its packages ...", file=sys.stderr)
    try:
        PEERS[subject].install()
    except Absent as absent:
        notebook.absences.append(Absence(subject, str(absent)))
        print(f"{subject} is absent: {absent}", file=sys.stderr)
        return False
    return True


def _is_measured(name: str, subject: str, number: int) -> bool:
    if subject in PEERS:
        return name in PEERS[subject].workloads and (number == 1 or name not in _SLOW_FOR_PEERS)
    return subject in WORKLOADS[name].backends and (number == 1 or name not in _STEADY)


def _is_absent(name: str, subject: str, notebook: Notebook) -> bool:
    return any((each.subject, each.workload) == (subject, name) for each in notebook.absences)


async def _measure(name: str, subject: str, number: int, scale: float, notebook: Notebook) -> None:
    began = time.perf_counter()
    async with process("benchmarks.one", name, subject, scale) as measurement:
        try:
            answer = await measurement.says()
        except ProcessFailed as failed:
            print(failed.complaints, file=sys.stderr)
            raise
        except asyncio.CancelledError:
            await measurement.interrupt()  # so that it takes its servers and drivers with it
            raise
    took = round(time.perf_counter() - began, 1)
    print(f"round {number}: {name} on {subject}, {took} s", file=sys.stderr)
    if "absent" in answer:
        notebook.absences.append(Absence(subject, answer["absent"], name))
        print(f"{name} on {subject} failed: {answer['absent']}", file=sys.stderr)
        return
    figures = {figure: float(f"{value:.6g}") for figure, value in answer["figures"].items()}
    notebook.measurements.append(Measurement(number, name, subject, took, figures))


def measure(given: argparse.Namespace, command: str) -> Record:
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # in the background of a shell; processes inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    notebook = Notebook(command, given.rounds, given.scale)
    if notebook.record().is_busy:
        load = notebook.machine["load"]
        print(f"This machine is busy (load {load}): the times will be too long.", file=sys.stderr)
    with broker_run():  # the measurements, processes of their own, join it
        asyncio.run(run(given, notebook))
    return notebook.record()


def show(record: Record, output: str) -> None:
    found = report.rows(record)
    if output == "json":
        told = {"machine": record.machine, "scale": record.scale, "rounds": record.rounds}
        absences = [vars(each) for each in record.absences]
        print(json.dumps({**told, "figures": [row.record() for row in found], "absent": absences}, indent=2))
        return
    print(pages.described(record))
    print()
    print(report.table(found))
    for absence in record.absences:
        what = f"{absence.workload} on {absence.subject}" if absence.workload else absence.subject
        print(f"{what} is absent: {absence.reason}")


def main() -> None:
    given = arguments()
    if given.command == "report":
        pages.write()
        if not given.no_plots:
            from benchmarks import plots

            plots.write()
        return
    if given.command == "compare":
        flips = list(report.flips(Record.load(given.one), Record.load(given.other)))
        for better, worse in flips:
            what = f"{better.workload} {better.figure.name}"
            print(f"{what}: {better.subject} is better than {worse.subject} in one of them only")
        print(f"{len(flips)} comparisons are decided differently")
        sys.exit(bool(flips))
    record = measure(given, f"python -m benchmarks {shlex.join(sys.argv[1:])}")
    show(record, given.output)


if __name__ == "__main__":
    main()
