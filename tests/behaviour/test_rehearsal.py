"""Rehearsals: what is recorded is replayed with other code, which runs nothing and stores nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durable import Branch, Context, Fail, Handle, ReplayMismatch, Retry, Signal, step, workflow
from durable.engine.rehearsal import Fit, Verdict
from durable.testing import DurableEnv, replay_history

Go = Signal("go")
Number = Signal("number", int)
Body = Callable[[Context], Awaitable[Any]]
FILE = __file__


def one() -> int:
    return 1


def two() -> int:
    return 2


@step
async def charge() -> str:
    return "charged"


async def rehearsed(
    before: Body, after: Body, *acts: Callable[[DurableEnv, Handle[Any]], Awaitable[Any]], **settings: Any
) -> Verdict:
    """The verdict on `after` of what `before` has recorded, when it rests after these acts."""
    now = [before]

    @workflow(**settings)
    async def order(ctx: Context) -> Any:
        return await now[0](ctx)

    async with DurableEnv([order]) as env:
        handle = await env.durable.start(order)
        await env.until_idle()
        for act in acts:
            await act(env, handle)
            await env.until_idle()
        now[0] = after
        async with env.durable.rehearsing() as replay:
            history = await env.durable.operator.get_history(handle.id)
            verdict = await replay(history)
            assert await env.durable.operator.get_history(handle.id) == history
        return verdict


async def go(env: DurableEnv, handle: Handle[Any]) -> None:
    await handle.signal(Go)


async def cancel(env: DurableEnv, handle: Handle[Any]) -> None:
    await handle.cancel("fraud")


async def roll_back(env: DurableEnv, handle: Handle[Any]) -> None:
    await env.durable.operator.rollback(handle.id, "enough")


async def force_fail(env: DurableEnv, handle: Handle[Any]) -> None:
    await env.durable.operator.force_fail(handle.id, "enough")


async def retry(env: DurableEnv, handle: Handle[Any]) -> None:
    await env.durable.operator.retry(handle.id)


def line_of(fn: Callable[..., Any], offset: int) -> str:
    return f"{FILE}:{fn.__code__.co_firstlineno + offset}"


# ---- the bodies


async def plain(ctx: Context) -> int:
    await ctx.step("one", one)
    await ctx.step("two", two)
    await ctx.wait_for_signal(Go)
    return 12


async def with_more(ctx: Context) -> int:
    await plain(ctx)
    return await ctx.step("three", two) + 10


async def with_a_new_first(ctx: Context) -> int:
    await ctx.step("zero", abs, 0)
    return await plain(ctx)


async def with_a_new_guarded(ctx: Context) -> int:
    if ctx.patched("zero"):
        await ctx.step("zero", one)
    return await plain(ctx)


async def with_a_new_in_the_middle(ctx: Context) -> int:
    await ctx.step("one", one)
    await ctx.step(charge)
    await ctx.step("two", two)
    await ctx.wait_for_signal(Go)
    return 12


async def renamed(ctx: Context) -> int:
    await ctx.step("one", one)
    await ctx.step("zwei", two)
    await ctx.wait_for_signal(Go)
    return 12


async def with_less(ctx: Context) -> int:
    await ctx.step("one", one)
    await ctx.wait_for_signal(Go)
    return 12


async def other_function(ctx: Context) -> int:
    await ctx.step("one", one)
    await ctx.step("two", one)
    await ctx.wait_for_signal(Go)
    return 12


async def other_kind(ctx: Context) -> int:
    await ctx.step("one", one)
    await ctx.sleep("1d", id="two")
    await ctx.wait_for_signal(Go)
    return 12


async def ends_early(ctx: Context) -> int:
    return await ctx.step("one", one)


async def fails_early(ctx: Context) -> int:
    await ctx.step("one", one)
    raise KeyError("card")


async def other_result(ctx: Context) -> int:
    return await plain(ctx) + 1


async def raises_at_the_end(ctx: Context) -> int:
    await plain(ctx)
    raise Fail("no", code="no")


async def side_by_side(ctx: Context) -> int:
    await ctx.gather(ctx.step("one", one), ctx.step("two", two))
    await ctx.wait_for_signal(Go)
    return 12


async def with_a_new_one_beside(ctx: Context) -> int:
    await asyncio.gather(ctx.step("one", one), ctx.step("two", two), ctx.step("three", two))
    await ctx.wait_for_signal(Go)
    return 12


async def cannot_read(ctx: Context) -> int:
    async def one() -> list[str]:
        return []

    await ctx.step("one", one)
    return await plain(ctx)


WAITING = [
    (plain, Fit.FITS, "it goes on waiting for wait_for_signal 'go'"),
    (with_more, Fit.FITS, "it goes on waiting"),
    (other_result, Fit.FITS, "it goes on waiting"),
    (with_a_new_guarded, Fit.FITS, "it goes on waiting"),
    (side_by_side, Fit.FITS, "it goes on waiting"),
    (
        with_a_new_one_beside,
        Fit.NEEDS_PATCHED,
        "recorded wait_for_signal 'go' as 'go' at 3, the code now asks for step 'two' as 'three'",
    ),
    (
        with_a_new_first,
        Fit.NEEDS_PATCHED,
        "recorded step 'one' as 'one' at 1, the code now asks for step 'abs' as 'zero'",
    ),
    (with_a_new_in_the_middle, Fit.NEEDS_PATCHED, "at 2, the code now asks for step 'charge'"),
    (renamed, Fit.DIVERGES, "recorded step 'two' as 'two' at 2, the code now asks for step 'two' as 'zwei'"),
    (with_less, Fit.DIVERGES, "recorded step 'two' as 'two' at 2"),
    (other_function, Fit.DIVERGES, "the code now asks for step 'one'"),
    (other_kind, Fit.DIVERGES, "recorded step 'two' as 'two' at 2, the code now asks for sleep"),
    (ends_early, Fit.DIVERGES, "the code now asks for its end (completed with 1)"),
    (fails_early, Fit.DIVERGES, "its end (another attempt, after KeyError: 'card')"),
    (cannot_read, Fit.DIVERGES, "list[str]"),
]


@pytest.mark.parametrize(
    ("after", "fit", "text"), WAITING, ids=lambda value: getattr(value, "__name__", None)
)
async def test_an_execution_that_waits_meets_other_code(after: Body, fit: Fit, text: str) -> None:
    verdict = await rehearsed(plain, after)
    assert (verdict.fit, text in verdict.text) == (fit, True), verdict
    assert bool(verdict.hint) == (fit is not Fit.FITS)


ENDED = [
    (plain, Fit.FITS, "it ends as it did"),
    (side_by_side, Fit.FITS, "it ends as it did"),
    (
        with_more,
        Fit.NEEDS_PATCHED,
        "recorded its end as completed, the code now asks for step 'two' as 'three'",
    ),
    (other_result, Fit.DIVERGES, "it ended as completed with 12, and now ends as completed with 13"),
    (raises_at_the_end, Fit.DIVERGES, "now ends as failed"),
    (with_less, Fit.DIVERGES, "recorded step 'two' as 'two' at 2, the code now asks for its end"),
]


@pytest.mark.parametrize(("after", "fit", "text"), ENDED, ids=lambda value: getattr(value, "__name__", None))
async def test_an_execution_that_has_ended_must_end_in_the_same_way(after: Body, fit: Fit, text: str) -> None:
    verdict = await rehearsed(plain, after, go)
    assert (verdict.fit, text in verdict.text) == (fit, True), verdict


# ---- ends of every kind


async def cleans_up(ctx: Context) -> None:
    try:
        await ctx.step("one").up(one).down(lambda _: None)
        await ctx.sleep("30d")
    except asyncio.CancelledError:
        await ctx.step("tidy", two)
        await ctx.rollback()
        raise


async def cleans_up_less(ctx: Context) -> None:
    await ctx.step("one").up(one).down(lambda _: None)
    await ctx.sleep("30d")


async def test_what_a_cancelled_body_did_to_clean_up_is_replayed() -> None:
    assert (await rehearsed(cleans_up, cleans_up, cancel)).fit is Fit.FITS
    verdict = await rehearsed(cleans_up, cleans_up_less, cancel)
    assert (verdict.fit, verdict.step_id) == (Fit.DIVERGES, "tidy")


async def out_of_time(env: DurableEnv, handle: Handle[Any]) -> None:
    await env.advance("1h")


@pytest.mark.parametrize(
    ("body", "act", "settings"),
    [
        (plain, force_fail, {}),
        (plain, roll_back, {}),
        (fails_early, roll_back, {"retry": 1}),
        (plain, out_of_time, {"timeout": "1h"}),
        (raises_at_the_end, go, {}),
        (fails_early, out_of_time, {"retry": Retry(attempts=2, base="1s", jitter=0)}),
        (cleans_up, cancel, {"rollback": "on_failure"}),
    ],
)
async def test_an_end_that_the_body_did_not_choose_is_reached_again(
    body: Body, act: Any, settings: dict[str, Any]
) -> None:
    assert (await rehearsed(body, body, act, **settings)).text.startswith(("it ends as it did", "it goes on"))


async def test_what_an_earlier_attempt_did_may_be_left() -> None:
    async def body(ctx: Context) -> int:
        if ctx.attempt == 1:
            await ctx.step("only in the first".replace(" ", "-"), one)
            raise ConnectionError
        return await plain(ctx)

    settings = {"retry": Retry(attempts=2, base="1s", jitter=0)}
    assert (await rehearsed(body, body, out_of_time, **settings)).fit is Fit.FITS


async def test_what_was_before_an_operators_retry_may_be_left() -> None:
    mended = [False]

    async def body(ctx: Context) -> int:
        if not mended[0]:
            await ctx.step("two", two)
            raise Fail("mend it")
        return await plain(ctx)

    async def mend(env: DurableEnv, handle: Handle[Any]) -> None:
        mended[0] = True
        await env.durable.operator.retry(handle.id)

    assert (await rehearsed(body, body, mend)).fit is Fit.FITS


async def test_an_end_for_want_of_a_branch_is_reached_again() -> None:
    async def body(ctx: Context) -> int:
        return await ctx.switch("size", 5, [Branch("big", lambda n: n > 500, one)])

    assert (await rehearsed(body, body, retry=1)).fit is Fit.FITS


async def test_a_task_that_the_body_leaves_behind_is_none_of_its_business() -> None:
    async def body(ctx: Context) -> int:
        async def behind() -> None:
            await ctx.wait_for_signal(Number)

        task = asyncio.create_task(behind())
        await ctx.wait_for_signal(Go)
        return len(task.get_name()[:1])

    assert (await rehearsed(body, body, go)).fit is Fit.FITS


# ---- what is not known


async def test_a_timeout_of_the_bodys_own_leaves_it_undecided() -> None:
    async def waits_long(ctx: Context) -> int:
        async with asyncio.timeout(60):
            await asyncio.Event().wait()
        return 1

    verdict = await rehearsed(plain, waits_long)
    assert (verdict.fit, verdict.text) == (Fit.UNDECIDED, "its body waits for something of its own")


async def test_one_that_has_not_begun_fits_everything() -> None:
    @workflow
    async def order(ctx: Context) -> int:
        raise AssertionError("it must not run")

    async with DurableEnv([order]) as env:
        handle = await env.durable.start(order, delay="1h")
        assert (await env.replay(handle)).text == "it has not begun"


async def test_another_version_is_unknown_and_says_which_are_there() -> None:
    first = workflow(name="order", version="1")(plain)
    second = workflow(name="order", version="2")(plain)
    async with DurableEnv([first]) as env:
        handle = await env.durable.start(first)
        await env.until_idle()
        history = await env.durable.operator.get_history(handle.id)
    verdict = await replay_history(second, history)
    assert verdict.fit is Fit.UNKNOWN_WORKFLOW
    assert "only 2" in verdict.text


# ---- what it does not do


async def test_no_step_runs_and_nothing_is_said_while_rehearsing(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []
    replaying: list[bool] = []

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("first", ran.append, "first")
        await ctx.wait_for_signal(Go)
        await ctx.step("failed", fail)
        replaying.append(ctx.is_replaying)
        ctx.log.warning("said")

    async def fail() -> None:
        ran.append("failed")
        raise ConnectionError

    async with DurableEnv([order]) as env:
        handle = await env.durable.start(order)
        await env.until_idle()
        before = list(ran)
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "durable"):
            await env.replay(handle)
        assert ran == before == ["first"]
        assert caplog.records == []
        await handle.signal(Go)
        await env.until_idle()
        before = list(ran)
        await env.replay(handle)
        assert ran == before
        assert replaying == []


async def test_bodies_get_the_deps_of_the_worker_or_ones_that_are_opened_for_them() -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def open_deps() -> AsyncIterator[Any]:
        opened.append("opened")
        yield str.upper
        opened.append("closed")

    @workflow
    async def order(ctx: Context[Any]) -> str:
        return await ctx.step("up", ctx.deps, "a")

    async with DurableEnv([order], deps=open_deps) as env:
        handle = await env.durable.start(order)
        await env.until_idle()
        assert (await env.replay(handle)).fit is Fit.FITS
        assert opened == ["opened"]
        client = env.durable.as_client()
        history = await env.durable.operator.get_history(handle.id)
        async with client.rehearsing() as replay:
            assert (await replay(history)).fit is Fit.FITS
        assert opened == ["opened", "opened", "closed"]


# ---- where


async def test_the_line_of_the_call_is_told() -> None:
    verdict = await rehearsed(plain, other_function)
    assert verdict.where == line_of(other_function, 2)
    verdict = await rehearsed(plain, with_a_new_in_the_middle)
    assert verdict.where == line_of(with_a_new_in_the_middle, 2)
    verdict = await rehearsed(plain, with_a_new_one_beside)
    assert verdict.where == line_of(with_a_new_one_beside, 1)


async def test_a_mismatch_that_parks_an_execution_names_the_line_too() -> None:
    now = [plain]

    @workflow
    async def order(ctx: Context) -> Any:
        return await now[0](ctx)

    async with DurableEnv([order], replay=True) as env:
        handle = await env.durable.start(order)
        await env.until_idle()
        now[0] = other_function
        await handle.signal(Go)
        await env.until_idle()
        execution = await handle.status()
        assert execution.status == "parked"
        assert execution.error is not None
        assert line_of(other_function, 2) in execution.error.message
        with pytest.raises(ReplayMismatch, match="'two'"):
            await env.replay(handle)
