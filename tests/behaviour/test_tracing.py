"""Spans of executions: who is in whose trace, and what has none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from durable import Context, ExecutionFailed, Retry, Signal, workflow
from durable.tracing import Tracing
from tests.support import World, reaches, until

Go = Signal("go", str)
SECRET = "4242-4242-4242-4242"


class Traced:
    """What a process would export."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    async def has(self, name: str, number: int = 1) -> list[ReadableSpan]:
        await until(lambda: len(self.named(name)) >= number)
        return self.named(name)


def trace_of(span: ReadableSpan) -> int:
    return span.get_span_context().trace_id  # type: ignore[union-attr]


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id  # type: ignore[union-attr]


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


traced = Traced()


@pytest.fixture(autouse=True)
def nothing_exported() -> None:
    traced.exporter.clear()


@workflow
async def order(ctx: Context, card: str) -> str:
    await ctx.step("charge", charge, card)
    said = await ctx.wait_for_signal(Go)
    return await ctx.step("ship", lambda: said)


async def charge(card: str) -> str:
    with traced.tracer.start_as_current_span("POST /charges"):
        return card


@workflow(retry=1)
async def refused(ctx: Context) -> None:
    await ctx.step("try", retry=Retry(2, base="1ms")).up(fails)


def fails() -> None:
    raise ValueError(SECRET)


@workflow
async def parent(ctx: Context) -> str:
    return await ctx.run(child, "x")


@workflow
async def child(ctx: Context, name: str) -> str:
    return name


async def test_all_that_an_execution_does_is_in_the_trace_of_who_started_it(world: World) -> None:
    node = await world.node(order, telemetry=[Tracing(traced.provider)])
    with traced.tracer.start_as_current_span("POST /orders") as request:
        handle = await node.start(order, SECRET)
    await reaches(handle, "waiting")
    await until(lambda: traced.named("run order"))
    await handle.signal(Go, "now")
    assert await handle.result(5) == "now"
    await until(lambda: _ended(traced.named("run order")))
    ours = {span.name for span in traced.spans}
    assert ours == {
        "POST /orders",
        "start order",
        "run order",
        "step charge",
        "step <lambda>",
        "POST /charges",
    }
    assert {trace_of(span) for span in traced.spans} == {request.get_span_context().trace_id}

    [start] = traced.named("start order")
    assert (start.kind, parent_of(start)) == (SpanKind.PRODUCER, request.get_span_context().span_id)
    runs = traced.named("run order")
    assert {(run.kind, parent_of(run)) for run in runs} == {(SpanKind.CONSUMER, id_of(start))}
    assert [[link.context.span_id for link in run.links] for run in runs] == [
        [],
        *([id_of(run)] for run in runs[:-1]),
    ]
    [charged], [http] = traced.named("step charge"), traced.named("POST /charges")
    assert charged.kind is SpanKind.INTERNAL
    assert parent_of(charged) in {id_of(run) for run in runs}
    assert parent_of(http) == id_of(charged)
    waits = [dict(event.attributes or {}) for run in runs for event in run.events]
    assert waits == [{"durable.wait.kind": "wait_for_signal", "durable.wait.name": "go"}]
    assert (start.attributes or {})["durable.execution.id"] == handle.id
    assert (start.attributes or {})["messaging.destination.name"] == "default"
    assert not any(SECRET in str(span.to_json()) for span in traced.spans if span is not http)


def _ended(runs: list[ReadableSpan]) -> bool:
    return any((run.attributes or {}).get("durable.execution.status") == "completed" for run in runs)


async def test_a_replayed_step_has_no_span(world: World) -> None:
    node = await world.node(order, telemetry=[Tracing(traced.provider)])
    handle = await node.start(order, "card")
    await reaches(handle, "waiting")
    await traced.has("run order")
    await world.stop(node)
    traced.exporter.clear()
    node = await world.node(order, telemetry=[Tracing(traced.provider)])
    await node.signal(handle.id, Go, "now")
    assert await node.handle(handle.id, order).result(5) == "now"
    [run, *_] = await traced.has("run order")
    assert (run.attributes or {})["durable.replayed"] is True
    assert traced.named("step charge") == []
    assert len(run.links) == 1  # to the run of the worker before


