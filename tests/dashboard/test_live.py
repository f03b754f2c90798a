"""What streams bring: every change, soon, never more often than four times a second, and nothing twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from durable import Durable
from durable.dashboard import dashboard
from durable.dashboard.live import INTERVAL_S, Feeds, Pace
from tests.dashboard.conftest import Server, Visitor, words
from tests.dashboard.shop import Ping, quick, steps
from tests.support import SOON, ends, reaches, until


@dataclass(frozen=True)
class Event:
    id: str
    html: str
    at: float


class Stream:
    """Somebody who listens, as a browser does."""

    def __init__(self, url: str, path: str, last_id: str | None = None) -> None:
        self.events: list[Event] = []
        self._url = f"{url}/live{path}"
        self._headers = {"last-event-id": last_id} if last_id else {}

    async def __aenter__(self) -> Stream:
        self._connected = asyncio.Event()
        self._task = asyncio.create_task(self._listen())
        async with asyncio.timeout(SOON):
            await self._connected.wait()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def shows(self, text: str) -> Event:
        await until(lambda: self.events and text in self.events[-1].html)
        return self.events[-1]

    async def _listen(self) -> None:
        async with httpx2.AsyncClient(timeout=None) as client:
            async with client.stream("GET", self._url, headers=self._headers) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                self._connected.set()
                async for event in _parsed(answer):
                    self.events.append(event)


async def _parsed(answer: httpx2.Response) -> AsyncIterator[Event]:
    id, data = "", list[str]()
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            id = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield Event(id, "\n".join(data), time.monotonic())
            data = []


@pytest.fixture
async def server(durable: Durable) -> AsyncIterator[Server]:
    async with Server(dashboard(durable)) as server:
        yield server


async def test_a_change_is_brought_to_all_who_look(durable: Durable, server: Server) -> None:
    async with Stream(server.url, "/") as one, Stream(server.url, "/") as other:
        await one.shows("Nothing has been started yet")
        handle = await durable.start(quick, "a")
        for stream in (one, other):
            await stream.shows(handle.id)
        await ends(handle)
        for stream in (one, other):
            await stream.shows("st-completed")


async def test_what_stays_the_same_is_not_sent_again(durable: Durable, server: Server) -> None:
    handle = await durable.start(quick, "a")
    await ends(handle)
    async with Stream(server.url, f"/runs/{handle.id}") as stream:
        await stream.shows("st-completed")
        await asyncio.sleep(4 * INTERVAL_S)
        assert len(stream.events) == 1


async def test_at_most_four_changes_a_second_are_sent(durable: Durable, server: Server) -> None:
    async with Stream(server.url, "/") as stream:
        await stream.shows("Nothing has been started yet")
        began = time.monotonic()
        for number in range(60):
            last = await durable.start(quick, str(number))
            await asyncio.sleep(0.02)
        await stream.shows(last.id)
        took = time.monotonic() - began
        assert 1 < len(stream.events) <= 2 + took / INTERVAL_S


async def test_who_comes_back_gets_all_that_is_different_now(durable: Durable, server: Server) -> None:
    handle = await durable.start(steps, 5)
    await reaches(handle, "waiting")
    path = f"/runs/{handle.id}?tab=journal"
    async with Stream(server.url, path) as stream:
        seen = await stream.shows("tick")
    for _ in range(5):
        await durable.signal(handle.id, Ping)
    await ends(handle)
    async with Stream(server.url, path, seen.id) as stream:
        html = (await stream.shows("completed")).html
        for step in ("tick", "tick#2", "tick#3", "tick#4", "tick#5"):
            assert f"<td>{step}</td>" in html
        assert len(stream.events) == 1


async def test_another_process_resumes_where_the_first_one_stopped(durable: Durable) -> None:
    handle = await durable.start(quick, "a")
    await ends(handle)
    async with Server(dashboard(durable)) as server, Stream(server.url, f"/runs/{handle.id}") as stream:
        seen = await stream.shows("st-completed")
    async with Server(dashboard(durable)) as server:
        async with Stream(server.url, f"/runs/{handle.id}", seen.id) as stream:
            await asyncio.sleep(3 * INTERVAL_S)
            assert stream.events == []


async def test_a_page_that_many_look_at_is_made_once(durable: Durable) -> None:
    made = 0

    async def render() -> str:
        nonlocal made
        made += 1
        return "<p>same</p>"

    feeds = Feeds()

    async def look() -> str:
        async for update in feeds.follow("page", render, None):
            return update.html
        raise AssertionError

    assert await asyncio.gather(*(look() for _ in range(500))) == ["<p>same</p>"] * 500
    assert made == 1
    assert feeds.streams == 0


def test_a_page_that_took_long_once_is_made_again_as_soon_as_any_other() -> None:
    pace = Pace()
    assert [pace.rest_s(took) for took in (0.3, 0.01, 0.4, 0.01)] == [INTERVAL_S] * 4


def test_a_page_that_always_takes_long_costs_a_sixth_of_the_time() -> None:
    pace = Pace()
    for _ in range(3):
        rest = pace.rest_s(0.2)
    assert rest == 5 * 0.2
    assert pace.rest_s(0.01) == INTERVAL_S


async def test_no_more_look_than_may(
    monkeypatch: pytest.MonkeyPatch, durable: Durable, server: Server
) -> None:
    monkeypatch.setattr("durable.dashboard.live._MOST_STREAMS", 2)
    async with Stream(server.url, "/") as one, Stream(server.url, "/") as other:
        await one.shows("Nothing has been started yet")
        await other.shows("Nothing has been started yet")
        async with httpx2.AsyncClient() as client:
            assert (await client.get(f"{server.url}/live/")).status_code == 503
            assert (await client.get(f"{server.url}/")).status_code == 200


async def test_a_stream_of_what_is_not_there_says_so_at_once(visitor: Visitor) -> None:
    answer = await visitor.get("/live/runs/nope")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "execution_not_found"


async def test_each_listener_gets_the_forms_of_its_own_browser(durable: Durable, server: Server) -> None:
    handle = await durable.start(steps, 1)
    await reaches(handle, "waiting")
    tokens = set[str]()
    async with httpx2.AsyncClient(timeout=SOON) as one, httpx2.AsyncClient(timeout=SOON) as other:
        for client in (one, other):
            await client.get(server.url)
            async with client.stream("GET", f"{server.url}/live/runs/{handle.id}") as answer:
                async for event in _parsed(answer):
                    token = client.cookies["durable_csrf"]
                    assert f'name="csrf" value="{token}"' in event.html
                    assert "csrf-token-of-whoever" not in event.html
                    tokens.add(token)
                    break
    assert len(tokens) == 2


async def test_the_loop_ends_when_nobody_looks(durable: Durable, server: Server) -> None:
    def loops() -> list[str]:
        return [
            task.get_name() for task in asyncio.all_tasks() if task.get_name() == "durable.dashboard.feed"
        ]

    async with Stream(server.url, "/") as stream:
        await stream.shows("Nothing has been started yet")
        assert len(loops()) == 1
    await until(lambda: not loops(), within=2 * SOON)


async def test_a_page_is_words_before_anything_is_streamed(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(quick, "a")
    await ends(handle)
    html = await visitor.page("/")
    block = html[html.index('id="live"') :]
    assert handle.id in words(block)
