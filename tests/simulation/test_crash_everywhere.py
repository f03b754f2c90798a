"""`crash_everywhere` catches what a crash would break, says so readably, and bears with what is right."""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from durable import Context, Handle, Retry, Signal, workflow
from durable.testing import DurableEnv, crash_everywhere

Go = Signal("go", int)


async def give(value: int) -> int:
    return value


async def undo(value: int) -> None: ...


@workflow
async def ten_steps(ctx: Context, number: int) -> int:
    for _ in range(10):
        number = await ctx.step("add", give, number) + 1
    return number


async def test_a_workflow_of_ten_steps_is_crashed_at_each_write() -> None:
    report = await crash_everywhere(ten_steps, 0)

    assert report.writes >= 11
    assert report.runs == 3 + 3 * report.writes
    assert report.faults.total() == 3 * report.writes
    assert report.faults["after commit"] >= 10


async def test_one_write_is_run_again_by_itself() -> None:
    report = await crash_everywhere(ten_steps, 0, only=(5, "after"))
    assert report.faults.total() == 1


async def test_an_effect_outside_a_step_is_caught() -> None:
    mails: list[str] = []

    @workflow
    async def careless(ctx: Context) -> int:
        await ctx.step("first", give, 1)
        mails.append("welcome")
        return await ctx.step("second", give, 1)

    with pytest.raises(AssertionError) as caught:
        await crash_everywhere(careless)
    message = str(caught.value)
    assert "the body changed `mails`, which is outside of it, by 2 instead of 1" in message
    write, mode = re.search(
        r"again: crash_everywhere\(careless, \.\.\., only=\((\d+), '(\w+)'\)\)", message
    ).groups()  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match="`mails`"):
        await crash_everywhere(careless, only=(int(write), mode))  # type: ignore[arg-type]


async def test_an_effect_of_a_step_is_left_alone() -> None:
    mails: list[str] = []

    @workflow
    async def careful(ctx: Context) -> int:
        await ctx.step("mail", lambda: mails.append("welcome"))
        return await ctx.step("second", give, 1)

    await crash_everywhere(careful)
    assert "welcome" in mails


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: random.random(), "Random.random"),
        (lambda: str(uuid.uuid4()), "ctx.uuid4()"),
        (lambda: asyncio.get_running_loop() and __import__("time").time(), "ctx.now()"),
    ],
    ids=["random", "uuid4", "time"],
)
async def test_chance_in_a_body_is_caught_with_its_line(ask: Callable[[], object], said: str) -> None:
    @workflow
    async def fickle(ctx: Context) -> None:
        value = ask()
        await ctx.step("use", lambda: value)

    with pytest.raises(AssertionError, match="the body calls") as caught:
        await crash_everywhere(fickle)
    assert said in str(caught.value)
    assert re.search(r"test_crash_everywhere\.py:\d+", str(caught.value))


async def test_another_path_on_a_replay_is_caught() -> None:
    @workflow
    async def wavering(ctx: Context) -> None:
        await ctx.step("first", give, 1)
        if ctx.is_replaying:
            await ctx.sleep("1s", id="second")
        else:
            await ctx.step("second", give, 1)
        await ctx.sleep("1d")

    with pytest.raises(AssertionError, match=r"recorded step 'give', the code now asks for sleep"):
        await crash_everywhere(wavering)


async def test_state_in_memory_is_caught_when_the_process_forgets() -> None:
    tokens: dict[str, int] = {}

    async def log_in() -> None:
        tokens["session"] = 7

    async def use() -> int:
        return tokens["session"]

    @workflow(retry=Retry(1))
    async def relies_on_memory(ctx: Context) -> int:
        await ctx.step("log-in", log_in)
        return await ctx.step("use", use)

    with pytest.raises(AssertionError, match=r"KeyError.*instead of completed: 7"):
        await crash_everywhere(relies_on_memory, forget=tokens.clear)


async def test_state_in_memory_is_caught_when_a_run_finds_it_filled() -> None:
    cache: dict[str, int] = {}

    @workflow
    async def caches(ctx: Context) -> int:
        if "rate" not in cache:
            cache["rate"] = await ctx.step("rate", give, 3)
        return cache["rate"]

    with pytest.raises(AssertionError, match="two runs without any fault") as caught:
        await crash_everywhere(caches)
    assert "the body of 'rate' ran 0 times instead of 1" in str(caught.value)


async def test_compensations_by_hand_that_a_crash_brings_into_disorder_are_caught() -> None:
    done: list[str] = []

    @workflow(retry=Retry(1))
    async def undoes_by_hand(ctx: Context) -> None:
        for name in ("a", "b"):
            await ctx.step(name, give, 1)
            done.append(name)
        while done:
            await ctx.step(f"undo-{done.pop()}", give, 1)

    with pytest.raises(AssertionError) as caught:
        await crash_everywhere(undoes_by_hand)
    assert "'undo-a#2' was recorded" in str(caught.value)


async def test_a_workflow_that_waits_for_nobody_is_named_with_its_wait() -> None:
    @workflow
    async def hopeful(ctx: Context) -> int:
        return await ctx.wait_for_signal(Go)

    with pytest.raises(AssertionError, match=r"it does not end: it is waiting, at wait_for_signal 'go'"):
        await crash_everywhere(hopeful)


async def test_the_world_may_let_time_pass_send_and_look() -> None:
    @workflow
    async def weekly(ctx: Context) -> int:
        total = 0
        for _ in range(3):
            total += await ctx.wait_for_signal(Go)
            await ctx.sleep("7d")
        return total

    async def world(env: DurableEnv, handle: Handle[Any]) -> None:
        for number in range(3):
            await env.until_idle()
            assert (await handle.status()).status == "waiting"
            await handle.signal(Go, number)
            await env.advance("7d")
        assert await handle.result() == 3

    await crash_everywhere(weekly, drive=world)


async def test_a_signal_that_comes_while_the_worker_is_dead_is_kept() -> None:
    @workflow
    async def greedy(ctx: Context) -> list[int]:
        await ctx.step("first", give, 1)
        return [await ctx.wait_for_signal(Go) for _ in range(3)]

    async def world(env: DurableEnv, handle: Handle[Any]) -> None:
        for number in range(3):
            await handle.signal(Go, number)
            await asyncio.sleep(0.01)

    await crash_everywhere(greedy, drive=world)


async def test_a_step_whose_result_differs_by_itself_is_no_fault() -> None:
    async def new_id() -> str:
        return str(uuid.uuid4())

    @workflow
    async def order(ctx: Context) -> str:
        charged = await ctx.step("charge", new_id)
        await ctx.sleep("1d")
        return charged

    await crash_everywhere(order)


async def test_what_a_trusted_package_asks_for_is_let_be() -> None:
    @workflow
    async def order(ctx: Context) -> None:
        uuid.uuid4()
        await ctx.step("charge", give, 1)

    await crash_everywhere(order, trust=["uuid"])
    with pytest.raises(AssertionError, match="differs on a replay"):
        await crash_everywhere(order, trust=["random"])


async def test_stubs_hold_on_the_worker_that_comes_after() -> None:
    @workflow
    async def order(ctx: Context) -> int:
        await ctx.wait_for_signal(Go)
        return await ctx.step("charge", give, 1)

    async def world(env: DurableEnv, handle: Handle[Any]) -> None:
        env.stub("charge", 42)
        await handle.signal(Go, 0)
        assert await handle.result("1h") == 42

    await crash_everywhere(order, drive=world)
