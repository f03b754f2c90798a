"""Flow control: how many at once, how many in a time, and what is put together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from durable import (
    Batch,
    Concurrency,
    ConfigurationError,
    Context,
    Debounce,
    Durable,
    Event,
    ExecutionCancelled,
    ExecutionStatus,
    Handle,
    InvalidInput,
    RateLimit,
    Signal,
    Throttle,
    step,
    workflow,
)
from tests.support import World, ends, of, reaches, until

Go = Signal("go")
PENDING, COMPLETED, CANCELLED = ExecutionStatus.PENDING, ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED


class Tenant(BaseModel):
    id: str


class Job(BaseModel):
    number: int = 0
    tenant: Tenant = Tenant(id="a")
    urgency: int = 0


class Gauge:
    """Counts what goes on at once, for each key. Until it saw `until` at once, all stay, for 3 s at most."""

    def __init__(self) -> None:
        self.now: dict[object, int] = {}
        self.most: dict[object, int] = {}
        self.order: list[int] = []
        self.until = 0

    def forget(self) -> None:
        self.now.clear()
        self.most.clear()
        self.order.clear()
        self.until = 0

    async def measure(self, job: Job) -> int:
        self.order.append(job.number)
        for key in (job.tenant.id, "all"):
            self.now[key] = self.now.get(key, 0) + 1
            self.most[key] = max(self.most.get(key, 0), self.now[key])
        for _ in range(100):
            await asyncio.sleep(0.03)
            if self.most["all"] >= self.until:
                break
        for key in (job.tenant.id, "all"):
            self.now[key] -= 1
        return job.number


gauge = Gauge()


@pytest.fixture(autouse=True)
def _fresh_gauge() -> None:
    gauge.forget()


async def statuses(handles: list[Handle[Any]]) -> list[ExecutionStatus]:
    return [(await handle.status()).status for handle in handles]


# ---- concurrency


@workflow(concurrency=[Concurrency(2, key="tenant.id"), Concurrency(5, scope="all-jobs")])
async def limited(ctx: Context, job: Job) -> int:
    return await ctx.step("measure", gauge.measure, job)


async def test_limits_per_key_and_in_all_hold_and_are_reached(world: World) -> None:
    gauge.until = 5
    nodes = [await world.node(limited) for _ in range(2)]
    jobs = [Job(number=number, tenant=Tenant(id="abc"[number % 3])) for number in range(40)]
    handles = [await nodes[n % 2].start(limited, job) for n, job in enumerate(jobs)]
    assert [await handle.result(30) for handle in handles] == list(range(40))
    assert gauge.most["all"] == 5
    assert max(gauge.most[tenant] for tenant in "abc") == 2


async def test_a_slot_is_free_while_an_execution_waits(world: World) -> None:
    @workflow(concurrency=Concurrency(1))
    async def patient(ctx: Context, number: int) -> int:
        await ctx.wait_for_signal(Go)
        return number

    node = await world.node(patient)
    handles = [await node.start(patient, number) for number in range(3)]
    for handle in handles:
        await reaches(handle, "waiting")
    for handle in handles:
        await handle.signal(Go)
    assert [await handle.result(10) for handle in handles] == [0, 1, 2]


async def test_a_slot_of_a_run_is_held_to_its_end(world: World) -> None:
    @workflow(concurrency=Concurrency(1, hold="run"))
    async def patient(ctx: Context, number: int) -> int:
        await ctx.wait_for_signal(Go)
        return number

    node = await world.node(patient)
    first, second = [await node.start(patient, number) for number in range(2)]
    await reaches(first, "waiting")
    assert "waits for a slot" in await node.operator.explain(second.id)
    await second.signal(Go)
    assert await statuses([second]) == [PENDING]
    await first.signal(Go)
    assert await first.result(10) == 0
    assert await second.result(10) == 1


async def test_a_new_one_is_cancelled_where_the_rule_says_so(world: World) -> None:
    @workflow(concurrency=Concurrency(1, when_full="cancel_new", hold="run"))
    async def alone(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await world.node(alone)
    first = await node.start(alone)
    await reaches(first, "waiting")
    second = await node.start(alone)
    refused = await ends(second)
    assert (refused.status, refused.code) == (CANCELLED, "concurrency_limited")
    await first.signal(Go)
    await first.result(10)
    assert (await reaches(await node.start(alone), "waiting")).id


async def test_the_oldest_is_cancelled_where_the_rule_says_so(world: World) -> None:
    @workflow(concurrency=Concurrency(1, when_full="cancel_running", hold="run"))
    async def newest(ctx: Context, number: int) -> int:
        await ctx.wait_for_signal(Go)
        return number

    node = await world.node(newest)
    first = await node.start(newest, 1)
    await reaches(first, "waiting")
    second = await node.start(newest, 2)
    replaced = await ends(first)
    assert (replaced.status, replaced.code) == (CANCELLED, "concurrency_limited")
    await reaches(second, "waiting")
    await second.signal(Go)
    assert await second.result(10) == 2


async def test_children_are_limited_as_all_are(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> list[int]:
        return list(await ctx.gather(*[ctx.run(limited, Job(number=n)) for n in range(6)]))

    node = await world.node(parent, limited)
    assert await node.start_and_wait(parent, timeout=30) == list(range(6))
    assert gauge.most["a"] == 2


async def test_workflows_share_the_slots_of_a_scope(world: World) -> None:
    rule = Concurrency(2, key="tenant.id", scope="shared")

    @workflow(concurrency=rule)
    async def one(ctx: Context, job: Job) -> int:
        return await ctx.step("measure", gauge.measure, job)

    @workflow(concurrency=rule)
    async def other(ctx: Context, job: Job) -> int:
        return await ctx.step("measure", gauge.measure, job)

    gauge.until = 2
    nodes = [await world.node(one, other) for _ in range(2)]
    handles = [await nodes[n // 2 % 2].start((one, other)[n % 2], Job(number=n)) for n in range(10)]
    assert [await handle.result(30) for handle in handles] == list(range(10))
    assert gauge.most["a"] == 2


async def test_a_key_with_a_long_line_keeps_no_other_key_waiting(world: World) -> None:
    @workflow(concurrency=Concurrency(1, key="tenant.id"))
    async def of_tenant(ctx: Context, job: Job) -> int:
        if job.tenant.id == "busy":
            await ctx.step("wait", gate.wait)
        return job.number

    gate = asyncio.Event()
    node = await world.node(of_tenant, concurrency=2)
    busy = [await node.start(of_tenant, Job(number=n, tenant=Tenant(id="busy"))) for n in range(30)]
    quiet = [await node.start(of_tenant, Job(number=n, tenant=Tenant(id=f"quiet {n}"))) for n in range(5)]
    assert [await handle.result(10) for handle in quiet] == list(range(5))
    assert (await statuses(busy)).count(COMPLETED) == 0
    gate.set()
    assert [await handle.result(30) for handle in busy] == list(range(30))


async def test_what_is_held_and_cancelled_never_runs(world: World) -> None:
    node = await world.node(limited, worker=False)
    handles = [await node.start(limited, Job(number=number)) for number in range(4)]
    await handles[3].cancel("no more")
    await handles[0].cancel("no more")
    assert await statuses([handles[0], handles[3]]) == [CANCELLED, CANCELLED]
    await world.node(limited)
    assert [await handle.result(10) for handle in handles[1:3]] == [1, 2]
    assert sorted(gauge.order) == [1, 2]


async def test_a_missing_key_groups_under_one_null_key(world: World) -> None:
    @workflow(concurrency=Concurrency(1, key="tenant.id", hold="run"))
    async def loose(ctx: Context, job: dict[str, Any]) -> None:
        await ctx.wait_for_signal(Go)

    node = await world.node(loose)
    first = await node.start(loose, {"tenant": {}})
    await reaches(first, "waiting")
    second, other = await node.start(loose, {}), await node.start(loose, {"tenant": {"id": 1}})
    await reaches(other, "waiting")
    assert await statuses([second]) == [PENDING]
    await first.signal(Go)
    await reaches(second, "waiting")


# ---- rates


async def test_a_throttle_delays_and_loses_nothing(still_world: World) -> None:
    @workflow(throttle=Throttle(2, per="10s"))
    async def paced(ctx: Context, number: int) -> float:
        return ctx.now().timestamp()

    node = await still_world.node(paced, sweep=3600)
    handles = [await node.start(paced, number) for number in range(5)]
    await still_world.until_idle()
    assert await statuses(handles) == [COMPLETED, *[PENDING] * 4]
    assert "throttled" in await node.operator.explain(handles[1].id)
    await still_world.advance("20s")
    began = [await handle.result(1) for handle in handles]
    assert [round(at - began[0], 2) for at in began] == [0, 5, 10, 15, 20]


async def test_a_burst_passes_at_once(still_world: World) -> None:
    @workflow(throttle=Throttle(1, per="10s", burst=2))
    async def bursty(ctx: Context) -> None: ...

    node = await still_world.node(bursty, sweep=3600)
    handles = [await node.start(bursty) for _ in range(4)]
    await still_world.until_idle()
    assert await statuses(handles) == [*[COMPLETED] * 3, PENDING]
    await still_world.advance("10s")
    assert await statuses(handles) == [COMPLETED] * 4


async def test_a_rate_limit_drops_and_records_that_it_did(world: World) -> None:
    @workflow(rate_limit=RateLimit(2, per="1h", key=lambda job: job.tenant.id))
    async def rare(ctx: Context, job: Job) -> int:
        return job.number

    nodes = [await world.node(rare) for _ in range(2)]
    handles = await asyncio.gather(*[nodes[n % 2].start(rare, Job(number=n)) for n in range(10)])
    ended = [await ends(handle) for handle in handles]
    assert sorted(each.status for each in ended) == [*[CANCELLED] * 8, *[COMPLETED] * 2]
    assert {each.code for each in ended if each.status is CANCELLED} == {"rate_limited"}
    dropped = next(handle for handle, each in zip(handles, ended, strict=True) if each.status is CANCELLED)
    with pytest.raises(ExecutionCancelled, match="rate limit"):
        await dropped.result(1)
    other = await nodes[0].start(rare, Job(number=7, tenant=Tenant(id="b")))
    assert await other.result(10) == 7


async def test_of_twenty_events_at_the_same_moment_exactly_as_many_start_as_the_limit_says(
    world: World,
) -> None:
    ordered = Event("ordered", Job)

    @workflow(on=[ordered], rate_limit=RateLimit(3, per="1h", key="tenant.id"))
    async def rare(ctx: Context, job: Job) -> int:
        return job.number

    nodes = [await world.node(rare) for _ in range(2)]
    receipts = await asyncio.gather(*[nodes[n % 2].send(ordered, Job(number=n)) for n in range(20)])
    ended = [await ends(nodes[0].handle(id)) for receipt in receipts for id in receipt.execution_ids]
    assert sorted(each.status for each in ended) == [*[CANCELLED] * 17, *[COMPLETED] * 3]
    assert {each.code for each in ended if each.status is CANCELLED} == {"rate_limited"}


# ---- what is put together


async def test_a_debounced_event_is_the_last_one(still_world: World) -> None:
    changed = Event("changed", Job)

    @workflow(on=[changed], debounce=Debounce("5s", key="tenant.id"))
    async def settled(ctx: Context, job: Job) -> list[object]:
        return [job.number, [cause.id for cause in ctx.events]]

    node = await still_world.node(settled, sweep=3600)
    receipts = []
    for number in range(3):
        receipts.append(await node.send(changed, Job(number=number), id=f"e{number}"))
        await still_world.advance("3s")
    assert len({tuple(receipt.execution_ids) for receipt in receipts}) == 1
    await still_world.advance("2s")
    [settling] = receipts[0].execution_ids
    assert await node.handle(settling).result(1) == [2, ["e2"]]


async def test_a_debounced_start_runs_once_with_the_last_input(still_world: World) -> None:
    @workflow(debounce=Debounce("5s", key="tenant.id"))
    async def settled(ctx: Context, job: Job) -> int:
        return job.number

    node = await still_world.node(settled, sweep=3600)
    handles: list[Handle[int]] = []
    for number in range(3):
        handles.append(await node.start(settled, Job(number=number)))
        await still_world.advance("3s")
    other = await node.start(settled, Job(number=9, tenant=Tenant(id="b")))
    assert [handle.created for handle in handles] == [True, False, False]
    assert len({handle.id for handle in handles}) == 1
    assert other.id != handles[0].id
    await still_world.advance("1s")
    assert await statuses(handles) == [PENDING] * 3
    await still_world.advance("1s")
    assert await handles[0].result(1) == 2
    await still_world.advance("3s")
    assert await other.result(1) == 9


async def test_a_debounced_start_waits_no_longer_than_its_most(still_world: World) -> None:
    @workflow(debounce=Debounce("5s", max_wait="8s"))
    async def settled(ctx: Context, number: int) -> int:
        return number

    node = await still_world.node(settled, sweep=3600)
    first = await node.start(settled, 0)
    for number in (1, 2):
        await still_world.advance("4s")
        again = await node.start(settled, number)
    assert again.id != first.id
    assert await first.result(1) == 1


async def test_a_batch_runs_when_it_is_full_or_old(still_world: World) -> None:
    @workflow(batch=Batch(3, every="4s", key="tenant.id"))
    async def together(ctx: Context, jobs: list[Job]) -> list[int]:
        return [job.number for job in jobs]

    node = await still_world.node(together, sweep=3600)
    handles = [await node.start(together, [Job(number=number)]) for number in range(5)]
    other = await node.start(
        together, [Job(number=8, tenant=Tenant(id="b")), Job(number=9, tenant=Tenant(id="b"))]
    )
    await still_world.until_idle()
    assert await handles[0].result(1) == [0, 1, 2]
    assert await statuses([handles[3], other]) == [PENDING, PENDING]
    assert (await handles[3].status()).input == [
        {"number": n, "tenant": {"id": "a"}, "urgency": 0} for n in (3, 4)
    ]
    await still_world.advance("4s")
    assert await handles[4].result(1) == [3, 4]
    assert await other.result(1) == [8, 9]


async def test_windows_survive_a_restart(world: World) -> None:
    @workflow(batch=Batch(10, every="1.5s"))
    async def together(ctx: Context, numbers: list[int]) -> list[int]:
        return numbers

    @workflow(debounce=Debounce("1.5s"))
    async def settled(ctx: Context, number: int) -> int:
        return number

    @workflow(throttle=Throttle(1, per="1s"))
    async def paced(ctx: Context, number: int) -> int:
        return number

    node = await world.node(together, settled, paced)
    await node.start(together, [1])
    await node.start(settled, 1)
    held = [await node.start(paced, number) for number in range(3)]
    node = await world.restart()
    handle, last = await node.start(together, [2]), await node.start(settled, 2)
    assert [handle.created, last.created] == [False, False]
    assert await handle.result(20) == [1, 2]
    assert await last.result(20) == 2
    paces = [await ends(node.handle(each.id)) for each in held]
    assert [each.result for each in paces] == [0, 1, 2]
    began = [each.started_at.timestamp() for each in paces if each.started_at is not None]
    assert began[2] - began[0] >= 1.9
    assert {name: len(await of(node, name)) for name in ("together", "settled")} == {
        "together": 1,
        "settled": 1,
    }


async def test_a_child_that_joins_is_waited_for_by_all_its_parents(still_world: World) -> None:
    @workflow(batch=Batch(2, every="1h"))
    async def together(ctx: Context, numbers: list[int]) -> list[int]:
        return numbers

    @workflow
    async def parent(ctx: Context, number: int) -> list[int]:
        return await ctx.run(together, [number])

    node = await still_world.node(parent, together, sweep=3600)
    handles = [await node.start(parent, number) for number in (1, 2)]
    await still_world.until_idle()
    assert sorted(await handles[0].result(1)) == [1, 2]
    assert await handles[1].result(1) == await handles[0].result(1)


# ---- priority


async def test_a_priority_is_computed_from_the_input(one_index_world: World) -> None:
    @workflow(priority="urgency")
    async def by_path(ctx: Context, job: Job) -> None:
        await ctx.step("measure", gauge.measure, job)

    @workflow(priority=lambda job: -job.urgency)
    async def by_function(ctx: Context, job: Job) -> None: ...

    node = await one_index_world.node(by_path, by_function, worker=False)
    handles = [await node.start(by_path, Job(number=n, urgency=n % 3)) for n in range(6)]
    assert (await (await node.start(by_function, Job(urgency=4))).status()).priority == -4
    await one_index_world.node(by_path, concurrency=1)
    for handle in handles:
        await ends(handle)
    assert gauge.order == [2, 5, 1, 4, 0, 3]


# ---- limits that steps share


@step(limit="scarce")
async def scarce(job: Job) -> int:
    return await gauge.measure(job)


@workflow
async def asks(ctx: Context, job: Job) -> int:
    return await ctx.step(scarce, job)


async def test_steps_share_a_limit_and_hold_no_slot_while_they_wait_for_it(world: World) -> None:
    @workflow
    async def quick(ctx: Context) -> str:
        return "done"

    limits = {"scarce": Concurrency(2)}
    nodes = [await world.node(asks, quick, limits=limits, concurrency=4) for _ in range(2)]
    handles = [await nodes[n % 2].start(asks, Job(number=n)) for n in range(12)]
    assert await nodes[0].start_and_wait(quick, timeout=10) == "done"
    assert [await handle.result(30) for handle in handles] == list(range(12))
    assert gauge.most["all"] == 2


async def test_steps_share_a_rate_and_hold_no_slot_while_they_wait_for_it(still_world: World) -> None:
    @workflow
    async def quick(ctx: Context) -> str:
        return "done"

    node = await still_world.node(
        asks, quick, limits={"scarce": Throttle(1, per="10s")}, concurrency=1, sweep=3600
    )
    handles: list[Handle[int]] = []
    for number in range(3):
        handles.append(await node.start(asks, Job(number=number)))
        await still_world.until_idle()
    assert await (await node.start(quick)).result(1) == "done"
    assert gauge.order == [0]
    await still_world.advance("10s")
    assert gauge.order == [0, 1]
    await still_world.advance("10s")
    assert [await handle.result(1) for handle in handles] == [0, 1, 2]


async def test_a_step_that_names_no_known_limit_fails_and_says_so(world: World) -> None:
    node = await world.node(asks)
    handle = await node.start(asks, Job(), retry=1)
    assert "limit" in str((await ends(handle)).error)


async def test_a_limit_is_changed_at_run_time(world: World) -> None:
    @workflow(concurrency=Concurrency(1, hold="run"))
    async def patient(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await world.node(patient)
    handles = [await node.start(patient) for _ in range(3)]
    await reaches(handles[0], "waiting")
    await node.operator.set_limit("patient/concurrency", 2)
    await reaches(handles[1], "waiting")
    assert await statuses(handles[2:]) == [PENDING]
    assert await node.operator.limits() == {"patient/concurrency": 2}
    await node.operator.set_limit("patient/concurrency", None)
    await handles[0].signal(Go)
    await handles[0].result(10)
    assert await statuses(handles[2:]) == [PENDING]


# ---- queues


async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(world: World) -> None:
    @workflow(queue="email")
    async def mail(ctx: Context) -> str:
        return "sent"

    node = await world.node(mail, queues=["email"])
    await node.operator.pause_queue("email")
    await until(lambda: _async(node._worker is not None and node.worker.dispatcher.is_paused("email")))
    handle = await node.start(mail)
    assert "paused" in await node.operator.explain(handle.id)
    await asyncio.sleep(0.3)
    assert await statuses([handle]) == [PENDING]
    [queue] = await node.operator.queues()
    assert (queue.queue, queue.ready, queue.paused) == ("email", 1, True)
    await node.operator.resume_queue("email")
    assert await handle.result(10) == "sent"


async def _async(value: bool) -> bool:
    return value


# ---- bad rules


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"batch": Batch(2, every="1s")}, {"debounce": Debounce("1s")}),
        ({"batch": Batch(2, every="1s")}, {"throttle": Throttle(1, per="1s")}),
        ({"batch": Batch(2, every="1s")}, {"rate_limit": RateLimit(1, per="1s")}),
        ({"debounce": Debounce("1s")}, {"rate_limit": RateLimit(1, per="1s")}),
        ({"batch": Batch(2, every="1s")}, {"concurrency": Concurrency(1, when_full="cancel_new")}),
        ({"batch": Batch(2, every="1s")}, {"concurrency": Concurrency(1, when_full="cancel_running")}),
    ],
)
def test_rules_that_contradict_each_other_are_refused_and_both_named(one: Any, other: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:

        @workflow(**one, **other)
        async def contradictory(ctx: Context, items: list[int]) -> None: ...

    said = str(refused.value)
    assert all(f"{name}=" in said or f"a {name} " in said for name in (*one, *other))


def test_two_rules_for_one_scope_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="scope/shared"):

        @workflow(concurrency=[Concurrency(1, scope="shared"), Concurrency(2, key="id", scope="shared")])
        async def twice(ctx: Context, item: dict[str, int]) -> None: ...


_BAD: list[Any] = [
    lambda: Concurrency(0),
    lambda: Concurrency(True),
    lambda: Concurrency(1, key=""),
    lambda: Concurrency(1, key="a..b"),
    lambda: Concurrency(1, when_full="wait"),  # type: ignore[arg-type]
    lambda: Concurrency(1, scope="__mine"),
    lambda: Throttle(0, per="1s"),
    lambda: Throttle(1, per="0s"),
    lambda: Throttle(1, per="1s", burst=-1),
    lambda: RateLimit(-1, per="1s"),
    lambda: RateLimit(1, per="soon"),
    lambda: Debounce("0s"),
    lambda: Debounce("5s", max_wait="4s"),
    lambda: Batch(0, every="1s"),
    lambda: Batch(1, every="-1s"),
]


@pytest.mark.parametrize("rule", _BAD, ids=range(len(_BAD)))
def test_a_bad_rule_is_refused_where_it_is_written(rule: Any) -> None:
    with pytest.raises(InvalidInput):
        rule()


async def test_a_batched_start_has_items_of_one_key_and_no_key_or_instant_of_its_own(world: World) -> None:
    @workflow(batch=Batch(3, every="4s", key="tenant.id"))
    async def together(ctx: Context, jobs: list[Job]) -> None: ...

    node = await world.node(together)
    for jobs in ([], [Job(tenant=Tenant(id="a")), Job(tenant=Tenant(id="b"))]):
        with pytest.raises(InvalidInput, match="batch"):
            await node.start(together, jobs)
    with pytest.raises(InvalidInput, match="batched"):
        await node.start(together, [Job()], key="k")
    with pytest.raises(InvalidInput, match="batched"):
        await node.start(together, [Job()], delay="1s")
    assert not (await node.operator.list_executions()).items


def test_what_shares_a_scope_shares_the_rule() -> None:
    @workflow(concurrency=Concurrency(2, scope="shared"))
    async def one(ctx: Context) -> None: ...

    @workflow(concurrency=Concurrency(3, scope="shared"))
    async def other(ctx: Context) -> None: ...

    # Two that each keep what the other gives back might wait for each other for ever.
    @workflow(concurrency=Concurrency(2, scope="shared", hold="run"))
    async def keeps(ctx: Context) -> None: ...

    for two in (other, keeps):
        with pytest.raises(ConfigurationError, match=f"one and {two.name} share the scope shared"):
            Durable([one, two], store="memory://")


def test_a_batch_needs_a_list() -> None:
    @workflow(batch=Batch(2, every="1s"))
    async def single(ctx: Context, item: int) -> None: ...

    with pytest.raises(ConfigurationError, match="list"):
        Durable([single], store="memory://")
