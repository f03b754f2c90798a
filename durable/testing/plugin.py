"""The pytest plugin: one fixture, one report, and no opinion about how a test's event loop is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from durable.testing.env import DurableEnv

_PACKED = "durable_coverage"


@pytest.fixture
def durable_env() -> type[DurableEnv]:
    """`DurableEnv`, to be entered in the test: `async with durable_env(workflows=[...]) as env: ...`."""
    from durable.testing.env import DurableEnv

    return DurableEnv


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("durable").addoption(
        "--durable-coverage",
        action="store_true",
        help="report which parts of the workflows no test has reached in a DurableEnv",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--durable-coverage"):
        from durable.testing import coverage

        coverage.measure(coverage.TestRun())


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.getoption("--durable-coverage"):
        from durable.testing import coverage

        coverage.measure(None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist hands over what it has seen."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None and session.config.getoption("--durable-coverage"):
        from durable.testing import coverage

        run = coverage.current()
        output[_PACKED] = [] if run is None else run.pack()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take up what a process of pytest-xdist has seen; one that died has nothing to say."""
    packed = getattr(node, "workeroutput", {}).get(_PACKED, ())
    if packed:
        from durable.testing import coverage

        run = coverage.current()
        if run is not None:
            run.join(packed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--durable-coverage"):
        from durable.testing import coverage

        run = coverage.current()
        terminalreporter.section("durable coverage")
        for line in (run.lines() if run is not None else []) or ["no workflow ran in a DurableEnv"]:
            terminalreporter.write_line(line)
