"""An album: a child execution for each page, and within each page the pictures three at a time."""

import asyncio

from durable import Context, Durable, workflow


def thumbnail(picture: str) -> str:
    return picture.replace(".jpg", ".small.jpg")


@workflow
async def make_page(ctx: Context, pictures: list[str]) -> list[str]:
    return await ctx.map("thumbnail", thumbnail, pictures, limit=3)


@workflow
async def make_album(ctx: Context, pages: list[list[str]]) -> int:
    made = await ctx.gather(*(ctx.run(make_page, page) for page in pages))
    return sum(len(page) for page in made)


async def main() -> None:
    async with Durable([make_page, make_album], store="sqlite:///albums.db") as durable:
        pages = [["a.jpg", "b.jpg", "c.jpg", "d.jpg"], ["e.jpg"]]
        handle = await durable.start(make_album, pages)
        print("pictures:", await handle.result(timeout="30s"))
        detail = await durable.operator.get_execution_detail(handle.id)
        print("checkpoints:", sorted(record.id for record in detail.steps))


if __name__ == "__main__":
    asyncio.run(main())
