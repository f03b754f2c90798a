"""`AgentSteps`: what makes one run of an agent a part of a workflow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeAlias, TypeVar

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering, WrapRunHandler
from pydantic_ai.durable_exec import record_durable_unit, replay_scope
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import (
    DeferredToolRequests,
    DeferredToolResults,
    RunContext,
    ToolApproved,
    ToolDenied,
)
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_jsonable_python
from typing_extensions import override

from durable import Context, InvalidInput, Received, Retry, TimedOut
from durable_pydantic_ai.approvals import Decision, decision, plain
from durable_pydantic_ai.messages import storable
from durable_pydantic_ai.model import OnStream, StepModel
from durable_pydantic_ai.outcomes import Outcome, Refused, outcome_of, value_of
from durable_pydantic_ai.progress import Progress, ToolState, shown, value_name
from durable_pydantic_ai.toolset import StepToolset

T = TypeVar("T")
Duration: TypeAlias = timedelta | float | str


class AgentSteps(AbstractCapability[object]):
    """Make one run of an agent a part of the workflow that `ctx` belongs to.

        result = await agent.run(question, capabilities=[AgentSteps(ctx, approval_timeout="3d")])

    Each request to a model is a step, `agent:model`, and each call of a tool another one, `agent:tool:search`, under
    the `name` that is given here: two agents of one workflow have two names. A response that is stored is never asked
    for again, and a tool that has returned is not called again. A process that dies in the middle of a request has
    the request made again, as it does with any step.

    `model_retry`, `model_timeout`, `tool_retry` and `tool_timeout` are what they are for steps. A tool call that needs
    a person's approval waits for `approve` or `deny`, for `approval_timeout` or without a limit, and holds no slot
    meanwhile; one that nobody decides is denied. `on_stream` is given the events of each response while it comes, in
    the process and at the time of the request; a replay gives it nothing.

    Raises:
        InvalidInput: the name is none that a step can have.
    """

    def __init__(
        self,
        ctx: Context[Any],
        *,
        name: str = "agent",
        model_retry: Retry | int | None = None,
        model_timeout: Duration | None = None,
        tool_retry: Retry | int | None = None,
        tool_timeout: Duration | None = None,
        approval_timeout: Duration | None = None,
        on_stream: OnStream | None = None,
    ) -> None:
        self._on_stream = on_stream
        self._ctx = ctx
        # Pydantic AI makes tasks of its own, and may make others in its next version. Calls of `ctx` are made in the
        # branch that this is made in, so that no name of a checkpoint says which task asked.
        self._here = copy_context().run
        self._name = _checked(name)
        self._model = (model_retry, model_timeout)
        self._tool = (tool_retry, tool_timeout)
        self._approval_timeout = approval_timeout
        self._progress = Progress()

    # ---- steps

    async def _model_step(self, request: Callable[[], Awaitable[ModelResponse]]) -> ModelResponse:
        """The response, from its checkpoint if there is one."""

        async def model_request() -> ModelResponse:
            return storable([await request()])[0]

        response = await self._step(f"{self._name}:model", self._model, model_request)
        self._progress.answered(response)
        await self._show()
        return response

    async def _count_step(self, request: Callable[[], Awaitable[RequestUsage]]) -> RequestUsage:
        """How many tokens a request would take: providers are asked for that."""

        async def count_tokens() -> RequestUsage:
            return await request()

        return await self._step(f"{self._name}:count", self._model, count_tokens)

    async def _tool_step(
        self, call_id: str, tool: str, args: dict[str, Any], call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """What the tool returns or raises, from its checkpoint if there is one."""

        async def tool_call() -> Outcome:
            return await outcome_of(tool, call())

        await self._show_tool(call_id, tool, args, "running")
        outcome = await self._step(f"{self._name}:tool:{plain(tool)}:{plain(call_id)}", self._tool, tool_call)
        if not (isinstance(outcome, Refused) and outcome.how in {"approval", "deferred"}):
            state: ToolState = "failed" if isinstance(outcome, Refused) else "returned"
            await self._show_tool(call_id, tool, args, state)
        return value_of(outcome)

    async def _step(
        self, id: str, options: tuple[Retry | int | None, Duration | None], fn: Callable[[], Awaitable[T]]
    ) -> T:
        retry, timeout = options
        ran = False

        @wraps(fn)
        async def run() -> T:
            nonlocal ran
            ran = True
            return await fn()

        try:
            return await self._here(lambda: self._ctx.step(id, retry=retry, timeout=timeout).up(run))
        finally:
            record_durable_unit(executed=ran)

    # ---- progress

    async def _show(self) -> None:
        await self._here(self._ctx.set_value, value_name(self._name), shown(self._progress))

    async def _show_tool(
        self, call_id: str, tool: str, args: dict[str, Any], state: ToolState, about: Any = None
    ) -> None:
        self._progress.tool(call_id, tool, args, state, about)
        await self._show()

    # ---- what the agent's run asks of a capability

    @override
    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    @override
    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        with replay_scope():  # spans and metrics of what is only replayed were reported before
            return await handler()

    @override
    def get_default_run_id(self) -> str:
        return str(self._here(self._ctx.uuid4))

    @override
    def get_default_conversation_id(self, run_id: str) -> str:
        return str(self._here(self._ctx.uuid4))

    @override
    def get_run_clock(self) -> Callable[[], datetime]:
        return lambda: self._here(self._ctx.now)

    @override
    def get_wrapper_model(self, model: Model) -> Model:
        return StepModel(model, self._model_step, self._count_step, self._on_stream)

    @override
    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return StepToolset(toolset, self._tool_step)

    @override
    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Wait for a person's decision about each call that needs one. Other calls are left to others."""
        if not requests.approvals:
            return None
        for call in requests.approvals:
            about = to_jsonable_python(requests.metadata.get(call.tool_call_id), fallback=repr)
            await self._show_tool(call.tool_call_id, call.tool_name, call.args_as_dict(), "waiting", about)
        # They begin to wait at once, each until its own time is up.
        waits = [self._decision(call) for call in requests.approvals]
        results = DeferredToolResults()
        for call, decided in zip(requests.approvals, await self._here(self._ctx.gather, *waits), strict=True):
            answer = _answer(decided)
            results.approvals[call.tool_call_id] = answer
            await self._note(call, answer, "nobody" if decided is None else decided.by)
            if isinstance(answer, ToolDenied):
                await self._show_tool(call.tool_call_id, call.tool_name, call.args_as_dict(), "denied")
        return results

    async def _note(self, call: ToolCallPart, answer: ToolApproved | ToolDenied, by: str) -> None:
        verb = "approved" if isinstance(answer, ToolApproved) else "denied"
        text = f"{call.tool_name} was {verb}"
        await self._here(lambda: self._ctx.note(text, call=call.tool_call_id, by=by))

    def _decision(self, call: ToolCallPart) -> Awaitable[Decision | None]:
        """What is decided about a call; None when its time is up."""
        signal = decision(self._name, call.tool_call_id)
        timeout = self._approval_timeout
        if timeout is None:
            return self._here(self._ctx.wait_for_signal, signal)
        return _received(self._here(lambda: self._ctx.wait_for_signal(signal, timeout=timeout)))


def _checked(name: str) -> str:
    if plain(name) != name:
        raise InvalidInput(f"an agent's steps cannot be called {name!r}", "use up to 80 of A-Z a-z 0-9 . _ -")
    return name


async def _received(wait: Awaitable[Received[Decision] | TimedOut]) -> Decision | None:
    outcome = await wait
    return outcome.payload if isinstance(outcome, Received) else None


def _answer(decided: Decision | None) -> ToolApproved | ToolDenied:
    if decided is None:
        return ToolDenied("Nobody has approved it in time.")
    if decided.approved:
        return ToolApproved(override_args=decided.args)
    return ToolDenied(decided.reason) if decided.reason else ToolDenied()
