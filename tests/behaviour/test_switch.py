"""`switch`: a choice that is made once in the life of an execution."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

import pytest

from durable import (
    Branch,
    Context,
    ExecutionFailed,
    InvalidInput,
    NoMatchingBranch,
    Signal,
    WaitTimeout,
    workflow,
)
from tests.support import World, reaches

Go = Signal("go")


class Tier(Enum):
    GOLD = "gold"
    STANDARD = "standard"


async def test_the_first_branch_that_holds_is_taken(world: World) -> None:
    @workflow
    async def sized(ctx: Context, total: int) -> str:
        return await ctx.switch(
            "size",
            total,
            [
                Branch("big", lambda t: t > 500, lambda: "review"),
                Branch("medium", lambda t: t > 100, lambda: "check"),
                Branch("small", lambda t: True, lambda: "ship"),
            ],
        )

    node = await world.node(sized)
    assert [await node.start_and_wait(sized, total, timeout=5) for total in (501, 101, 1)] == [
        "review",
        "check",
        "ship",
    ]


async def test_a_mapping_takes_the_value_of_its_key(world: World) -> None:
    async def express() -> str:
        return "express"

    @workflow
    async def route(ctx: Context, tier: Tier) -> str:
        return await ctx.switch(
            "route", tier, {Tier.GOLD: express}, default=lambda: ctx.step("s", lambda: "slow")
        )

    node = await world.node(route)
    assert await node.start_and_wait(route, Tier.GOLD, timeout=5) == "express"
    assert await node.start_and_wait(route, Tier.STANDARD, timeout=5) == "slow"


@pytest.mark.parametrize("waits_within", [True, False])
async def test_a_replay_calls_no_matcher_and_takes_the_stored_branch(
    world: World, waits_within: bool
) -> None:
    calls: list[str] = []
    limit = [10]

    def is_small(total: int) -> bool:
        calls.append("matcher")
        return total < limit[0]

    async def wait(ctx: Context, name: str) -> str:
        calls.append(name)
        if waits_within:
            await ctx.wait_for_signal(Go)
        return name

    @workflow
    async def sized(ctx: Context) -> str:
        chosen = await ctx.switch(
            "size",
            5,
            [
                Branch("small", is_small, lambda: wait(ctx, "small")),
                Branch("big", lambda t: True, lambda: wait(ctx, "big")),
            ],
        )
        if not waits_within:
            await ctx.wait_for_signal(Go)
        return chosen

    handle = await (await world.node(sized)).start(sized)
    await reaches(handle, "waiting")
    limit[0] = 0  # a matcher that would now decide otherwise
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, sized).result(5) == "small"
    assert calls.count("matcher") == 1
    assert "big" not in calls
    assert calls.count("small") == (2 if waits_within else 1)


async def test_no_branch_and_no_default_is_an_error_that_the_body_may_catch(world: World) -> None:
    @workflow(retry=1)
    async def route(ctx: Context, catches: bool) -> str:
        try:
            return await ctx.switch("route", "blue", {"red": lambda: "r", "green": lambda: "g"})
        except NoMatchingBranch as error:
            if not catches:
                raise
            return f"{error.switch_id}: {error.value} of {error.branches}"

    node = await world.node(route)
    assert await node.start_and_wait(route, True, timeout=5) == "route: 'blue' of ['red', 'green']"
    with pytest.raises(ExecutionFailed, match="blue") as failed:
        await node.start_and_wait(route, False, timeout=5)
    assert failed.value.code == "no_matching_branch"


async def test_steps_inside_a_branch_are_memoized(world: World) -> None:
    ran: list[str] = []

    async def did(what: str) -> str:
        ran.append(what)
        return what

    @workflow
    async def route(ctx: Context) -> str:
        async def review() -> str:
            first = await ctx.step("first", did, "first")
            await ctx.wait_for_signal(Go)
            return first + await ctx.step("second", did, "second")

        return await ctx.switch("route", 1, {1: review})

    handle = await (await world.node(route)).start(route)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, route).result(5) == "firstsecond"
    assert ran == ["first", "second"]


async def test_a_branch_that_the_code_has_no_more_parks_the_execution(world: World) -> None:
    def version(**branches: Any) -> Any:
        @workflow(name="route")
        async def route(ctx: Context) -> str:
            async def wait(name: str) -> str:
                await ctx.wait_for_signal(Go)
                return name

            return await ctx.switch(
                "route",
                True,
                [Branch(name, lambda _: True, lambda name=name: wait(name)) for name in branches],
            )

        return route

    old, new = version(old=1, new=1), version(new=1)
    handle = await (await world.node(old)).start(old)
    await reaches(handle, "waiting")
    node = await world.restart(new)
    handle = node.handle(handle.id, new)
    await handle.signal(Go)
    execution = await reaches(handle, "parked")
    assert execution.code == "replay_mismatch"
    with pytest.raises(WaitTimeout, match="branch old"):
        await handle.result(0.05)
    node = await world.restart(old)
    await node.operator.retry(handle.id)
    assert await node.handle(handle.id, old).result(5) == "old"


async def test_a_branch_that_fails_fails_the_switch(world: World) -> None:
    @workflow
    async def route(ctx: Context) -> str:
        try:
            return await ctx.switch("route", 1, {1: lambda: ctx.step("bad", lambda: str(1 // 0))})
        except ZeroDivisionError:
            return "failed"

    node = await world.node(route)
    assert await node.start_and_wait(route, timeout=5) == "failed"


async def test_a_second_use_is_another_choice(world: World) -> None:
    @workflow
    async def route(ctx: Context) -> list[str]:
        return [await ctx.switch("route", n, {0: lambda: "zero", 1: lambda: "one"}) for n in (0, 1)]

    node = await world.node(route)
    assert await node.start_and_wait(route, timeout=5) == ["zero", "one"]


async def test_two_branches_of_one_name_are_refused(world: World) -> None:
    @workflow(retry=1)
    async def route(ctx: Context) -> str:
        with pytest.raises(InvalidInput):
            await ctx.switch("r", 1, [Branch("a", bool, lambda: 1), Branch("a", bool, lambda: 2)])
        with pytest.raises(InvalidInput):
            await ctx.switch("r", 1, [Branch("__a", bool, lambda: 1)])
        return "refused"

    node = await world.node(route)
    assert await node.start_and_wait(route, timeout=5) == "refused"


async def test_the_result_of_a_branch_is_what_is_stored(world: World) -> None:
    @workflow
    async def route(ctx: Context) -> tuple[bool, Any]:
        value = [1]
        given = await ctx.switch("r", 1, {1: lambda: value})
        return given is value, given

    node = await world.node(route)
    assert await node.start_and_wait(route, timeout=5) == (False, [1])


async def test_what_follows_a_branch_gets_the_same_names_tasks_and_chance_on_a_replay(world: World) -> None:
    @workflow
    async def route(ctx: Context) -> list[object]:
        async def nested() -> int:
            return await ctx.step("work", lambda: 1)

        async def branch() -> list[object]:
            plain = await asyncio.gather(nested(), nested())
            return [*plain, await nested(), str(ctx.uuid4()), ctx.random.random()]

        async def after() -> int:
            return await ctx.step("work", lambda: 3)

        within = await ctx.switch("route", 1, {1: branch})
        work = await ctx.step("work", lambda: 2)
        (plain,) = await asyncio.gather(after())
        found: list[object] = [*within, work, plain, str(ctx.uuid4()), ctx.random.random()]
        await ctx.set_value("found", found)
        ctx.patched("later")
        await ctx.wait_for_signal(Go)
        return [*found, ctx.patched("now")]

    handle = await (await world.node(route)).start(route)
    await reaches(handle, "waiting")
    found = await handle.value("found")
    assert isinstance(found, list)
    assert found[:3] == [1, 1, 1]
    assert found[5:7] == [2, 3]
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, route).result(5) == [*found, True]
