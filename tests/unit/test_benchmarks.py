"""The benchmarks work: each workload runs, small, and finds its results right. Nothing here looks at a time."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import pytest

from benchmarks import pages, profile, report
from benchmarks.__main__ import arguments
from benchmarks.figures import Figure
from benchmarks.model import Cost
from benchmarks.one import GROUPS, WORKLOADS, measured
from benchmarks.peers import measure
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.environments import Absent, Environment
from benchmarks.record import Measurement, Record
from benchmarks.servers import AMQP_VARIABLE, REDIS_VARIABLE, broker_run, redis_url
from benchmarks.worlds import ProcessFailed
from tests.brokers.run import Run

pytestmark = pytest.mark.anyio

SMALL = 0.002
TRIED = {
    "memory": (),
    "sqlite-full": (),
    "redis": pytest.mark.needs("redis_url"),
    "redis+rabbitmq": pytest.mark.needs("redis_url", "amqp_url"),
}
"""Backends, and what they need."""
ENOUGH = {
    **dict.fromkeys(("w2", "w3", "w5", "w7"), ("memory", "sqlite-full", "redis+rabbitmq")),
    **dict.fromkeys(("idle", "waiting", "history", "workers", "writers", "timers"), ("sqlite-full",)),
    **dict.fromkeys(("costs", "stored"), ("redis",)),
    "profile": (),
}
"""What takes several processes, or is another workload with more of it, is not tried on all; a profile has its own."""
OPTIONAL = {
    "other process p50 ms",
    "other process p99 ms",
    *(figure.name for name in ("costs", "idle") for figure in WORKLOADS[name].figures),
}
"""What only some stores give."""

VARIABLES = {"redis_url": REDIS_VARIABLE, "amqp_url": AMQP_VARIABLE}


@pytest.mark.parametrize(
    ("workload", "backend"),
    [
        pytest.param(name, backend, marks=TRIED[backend])
        for name, known in WORKLOADS.items()
        for backend in ENOUGH.get(name, TRIED)
        if backend in known.backends
    ],
)
async def test_a_workload_gives_its_figures_on_every_backend(
    workload: str, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mark in request.node.iter_markers("needs"):
        for name in mark.args:
            monkeypatch.setenv(VARIABLES[name], request.getfixturevalue(name))
    figures = await measured(workload, backend, SMALL)
    known = {figure.name for figure in WORKLOADS[workload].figures}
    assert known - OPTIONAL <= set(figures) <= known
    assert figures
    assert all(math.isfinite(value) for value in figures.values())
    assert figures.get("stuck", 0) == figures.get("lost", 0) == 0
    assert all(row.median in row.values for row in report.rows(record({(workload, backend): [figures]})))


def test_a_measurement_has_a_redis_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REDIS_VARIABLE, raising=False)
    with broker_run() as run, redis_url(run) as one, redis_url(run) as other:
        assert one != other


async def test_a_profile_has_samples_of_the_parts_of_a_workload() -> None:
    found = profile.by_part(await profile.stacks("w1", "memory", 0.2))
    assert found["engine"] > 0
    assert found["store"] > 0
    assert found["connection"] == 0


def test_a_sample_counts_for_the_innermost_frame_of_ours() -> None:
    begun = "<module> (benchmarks/one.py:91);run_process (durable/cli/process.py:19)"
    task = f"{begun};run (asyncio/runners.py:118)"
    found = profile.by_part(
        [
            "<module> (benchmarks/one.py:12);load (<frozen importlib._bootstrap>:1) 100",
            f"{task};open (durable/backends/__init__.py:9);load (<frozen importlib._bootstrap>:1) 100",
            f"{task} 1",
            f"{task};step (durable/context.py:5);commit (durable/backends/memory/store.py:7) 2",
            f"{task};step (durable/context.py:5);commit (durable/backends/memory/store.py:7);now (time.py:1) 3",
            f"{task};step ({profile.ROOT}/durable/context.py:5) 4",
            f"{task};ring (durable/worker/worker.py:5);dump (/home/ada/durable/.venv/pydantic/main.py:5) 6",
            f"{task};on_frame (site-packages/aiormq/channel.py:5) 5",
        ]
    )
    assert found == {"event loop": 1, "store": 5, "engine": 4, "worker": 6, "doorbells and hints": 5}


# ---- what is made of the measurements


def record(figures: dict[tuple[str, str], list[dict[str, float]]]) -> Record:
    """One with these figures, round by round."""
    measurements = [
        Measurement(number, workload, subject, 1.0, found)
        for (workload, subject), rounds in figures.items()
        for number, found in enumerate(rounds, 1)
    ]
    machine: dict[str, str | float] = {"system": "a machine", "cores": 2, "load": 0.1}
    return Record("the command", "today", machine, 3, 1.0, measurements=tuple(measurements))


def test_a_report_names_the_best_limit_that_is_met() -> None:
    figure = Figure("p50 ms", must={"memory": 2.0}, goal={"memory": 1.0})

    def verdict(value: float, backend: str = "memory") -> str:
        return report.Row("w2", figure, backend, [value]).verdict

    assert [verdict(0.5), verdict(1.5), verdict(3.0), verdict(0.5, "other")] == ["goal", "must", "below", ""]


def test_shares_of_the_ceiling_are_of_the_same_round() -> None:
    rounds = {
        ("w1", "memory"): [{"executions/s": 50.0}, {"executions/s": 90.0}],
        ("ceiling", "memory"): [{"w1: executions/s": 100.0}, {"w1: executions/s": 300.0}],
    }
    row = report.rows(record(rounds))[0]
    assert list(row.shares) == [0.5, 0.3]
    assert row.verdict == "goal"
    assert "40.0%" in report.table([row])


def test_ratios_are_above_one_where_ours_is_better() -> None:
    found = report.rows(
        record(
            {
                ("w1", "redis"): [{"executions/s": 1000.0}],
                ("w1", "restate"): [{"executions/s": 250.0}],
                ("w2", "redis"): [{"p50 ms": 4.0}],
                ("w2", "restate"): [{"p50 ms": 2.0}],
            }
        )
    )
    times = {(row.workload, row.subject): dict(row.times) for row in found}
    assert times["w1", "restate"] == {"redis": 4.0}
    assert times["w1", "redis"] == {"restate": 4.0}
    assert times["w2", "redis"] == {"restate": 0.5}
    assert [(row.workload, peer, by) for row, peer, by in report.losses(found)] == [("w2", "restate", 2.0)]
    aims = {(aim.subject, aim.asked): (aim.is_, aim.verdict) for aim in report.aims(found)}
    assert aims["redis", "13 × restate"] == ("4 ×", "below")


def test_two_runs_that_decide_differently_are_told_apart() -> None:
    def run(ours: float) -> Record:
        return record(
            {("w1", "redis"): [{"executions/s": ours}], ("w1", "restate"): [{"executions/s": 250.0}]}
        )

    assert list(report.flips(run(1000.0), run(900.0))) == []
    [(better, worse)] = report.flips(run(1000.0), run(200.0))
    assert (better.subject, worse.subject) == ("redis", "restate")


def test_a_record_is_kept_as_it_was(tmp_path: Path) -> None:
    kept = record({("w1", "redis"): [{"executions/s": 1000.0}]})
    kept.save(tmp_path / "kept.json")
    assert Record.load(tmp_path / "kept.json") == kept


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_kept_measurements(page: Path) -> None:
    """`make bench-docs` makes them so."""
    assert pages.generated(page.read_text(), Record.load(pages.PAGES[page])) == page.read_text()


def test_the_plots_are_made_from_the_kept_measurements() -> None:
    """`make bench-docs` makes them so."""
    plots = sorted((pages.PERFORMANCE.parent / "plots").glob("*.svg"))
    made_from = [pages.SCALING if plot.stem in GROUPS["scale"] else pages.PERFORMANCE for plot in plots]
    assert len(plots) == 9
    assert [
        plot.stem
        for plot, kept in zip(plots, made_from, strict=True)
        if pages.origin(kept) not in plot.read_text()
    ] == []


def test_nothing_is_a_headline_that_is_not_final() -> None:
    final = record({("w1", "redis"): [{"executions/s": 1000.0}]})
    page = "<!-- generated: headline -->\n<!-- end -->"
    assert "1,000" in pages.generated(page, final)
    busy = Record(**{**vars(final), "machine": {**final.machine, "load": 1.5}})
    assert "no final figures" in pages.generated(page, busy)


def test_what_a_step_costs_is_told_from_what_an_execution_costs() -> None:
    cost = Cost.of(one=300.0, five=700.0)
    assert (cost.base, cost.step, cost(10)) == (200.0, 100.0, 1200.0)


# ---- peers


def test_a_peer_is_compared_with_backends_and_workloads_that_there_are() -> None:
    for peer in PEERS.values():
        assert set(peer.against) <= set(report.SUBJECTS) - set(PEERS)
        assert set(peer.workloads) <= set(GROUPS["everyday"])
        assert Path(peer.command[-1]).exists()
        assert all("@" in each[1:] or "==" in each for kind in peer.environments for each in kind.packages)


def test_a_peer_that_cannot_be_installed_is_absent_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.peers.environments.FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Absent, match="there is no node here"):
        Environment("peer", ["package@1.0.0"], is_node=True).install()


DRIVER = """
import json, os, signal, sys, time

