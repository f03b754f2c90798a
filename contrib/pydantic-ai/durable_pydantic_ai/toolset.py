"""A toolset whose calls are steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset
from typing_extensions import override

ToolStep: TypeAlias = Callable[[str, str, dict[str, Any], Callable[[], Awaitable[Any]]], Awaitable[Any]]


@dataclass
class StepToolset(WrapperToolset[Any]):
    """The toolset that it wraps, whose tools are called in a step each time."""

    tool_step: ToolStep

    @override
    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        async def call() -> Any:
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)

        return await self.tool_step(ctx.tool_call_id or name, name, tool_args, call)
