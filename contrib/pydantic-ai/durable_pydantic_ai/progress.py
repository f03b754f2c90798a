"""What is seen of an agent's run from outside: a value of the execution that it runs in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal

from anyio import sleep
from pydantic import JsonValue, TypeAdapter
from pydantic_ai.messages import ModelResponse

from durable import Handle

ToolState = Literal["waiting", "running", "returned", "denied", "failed"]


@dataclass
class ToolUse:
    """A tool that the model has asked for."""

    id: str
    """Of the call, as the model gave it: what `approve` and `deny` take."""
    tool: str
    args: dict[str, JsonValue]
    state: ToolState
    """`waiting` for a person's approval; `failed` as well where the model is asked to try again."""
    about: JsonValue = None
    """What the tool said of the approval that it needs: the metadata of its `ApprovalRequired`."""


@dataclass
class Progress:
    """How far a run has come. It is stored with the execution, and outlives the process."""

    requests: int = 0
    """How often the model has answered."""
    input_tokens: int = 0
    output_tokens: int = 0
    text: str = ""
    """What the model said last."""
    tools: list[ToolUse] = field(default_factory=list[ToolUse])

    def answered(self, response: ModelResponse) -> None:
        """Count a response of the model."""
        self.requests += 1
        self.input_tokens += response.usage.input_tokens
        self.output_tokens += response.usage.output_tokens
        self.text = response.text or self.text

    def tool(
        self, id: str, tool: str, args: dict[str, Any], state: ToolState, about: JsonValue = None
    ) -> None:
        """Say where a tool call is."""
        use = ToolUse(id, tool, _JSON.validate_python(_ANY.dump_python(args, mode="json")), state, about)
        known = [index for index, other in enumerate(self.tools) if other.id == id]
        if known:
            self.tools[known[0]] = use
        else:
            self.tools.append(use)


_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_JSON = TypeAdapter(dict[str, JsonValue])
_PROGRESS = TypeAdapter(Progress)


def value_name(name: str) -> str:
    """The name of the value that holds the progress of the agent called `name`."""
    return f"{name}:progress"


def shown(progress: Progress) -> object:
    """Plain JSON."""
    return _PROGRESS.dump_python(progress, mode="json")


async def progress(handle: Handle[Any], *, name: str = "agent") -> Progress:
    """How far the agent called `name` has come in an execution. `name` is that of its `AgentSteps`.

    Raises:
        ExecutionNotFound: there is no such execution.
    """
    value = await handle.value(value_name(name))
    return Progress() if value is None else _PROGRESS.validate_python(value)


async def watch(handle: Handle[Any], *, name: str = "agent", every: float = 0.5) -> AsyncGenerator[Progress]:
    """Each progress that differs from the one before, as it is seen by looking `every` so many seconds.

    It ends when the execution has ended. One that comes late, or after a crash, begins with what is so far.

    Raises:
        ExecutionNotFound: there is no such execution.
    """
    seen = Progress()
    while True:
        ended = (await handle.status()).status.final  # before the value, so that the last one is not missed
        now = await progress(handle, name=name)
        if now != seen:
            seen = now
            yield now
        if ended:
            return
        await sleep(every)
