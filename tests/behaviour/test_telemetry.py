"""What listeners get to know, and what they do not disturb."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from durable import Context, Durable, Event, ExecutionFailed, InvalidInput, Retry, Signal, workflow
from durable.telemetry import (
    ClaimRefused,
    CommitMade,
    ExecutionClaimed,
    ExecutionClosed,
    ExecutionLost,
    ExecutionStarted,
    ExecutionStarting,
    ExecutionSuspended,
    LeaseMissed,
    LeaseRenewed,
    OfExecution,
    ReplayMismatched,
    StepBegan,
    StepEnded,
    SweepMade,
    TelemetryEvent,
    TimerFired,
)
from tests.support import CutOffStore, World, ends, reaches, steps, until

E = TypeVar("E", bound=object)
Go = Signal("go", int)
Ping = Event("ping", int)


@workflow
async def order(ctx: Context, number: int) -> int:
    total = await ctx.step("double", lambda: number * 2)
    total += await ctx.wait_for_signal(Go)
    return await ctx.step("add", lambda: total + 1)


@workflow
async def naps(ctx: Context) -> None:
    await ctx.sleep("20ms")


@workflow(retry=1)
async def flaky(ctx: Context) -> str:
    tries: list[int] = []

    async def work() -> str:
        tries.append(1)
        if len(tries) < 2:
            raise KeyError("secret-value")
        return "done"

    await ctx.step("work", retry=Retry(2, base="1ms")).up(work)
    return await ctx.step("fails", lambda: 1 // 0)


@workflow
async def parent(ctx: Context) -> int:
    await ctx.emit(Ping, 1)
    return await ctx.run(double, 2)


@workflow
async def double(ctx: Context, number: int) -> int:
    return number * 2


@workflow(on=[Ping])
async def pinged(ctx: Context, number: int) -> int:
    return number


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []

    def __call__(self, event: TelemetryEvent) -> None:
        self.events.append(event)

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def hears(self, kind: type[E], number: int = 1) -> list[E]:
        await until(lambda: len(self.all(kind)) >= number)
        return self.all(kind)

    def story(self) -> list[str]:
        """What happened to executions, in order, but for commits and claims that were too many."""
        skipped = (CommitMade, LeaseRenewed, SweepMade, ClaimRefused, TimerFired)
        return [type(event).__name__ for event in self.events if not isinstance(event, skipped)]


async def test_an_execution_is_told_from_its_start_to_its_end(world: World) -> None:
    heard = Heard()
    node = await world.node(order, telemetry=[heard])
    handle = await node.start(order, 3)
    await heard.hears(ExecutionSuspended)
    await handle.signal(Go, 4)
    assert await handle.result(5) == 11
    [closed] = await heard.hears(ExecutionClosed)
    if not world.forgetful:
        first, second = heard.story()[0], set(heard.story()[1:3])
        assert (first, second) == ("ExecutionStarting", {"ExecutionStarted", "ExecutionClaimed"})
        assert heard.story()[3:] == [
            *("StepBegan", "StepEnded", "ExecutionSuspended", "ExecutionClaimed"),
            *("StepBegan", "StepEnded", "ExecutionClosed"),
        ]
        first_claim, second_claim = heard.all(ExecutionClaimed)
        assert (first_claim.replayed, second_claim.replayed) == (False, False)
    assert (closed.execution_id, closed.workflow, closed.version, closed.attempt) == (
        *(handle.id, "order", "1", 1),
    )
    assert (closed.status, closed.error_type) == ("completed", None)
    assert 0 <= closed.seconds < 30
    [started] = heard.all(ExecutionStarted)
    assert (started.execution_id, started.created, started.starting.queue) == (handle.id, True, "default")
    waits = [(wait.kind, wait.name) for each in heard.all(ExecutionSuspended) for wait in each.waits]
    assert waits == [("wait_for_signal", "go")]
    commits = heard.all(CommitMade)
    assert all(commit.accepted for commit in commits)
    assert sum(commit.checkpoints for commit in commits) >= 3


async def test_a_step_that_is_replayed_is_not_told_again(world: World) -> None:
    first, second = Heard(), Heard()
    node = await world.node(order, telemetry=[first])
    handle = await node.start(order, 3)
    await first.hears(ExecutionSuspended)
    await reaches(handle, "waiting")
    await world.stop(node)
    node = await world.node(order, telemetry=[second])
    await node.signal(handle.id, Go, 4)
    await ends(node.handle(handle.id))
    await second.hears(ExecutionClosed)
    assert [each.step_id for each in second.all(StepBegan)] == ["add"]
    assert second.all(ExecutionClaimed)[0].replayed
    assert [each.outcome for each in (*first.all(StepEnded), *second.all(StepEnded))] == ["completed"] * 2


async def test_each_try_of_a_step_is_told_with_how_it_ended(world: World) -> None:
    heard = Heard()
    node = await world.node(flaky, telemetry=[heard])
    handle = await node.start(flaky)
    with pytest.raises(ExecutionFailed):
        await handle.result(5)
    [closed] = await heard.hears(ExecutionClosed)
    tries = [(each.step_id, each.number, each.outcome, each.error_type) for each in heard.all(StepEnded)]
    if not world.forgetful:  # the body counts its tries, which a replay forgets
        assert tries == [
            ("work", 1, "retrying", "KeyError"),
            ("work", 2, "completed", None),
            ("fails", 1, "failed", "ZeroDivisionError"),
        ]
    assert (closed.status, closed.error_type) == ("failed", tries[-1][3])
    assert not any("secret-value" in repr(event) for event in heard.events)


async def test_a_timer_tells_how_late_it_was(world: World) -> None:
    heard = Heard()
    node = await world.node(naps, telemetry=[heard])
    await (await node.start(naps)).result(5)
    [fired] = heard.all(TimerFired)
    assert fired.step_id == "sleep"
    assert 0 <= fired.lag < 5


async def test_a_child_and_what_an_event_starts_are_told_when_they_are_asked_for(world: World) -> None:
    heard = Heard()
    node = await world.node(parent, double, pinged, telemetry=[heard])
    handle = await node.start(parent)
    assert await handle.result(5) == 4
    receipt = await node.send(Ping, 7)
    started = {each.starting.workflow: each for each in heard.all(ExecutionStarted)}
    assert [each.starting.workflow for each in heard.all(ExecutionStarted)].count("pinged") == 2
    assert (started["double"].created, started["double"].starting.parent_id) == (None, handle.id)
    assert (started["pinged"].created, started["pinged"].execution_id) == (None, receipt.execution_ids[0])
    await ends(node.handle(receipt.execution_ids[0]))


async def test_a_start_that_is_refused_is_told_with_its_error(world: World) -> None:
    heard = Heard()
    node = await world.node(order, worker=False, telemetry=[heard])
    await node.start(order, 1, key="k")
    again = await node.start(order, 1, key="k")
    assert [each.created for each in heard.all(ExecutionStarted)] == [True, False]
    with pytest.raises(InvalidInput):
        await node.start(order, "many")  # type: ignore[arg-type]
    assert len(heard.all(ExecutionStarting)) == 2  # nothing was about to be stored
    with pytest.raises(Exception, match="another input"):
        await node.start(order, 2, key="k")
    assert type(heard.all(ExecutionStarted)[-1].error).__name__ == "KeyConflict"
    assert heard.all(ExecutionStarted)[1].execution_id == again.id


async def test_what_a_listener_leaves_comes_back_with_the_next_claims(world: World) -> None:
    """On another worker, too; and it shows nowhere else."""

    def leaves(heard: Heard) -> Callable[[TelemetryEvent], None]:
        def listener(event: TelemetryEvent) -> None:
            heard(event)
            if isinstance(event, ExecutionStarting):
                event.carrier["from"] = "the start"
            elif isinstance(event, ExecutionClaimed):
                event.carrier["from"] = f"claim {len(heard.all(ExecutionClaimed))}"

        return listener

    first, second = Heard(), Heard()
    node = await world.node(order, parent, double, telemetry=[leaves(first)])
    handle = await node.start(order, 3, retry=2)
    await first.hears(ExecutionSuspended)
    await reaches(handle, "waiting")
    claims = first.all(ExecutionClaimed)
    assert [claim.start for claim in claims] == [{"from": "the start"}] * len(claims)
    assert claims[0].previous == {}
    await world.stop(node)
    node = await world.node(order, telemetry=[leaves(second)])
    await node.signal(handle.id, Go, 4)
    assert await node.handle(handle.id, order).result(5) == 11
    claim = second.all(ExecutionClaimed)[0]
    assert (claim.start, claim.previous) == ({"from": "the start"}, {"from": f"claim {len(claims)}"})
    assert list(await steps(node, node.handle(handle.id))) == ["double", "go", "add"]
    detail = await node.operator.get_execution_detail(handle.id)
    assert "trace" not in {entry.kind for entry in detail.audit}
    assert list(await node._store.check()) == []


async def test_what_is_too_large_to_carry_is_left_behind(world: World) -> None:
    def listener(event: TelemetryEvent) -> None:
        if isinstance(event, ExecutionStarting | ExecutionClaimed):
            event.carrier["baggage"] = "x" * 5000

    heard = Heard()
    node = await world.node(order, telemetry=[listener, heard])
    handle = await node.start(order, 3)
    await reaches(handle, "waiting")
    await handle.signal(Go, 4)
    assert await handle.result(5) == 11
    assert all((claim.start, claim.previous) == ({}, {}) for claim in heard.all(ExecutionClaimed))


async def test_a_mismatch_is_told_and_what_follows_from_it(world: World) -> None:
    @workflow(name="changes")
    async def before(ctx: Context) -> None:
        await ctx.step("a", lambda: 1)
        await ctx.wait_for_signal(Go)

    @workflow(name="changes")
    async def after(ctx: Context) -> None:
        await ctx.sleep("1ms", id="a")

    node = await world.node(before)
    handle = await node.start(before)
    await reaches(handle, "waiting")
    await world.stop(node)
    heard = Heard()
    node = await world.node(after, telemetry=[heard])
    await node.signal(handle.id, Go, 1)
    [mismatch] = await heard.hears(ReplayMismatched)
    assert (mismatch.execution_id, mismatch.step_id) == (handle.id, "a")
    [suspended] = await heard.hears(ExecutionSuspended)
    assert (suspended.status, suspended.code) == ("parked", "replay_mismatch")


async def test_an_execution_that_another_worker_took_is_told_as_lost(world: World) -> None:
    heard, begun, release = Heard(), asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        if not begun.is_set():
            store.cut_off()
            begun.set()
            await release.wait()
        return "done"

    @workflow
    async def slowly(ctx: Context) -> str:
        return await ctx.step("slow", slow)

    store = CutOffStore(world.store())
    cut_off = await world.node(slowly, store=store, lease=0.3, telemetry=[heard])
    client = await world.node(slowly, worker=False)
    handle = await client.start(slowly)
    await begun.wait()
    await heard.hears(LeaseMissed)
    await world.node(slowly, lease=0.3, sweep=0.1)
    assert await handle.result(5) == "done"
    release.set()
    store.heal()
    [lost] = await heard.hears(ExecutionLost)
    assert (lost.execution_id, lost.reason) == (handle.id, "fenced")
    assert not heard.all(CommitMade)[-1].accepted
    await until(lambda: cut_off.worker.dispatcher.active == 0)


async def test_a_worker_tells_of_its_sweeps_and_its_lease(world: World) -> None:
    heard = Heard()
    node = await world.node(order, telemetry=[heard], lease=0.2, sweep=0.05)
    assert (await heard.hears(LeaseRenewed, 2))[0].worker_id == node.worker.id
    assert all(sweep.error_type is None for sweep in await heard.hears(SweepMade, 2))


async def test_a_listener_that_fails_disturbs_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fails(event: TelemetryEvent) -> None:
        if isinstance(event, OfExecution):
            raise RuntimeError("the exporter is broken")

    heard = Heard()
    node = await world.node(naps, telemetry=[fails, heard])
    await (await node.start(naps)).result(5)
    await heard.hears(ExecutionClosed)
    assert "a listener of telemetry failed at ExecutionClaimed" in caplog.text


async def test_without_a_listener_nothing_is_made_for_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def noted(name: str, init: Callable[..., None]) -> Callable[..., None]:
        def noting(*arguments: Any, **named: Any) -> None:
            made.append(name)
            init(*arguments, **named)

        return noting

    import durable.telemetry as telemetry

    for name in vars(telemetry):
        kind = getattr(telemetry, name)
        if isinstance(kind, type) and kind.__module__ == telemetry.__name__:
            monkeypatch.setattr(kind, "__init__", noted(name, kind.__init__))
    node = await world.node(order, naps)
    await (await node.start(naps)).result(5)
    handle = await node.start(order, 1)
    await handle.signal(Go, 1)
    await handle.result(5)
    assert made == []
    heard = await world.node(order, telemetry=[lambda event: None])
    await heard.start(order, 1)
    assert {"Telemetry", "ExecutionStarting"} <= set(made)


async def test_a_copy_as_a_worker_tells_those_who_listened_before_and_one_more() -> None:
    first, second = Heard(), Heard()
    app = Durable([double], store="memory://copy-of-telemetry", worker=False, telemetry=[first])
    async with app.as_worker(telemetry=[second]) as durable:
        assert await (await durable.start(double, 2)).result(5) == 4
    assert len(first.events) == len(second.events) > 0
