"""Which server is the master now: a question to Sentinels."""

from __future__ import annotations

from durable.backends.redis.link import Manners, dial, pack
from durable.backends.redis.location import Endpoint, Location
from durable.backends.redis.race import first_of
from durable.errors import StoreUnavailable


async def find_master(location: Location, manners: Manners) -> Endpoint:
    """Where the first Sentinel that answers says the master is. It may be wrong: ask the master for its role.

    Raises: `StoreUnavailable` when no Sentinel answers, or those that do know no such master.
    """
    return await first_of(_ask(sentinel, location, manners) for sentinel in location.endpoints)


async def _ask(sentinel: Endpoint, location: Location, manners: Manners) -> Endpoint:
    link, greeting = await dial(sentinel, manners, shown=location.shown)
    try:
        if greeting.mode != "sentinel":
            raise StoreUnavailable(
                f"{sentinel} ({location.shown}) is no Sentinel",
                "name the Sentinels; or end the URL with a database number instead of a master's name",
            )
        name = location.master or ""
        answer = await link.send(pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)))
        match answer:
            case [bytes(host), bytes(port)]:
                return Endpoint(host.decode(), int(port))
            case _:
                raise StoreUnavailable(
                    f"the Sentinel at {sentinel} ({location.shown}) knows no master {name!r}",
                    "let the URL end with the name that stands in `sentinel monitor`",
                )
    finally:
        link.abort("it has answered")
