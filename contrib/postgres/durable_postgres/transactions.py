"""Transactions in which a user's rows and executions are written together.

start(connection=...) ──▶ enlist: the verbs, on the user's own connection
ctx.transaction ────────▶ LentTransaction: a connection of ours, lent until its end ──▶ enlist: the verbs, beside it

The verbs are those of `durable.serve`, asked and answered in texts of a type that no codec can be set for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, cast, final

from typing_extensions import override

from durable.errors import DurableError, InvalidInput, StoreUnavailable
from durable.protocols import (
    Batch,
    Committed,
    Created,
    Diverged,
    Emit,
    Exists,
    Fenced,
    Full,
    Joined,
    Message,
    NewExecution,
    NotPosted,
    Posted,
    Sent,
    Writes,
)
from durable_postgres import answers, requests
from durable_postgres.driver import Connection, DriverError, Row, ServerError, is_connection, lend, take_back
from durable_postgres.errors import FAILURES, is_conflict, sqlstate, translate
from durable_postgres.literal import literal
from durable_postgres.location import Location
from durable_postgres.pool import Pool, Share, set_up
from durable_postgres.requests import Request
from durable_postgres.texts import stored
from durable_postgres.writer import run

WIDTH: Final = 4
"""So many transactions of ours are open at one time."""

_SERVER: Final = """
    SELECT d.oid::text || ' ' || extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text
    FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
"""
"""Which database of which running server, whatever name and pooler led to it."""
_PROBE: Final = """
    SELECT pg_catalog.textout(pg_catalog.json_build_array(
        (SELECT d.oid::text || ' ' || extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text
         FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()),
        pg_catalog.current_setting('transaction_isolation'),
        pg_catalog.current_setting('transaction_read_only'),
        (SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
         FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
         WHERE n.nspname = 'durable' AND c.relname = 'executions')
    )::text)
"""
_SERVE: Final = """
    SELECT pg_catalog.textout(durable.serve_text(
        pg_catalog.int4in($1), pg_catalog.textin($2),
        pg_catalog.textin($3), pg_catalog.textin($4), pg_catalog.boolin($5)
    ))
"""
_SEND: Final = """
    SELECT pg_catalog.textout(durable.send_text(
        pg_catalog.int4in($1), pg_catalog.textin($2), pg_catalog.textin($3), pg_catalog.textin($4)
    ))
"""
_COMMIT: Final = "SELECT 1; COMMIT"
"""A COMMIT alone would roll back, and raise nothing, when a statement had failed and was not heeded."""
_ISOLATED: Final = (
    "begin it as READ COMMITTED: executions change while others wait for it, and it has to see that"
)
_AGAIN: Final = "run the whole transaction again"
_FAILED: Final = "25P02"
_WRONG_TRANSACTION: Final = {
    _FAILED: "a statement of the transaction failed before, and PostgreSQL keeps nothing of it: let its error go on, "
    "or put what may fail into a savepoint, `async with connection.transaction()`",
    "25001": _ISOLATED,
    "25006": "begin a transaction that may write",
}


@final
class Transactions:
    """Those of one open store, on connections apart from all others of it."""

    def __init__(self, location: Location, ns: int, channel: str, share: Share, *, patience_s: float) -> None:
        """`channel`: where who waits for something listens. `share`: of the store's other connections, to ask which
        database they lead to."""
        self.place = str(ns), channel
        self.patience_s = patience_s
        self._others = share
        self._server = ""
        self._pool = Pool(location, patience_s=None)
        self._free = asyncio.Semaphore(WIDTH)
        self._lent: set[int] = set()
        """By `id`: what is in somebody's hands. It needs not be asked what it is."""

    async def close(self) -> None:
        await self._pool.close()

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        return LentTransaction(self)

    async def enlist(self, connection: object) -> Writes:
        if not is_connection(connection):
            raise InvalidInput(
                f"connection is of type {type(connection).__name__}, and this store takes an asyncpg.Connection",
                "give it asyncpg's own connection, which the transaction is on",
            )
        ours = cast("Connection", connection)
        _in_transaction(ours)
        if id(ours) in self._lent:
            return Enlisted(self.place, ours, self.patience_s)
        await self._check(ours)
        return Enlisted(self.place, ours, None)

    async def _check(self, connection: Connection) -> None:
        try:
            server, isolation, is_read_only, is_allowed = json.loads(await connection.fetchval(_PROBE))
        except FAILURES as error:
            raise _refusal(connection, error) from error
        if server != self._server:
            [(self._server,)] = await run(self._others, _SERVER)  # it may have been started again
        if server != self._server:
            raise InvalidInput(
                "the connection is to another database than the store's, or to another server",
                "executions and rows are committed together in one database only: connect to the store's",
            )
        if isolation not in ("read committed", "read uncommitted"):
            raise InvalidInput(f"the transaction is {isolation}", _ISOLATED)
        if is_read_only != "off":
            raise InvalidInput("the transaction is read-only", _WRONG_TRANSACTION["25006"])
        if not is_allowed:
            raise InvalidInput(
                "the user of the connection may not write durable's tables",
                "GRANT USAGE ON SCHEMA durable, and SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA durable",
            )

    # -- transactions of ours

    async def begin(self) -> Connection:
        """Raises: `StoreUnavailable`."""
        await self._free.acquire()
        try:
            while True:
                connection, is_new = await self._pool.take()
                try:
                    # The driver's own, so that those which are begun in it are savepoints.
                    await connection.transaction().start()
                except BaseException as error:
                    connection.terminate()
                    if not isinstance(error, FAILURES):
                        raise
                    if is_new:
                        raise StoreUnavailable(f"no transaction: {translate(error)}") from error
                    continue  # it was lost while nobody used it
                lent = lend(connection)
                self._lent.add(id(lent))
                return lent
        except BaseException:
            self._free.release()
            raise

    def take_back(self, lent: Connection) -> Connection:
        self._lent.discard(id(lent))
        return take_back(lent)

    async def commit(self, connection: Connection) -> None:
        """Raises: as `TransactionalStore.transaction`; and the driver's error if a deferred constraint refuses."""
        if connection.is_closed():
            raise _lost()
        if not connection.is_in_transaction():
            raise InvalidInput(
                "the block has ended its transaction by itself",
                "leave COMMIT and ROLLBACK out: it is committed when the block is left, rolled back when that raises",
            )
        try:
            await connection.execute(_COMMIT, timeout=self.patience_s)
        except DriverError as error:
            raise InvalidInput(
                f"the block was left while a statement was under way: {error}", "await all that it does"
            ) from error
        except FAILURES as error:
            if sqlstate(error) == _FAILED:
                raise _refusal(connection, error) from error
            if sqlstate(error).startswith("23"):
                raise  # a deferred constraint: what was written is refused
            raise translate(error, "of a transaction") from error

    async def roll_back(self, connection: Connection) -> bool:
        """False: the connection is lost, and the server does it."""
        with contextlib.suppress(*FAILURES):
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK", timeout=self.patience_s)
        return not connection.is_closed()

    async def give_back(self, connection: Connection) -> None:
        """As new; one that is still in a transaction is closed, and that rolled back with it."""
        try:
            if connection.is_in_transaction():
                connection.terminate()
            else:
                await connection.reset(timeout=self.patience_s)
                await set_up(connection, patience_s=None)
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, FAILURES):
                raise
        finally:
            await self._pool.give_back(connection)
            self._free.release()

    def abandon(self, connection: Connection) -> None:
        connection.terminate()
        self._free.release()


