"""The application's `Durable`: entered with the application, and a dependency of its routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, TypeAlias, cast

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from durable import ConfigurationError, Durable

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def lifespan(
    durable: Durable, *, within: Lifespan | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """A lifespan that enters `durable` when the application starts, and leaves it, which drains, when it ends.

    `within` is a lifespan of your own. What it opens is open before the first workflow runs and until the last one has
    been put aside, and what it yields is in `request.state` beside the `durable` of this one.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncGenerator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            state: dict[str, Any] = {}
            if within is not None:
                opened = await stack.enter_async_context(within(app))
                state.update(opened or {})
            await stack.enter_async_context(durable)
            yield {**state, "durable": durable}

    return run


def get_durable(connection: HTTPConnection) -> Durable:
    """The `Durable` of the application that serves this request.

    Raises:
        ConfigurationError: the application was made without `lifespan`.
    """
    durable = cast("object", getattr(connection.state, "durable", None))
    if not isinstance(durable, Durable):
        raise ConfigurationError(
            "this application has no Durable", "make it with FastAPI(lifespan=lifespan(durable))"
        )
    return durable


DurableDep = Annotated[Durable, Depends(get_durable)]
"""For a route's parameter: `async def order(order: Order, durable: DurableDep): ...`."""
