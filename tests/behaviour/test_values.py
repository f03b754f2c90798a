"""Values: what a body sees is what is stored, on the first run as on every replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel

from durable import Context, Signal, WaitTimeout, workflow
from tests.support import World, reaches, steps, until

Go = Signal("go")


class Colour(Enum):
    RED = "red"


class Item(BaseModel):
    sku: str
    price: Decimal


@dataclass
class Order:
    id: UUID
    items: list[Item]
    at: datetime
    notes: dict[str, str] = field(default_factory=dict)


class Size(TypedDict):
    width: int
    height: int


THE_ORDER = Order(UUID(int=7), [Item(sku="a", price=Decimal("1.10"))], datetime(2024, 5, 1, 12, tzinfo=UTC))


def gives_tuple() -> tuple[int, str]:
    return 1, "a"


def gives_untyped_tuple():
    return 1, "a"


def gives_order() -> Order:
    return THE_ORDER


def gives_union() -> int | Item | None:
    return Item(sku="b", price=Decimal(2))


def gives_scalars() -> tuple[datetime, date, timedelta, Decimal, UUID, bytes, Colour]:
    at = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
    return (
        at,
        at.date(),
        timedelta(days=3, microseconds=5),
        Decimal("0.10"),
        UUID(int=1),
        b"\x00\xff",
        Colour.RED,
    )


def gives_size() -> Size:
    return {"width": 1, "height": 2}


def gives_sets() -> tuple[set[int], frozenset[str], dict[int, str]]:
    return {3, 1}, frozenset({"x"}), {1: "one"}


def gives_big_numbers() -> tuple[int, float, float]:
    return 1234567890123456789012345, 0.1, 1e300


def gives_text() -> list[str]:
    return ["", "ü\U0001f600", "\x00", "\u2028", '"\\', "x" * 10_000]


def gives_literal() -> Literal["a", "b"]:
    return "b"


@pytest.mark.parametrize(
    "fn",
    [
        gives_tuple,
        gives_order,
        gives_union,
        gives_scalars,
        gives_size,
        gives_sets,
        gives_big_numbers,
        gives_text,
        gives_literal,
    ],
)
async def test_a_typed_value_is_the_same_on_the_first_run_and_on_a_replay(world: World, fn: Any) -> None:
    seen: list[object] = []

    @workflow
    async def typed(ctx: Context) -> None:
        seen.append(await ctx.step("value", fn))
        await ctx.wait_for_signal(Go)

    handle = await (await world.node(typed)).start(typed)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id, typed).result(5)
    assert len(seen) >= 2
    for value in seen:
        assert value == fn()
        assert type(value) is type(fn())


UNTYPED = {
    "tuple": gives_untyped_tuple,
    "datetime": lambda: datetime(2024, 1, 1, tzinfo=UTC),
    "nested": lambda: {"a": [(2, 3)]},
    "dataclass": lambda: THE_ORDER,
    "model": lambda: Item(sku="a", price=Decimal(1)),
}


@pytest.mark.parametrize("fn", UNTYPED.values(), ids=UNTYPED)
async def test_an_untyped_value_is_the_same_on_the_first_run_and_on_a_replay(world: World, fn: Any) -> None:
    seen: list[object] = []

    @workflow
    async def untyped(ctx: Context) -> None:
        seen.append(await ctx.step("value", fn))
        await ctx.wait_for_signal(Go)

    handle = await (await world.node(untyped)).start(untyped)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id, untyped).result(5)
    assert len(seen) >= 2
    assert all(value == seen[0] and type(value) is type(seen[0]) for value in seen)


async def test_changing_what_a_step_gave_changes_no_checkpoint(world: World) -> None:
    kept: list[int] = [1]
    seen: list[list[int]] = []

    def give() -> list[int]:
        return kept

    @workflow
    async def careless(ctx: Context) -> list[int]:
        value = await ctx.step("list", give)
        seen.append(list(value))
        value.append(2)
        kept.append(3)
        await ctx.wait_for_signal(Go)
        return value

    handle = await (await world.node(careless)).start(careless)
    await reaches(handle, "waiting")
    node = await world.restart()
    assert (await steps(node, handle))["list"].result == [1]
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, careless).result(5) == [1, 2]
    assert all(value == [1] for value in seen)


async def test_a_step_gives_what_is_stored_and_not_the_object_itself(world: World) -> None:
    @workflow
    async def compares(ctx: Context) -> tuple[bool, bool]:
        value = await ctx.step("order", gives_order)
        return value is THE_ORDER, value == THE_ORDER

    node = await world.node(compares)
    assert await node.start_and_wait(compares, timeout=5) == (False, True)


async def test_inputs_and_results_have_the_types_of_their_annotations(world: World) -> None:
    @workflow
    async def typed(ctx: Context, order: Order) -> Order:
        assert isinstance(order.items[0].price, Decimal)
        return order

    node = await world.node(typed)
    handle = await node.start(typed, THE_ORDER)
    assert await handle.result(5) == THE_ORDER
    other = await world.restart()
    assert await other.handle(handle.id, typed).result(5) == THE_ORDER
    assert await other.wait(handle.id, 5) == THE_ORDER


async def test_a_model_is_validated_from_what_it_looks_like(world: World) -> None:
    @workflow
    async def typed(ctx: Context, item: Item) -> str:
        return item.sku

    node = await world.node(typed)
    assert await node.start_and_wait(typed, {"sku": "a", "price": "2"}, timeout=5) == "a"  # type: ignore[arg-type]


class Connection:
    """No JSON."""


UNSTORABLE = {"object": Connection(), "set": {1, object()}, "function": len, "cycle": (cycle := [])}
cycle.append(cycle)


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
async def test_a_value_that_cannot_be_stored_parks_the_execution(world: World, value: object) -> None:
    ran: list[int] = []

    def give():
        ran.append(1)
        return value

    @workflow
    async def unstorable(ctx: Context) -> None:
        await ctx.step("connect", give)

    node = await world.node(unstorable)
    handle = await node.start(unstorable)
    execution = await reaches(handle, "parked")
    assert execution.code == "not_serializable"
    assert execution.error is not None
    assert "connect" in execution.error.message
    with pytest.raises(WaitTimeout, match="connect"):
        await handle.result(0.1)
    node = await world.restart()
    with pytest.raises(WaitTimeout, match="parked"):
        await node.handle(handle.id).result(0.3)
    assert ran == [1]
    assert [e.id for e in (await node.operator.list_stuck()).items] == [handle.id]
    assert "connect" in await node.operator.explain(handle.id)


async def test_a_value_that_is_too_large_parks_the_execution(world: World) -> None:
    @workflow
    async def large(ctx: Context) -> int:
        return len(await ctx.step("download", lambda: "x" * 5_000_000))

    node = await world.node(large)
    handle = await node.start(large)
    execution = await reaches(handle, "parked")
    assert execution.code == "payload_too_large"
    with pytest.raises(WaitTimeout, match="download"):
        await handle.result(0.05)


async def test_a_result_that_cannot_be_stored_parks_the_execution(world: World) -> None:
    @workflow
    async def careless(ctx: Context) -> Any:
        return Connection()

    node = await world.node(careless)
    handle = await node.start(careless)
    await reaches(handle, "parked")
    with pytest.raises(WaitTimeout, match="careless"):
        await handle.result(0.05)


async def test_a_value_of_the_wrong_type_parks_the_execution(world: World) -> None:
    def wrong() -> int:
        return "no number"  # type: ignore[return-value]

    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.step("count", wrong)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "parked")
    with pytest.raises(WaitTimeout, match="count"):
        await handle.result(0.05)


async def test_a_parked_execution_goes_on_with_mended_code_when_it_is_retried(world: World) -> None:
    ran: list[str] = []

    def first() -> int:
        ran.append("first")
        return 1

    def broken() -> Any:
        ran.append("broken")
        return Connection()

    def mended() -> int:
        ran.append("mended")
        return 2

    def version(second: Any) -> Any:
        @workflow(name="order")
        async def order(ctx: Context) -> int:
            return await ctx.step("first", first) + await ctx.step("second", second)

        return order

    handle = await (await world.node(version(broken))).start(version(broken))
    await reaches(handle, "parked")
    node = await world.restart(version(mended))
    await node.operator.retry(handle.id)
    assert await node.handle(handle.id).result(5) == 3
    assert ran == ["first", "broken", "mended"]


async def test_a_parked_execution_is_left_alone_until_somebody_repairs_it(world: World) -> None:
    ran: list[int] = []

    @workflow
    async def order(ctx: Context) -> None:
        ran.append(1)
        await ctx.step("connect", Connection)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "parked")
    times = len(ran)
    await handle.signal(Go)
    node = await world.restart()
    other = await node.start(order)
    await reaches(other, "parked")
    await until(lambda: len(ran) == 2 * times)
    assert (await node.status(handle.id)).status == "parked"


async def test_a_parked_execution_can_be_cancelled(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("connect", Connection)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "parked")
    await handle.cancel("not worth it")
    await reaches(handle, "cancelled")
