"""`SimulationLoop`: an event loop without a selector and without real time, on which several processes live.

    Process "node 1"  ─ its callbacks, in their order ─┐
    Process "node 2"  ─ ...                            ├─▶ one at a time, in an order that the seed decides
    Process "network" ─ messages, in any order ────────┘
    timers ─ when nothing is ready, time moves to the next one

Which process a callback belongs to is a context variable, so whatever a process starts is part of it: a process that
is dead runs nothing any more, one that is paused runs it later. Neither asks the code in it to do anything.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast, final

from typing_extensions import override

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST_STILL = 2_000
"""Callbacks after which time moves although others are ready: code that polls in a loop takes time, too."""
_MOST_TURNS = 200_000
_THREAD_S = 0.001


class EndlessSimulation(Exception):
    """It goes on and on, and nothing comes of it."""


@final
class Process:
    """Runs its callbacks in the order in which they were scheduled; an `unordered` one runs them in any order."""

    __slots__ = ("_blow", "context", "dead", "fuse", "name", "paused", "ready", "unordered")

    def __init__(self, name: str, *, unordered: bool = False) -> None:
        self.name = name
        self.unordered = unordered
        self.ready: deque[tuple[int, asyncio.Handle]] = deque()
        self.dead = False
        self.paused = False
        self.fuse = 0
        """How many callbacks it runs before something happens to it; 0: nothing will."""
        self._blow: Callable[[], object] = _nothing
        self.context = copy_context()
        """What belongs to this process runs in this context, or in one that was copied from it."""
        self.context.run(_process.set, self)

    def light(self, fuse: int, blow: Callable[[], object]) -> None:
        """Call `blow` instead of running the process's callback number `fuse` from now."""
        self.fuse, self._blow = fuse, blow

    def burn(self) -> bool:
        """Let the fuse burn on, before a callback; true when something has happened to the process."""
        self.fuse -= 1
        if self.fuse == 0:
            self._blow()
            return True
        return False

    def die(self) -> None:
        """Run nothing any more, not even a `finally`."""
        self.dead = True

    def rise(self) -> None:
        """Run what is left, when the simulation is over and everything is closed."""
        self.dead = self.paused = False
        self.fuse = 0


_process: ContextVar[Process] = ContextVar("durable.process")


def current_process() -> Process | None:
    """The process that the running code belongs to; None for what drives the simulation."""
    return _process.get(None)


class Surroundings(Protocol):
    """What a loop has to know of the world that lives on it."""

    def due_at(self) -> float | None:
        """The loop's time at which the next thing is due: one that has passed when something is to be done now, by
        housekeeping if by nothing else; None when nothing is due by itself.

        Called when nothing is ready, before time moves. It may schedule something.
        """
        ...

    def stuck(self) -> None:
        """Nothing will ever happen any more, unless something is scheduled now."""
        ...


