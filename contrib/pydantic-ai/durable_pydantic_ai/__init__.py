"""Pydantic AI agents whose model requests and tool calls are steps of a durable workflow.

    AgentSteps                        what an agent's run is given            steps
    approve, deny, pending            a person's part in it                   approvals
    progress, watch, Progress         what is seen of it from outside         progress
    storable                          messages, as they may be stored         messages

    @workflow
    async def answer(ctx: Context, question: str) -> str:
        result = await agent.run(question, capabilities=[AgentSteps(ctx)])
        return result.output

The agent is an ordinary one. `AgentSteps` is a capability of one run, and in its innermost place: it puts a step around
each request that leaves for a model and around each call of a tool's function. All else of the run (the agent's loop,
instructions, validators, other capabilities) is a part of the workflow's body, and is replayed with it.
"""

from durable_pydantic_ai.approvals import approve, deny, pending
from durable_pydantic_ai.messages import storable
from durable_pydantic_ai.progress import Progress, ToolUse, progress, watch
from durable_pydantic_ai.steps import AgentSteps

__all__ = [
    "AgentSteps",
    "Progress",
    "ToolUse",
    "approve",
    "deny",
    "pending",
    "progress",
    "storable",
    "watch",
]