async def test_a_try_that_fails_is_no_failure_before_the_last_one(world: World) -> None:
    node = await world.node(refused, telemetry=[Tracing(traced.provider)])
    with pytest.raises(ExecutionFailed):
        await (await node.start(refused)).result(5)
    first, last = await traced.has("step fails", 2)
    assert [(span.attributes or {})["error.type"] for span in (first, last)] == ["ValueError"] * 2
    assert [(span.attributes or {})["durable.step.try"] for span in (first, last)] == [1, 2]
    assert (first.status.status_code, last.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    await until(
        lambda: any(run.status.status_code is StatusCode.ERROR for run in traced.named("run refused"))
    )
    ended = traced.named("run refused")[-1]
    assert (ended.attributes or {})["error.type"] == "ValueError"
    assert SECRET not in "".join(span.to_json() for span in traced.spans)


async def test_a_child_is_started_by_the_run_of_its_parent(world: World) -> None:
    node = await world.node(parent, child, telemetry=[Tracing(traced.provider)])
    assert await (await node.start(parent)).result(5) == "x"
    [start_of_parent], [start] = traced.named("start parent"), traced.named("start child")
    assert parent_of(start) in {id_of(run) for run in traced.named("run parent")}
    [run, *_] = await traced.has("run child")
    assert parent_of(run) == id_of(start)
    assert trace_of(run) == trace_of(start_of_parent)


async def test_each_run_has_a_trace_of_its_own_where_that_is_wanted(world: World) -> None:
    node = await world.node(order, telemetry=[Tracing(traced.provider, runs="linked")])
    handle = await node.start(order, "card")
    await reaches(handle, "waiting")
    await handle.signal(Go, "now")
    await handle.result(5)
    await until(lambda: _ended(traced.named("run order")))
    [start], runs = traced.named("start order"), traced.named("run order")
    assert len({trace_of(span) for span in (start, *runs)}) == 1 + len(runs)
    assert all(run.links[0].context.span_id == id_of(start) for run in runs)
    charged = traced.named("step charge")[0]
    assert trace_of(charged) in {trace_of(run) for run in runs}


async def test_what_the_body_s_task_has_as_current_is_left_alone(world: World) -> None:
    """A step's span is over when the step is: nothing of the body is within it."""
    current: list[bool] = []

    @workflow
    async def looks(ctx: Context) -> None:
        await ctx.step("one", lambda: current.append(trace.get_current_span().is_recording()))
        current.append(trace.get_current_span().is_recording())

    node = await world.node(looks, telemetry=[Tracing(traced.provider)])
    await (await node.start(looks)).result(5)
    assert current[:2] == [True, False]


async def test_nothing_is_left_in_memory_when_executions_have_gone(world: World) -> None:
    tracing = Tracing(traced.provider)
    node = await world.node(order, refused, telemetry=[tracing])
    for _ in range(3):
        with pytest.raises(ExecutionFailed):
            await (await node.start(refused)).result(5)
    handle = await node.start(order, "card")
    await reaches(handle, "waiting")
    await handle.cancel()
    await until(lambda: node.worker.idle)
    await until(lambda: not tracing._runs)
    assert (tracing._starts, tracing._steps) == ({}, {})


APP = """
import asyncio, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from durable import Context, Durable, workflow
from durable.tracing import Tracing

provider = TracerProvider()
line = lambda s: f"{s.name} {s.context.trace_id:x} {s.context.span_id:x} {s.parent.span_id if s.parent else 0:x}\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))

@workflow
async def order(ctx: Context) -> str:
    return await ctx.step("charge", lambda: "charged")

async def main(url: str, what: str) -> None:
    durable = Durable([order], store=url, worker=what == "work", telemetry=[Tracing(provider)])
    async with durable:
        if what == "start":
            await durable.start(order, key="k")
        else:
            await (await durable.start(order, key="k")).result(10)

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_trace_goes_from_one_process_to_another(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    url = f"sqlite:///{tmp_path / 'orders.db'}"
    printed = [
        subprocess.check_output(
            [sys.executable, "app.py", url, what],
            cwd=tmp_path,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            timeout=60,
        )
        for what in ("start", "work")
    ]
    [(trace_id, start)] = re.findall(r"^start order (\w+) (\w+) 0$", printed[0], re.MULTILINE)
    [run] = re.findall(rf"^run order {trace_id} (\w+) {start}$", printed[1], re.MULTILINE)
    assert re.search(rf"^step <lambda> {trace_id} \w+ {run}$", printed[1], re.MULTILINE)
