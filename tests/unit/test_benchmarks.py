"""The benchmarks work: each workload runs, small, and finds its results right. Nothing here looks at a time."""

from __future__ import annotations

import math

import pytest

from benchmarks import report
from benchmarks.__main__ import arguments
from benchmarks.figures import Figure
from benchmarks.one import WORKLOADS, measured
from benchmarks.servers import AMQP_VARIABLE, REDIS_VARIABLE, broker_run, redis_url

pytestmark = pytest.mark.anyio

SMALL = 0.002
TRIED = {
    "memory": (),
    "sqlite-full": (),
    "redis": pytest.mark.needs("redis_url"),
    "redis+rabbitmq": pytest.mark.needs("redis_url", "amqp_url"),
}
"""Backends, and what they need."""
OPTIONAL = {"other process p50 ms", "other process p99 ms"}
"""What only a store gives that several processes share."""

VARIABLES = {"redis_url": REDIS_VARIABLE, "amqp_url": AMQP_VARIABLE}


@pytest.mark.parametrize(
    ("workload", "backend"),
    [
        pytest.param(name, backend, marks=TRIED[backend])
        for name, known in WORKLOADS.items()
        for backend in known.backends
        if backend in TRIED
    ],
)
async def test_a_workload_gives_its_figures_on_every_backend(
    workload: str, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mark in request.node.iter_markers("needs"):
        for name in mark.args:
            monkeypatch.setenv(VARIABLES[name], request.getfixturevalue(name))
    figures = await measured(workload, backend, SMALL)
    assert set(figures) - OPTIONAL == {figure.name for figure in WORKLOADS[workload].figures} - OPTIONAL
    assert all(math.isfinite(value) for value in figures.values())
    assert figures.get("stuck", 0) == figures.get("lost", 0) == 0
    assert all(row.median in row.values for row in report.rows({(workload, backend): [figures]}))


def test_a_measurement_has_a_redis_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REDIS_VARIABLE, raising=False)
    with broker_run() as run, redis_url(run) as one, redis_url(run) as other:
        assert one != other


def test_a_report_names_the_best_limit_that_is_met() -> None:
    figure = Figure("p50 ms", must={"memory": 2.0}, goal={"memory": 1.0})

    def verdict(value: float, backend: str = "memory") -> str:
        return report.Row("w2", figure, backend, [value], []).verdict

    assert [verdict(0.5), verdict(1.5), verdict(3.0), verdict(0.5, "other")] == ["goal", "must", "below", ""]


def test_shares_of_the_ceiling_are_of_the_same_round() -> None:
    rounds = {
        ("w1", "memory"): [{"executions/s": 50.0}, {"executions/s": 90.0}],
        ("ceiling", "memory"): [{"w1: executions/s": 100.0}, {"w1: executions/s": 300.0}],
    }
    row = report.rows(rounds)[0]
    assert list(row.shares) == [0.5, 0.3]
    assert row.verdict == "goal"
    assert "40.0%" in report.table([row])


def test_the_arguments_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments(["w1", "--backend", "memory"]).backend == ["memory"]
    with pytest.raises(SystemExit):
        arguments(["w99"])
    assert "no workload 'w99'" in capsys.readouterr().err