@final
class LentTransaction(AbstractAsyncContextManager[Connection]):
    """See `TransactionalStore.transaction`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._lent: Connection | None = None

    @override
    async def __aenter__(self) -> Connection:
        self._lent = await self._transactions.begin()
        return self._lent

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lent is not None
        connection = self._transactions.take_back(self._lent)
        self._lent = None
        if isinstance(error, GeneratorExit):  # nobody is left who could wait
            self._transactions.abandon(connection)
            return
        try:
            if error is None:
                await self._transactions.commit(connection)
            elif not await self._transactions.roll_back(connection) and isinstance(error, Exception):
                raise _lost() from error
        finally:
            await self._transactions.give_back(connection)


@final
class Enlisted(Writes):
    """The verbs on one connection."""

    def __init__(self, place: tuple[str, str], connection: Connection, patience_s: float | None) -> None:
        """`place`: the number of the namespace, and its channel. `patience_s`: how long a verb may take; None leaves
        that to the connection, which is a user's."""
        self._place = place
        self._connection = connection
        self._patience_s = patience_s

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        return answers.created(await self._serve(requests.create(spec, op_id)))

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return answers.committed(await self._serve(requests.commit(execution_id, nonce, ver, op_id, batch)))

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        return answers.posted(execution_id, await self._serve(requests.post(execution_id, message)))

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        emits = literal([requests.emit_of(event) for event in events])
        row = await self._ask(_SEND, emits, stored(op_id))
        return answers.sent((row["receipts"], _rows(row["bells"]), row["touched"], row["next_at"]))

    async def _serve(self, request: Request) -> Row:
        ids = literal(sorted(set(request.ids)))
        row = await self._ask(_SERVE, literal(request.fields), ids, literal(request.gated))
        row["bells"] = _rows(row["bells"])
        row["inbox"] = [
            [_bytes(value) if name == "data" else value for name, value in entry.items()]
            for entry in row["inbox"] or ()
        ]
        return list(row.values())

    async def _ask(self, statement: str, *parameters: str) -> dict[str, Any]:
        _in_transaction(self._connection)
        try:
            answer = await self._connection.fetchval(
                statement, *self._place, *parameters, timeout=self._patience_s
            )
        except FAILURES as error:
            raise _refusal(self._connection, error) from error
        found: dict[str, Any] = json.loads(answer)
        return found


def _rows(objects: Sequence[dict[str, Any]] | None) -> list[Row]:
    return [list(each.values()) for each in objects or ()]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _in_transaction(connection: Connection) -> None:
    """Raises: `InvalidInput`, `StoreUnavailable`."""
    try:
        if connection.is_closed():
            raise _lost()
        is_open = connection.is_in_transaction()
    except DriverError as error:
        raise _unfit(error) from error
    if not is_open:
        raise InvalidInput(
            "the connection is in no transaction",
            "call this within `async with connection.transaction()`",
        )


def _refusal(connection: Connection, error: BaseException) -> DurableError:
    """Of what was asked on a connection in an open transaction: nothing of it will be stored."""
    if connection.is_closed():
        return _lost()
    if isinstance(error, DriverError) and not isinstance(error, ServerError):
        return _unfit(error)
    if hint := _WRONG_TRANSACTION.get(sqlstate(error)):
        return InvalidInput(f"PostgreSQL: {error}", hint)
    if is_conflict(error):
        return StoreUnavailable(f"PostgreSQL: {error} ({sqlstate(error)})", _AGAIN)
    return translate(error)


def _lost() -> StoreUnavailable:
    return StoreUnavailable("PostgreSQL: the connection was lost, and its transaction rolled back", _AGAIN)


def _unfit(error: BaseException) -> InvalidInput:
    return InvalidInput(f"the connection cannot be used: {error}", "give it one that is open and idle")
