"""What simulations have found, each made to happen again by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import override

from durable import Context, Handle, Signal, workflow
from durable.backends.memory import MemoryBus
from durable.errors import OutcomeUnknown
from durable.testing import DurableEnv, crash_everywhere
from durable.testing.simulation.loop import Process
from durable.testing.simulation.ports import Call, Line, at_once
from durable.testing.simulation.simulate import in_a_thread
from durable.testing.simulation.world import Ended, Node, Scenario, World

T = TypeVar("T")

Go = Signal("go")


async def give(value: int) -> int:
    return value


async def give_slowly(value: int) -> int:
    await asyncio.sleep(2)
    return value


class LateClaim(Line):
    """Gives up its first claim, which arrives all the same: right after a signal was posted."""

    def __init__(self) -> None:
        self.claims: list[Call[Any]] = []
        self.is_cut = False

    @override
    async def call(self, verb: str, call: Call[T], about: object) -> T:
        if self.is_cut:
            await asyncio.Event().wait()
        if verb == "claim":
            self.claims.append(call)
            if len(self.claims) == 1:
                raise OutcomeUnknown("", "it took too long")
        answer = await call()
        if verb == "post":
            at_once(self.claims[0])
        return answer

    @override
    def beat(self, call: Callable[[], None]) -> None:
        call()


async def test_a_claim_that_arrives_long_after_it_was_given_up_is_looked_after() -> None:
    @workflow
    async def waiting(ctx: Context) -> int:
        await ctx.wait_for_signal(Go)
        return await ctx.step("last", give, 7)

    async def send(env: DurableEnv, handle: Handle[Any]) -> None:
        await env.until_idle()
        await handle.signal(Go)

    line, bus = LateClaim(), MemoryBus()
    world: list[World] = []

    def spawn() -> None:
        process = world[0].process("worker")
        node = Node(process, world[0].durable(process, line, bus=bus), None, asyncio.Event())
        world[0].run_node(node, lambda _: None)

    def client_line(process: Process) -> Line:
        return line

    def cut() -> None:
        line.is_cut = True

    def run(_: object) -> Ended:
        world.append(World(Scenario(waiting, None, [waiting], send)))
        return world[0].run(client_line, bus, spawn, cut)

    ended = await in_a_thread(run)
    assert (ended.outcome.status, ended.outcome.value) == ("completed", 7)
    assert ended.broken == []


async def test_no_step_begins_while_its_execution_is_parked() -> None:
    @workflow
    async def two_branches(ctx: Context) -> object:
        async def work() -> int:
            return await ctx.step("next", give, await ctx.step("slow", give_slowly, 1))

        return await ctx.gather(ctx.wait_for_signal(Go), work())

    async def send(env: DurableEnv, handle: Handle[Any]) -> None:
        await env.advance("1h")
        await handle.signal(Go)

    await crash_everywhere(two_branches, drive=send)  # it sees who owns the execution when a body begins


async def test_the_time_after_a_wait_that_was_given_up_is_the_same_on_a_replay() -> None:
    @workflow
    async def gives_up(ctx: Context) -> bool:
        try:
            async with asyncio.timeout(5):
                await ctx.sleep("1d")
        except TimeoutError:
            pass
        now = str(ctx.now())
        recorded = await ctx.step("now", lambda: now)
        await ctx.sleep("1d")
        return recorded == now

    async def look(env: DurableEnv, handle: Handle[Any]) -> None:
        assert await handle.result("30d") is True

    # Once: a crash would lose a timeout that is the process's own, and that is another matter.
    await crash_everywhere(gives_up, drive=look, only=(1, "unknown"))
