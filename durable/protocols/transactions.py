"""`TransactionalStore`: a store that writes in transactions of its users, where it can. No store has to.

A store whose database is an application's database too can do both in one transaction: what the application writes, and
what becomes of an execution. Such a store says so in its `Capabilities.connection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, cast

from durable.errors import ConfigurationError
from durable.protocols.answers import (
    Committed,
    Created,
    Diverged,
    Exists,
    Fenced,
    Full,
    Joined,
    NotPosted,
    Posted,
    Sent,
)
from durable.protocols.batch import Batch, Emit
from durable.protocols.execution import Message, NewExecution
from durable.protocols.store import DurableStore


class Writes(Protocol):
    """Verbs of a store as part of an open transaction, which they neither commit nor roll back.

    Each decides and answers as in `DurableStore`, and sees what the transaction has written so far. Its effects are
    there for others if and only if the transaction commits, and until then nobody is told: what an answer has to be
    rung or hinted is rung by the caller after the commit, or found by the workers of this store soon after it.

    A verb that raises has written nothing of it, also if the transaction goes on. It is not to be repeated there: who
    sends it again does so in another transaction.
    """

    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists: ...

    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        """Whose answer is not `Committed` rolls the transaction back."""
        ...

    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted: ...

    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent: ...


class TransactionalStore(DurableStore, Protocol):
    """A store that says in its `Capabilities` which connections it takes."""

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A connection in a transaction that has begun, for the one who entered: committed when the block is left,
        rolled back when it is left by an exception, which goes on as it is.

        Nobody can use the connection afterwards, not even a thread that still has it when a cancelled block is left:
        what it would write then fails, and is stored nowhere. The block may be left in another task than it was entered
        in; leaving it is not cancelled.

        Raises:
            StoreUnavailable: it cannot begin, or was surely not committed. So does `StoreFull`. Where an exception
                leaves the block because the connection was lost, or when it was: in place of that one, its cause.
            OutcomeUnknown: it may be committed or not.
            InvalidInput: the block has ended the transaction by itself, where the driver lets it.
        """
        ...

    async def enlist(self, connection: object) -> Writes:
        """The store's verbs in the transaction that is open on `connection`: one of `transaction`, or a caller's own,
        which goes on to read and write as its user has set it. Good until that transaction ends.

        Raises:
            InvalidInput: it is no connection of the kind, of another database, not in a transaction, or one that may
                not write. The text says what to do.
        """
        ...


async def transactional(store: DurableStore, what: str) -> TransactionalStore:
    """The store, for what takes part in a transaction.

    Raises: `ConfigurationError` when it is no such store.
    """
    about = await store.capabilities()
    if not about.connection:
        raise ConfigurationError(
            f"{what} needs a store that takes part in transactions, and the store {about.name} does not",
            "use SQLite (sqlite:///...) or PostgreSQL (postgresql://..., durable-postgres)",
        )
    return cast("TransactionalStore", store)
