"""Code that changes while executions live: mismatches park, `patched` guards, `continue_as_new` sheds history."""

from __future__ import annotations

from typing import Any

import pytest

from durable import Context, InvalidInput, Signal, WaitTimeout, workflow
from tests.support import World, ends, reaches, records, steps, until

Go = Signal("go")
Other = Signal("other")
Number = Signal("number", int)


def one() -> int:
    return 1


def two() -> int:
    return 2


@workflow
async def child(ctx: Context) -> int:
    return 1


async def step_a(ctx: Context) -> Any:
    return await ctx.step("a", one)


async def other_function(ctx: Context) -> Any:
    return await ctx.step("a", two)


async def sleep_a(ctx: Context) -> Any:
    await ctx.sleep("1ms", id="a")


async def wait_a(ctx: Context) -> Any:
    await ctx.wait_for_signal(Other, id="a", timeout="1ms")


async def other_wait_a(ctx: Context) -> Any:
    await ctx.wait_for_signal(Number, id="a", timeout="1ms")


async def child_a(ctx: Context) -> Any:
    await ctx.run(child, id="a")


async def start_a(ctx: Context) -> Any:
    await ctx.start(child, id="a")


async def switch_a(ctx: Context) -> Any:
    await ctx.switch("a", 1, {1: one})


