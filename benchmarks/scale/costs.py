"""What does one execution cost, in calls, messages, bytes and processor time?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.figures import Figure, count
from benchmarks.scale.ports import CountingStore, bare_store, broker_messages, redis_says
from benchmarks.w1_throughput import five_steps
from benchmarks.w2_latency import one_step
from benchmarks.w3_signal import Answer, answered
from benchmarks.w4_sleepers import sleeper
from benchmarks.w6_fanout import many_children
from benchmarks.worlds import World, process, until_waiting
from durable import Durable

KINDS = ("five steps", "one step", "a signal", "a sleep", "a child")
SPENT = ("store calls", "CPU µs", "scripts", "Redis CPU µs", "Redis KB", "Redis KB kept", "broker messages")
_ASLEEP_MS = 1_000
ELSEWHERE = "five steps, worker elsewhere: broker messages"
FIGURES = (*(Figure(f"{kind}: {what}") for kind in KINDS for what in SPENT), Figure(ELSEWHERE))


@dataclass(frozen=True)
class Meter:
    """What has been spent so far."""

    calls: float
    cpu: float
    redis: dict[str, float]
    messages: float | None

    @classmethod
    async def read(cls, world: World, store: CountingStore) -> Meter:
        server = await redis_says(world) if world.has_redis else {}
        messages = await asyncio.to_thread(broker_messages) if world.place.queue else None
        return cls(float(store.calls.total()), time.process_time(), server, messages)

    def since(self, before: Meter, executions: int) -> dict[str, float]:
        spent = {"store calls": self.calls - before.calls, "CPU µs": (self.cpu - before.cpu) * 1e6}
        if self.redis:
            change = {name: value - before.redis.get(name, 0.0) for name, value in self.redis.items()}
            spent["scripts"] = change["scripts"]
            spent["Redis CPU µs"] = (change["used_cpu_user"] + change["used_cpu_sys"]) * 1e6
            spent["Redis KB"] = (change["total_net_input_bytes"] + change["total_net_output_bytes"]) / 1024
            spent["Redis KB kept"] = change["used_memory_dataset"] / 1024
        if self.messages is not None and before.messages is not None:
            spent["broker messages"] = self.messages - before.messages
        return {name: value / executions for name, value in spent.items()}


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(1000, scale, least=100)
    store = CountingStore(bare_store(world))
    figures: dict[str, float] = {}
    # No sweep comes in between, so that what is counted is what the executions cost.
    quiet = {"bus": world.place.store, "sweep": "1h", "lease": "1h"}
    workflows = (five_steps, one_step, answered, sleeper, many_children)
    async with world.durable(*workflows, store=store, **quiet) as durable:
        for kind, run in zip(KINDS, (_five_steps, _one_step, _signals, _sleeps, _children), strict=True):
            await run(durable, 5)
            before = await Meter.read(world, store)
            await run(durable, executions)
            spent = (await Meter.read(world, store)).since(before, executions)
            figures |= {f"{kind}: {what}": value for what, value in spent.items()}
    if world.place.queue:
        figures[ELSEWHERE] = await _through_the_broker(world, executions)
    return figures


async def _through_the_broker(world: World, executions: int) -> float:
    """Messages for each execution that another process than the one that starts it takes."""
    async with (
        process("benchmarks.scale.workers", world.place.text) as worker,
        world.durable(five_steps, worker=False) as durable,
    ):
        assert await worker.says() == "ready"
        worker.go()
        await _five_steps(durable, 5)
        before = await asyncio.to_thread(broker_messages)
        await _five_steps(durable, executions)
        return (await asyncio.to_thread(broker_messages) - before) / executions


async def _five_steps(durable: Durable, executions: int) -> None:
    handles = await asyncio.gather(*(durable.start(five_steps, n) for n in range(executions)))
    results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
    assert results == [n + 5 for n in range(executions)]


async def _one_step(durable: Durable, executions: int) -> None:
    handles = await asyncio.gather(*(durable.start(one_step, n) for n in range(executions)))
    results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
    assert results == [n + 1 for n in range(executions)]


async def _signals(durable: Durable, executions: int) -> None:
    """Started, asked once whether it waits, told, and waited for."""
    for n in range(executions):
        handle = await durable.start(answered, n)
        await until_waiting(handle)
        await handle.signal(Answer, 1000)
        assert await handle.result(timeout=60) == n + 1000


async def _sleeps(durable: Durable, executions: int) -> None:
    handles = await asyncio.gather(*(durable.start(sleeper, _ASLEEP_MS) for _ in range(executions)))
    results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
    assert results == [_ASLEEP_MS] * executions


async def _children(durable: Durable, executions: int) -> None:
    """With their share of the parents: 200 of one parent at once."""
    for first in range(0, executions, 200):
        width = min(200, executions - first)
        result = await durable.start_and_wait(many_children, width, timeout=60)
        assert result == width * (width + 1) // 2
