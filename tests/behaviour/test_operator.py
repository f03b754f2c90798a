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


async def test_explain_says_whether_anybody_is_there_to_run_it(world: World) -> None:
    node = await world.node(patient, worker=False)
    handle = await node.start(patient, 1, queue="letters")
    nobody = "no worker runs patient version 1 from queue 'letters'"
    assert await node.operator.explain(handle.id) == nobody
    await world.node(patient)
    other = await world.node(broken, queues=["letters"])
    assert await node.operator.explain(handle.id) == nobody
    await other.operator.pause_queue("letters")
    await world.node(patient, queues=["letters"])
    assert "paused" in await node.operator.explain(handle.id)
    await other.operator.resume_queue("letters")
    await reaches(handle, "waiting")


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


# ---- many at once


async def test_bulk_acts_on_what_matches_and_shows_it_first_in_a_dry_run(world: World) -> None:
    node = await world.node(patient, asleep, broken)
    waiting = [await node.start(patient, n, tags={"tenant": "a"}) for n in range(3)]
    other = await node.start(patient, 9, tags={"tenant": "b"})
    failed = await node.start(broken, tags={"tenant": "a"})
    for handle in (*waiting, other):
        await reaches(handle, "waiting")
    await ends(failed)
    op = node.operator
    preview = await op.bulk("cancel", tags={"tenant": "a"}, dry_run=True)
    assert set(preview.done) == {handle.id for handle in waiting}
    assert (preview.refused, preview.dry_run) == ({}, True)
    assert (await waiting[0].status()).status == "waiting"

    report = await op.bulk("cancel", tags={"tenant": "a"}, reason="spring clean", by="ada")
    assert (set(report.done), report.dry_run) == (set(preview.done), False)
    for handle in waiting:
        ended = await ends(handle)
        assert ended.status == "cancelled"
        assert ended.error is not None
        assert ended.error.message == "spring clean"
    cancel = [e for e in (await op.get_execution_detail(waiting[0].id)).audit if e.kind == "cancel"]
    assert [(entry.details["reason"], entry.details["by"]) for entry in cancel] == [("spring clean", "ada")]
    assert (await other.status()).status == "waiting"


async def test_bulk_says_what_it_did_not_do_and_why(world: World) -> None:
    node = await world.node(patient, broken)
    done = await node.start(patient, 1)
    await done.signal(Go)
    await done.result(5)
    failed = await node.start(broken)
    await ends(failed)
    report = await node.operator.bulk("retry", status=["completed", "failed"], by="ada")
    assert report.done == [failed.id]
    assert list(report.refused) == [done.id]
    assert "completed" in report.refused[done.id]


async def test_bulk_pauses_resumes_reruns_and_keeps_to_its_limit(world: World) -> None:
    node = await world.node(patient)
    handles = [await node.start(patient, n) for n in range(5)]
    for handle in handles:
        await reaches(handle, "waiting")
    op = node.operator
    paused = (await op.bulk("pause", workflow="patient", limit=2)).done
    assert len(paused) == 2
    for id in paused:
        await reaches(node.handle(id, patient), "paused")
    assert set((await op.bulk("resume", workflow="patient")).done) == set(paused)
    for handle in handles:
        await reaches(handle, "waiting")
    assert len((await op.bulk("rerun", workflow="patient", status="waiting")).done) == 5
    assert len((await op.list_executions(workflow="patient")).items) == 10


@pytest.mark.parametrize(
    ("verb", "filters", "message"),
    [
        ("explode", {"workflow": "patient"}, "no act"),
        ("cancel", {}, "all executions"),
        ("cancel", {"workflow": "patient", "limit": 0}, "limit"),
        ("cancel", {"status": "unheard-of"}, "unknown status"),
    ],
    ids=str,
)
async def test_bulk_refuses_what_it_cannot_mean(
    world: World, verb: str, filters: dict[str, object], message: str
) -> None:
    node = await world.node(patient)
    handle = await node.start(patient, 1)
    await reaches(handle, "waiting")
    with pytest.raises(InvalidInput, match=message):
        await node.operator.bulk(verb, **filters)  # type: ignore[arg-type]
    assert (await handle.status()).status == "waiting"


async def test_prune_shows_first_what_it_would_delete(still_world: World) -> None:
    node = await still_world.node(patient, broken)
    for n in range(3):
        handle = await node.start(patient, n)
        await handle.signal(Go)
    await node.start(broken)
    await still_world.advance("31d")
    recent = await node.start(broken)
    await still_world.until_idle()
    op = node.operator
    assert await op.prune(older_than="30d", dry_run=True) == 4
    assert await op.prune(older_than="30d", status="completed", dry_run=True) == 3
    assert await op.prune(older_than="30d", dry_run=True, limit=2) == 2
    assert await op.prune(older_than="30d", status="completed") == 3
    assert await op.prune(older_than="30d") == 1
    assert (await recent.status()).status == "failed"


async def test_an_act_that_races_with_the_end_opens_nothing_again(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient, 1)
    await reaches(handle, "waiting")
    op = node.operator
    row = await op._row(handle.id)  # what the operator has seen before
    await handle.signal(Go)
    await handle.result(5)
    with pytest.raises(WrongStatus, match="completed"):
        await op._act(row, "force_fail", "ada", {"reason": "too late"})
    assert (await handle.status()).status == "completed"


async def test_the_step_that_failed_a_run_is_told_with_its_error(world: World) -> None:
    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        await ctx.gather(ctx.step("fine", lambda: 1), ctx.step("charge", lambda: 1 // 0))

    node = await world.node(order)
    error = (await ends(await node.start(order))).error
    assert error is not None
    assert error.step_id is not None
    assert error.step_id.endswith("charge")
