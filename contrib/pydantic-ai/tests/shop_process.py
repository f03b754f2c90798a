"""A process that runs an agent, to be killed: `python shop_process.py DIRECTORY [approve]`.

It writes each model request and each tool call into a ledger before it is made, and says on its standard output where
it is.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durable import Context, Durable, workflow
from durable_pydantic_ai import AgentSteps, approve, watch

DIRECTORY = Path(sys.argv[1])


def write(line: str) -> None:
    with (DIRECTORY / "ledger").open("a") as ledger:
        ledger.write(f"{line}\n")
        ledger.flush()
        os.fsync(ledger.fileno())


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    turn = sum(isinstance(message, ModelResponse) for message in messages)
    write(f"request {turn}")
    return ModelResponse(
        [
            [ToolCallPart("look_up", {"item": "lamp"}, tool_call_id="c1")],
            [ToolCallPart("buy", {"item": "lamp"}, tool_call_id="c2")],
            [TextPart("bought")],
        ][turn]
    )


agent = Agent(FunctionModel(answer))


@agent.tool_plain
async def look_up(item: str) -> int:
    write("look up")
    if (DIRECTORY / "ledger").read_text().count("look up") == 1:
        print("looking up", flush=True)
        await asyncio.Event().wait()  # until it is killed
    return 12


@agent.tool_plain(requires_approval=True)
async def buy(item: str) -> str:
    write("buy")
    return f"a {item}"


@workflow
async def shop(ctx: Context, item: str) -> str:
    return (await agent.run(f"buy a {item}", capabilities=[AgentSteps(ctx)])).output


async def main() -> None:
    store = f"sqlite:///{DIRECTORY / 'shop.db'}"
    async with Durable([shop], store=store, lease="1s", sweep="100ms") as durable:
        handle = await durable.start(shop, "lamp", key="lamp")
        async for now in watch(handle, every=0.02):
            if any(use.state == "waiting" for use in now.tools):
                print("waiting", flush=True)
                if sys.argv[2:] == ["approve"]:
                    await approve(handle, "c2", by="ada")
        print(await handle.result("30s"), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
