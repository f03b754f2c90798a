"""`World`: one execution, from its start to its end, with all who have to do with it, on one simulated loop.

             ┌ client (drive) ┐
Scenario ──▶ │ node 1, 2 ...  │ ── lines ──▶ MemoryStore ──▶ Ended
             └ bus, broker    ┘
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import wraps
from random import Random
from typing import Any, Final, cast, final

from typing_extensions import override

from durable.app import Durable, OpenDeps
from durable.backends.memory import MemoryStore
from durable.codec import load_error
from durable.engine.host import Stubs
from durable.engine.step_body import is_async
from durable.errors import DurableError, NotRunning
from durable.ids import Ids
from durable.models import ExecutionStatus
from durable.protocols import Checkpoint, DurableQueue, EventBus, ExecutionRow, keyed_id
from durable.steps import current_step
from durable.testing.simulation.clock import LoopPulse, SimulatedClock
from durable.testing.simulation.env import Drive, SimulatedEnv
from durable.testing.simulation.loop import EndlessSimulation, Process, SimulationLoop
from durable.testing.simulation.ports import Line, SimulatedStore, at_once
from durable.testing.simulation.witness import Witness
from durable.testing.stubs import StepStubs
from durable.workflow import AnyWorkflow, Workflow

_KEY: Final = "it"
_MOST_CRASHES: Final = 1_000_000
_LEASE_S, _SWEEP_S = 30, 5
_PATIENCE_S: Final = _LEASE_S + 6 * _SWEEP_S
"""How long nothing may come of what is due, when all is well: a lease, and a few sweeps."""
_MOST_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated."""

    workflow: AnyWorkflow
    input: object
    workflows: Sequence[AnyWorkflow]
    """All that the nodes know, `workflow` among them."""
    drive: Drive | None = None
    deps: OpenDeps | None = None

    @property
    def execution_id(self) -> str:
        return keyed_id(self.workflow.name, _KEY)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution has ended, or what it waits for if it has not."""

    status: str
    value: object = None
    """The result; of one that did not complete the error's type, message and code."""

    @override
    def __str__(self) -> str:
        return f"{self.status}: {self.value!r}" if self.value is not None else self.status


@dataclass(slots=True)
class Ended:
    """What has come of one run."""

    outcome: Outcome = field(default_factory=lambda: Outcome("not started"))
    checkpoints: Mapping[str, tuple[str, str, str, bytes]] = field(
        default_factory=dict[str, tuple[str, str, str, bytes]]
    )
    """Kind, name, status and data of each record."""
    bodies: Counter[str] = field(default_factory=Counter[str])
    """How often each step's body began, by its idempotency key."""
    settled: Set[str] = frozenset()
    """The keys of the steps that have given or failed."""
    undone: Sequence[str] = ()
    """The compensations that ran, in order."""
    losses: int = 0
    """How often an owner was lost."""
    broken: Sequence[str] = ()
    """Promises that did not hold."""
    trace: Sequence[tuple[object, ...]] = ()


@dataclass(slots=True, eq=False)
class Node:
    """A process that runs a worker."""

    process: Process
    durable: Durable
    queue: DurableQueue | None
    leaving: asyncio.Event
    left: asyncio.Task[None] | None = None