@pytest.mark.parametrize(
    ("before", "after", "recorded", "asked"),
    [
        (step_a, sleep_a, "step", "sleep"),
        (step_a, other_function, "one", "two"),
        (sleep_a, step_a, "sleep", "step"),
        (wait_a, step_a, "wait_for_signal", "step"),
        (wait_a, other_wait_a, "other", "number"),
        (child_a, step_a, "child", "step"),
        (child_a, start_a, "child", "start"),
        (switch_a, step_a, "switch", "step"),
        (step_a, switch_a, "step", "switch"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_another_kind_or_name_than_was_recorded_parks_the_execution(
    world: World, before: Any, after: Any, recorded: str, asked: str
) -> None:
    now = [before]

    @workflow
    async def order(ctx: Context) -> str:
        await now[0](ctx)
        await ctx.wait_for_signal(Go)
        return "went on"

    node = await world.node(order, child)
    handle = await node.start(order)
    await records(node, handle, "go")
    await reaches(handle, "waiting")
    now[0] = after
    node = await world.restart()
    handle = node.handle(handle.id, order)
    await handle.signal(Go)
    execution = await reaches(handle, "parked")
    assert execution.code == "replay_mismatch"
    assert execution.error is not None
    for word in ("'a'", recorded, asked, "test_changed_code.py"):
        assert word in str(execution.error.message) + str(execution.error.args)
    with pytest.raises(WaitTimeout, match=recorded):
        await handle.result(0.05)

    now[0] = before
    node = await world.restart()
    await node.operator.retry(handle.id)
    assert await node.handle(handle.id, order).result(5) == "went on"


async def test_a_new_step_after_what_was_recorded_is_no_mismatch(world: World) -> None:
    longer = [False]

    @workflow
    async def order(ctx: Context) -> int:
        await ctx.step("a", one)
        await ctx.wait_for_signal(Go)
        return await ctx.step("b", two) if longer[0] else 0

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    longer[0] = True
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == 2


async def test_a_timeout_that_was_taken_out_of_the_code_after_it_fired_stays_a_timeout(
    still_world: World,
) -> None:
    with_timeout = [True]

    @workflow
    async def order(ctx: Context) -> str:
        if with_timeout[0]:
            outcome: Any = await ctx.wait_for_signal(Other, timeout="1h")
        else:
            outcome = await ctx.wait_for_signal(Other)
        await ctx.wait_for_signal(Go)
        return outcome.kind

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("1h")
    with_timeout[0] = False
    node = await still_world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "timeout"


async def test_a_timeout_that_is_put_into_the_code_while_it_waits_is_armed(still_world: World) -> None:
    timeout: list[Any] = [None]

    @workflow
    async def order(ctx: Context) -> str:
        outcome: Any = await ctx.wait_for_signal(Go, timeout=timeout[0])
        return outcome.kind

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("1h")
    timeout[0] = "1d"
    node = await still_world.restart()
    await node.signal(handle.id, Other)  # anything that has it replayed
    await still_world.advance("23h")
    assert (await node.status(handle.id)).status == "waiting"
    await still_world.advance("1h")
    assert await node.handle(handle.id, order).result(5) == "timeout"


# ---- patched


async def test_patched_keeps_old_executions_on_the_old_path_and_gives_new_ones_the_new(world: World) -> None:
    def version(patched: bool) -> Any:
        @workflow(name="order")
        async def order(ctx: Context) -> str:
            await ctx.step("first", one)
            path = "old"
            if patched and ctx.patched("validate-card"):
                path = "new"
                await ctx.step("validate", one)
            await ctx.wait_for_signal(Go)
            await ctx.step("last", one)
            return path

        return order

    node = await world.node(version(False))
    old = await node.start(version(False))
    await reaches(old, "waiting")
    node = await world.restart(version(True))
    new = await node.start(version(True))
    await reaches(new, "waiting")
    node = await world.restart()
    for handle in (old, new):
        await node.signal(handle.id, Go)
    assert await node.handle(old.id).result(5) == "old"
    assert await node.handle(new.id).result(5) == "new"


async def test_patched_says_the_same_all_through_an_execution(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[bool]:
        seen = []
        for _ in range(3):
            seen.append(ctx.patched("change"))
            await ctx.wait_for_signal(Go)
        return seen

    node = await world.node(order)
    handle = await node.start(order)
    for _ in range(3):
        await reaches(handle, "waiting")
        node = await world.restart()
        handle = node.handle(handle.id, order)
        await handle.signal(Go)
    assert await handle.result(5) == [True, True, True]


async def test_an_execution_that_began_before_the_change_stays_unpatched_in_a_loop(world: World) -> None:
    with_patch = [False]

    @workflow
    async def order(ctx: Context) -> list[bool]:
        seen = []
        for _ in range(3):
            seen.append(with_patch[0] and ctx.patched("change"))
            await ctx.wait_for_signal(Go)
        return seen

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    with_patch[0] = True
    node = await world.restart()
    handle = node.handle(handle.id, order)
    for _ in range(3):
        await handle.signal(Go)
    seen = await handle.result(5)
    assert len(set(seen)) == 1


async def test_a_guard_that_was_taken_out_leaves_later_guards_as_they_were(world: World) -> None:
    guarded = [True]

    @workflow
    async def order(ctx: Context) -> bool:
        if guarded[0]:
            ctx.patched("first")
        await ctx.wait_for_signal(Go)
        return ctx.patched("second")

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    guarded[0] = False
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5)


# A chain of executions


async def test_continue_as_new_keeps_the_id_and_drops_the_history(world: World) -> None:
    @workflow
    async def counting(ctx: Context, number: int) -> int:
        await ctx.step("work", one)
        await ctx.set_value("number", number)
        if number < 3:
            ctx.continue_as_new(number + 1)
        return number

    node = await world.node(counting)
    handle = await node.start(counting, 0)
    assert await handle.result(5) == 3
    execution = await handle.status()
    assert (execution.id, execution.generation, execution.input) == (handle.id, 3, 3)
    assert list(await steps(node, handle)) == ["work", "value:number"]
    assert len((await node.operator.list_executions()).items) == 1


async def test_continue_as_new_keeps_unread_signals(world: World) -> None:
    @workflow
    async def draining(ctx: Context, total: int) -> int:
        number = await ctx.wait_for_signal(Number)
        if number == 0:
            return total
        ctx.continue_as_new(total + number)

    node = await world.node(draining)
    handle = await node.start(draining, 0)
    for number in (1, 2, 3):
        await handle.signal(Number, number)
    node = await world.restart()
    for number in (4, 0):
        await node.signal(handle.id, Number, number)
    assert await node.handle(handle.id, draining).result(5) == 10


async def test_handles_and_waiting_parents_follow_the_chain(world: World) -> None:
    @workflow
    async def chain(ctx: Context, number: int) -> int:
        await ctx.sleep("1ms")
        if number:
            ctx.continue_as_new(number - 1)
        return 42

    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.run(chain, 4)

    node = await world.node(parent, chain)
    assert await node.start_and_wait(parent, timeout=5) == 42


async def test_continue_as_new_gives_a_fresh_set_of_attempts_and_values_of_its_own(world: World) -> None:
    from durable import Retry

    seen: list[tuple[int, int, str, float]] = []

    @workflow(retry=Retry(2, base="1ms"))
    async def chain(ctx: Context, generation: int) -> None:
        seen.append((generation, ctx.attempt, str(ctx.uuid4()), ctx.random.random()))
        if ctx.attempt == 1:
            raise ConnectionError
        if generation < 2:
            ctx.continue_as_new(generation + 1)

    node = await world.node(chain)
    handle = await node.start(chain, 0)
    await handle.result(5)
    assert [entry[:2] for entry in seen] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert len({entry[2] for entry in seen}) == 3
    assert (await handle.status()).generation == 2


async def test_continue_as_new_is_nothing_that_except_exception_catches(world: World) -> None:
    @workflow
    async def chain(ctx: Context, number: int) -> int:
        try:
            if number < 1:
                ctx.continue_as_new(number + 1)
        except Exception:
            return -1
        return number

    node = await world.node(chain)
    assert await node.start_and_wait(chain, 0, timeout=5) == 1


async def test_continue_as_new_refuses_an_invalid_input(world: World) -> None:
    @workflow(retry=1)
    async def chain(ctx: Context, number: int) -> str:
        with pytest.raises(InvalidInput):
            ctx.continue_as_new("no number")
        return "refused"

    node = await world.node(chain)
    assert await node.start_and_wait(chain, 0, timeout=5) == "refused"


async def test_a_long_chain_keeps_a_short_history(world: World) -> None:
    @workflow
    async def chain(ctx: Context, number: int) -> int:
        for _ in range(5):
            await ctx.step("work", one)
        if number < 50:
            ctx.continue_as_new(number + 1)
        return number

    node = await world.node(chain)
    handle = await node.start(chain, 0)
    assert await handle.result(20) == 50
    assert len(await steps(node, handle)) == 5


async def test_a_chain_may_be_cancelled(world: World) -> None:
    @workflow
    async def chain(ctx: Context, number: int) -> None:
        await ctx.sleep("1ms")
        ctx.continue_as_new(number + 1)

    node = await world.node(chain)
    handle = await node.start(chain, 0)

    async def is_under_way() -> bool:
        return (await handle.status()).generation >= 3

    await until(is_under_way)
    await handle.cancel("enough")
    assert (await ends(handle)).status == "cancelled"


async def test_a_timer_of_an_earlier_generation_has_no_effect(still_world: World) -> None:
    @workflow
    async def chain(ctx: Context, number: int) -> str:
        if number == 0:
            await ctx.wait_for_signal(Go, timeout="1h", id="wait")
            ctx.continue_as_new(1)
        return (await ctx.wait_for_signal(Go, timeout="10h", id="wait")).kind

    node = await still_world.node(chain)
    handle = await node.start(chain, 0)
    await still_world.advance("30m")
    await handle.signal(Go)
    await still_world.advance("9h")
    assert (await handle.status()).status == "waiting"
    await still_world.advance("1h")
    assert await handle.result(5) == "timeout"


async def test_children_of_each_generation_are_their_own(world: World) -> None:
    @workflow
    async def chain(ctx: Context, number: int) -> str:
        handle = await ctx.start(child)
        await ctx.wait_for(handle)
        if number < 2:
            ctx.continue_as_new(number + 1)
        return handle.id

    node = await world.node(chain, child)
    await node.start_and_wait(chain, 0, timeout=5)
    assert len({e.id for e in (await node.operator.list_executions(workflow="child")).items}) == 3
