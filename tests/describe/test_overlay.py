"""What executions did of a shape."""

from __future__ import annotations

from dataclasses import replace

from durable import Context, ExecutionDetail, Fail, Handle, Signal, WorkflowShape, describe, step, workflow
from durable.describe.overlay import candidates
from durable.testing import DurableEnv

Go = Signal("go", str)


def work(*values: object) -> int:
    return 1


def fails() -> int:
    raise Fail("broken")


@step
def buy() -> int:
    return 1


@buy.undo
def sell(value: int) -> None: ...


async def detail_of(env: DurableEnv, handle: Handle[object]) -> ExecutionDetail:
    await env.until_idle()
    return await env.durable.operator.get_execution_detail(handle.id)


def in_state(shape: WorkflowShape, detail: ExecutionDetail, state: str) -> set[str]:
    return {id for id, found in shape.overlay(detail).states.items() if found == state}


@workflow
async def order(ctx: Context, total: int) -> None:
    await ctx.step("charge", work)
    if total > 10:
        await ctx.step("review", work)
    match await ctx.wait_for_signal(Go, timeout="1d"):
        case _:
            pass
    await ctx.switch("route", total, {1: lambda: ctx.step("fast", work)}, default=lambda: None)
    await ctx.step("ship", work)


async def test_an_execution_that_waits_shows_where_it_is_and_what_may_still_come() -> None:
    async with DurableEnv(workflows=[order]) as env:
        handle = await env.durable.start(order, 1)
        shape, detail = describe(order), await detail_of(env, handle)
        assert in_state(shape, detail, "current") == {"go"}
        assert in_state(shape, detail, "ran") == {"start", "charge", "decision"}
        assert in_state(shape, detail, "ahead") == {
            "review",
            "route",
            "route/1",
            "fast",
            "route/default",
            "ship",
            "end",
        }


async def test_an_execution_that_ended_shows_what_it_did_not_take() -> None:
    async with DurableEnv(workflows=[order]) as env:
        handle = await env.durable.start(order, 1)
        await handle.signal(Go, "now")
        shape, detail = describe(order), await detail_of(env, handle)
        assert in_state(shape, detail, "not_taken") == {"review", "route/default"}
        assert in_state(shape, detail, "current") == in_state(shape, detail, "failed") == set()


async def test_the_default_of_a_switch_is_a_branch_like_the_others() -> None:
    async with DurableEnv(workflows=[order]) as env:
        handle = await env.durable.start(order, 50)
        await handle.signal(Go, "now")
        shape, detail = describe(order), await detail_of(env, handle)
        assert in_state(shape, detail, "not_taken") == {"route/1", "fast"}


async def test_what_failed_is_shown_as_failed_and_what_was_undone_as_rolled_back() -> None:
    @workflow(rollback="on_failure")
    async def trip(ctx: Context) -> None:
        await ctx.step(buy)
        await ctx.step("pay", fails)
        raise Fail("never")

    async with DurableEnv(workflows=[trip]) as env:
        handle = await env.durable.start(trip)
        shape, detail = describe(trip), await detail_of(env, handle)
        assert in_state(shape, detail, "failed") == {"pay", "end"}
        assert in_state(shape, detail, "ran") == {"start", "buy", "rollback"}
        assert shape.overlay(detail).unknown == ()


async def test_names_that_are_used_again_are_told_apart_by_their_place() -> None:
    @workflow
    async def twice(ctx: Context, n: int) -> None:
        for _ in range(n):
            await ctx.step("mail", work)
        await ctx.wait_for_signal(Go)
        await ctx.step("mail", work)

    async with DurableEnv(workflows=[twice]) as env:
        handle = await env.durable.start(twice, 3)
        shape, detail = describe(twice), await detail_of(env, handle)
        assert [record.id for record in detail.steps] == ["mail", "mail#2", "mail#3", "go"]
        assert in_state(shape, detail, "ran") == {"start", "loop", "mail"}
        assert in_state(shape, detail, "ahead") == {"mail#2", "end"}
        await handle.signal(Go, "on")
        assert in_state(shape, await detail_of(env, handle), "not_taken") == set()