@final
class World:
    """One run of a scenario. `random` decides about everything that chance decides about; without it there is none.
    It begins `later_ms` later than others."""

    def __init__(self, scenario: Scenario, random: Random | None = None, *, later_ms: int = 0) -> None:
        self._later_ms = later_ms
        self.scenario = scenario
        self.loop = SimulationLoop(self, None if random is None else Random(random.getrandbits(64)))
        self.clock = SimulatedClock(self.loop, later_ms)
        self.store = MemoryStore(self.clock)
        self.witness = Witness()
        self.nodes: list[Node] = []
        self.absent = 0
        """Nodes that are dead or paused, and will come back."""
        self._stubs = StepStubs()
        self._ids = 0 if random is None else random.getrandbits(48)
        self._random = random
        self._news: asyncio.Future[None] | None = None
        self._idlers: list[asyncio.Future[None]] = []
        self._is_stuck = False
        self._ended = False
        self._closing = False
        self._errors: list[str] = []
        self._opened = 0
        self._clients: list[Process] = []
        self.loop.set_exception_handler(self._on_error)

    # ---- who lives here

    def process(self, name: str) -> Process:
        return self.loop.add(Process(name))

    def durable(
        self,
        process: Process,
        line: Line,
        *,
        bus: EventBus,
        queue: DurableQueue | None = None,
        worker: bool = True,
        ahead_ms: int = 0,
        drain_s: float = 0,
    ) -> Durable:
        """A `Durable` of one process."""
        self._opened += 1
        return Durable(
            self.scenario.workflows,
            store=SimulatedStore(self.store, line, self.witness, process.name),
            bus=bus,
            queue=queue,
            clock=SimulatedClock(self.loop, self._later_ms + ahead_ms),
            ids=Ids(self._ids + self._opened),
            worker=worker,
            queues=sorted({workflow.queue for workflow in self.scenario.workflows}),
            lease=_LEASE_S,
            sweep=_SWEEP_S,
            drain=drain_s,
            max_crashes=_MOST_CRASHES,
            deps=self.scenario.deps if worker else None,
            stubs=_Watched(self._stubs, self.witness),
            pulse=LoopPulse,
        )

    def run_node(self, node: Node, on_left: Callable[[Node], object]) -> None:
        """Let a node live until it is told to leave, or dies."""

        async def live() -> None:
            try:
                async with node.durable:
                    await node.leaving.wait()
            except DurableError as error:
                self.witness.note(node.process.name, "could not start or stop", str(error))
            on_left(node)

        self.nodes.append(node)
        node.left = self.loop.create_task(live(), context=node.process.context.copy())

    # ---- what the loop asks

    def due_at(self) -> float | None:
        if self._closing:
            return None
        if not self._ended and self._has_ended():
            self._ended = True
            self.tell()
        next_at, now = self.store.next_at(), self.clock.now_ms()
        if next_at is None or next_at > now:
            self.loop.restless = 0.0
            self._wake_idlers()
            return None if next_at is None else self.clock.loop_time(next_at)
        if self.loop.restless > _PATIENCE_S and +self.witness.running:
            self._wake_idlers()  # a step waits for the test
        elif self.loop.restless > _PATIENCE_S and not self.absent:
            self.stuck()
        return self.loop.time()

    def stuck(self) -> None:
        self._is_stuck = True
        self._wake_idlers()
        self.tell()

    def tell(self) -> None:
        """Have a look whether it has ended."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _wake_idlers(self) -> None:
        for idler in self._idlers:
            if not idler.done():
                idler.set_result(None)
        self._idlers.clear()

    def _until_idle(self) -> asyncio.Future[None]:
        idler: asyncio.Future[None] = self.loop.create_future()
        self._idlers.append(idler)
        return idler

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self._closing:
            self._errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    # ---- a run

    def run(
        self,
        client_line: Callable[[Process], Line],
        bus: EventBus,
        begin: Callable[[], object],
        end: Callable[[], object],
    ) -> Ended:
        """Start the execution and come back when it has ended, or when it never will. `begin` brings the nodes; from
        `end` on no call of theirs comes through any more.

        Raises:
            EndlessSimulation: it goes on for ever.
            Exception: whatever `drive` raises.
        """
        ended = Ended()
        try:
            self.loop.run_until_complete(self._run(ended, client_line, bus, begin))
        finally:
            ended.trace = tuple(self.witness.trace)
            end()
            self._close()
        return ended

    async def _run(
        self, ended: Ended, client_line: Callable[[Process], Line], bus: EventBus, begin: Callable[[], object]
    ) -> None:
        scenario = self.scenario
        process = self.process("client")
        self._clients.append(process)
        client = self.durable(process, client_line(process), bus=bus, worker=False)

        async def outside() -> None:
            async with client:
                handle = await client.start(
                    cast("Workflow[object, Any]", scenario.workflow), scenario.input, key=_KEY
                )
                if scenario.drive is not None:
                    env = SimulatedEnv(client, self.clock, self._stubs, self._until_idle)
                    await scenario.drive(env, handle)

        begin()
        task = self.loop.create_task(outside(), context=process.context.copy())
        task.add_done_callback(lambda _: self.tell())
        while not self._is_stuck and not (task.done() and (_has_failed(task) or self._ended)):
            self._news = self.loop.create_future()
            await self._news
        if task.done():
            task.result()
        if not self._is_stuck:
            await self._until_idle()  # children that are detached, and others whom it has woken
        row = await self.store.get(scenario.execution_id)
        ended.outcome = self._outcome(row)
        if row is None:
            return
        if not task.done():
            self.witness.broken.append("drive waits for something that never comes")
        history = await self.store.history(row.id)
        ended.checkpoints = {each.step_id: _essence(each) for each in history}
        ended.bodies = self.witness.bodies
        ended.settled = self.witness.settled
        ended.undone = self.witness.undone
        for execution_id in self.witness.executions():
            ended.losses += self.witness.losses(execution_id)
            await self.witness.look_at(self.store, execution_id)
        ended.broken = [*self.witness.broken, *await self.store.check(), *self._errors]

    def _has_ended(self) -> bool:
        row = cast("ExecutionRow | None", at_once(lambda: self.store.get(self.scenario.execution_id)))
        return row is not None and row.status.final

    def _outcome(self, row: ExecutionRow | None) -> Outcome:
        if row is None:
            return Outcome("not started")
        if row.status is ExecutionStatus.COMPLETED:
            return Outcome(row.status, self.scenario.workflow.output_schema.load(row.result or b"null"))
        if row.error:
            error = load_error(row.error)
            return Outcome(row.status, (error.error_type, error.message, error.code))
        return Outcome(row.status)

    def _close(self) -> None:
        """End everything that is still there, dead nodes too; none of it is part of the run."""
        self._closing = True
        self.loop.turns = 0
        try:
            self.loop.run_until_complete(self._abandon())
        except EndlessSimulation:
            pass
        finally:
            for task in asyncio.all_tasks(self.loop):
                cast("Any", task)._log_destroy_pending = False  # it would not end, and nobody needs to know
            self.loop.close()

    async def _abandon(self) -> None:
        dying = [self.loop.create_task(_die(node.durable)) for node in self.nodes]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for process in [*self._clients, *(node.process for node in self.nodes)]:
            process.rise()
        if dying:
            await asyncio.wait(dying, timeout=1)
        mine = asyncio.current_task()
        for _ in range(_MOST_ROUNDS):
            left = [task for task in asyncio.all_tasks(self.loop) if task is not mine]
            if not left:
                return
            for task in sorted(left, key=hash):
                task.cancel()
            await asyncio.sleep(0)


@final
class _Watched(Stubs):
    """Tells the witness of each body that begins, and lets it be what `stubs` say."""

    def __init__(self, stubs: StepStubs, witness: Witness) -> None:
        self._stubs = stubs
        self._witness = witness

    @override
    def replace(self, step_id: str, fn: Callable[..., object]) -> Callable[..., object]:
        witness, body = self._witness, self._stubs.replace(step_id, fn)
        if is_async(body):

            @wraps(body)
            async def watched(*args: object, **kwargs: object) -> object:
                info = current_step()
                witness.begins(info)
                try:
                    result = body(*args, **kwargs)
                    return await result if inspect.isawaitable(result) else result
                finally:
                    witness.ends(info)

            return watched

        @wraps(body)
        def watched_in_a_thread(*args: object, **kwargs: object) -> object:
            info = current_step()
            witness.begins(info)
            try:
                return body(*args, **kwargs)
            finally:
                witness.ends(info)

        return watched_in_a_thread


async def _die(durable: Durable) -> None:
    try:
        worker = durable.worker
    except NotRunning:
        return
    await worker.die()


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


def _essence(checkpoint: Checkpoint) -> tuple[str, str, str, bytes]:
    data = b"" if checkpoint.kind == "tries" else checkpoint.data  # which are instants
    return checkpoint.kind, checkpoint.name, checkpoint.status, data
