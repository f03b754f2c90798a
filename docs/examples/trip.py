"""A trip of three bookings: when one of them fails, those before it are cancelled, newest first."""

import asyncio

from durable import Context, Durable, ExecutionFailed, Fail, step, workflow


@step(retry=3)
async def book_flight(trip: str) -> str:
    print("booked a flight")
    return f"flight-{trip}"


@book_flight.undo
async def cancel_flight(flight: str) -> None:
    print(f"cancelled {flight}")


async def book_room(trip: str) -> str:
    print("booked a room")
    return f"room-{trip}"


async def cancel_room(room: str) -> None:
    print(f"cancelled {room}")


async def rent_car(trip: str) -> str:
    raise Fail("no car is left", code="no_car", details={"trip": trip})


@workflow
async def book_trip(ctx: Context, trip: str) -> list[str]:
    async with ctx.saga():
        flight = await ctx.step(book_flight, trip)
        room = await ctx.step("room", timeout="10s").up(book_room, trip).down(cancel_room)
        car = await ctx.step("car", rent_car, trip)
    return [flight, room, car]


async def main() -> None:
    async with Durable([book_trip], store="sqlite:///trips.db") as durable:
        handle = await durable.start(book_trip, "oslo")
        try:
            await handle.result(timeout="30s")
        except ExecutionFailed as error:
            print(f"{error.code}: {error.message}")


if __name__ == "__main__":
    asyncio.run(main())