async def test_branches_items_and_patterns_are_found_by_their_names() -> None:
    @workflow
    async def wide(ctx: Context, n: int) -> None:
        async def inner(number: int) -> None:
            await ctx.step(f"inner-{number}", work)
            await ctx.sleep(0)

        await ctx.gather(*[inner(number) for number in range(n)], ctx.step("a", work))
        await ctx.map("thumb", work, [1, 2])
        await ctx.map("thumb", work, [3])

    async with DurableEnv(workflows=[wide]) as env:
        handle = await env.durable.start(wide, 2)
        await env.advance("1s")
        shape, detail = describe(wide), await detail_of(env, handle)
        overlay = shape.overlay(detail)
        assert overlay.unknown == ()
        assert set(overlay.states.values()) == {"ran"}
        assert [node.id for node in candidates(shape, detail.steps[-1])][-1] == "thumb#2"


async def test_what_no_node_is_known_for_is_told() -> None:
    async with DurableEnv(workflows=[order]) as env:
        handle = await env.durable.start(order, 1)
        detail = await detail_of(env, handle)
        strange = replace(detail.steps[0], id="gone")
        detail = replace(detail, steps=[strange, *detail.steps[1:]])
        assert describe(order).overlay(detail).unknown == (strange,)


async def test_coverage_names_what_no_execution_reached() -> None:
    async with DurableEnv(workflows=[order]) as env:
        shape = describe(order)
        first = await env.durable.start(order, 1)
        await first.signal(Go, "now")
        details = [await detail_of(env, first)]
        coverage = shape.coverage(details)
        assert [node.id for node in coverage.missed] == ["review", "route/default"]
        assert coverage.ratio == 9 / 11
        second = await env.durable.start(order, 50)
        await second.signal(Go, "now")
        details.append(await detail_of(env, second))
        assert shape.coverage(details).missed == ()
        assert shape.coverage([]).reached == ()


async def test_states_have_their_looks_in_mermaid_and_dot() -> None:
    async with DurableEnv(workflows=[order]) as env:
        handle = await env.durable.start(order, 1)
        overlay = describe(order).overlay(await detail_of(env, handle))
        mermaid = overlay.to_mermaid()
        assert "  class n4 current\n" in mermaid
        assert "classDef ran" in mermaid
        assert 'n4 [label="go", shape=hexagon, style=filled, fillcolor="#d6e8fb"];' in overlay.to_dot()
        assert overlay.to_svg().startswith("<svg")


@workflow
async def decide(ctx: Context, total: int) -> str:
    outcome = await ctx.wait_for_signal(Go, timeout="1d")
    if total > 10:
        await ctx.step("review", work)
    for _ in range(total - 10):
        await ctx.step("again", work)
    try:
        await ctx.step("risky", fails if total == 3 else work)
    except Fail:
        await ctx.step("mend", work)
    if outcome.kind == "timeout":
        raise Fail("too late")
    return await ctx.step("ship", lambda: "shipped")


def untaken(shape: WorkflowShape, details: list[ExecutionDetail]) -> list[tuple[str, str]]:
    return [(edge.source, edge.label) for edge in shape.coverage(details).untaken]


async def test_coverage_names_the_ways_that_no_execution_took() -> None:
    async with DurableEnv(workflows=[decide]) as env:
        shape = describe(decide)
        first = await env.durable.start(decide, 12)
        await first.signal(Go, "now")
        await env.until_idle()
        details = [await detail_of(env, first)]
        one = untaken(shape, details)
        second = await env.durable.start(decide, 1)
        await env.advance("1d")
        details.append(await detail_of(env, second))
        two = untaken(shape, details)
        third = await env.durable.start(decide, 3)
        await third.signal(Go, "now")
        details.append(await detail_of(env, third))
        assert one == [
            ("go", "timeout"),
            ("decision", "false"),
            ("risky", "raises"),
            ("decision#3", "true, raise Fail('too late')"),
        ]
        assert (two, untaken(shape, details)) == ([("risky", "raises")], [])
        assert (await env.coverage(decide)).missed == ()