settings = json.loads(sys.argv[1])
role, argument = settings["role"], settings["argument"]
say = lambda answer: print(json.dumps(answer), flush=True)
told = lambda: sys.stdin.readline().strip()
if role == "w1":
    say({"executions/s": 7.0})
elif role == "w2":
    sys.exit("it cannot")
elif role == "w5-run":
    say({"id": "x", "figures": {"seconds": 1.0}})
    told()
elif role == "w5-replay":
    say({"replay ms": float(argument == "x")})
elif role == "w7-accept":
    if settings["urls"]["after_kill"] == "standby":
        told()
    say("accepted")
    killed = float(told())
    say({"all done s": time.time() - killed, "stuck": 0, "lost": 0})
elif role == "w7-worker":
    name, dies_after = argument.split(":")
    say("ready")
    if told() and name == "victim" and int(dies_after):
        if settings["urls"]["after_kill"] == "standby":
            say("registered")
        say("begun")
        say(time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    told()
"""


class ScriptedPeer(Peer):
    """One that needs no package."""

    @property
    def command(self) -> Sequence[str]:
        return [sys.executable, self.driver]


@pytest.mark.parametrize("after_kill", ["nothing", "restart", "standby"])
async def test_a_peer_is_measured_by_what_its_drivers_say(
    after_kill: Literal["nothing", "restart", "standby"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)

    def state(
        run: Run, environment: Environment, directory: Path
    ) -> AbstractContextManager[Mapping[str, str]]:
        return nullcontext({"after_kill": after_kill})

    peer = ScriptedPeer(
        "A peer",
        [Environment("peer", [])],
        str(tmp_path / "driver.py"),
        state,
        ["redis"],
        after_kill=after_kill,
    )
    monkeypatch.setattr("benchmarks.peers.measure.PEERS", {"peer": peer})
    assert await measure.measured("peer", "w1", SMALL) == {"executions/s": 7.0}
    assert await measure.measured("peer", "w5", SMALL) == {"seconds": 1.0, "replay ms": 1.0}
    found = await measure.measured("peer", "w7", SMALL)
    assert found["all done s"] >= 0
    with pytest.raises(ProcessFailed, match="it cannot"):
        await measure.measured("peer", "w2", SMALL)


def test_the_arguments_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments(["run", "w1", "--on", "memory"]).on == ["memory"]
    assert arguments(["run", "scale"]).workloads == list(GROUPS["scale"])
    assert set(PEERS) < set(arguments(["run", "--peers"]).on)
    with pytest.raises(SystemExit):
        arguments(["run", "w99"])
    assert "no workload 'w99'" in capsys.readouterr().err
