"""`on_failure`: an execution of its own for each one that fails for good, told how and where it did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from durable import Context, ExecutionStatus, Fail, Failure, Retry, Signal, workflow
from tests.support import World, ends, of, reaches

Go = Signal("go")
told: list[Failure] = []
tries: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_told() -> Iterator[None]:
    yield
    told.clear()
    tries.clear()


def note(failure: Failure) -> None:
    told.append(failure)


def unlucky() -> str:
    tries.append(1)
    if len(tries) < 3:
        raise ConnectionError("no route")
    return "told"


def decline() -> None:
    raise Fail("the card was declined", code="declined", details={"card": 4})


@workflow
async def tell(ctx: Context, failure: Failure) -> str:
    await ctx.step("note", note, failure)
    return await ctx.step("mail", retry=Retry(3, base="1ms")).up(unlucky)


@workflow(retry=Retry(2, base="1ms"), on_failure=tell)
async def pay(ctx: Context, amount: int) -> None:
    await ctx.step("charge", decline)


async def test_who_fails_is_told_once_with_the_error_its_step_and_its_code(world: World) -> None:
    node = await world.node(pay)
    handle = await node.start(pay, 7)
    assert (await ends(handle)).status is ExecutionStatus.FAILED
    [telling] = await of(node, "tell")
    assert (await ends(node.handle(telling.id))).result == "told"
    assert len(tries) == 3
    assert telling.parent_id == handle.id
    [failure] = {each.execution_id: each for each in told}.values()
    assert failure == Failure(
        handle.id, "pay", "charge", "durable.errors.Fail", "the card was declined", "declined", {"card": 4}, 7
    )
    assert len(await of(node, "tell")) == 1


async def test_it_is_told_of_the_last_attempt_only(world: World) -> None:
    @workflow(retry=Retry(3, base="1ms"), on_failure=tell)
    async def stubborn(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise ConnectionError(f"attempt {ctx.attempt}")
        return ctx.attempt

    node = await world.node(stubborn)
    assert await node.start_and_wait(stubborn, timeout=10) == 3
    assert (await node.operator.list_executions(workflow="tell")).items == []


async def test_a_run_that_times_out_or_is_ended_by_an_operator_is_told_too(world: World) -> None:
    @workflow(timeout="100ms", on_failure=tell)
    async def late(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    @workflow(on_failure=tell)
    async def stuck(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await world.node(late, stuck)
    await ends(await node.start(late))
    handle = await node.start(stuck)
    await reaches(handle, "waiting")
    await node.operator.force_fail(handle.id, "enough")
    await ends(handle)
    for telling in await of(node, "tell", 2):
        await ends(node.handle(telling.id))
    assert {failure.workflow: failure.code for failure in told}["late"] == "timeout"
    assert {failure.workflow for failure in told} == {"late", "stuck"}


async def test_a_cancelled_one_is_no_failure(world: World) -> None:
    @workflow(on_failure=tell)
    async def patient(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    await handle.cancel("no more")
    await ends(handle)
    assert (await node.operator.list_executions(workflow="tell")).items == []


async def test_a_failure_that_cannot_be_told_does_not_loop(world: World) -> None:
    @workflow(retry=1)
    async def clumsy(ctx: Context, failure: Failure) -> None:
        raise ConnectionError("no mail today")

    @workflow(retry=1, on_failure=clumsy)
    async def doomed(ctx: Context) -> None:
        raise ConnectionError("no route")

    node = await world.node(doomed)
    await ends(await node.start(doomed))
    [telling] = await of(node, "clumsy")
    assert (await ends(node.handle(telling.id))).status is ExecutionStatus.FAILED
    assert len((await node.operator.list_executions()).items) == 2


async def test_who_fails_again_is_told_again(world: World) -> None:
    node = await world.node(pay)
    handle = await node.start(pay, 1)
    await ends(handle)
    await of(node, "tell", 1)
    await node.operator.retry(handle.id)
    await of(node, "tell", 2)
