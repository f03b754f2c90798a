"""Schedules: executions that start at their instants, once each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from durable import (
    Batch,
    Concurrency,
    ConfigurationError,
    Context,
    Cron,
    Debounce,
    Durable,
    Every,
    ExecutionStatus,
    InvalidInput,
    ScheduleNotFound,
    workflow,
)
from tests.support import World, of

START = datetime.fromtimestamp(1_700_000_000, UTC)  # 2023-11-14 22:13:20


@workflow
async def report(ctx: Context, what: str) -> str:
    return f"{what} at {ctx.now():%d %H:%M:%S}"


@workflow
async def slow(ctx: Context) -> None:
    await ctx.sleep("150m")


async def results(node: Durable, name: str = "report") -> list[object]:
    """Of all executions of a workflow, the oldest first."""
    page = await node.operator.list_executions(workflow=name, limit=1000)
    return [execution.result for execution in reversed(page.items)]


async def began(node: Durable, name: str) -> list[str]:
    page = await node.operator.list_executions(workflow=name, limit=1000)
    started = [execution.started_at for execution in reversed(page.items)]
    return [f"{at:%H:%M}" if at else "-" for at in started]


async def test_cron_starts_an_execution_at_each_of_its_instants(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    schedule = await node.ensure_schedule(report, "x", id="daily", cron="0 9 * * *", tz="America/New_York")
    assert schedule.next_fire_at == datetime(2023, 11, 15, 14, tzinfo=UTC)
    await still_world.advance("3d")
    assert await results(node) == ["x at 15 14:00:00", "x at 16 14:00:00", "x at 17 14:00:00"]
    schedule = await node.get_schedule("daily")
    assert schedule.last_fire_at == datetime(2023, 11, 17, 14, tzinfo=UTC)
    assert (schedule.workflow, schedule.cron, schedule.input) == ("report", "0 9 * * *", "x")


async def test_an_expression_of_six_fields_begins_with_the_seconds(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    await node.ensure_schedule(report, "x", id="often", cron="*/20 * 22 * * TUE")
    await node.ensure_schedule(report, "y", id="hourly", cron="@hourly")
    await still_world.advance("47m")
    found = await results(node)
    assert found[:2] == ["x at 14 22:13:40", "x at 14 22:14:00"]
    assert len(found) == 139 + 1
    assert found[-1] == "y at 14 23:00:00"


async def test_an_interval_fires_first_one_interval_from_now_and_does_not_drift(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    await node.ensure_schedule(report, "x", id="often", interval="7s")
    await still_world.advance("6s")
    assert await results(node) == []
    await still_world.advance("64s")
    assert len(await results(node)) == 10
    assert (await node.get_schedule("often")).next_fire_at == START + timedelta(seconds=77)


async def test_an_unchanged_schedule_never_moves_its_next_fire(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    first = await node.ensure_schedule(report, "x", id="often", interval="1h")
    await still_world.advance("40m")
    node = await still_world.restart()
    assert await node.ensure_schedule(report, "x", id="often", interval="1h") == first
    changed = await node.ensure_schedule(report, "y", id="often", interval="1h")
    assert (changed.input, changed.next_fire_at) == ("y", first.next_fire_at)
    await still_world.advance("20m")
    assert await results(node) == ["y at 14 23:13:20"]


async def test_a_changed_schedule_does_not_fire_at_once(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    await node.ensure_schedule(report, "x", id="s", interval="1h")
    await still_world.advance("50m")
    changed = await node.ensure_schedule(report, "x", id="s", interval="30m")
    assert changed.next_fire_at == START + timedelta(minutes=80)
    await still_world.advance("20m")
    assert await results(node) == []


async def test_times_in_on_are_registered_by_any_process_and_go_when_they_go(still_world: World) -> None:
    @workflow(on=[Every("30s"), Cron("0 0 * * *")])
    async def tick(ctx: Context) -> None: ...

    @workflow(name="tick")
    async def quiet(ctx: Context) -> None: ...

    node = await still_world.node(tick, worker=False)
    assert [schedule.id for schedule in await node.list_schedules()] == ["tick:on:0", "tick:on:1"]
    await still_world.node(tick, sweep=3600)
    await still_world.advance("95s")
    assert len(await results(node, "tick")) == 3
    node = await still_world.restart(quiet)
    assert await node.list_schedules() == []


@pytest.mark.parametrize(("catchup", "expected"), [("latest", [3]), ("none", []), ("all", [1, 2, 3])])
async def test_what_was_missed_is_made_up_for_as_it_says(
    still_world: World, catchup: Any, expected: list[int]
) -> None:
    node = await still_world.node(report, worker=False)
    await node.ensure_schedule(report, "x", id="hourly", interval="1h", catchup=catchup)
    clock: Any = still_world.clock
    clock.advance_to(clock.now_ms() + 3 * 3_600_000 + 1_800_000)
    node = await still_world.node(report, sweep=3600)
    await still_world.until_idle()
    ids = [execution.id[-16:] for execution in reversed((await node.operator.list_executions()).items)]
    assert ids == [f"{START + timedelta(hours=hour):%Y%m%dT%H%M%SZ}" for hour in expected]
    assert (await node.get_schedule("hourly")).next_fire_at == START + timedelta(hours=4)


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("allow", ["23:13", "00:13", "01:13", "02:13", "03:13"]),
        ("skip", ["23:13", "02:13"]),
        ("queue", ["23:13", "01:43", "04:13", "06:43", "09:13"]),
    ],
)
async def test_what_overlaps_is_allowed_skipped_or_waits_as_it_says(
    still_world: World, overlap: Any, expected: list[str]
) -> None:
    node = await still_world.node(slow, sweep=3600)
    await node.ensure_schedule(slow, id="s", interval="1h", overlap=overlap)
    await still_world.advance("330m")
    await node.remove_schedule("s")
    await still_world.advance("12h")
    assert await began(node, "slow") == expected


async def test_a_paused_one_starts_nothing_and_catches_up_on_nothing(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    await node.ensure_schedule(report, "x", id="hourly", interval="1h", catchup="all")
    await node.pause_schedule("hourly")
    paused = await node.ensure_schedule(report, "x", id="hourly", interval="1h", catchup="all")
    assert (paused.paused, paused.next_fire_at) == (True, None)
    await still_world.advance("330m")
    await node.resume_schedule("hourly")
    assert (await node.get_schedule("hourly")).next_fire_at == START + timedelta(hours=6)
    assert await results(node) == []
    await still_world.advance("1h")
    assert len(await results(node)) == 1


async def test_jitter_delays_a_tick_and_never_moves_it_twice(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    await node.ensure_schedule(report, "x", id="hourly", interval="1h", jitter="10m")
    await still_world.advance("375m")
    page = await node.operator.list_executions()
    delays = [
        (each.started_at - START).total_seconds() % 3600 for each in page.items if each.started_at is not None
    ]
    assert len(delays) == 6
    assert all(0 <= delay <= 600 for delay in delays)
    assert len(set(delays)) > 1


async def test_one_is_triggered_out_of_turn_updated_and_removed(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    before = await node.ensure_schedule(report, "x", id="daily", cron="@daily")
    handle = await node.trigger_schedule("daily")
    assert await handle.result(1) == "x at 14 22:13:20"
    assert await node.get_schedule("daily") == before
    updated = await node.update_schedule("daily", input="y", cron="0 23 * * *")
    assert updated.next_fire_at == datetime(2023, 11, 14, 23, tzinfo=UTC)
    assert await node.next_fires("daily", 2) == [datetime(2023, 11, day, 23, tzinfo=UTC) for day in (14, 15)]
    await still_world.advance("1h")
    assert (await results(node))[-1] == "y at 14 23:00:00"
    await node.remove_schedule("daily")
    await still_world.advance("2d")
    assert len(await results(node)) == 2
    with pytest.raises(ScheduleNotFound):
        await node.get_schedule("daily")


async def test_an_update_moves_the_next_fire_only_if_it_changes_the_rule(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    before = await node.ensure_schedule(report, "x", id="s", interval="1h")
    await still_world.advance("50m")
    same = await node.update_schedule("s", input="y", overlap="skip", catchup="all", interval="60m")
    assert (same.input, same.overlap, same.catchup) == ("y", "skip", "all")
    assert same.next_fire_at == before.next_fire_at
    changed = await node.update_schedule("s", interval="55m")
    assert changed.next_fire_at == START + timedelta(minutes=105)
    with pytest.raises(InvalidInput):
        await node.update_schedule("s", cron="61 * * * *")
    assert await node.get_schedule("s") == changed
    assert await results(node) == []


async def test_a_backfill_of_very_many_instants_is_refused_and_starts_none(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    await node.ensure_schedule(report, "x", id="s", interval="1s")
    with pytest.raises(InvalidInput, match="1,000"):
        await node.backfill_schedule("s", since=START, until=START + timedelta(seconds=1001))
    assert await results(node) == []


async def test_a_range_is_backfilled_with_what_is_not_there(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    await node.ensure_schedule(report, "x", id="hourly", cron="@hourly")
    await still_world.advance("2h")
    since = datetime(2023, 11, 14, 20, tzinfo=UTC)
    handles = await node.backfill_schedule("hourly", since=since, until=since + timedelta(hours=4))
    assert [handle.created for handle in handles] == [True, True, True, False, False]
    await still_world.until_idle()
    assert len(await results(node)) == 5


@pytest.mark.parametrize(
    "rule", [{"debounce": Debounce("5s")}, {"batch": Batch(3, every="5s")}], ids=["debounce", "batch"]
)
async def test_each_instant_starts_one_of_a_workflow_whose_starts_join(
    still_world: World, rule: dict[str, Any]
) -> None:
    @workflow(**rule)
    async def joins(ctx: Context, items: list[int]) -> int:
        return len(items)

    node = await still_world.node(joins, sweep=3600)
    await node.ensure_schedule(joins, [1], id="a-long-enough-name", interval="1m")
    await still_world.advance("190s")
    assert await results(node, "joins") == [1, 1, 1]


@pytest.mark.parametrize("options", [{"jitter": "1m"}, {"overlap": "skip"}, {"overlap": "queue"}], ids=str)
async def test_what_means_nothing_to_starts_that_join_is_refused_and_both_are_named(
    still_world: World, options: dict[str, Any]
) -> None:
    @workflow(batch=Batch(3, every="5s"))
    async def joins(ctx: Context, items: list[int]) -> int:
        return len(items)

    node = await still_world.node(joins)
    with pytest.raises(ConfigurationError, match=f"joins.*{next(iter(options))}"):
        await node.ensure_schedule(joins, [1], id="s", interval="1m", **options)
    assert await node.list_schedules() == []


async def test_functions_that_decide_see_the_input_as_the_workflow_does(still_world: World) -> None:
    @workflow(concurrency=Concurrency(1, key=lambda day: day.year), priority=lambda day: day.month)
    async def of_a_day(ctx: Context, day: date) -> str:
        return day.isoformat()

    node = await still_world.node(of_a_day, sweep=3600)
    await node.ensure_schedule(of_a_day, date(2024, 2, 29), id="s", interval="1h")
    await still_world.advance("1h")
    await node.trigger_schedule("s")
    await node.backfill_schedule("s", since=START, until=START + timedelta(hours=2))
    await still_world.until_idle()
    page = await node.operator.list_executions()
    assert [(each.result, each.priority) for each in page.items] == [("2024-02-29", 2)] * 3


async def test_a_one_off_runs_once_and_can_be_waited_for(still_world: World) -> None:
    node = await still_world.node(report, sweep=3600)
    at = await node.schedule(report, "at", at=START + timedelta(hours=1))
    delayed = await node.schedule(report, "delay", delay="2h")
    await still_world.advance("59m")
    assert (await at.status()).status is ExecutionStatus.PENDING
    await still_world.advance("61m")
    assert await at.result(1) == "at at 14 23:13:20"
    assert await delayed.result(1) == "delay at 15 00:13:20"


async def test_of_many_processes_one_starts_each_instant(world: World) -> None:
    nodes = [await world.node(report, sweep=0.1) for _ in range(4)]
    for node in nodes:
        await node.ensure_schedule(report, "x", id="fast", interval="100ms")
    await of(nodes[0], "report", 6)
    await nodes[0].remove_schedule("fast")
    ids = [execution.id for execution in (await nodes[0].operator.list_executions(limit=100)).items]
    assert len(set(ids)) == len(ids)
    instants = sorted(_instant_of(id) for id in ids)
    assert all(later - earlier >= timedelta(milliseconds=100) for earlier, later in pairwise(instants))


def _instant_of(id: str) -> datetime:
    form = "%Y%m%dT%H%M%S.%fZ" if "." in id else "%Y%m%dT%H%M%SZ"
    return datetime.strptime(id.partition(":")[2], form).replace(tzinfo=UTC)


_BAD: list[Any] = [
    lambda node: node.ensure_schedule(report, "x", id="s"),
    lambda node: node.ensure_schedule(report, "x", id="s", cron="@daily", interval="1h"),
    lambda node: node.ensure_schedule(report, "x", id="s", cron="61 * * * *"),
    lambda node: node.ensure_schedule(report, "x", id="s", cron="0 0 30 2 *"),
    lambda node: node.ensure_schedule(report, "x", id="s", cron="@daily", tz="Mars/Olympus"),
    lambda node: node.ensure_schedule(report, "x", id="s", interval="0s"),
    lambda node: node.ensure_schedule(report, "x", id="s", interval="1h", catchup="some"),
    lambda node: node.ensure_schedule(report, "x", id="s", interval="1h", overlap="crash"),
    lambda node: node.ensure_schedule(report, 5, id="s", interval="1h"),
    lambda node: node.ensure_schedule(report, "x", id="} {", interval="1h"),
    lambda node: node.schedule(report, "x", at=START, delay="1s"),
    lambda node: node.schedule(report, "x", at=datetime(2030, 1, 1), delay="1s"),  # noqa: DTZ001
]


@pytest.mark.parametrize("ensure", _BAD, ids=range(len(_BAD)))
async def test_bad_input_is_refused_before_anything_is_stored(
    still_world: World, ensure: Callable[[Durable], Any]
) -> None:
    node = await still_world.node(report)
    with pytest.raises(InvalidInput):
        await ensure(node)
    assert await node.list_schedules() == []


async def test_an_id_stays_with_its_workflow(still_world: World) -> None:
    node = await still_world.node(report, slow)
    await node.ensure_schedule(report, "x", id="s", interval="1h")
    with pytest.raises(ConfigurationError, match="report"):
        await node.ensure_schedule(slow, id="s", interval="1h")


@pytest.mark.parametrize(
    "verb", ["pause_schedule", "resume_schedule", "get_schedule", "remove_schedule", "trigger_schedule"]
)
async def test_a_schedule_that_is_not_there_is_not_found(still_world: World, verb: str) -> None:
    node = await still_world.node(report)
    with pytest.raises(ScheduleNotFound, match="nothing"):
        await getattr(node, verb)("nothing")


def test_a_time_gives_no_input() -> None:
    @workflow(on=[Cron("@daily")])
    async def hungry(ctx: Context, what: str) -> None: ...

    with pytest.raises(ConfigurationError, match="hungry"):
        Durable([hungry], store="memory://")
