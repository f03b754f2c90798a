"""`crash_everywhere`: the same execution, with its worker dead before and after each of its store writes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, cast, final, get_args

from typing_extensions import override

from durable.app import OpenDeps
from durable.backends.memory import MemoryBus
from durable.errors import OutcomeUnknown
from durable.testing.bystanders import Bystanders, Habits
from durable.testing.simulation.env import Drive
from durable.testing.simulation.loop import EndlessSimulation, Process
from durable.testing.simulation.ports import Call, Line
from durable.testing.simulation.simulate import in_a_thread
from durable.testing.simulation.world import Ended, Node, Outcome, Scenario, World
from durable.workflow import AnyWorkflow, Workflow

In = TypeVar("In")
T = TypeVar("T")

Mode = Literal["before", "after", "unknown"]
_MODES: tuple[Mode, ...] = get_args(Mode)
_LATER_MS = 61_007
_WRITES = frozenset({"create", "claim", "commit", "post", "tick", "due", "relay", "save_schedule"})


class Fault(NamedTuple):
    """The worker's n-th store write, counted from 1, and what happens to it.

    `before`: the worker dies instead of making it; `after`: it dies once it is made, not knowing; `unknown`: it is
    made, and answered by an error.
    """

    write: int
    mode: Mode


@dataclass(slots=True)
class CrashReport:
    """What `crash_everywhere` has done."""

    runs: int = 0
    writes: int = 0
    """Store writes of the worker in the run without faults."""
    faults: Counter[str] = field(default_factory=Counter[str])
    """How often each kind of fault was met, as `before commit`."""


async def crash_everywhere(
    workflow: Workflow[In, Any],
    input: In | None = None,
    *,
    workflows: Iterable[AnyWorkflow] = (),
    drive: Drive | None = None,
    deps: OpenDeps | None = None,
    forget: Callable[[], object] | None = None,
    trust: Iterable[str] = (),
    only: tuple[int, Mode] | None = None,
) -> CrashReport:
    """Run the workflow to its end, and then once with each `Fault` at each store write of its worker; another worker
    goes on.

    Every run must give the same result (or error) and the same checkpoints, run each step's body at most once more
    than without the fault, run compensations in the same order, and change nothing outside of its steps that the run
    without a fault does not. What differs from run to run by itself, because a step's result or the time does, is not
    compared.

    `drive(env, handle)` plays the outside world: it sends the signals, and time passes by itself when nothing else can
    happen. `forget` is called when the worker dies: what modules keep in memory should go with it. `trust` names
    packages that a body may call although they use time and chance, as it is said of them that nothing follows from
    it. `only` repeats the run of one fault.

    Raises:
        AssertionError: a run differed. It names the write, what it carried, what differed, and how to run just that
            again.
    """
    known: list[AnyWorkflow] = [workflow, *(other for other in workflows if other is not workflow)]
    scenario = Scenario(workflow, input, known, drive, deps)
    return await in_a_thread(partial(_everywhere, scenario, forget, frozenset(trust), only))


def _everywhere(
    scenario: Scenario,
    forget: Callable[[], object] | None,
    trust: frozenset[str],
    only: tuple[int, Mode] | None,
    is_cancelled: Callable[[], bool],
) -> CrashReport:
    name = scenario.workflow.name
    with Habits(scenario.workflows, trust) as habits:
        plain = _Run(scenario, None, None).run()
    _refuse(name, "without any fault", chain(plain.ended.broken, _unfinished(plain), habits.bad))
    twin = _Run(scenario, None, None).run()
    varying = _varying(plain, twin)
    _refuse(name, "in two runs without any fault", _differences(plain, twin, varying, extra=0))
    # A crash takes some time, so what follows from the time is not to be compared.
    later = _Run(scenario, None, None, later_ms=_LATER_MS).run()
    varying |= _varying(plain, later) | ({""} if later.ended.outcome != plain.ended.outcome else set())
    report = CrashReport(runs=3, writes=len(plain.writes))
    every = (Fault(number, mode) for number in range(1, len(plain.writes) + 1) for mode in _MODES)
    for fault in every if only is None else [Fault(*only)]:
        if is_cancelled():
            break
        run = _Run(scenario, fault, forget).run()
        report.runs += 1
        verb, about = run.writes[fault.write - 1] if fault.write <= len(run.writes) else ("none", "")
        report.faults[f"{fault.mode} {verb}"] += 1
        extra = 0 if fault.mode == "unknown" else 1
        where = f"with the worker dead {fault.mode} write {fault.write}"
        if fault.mode == "unknown":
            where = f"with write {fault.write} made and answered by an error"
        carried = f" ({verb} {about})" if str(about) else f" ({verb})"
        again = f"again: crash_everywhere({name}, ..., only=({fault.write}, {fault.mode!r}))"
        wrong = chain(run.ended.broken, _differences(plain, run, varying, extra=extra))
        _refuse(name, where + carried, wrong, again)
    return report


def _refuse(name: str, where: str, wrong: Iterable[str], again: str = "") -> None:
    """Raise what is wrong, if anything is."""
    if sentences := list(dict.fromkeys(wrong)):
        lines = [f"{name}, {where}:", *(f"  {sentence}" for sentence in sentences), again]
        raise AssertionError("\n".join(lines).rstrip())


# ---- comparing


def _unfinished(run: _Run) -> Iterator[str]:
    status, _ = run.ended.outcome.status, run.ended.outcome.value
    if status in ("parked", "waiting", "sleeping", "running", "pending", "retrying", "paused", "not started"):
        waits = [
            f"{kind} {key!r}" for key, (kind, _, state, _) in run.ended.checkpoints.items() if state == "open"
        ]
        yield f"it does not end: it is {_told(run.ended.outcome)}" + (
            f", at {', '.join(waits)}" if waits else ""
        )


def _told(outcome: Outcome) -> str:
    if outcome.status == "parked":
        _, message, _ = cast("tuple[str, str, str | None]", outcome.value)
        return f"parked for repair: {message}"
    return str(outcome)


def _varying(plain: _Run, twin: _Run) -> set[str]:
    """The steps whose results differ from run to run by themselves; `""` is the outcome, which may follow from them."""
    was, now = plain.ended.checkpoints, twin.ended.checkpoints
    varying = {
        key
        for key in was.keys() & now.keys()
        if was[key][:3] == now[key][:3]
        and was[key][0] in ("step", "child", "wait_for")
        and was[key] != now[key]
    }
    return varying | {""} if varying else varying


def _differences(plain: _Run, run: _Run, varying: set[str], *, extra: int) -> Iterator[str]:
    was, now = plain.ended, run.ended
    if now.outcome != was.outcome and not ("" in varying and now.outcome.status == was.outcome.status):
        yield f"it ended as {_told(now.outcome)} instead of {_told(was.outcome)}"
        if now.outcome.status == "parked":
            return  # all else follows from that
    for key in dict.fromkeys((*was.checkpoints, *now.checkpoints)):
        before, after = was.checkpoints.get(key), now.checkpoints.get(key)
        if before is None:
            yield f"{key!r} was recorded, and is not where nothing goes wrong"
        elif after is None:
            yield f"{key!r} was not recorded"
        elif before[:3] != after[:3] or (before != after and not varying):
            yield f"{key!r} is recorded as {_record(after)} instead of {_record(before)}"
    for key in dict.fromkeys((*was.bodies, *now.bodies)):
        if not was.bodies[key] <= now.bodies[key] <= was.bodies[key] + extra:
            step = key.partition(":")[2].partition(":")[2]
            yield f"the body of {step!r} ran {now.bodies[key]} times instead of {was.bodies[key]}"
    if _once_each(was.undone) != _once_each(now.undone):
        yield f"compensations ran in the order {_names(now.undone)} instead of {_names(was.undone)}"
    yield from run.bystanders.differences(plain.bystanders)


def _record(checkpoint: tuple[str, str, str, bytes]) -> str:
    kind, _, status, data = checkpoint
    return f"{kind} {status} {data.decode(errors='replace')[:200]}"


def _once_each(undone: Sequence[str]) -> list[str]:
    """A compensation that was running at a crash runs again; its last run counts."""
    return [key for i, key in enumerate(undone) if key not in undone[i + 1 :]]


def _names(undone: Sequence[str]) -> list[str]:
    return [key.partition(":")[2].partition(":")[2] for key in _once_each(undone)]


# ---- a run


@final
class _Run:
    """One run: a client whose calls succeed, a worker that meets the fault, and one that comes when it is dead."""

    def __init__(
        self,
        scenario: Scenario,
        fault: Fault | None,
        forget: Callable[[], object] | None,
        *,
        later_ms: int = 0,
    ) -> None:
        self._world = World(scenario, later_ms=later_ms)
        self._bus = MemoryBus()
        self._fault = fault
        self._forget = forget
        self._lines: list[_DoomedLine] = []
        self.writes: list[tuple[str, object]] = []
        """What the first worker wrote: each verb, and what it carried."""
        self.bystanders = Bystanders(scenario.workflows)
        self._world.witness.on_body = self.bystanders.body
        self.ended = Ended()

    def run(self) -> _Run:
        self.bystanders.begin()
        try:
            self.ended = self._world.run(
                lambda process: self._line(process, None, []), self._bus, self._first, self._cut
            )
        except EndlessSimulation as error:
            self.ended.outcome = Outcome("running", str(error))
        self.bystanders.end()
        return self

    def _line(self, process: Process, fault: Fault | None, writes: list[tuple[str, object]]) -> _DoomedLine:
        line = _DoomedLine(fault, writes, lambda: self._die(process))
        self._lines.append(line)
        return line

    def _spawn(self, name: str, fault: Fault | None, writes: list[tuple[str, object]]) -> None:
        process = self._world.process(name)
        durable = self._world.durable(process, self._line(process, fault, writes), bus=self._bus)
        self._world.run_node(Node(process, durable, None, asyncio.Event()), lambda _: None)

    def _first(self) -> None:
        self._spawn("first worker", self._fault, self.writes)

    def _die(self, process: Process) -> None:
        process.die()
        self._world.witness.running.clear()
        self.bystanders.lost()
        if self._forget is not None:
            self._forget()
        # Its lease ends here, so that the crash takes no time: what would wait for it to run out is `simulate`'s.
        self._world.store.beat(self._world.nodes[0].durable.worker.id, ttl_ms=0)
        later = partial(self._spawn, "second worker", None, [])
        self._world.loop.call_soon(later, context=self._world.loop.main.context)

    def _cut(self) -> None:
        for line in self._lines:
            line.is_cut = True


@final
class _DoomedLine(Line):
    """Calls that take no time and succeed, but for one."""

    def __init__(
        self, fault: Fault | None, writes: list[tuple[str, object]], die: Callable[[], object]
    ) -> None:
        self._fault = fault
        self._writes = writes
        self._die = die
        self.is_cut = False

    @override
    async def call(self, verb: str, call: Call[T], about: object) -> T:
        if self.is_cut:
            await _for_ever()
        if verb not in _WRITES:
            return await call()
        self._writes.append((verb, about))
        met = self._fault is not None and self._fault.write == len(self._writes)
        mode = self._fault.mode if met and self._fault is not None else None
        if mode == "before":
            self._die()
            await _for_ever()
        answer = await call()
        if mode == "unknown":
            raise OutcomeUnknown("", "injected")
        if mode == "after":
            self._die()
            await _for_ever()
        return answer

    @override
    def beat(self, call: Callable[[], None]) -> None:
        if not self.is_cut:
            call()


async def _for_ever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("it is never done")
