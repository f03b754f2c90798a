"""Again and again."""

from __future__ import annotations

from durable import Context, workflow
from tests.describe.corpus.parts import Ping, pages, work


@workflow
async def for_each(ctx: Context, items: list[int]) -> None:
    """
    start -> loop
    loop -each-> item
    loop -done-> done
    item -> loop
    done -> end
    """
    for item in items:
        await ctx.step("item", work, item)
    await ctx.step("done", work)


@workflow
async def until_it_is_good(ctx: Context) -> None:
    """
    start -> loop
    loop -each-> try
    try -> decision
    decision -false-> sleep
    decision -true-> end
    sleep -> loop
    """
    while True:
        if await ctx.step("try", work):
            break
        await ctx.sleep("10s")


@workflow
async def for_ever(ctx: Context) -> None:
    """
    start -> loop
    loop -each-> ping
    ping -> loop
    """
    while True:
        await ctx.wait_for_signal(Ping)


@workflow
async def skipping(ctx: Context, items: list[int]) -> None:
    """
    start -> loop
    loop -each-> decision
    loop -done-> all
    decision -true-> loop
    decision -false-> decision#2
    decision#2 -false-> item
    decision#2 -true-> end
    item -> loop
    all -> end
    """
    for item in items:
        if not item:
            continue
        if item > 9:
            break
        await ctx.step("item", work)
    else:
        await ctx.step("all", work)


@workflow
async def in_a_comprehension(ctx: Context, items: list[int]) -> list[int]:
    """
    start -> loop
    loop -each-> each
    loop -done-> end
    each -> loop
    """
    return [await ctx.step("each", work, item) for item in items if item]


@workflow
async def nested_loops(ctx: Context, rows: list[list[int]]) -> None:
    """
    start -> loop
    loop -each-> row
    loop -done-> end
    row -> loop#2
    loop#2 -each-> cell
    loop#2 -done-> loop
    cell -> loop#2
    """
    for row in rows:
        await ctx.step("row", work)
        for cell in row:
            await ctx.step("cell", work, cell)


@workflow
async def through_a_generator(ctx: Context) -> None:
    """
    start -> loop
    loop -each-> fetch
    loop -done-> end
    fetch -> store -> loop
    """
    async for page in pages(ctx):
        await ctx.step("store", work, page)


@workflow
async def by_name(ctx: Context) -> None:
    """
    start -> loop
    loop -each-> decision
    loop -done-> end
    decision -pick-> pick
    decision -pack-> pack
    pick -> loop
    pack -> loop
    """
    for name in ("pick", "pack"):
        await ctx.step(name, work)


@workflow
async def mapped(ctx: Context, items: list[int]) -> list[int]:
    """
    start -> thumb -> end
    """
    return await ctx.map("thumb", work, items, limit=3)
