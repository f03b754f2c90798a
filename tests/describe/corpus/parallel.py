"""Side by side."""

from __future__ import annotations

import asyncio
from typing import Any

from durable import Context, workflow
from tests.describe.corpus.parts import pay, shipping, work


@workflow
async def gathered(ctx: Context) -> None:
    """
    start -> gather
    gather -> a
    gather -> shipping
    gather -> authorize
    a -> after
    shipping -> after
    authorize -> capture -> after
    after -> end
    """
    await ctx.gather(ctx.step("a", work), ctx.run(shipping, 1), pay(ctx, 3))
    await ctx.step("after", work)


@workflow
async def gathered_by_asyncio(ctx: Context) -> None:
    """
    start -> gather
    gather -> a
    gather -> b
    a -> end
    b -> end
    """
    await asyncio.gather(ctx.step("a", work), ctx.step("b", work))


@workflow
async def gathered_from_a_list(ctx: Context, items: list[int]) -> None:
    """
    start -> gather
    gather -> loop
    gather -> last
    loop -each-> item
    loop -done-> end
    item -> loop
    last -> end
    """
    calls = [ctx.step("item", work, item) for item in items]
    calls.append(ctx.step("last", work))
    await ctx.gather(*calls)


@workflow
async def appended_in_a_loop(ctx: Context, items: list[int]) -> None:
    """
    start -> loop
    loop -each-> item
    loop -done-> end
    item -> loop
    """
    calls = []
    for item in items:
        calls.append(ctx.step("item", work, item))  # noqa: PERF401
    await asyncio.gather(*calls)


@workflow
async def in_a_task_group(ctx: Context) -> None:
    """
    start -> gather
    gather -> authorize
    gather -> b
    authorize -> capture -> after
    b -> after
    after -> end
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(pay(ctx, 1))
        group.create_task(ctx.step("b", work))
    await ctx.step("after", work)


@workflow
async def beside(ctx: Context) -> None:
    """
    start -> sleep
    start -> work
    sleep -> remind -> after
    work -> after
    after -> end
    """

    async def clock() -> None:
        await ctx.sleep("1d")
        await ctx.step("remind", work)

    reminder = asyncio.create_task(clock())
    await ctx.step("work", work)
    await reminder
    await ctx.step("after", work)


@workflow
async def shielded(ctx: Context) -> None:
    """
    start -> kept -> end
    """
    await asyncio.shield(ctx.step("kept", work))


@workflow
async def handed_to_others(ctx: Context, runner: Any) -> None:
    """
    start -> inner -> loop
    loop -each-> mapped
    loop -done-> end
    mapped -> loop
    """

    async def inner() -> None:
        await ctx.step("inner", work)

    await runner.run(inner)
    await asyncio.gather(*map(lambda item: ctx.step("mapped", work, item), runner.items))  # noqa: C417
