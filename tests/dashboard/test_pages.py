"""The pages as they come from the server: all that there is to see and to do is in them without JavaScript."""

from __future__ import annotations

import re

from durable import Context, Durable, workflow
from durable.clock import VirtualClock
from durable.dashboard import dashboard
from durable.ids import Ids
from tests.dashboard.conftest import Visit, Visitor
from tests.dashboard.shop import Approval, Approved, Order, Ping, broken, fulfil, pinged, quick
from tests.support import ends, reaches


async def test_runs_are_listed_with_the_number_of_each_status(durable: Durable, visitor: Visitor) -> None:
    done = await durable.start(quick, "a")
    failed = await durable.start(broken, "no card")
    await ends(done)
    await ends(failed)
    text = await visitor.text("/")
    assert "all 2" in text
    assert "completed 1" in text
    assert "failed 1" in text
    assert done.id in text
    assert "Fail: no card" in text


async def test_the_state_of_the_search_is_in_the_address(durable: Durable, visitor: Visitor) -> None:
    mine = await durable.start(quick, "a", tags={"tenant": "acme"})
    other = await durable.start(quick, "b", tags={"tenant": "globex"})
    third = await durable.start(broken, "c")
    for handle in (mine, other, third):
        await ends(handle)

    async def shown(query: str) -> set[str]:
        html = await visitor.page(f"/?{query}")
        return {handle.id for handle in (mine, other, third) if f"r-{handle.id}" in html}

    assert await shown("status=failed") == {third.id}
    assert await shown("workflow=quick") == {mine.id, other.id}
    assert await shown("q=workflow:quick") == {mine.id, other.id}
    assert await shown("q=tenant%3Dacme") == {mine.id}
    assert await shown(f"q={other.id[:12]}") == {other.id}
    assert await shown("since=1h") == {mine.id, other.id, third.id}
    assert await shown("until=2001-01-01T00:00") == set()
    assert await shown("status=completed&q=tenant%3Dglobex&since=1h") == {other.id}


async def test_a_search_that_means_nothing_is_told_and_shows_nothing(visitor: Visitor) -> None:
    for query in ("status=nonsense", "since=yesterday", "q=%00", "workflow=a%20b", "cursor=x"):
        text = await visitor.text(f"/?{query}")
        assert "✗" in text, query


async def test_pages_of_a_list_hold_each_execution_once(durable: Durable, visitor: Visitor) -> None:
    ids = {(await durable.start(pinged)).id for _ in range(120)}
    seen: list[str] = []
    path = "/?workflow=pinged"
    while path:
        html = await visitor.page(path)
        seen += re.findall(r'id="r-([^"]*)"', html)
        older = re.search(r'rel="next" href="([^"]*)"', html) or re.search(r'href="([^"]*)" rel="next"', html)
        path = older[1].replace("&amp;", "&") if older else ""
    assert len(seen) == 120
    assert set(seen) == ids


async def test_a_run_shows_its_steps_its_wait_and_the_form_of_its_signal(
    durable: Durable, visitor: Visitor
) -> None:
    handle = await durable.start(fulfil, Order("7", 4200), tags={"tenant": "acme"})
    await reaches(handle, "waiting")
    html = await visitor.page(f"/runs/{handle.id}")
    for name in ("reserve", "charge", "approved", "tenant=acme"):
        assert name in html
    assert "×2" in html
    assert "try 1: TimeoutError: the provider did not answer" in html
    bars = re.search(r'<span class="label">charge</span>.*?</svg>', html, re.DOTALL)
    assert bars
    looks = re.findall(r'class="p-(\w+)"', bars[0])
    assert [look for look in looks if look in ("failed", "work")] == ["failed", "work"]
    assert 'name="payload.by"' in html
    assert 'name="payload.note"' in html
    assert "Approve" in html
    assert "Reject" in html
    journal = await visitor.text(f"/runs/{handle.id}?tab=journal")
    assert "created" in journal
    assert "start attempt" in journal
    data = await visitor.text(f"/runs/{handle.id}?tab=data")
    assert '"cents": 4200' in data


