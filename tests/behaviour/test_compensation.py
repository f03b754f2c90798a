"""Compensations: what was done is undone, newest first, each once and recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable import (
    CompensationFailed,
    ConfigurationError,
    Context,
    Execution,
    ExecutionCancelled,
    ExecutionFailed,
    Fail,
    Handle,
    Retry,
    Signal,
    WrongStatus,
    current_step,
    step,
    workflow,
)
from tests.support import World, ends, reaches, steps, until

Go = Signal("go")


async def is_over(handle: Handle[Any]) -> Execution:
    """The execution, when it has ended for good."""

    async def at_last() -> bool:
        status = (await handle.status()).status
        return status.final and status != "compensation_failed"

    await until(at_last)
    return await handle.status()


class Ledger:
    """What was done and undone, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.broken: set[str] = set()

    async def do(self, what: str) -> str:
        self.lines.append(f"do {what}")
        return f"{what}-1"

    async def undo(self, receipt: str) -> None:
        what = receipt.removesuffix("-1")
        if what in self.broken:
            self.lines.append(f"cannot undo {what}")
            raise ConnectionError(what)
        self.lines.append(f"undo {what}")

    def call(self, ctx: Context, what: str, **options: Any) -> Any:
        return ctx.step(what, **options).up(self.do, what).down(self.undo)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


async def test_rollback_undoes_newest_first_with_what_each_step_returned(
    world: World, ledger: Ledger
) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        for what in "abc":
            await ledger.call(ctx, what)
        await ctx.step("uncompensated", ledger.do, "d")
        await ctx.rollback()
        return "undone"

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == "undone"
    assert ledger.lines == ["do a", "do b", "do c", "do d", "undo c", "undo b", "undo a"]
    recorded = [id for id in await steps(node, handle) if id.startswith("rollback:")]
    assert recorded == ["rollback:c", "rollback:b", "rollback:a"]


async def test_a_decorated_step_brings_its_compensation(world: World) -> None:
    undone: list[int] = []

    @step
    async def reserve(items: int) -> int:
        return items * 10

    @reserve.undo
    async def release(reservation: int) -> None:
        undone.append(reservation)

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step(reserve, 1)
        await ctx.step("again", reserve, 2)
        await ctx.rollback()

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert undone == [20, 10]


async def test_a_compensation_may_be_sync_and_knows_its_step(world: World) -> None:
    seen: list[tuple[str, int]] = []

    def void(label: int) -> None:
        info = current_step()
        seen.append((info.step_id, info.attempt))

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("label").up(lambda: 1).down(void)
        await ctx.rollback()

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert seen == [("rollback:label", 1)]


async def test_a_second_rollback_does_nothing(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        await ctx.rollback()
        await ctx.rollback()
        await ctx.wait_for_signal(Go)
        await ctx.rollback()

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id, order).result(5)
    assert ledger.lines == ["do a", "undo a"]


