"""What a body has of its execution: time, chance, a log, deps, and things it shows to the outside."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from durable import Context, Event, ExecutionFailed, InvalidInput, NotSerializable, Retry, Signal, workflow
from tests.support import World, reaches, steps

Go = Signal("go")
Paid = Event("payment.received", int)


# ---- time and chance


async def test_time_and_chance_are_the_same_on_every_replay(world: World) -> None:
    seen: list[tuple[object, ...]] = []

    @workflow
    async def order(ctx: Context) -> None:
        async def branch() -> tuple[object, ...]:
            await ctx.step("in-branch", lambda: 1)
            return ctx.now(), ctx.uuid4(), ctx.random.random()

        first = (ctx.now(), ctx.uuid4(), ctx.uuid4(), ctx.random.random(), ctx.random.randint(1, 10**9))
        await ctx.step("a", lambda: 1)
        second = (ctx.now(), ctx.uuid4(), ctx.random.choice(range(10**9)))
        branches = await asyncio.gather(branch(), branch())
        seen.append((*first, *second, *branches))
        await ctx.wait_for_signal(Go)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id).result(5)
    assert len(seen) >= 2
    assert len(set(seen)) == 1
    chance = [each for each in seen[0] if not isinstance(each, datetime | tuple)]
    assert len(set(chance)) == len(chance)


async def test_chance_differs_between_executions_and_between_branches(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[UUID]:
        async def branch() -> UUID:
            return ctx.uuid4()

        return [ctx.uuid4(), *await asyncio.gather(branch(), branch())]

    node = await world.node(order)
    drawn = [number for _ in range(3) for number in await node.start_and_wait(order, timeout=5)]
    assert len(set(drawn)) == 9
    assert {number.version for number in drawn} == {4}


async def test_the_world_outside_is_as_random_as_ever(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> bool:
        before = random.getstate()
        ctx.random.seed(1)
        ctx.random.random()
        return random.getstate() == before

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5)


async def test_time_moves_on_with_what_the_body_has_seen_and_never_back(still_world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[timedelta]:
        instants = [ctx.now()]
        await ctx.sleep("1h")
        instants.append(ctx.now())
        await ctx.wait_for_signal(Go)
        instants.append(ctx.now())
        await ctx.gather(ctx.sleep("2h"), ctx.sleep("1h"))
        instants.append(ctx.now())
        assert all(instant.tzinfo is not None for instant in instants)
        return [later - earlier for earlier, later in itertools.pairwise(instants)]

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("3h")
    await handle.signal(Go)
    await still_world.advance("2h")
    assert await handle.result(5) == [timedelta(hours=1), timedelta(hours=2), timedelta(hours=2)]


# ---- who it is


async def test_a_body_knows_its_execution(world: World) -> None:
    @workflow(name="shop/order", version="7", tags={"a": "b"}, retry=Retry(2, base="1ms"))
    async def order(ctx: Context) -> list[object]:
        if ctx.attempt == 1:
            raise ConnectionError
        return [ctx.execution_id, ctx.workflow_name, ctx.version, ctx.attempt, dict(ctx.tags)]

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == [handle.id, "shop/order", "7", 2, {"a": "b"}]


async def test_a_body_knows_when_it_is_replayed(world: World) -> None:
    if world.forgetful:
        pytest.skip("it replays after each step, on purpose")
    seen: list[tuple[str, bool]] = []

    @workflow
    async def order(ctx: Context) -> None:
        seen.append(("start", ctx.is_replaying))
        await ctx.step("a", lambda: 1)
        seen.append(("after a", ctx.is_replaying))
        await ctx.wait_for_signal(Go)
        seen.append(("after go", ctx.is_replaying))
        await ctx.step("b", lambda: 1)
        seen.append(("end", ctx.is_replaying))

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    assert seen == [("start", False), ("after a", False)]
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id).result(5)
    assert seen[2:] == [("start", True), ("after a", True), ("after go", False), ("end", False)]


async def test_the_log_is_silent_while_replaying(world: World, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        ctx.log.info("first")
        await ctx.step("a", lambda: 1)
        ctx.log.info("second of %s", ctx.execution_id)
        await ctx.wait_for_signal(Go)
        ctx.log.info("third")

    caplog.set_level(logging.INFO, "durable.workflow")
    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id).result(5)
    logged = [record.getMessage() for record in caplog.records if record.name == "durable.workflow"]
    assert logged == ["first", f"second of {handle.id}", "third"]


# ---- deps


class Mailer:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.is_open = False


async def test_deps_are_opened_once_for_a_worker_and_closed_at_the_end(world: World) -> None:
    mailer, opened = Mailer(), []

    @asynccontextmanager
    async def open_deps() -> AsyncIterator[Mailer]:
        opened.append(1)
        mailer.is_open = True
        yield mailer
        mailer.is_open = False

    @workflow
    async def greet(ctx: Context[Mailer], name: str) -> bool:
        await ctx.step("send", ctx.deps.sent.append, name)
        return ctx.deps.is_open

    client = await world.node(greet, worker=False, deps=open_deps)
    assert opened == []
    node = await world.node(greet, deps=open_deps)
    assert await node.start_and_wait(greet, "ada", timeout=5)
    assert await client.start_and_wait(greet, "grace", timeout=5)
    assert mailer.sent == ["ada", "grace"]
    assert opened == [1]
    await world.stop(node)
    assert not mailer.is_open


async def test_deps_stay_open_while_a_worker_drains(world: World) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    open_now = [False]

    @asynccontextmanager
    async def open_deps() -> AsyncIterator[list[bool]]:
        open_now[0] = True
        yield open_now
        open_now[0] = False

    async def slow(deps: list[bool]) -> bool:
        begun.set()
        await release.wait()
        return deps[0]

    @workflow
    async def order(ctx: Context[list[bool]]) -> bool:
        return await ctx.step("slow", slow, ctx.deps)

    client = await world.node(order, worker=False)
    node = await world.node(order, deps=open_deps, drain="5s")
    handle = await client.start(order)
    await begun.wait()
    leaving = asyncio.ensure_future(node.__aexit__(None, None, None))
    await asyncio.sleep(0)
    release.set()
    await leaving
    assert await handle.result(5) is True
    assert open_now == [False]


# ---- shown to the outside


async def test_values_are_readable_outside_and_the_last_one_counts(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ctx.set_value("progress", 0.4)
        await ctx.set_value("who", {"name": "ada", "items": [1, None]})
        await ctx.wait_for_signal(Go)
        await ctx.set_value("progress", 1.0)

    client = await world.node(order, worker=False)
    await world.node(order)
    handle = await client.start(order)
    await reaches(handle, "waiting")
    assert await handle.value("progress") == 0.4
    assert await handle.value("who") == {"name": "ada", "items": [1, None]}
    assert await handle.value("nothing") is None
    await handle.signal(Go)
    await handle.result(5)
    assert await handle.value("progress") == 1.0
    with pytest.raises(InvalidInput):
        await handle.value("__mine")


async def test_a_value_that_cannot_be_stored_is_an_error_of_the_body(world: World) -> None:
    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        await ctx.set_value("connection", object())

    node = await world.node(order)
    with pytest.raises((ExecutionFailed, TimeoutError), match="connection"):
        await node.start_and_wait(order, timeout=0.5)


async def test_an_event_is_emitted_once_however_often_the_workflow_is_replayed(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ctx.emit(Paid, 5)
        await ctx.emit(Paid, 6)
        await ctx.emit(Paid, 7, id="mine")
        await ctx.wait_for_signal(Go)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id).result(5)
    recorded = await steps(node, handle)
    emitted = [(id, step.name, step.result) for id, step in recorded.items() if step.kind == "emit"]
    assert [(name, result) for _, name, result in emitted] == [("payment.received", n) for n in (5, 6, 7)]
    store = world.store()
    await store.open()
    try:
        for id, name, result in emitted:
            event = await store.event(name, f"{handle.id}:0:{id}")
            assert event is not None
            assert (event.name, event.data) == (name, str(result).encode())
    finally:
        await store.close()


async def test_an_invalid_event_is_refused(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        with pytest.raises(InvalidInput):
            await ctx.emit(Paid, "no number")  # type: ignore[arg-type]
        return "refused"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "refused"


async def test_notes_are_audit_entries_written_once(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ctx.note("checked by hand", by="ada")
        await ctx.wait_for_signal(Go)
        await ctx.note("shipped")

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id).result(5)
    audit = (await node.operator.get_execution_detail(handle.id)).audit
    notes = [entry for entry in audit if entry.kind == "note"]
    assert [entry.details.get("text") for entry in notes] == ["checked by hand", "shipped"]
    assert notes[0].details.get("details") == {"by": "ada"}


async def test_the_audit_tells_the_story_in_order(world: World) -> None:
    @workflow(retry=Retry(2, base="1ms"))
    async def order(ctx: Context) -> None:
        await ctx.step("a", lambda: 1)
        await ctx.sleep("1ms")
        await ctx.wait_for_signal(Go)
        if ctx.attempt == 1:
            raise ConnectionError("once")
        await ctx.note("again")

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.signal(Go)
    await handle.result(5)
    audit = (await node.operator.get_execution_detail(handle.id)).audit
    kinds = [entry.kind for entry in audit]
    for kind in ("created", "start_attempt", "step", "sleep", "signal", "retry", "note", "completed"):
        assert kind in kinds
    expected = ["created", "start_attempt", "step", "sleep", "signal", "wait_for_signal", "retry"]
    assert kinds == [*expected, "start_attempt", "note", "completed"]
    assert [entry.at for entry in audit] == sorted(entry.at for entry in audit)


async def test_what_a_handle_shows_is_refused_in_a_body(world: World) -> None:
    """It would differ on a replay."""

    @workflow
    async def child(ctx: Context) -> None: ...

    @workflow
    async def order(ctx: Context) -> str:
        handle = await ctx.start(child)
        with pytest.raises(Exception, match="replay"):
            await handle.status()
        with pytest.raises(Exception, match="replay"):
            await handle.value("x")
        return "refused"

    node = await world.node(order, child)
    assert await node.start_and_wait(order, timeout=5) == "refused"


async def test_not_serializable_names_what_cannot_be_stored(world: World) -> None:
    @workflow
    async def order(ctx: Context, number: object) -> None: ...

    node = await world.node(order)
    with pytest.raises(NotSerializable, match="order"):
        await node.start(order, object())