class _Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address: a set of tasks is walked through alike each time."""

    def __init__(self, coro: Coroutine[Any, Any, T], number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    @override
    def __hash__(self) -> int:
        return self._number


@final
class SimulationLoop(asyncio.BaseEventLoop):
    """Runs one callback at a time and jumps over the time in which there is none.

    `random` decides which process goes on, and how long a thread takes; without it all happens in the order in which
    it was scheduled, and threads take no time. Timers set by `call_in_background` are housekeeping: while nothing is
    due, time does not stop at them, however many would fall into a week.
    """

    def __init__(self, surroundings: Surroundings, random: Random | None = None) -> None:
        super().__init__()
        self._surroundings = surroundings
        self._random = random
        self._now = 0.0
        self._order = count()
        self._numbers = count()
        self._still = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._background: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self.main = Process("main")
        self._processes: list[Process] = [self.main]
        self.restless = 0.0
        """Seconds that only housekeeping has filled, although something is due. Whoever makes progress resets it."""
        self.turns = 0
        """Callbacks run."""
        self.set_task_factory(cast("Any", self._new_task))

    # ---- processes

    def add(self, process: Process) -> Process:
        """Let a process run here from now on."""
        self._processes.append(process)
        return process

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        context: Context | None = options.get("context")
        process = current_process()
        if context is not None and process is not None and _process not in context:
            context.run(_process.set, process)  # an empty context is no way out of a process
        return _Task(coro, next(self._numbers), loop=loop, **options)

    # ---- scheduling, as asyncio asks for it

    @override
    def time(self) -> float:
        return self._now

    @override
    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        context = copy_context() if context is None else context
        handle = asyncio.Handle(cast("Any", callback), args, self, context)
        process = context.get(_process) or self.main
        process.ready.append((next(self._order), handle))
        return handle

    @override
    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    @override
    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    @override
    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self._set_timer(self._timers, when, callback, args, context)

    def call_in_background(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """As `call_at`, for housekeeping. See the class."""
        return self._set_timer(self._background, when, callback, (), None)

    def _set_timer(
        self,
        timers: list[tuple[float, int, asyncio.TimerHandle, Process]],
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> asyncio.TimerHandle:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        context = copy_context() if context is None else context
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        process = context.get(_process) or self.main
        if not process.dead:
            heapq.heappush(timers, (when, next(self._order), handle, process))
        return handle

    @override
    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` on the loop, all at once, a little later: a thread of which nobody sees the middle."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.done():
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 a thread hands on whatever was raised in it
                if isinstance(error, StopIteration):
                    error = RuntimeError("a sync function raised StopIteration")
                future.set_exception(error)
            else:
                future.set_result(result)

        if self._random is None:
            self.call_soon(run)
        else:
            self.call_later(self._random.random() * _THREAD_S, run)
        return future

    # ---- running

    def _run_once(self) -> None:
        process = self._next() if self._still < _MOST_STILL else None
        if process is None:
            spinning, self._still = self._still >= _MOST_STILL, 0
            self._move_time(spinning=spinning)
            return
        self._still += 1
        if process.fuse and process.burn():
            return
        self.turns += 1
        if self.turns > _MOST_TURNS:
            raise EndlessSimulation(f"it has not come to an end within {_MOST_TURNS:,} turns of the loop")
        if process.unordered and self._random is not None and len(process.ready) > 1:
            process.ready.rotate(int(self._random.random() * len(process.ready)))
        _, handle = process.ready.popleft()
        if not handle.cancelled():
            handle._run()

    def _next(self) -> Process | None:
        """Whose turn it is."""
        ready = [each for each in self._processes if each.ready and not each.paused and not each.dead]
        if not ready:
            return None
        if len(ready) == 1:
            return ready[0]
        if self._random is None:
            return min(ready, key=_since)
        return ready[int(self._random.random() * len(ready))]

    def _move_time(self, *, spinning: bool) -> None:
        due_at = self._surroundings.due_at()
        if not spinning and self._next() is not None:
            return
        foreground, background = _first(self._timers), _first(self._background)
        if due_at is not None and due_at <= self._now:
            if background is not None and (foreground is None or background < foreground):
                self.restless += max(0.0, background - self._now)
            due_at = background
        when = min((each for each in (foreground, due_at) if each is not None), default=None)
        if when is None:
            self._surroundings.stuck()
            if self._next() is None:
                raise EndlessSimulation("nothing will ever happen any more")
            return
        self._now = max(self._now, when)
        for timers in (self._background, self._timers):
            while timers and timers[0][0] <= self._now:
                _, order, handle, process = heapq.heappop(timers)
                if not process.dead:
                    process.ready.append((order, handle))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def _process_events(self, event_list: list[Any]) -> None:
        raise NotImplementedError("there are no sockets here")

    def _write_to_self(self) -> None:
        pass


def _since(process: Process) -> int:
    return process.ready[0][0]


def _first(timers: list[tuple[float, int, asyncio.TimerHandle, Process]]) -> float | None:
    """When the first timer is due that somebody still waits for."""
    while timers and (timers[0][2].cancelled() or timers[0][3].dead):
        heapq.heappop(timers)
    return timers[0][0] if timers else None


def _nothing() -> None: ...
