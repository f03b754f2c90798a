"""`python -m benchmarks`: run workloads, round after round, and print what came of them beside the goals."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence

from benchmarks import report
from benchmarks.figures import BACKENDS
from benchmarks.one import WORKLOADS
from benchmarks.servers import broker_run
from benchmarks.worlds import process

_HAVE_CEILING = {"w1", "w2", "w3", "w5", "w6"}
_STEADY = {"sleepers"}
"""Memory hardly varies: one round of it is enough."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    questions = "\n".join(f"  {name:9} {each.question}" for name, each in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"workloads:\n{questions}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workloads", nargs="*", metavar="workload", help="which; all without a name")
    parser.add_argument(
        "--backend", action="append", choices=BACKENDS, help="may be repeated; all without it"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="how much work, as a share of the full (1.0)"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args(argv)
    for name in given.workloads:
        if name not in WORKLOADS:
            parser.error(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
    if given.rounds < 1 or given.scale <= 0:
        parser.error("--rounds must be at least 1, and --scale more than 0")
    return given


async def run(given: argparse.Namespace) -> report.Rounds:
    names = list(given.workloads or WORKLOADS)
    if _HAVE_CEILING.intersection(names) and "ceiling" not in names:
        names.append("ceiling")
    rounds: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(1, given.rounds + 1):
        for name in names:
            for backend in given.backend or BACKENDS:
                if backend not in WORKLOADS[name].backends or (number > 1 and name in _STEADY):
                    continue
                began = time.perf_counter()
                async with process("benchmarks.one", name, backend, given.scale) as measurement:
                    rounds.setdefault((name, backend), []).append(await measurement.says())
                seconds = time.perf_counter() - began
                print(f"round {number}: {name} on {backend}, {seconds:.1f} s", file=sys.stderr)
    return rounds


def main() -> None:
    given = arguments()
    machine = report.machine()
    if machine["busy"]:
        print(f"This machine is busy (load {machine['load']}): the times will be too long.", file=sys.stderr)
    with broker_run():  # the measurements, processes of their own, join it
        found = report.rows(asyncio.run(run(given)))
    if given.output == "json":
        records = [row.record() for row in found]
        print(
            json.dumps(
                {"machine": machine, "scale": given.scale, "rounds": given.rounds, "figures": records},
                indent=2,
            )
        )
        return
    print(
        f"{machine['system']}, {machine['cores']} cores, Python {machine['python']}, SQLite {machine['sqlite']}, "
        f"load {machine['load']}{' (busy: do not trust the times)' if machine['busy'] else ''}; "
        f"{given.rounds} rounds at scale {given.scale:g}"
    )
    if given.scale != 1:
        print("The goals are those of scale 1.")
    print()
    print(report.table(found))


if __name__ == "__main__":
    main()