async def test_a_signal_is_sent_from_its_form(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(fulfil, Order("7", 4200))
    await reaches(handle, "waiting")
    form = {"target": handle.id, "name": "approved", "payload.by": "ada", "payload.approved": "true"}
    answer = await visitor.submit("/act/execution/signal", form)
    assert "Signal approved was sent." in answer.text
    assert await handle.result() == "Mail To 7"
    [signal] = (await durable.operator.get_execution_detail(handle.id)).signals
    assert signal.payload == {"by": "ada", "approved": True, "note": ""}


async def test_a_signal_that_does_not_validate_is_refused_with_the_field(
    durable: Durable, visitor: Visitor
) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    await visitor.submit("/act/execution/signal", {"target": handle.id, "name": "ping"})
    answer = await visitor.submit(
        "/act/execution/signal", {"target": handle.id, "name": "level", "payload": "high"}
    )
    assert "must be a number" in answer.text
    await visitor.submit("/act/execution/signal", {"target": handle.id, "name": "level", "payload": "3"})
    assert await handle.result() == "level 3"


async def test_the_inbox_has_those_who_wait_for_a_person_and_is_empty_then(
    durable: Durable, visitor: Visitor
) -> None:
    handle = await durable.start(fulfil, Order("7", 4200))
    await reaches(handle, "waiting")
    text = await visitor.text("/waiting")
    assert handle.id in text
    assert "deadline" in text
    await durable.signal(handle.id, Approved, Approval("ada", approved=False))
    await ends(handle)
    assert "Nobody waits for a person" in await visitor.text("/waiting")


async def test_many_are_cancelled_after_a_look_at_which(durable: Durable, visitor: Visitor) -> None:
    handles = [await durable.start(pinged) for _ in range(5)]
    done = await durable.start(quick, "a")
    await ends(done)
    for handle in handles:
        await reaches(handle, "waiting")
    preview = await visitor.page("/bulk?verb=cancel&since=1h")
    assert "Cancel 5 executions" in preview
    assert "1 more match, and are not in a status" in preview
    ids = re.findall(r'name="ids" value="([^"]*)"', preview)
    late = await durable.start(pinged)
    answer = await visitor.submit("/bulk", {"verb": "cancel", "ids": ids, "reason": "clean up"})
    assert "done for 5 of 5" in answer.text
    for handle in handles:
        assert (await ends(handle)).status == "cancelled"
    assert (await reaches(late, "waiting")).status == "waiting"


async def test_only_the_selected_are_meant_where_some_are_selected(
    durable: Durable, visitor: Visitor
) -> None:
    first, second = [await durable.start(pinged) for _ in range(2)]
    await reaches(first, "waiting")
    await reaches(second, "waiting")
    preview = await visitor.page(f"/bulk?verb=cancel&status=waiting&pick={first.id}")
    assert re.findall(r'name="ids" value="([^"]*)"', preview) == [first.id]


async def test_schedules_show_their_next_fires_in_both_zones(durable: Durable, visitor: Visitor) -> None:
    html = await visitor.page("/schedules")
    assert "nightly:on:0" in html
    assert "in Europe/London" in html
    assert html.count("data-local") == 5
    await visitor.submit("/act/schedule/pause", {"target": "nightly:on:0"})
    assert (await durable.get_schedule("nightly:on:0")).paused
    assert "Would fire next" in await visitor.text("/schedules")
    await visitor.submit("/act/schedule/resume", {"target": "nightly:on:0"})
    assert not (await durable.get_schedule("nightly:on:0")).paused
    answer = await visitor.submit("/act/schedule/trigger", {"target": "nightly:on:0"})
    assert "/runs/" in str(answer.url)
    assert "Schedule nightly:on:0 was triggered" in answer.text


async def test_queues_are_paused_and_resumed(durable: Durable, visitor: Visitor) -> None:
    answer = await visitor.submit("/act/queue/pause", {"target": "default", "back": "/queues"})
    assert "takes nothing" in answer.text or "take nothing" in answer.text
    [queue] = await durable.operator.queues()
    assert queue.paused
    await visitor.submit("/act/queue/resume", {"target": "default"})
    assert not await durable.operator.queues()


async def test_workers_show_their_slots_and_are_drained(durable: Durable, visitor: Visitor) -> None:
    [worker] = await durable.operator.workers()
    text = await visitor.text("/workers")
    assert worker.id in text
    assert "0 of 100" in text
    await visitor.submit("/act/worker/drain", {"target": worker.id})
    assert durable.worker.told_to_drain is not None


async def test_health_names_what_needs_a_person(durable: Durable, visitor: Visitor) -> None:
    assert "all is well" in await visitor.text("/health")
    await durable.operator.pause_queue("default")
    text = await visitor.text("/health")
    assert "something needs you" in text
    assert "paused queues" in text


async def test_health_names_timers_that_nobody_fires_and_code_that_does_not_fit(visit: Visit) -> None:
    def before() -> None: ...

    def after() -> None: ...

    code = [before]

    @workflow
    async def changes(ctx: Context) -> None:
        await ctx.step("work", code[0])
        await ctx.wait_for_signal(Ping)

    @workflow
    async def naps(ctx: Context) -> None:
        await ctx.sleep("1h")

    clock, url = VirtualClock(1_700_000_000_000), f"memory://{Ids().nonce()}"
    async with Durable([changes, naps], store=url, clock=clock) as durable:
        handle = await durable.start(changes)
        for each in (handle, await durable.start(naps)):
            await reaches(each, "waiting", "sleeping")
    code[0] = after
    async with Durable([changes], store=url, clock=clock) as durable:
        await durable.signal(handle.id, Ping)
        await reaches(durable.handle(handle.id), "parked")
    async with Durable(store=url, clock=clock, worker=False) as durable:
        visitor = visit(dashboard(durable))
        found = await visitor.json("/health")
        assert (found["timer_lag_s"], found["mismatches"], found["need_repair"]) == (0, 1, 1)
        assert found["dead_letters"] is None  # there is no broker
        clock.advance_to(clock.now_ms() + 3_900_000)
        assert (await visitor.json("/health"))["timer_lag_s"] == 300
        text = await visitor.text("/health")
    assert "5m late" in text
    assert re.search(r"replay mismatches\s+✗ not well\s+1", text), text


async def test_workflows_show_their_graph_and_schemas(visitor: Visitor) -> None:
    html = await visitor.page("/workflows?name=fulfil-order")
    assert "<svg" in html
    assert "Order" in html
    assert "✗" in await visitor.text("/workflows?name=nonsense")


async def test_the_graph_of_a_run_has_the_state_of_each_node(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(fulfil, Order("7", 1))
    await reaches(handle, "waiting")
    html = await visitor.page(f"/runs/{handle.id}?tab=graph")
    assert re.search(r'class="node step ran"[^>]*><title>reserve: ran', html)
    assert re.search(r'class="node wait_for_signal current"', html)
    assert "style=" not in html


async def test_without_the_code_a_run_still_shows_its_journal(durable: Durable, visit: Visit) -> None:
    handle = await durable.start(fulfil, Order("7", 1))
    await reaches(handle, "waiting")
    async with Durable(store=durable._store_or_url, worker=False) as bare:  # pyright: ignore[reportPrivateUsage]
        visitor = visit(dashboard(bare))
        assert "not registered" in await visitor.text(f"/runs/{handle.id}?tab=graph")
        assert "any JSON" in await visitor.text(f"/runs/{handle.id}")
        form = {"target": handle.id, "name": "approved", "payload": '{"by": "ada", "approved": true}'}
        await visitor.submit("/act/execution/signal", form)
        assert await handle.result() == "Mail To 7"


async def test_it_works_wherever_it_is_mounted(durable: Durable, visit: Visit) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    handle = await durable.start(quick, "a")
    await ends(handle)
    visitor = visit(Starlette(routes=[Mount("/ops/durable", dashboard(durable))]))
    html = await visitor.page("/ops/durable/")
    links = re.findall(r'(?:href|src|action)="(/[^"]*)"', html)
    assert links
    assert all(link.startswith("/ops/durable/") for link in links)
    assert 'hx-sse:connect="/ops/durable/live/"' in html
    for link in {link.replace("&amp;", "&") for link in links if not link.endswith("/bulk")}:
        assert (await visitor.get(link)).status_code == 200, link
    assert handle.id in await visitor.text(f"/ops/durable/runs/{handle.id}")


async def test_behind_a_proxy_that_takes_off_a_prefix_links_have_it(durable: Durable, visit: Visit) -> None:
    visitor = visit(dashboard(durable), headers={"x-forwarded-prefix": "/tools/durable"})
    html = await visitor.page("/")
    assert 'href="/tools/durable/waiting"' in html
    hostile = visit(dashboard(durable), headers={"x-forwarded-prefix": '//evil"><script>'})
    assert "evil" not in await hostile.page("/")


async def test_what_is_not_there_is_a_page_that_says_so(visitor: Visitor) -> None:
    assert "no execution" in (await visitor.page("/runs/nope", 404)).lower()
    assert "404" in await visitor.page("/nope", 404)
