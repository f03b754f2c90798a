"""Transactions in which a user's rows and executions are written together.

start(connection=...) ──▶ enlist: the verbs, on the user's own connection and thread
ctx.transaction ────────▶ Transaction: a connection of ours, lent until the step ends ──▶ enlist: the verbs, beside it
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, TypeVar, final

from typing_extensions import override

from durable.backends.sqlite import preflight, verbs
from durable.backends.sqlite.connection import Use, WriteLock, connect, is_busy, is_full, translate
from durable.backends.sqlite.hub import Hub
from durable.backends.sqlite.unit import Conflict, Unit
from durable.clock import Clock
from durable.errors import ConfigurationError, InvalidInput, OutcomeUnknown, StoreUnavailable
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

T = TypeVar("T")

_NAMESPACE: Final = "SELECT ns FROM namespaces WHERE ns = ?"
_HIDDEN: Final = """
    SELECT name FROM sqlite_temp_master WHERE type = 'table' AND name IN (SELECT name FROM main.sqlite_master)
"""
_WRITE_NOTHING: Final = "DELETE FROM namespaces WHERE 0"


@final
class LentConnection(sqlite3.Connection):
    """A connection in a transaction that belongs to the step it is lent to, and that the step cannot end.

    Like one of `sqlite3.connect`, in every other way. After the transaction it is closed.
    """

    ender = 0
    """The thread that may end the transaction."""
    has_news = False
    """Something was written through it that nobody is told of but by the file's change."""

    def lend(self) -> None:
        """From now on nobody but `ender` ends a transaction, or begins one."""
        self.set_authorizer(self._authorize)

    def _authorize(self, action: int, *_: object) -> int:
        if action == sqlite3.SQLITE_TRANSACTION and threading.get_ident() != self.ender:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    @override
    def commit(self) -> NoReturn:
        raise _not_theirs("commit()")

    @override
    def rollback(self) -> NoReturn:
        raise _not_theirs("rollback()")

    @override
    def executescript(self, sql_script: str, /) -> NoReturn:
        raise _not_theirs("executescript(), which commits")

    @override
    def __enter__(self) -> NoReturn:
        raise _not_theirs("`with connection`, which commits")


def _not_theirs(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} was called on the connection of a step's transaction",
        "leave it out: the transaction is committed when the function returns, and rolled back when it raises",
    )


@final
class Transactions:
    """Those of one open store."""

    def __init__(
        self,
        path: Path,
        ns: int,
        lock: WriteLock,
        hub: Hub,
        clock: Clock,
        *,
        synchronous: str,
        foreign_keys: bool,
    ) -> None:
        self.path = path
        self.ns = ns
        self.clock = clock
        self._lock = lock
        self._hub = hub
        self._synchronous = synchronous
        self._foreign_keys = foreign_keys
        # One waits for the lock, the others for that one. Who has the lock never waits for a thread.
        self._beginner = ThreadPoolExecutor(1, "durable-sqlite-begin")
        self._servant = ThreadPoolExecutor(1, "durable-sqlite-transaction")

    def transaction(self) -> AbstractAsyncContextManager[sqlite3.Connection]:
        return Transaction(self)

    async def enlist(self, connection: object) -> Writes:
        if isinstance(connection, LentConnection):
            return Enlisted(self, connection)
        if not isinstance(connection, sqlite3.Connection):
            raise InvalidInput(
                f"connection is of type {type(connection).__name__}, and this store takes a sqlite3.Connection",
                "give it the connection that your transaction is on",
            )
        check(connection, self.path, self.ns)
        return Enlisted(self, connection)

    def close(self) -> None:
        """Blocks until what was accepted is done."""
        self._beginner.shutdown(cancel_futures=True)
        self._servant.shutdown()

    # -- a transaction of ours

    def begin(self) -> Future[LentConnection]:
        return self._beginner.submit(self._begin)

    def serve(self, act: Callable[[], T]) -> Future[T]:
        """Do something on a thread where nobody waits for a lock."""
        try:
            return self._servant.submit(act)
        except RuntimeError:  # the store is closed, and this is the end of what was left open
            done: Future[T] = Future()
            done.set_result(act())
            return done

    def _begin(self) -> LentConnection:
        self._hub.enter()
        self._lock.come()
        try:
            return self._begun()
        except BaseException as error:
            self._gone()
            if isinstance(error, sqlite3.Error):
                raise translate(error) from error
            raise

    def _begun(self) -> LentConnection:
        db = connect(
            self.path,
            Use.BESIDES,
            synchronous=self._synchronous,
            kind=LentConnection,
            isolation_level="DEFERRED",
        )
        assert isinstance(db, LentConnection)
        try:
            if self._foreign_keys:
                db.execute("PRAGMA foreign_keys = ON")  # which does nothing in a transaction
            self._lock.begin(db)
            db.lend()
        except BaseException:
            db.close()
            raise
        return db

    def commit(self, db: LentConnection) -> None:
        """Raises: as `TransactionalStore.transaction`."""
        try:
            if not db.in_transaction:
                raise _in_no_transaction(db)
            with contextlib.nullcontext() if db.has_news else self._lock.committing():
                self._end(db, "COMMIT")
        except sqlite3.IntegrityError:
            raise  # a deferred constraint: what the step has written is refused
        except sqlite3.Error as error:
            if is_full(error):
                raise translate(error) from error
            raise OutcomeUnknown("of a step", str(error)) from error
        finally:
            self.abandon(db)

    def abandon(self, db: LentConnection) -> None:
        """Roll back what is open, and take the connection from whoever has it, on whatever thread."""
        try:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    self._end(db, "ROLLBACK")
        finally:
            db.close()
            self._gone()

    def _end(self, db: LentConnection, how: str) -> None:
        db.ender = threading.get_ident()
        cursor = sqlite3.Cursor(db)
        # What a thread still does that has the connection must not be a transaction of its own.
        cursor.execute("PRAGMA query_only = ON")
        cursor.execute(how)

    def _gone(self) -> None:
        self._lock.go()
        self._hub.leave()


