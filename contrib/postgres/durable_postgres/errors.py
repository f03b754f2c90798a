"""The driver's errors as ours."""

from __future__ import annotations

import asyncio
from typing import Final

from durable.errors import DurableError, InvalidInput, OutcomeUnknown, StoreFull, StoreUnavailable
from durable_postgres.driver import BadValue, DriverError, InternalError, ServerError

FAILURES: Final = (ServerError, DriverError, InternalError, OSError, asyncio.TimeoutError)
"""What a call of the driver may raise."""

_HELD: Final = "55P03"
_CONFLICTS: Final = ("40001", "40P01", "23505", _HELD)
"""A serialization failure, a deadlock, a race for a unique place, a lock that was not to be had in time."""
_BAD_VALUES: Final = ("22000", "22021")
_FULL: Final = ("53100", "54000")
_ENDED: Final = ("08", "57P01", "57P02", "57P05")
"""How the states begin with which a session ended, perhaps after it had committed."""
_SHARED: Final = "if a pooler is in between, let it pool by session"
_HINTS: Final = {
    "08P01": "if a pooler is in between, it takes less than PostgreSQL does",
    "25006": "the server takes no writes: it is a standby, or was made read-only; name the primary",
    "26000": _SHARED,
    "28000": "check the user and what pg_hba.conf lets in",
    "28P01": "check the password of the URL",
    "3D000": "create the database: durable makes its tables, not the database",
    "3F000": "open the store once with a user who may create the schema durable",
    "42P05": _SHARED,
    "42501": "let the user of the URL own the schema durable, or create one in this database",
    "53300": "raise max_connections: a process of durable takes up to thirteen",
    "57P03": "the server is starting or stopping; the call may be repeated",
    "57014": "the statement took longer than it may; the call may be repeated",
}


def sqlstate(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_conflict(error: BaseException) -> bool:
    """Another transaction was in the way: nothing was done, and the same call may be made at once."""
    return sqlstate(error) in _CONFLICTS


def is_held(error: BaseException | None) -> bool:
    """It waited for a lock for as long as it may."""
    return error is not None and sqlstate(error) == _HELD


def is_unknown(error: BaseException) -> bool:
    """Whether what was sent before this has been done, nobody can tell."""
    return not isinstance(error, ServerError) or sqlstate(error).startswith(_ENDED)


def translate(error: BaseException, op_id: str | None = None) -> DurableError:
    """An error of ours in place of one of the driver's. `op_id`: of the write whose answer did not come."""
    text = f"PostgreSQL: {error or type(error).__name__}"
    state = sqlstate(error)
    ours: DurableError
    if isinstance(error, BadValue) and state in _BAD_VALUES:
        ours = InvalidInput(f"PostgreSQL cannot store this: {error}", "texts must be well-formed Unicode")
    elif op_id is not None and is_unknown(error):
        ours = OutcomeUnknown(op_id, text)
    elif state in _FULL:
        ours = StoreFull(text, "free disk space, or delete old executions with operator.prune")
    else:
        ours = StoreUnavailable(f"{text} ({state})" if state else text, _HINTS.get(state))
    ours.__cause__ = error
    return ours
