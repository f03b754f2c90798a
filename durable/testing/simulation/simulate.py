"""`simulate`: an execution among nodes that die and pause, on ports that fail, once for each seed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, TypeVar, final

from typing_extensions import override

from durable.app import OpenDeps
from durable.protocols import DurableQueue
from durable.testing.simulation.env import Drive
from durable.testing.simulation.faults import Faults
from durable.testing.simulation.loop import EndlessSimulation, Process
from durable.testing.simulation.ports import (
    Broker,
    Network,
    NetworkLine,
    SimulatedBus,
    SimulatedQueue,
    Topics,
)
from durable.testing.simulation.world import Ended, Node, Outcome, Scenario, World
from durable.workflow import AnyWorkflow, Workflow

In = TypeVar("In")
T = TypeVar("T")

_SHOWN: Final = 25
"""Lines of the trace that a failure shows."""
_LOGGERS: Final = ("durable.engine", "durable.worker", "durable.workflow")


@dataclass(slots=True)
class SimulationReport:
    """What `simulate` has done."""

    runs: int = 0
    writes: int = 0
    """Calls that the store answered, in all runs."""
    faults: Counter[str] = field(default_factory=Counter[str])
    """How often each fault was met, as `store unknown commit`, `bus drop`, `node kill`."""
    answers: Counter[str] = field(default_factory=Counter[str])
    """How often each verb of the store was answered in each way, as `commit Fenced`."""
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """How often executions ended in each way."""
    losses: int = 0
    """How often an execution lost its owner and was taken over."""


async def simulate(
    workflow: Workflow[In, Any],
    input: In | None = None,
    *,
    workflows: Iterable[AnyWorkflow] = (),
    drive: Drive | None = None,
    seeds: Iterable[int] = range(100),
    deps: OpenDeps | None = None,
    expect: Callable[[Outcome], bool] | None = None,
) -> SimulationReport:
    """Run the workflow once for each seed, in a world of its own where almost everything goes wrong.

    A seed decides how many nodes there are, in which order what happens at once happens, how long messages travel, and
    which faults there are: calls of the store that fail, or that are applied and fail all the same, or hang; hints and
    doorbells that get lost, repeated or late; nodes that die at any await, pause for longer than their lease and go on,
    or are restarted. After some faults all heals, and the execution must come to its end.

    Every run must record and give what one without faults does (or end as `expect` says), run a step again only where
    an owner was lost, and never break a promise about histories, signals, timers and compensations.

    `drive(env, handle)` plays the outside world. Time is virtual and moves by itself when nothing else can happen;
    steps should be stubs of what they would do, as there is no real I/O, and a sync step is no thread.

    Raises:
        AssertionError: a run did not. It names the seed, what was wrong, and how to run just that again.
    """
    known: list[AnyWorkflow] = [workflow, *(other for other in workflows if other is not workflow)]
    scenario = Scenario(workflow, input, known, drive, deps)
    return await in_a_thread(partial(_simulate, scenario, list(seeds), expect))


def _simulate(
    scenario: Scenario,
    seeds: Iterable[int],
    expect: Callable[[Outcome], bool] | None,
    is_cancelled: Callable[[], bool],
) -> SimulationReport:
    report = SimulationReport()
    plain: Ended | None = None
    for seed in seeds:
        if is_cancelled():
            break
        plain = without_faults(scenario) if plain is None else plain
        wrong: list[str] = []
        ended = Ended()
        try:
            ended = run_seed(scenario, seed, report)
            wrong = list(differences(plain, ended, expect))
        except AssertionError as error:
            wrong = [f"drive failed: {error or 'an assertion does not hold'}"]
        except EndlessSimulation as error:
            wrong = [str(error)]
        if wrong:
            raise AssertionError(_failure(scenario, seed, wrong, ended))
    return report


def without_faults(scenario: Scenario) -> Ended:
    """The run of a seed with nothing in its way."""
    ended = _Seed(scenario, Random("plain"), quiet=True).run()
    if ended.broken:
        raise AssertionError(f"{scenario.workflow.name}, without any fault: {'; '.join(ended.broken)}")
    return ended


def run_seed(scenario: Scenario, seed: int, report: SimulationReport) -> Ended:
    """The run of one seed, counted in the report."""
    run = _Seed(scenario, Random(seed))
    report.runs += 1
    try:
        ended = run.run()
    finally:
        report.faults.update(run.faults.met)
        report.answers.update(run.network.answers)
        report.writes += run.network.answers.total()
    report.outcomes[ended.outcome.status] += 1
    report.losses += ended.losses
    return ended


def differences(plain: Ended, ended: Ended, expect: Callable[[Outcome], bool] | None) -> Iterator[str]:
    """What is wrong with a run, a sentence each."""
    yield from ended.broken
    if expect is not None and not expect(ended.outcome):
        yield f"it ended unexpectedly as {ended.outcome}"
    if ended.outcome != plain.outcome:
        if expect is None:
            yield f"it ended as {ended.outcome} instead of {plain.outcome}"
        return
    if expect is None and (others := sorted(plain.checkpoints.keys() ^ ended.checkpoints.keys())):
        yield f"only one of the runs with and without faults has recorded {', '.join(others)}"
    # A cancel that comes at its instant may cut the one run in the middle of a step, and the other one behind it.
    for key in sorted(plain.settled & ended.bodies.keys()):
        if ended.bodies[key] > plain.bodies[key] + ended.losses:
            yield (
                f"the body of {key.partition(':')[2].partition(':')[2]!r} ran {ended.bodies[key]} times instead of "
                f"{plain.bodies[key]}, though only {ended.losses} owners were lost (I5)"
            )


def _failure(scenario: Scenario, seed: int, wrong: list[str], ended: Ended) -> str:
    name = scenario.workflow.name
    lines = [f"{name}, seed {seed}: {'; '.join(wrong)}", f"again: simulate({name}, ..., seeds=[{seed}])"]
    if ended.trace:
        lines.append("what happened last:")
        lines += ["  " + " ".join(map(str, line)) for line in ended.trace[-_SHOWN:]]
    return "\n".join(lines)


@final
class _Seed:
    """The world of one seed: its nodes, its network, and what befalls them."""

    def __init__(self, scenario: Scenario, random: Random, *, quiet: bool = False) -> None:
        self._random = random
        self._world = World(scenario, random)
        self.faults = Faults(random)
        if quiet:
            self.faults.left = 0
        self.network = Network(self._world.loop, random, self.faults, self._world.witness)
        self._topics: Topics = {}
        self._broker = Broker() if random.random() < 0.5 else None
        self._spawned = 0
        self._world.witness.on_claim = self._on_claim
        self._is_skewed = random.random() < 0.5

    def run(self) -> Ended:
        return self._world.run(
            lambda process: NetworkLine(self.network, process, patient=True),
            SimulatedBus(self.network, self._topics),
            self._begin,
            self._cut,
        )

    def _begin(self) -> None:
        for _ in range(self._random.choice((1, 2, 2, 3))):
            self._spawn()

    def _cut(self) -> None:
        self.network.is_cut = True

    def _spawn(self) -> None:
        world, random = self._world, self._random
        self._spawned += 1
        process = world.process(f"node {self._spawned}")
        queue: DurableQueue | None = SimulatedQueue(self.network, self._broker) if self._broker else None
        durable = world.durable(
            process,
            NetworkLine(self.network, process, patient=False),
            bus=SimulatedBus(self.network, self._topics),
            queue=queue,
            ahead_ms=random.randint(-5000, 5000) if self._is_skewed else 0,
            drain_s=random.choice((0, 30)),
        )
        node = Node(process, durable, queue, asyncio.Event())
        world.run_node(node, self._left)
        self._light(process, node)

    def _light(self, process: Process, node: Node, longest: float = 10) -> None:
        if self.faults.node and not self.faults.over:
            fuse = int(2 ** self._random.uniform(0, longest))
            process.light(fuse, lambda: self._befall(process, node))

    def _on_claim(self, name: str) -> None:
        """A node that has just got something to do is worth more attention."""
        if self._random.random() < 0.5:
            node = next(node for node in self._world.nodes if node.process.name == name)
            self._light(node.process, node, 7)

    def _befall(self, process: Process, node: Node) -> None:
        fault = self.faults.of_node()
        if fault is None:
            return
        self.network.note(process.name, fault)
        self.network.calm()
        later = self._world.loop.call_later
        if fault == "pause":
            process.paused = True
            self._world.absent += 1
            later(self._random.choice((0.1, 10, 90)), self._resume, process, node, context=self._main)
        elif fault == "restart":
            node.leaving.set()
        else:
            process.die()
            self._world.absent += 1
            self._world.witness.running.pop(process.name, None)
            if isinstance(node.queue, SimulatedQueue):
                node.queue.lose()
            later(self._random.choice((0.0, 5.0, 60.0)), self._replace, context=self._main)

    @property
    def _main(self) -> Any:
        return self._world.loop.main.context

    def _resume(self, process: Process, node: Node) -> None:
        self._world.absent -= 1
        process.paused = False
        self.network.note(process.name, "resumes")
        self.network.calm()
        self._light(process, node)

    def _replace(self) -> None:
        self._world.absent -= 1
        self.network.calm()
        self._spawn()

    def _left(self, node: Node) -> None:
        """A node has ended by itself, because it was told to or could not start: another one comes."""
        self.network.note(node.process.name, "left")
        self._world.absent += 1
        self._world.loop.call_later(self._random.choice((0.0, 5.0)), self._replace, context=self._main)


# ---- where it runs


async def in_a_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """What `work` gives, which is told whether anybody still waits for it. It has a thread of its own, since a thread
    has one event loop; what `durable` logs in it is nobody's news."""
    cancelled = threading.Event()

    def run() -> T:
        with _silence():
            return work(cancelled.is_set)

    try:
        return await asyncio.to_thread(run)
    finally:
        cancelled.set()


@contextmanager
def _silence() -> Generator[None]:
    silent = _Silent(threading.get_ident())
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(silent)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(silent)


@final
class _Silent(logging.Filter):
    """Lets nothing through that comes from one thread."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() != self._thread