@final
class Transaction(AbstractAsyncContextManager[sqlite3.Connection]):
    """See `TransactionalStore.transaction`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._db: LentConnection | None = None

    @override
    async def __aenter__(self) -> sqlite3.Connection:
        begun = self._transactions.begin()
        try:
            self._db = await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(self._forget)
            raise
        return self._db

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._db is not None
        db, self._db = self._db, None
        end = self._transactions.commit if error is None else self._transactions.abandon
        ended = self._transactions.serve(lambda: end(db))
        if not isinstance(error, GeneratorExit):
            await asyncio.shield(asyncio.wrap_future(ended))

    def _forget(self, begun: Future[LentConnection]) -> None:
        """Nobody waits for it any more."""
        if not begun.cancelled() and begun.exception() is None:
            self._transactions.abandon(begun.result())


@final
class Enlisted(Writes):
    """The verbs on one connection, each all or nothing."""

    def __init__(self, transactions: Transactions, db: sqlite3.Connection) -> None:
        self._transactions = transactions
        self._db = db

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        self._tell()
        return await self._write(lambda unit: verbs.create(unit, spec, op_id))

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return await self._write(lambda unit: verbs.commit(unit, execution_id, nonce, ver, op_id, batch))

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        self._tell()
        return await self._write(lambda unit: verbs.post(unit, execution_id, message))

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        self._tell()
        return await self._write(lambda unit: verbs.send(unit, events, op_id))

    def _tell(self) -> None:
        if isinstance(self._db, LentConnection):
            self._db.has_news = True

    async def _write(self, act: Callable[[Unit], T]) -> T:
        if isinstance(self._db, LentConnection):
            return await asyncio.wrap_future(self._transactions.serve(lambda: self._apply(act)))
        return self._apply(act)  # the connection may belong to this thread

    def _apply(self, act: Callable[[Unit], T]) -> T:
        db, transactions = self._db, self._transactions
        with _as_it_is(db) as cursor:
            if not db.in_transaction:
                raise _in_no_transaction(db)
            unit = Unit(db, transactions.ns, transactions.clock)
            unit.is_exact = True
            cursor.execute("SAVEPOINT durable")
            try:
                unit.begin()
                answer = act(unit)
                unit.flush()
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # it has rolled back everything by itself
                    cursor.execute("ROLLBACK TO durable")
                    cursor.execute("RELEASE durable")
                raise
            cursor.execute("RELEASE durable")
            return answer


def check(db: sqlite3.Connection, path: Path, ns: int) -> None:
    """Raises: `InvalidInput` when a user's connection cannot take executions into its transaction."""
    with _as_it_is(db) as cursor:
        if not db.in_transaction:
            raise _in_no_transaction(db)
        files: dict[str, str] = {name: file for _, name, file in cursor.execute("PRAGMA database_list")}
        if not _is_same(files["main"], path):
            raise InvalidInput(
                f"the connection is to another database, {files['main'] or 'in memory'}: the store is {path}",
                f"connect to that file: sqlite3.connect({str(path)!r})",
            )
        if (hidden := cursor.execute(_HIDDEN).fetchone()) is not None:
            raise InvalidInput(
                f"the connection has a temporary table {hidden[0]}, which hides one of the store's",
                "give it another name",
            )
        if type(cursor.execute(_NAMESPACE, (ns,)).fetchone()[0]) is not int:
            raise InvalidInput(
                "the connection converts what SQLite keeps as INTEGER",
                "connect without detect_types, or register that converter under another name",
            )
        if preflight.has_wal_reset_bug():
            cursor.execute(
                "PRAGMA wal_autocheckpoint = 0"
            )  # durable makes the checkpoints, when they are safe
        cursor.execute(_WRITE_NOTHING)


@contextmanager
def _as_it_is(db: sqlite3.Connection) -> Generator[sqlite3.Cursor]:
    """A cursor that gives rows as SQLite has them, whatever the connection's user has set. That stays as it is."""
    try:
        cursor, text_factory = sqlite3.Cursor(db), _text_factory(db)
        db.text_factory = str
        try:
            yield cursor
        finally:
            db.text_factory = text_factory
    except Conflict as error:  # of what a user's trigger has refused
        raise StoreUnavailable(f"SQLite: {error.__cause__ or error}") from error
    except sqlite3.ProgrammingError as error:
        raise InvalidInput(
            f"the connection cannot be used here: {error}",
            "use it open, and on the thread that made it",
        ) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
            raise InvalidInput(
                "the connection may not write", "give one that is not read-only or query_only"
            ) from error
        if is_busy(error):
            raise StoreUnavailable(
                f"SQLite: {error}: others write to the file, or have written since this transaction began to read",
                'roll back and begin anew, with connection.execute("BEGIN IMMEDIATE")',
            ) from error
        raise translate(error) from error
    except sqlite3.Error as error:
        raise translate(error) from error


def _text_factory(db: sqlite3.Connection) -> Any:
    return db.text_factory


def _in_no_transaction(db: sqlite3.Connection) -> InvalidInput:
    if isinstance(db, LentConnection):
        return InvalidInput(
            "a step's transaction was over before the step: SQLite rolled it back after an error",
            "do not go on after an error of the database: let the function raise it",
        )
    return InvalidInput(
        "the connection is in no transaction", 'begin one first: connection.execute("BEGIN IMMEDIATE")'
    )


def _is_same(file: str, path: Path) -> bool:
    try:
        return bool(file) and path.samefile(file)
    except OSError:
        return False
