"""A person's part in an agent's run: which tool calls wait for one, and what is decided about them.

A decision is a signal of its own for each call, so that calls may be decided in any order, also before the agent has
come to wait for it. The first decision about a call counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from durable import Handle, Signal
from durable_pydantic_ai.progress import ToolUse, progress


@dataclass(frozen=True)
class Decision:
    """What somebody has decided about a tool call."""

    approved: bool
    by: str = ""
    reason: str = ""
    """Told to the model, when the call is denied."""
    args: dict[str, JsonValue] | None = None
    """What the tool is called with instead."""


def decision(name: str, call_id: str) -> Signal[Decision]:
    """The signal that carries the decision about a tool call."""
    return Signal(f"{name}:decide:{plain(call_id)}", Decision)


def plain(text: str) -> str:
    """A text of others, as it may stand in a name: itself, or a digest of it."""
    if re.fullmatch(r"[A-Za-z0-9._-]{1,80}", text):
        return text
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


async def pending(handle: Handle[Any], *, name: str = "agent") -> list[ToolUse]:
    """The tool calls that wait for a person's approval, in the order of their asking.

    Raises:
        ExecutionNotFound: there is no such execution.
    """
    return [use for use in (await progress(handle, name=name)).tools if use.state == "waiting"]


async def approve(
    handle: Handle[Any],
    call_id: str,
    *,
    by: str = "",
    args: Mapping[str, JsonValue] | None = None,
    name: str = "agent",
) -> None:
    """Let a tool call happen, with other arguments if `args` are given. A second decision changes nothing.

    Raises:
        ExecutionNotFound: there is no such execution.
        ExecutionClosed: it has ended.
    """
    decided = Decision(True, by, args=None if args is None else dict(args))
    await handle.signal(decision(name, call_id), decided, key=f"{name}:{plain(call_id)}")


async def deny(
    handle: Handle[Any], call_id: str, *, by: str = "", reason: str = "", name: str = "agent"
) -> None:
    """Refuse a tool call. The model is told the reason, and goes on. A second decision changes nothing.

    Raises:
        ExecutionNotFound: there is no such execution.
        ExecutionClosed: it has ended.
    """
    decided = Decision(False, by, reason)
    await handle.signal(decision(name, call_id), decided, key=f"{name}:{plain(call_id)}")
