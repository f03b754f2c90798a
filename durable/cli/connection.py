"""From a URL to a client of the store, and from as much of an id as somebody cares to type to the whole of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import typer

from durable.app import Durable
from durable.backends.sqlite.location import Location
from durable.cli.application import find_application
from durable.errors import ConfigurationError, ExecutionNotFound, InvalidInput
from durable.names import check_name

_CANDIDATES: Final = 10
_MOST_READ: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The options that say where the executions are."""

    store: Annotated[
        str | None,
        typer.Option(
            "--store", "-s", envvar="DURABLE_STORE_URL", metavar="URL", help="Where the executions are."
        ),
    ] = None
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace", "-n", envvar="DURABLE_NAMESPACE", metavar="NAME", help="And which of them."
        ),
    ] = "default"
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            envvar="DURABLE_QUEUE_URL",
            metavar="URL",
            help="The broker, if there is one beside the store.",
        ),
    ] = None
    bus: Annotated[
        str | None,
        typer.Option(
            "--bus",
            envvar="DURABLE_BUS_URL",
            metavar="URL",
            help="The event bus, if it is not the store's own.",
        ),
    ] = None

    def client(self) -> Durable:
        """A client, not entered yet.

        Raises:
            ConfigurationError: no store is named, or one that no other process can see, or a file that does not exist.
        """
        url = store_url(self.store)
        check_exists(url)
        return Durable(store=url, namespace=self.namespace, queue=self.queue, bus=self.bus, worker=False)

    def client_with(self, app: str | None) -> Durable:
        """The application that is named, as a client, not entered yet; without one as `client`.

        Raises:
            ConfigurationError: as `client`, or there is no such application.
        """
        if app is None:
            return self.client()
        durable = find_application(app).as_client()
        store_url(durable.store_url)
        return durable


def store_url(store: str | None) -> str:
    """The URL itself. Raises: `ConfigurationError` when none is named, or one that no other process can see."""
    if not store:
        raise ConfigurationError(
            "no store is named", "pass --store sqlite:///durable.db, or set DURABLE_STORE_URL"
        )
    if store.lower().startswith("memory:"):
        raise ConfigurationError(
            "memory:// is seen by one process only, and that is not this one",
            "use a store that is shared, such as sqlite:///durable.db",
        )
    return store


def check_exists(url: str) -> None:
    """A store that is a file would be made where a name is mistyped, and found empty.

    Raises:
        ConfigurationError: it is a file, and there is none.
    """
    if url.lower().startswith("sqlite:"):
        path = Location.parse(url).path
        if not path.exists():
            raise ConfigurationError(
                f"no such file: {path}",
                "check the path in --store or DURABLE_STORE_URL; the first worker or `durable start` makes the file",
            )


async def find_id(durable: Durable, given: str) -> str:
    """The id of the only execution whose id is, or begins with, what was given.

    Raises:
        ExecutionNotFound: there is none.
        InvalidInput: there are several, or no id looks like that.
    """
    check_name(given, "the id of an execution")
    try:
        return (await durable.status(given)).id
    except ExecutionNotFound:
        page = await durable.operator.list_executions(id_prefix=given, limit=_MOST_READ)
    # A child's id begins with its parent's and a slash: the start of both means the parent.
    heads = sorted({given + execution.id[len(given) :].partition("/")[0] for execution in page.items})
    if not heads:
        raise ExecutionNotFound(given)
    if len(heads) > 1 or page.cursor is not None:
        listed = ", ".join(heads[:_CANDIDATES]) + (" ..." if len(heads) > _CANDIDATES or page.cursor else "")
        raise InvalidInput(f"{given!r} begins the ids of several executions", f"write more of it: {listed}")
    return (await durable.status(heads[0])).id
