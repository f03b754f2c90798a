"""Steps: run once, however often the workflow is replayed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from durable import (
    Context,
    ExecutionFailed,
    Fail,
    InvalidInput,
    Retry,
    RetryAfter,
    Signal,
    StepFailed,
    StepTimeout,
    current_step,
    step,
    workflow,
)
from tests.support import World, ends, reaches, steps, until

Go = Signal("go")
QUICK = Retry(attempts=3, base="1ms", jitter=0)


class CardDeclined(Exception):
    """Can be found by its name and rebuilt from its arguments."""


async def test_a_step_runs_once_however_often_the_workflow_is_replayed(world: World) -> None:
    ran: list[str] = []

    async def did(what: str) -> str:
        ran.append(what)
        return what.upper()

    @workflow
    async def order(ctx: Context) -> list[str]:
        first = await ctx.step("charge", did, "charge")
        await ctx.wait_for_signal(Go)
        return [first, await ctx.step("ship", did, "ship")]

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.handle(handle.id).signal(Go)
    assert await node.handle(handle.id, order).result(5) == ["CHARGE", "SHIP"]
    assert ran == ["charge", "ship"]


async def test_none_is_a_value_like_any_other(world: World) -> None:
    ran: list[int] = []

    @workflow
    async def quiet(ctx: Context) -> bool:
        first = await ctx.step("nothing", lambda: ran.append(1))
        await ctx.wait_for_signal(Go)
        return first is None

    handle = await (await world.node(quiet)).start(quiet)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, quiet).result(5) is True
    assert ran == [1]


async def test_a_workflow_that_returns_nothing_completes_with_none(world: World) -> None:
    @workflow
    async def silent(ctx: Context) -> None: ...

    node = await world.node(silent)
    assert await node.start_and_wait(silent, timeout=5) is None


async def test_a_name_used_again_is_another_checkpoint(world: World) -> None:
    @workflow
    async def loop(ctx: Context) -> list[int]:
        results = []
        for number in range(3):
            results.append(await ctx.step("double", lambda number=number: number * 2))
            await ctx.wait_for_signal(Go)
        return results

    node = await world.node(loop)
    handle = await node.start(loop)
    for _ in range(3):
        await handle.signal(Go)
    assert await handle.result(5) == [0, 2, 4]
    assert [id for id in await steps(node, handle) if "double" in id] == ["double", "double#2", "double#3"]


async def test_a_name_that_looks_like_a_second_use_takes_nothing_from_one(world: World) -> None:
    @workflow
    async def confusing(ctx: Context) -> list[int]:
        return [
            await ctx.step("a#2", lambda: 1),
            await ctx.step("a", lambda: 2),
            await ctx.step("a", lambda: 3),
            await ctx.step("a#2", lambda: 4),
        ]

    node = await world.node(confusing)
    handle = await node.start(confusing)
    assert await handle.result(5) == [1, 2, 3, 4]
    assert len(await steps(node, handle)) == 4


async def test_a_decorated_step_is_known_by_its_name(world: World) -> None:
    @step
    async def reserve(items: list[str]) -> int:
        return len(items)

    @step(name="pay")
    def charge(amount: int) -> int:
        return amount

    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.step(reserve, ["a", "b"]) + await ctx.step(charge, 5)

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == 7
    assert list(await steps(node, handle)) == ["reserve", "pay"]


async def test_a_sync_step_runs_in_a_thread_and_knows_itself(world: World) -> None:
    main = threading.get_ident()

    def where() -> tuple[bool, str]:
        return threading.get_ident() != main, current_step().step_id

    @workflow
    async def threaded(ctx: Context) -> tuple[bool, str]:
        return await ctx.step("there", where)

    node = await world.node(threaded)
    assert await node.start_and_wait(threaded, timeout=5) == (True, "there")


async def test_partials_methods_lambdas_of_coroutines_and_callables_are_functions_too(world: World) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    class Adder:
        async def __call__(self, a: int) -> int:
            return a + 30

        async def add(self, a: int) -> int:
            return a + 40

    @workflow
    async def all_kinds(ctx: Context) -> list[int]:
        return [
            await ctx.step("partial", partial(add, 1), 10),
            await ctx.step("lambda", lambda: add(1, 20)),
            await ctx.step("callable", Adder(), 1),
            await ctx.step("method", Adder().add, 1),
            await ctx.step("keyword", add, a=1, b=50),
        ]

    node = await world.node(all_kinds)
    assert await node.start_and_wait(all_kinds, timeout=5) == [11, 21, 31, 41, 51]


async def test_a_step_body_knows_its_execution_its_try_and_its_idempotency_key(world: World) -> None:
    keys: list[str] = []

    async def flaky() -> dict[str, object]:
        info = current_step()
        keys.append(info.idempotency_key)
        if info.attempt < 3:
            raise ConnectionError
        return {"execution": info.execution_id, "step": info.step_id, "attempt": info.attempt}

    @workflow
    async def order(ctx: Context) -> list[dict[str, object]]:
        return [
            await ctx.step("pay", retry=QUICK).up(flaky),
            await ctx.step("pay", retry=QUICK).up(flaky),
        ]

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == [
        {"execution": handle.id, "step": "pay", "attempt": 3},
        {"execution": handle.id, "step": "pay#2", "attempt": 3},
    ]
    assert len(keys) == 6
    assert len(set(keys)) == 2


# ---- errors


async def test_an_error_reaches_the_body_as_itself_first_and_on_replay(world: World) -> None:
    seen: list[object] = []

    async def decline() -> None:
        raise CardDeclined("no funds", 42)

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.step("charge", decline)
        except CardDeclined as error:
            seen.append(error.args)
        await ctx.wait_for_signal(Go)
        return "declined"

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "declined"
    assert set(map(repr, seen)) == {"('no funds', 42)"}
    assert len(seen) >= 2


async def test_an_error_that_cannot_be_rebuilt_reaches_the_body_as_step_failed(world: World) -> None:
    seen: list[tuple[str, str]] = []

    class Local(Exception):
        pass

    async def fail() -> None:
        raise Local("of this test")

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.step("charge", fail)
        except StepFailed as error:
            seen.append((error.error_type.rpartition(".")[2], error.message))
        await ctx.wait_for_signal(Go)
        return "failed"

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "failed"
    assert set(seen) == {("Local", "of this test")}


async def test_the_cause_of_a_failure_is_shown_the_first_time(world: World) -> None:
    causes: list[BaseException | None] = []

    async def decline() -> None:
        raise CardDeclined("no funds")

    @workflow
    async def order(ctx: Context) -> None:
        try:
            await ctx.step("charge", decline)
        except CardDeclined as error:
            causes.append(error.__cause__)

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    assert isinstance(causes[0], CardDeclined)


# ---- retries


def failing(times: int, error: Callable[[], Exception] = ConnectionError) -> Callable[[], int]:
    calls = 0

    def flaky() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error()
        return calls

    return flaky


async def test_a_step_is_tried_as_often_as_its_policy_says(world: World) -> None:
    flaky = failing(2)

    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.step("flaky", retry=QUICK).up(flaky)

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == 3
    assert (await handle.status()).attempt == 1
    assert (await steps(node, handle))["flaky"].attempts == 3


async def test_the_last_error_reaches_the_body_when_all_tries_have_failed(world: World) -> None:
    flaky = failing(3)

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.step("flaky", retry=QUICK).up(flaky)
        except ConnectionError:
            return "gave up"
        return "?"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "gave up"
    assert flaky() == 4


async def test_a_step_is_tried_once_by_itself(world: World) -> None:
    flaky = failing(1)

    @workflow(retry=1)
    async def order(ctx: Context) -> int:
        return await ctx.step("flaky", flaky)

    node = await world.node(order)
    with pytest.raises(ExecutionFailed) as failed:
        await node.start_and_wait(order, timeout=5)
    assert failed.value.error_type.endswith("ConnectionError")
    assert flaky() == 2


async def test_only_the_errors_of_the_policy_are_tried_again(world: World) -> None:
    flaky = failing(5, ValueError)

    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        with pytest.raises(ValueError):  # noqa: PT011
            await ctx.step("flaky", retry=Retry(5, base=0, on=[ConnectionError])).up(flaky)

    node = await world.node(order)
    await node.start_and_wait(order, timeout=5)
    with pytest.raises(ValueError):  # noqa: PT011
        [flaky() for _ in range(4)]


async def test_a_fail_is_never_tried_again_and_fails_the_run_with_its_code_and_details(world: World) -> None:
    calls: list[int] = []

    async def charge() -> None:
        calls.append(1)
        raise Fail("card declined", code="declined", details={"limit": 100})

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("charge", retry=QUICK).up(charge)

    node = await world.node(order)
    with pytest.raises(ExecutionFailed, match="card declined") as failed:
        await node.start_and_wait(order, timeout=5)
    assert failed.value.code == "declined"
    assert failed.value.details == {"limit": 100}
    assert failed.value.attempt == 1
    assert calls == [1]


async def test_a_fail_that_the_body_catches_is_an_error_like_any_other(world: World) -> None:
    async def charge() -> None:
        raise Fail("card declined", code="declined")

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.step("charge", charge)
        except Fail as error:
            return error.code
        return "?"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "declined"


async def test_the_delay_between_tries_is_durable_and_holds_no_slot(still_world: World) -> None:
    calls: list[int] = []

    async def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return len(calls)

    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.step("flaky", retry=Retry(3, base="1h", cap="1d", jitter=0)).up(flaky)

    node = await still_world.node(order, concurrency=1)
    handle = await node.start(order)
    await still_world.until_idle()
    execution = await handle.status()
    assert execution.status == "retrying"
    assert execution.wake_at is not None
    assert node.worker.dispatcher.active == 0
    await still_world.advance("59m")
    assert len(calls) == 1
    await still_world.advance("1m")
    assert len(calls) == 2
    node = await still_world.restart()
    await still_world.advance("119m")
    assert len(calls) == 2
    await still_world.advance("1m")
    assert await node.handle(handle.id, order).result(5) == 3


async def test_the_count_of_tries_survives_a_restart(still_world: World) -> None:
    tries: list[int] = []

    async def flaky() -> None:
        tries.append(current_step().attempt)
        raise ConnectionError

    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        await ctx.step("flaky", retry=Retry(4, base="1m", factor=1, jitter=0)).up(flaky)

    handle = await (await still_world.node(order)).start(order)
    for _ in range(3):
        await still_world.until_idle()
        await still_world.restart()
        await still_world.advance("1m")
    assert tries == [1, 2, 3, 4]
    node = await still_world.restart()
    assert (await node.status(handle.id)).status == "failed"


async def test_retry_after_sets_the_next_delay(still_world: World) -> None:
    flaky = failing(1, lambda: RetryAfter("10s"))

    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.step("flaky", retry=Retry(3, base="1h")).up(flaky)

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("9s")
    assert (await handle.status()).status == "retrying"
    await still_world.advance("1s")
    assert await handle.result(5) == 2


# ---- timeouts


async def test_a_step_that_takes_too_long_is_cancelled_and_tried_again(still_world: World) -> None:
    cancelled: list[int] = []

    async def slow() -> str:
        if current_step().attempt < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(current_step().attempt)
                raise
        return "at last"

    @workflow
    async def order(ctx: Context) -> str:
        return await ctx.step("slow", retry=Retry(3, base=0), timeout="10s").up(slow)

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("10s")
    await still_world.advance("10s")
    assert await handle.result(5) == "at last"
    assert cancelled == [1, 2]


async def test_a_step_timeout_reaches_the_body_and_does_not_end_the_execution(still_world: World) -> None:
    seen: list[timedelta] = []

    async def slow() -> None:
        await asyncio.Event().wait()

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.step("slow", timeout="10s").up(slow)
        except StepTimeout as error:
            seen.append(error.timeout)
        await ctx.wait_for_signal(Go)
        return "went on"

    handle = await (await still_world.node(order)).start(order)
    await still_world.advance("10s")
    node = await still_world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "went on"
    assert set(seen) == {timedelta(seconds=10)}


async def test_a_sync_step_that_takes_too_long_counts_as_timed_out(world: World) -> None:
    release = threading.Event()

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.step("slow", timeout=0.05).up(lambda: release.wait(5))
        except StepTimeout:
            return "timed out"
        return "?"

    node = await world.node(order)
    try:
        assert await node.start_and_wait(order, timeout=5) == "timed out"
    finally:
        release.set()


# ---- ids


@pytest.mark.parametrize("id", ["__mine", "rollback:mine", "with space", "", "ö", "x" * 201, "a\nb", "#1/x"])
async def test_reserved_and_hostile_ids_are_refused(world: World, id: str) -> None:
    refused: list[str] = []

    @workflow(retry=1)
    async def child(ctx: Context) -> None: ...

    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        for name, call in {
            "step": lambda: ctx.step(id, lambda: 1),
            "builder": lambda: ctx.step(id, retry=1),
            "map": lambda: ctx.map(id, str, [1]),
            "switch": lambda: ctx.switch(id, 1, {1: lambda: 1}),
            "sleep": lambda: ctx.sleep(1, id=id),
            "wait": lambda: ctx.wait_for_signal(Go, id=id),
            "start": lambda: ctx.start(child, id=id),
            "run": lambda: ctx.run(child, id=id),
            "patched": lambda: ctx.patched(id),
            "value": lambda: ctx.set_value(id, 1),
        }.items():
            with pytest.raises(InvalidInput):
                call()
            refused.append(name)

    node = await world.node(order, child)
    handle = await node.start(order)
    assert await handle.result(5) is None
    assert len(refused) == 10
    assert await steps(node, handle) == {}


async def test_cancelling_a_step_stops_its_tries_and_drops_its_late_result(world: World) -> None:
    begun, seen = asyncio.Event(), []

    async def stubborn() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(current_step().cancelled)
        return "too late"

    @workflow
    async def order(ctx: Context) -> str:
        return await ctx.step("stubborn", retry=QUICK).up(stubborn)

    node = await world.node(order)
    handle = await node.start(order)
    await until(begun.is_set)
    await handle.cancel("enough")
    assert (await ends(handle)).status == "cancelled"
    assert seen == [True]
    assert "stubborn" not in await steps(node, handle)
