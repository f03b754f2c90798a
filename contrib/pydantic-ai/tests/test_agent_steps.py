"""One run of an agent as a part of a workflow: what is a step of it, what waits for a person, what is seen of it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelRetry, RunContext, ToolReturn
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.exceptions import ApprovalRequired, ModelHTTPError, ToolFailed
from pydantic_ai.messages import (
    BinaryImage,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.test import TestModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage, UsageLimits
from typing_extensions import override

from durable import Context, ExecutionFailed, Handle, InvalidInput, Retry, workflow
from durable.testing import DurableEnv, crash_everywhere
from durable_pydantic_ai import (
    AgentSteps,
    Progress,
    ToolUse,
    approve,
    deny,
    pending,
    progress,
    storable,
    watch,
)


class Paid:
    """A model whose n-th answer of a conversation is the n-th of its script, and that counts what it is paid for."""

    def __init__(self, *script: ModelResponse) -> None:
        self.script = script
        self.requests: list[int] = []
        self.told: list[ModelMessage] = []
        self.model = FunctionModel(self._answer, stream_function=self._stream, model_name="paid")

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        self.requests.append(turn)
        self.told = messages
        return self.script[turn]

    async def _stream(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for word in ((await self._answer(messages, info)).text or "").split():
            yield word + " "

    @property
    def told_by_tools(self) -> list[object]:
        """What the model has been told, with its last request, that tools have returned."""
        return [
            part.content
            for message in self.told
            for part in message.parts
            if isinstance(part, ToolReturnPart)
        ]


def says(text: str) -> ModelResponse:
    return ModelResponse([TextPart(text)], usage=RequestUsage(input_tokens=10, output_tokens=3))


def asks(*calls: ToolCallPart) -> ModelResponse:
    return ModelResponse(list(calls), usage=RequestUsage(input_tokens=5, output_tokens=2))


def call(tool: str, id: str, **args: object) -> ToolCallPart:
    return ToolCallPart(tool, args, tool_call_id=id)


async def step_ids(env: DurableEnv, handle: Handle[Any]) -> list[str]:
    detail = await env.durable.operator.get_execution_detail(handle.id)
    return [record.id for record in detail.steps if record.kind == "step"]


# ---- steps


async def test_each_request_and_each_tool_call_is_a_step_and_none_is_made_again_on_a_replay() -> None:
    paid = Paid(asks(call("price", "c1", item="lamp"), call("price", "c2", item="desk")), says("112 in all"))
    priced: list[str] = []
    agent = Agent(paid.model)

    @agent.tool_plain
    def price(item: str) -> int:
        priced.append(item)
        return {"lamp": 12, "desk": 100}[item]

    @workflow
    async def shop(ctx: Context, question: str) -> str:
        result = await agent.run(question, capabilities=[AgentSteps(ctx)])
        assert result.usage.requests == 2
        return result.output

    async with DurableEnv([shop], replay=True) as env:
        handle = await env.durable.start(shop, "what does it cost?")
        assert await handle.result("10s") == "112 in all"
        assert sorted(await step_ids(env, handle)) == [
            "agent:model",
            "agent:model#2",
            "agent:tool:price:c1",
            "agent:tool:price:c2",
        ]
        await env.replay(handle)
    assert paid.requests == [0, 1]
    assert sorted(priced) == ["desk", "lamp"]
    assert paid.told_by_tools == [12, 100]


async def test_the_agent_of_a_test_model_runs_with_all_of_its_tools() -> None:
    called: list[str] = []
    agent = Agent(TestModel(), deps_type=str)

    @agent.tool
    async def greet(ctx: RunContext[str], name: str) -> str:
        called.append(name)
        return f"{ctx.deps}, {name}"

    @agent.tool_plain
    def count() -> int:
        called.append("count")
        return 7

    @workflow
    async def talk(ctx: Context) -> str:
        return (await agent.run("hello", deps="hi", capabilities=[AgentSteps(ctx)])).output

    async with DurableEnv([talk], replay=True) as env:
        assert await env.durable.start_and_wait(talk, timeout="10s") == '{"greet":"hi, a","count":7}'
    assert sorted(called) == ["a", "count"]


async def test_two_agents_of_one_workflow_have_steps_of_their_own_names() -> None:
    first, second = Agent(Paid(says("draft")).model), Agent(Paid(says("final")).model)

    @workflow
    async def write(ctx: Context) -> list[str]:
        drafted, polished = await ctx.gather(
            first.run("write", capabilities=[AgentSteps(ctx, name="writer")]),
            second.run("polish", capabilities=[AgentSteps(ctx, name="editor")]),
        )
        return [drafted.output, polished.output]

    async with DurableEnv([write], replay=True) as env:
        handle = await env.durable.start(write)
        assert await handle.result("10s") == ["draft", "final"]
        assert sorted(await step_ids(env, handle)) == ["editor:model", "writer:model"]
        assert (await progress(handle, name="editor")).text == "final"


async def test_a_name_that_no_step_can_have_is_refused() -> None:
    @workflow(retry=1)
    async def run(ctx: Context) -> None:
        AgentSteps(ctx, name="my agent")

    async with DurableEnv([run]) as env:
        with pytest.raises(ExecutionFailed, match="cannot be called 'my agent'") as raised:
            await env.durable.start_and_wait(run, timeout="10s")
    assert raised.value.error_type == "durable.errors.InvalidInput"
    assert issubclass(InvalidInput, ValueError)


async def test_a_conversation_is_an_input_and_a_result() -> None:
    image = BinaryContent(b"\x00\xff", media_type="image/png")
    thought = ModelResponse(
        [ThinkingPart("hm", signature="s"), TextPart("a lamp")], provider_details={"n": [1, None]}
    )
    paid = Paid(thought, says("12"))
    agent = Agent(paid.model)

    @workflow
    async def turn(ctx: Context, history: list[ModelMessage]) -> list[ModelMessage]:
        prompt = ["what is that?", image] if not history else "what does it cost?"
        result = await agent.run(prompt, message_history=history, capabilities=[AgentSteps(ctx)])
        return storable(result.all_messages())

    async with DurableEnv([turn], replay=True) as env:
        history = await env.durable.start_and_wait(turn, list[ModelMessage](), timeout="10s")
        history = await env.durable.start_and_wait(turn, history, timeout="10s")
    assert [type(message) for message in history] == [ModelRequest, ModelResponse] * 2
    asked = history[0].parts[0]
    assert isinstance(asked, UserPromptPart)
    assert asked.content == ["what is that?", BinaryImage(b"\x00\xff", media_type="image/png")]
    assert history[1].parts == thought.parts
    assert history[3].parts == [TextPart("12")]
    assert paid.requests == [0, 1]


async def test_an_output_of_the_users_own_type_is_validated_and_asked_for_again() -> None:
    class Price(BaseModel):
        item: str
        cents: int

    paid = Paid(
        asks(call("final_result", "c1", item="lamp", cents="a lot")),
        asks(call("final_result", "c2", item="lamp", cents=1200)),
    )
    agent = Agent(paid.model, output_type=Price)

    @workflow
    async def shop(ctx: Context) -> int:
        return (await agent.run("what does it cost?", capabilities=[AgentSteps(ctx)])).output.cents

    async with DurableEnv([shop], replay=True) as env:
        assert await env.durable.start_and_wait(shop, timeout="10s") == 1200
    assert paid.requests == [0, 1]


async def test_a_request_that_fails_is_retried_as_a_step_is() -> None:
    asked: list[int] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(len(messages))
        if len(asked) < 3:
            raise ModelHTTPError(503, "paid", {"why": "overloaded"})
        return says("at last")

    agent = Agent(FunctionModel(answer))

    @workflow(retry=1)
    async def ask(ctx: Context) -> str:
        steps = AgentSteps(ctx, model_retry=Retry(3, base="1m", jitter=0), model_timeout="30s")
        return (await agent.run("well?", capabilities=[steps])).output

    async with DurableEnv([ask]) as env:
        handle = await env.durable.start(ask)
        await env.until_idle()
        assert len(asked) == 1
        await env.advance("3m")
        assert await handle.result("10s") == "at last"
    assert asked == [1, 1, 1]


async def test_a_request_that_fails_for_good_fails_the_run_with_the_models_error() -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        raise ModelHTTPError(401, "paid", {"why": "no key"})

    agent = Agent(FunctionModel(answer))

    @workflow(retry=1)
    async def ask(ctx: Context) -> str:
        return (await agent.run("well?", capabilities=[AgentSteps(ctx)])).output

    async with DurableEnv([ask]) as env:
        with pytest.raises(ExecutionFailed, match="401") as raised:
            await env.durable.start_and_wait(ask, timeout="10s")
    assert raised.value.error_type.endswith("ModelHTTPError")


async def test_to_count_tokens_before_a_request_is_a_step_too() -> None:
    class Counting(TestModel):
        counted = 0

        @override
        async def count_tokens(
            self,
            messages: list[ModelMessage],
            model_settings: ModelSettings | None,
            model_request_parameters: ModelRequestParameters,
        ) -> RequestUsage:
            Counting.counted += 1
            return RequestUsage(input_tokens=50)

    agent = Agent(Counting(custom_output_text="yes"))
    limits = UsageLimits(input_tokens_limit=60, count_tokens_before_request=True)

    @workflow
    async def ask(ctx: Context) -> str:
        return (await agent.run("well?", usage_limits=limits, capabilities=[AgentSteps(ctx)])).output

    async with DurableEnv([ask], replay=True) as env:
        handle = await env.durable.start(ask)
        assert await handle.result("10s") == "yes"
        assert await step_ids(env, handle) == ["agent:count", "agent:model"]
        await env.replay(handle)
    assert Counting.counted == 1


# ---- what tools return


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ({"a": [1, None, True]}, {"a": [1, None, True]}),
        (
            BinaryContent(b"\xff\x00", media_type="image/png"),
            BinaryImage(b"\xff\x00", media_type="image/png"),
        ),
        (ToolReturn("seen", content="a picture", metadata={"size": 3}), "seen"),
        ({"kind": "returned", "value": 1}, {"kind": "returned", "value": 1}),
        (None, None),
    ],
)
async def test_what_a_tool_returns_comes_back_from_its_checkpoint(returned: object, told: object) -> None:
    paid = Paid(asks(call("look", "c1")), says("done"))
    agent = Agent(paid.model)

    @agent.tool_plain
    def look() -> Any:
        return returned

    @workflow
    async def run(ctx: Context) -> str:
        return (await agent.run("look", capabilities=[AgentSteps(ctx)])).output

    async with DurableEnv([run], replay=True) as env:
        assert await env.durable.start_and_wait(run, timeout="10s") == "done"
    assert paid.told_by_tools == [told]


@pytest.mark.parametrize("error", [ModelRetry("which lamp?"), ToolFailed("there is no lamp")])
async def test_a_tool_that_asks_the_model_to_try_again_has_run_and_does_not_run_again(
    error: Exception,
) -> None:
    paid = Paid(asks(call("price", "c1", item="lamp")), asks(call("price", "c2", item="desk")), says("100"))
    priced: list[str] = []
    agent = Agent(paid.model)

    @agent.tool_plain
    def price(item: str) -> int:
        priced.append(item)
        if item == "lamp":
            raise error
        return 100

    @workflow
    async def shop(ctx: Context) -> str:
        return (await agent.run("what does it cost?", capabilities=[AgentSteps(ctx)])).output

    async with DurableEnv([shop], replay=True) as env:
        handle = await env.durable.start(shop)
        assert await handle.result("10s") == "100"
        assert [use.state for use in (await progress(handle)).tools] == ["failed", "returned"]
    assert priced == ["lamp", "desk"]
    assert paid.requests == [0, 1, 2]
    assert str(error) in str(paid.told)


async def test_a_tool_whose_value_cannot_be_stored_fails_the_run_and_is_not_called_again() -> None:
    called: list[int] = []
    agent = Agent(Paid(asks(call("open", "c1"))).model)

    @agent.tool_plain(name="open")
    def open_it() -> Any:
        called.append(1)
        return object()

    @workflow
    async def run(ctx: Context) -> str:
        return (await agent.run("open it", capabilities=[AgentSteps(ctx)])).output

    async with DurableEnv([run]) as env:
        with pytest.raises(ExecutionFailed, match="the tool 'open' returned cannot be stored") as raised:
            await env.durable.start_and_wait(run, timeout="10s")
    assert raised.value.code == "not_serializable"
    assert called == [1]


# ---- approvals


class Refunds:
    """An agent that refunds when it is told to, if a person lets it."""

    def __init__(self, *refunds: ToolCallPart) -> None:
        self.paid = Paid(asks(*refunds), says("done"))
        self.refunded: list[int] = []
        agent = Agent(self.paid.model)

        @agent.tool_plain(requires_approval=True)
        async def refund(cents: int) -> str:
            self.refunded.append(cents)
            return f"refunded {cents}"

        @agent.tool
        async def give(ctx: RunContext[object], cents: int) -> str:
            if cents > 100 and not ctx.tool_call_approved:
                raise ApprovalRequired(metadata={"limit": 100})
            self.refunded.append(cents)
            return f"gave {cents}"

        @workflow
        async def support(ctx: Context) -> str:
            steps = AgentSteps(ctx, approval_timeout="3d")
            return (await agent.run("refund it", capabilities=[steps])).output

        self.workflow = support


async def test_a_tool_call_waits_for_days_until_a_person_approves_it() -> None:
    refunds = Refunds(call("refund", "c1", cents=500))
    async with DurableEnv([refunds.workflow], replay=True) as env:
        handle = await env.durable.start(refunds.workflow)
        await env.advance("2d")
        assert (await handle.status()).status == "waiting"
        assert await pending(handle) == [ToolUse("c1", "refund", {"cents": 500}, "waiting")]
        assert refunds.refunded == []
        await approve(handle, "c1", by="ada")
        assert await handle.result("10s") == "done"
        assert await pending(handle) == []
        detail = await env.durable.operator.get_execution_detail(handle.id)
        assert [entry.details["text"] for entry in detail.audit if entry.kind == "note"] == [
            "refund was approved"
        ]
    assert refunds.refunded == [500]
    assert refunds.paid.requests == [0, 1]
    assert refunds.paid.told_by_tools == ["refunded 500"]


async def test_a_call_that_is_denied_does_not_happen_and_the_model_is_told_why() -> None:
    refunds = Refunds(call("refund", "c1", cents=500))
    async with DurableEnv([refunds.workflow], replay=True) as env:
        handle = await env.durable.start(refunds.workflow)
        await deny(handle, "c1", by="ada", reason="the lamp was never bought")  # before anybody waits for it
        await approve(handle, "c1", by="eve")  # the first decision counts
        assert await handle.result("10s") == "done"
        assert [use.state for use in (await progress(handle)).tools] == ["denied"]
    assert refunds.refunded == []
    assert refunds.paid.told_by_tools == ["the lamp was never bought"]


async def test_a_call_that_nobody_approves_in_time_is_denied() -> None:
    refunds = Refunds(call("refund", "c1", cents=500))
    async with DurableEnv([refunds.workflow], replay=True) as env:
        handle = await env.durable.start(refunds.workflow)
        await env.advance("3d")
        assert await handle.result("10s") == "done"
    assert refunds.refunded == []
    assert refunds.paid.told_by_tools == ["Nobody has approved it in time."]


async def test_calls_are_approved_in_any_order_and_with_other_arguments() -> None:
    refunds = Refunds(call("refund", "c 1", cents=500), call("refund", "c2", cents=70))
    async with DurableEnv([refunds.workflow], replay=True) as env:
        handle = await env.durable.start(refunds.workflow)
        await env.until_idle()
        assert [use.id for use in await pending(handle)] == ["c 1", "c2"]
        await approve(handle, "c2", args={"cents": 7})
        await env.until_idle()
        await approve(handle, "c 1")
        assert await handle.result("10s") == "done"
    assert sorted(refunds.refunded) == [7, 500]
    assert refunds.paid.told_by_tools == ["refunded 500", "refunded 7"]


async def test_a_tool_may_ask_for_approval_itself_and_say_what_of() -> None:
    refunds = Refunds(call("give", "c1", cents=50), call("give", "c2", cents=500))
    async with DurableEnv([refunds.workflow], replay=True) as env:
        handle = await env.durable.start(refunds.workflow)
        await env.until_idle()
        assert refunds.refunded == [50]
        assert await pending(handle) == [ToolUse("c2", "give", {"cents": 500}, "waiting", {"limit": 100})]
        await approve(handle, "c2")
        assert await handle.result("10s") == "done"
    assert refunds.refunded == [50, 500]


async def test_a_run_ends_the_same_wherever_its_process_is_killed() -> None:
    refunds = Refunds(call("give", "c1", cents=500), call("give", "c2", cents=1))

    async def world(env: DurableEnv, handle: Handle[Any]) -> None:
        await approve(handle, "c1", by="ada")

    report = await crash_everywhere(refunds.workflow, drive=world, trust=["pydantic_ai"])
    assert report.runs > 2 * 10
    assert sorted(set(refunds.paid.told_by_tools), key=str) == ["gave 1", "gave 500"]


# ---- what is seen of it


async def test_progress_is_seen_from_outside_and_outlives_the_run() -> None:
    refunds = Refunds(call("refund", "c1", cents=500))
    async with DurableEnv([refunds.workflow]) as env:
        handle = await env.durable.start(refunds.workflow)
        assert await progress(handle) == Progress()
        await env.until_idle()
        waiting = ToolUse("c1", "refund", {"cents": 500}, "waiting")
        assert await progress(handle) == Progress(1, 5, 2, "", [waiting])
        seen: list[Progress] = []
        async for now in watch(handle, every=0.001):
            seen.append(now)
            if len(seen) == 1:
                await approve(handle, "c1")
        assert seen[0] == Progress(1, 5, 2, "", [waiting])
        returned = ToolUse("c1", "refund", {"cents": 500}, "returned")
        assert seen[-1] == await progress(handle) == Progress(2, 15, 5, "done", [returned])


async def test_a_response_is_streamed_once_while_it_comes() -> None:
    streamed: list[str] = []

    async def on_stream(events: AsyncIterable[ModelResponseStreamEvent]) -> None:
        async for event in events:
            match event:
                case PartStartEvent(part=TextPart(content=text)):
                    streamed.append(text)
                case PartDeltaEvent(delta=delta):
                    streamed.append(getattr(delta, "content_delta", ""))
                case _:
                    pass

    agent = Agent(Paid(says("a lamp is 12")).model)

    @workflow
    async def ask(ctx: Context) -> str:
        return (await agent.run("well?", capabilities=[AgentSteps(ctx, on_stream=on_stream)])).output

    async with DurableEnv([ask], replay=True) as env:
        handle = await env.durable.start(ask)
        assert await handle.result("10s") == "a lamp is 12 "
        await env.replay(handle)
    assert [text for text in streamed if text] == ["a ", "lamp ", "is ", "12 "]


async def test_who_streams_the_run_itself_sees_whole_responses() -> None:
    paid = Paid(says("a lamp is 12"))
    agent = Agent(paid.model)
    seen: list[object] = []

    @workflow
    async def ask(ctx: Context) -> str:
        async with agent.run_stream_events("well?", capabilities=[AgentSteps(ctx)]) as events:
            seen.extend([event async for event in events])
        return (await agent.run("well?", capabilities=[AgentSteps(ctx, name="other")])).output

    async with DurableEnv([ask], replay=True) as env:
        handle = await env.durable.start(ask)
        assert await handle.result("10s") == "a lamp is 12"
    assert paid.requests == [0, 0]
    assert "a lamp is 12 " in str(seen)


async def test_each_request_and_tool_call_is_traced_once_however_often_the_run_is_replayed() -> None:
    traced = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(traced))
    settings = InstrumentationSettings(tracer_provider=provider)
    agent = Agent(TestModel(), capabilities=[Instrumentation(settings=settings)])

    @agent.tool_plain
    async def count() -> int:
        return 7

    @workflow
    async def talk(ctx: Context) -> str:
        return (await agent.run("hello", capabilities=[AgentSteps(ctx)])).output

    async with DurableEnv([talk], replay=True) as env:
        await env.durable.start_and_wait(talk, timeout="10s")
    names = [span.name for span in traced.get_finished_spans() if not span.name.startswith("invoke_agent")]
    assert sorted(names) == ["chat test", "chat test", "execute_tool count"]