async def test_a_second_rollback_undoes_what_came_after_the_first(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        await ctx.rollback()
        await ledger.call(ctx, "b")
        await ctx.rollback()

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert ledger.lines == ["do a", "undo a", "do b", "undo b"]


async def test_each_use_of_a_step_is_undone(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        for what in "abc":
            await ctx.step("same").up(ledger.do, what).down(ledger.undo)
        await ctx.rollback()

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert ledger.lines[3:] == ["undo c", "undo b", "undo a"]


async def test_a_step_that_failed_is_not_undone(world: World, ledger: Ledger) -> None:
    async def fail() -> str:
        raise ConnectionError

    @workflow
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        try:
            await ctx.step("b").up(fail).down(ledger.undo)
        except ConnectionError:
            await ctx.rollback()

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert ledger.lines == ["do a", "undo a"]


async def test_side_by_side_steps_are_undone_in_the_reverse_order_of_their_commits(world: World) -> None:
    order_of: list[str] = []
    first_done = asyncio.Event()

    async def slow() -> str:
        await first_done.wait()
        return "slow"

    async def quick() -> str:
        return "quick"

    @workflow
    async def order(ctx: Context) -> None:
        async def then() -> None:
            await ctx.step("quick").up(quick).down(order_of.append)
            await ctx.step("mark", lambda: first_done.set())

        await ctx.gather(ctx.step("slow").up(slow).down(order_of.append), then())
        await ctx.rollback()

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert order_of == ["slow", "quick"]


async def test_a_restart_in_the_middle_of_a_rollback_repeats_nothing_that_is_recorded(world: World) -> None:
    lines: list[str] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def undo(what: str) -> None:
        if what == "b":
            begun.set()
            await release.wait()
        lines.append(what)

    @workflow
    async def order(ctx: Context) -> None:
        for what in "abc":
            await ctx.step(what).up(lambda what=what: what).down(undo)
        await ctx.rollback()

    node = await world.node(order)
    handle = await node.start(order)
    await begun.wait()
    node = await world.restart()
    release.set()
    await node.handle(handle.id, order).result(5)
    assert lines == ["c", "b", "a"]


# ---- sagas


async def test_an_error_that_leaves_a_saga_undoes_it_and_goes_on(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        await ledger.call(ctx, "before")
        try:
            async with ctx.saga():
                await ledger.call(ctx, "a")
                await ledger.call(ctx, "b")
                raise ValueError("changed my mind")
        except ValueError:
            await ledger.call(ctx, "after")
        return "done"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "done"
    assert ledger.lines == ["do before", "do a", "do b", "undo b", "undo a", "do after"]


async def test_a_saga_that_succeeds_undoes_nothing(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        async with ctx.saga():
            await ledger.call(ctx, "a")
        return "done"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "done"
    assert ledger.lines == ["do a"]


async def test_a_saga_within_a_saga(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        try:
            async with ctx.saga():
                await ledger.call(ctx, "outer")
                try:
                    async with ctx.saga():
                        await ledger.call(ctx, "inner")
                        raise KeyError("inner")
                except KeyError:
                    await ledger.call(ctx, "between")
                raise ValueError("outer")
        except ValueError:
            return "undone"
        return "?"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "undone"
    assert ledger.lines == ["do outer", "do inner", "undo inner", "do between", "undo between", "undo outer"]


async def test_a_saga_around_a_wait_is_not_undone_by_being_put_aside(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        async with ctx.saga():
            await ledger.call(ctx, "a")
            await ctx.wait_for_signal(Go)
            return "kept"

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "kept"
    assert ledger.lines == ["do a"]


async def test_cancelling_undoes_a_saga(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        async with ctx.saga():
            await ledger.call(ctx, "a")
            await ctx.wait_for_signal(Go)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    assert (await ends(handle)).status == "cancelled"
    assert ledger.lines == ["do a", "undo a"]


async def test_bailing_out_of_a_saga_undoes_it(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        async with ctx.saga():
            await ledger.call(ctx, "a")
            ctx.bail("enough")

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "cancelled"
    assert ledger.lines == ["do a", "undo a"]


async def test_branches_within_a_saga_belong_to_it(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        try:
            async with ctx.saga():
                async with asyncio.TaskGroup() as group:
                    for what in "ab":
                        group.create_task(ledger.call(ctx, what))
                raise ValueError
        except ValueError:
            return "undone"
        return "?"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "undone"
    assert sorted(ledger.lines[2:]) == ["undo a", "undo b"]


# ---- rollback="on_failure"


@pytest.mark.parametrize("end", ["error", "fail", "cancel", "bail", "timeout"])
async def test_a_run_that_does_not_complete_is_rolled_back_when_asked(
    still_world: World, ledger: Ledger, end: str
) -> None:
    @workflow(rollback="on_failure", retry=1, timeout="1h")
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        await ledger.call(ctx, "b")
        match end:
            case "error":
                raise ConnectionError("no route")
            case "fail":
                raise Fail("no")
            case "bail":
                ctx.bail("no")
            case _:
                await ctx.wait_for_signal(Go)

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.until_idle()
    if end == "cancel":
        await handle.cancel("stop")
    if end == "timeout":
        await still_world.advance("1h")
    execution = await ends(handle)
    assert execution.status == ("cancelled" if end in ("cancel", "bail") else "failed")
    assert ledger.lines == ["do a", "do b", "undo b", "undo a"]


async def test_with_the_default_nothing_is_undone_by_itself(world: World, ledger: Ledger) -> None:
    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        raise ConnectionError

    node = await world.node(order)
    await ends(await node.start(order))
    assert ledger.lines == ["do a"]


async def test_rollback_on_failure_waits_for_the_last_attempt(world: World, ledger: Ledger) -> None:
    @workflow(rollback="on_failure", retry=Retry(3, base="1ms"))
    async def order(ctx: Context) -> int:
        await ledger.call(ctx, "a")
        if ctx.attempt < 3:
            raise ConnectionError
        return ctx.attempt

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == 3
    assert ledger.lines == ["do a"]


async def test_rollback_on_failure_goes_on_after_a_restart(world: World) -> None:
    lines: list[str] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def undo(what: str) -> None:
        if what == "b":
            begun.set()
            await release.wait()
        lines.append(what)

    @workflow(rollback="on_failure", retry=1)
    async def order(ctx: Context) -> None:
        for what in "abc":
            await ctx.step(what).up(lambda what=what: what).down(undo)
        raise ConnectionError("no route")

    node = await world.node(order)
    handle = await node.start(order)
    await begun.wait()
    node = await world.restart()
    release.set()
    execution = await ends(node.handle(handle.id))
    assert execution.status == "failed"
    assert execution.error is not None
    assert execution.error.message == "no route"
    assert lines == ["c", "b", "a"]


async def test_nothing_is_retried_after_a_rollback(world: World, ledger: Ledger) -> None:
    @workflow(retry=Retry(5, base="1ms"))
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        await ctx.rollback()
        raise ConnectionError("after it")

    node = await world.node(order)
    with pytest.raises(ExecutionFailed, match="after it") as failed:
        await node.start_and_wait(order, timeout=5)
    assert failed.value.attempt == 1


async def test_a_run_is_retried_after_a_rollback_that_had_nothing_to_undo(
    world: World, ledger: Ledger
) -> None:
    @workflow(retry=Retry(3, base="1ms"))
    async def order(ctx: Context) -> int:
        await ctx.rollback()
        if ctx.attempt < 2:
            raise ConnectionError
        return ctx.attempt

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == 2


# ---- compensations that fail


async def test_a_compensation_has_the_retries_of_its_step(world: World) -> None:
    tries: list[int] = []

    def undo(_: object) -> None:
        tries.append(current_step().attempt)
        if len(tries) < 3:
            raise ConnectionError

    @workflow
    async def order(ctx: Context) -> str:
        await ctx.step("a", retry=Retry(3, base="1ms")).up(lambda: 1).down(undo)
        await ctx.rollback()
        return "undone"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "undone"
    assert tries == [1, 2, 3]


async def test_a_compensation_has_the_timeout_of_its_step(still_world: World) -> None:
    async def undo(_: object) -> None:
        await asyncio.Event().wait()

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("a", timeout="10s").up(lambda: 1).down(undo)
        await ctx.rollback()

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("10s")
    execution = await ends(handle)
    assert execution.status == "compensation_failed"
    assert execution.error is not None
    assert execution.error.error_type.endswith("StepTimeout")


async def test_a_compensation_that_fails_stops_the_rollback_and_the_execution(
    world: World, ledger: Ledger
) -> None:
    ledger.broken = {"b"}

    @workflow(retry=Retry(5, base="1ms"))
    async def order(ctx: Context) -> None:
        for what in "abc":
            await ledger.call(ctx, what)
        try:
            await ctx.rollback()
        except Exception:
            ledger.lines.append("the body saw it")
            raise

    node = await world.node(order)
    handle = await node.start(order)
    with pytest.raises(CompensationFailed) as failed:
        await handle.result(5)
    assert failed.value.workflow == "order"
    assert failed.value.message == "b"
    assert ledger.lines == ["do a", "do b", "do c", "undo c", "cannot undo b"]
    assert (await handle.status()).attempt == 1
    assert [e.id for e in (await node.operator.list_stuck()).items] == [handle.id]


async def test_retry_rollback_goes_on_from_the_compensation_that_failed(world: World, ledger: Ledger) -> None:
    ledger.broken = {"b"}

    @workflow
    async def order(ctx: Context) -> None:
        for what in "abc":
            await ledger.call(ctx, what)
        await ctx.rollback()
        raise Fail("the order failed", code="order_failed")

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "compensation_failed"
    node = await world.restart()
    await node.operator.retry_rollback(handle.id)
    await until(lambda: ledger.lines.count("cannot undo b") == 2)
    handle = node.handle(handle.id)
    await reaches(handle, "compensation_failed")
    ledger.broken = set()
    await node.operator.retry_rollback(handle.id)
    execution = await is_over(handle)
    assert (execution.status, execution.code) == ("failed", "order_failed")
    assert ledger.lines[-2:] == ["undo b", "undo a"]
    assert ledger.lines.count("undo c") == 1
    assert ledger.lines.count("do a") == 1


async def test_retry_rollback_of_a_run_that_was_cancelled_ends_as_cancelled(
    world: World, ledger: Ledger
) -> None:
    ledger.broken = {"a"}

    @workflow(rollback="on_failure")
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        await ctx.wait_for_signal(Go)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.cancel("fraud")
    assert (await ends(handle)).status == "compensation_failed"
    ledger.broken = set()
    await node.operator.retry_rollback(handle.id)
    await is_over(handle)
    with pytest.raises(ExecutionCancelled, match="fraud"):
        await handle.result(5)
    assert ledger.lines == ["do a", "cannot undo a", "undo a"]


async def test_retry_rollback_is_refused_where_it_makes_no_sense(world: World, ledger: Ledger) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    with pytest.raises(WrongStatus, match="waiting"):
        await node.operator.retry_rollback(handle.id)
    await handle.signal(Go)
    await handle.result(5)
    with pytest.raises(WrongStatus, match="completed"):
        await node.operator.retry_rollback(handle.id)


async def test_an_error_that_only_sounds_like_one_is_an_ordinary_failure(world: World) -> None:
    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        raise RuntimeError("Compensation failed: nothing of the kind")

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "failed"


async def test_two_compensations_for_one_step_are_refused(world: World) -> None:
    @step
    async def reserve() -> int:
        return 1

    @reserve.undo
    async def release(reservation: int) -> None: ...

    with pytest.raises(ConfigurationError, match="two compensations"):
        reserve.undo(release)

    @workflow(retry=1)
    async def order(ctx: Context) -> str:
        call = ctx.step("r").up(reserve)
        with pytest.raises(ConfigurationError, match="two compensations"):
            call.down(release)
        call.close()
        with pytest.raises(ConfigurationError, match="cannot undo"):
            ctx.step("x").up(lambda: 1).down(lambda: None)  # type: ignore[arg-type, misc]
        return "refused"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "refused"


async def test_run_all_steps_of_a_map_are_undone(world: World) -> None:
    undone: list[int] = []

    @step
    async def reserve(item: int) -> int:
        return item

    @reserve.undo
    async def release(item: int) -> None:
        undone.append(item)

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.map("reserve", reserve, [1, 2, 3], limit=1)
        await ctx.rollback()

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert undone == [3, 2, 1]
