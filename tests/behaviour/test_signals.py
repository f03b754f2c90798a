"""Signals: buffered, in order, each consumed once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, field_validator

from durable import (
    Context,
    ExecutionClosed,
    ExecutionNotFound,
    InvalidInput,
    Received,
    Signal,
    TimedOut,
    workflow,
)
from tests.support import World, reaches, until


@dataclass
class Approval:
    by: str


class Amount(BaseModel):
    cents: int

    @field_validator("cents", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> object:
        return int(value) * 100 if isinstance(value, str) else value


Go = Signal("go")
Stop = Signal("stop")
Number = Signal("number", int)
Approved = Signal("approved", Approval)
Rejected = Signal("rejected", str)
Paid = Signal("paid", Amount)
Maybe = Signal("maybe", int | None)


@workflow
async def one(ctx: Context) -> int:
    return await ctx.wait_for_signal(Number)


@workflow
async def three(ctx: Context) -> list[int]:
    return [await ctx.wait_for_signal(Number) for _ in range(3)]


@workflow
async def approval(ctx: Context) -> str:
    match await ctx.wait_for_signal(Approved, timeout="3d"):
        case Received(payload, name):
            return f"{name} by {payload.by}"
        case TimedOut():
            return "nobody did"


async def test_a_signal_wakes_what_waits_for_it(world: World) -> None:
    node = await world.node(one)
    handle = await node.start(one)
    await reaches(handle, "waiting")
    await handle.signal(Number, 7)
    assert await handle.result(5) == 7


async def test_a_signal_that_came_before_the_wait_is_kept_for_it(world: World) -> None:
    @workflow
    async def late(ctx: Context) -> int:
        await ctx.wait_for_signal(Go)
        return await ctx.wait_for_signal(Number)

    node = await world.node(late)
    handle = await node.start(late)
    await handle.signal(Number, 1)
    await reaches(handle, "waiting")
    await handle.signal(Go)
    assert await handle.result(5) == 1


async def test_signals_are_taken_in_the_order_of_their_arrival_and_none_is_merged(world: World) -> None:
    node = await world.node(three)
    handle = await node.start(three)
    for number in (5, 5, 4):
        await handle.signal(Number, number)
    assert await handle.result(5) == [5, 5, 4]


async def test_signals_sent_before_any_worker_runs_are_kept(world: World) -> None:
    client = await world.node(three, worker=False)
    handle = await client.start(three)
    for number in (1, 2, 3):
        await handle.signal(Number, number)
    assert (await handle.status()).status == "pending"
    await world.node(three)
    assert await handle.result(5) == [1, 2, 3]


async def test_each_wait_takes_one_signal(world: World) -> None:
    node = await world.node(three)
    handle = await node.start(three)
    for number in (1, 2):
        await reaches(handle, "waiting")
        await handle.signal(Number, number)
    node = await world.restart()
    await node.signal(handle.id, Number, 3)
    assert await node.handle(handle.id, three).result(5) == [1, 2, 3]


async def test_a_key_makes_a_resend_harmless(world: World) -> None:
    node = await world.node(three)
    handle = await node.start(three)
    await handle.signal(Number, 1, key="first")
    await handle.signal(Number, 1, key="first")
    await reaches(handle, "waiting")
    await handle.signal(Number, 1, key="first")
    await handle.signal(Number, 2, key="second")
    await handle.signal(Number, 3)
    assert await handle.result(5) == [1, 2, 3]


async def test_one_key_for_two_signals_is_two_messages(world: World) -> None:
    @workflow
    async def both(ctx: Context) -> int:
        await ctx.wait_for_signal(Go)
        return await ctx.wait_for_signal(Number)

    node = await world.node(both)
    handle = await node.start(both)
    await handle.signal(Go, key="k")
    await handle.signal(Number, 1, key="k")
    assert await handle.result(5) == 1


async def test_a_resend_after_the_end_is_still_harmless(world: World) -> None:
    node = await world.node(one)
    handle = await node.start(one)
    await handle.signal(Number, 1, key="once")
    assert await handle.result(5) == 1
    await handle.signal(Number, 1, key="once")


async def test_a_payload_of_none_differs_from_a_timeout(still_world: World) -> None:
    @workflow
    async def wait(ctx: Context) -> list[str]:
        return [
            (await ctx.wait_for_signal(Go, timeout="1h")).kind,
            (await ctx.wait_for_signal(Maybe, timeout="1h")).kind,
            (await ctx.wait_for_signal(Go, timeout="1h")).kind,
        ]

    node = await still_world.node(wait)
    handle = await node.start(wait)
    await handle.signal(Go)
    await handle.signal(Maybe, None)
    await still_world.advance("1h")
    assert await handle.result(5) == ["signal", "signal", "timeout"]


# ---- timeouts


async def test_a_signal_in_time_is_received(still_world: World) -> None:
    node = await still_world.node(approval)
    handle = await node.start(approval)
    await still_world.advance("2d")
    assert (await handle.status()).status == "waiting"
    await handle.signal(Approved, Approval("ada"))
    assert await handle.result(5) == "approved by ada"


async def test_a_wait_ends_at_its_timeout_and_not_before(still_world: World) -> None:
    node = await still_world.node(approval)
    handle = await node.start(approval)
    await still_world.advance("71h")
    assert (await handle.status()).status == "waiting"
    await still_world.advance("1h")
    assert await handle.result(5) == "nobody did"


async def test_a_timeout_counts_from_the_wait_across_restarts(still_world: World) -> None:
    node = await still_world.node(approval)
    handle = await node.start(approval)
    await still_world.advance("2d")
    node = await still_world.restart()
    await still_world.advance("23h")
    assert (await node.status(handle.id)).status == "waiting"
    await still_world.advance("1h")
    assert await node.handle(handle.id, approval).result(5) == "nobody did"


async def test_after_a_timeout_a_signal_is_kept_for_the_next_wait(still_world: World) -> None:
    @workflow
    async def patient(ctx: Context) -> list[object]:
        first = await ctx.wait_for_signal(Number, timeout="1h")
        await ctx.wait_for_signal(Go)
        return [first.kind, await ctx.wait_for_signal(Number)]

    node = await still_world.node(patient)
    handle = await node.start(patient)
    await still_world.advance("1h")
    await handle.signal(Number, 9)
    await handle.signal(Go)
    assert await handle.result(5) == ["timeout", 9]


async def test_a_signal_in_time_takes_the_timer_away(still_world: World) -> None:
    @workflow
    async def twice(ctx: Context) -> list[str]:
        first = await ctx.wait_for_signal(Go, timeout="1h")
        second = await ctx.wait_for_signal(Go, timeout="1d")
        return [first.kind, second.kind]

    node = await still_world.node(twice)
    handle = await node.start(twice)
    await still_world.until_idle()
    await handle.signal(Go)
    await still_world.advance("23h")
    assert (await handle.status()).status == "waiting"
    await handle.signal(Go)
    assert await handle.result(5) == ["signal", "signal"]


async def test_a_timeout_that_fired_while_nobody_ran_comes_before_a_later_signal(still_world: World) -> None:
    node = await still_world.node(approval)
    handle = await node.start(approval)
    await still_world.until_idle()
    client = await still_world.node(worker=False)
    await still_world.stop(node)
    await still_world.advance("4d")
    node = await still_world.node(approval)
    await still_world.until_idle()
    assert await client.handle(handle.id, approval).result(5) == "nobody did"


async def test_timeout_or_signal_wins_but_never_both(world: World) -> None:
    """Many trials in which both come at about the same instant."""

    @workflow
    async def race(ctx: Context) -> tuple[str, str]:
        first = await ctx.wait_for_signal(Go, timeout=0.01)
        second = await ctx.wait_for_signal(Go, timeout=30 if first.kind == "timeout" else 0.001)
        return first.kind, second.kind

    async def trial(number: int) -> tuple[str, str]:
        handle = await node.start(race)
        await asyncio.sleep(0.005 + number % 20 / 2000)
        await handle.signal(Go)
        return await handle.result(10)

    node = await world.node(race)
    outcomes = await asyncio.gather(*(trial(number) for number in range(60)))
    assert set(outcomes) <= {("signal", "timeout"), ("timeout", "signal")}


async def test_a_timeout_of_nothing_gives_what_is_there(world: World) -> None:
    @workflow
    async def poll(ctx: Context) -> list[str]:
        await ctx.wait_for_signal(Go)
        return [(await ctx.wait_for_signal(Number, timeout=0)).kind for _ in range(2)]

    node = await world.node(poll)
    handle = await node.start(poll)
    await handle.signal(Number, 1)
    await handle.signal(Go)
    assert await handle.result(5) == ["signal", "timeout"]


async def test_timeouts_of_more_than_a_month_do_not_overflow(still_world: World) -> None:
    @workflow
    async def patient(ctx: Context) -> str:
        return (await ctx.wait_for_signal(Go, timeout="400d")).kind

    node = await still_world.node(patient)
    handle = await node.start(patient)
    await still_world.advance("399d")
    assert (await handle.status()).status == "waiting"
    await still_world.advance("1d")
    assert await handle.result(5) == "timeout"


# ---- several signals


async def test_wait_for_any_says_which_came(world: World) -> None:
    @workflow
    async def decide(ctx: Context) -> list[str]:
        outcomes = []
        for _ in range(2):
            match await ctx.wait_for_any(Approved, Rejected):
                case Received(Approval(by=who)):
                    outcomes.append(f"yes from {who}")
                case Received(reason, "rejected"):
                    outcomes.append(f"no: {reason}")
        return outcomes

    node = await world.node(decide)
    handle = await node.start(decide)
    await reaches(handle, "waiting")
    await handle.signal(Rejected, "too dear")
    await handle.signal(Approved, Approval("ada"))
    assert await handle.result(5) == ["no: too dear", "yes from ada"]


async def test_wait_for_any_takes_the_one_that_came_first_and_leaves_the_other(world: World) -> None:
    @workflow
    async def decide(ctx: Context) -> list[object]:
        await ctx.wait_for_signal(Go)
        first = await ctx.wait_for_any(Number, Rejected)
        return [first.name, await ctx.wait_for_signal(Number)]

    node = await world.node(decide)
    handle = await node.start(decide)
    await handle.signal(Rejected, "first")
    await handle.signal(Number, 2)
    await handle.signal(Go)
    assert await handle.result(5) == ["rejected", 2]


async def test_wait_for_any_times_out(still_world: World) -> None:
    @workflow
    async def decide(ctx: Context) -> str:
        return (await ctx.wait_for_any(Approved, Rejected, timeout="3d")).kind

    node = await still_world.node(decide)
    handle = await node.start(decide)
    await still_world.advance("3d")
    assert await handle.result(5) == "timeout"


async def test_side_by_side_waits_for_one_signal_each_get_one_in_order(world: World) -> None:
    @workflow
    async def several(ctx: Context) -> list[int]:
        return list(await ctx.gather(*(ctx.wait_for_signal(Number) for _ in range(3))))

    node = await world.node(several)
    handle = await node.start(several)
    await reaches(handle, "waiting")
    for number in (1, 2):
        await handle.signal(Number, number)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Number, 3)
    assert await node.handle(handle.id, several).result(5) == [1, 2, 3]


# ---- payloads


async def test_what_the_body_sees_is_the_validated_payload(world: World) -> None:
    @workflow
    async def paid(ctx: Context) -> int:
        return (await ctx.wait_for_signal(Paid)).cents

    node = await world.node(paid)
    handle = await node.start(paid)
    await handle.signal(Paid, {"cents": "3"})  # type: ignore[call-overload]
    assert await handle.result(5) == 300


@pytest.mark.parametrize("payload", ["seven", None, [], {"x": 1}])
async def test_an_invalid_payload_is_refused_and_not_stored(world: World, payload: object) -> None:
    node = await world.node(one)
    handle = await node.start(one)
    with pytest.raises(InvalidInput, match="number"):
        await handle.signal(Number, payload)  # type: ignore[call-overload]
    assert (await node.operator.get_execution_detail(handle.id)).signals == []
    await handle.signal(Number, 1)
    assert await handle.result(5) == 1


async def test_a_signal_without_a_payload_takes_none(world: World) -> None:
    node = await world.node(one)
    handle = await node.start(one)
    with pytest.raises(InvalidInput):
        await handle.signal(Go, 5)  # type: ignore[call-overload]


# ---- targets


async def test_a_signal_to_nobody_is_an_error(world: World) -> None:
    node = await world.node(one)
    with pytest.raises(ExecutionNotFound, match="nobody"):
        await node.signal("nobody", Number, 1)
    with pytest.raises(InvalidInput):
        await node.signal("no body", Number, 1)


async def test_a_signal_to_a_finished_execution_is_an_error_and_not_stored(world: World) -> None:
    node = await world.node(one)
    handle = await node.start(one)
    await handle.signal(Number, 1)
    await handle.result(5)
    with pytest.raises(ExecutionClosed, match="completed"):
        await handle.signal(Number, 2)
    signals = (await node.operator.get_execution_detail(handle.id)).signals
    assert [signal.payload for signal in signals] == [1]


async def test_one_execution_does_not_get_the_signals_of_another(world: World) -> None:
    node = await world.node(one)
    first, second = await node.start(one), await node.start(one)
    await reaches(second, "waiting")
    await first.signal(Number, 1)
    assert await first.result(5) == 1
    assert (await second.status()).status == "waiting"
    await second.signal(Number, 2)
    assert await second.result(5) == 2


async def test_signals_stay_readable_after_they_were_consumed(world: World) -> None:
    node = await world.node(three)
    handle = await node.start(three)
    await handle.signal(Number, 1)
    await handle.signal(Number, 2)
    await handle.signal(Rejected, "unread")
    await handle.signal(Number, 3)
    await handle.result(5)
    signals = (await node.operator.get_execution_detail(handle.id)).signals
    assert [(s.name, s.payload, s.consumed_by) for s in signals] == [
        ("number", 1, "number"),
        ("number", 2, "number#2"),
        ("rejected", "unread", None),
        ("number", 3, "number#3"),
    ]


async def test_a_signal_to_a_running_execution_is_seen_by_its_next_wait(world: World) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await release.wait()

    @workflow
    async def busy(ctx: Context) -> int:
        await ctx.step("slow", slow)
        return await ctx.wait_for_signal(Number)

    node = await world.node(busy)
    handle = await node.start(busy)
    await begun.wait()
    await handle.signal(Number, 3)
    release.set()
    assert await handle.result(5) == 3


async def test_many_signals_from_many_senders_are_all_delivered(world: World) -> None:
    @workflow
    async def collect(ctx: Context) -> list[int]:
        return [await ctx.wait_for_signal(Number) for _ in range(40)]

    node = await world.node(collect)
    client = await world.node(worker=False)
    handle = await node.start(collect)
    await asyncio.gather(
        *((node, client)[number % 2].signal(handle.id, Number, number) for number in range(40))
    )
    assert sorted(await handle.result(5)) == list(range(40))


async def test_what_is_parked_in_memory_goes_on_at_a_hint_though_nobody_is_rung(world: World) -> None:
    if world.forgetful or world.rough:
        pytest.skip("nothing is kept in memory, or no hints come")
    node = await world.node(one, sweep="1h", lease="1h")
    handle = await node.start(one)
    await reaches(handle, "waiting")
    await until(lambda: node.worker.idle)
    # A client whose doorbells reach nobody: its queue is that of another place.
    elsewhere = World(f"memory://{world.namespace('elsewhere')}")
    async with AsyncExitStack() as stack:
        store, bus = elsewhere.store(), elsewhere.bus()
        for port in (store, bus):
            await port.open()
            stack.push_async_callback(port.close)
        client = await world.node(one, worker=False, queue=elsewhere.queue(store, bus))
        await client.signal(handle.id, Number, 7)
        assert await handle.result(5) == 7
        await world.stop(client)
