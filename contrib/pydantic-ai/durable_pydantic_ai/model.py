"""A model whose requests are steps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RequestUsage
from typing_extensions import override

OnStream: TypeAlias = Callable[[AsyncIterable[ModelResponseStreamEvent]], Awaitable[None]]
ModelStep: TypeAlias = Callable[[Callable[[], Awaitable[ModelResponse]]], Awaitable[ModelResponse]]
CountStep: TypeAlias = Callable[[Callable[[], Awaitable[RequestUsage]]], Awaitable[RequestUsage]]


class StepModel(WrapperModel):
    """The model that it wraps, asked in a step each time."""

    def __init__(
        self, wrapped: Model, model_step: ModelStep, count_step: CountStep, on_stream: OnStream | None
    ) -> None:
        super().__init__(wrapped)
        self._model_step = model_step
        self._count_step = count_step
        self._on_stream = on_stream

    @override
    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async def request() -> ModelResponse:
            if self._on_stream is None:
                return await self.wrapped.request(messages, model_settings, model_request_parameters)
            return await self._streamed(self._on_stream, messages, model_settings, model_request_parameters)

        return await self._model_step(request)

    @override
    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[CompletedStreamedResponse]:
        async def request() -> ModelResponse:
            on_stream = self._on_stream or _drain
            return await self._streamed(
                on_stream, messages, model_settings, model_request_parameters, run_context
            )

        response = await self._model_step(request)
        # Who reads the stream in the body gets the whole response, on the first run as on a replay.
        yield CompletedStreamedResponse(
            response, model_request_parameters=model_request_parameters, replay_events=True
        )

    async def _streamed(
        self,
        on_stream: OnStream,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> ModelResponse:
        streaming = self.wrapped.request_stream(
            messages, model_settings, model_request_parameters, run_context
        )
        async with streaming as stream:
            events = aiter(stream)
            await on_stream(events)
            await _drain(events)  # what nobody took is a part of the response all the same
            return stream.get()

    @override
    async def count_tokens(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> RequestUsage:
        return await self._count_step(
            lambda: self.wrapped.count_tokens(messages, model_settings, model_request_parameters)
        )


async def _drain(events: AsyncIterable[ModelResponseStreamEvent]) -> None:
    async for _ in events:
        pass
