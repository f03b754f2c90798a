"""A process that does nothing but run executions: its event loop, and how rarely it looks for garbage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

_THRESHOLDS: Final = (20_000, 50, 50)


def run_process(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, but on uvloop where that is installed, and with the collector of `rarely_collecting`."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, rarely_collecting():
        return runner.run(main)


@contextmanager
def rarely_collecting() -> Generator[None]:
    """Within the block, what is imported by now is not looked at again, and what is new more seldom than by default.

    Executions are many objects that live for long, and leave nothing behind that only the collector finds: with
    Python's own thresholds it takes a third of a busy worker's time, and looking at all that sleeps takes hundreds of
    milliseconds in which nobody is woken. That is for who owns the process to decide.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
