"""Running the function of a step: on the loop or in a thread, within its time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, cast

from durable.clock import Clock
from durable.errors import StepFailed, StepTimeout
from durable.steps import STEP, StepInfo


async def run_step_body(
    fn: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    info: StepInfo,
    *,
    timeout_ms: int | None,
    clock: Clock,
    threads: Executor,
) -> object:
    """What `fn` returns; a sync function runs in a thread. `current_step()` is `info` in there.

    Raises:
        StepFailed: it ended in a `CancelledError` of its own.
        StepTimeout: it took longer than `timeout_ms`. It was cancelled; what it gives now counts no more.
        Exception: whatever `fn` raises.
    """
    token = STEP.set(info)
    try:
        if timeout_ms is None:
            return await _run(fn, args, kwargs, threads)
        return await _within(timeout_ms, clock, info, _run(fn, args, kwargs, threads))
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if (
            task is not None and task.cancelling() == 0
        ):  # nobody cancelled the step: it waited for something cancelled
            raise StepFailed("asyncio.exceptions.CancelledError", str(error), info.step_id) from error
        raise
    finally:
        STEP.reset(token)


async def _run(
    fn: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object], threads: Executor
) -> object:
    if is_async(fn):
        return await cast("Coroutine[Any, Any, object]", fn(*args, **kwargs))
    call = partial(copy_context().run, partial(fn, *args, **kwargs))
    result = await asyncio.get_running_loop().run_in_executor(threads, call)
    if inspect.isawaitable(result):  # a lambda that calls an async function
        return await result
    return result


def is_async(fn: Callable[..., object]) -> bool:
    """Whether a call gives a coroutine."""
    code = getattr(fn, "__code__", None)
    if code is not None:
        return bool(code.co_flags & inspect.CO_COROUTINE)
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


async def _within(timeout_ms: int, clock: Clock, info: StepInfo, body: Coroutine[Any, Any, object]) -> object:
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = clock.call_at(clock.now_ms() + timeout_ms, expire)
    try:
        result = await body
    except asyncio.CancelledError:
        if expired and task.uncancel() <= cancelling:
            raise StepTimeout(info.step_id, timeout_ms / 1000) from None
        raise
    except Exception as error:
        if expired:
            task.uncancel()
            raise StepTimeout(info.step_id, timeout_ms / 1000) from error
        raise
    else:
        if expired:
            task.uncancel()
            raise StepTimeout(info.step_id, timeout_ms / 1000)
        return result
    finally:
        timer.cancel()
