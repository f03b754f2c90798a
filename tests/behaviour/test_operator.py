"""The operator: questions that need nothing but the store, and acts that mend."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durable import (
    Context,
    ExecutionFailed,
    ExecutionNotFound,
    ExecutionStatus,
    InvalidInput,
    Retry,
    Signal,
    WrongStatus,
    workflow,
)
from tests.support import World, ends, reaches, until

Go = Signal("go")


@workflow
async def patient(ctx: Context, number: int) -> int:
    await ctx.step("work", lambda: number)
    await ctx.wait_for_signal(Go)
    return number


@workflow(retry=1)
async def broken(ctx: Context) -> None:
    raise ConnectionError("no route")


@workflow
async def asleep(ctx: Context) -> None:
    await ctx.sleep("3d", id="cool-down")


async def test_detail_shows_steps_waits_and_signals(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient, 5)
    await reaches(handle, "waiting")
    detail = await node.operator.get_execution_detail(handle.id)
    assert detail.execution == await handle.status()
    work, wait = detail.steps
    assert (work.id, work.kind, work.status, work.attempts, work.result) == (
        "work",
        "step",
        "completed",
        1,
        5,
    )
    assert work.finished_at is not None
    assert work.started_at <= work.finished_at
    assert (wait.id, wait.kind, wait.status, wait.finished_at) == ("go", "wait_for_signal", "open", None)
    assert [w.id for w in detail.waits] == ["go"]
    await handle.signal(Go)
    await handle.result(5)
    assert (await node.operator.get_execution_detail(handle.id)).waits == ()


@pytest.mark.parametrize("started", [patient, asleep], ids=lambda w: w.name)
async def test_explain_says_what_it_waits_for(still_world: World, started: object) -> None:
    node = await still_world.node(patient, asleep)
    handle = await node.start(started, *([1] if started is patient else []))  # type: ignore[call-overload]
    await still_world.until_idle()
    sentence = await node.operator.explain(handle.id)
    assert ("signal 'go'" if started is patient else "cool-down") in sentence
    if started is asleep:
        assert "2023-11-17" in sentence


async def test_explain_of_what_has_ended_says_how(world: World) -> None:
    node = await world.node(broken)
    handle = await node.start(broken)
    await ends(handle)
    assert "no route" in await node.operator.explain(handle.id)


async def test_lists_are_filtered_paged_and_newest_first(world: World) -> None:
    node = await world.node(patient, broken)
    before = datetime.now(UTC) - timedelta(minutes=1)
    handles = []
    for n in range(7):
        handles.append(await node.start(patient, n, tags={"parity": "odd" if n % 2 else "even"}))
        next_at = datetime.now(UTC) + timedelta(milliseconds=1)  # of two of one millisecond none is newer
        await until(lambda next_at=next_at: datetime.now(UTC) > next_at)
    failed = await node.start(broken)
    await ends(failed)
    for handle in handles:
        await reaches(handle, "waiting")
    op = node.operator

    found, cursor = [], None
    while True:
        page = await op.list_executions(workflow="patient", limit=3, cursor=cursor)
        found += [execution.id for execution in page.items]
        assert len(page.items) <= 3
        if (cursor := page.cursor) is None:
            break
    assert found == [handle.id for handle in reversed(handles)]

    odd = (await op.list_executions(tags={"parity": "odd"})).items
    assert [execution.input for execution in odd] == [5, 3, 1]
    assert [e.id for e in (await op.list_executions(status="failed")).items] == [failed.id]
    assert len((await op.list_executions(status=["failed", ExecutionStatus.WAITING])).items) == 8
    assert len((await op.list_executions(since=before)).items) == 8
    assert (await op.list_executions(until=before)).items == []
    assert (await op.list_stuck()).items == []
    counts = await op.counts()
    assert (
        counts[ExecutionStatus.WAITING],
        counts[ExecutionStatus.FAILED],
        counts[ExecutionStatus.PARKED],
    ) == (7, 1, 0)


@pytest.mark.parametrize(
    "question",
    [
        {"limit": 0},
        {"limit": 1001},
        {"status": "unheard-of"},
        {"since": datetime(2024, 1, 1)},  # noqa: DTZ001
        {"cursor": "'; DROP TABLE"},
    ],
    ids=repr,
)
async def test_bad_questions_are_refused(world: World, question: dict[str, object]) -> None:
    node = await world.node(patient)
    await node.start(patient, 1)
    with pytest.raises(InvalidInput):
        await node.operator.list_executions(**question)  # type: ignore[arg-type]


async def test_force_fail_ends_what_goes_on(world: World) -> None:
    node = await world.node(patient, asleep)
    for handle in (await node.start(patient, 1), await node.start(asleep)):
        await reaches(handle, "waiting", "sleeping")
        await node.operator.force_fail(handle.id, "by hand", by="ada")
        with pytest.raises(ExecutionFailed, match="by hand") as failed:
            await handle.result(5)
        assert failed.value.code == "force_failed"
        with pytest.raises(WrongStatus):
            await node.operator.force_fail(handle.id, "again")
    audit = (await node.operator.get_execution_detail(handle.id)).audit
    assert any(entry.kind == "operator" and entry.details.get("by") == "ada" for entry in audit)


async def test_retry_is_for_what_failed_or_is_parked(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient, 1)
    await reaches(handle, "waiting")
    with pytest.raises(WrongStatus, match="waiting"):
        await node.operator.retry(handle.id)
    await handle.signal(Go)
    await handle.result(5)
    with pytest.raises(WrongStatus, match="completed"):
        await node.operator.retry(handle.id)


async def test_a_run_that_used_up_its_attempts_is_tried_again_when_it_is_retried(world: World) -> None:
    ran: list[int] = []

    @workflow(retry=Retry(2, base="1ms"))
    async def flaky(ctx: Context) -> str:
        ran.append(1)
        if len(ran) < 3:
            raise ConnectionError
        return "at last"

    node = await world.node(flaky)
    handle = await node.start(flaky)
    await ends(handle)
    assert len(ran) == 2
    await node.operator.retry(handle.id)
    assert await handle.result(5) == "at last"
    assert len(ran) == 3


async def test_a_timed_out_run_is_retried_without_timing_out_at_once(still_world: World) -> None:
    @workflow(timeout="1h")
    async def slow(ctx: Context) -> str:
        await ctx.wait_for_signal(Go)
        return "in the end"

    node = await still_world.node(slow)
    handle = await node.start(slow)
    await still_world.advance("1h")
    assert (await handle.status()).status == "failed"
    await node.operator.retry(handle.id)
    await still_world.until_idle()
    await handle.signal(Go)
    assert await handle.result(5) == "in the end"


async def test_prune_deletes_what_ended_long_ago_with_all_that_is_its(still_world: World) -> None:
    node = await still_world.node(patient, broken)
    old = await node.start(patient, 1, key="k")
    await old.signal(Go)
    await still_world.until_idle()
    failed = await node.start(broken)
    going = await node.start(patient, 2)
    await still_world.advance("31d")
    recent = await node.start(patient, 3)
    await recent.signal(Go)
    await still_world.until_idle()
    assert await node.operator.prune(older_than="30d", status=["completed"]) == 1
    with pytest.raises(ExecutionNotFound):
        await old.status()
    assert (await failed.status()).status == "failed"
    assert await node.operator.prune(older_than="30d") == 1
    assert (await going.status()).status == "waiting"
    assert (await recent.status()).status == "completed"
    again = await node.start(patient, 9, key="k")
    assert again.created
    with pytest.raises(InvalidInput):
        await node.operator.prune(status=["waiting"])


async def test_a_pruned_execution_is_not_found_by_those_who_wait_for_it(still_world: World) -> None:
    @workflow
    async def follower(ctx: Context, target: str) -> str:
        try:
            await ctx.wait_for(ctx.handle(target, patient))
        except ExecutionNotFound:
            return "gone"
        return "?"

    node = await still_world.node(patient, follower)
    target = await node.start(patient, 1)
    await target.signal(Go)
    await still_world.advance("31d")
    await node.operator.prune()
    assert await node.start_and_wait(follower, target.id, timeout=5) == "gone"
