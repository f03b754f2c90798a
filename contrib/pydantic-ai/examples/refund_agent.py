"""A support agent that refunds money, once a person has let it."""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durable import Context, Durable, workflow
from durable_pydantic_ai import AgentSteps, approve, pending, progress, watch


async def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Stands in for a real model, and says what it would cost."""
    print(f"(a model request, with {len(messages)} messages)")
    if len(messages) == 1:
        return ModelResponse([ToolCallPart("find_order", {"customer": "grace"}, tool_call_id="1")])
    if len(messages) == 3:
        return ModelResponse([ToolCallPart("refund", {"order": "42", "cents": 1999}, tool_call_id="2")])
    return ModelResponse([TextPart("You get your 19.99 back.")])


agent = Agent(FunctionModel(scripted), instructions="You help customers.")  # Agent("openai:...") in earnest


@agent.tool_plain
async def find_order(customer: str) -> str:
    return "order 42: a lamp, 1999 cents"


@agent.tool_plain(requires_approval=True)
async def refund(order: str, cents: int) -> str:
    print(f"(refunding {cents} cents of order {order})")
    return "refunded"


@workflow
async def support(ctx: Context, question: str) -> str:
    steps = AgentSteps(ctx, model_retry=5, model_timeout="2m", approval_timeout="3d")
    result = await agent.run(question, capabilities=[steps])
    return result.output


async def main() -> None:
    async with Durable([support], store="sqlite:///support.db") as durable:
        handle = await durable.start(support, "My lamp is broken.", key="ticket-7")
        async for now in watch(handle, every=0.05):
            if any(use.state == "waiting" for use in now.tools):
                break
        for use in await pending(handle):
            print(f"ada is asked: {use.tool} {use.args}?")
            await approve(handle, use.id, by="ada")
        print(await handle.result())
        print("requests:", (await progress(handle)).requests)


if __name__ == "__main__":
    asyncio.run(main())
