"""Pages of executions, newest first. Each query is led by the index that has the fewest rows for it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from durable.backends.sqlite.head import tag_text
from durable.backends.sqlite.reads import ROW, row_of
from durable.errors import InvalidInput
from durable.protocols import Query, Rows

_FILTER: Final = """
    CROSS JOIN inputs ON inputs.n = e.n
    WHERE e.ns = :ns AND e.created_at BETWEEN :oldest AND :newest AND (e.created_at < :newest OR e.n < :n)
    AND (:workflow IS NULL OR e.workflow = :workflow)
    AND (:parent_id IS NULL OR e.parent_id = :parent_id)
    AND (:statuses IS NULL OR e.status IN (SELECT value FROM json_each(:statuses)))
    AND (:prefix IS NULL OR instr(e.id, :prefix) = 1)
    AND NOT EXISTS (
        SELECT 1 FROM json_each(:tags) AS wanted WHERE NOT EXISTS (
            SELECT 1 FROM tags
            WHERE tags.ns = :ns AND tags.tag = wanted.value AND tags.created_at = e.created_at AND tags.n = e.n
        )
    )
"""
_ORDER: Final = "ORDER BY e.created_at DESC, e.n DESC LIMIT :limit"

_BY_TAG: Final = (
    ROW
    + "FROM tags AS led CROSS JOIN executions AS e ON e.n = led.n"
    + _FILTER
    + """
    AND led.ns = :ns AND led.tag = :tag AND led.created_at BETWEEN :oldest AND :newest
    ORDER BY led.created_at DESC, led.n DESC LIMIT :limit
    """
)
_BY_PARENT: Final = (
    ROW
    + "FROM executions AS e INDEXED BY executions_parent"
    + _FILTER
    + "AND e.parent_id = :parent_id AND e.parent_id != '' "
    + _ORDER
)
_BY_PREFIX: Final = (
    ROW
    + "FROM executions AS e INDEXED BY executions_id"
    + _FILTER
    + "AND e.id >= :prefix AND e.id < :prefix || char(1114111) "
    + _ORDER
)
_BY_STATUS: Final = (
    ROW + "FROM executions AS e INDEXED BY executions_status" + _FILTER + "AND e.status = :status " + _ORDER
)
_BY_WORKFLOW: Final = (
    ROW
    + "FROM executions AS e INDEXED BY executions_workflow"
    + _FILTER
    + "AND e.workflow = :workflow "
    + _ORDER
)
_BY_CREATION: Final = ROW + "FROM executions AS e INDEXED BY executions_created" + _FILTER + _ORDER

_FEW: Final = {
    _BY_TAG: """
        SELECT count(*) FROM (
            SELECT 1 FROM tags WHERE ns = :ns AND tag = :tag AND created_at BETWEEN :oldest AND :newest LIMIT 1000
        )
    """,
    _BY_PARENT: """
        SELECT count(*) FROM (
            SELECT 1 FROM executions WHERE ns = :ns AND parent_id = :parent_id AND parent_id != '' LIMIT 1000
        )
    """,
    _BY_PREFIX: """
        SELECT count(*) FROM (
            SELECT 1 FROM executions WHERE ns = :ns AND id >= :prefix AND id < :prefix || char(1114111) LIMIT 1000
        )
    """,
    _BY_STATUS: """
        SELECT count(*) FROM (
            SELECT 1 FROM executions WHERE ns = :ns AND created_at BETWEEN :oldest AND :newest
            AND status IN (SELECT value FROM json_each(:statuses)) LIMIT 1000
        )
    """,
    _BY_WORKFLOW: """
        SELECT count(*) FROM (
            SELECT 1 FROM executions
            WHERE ns = :ns AND workflow = :workflow AND created_at BETWEEN :oldest AND :newest LIMIT 1000
        )
    """,
    _BY_CREATION: """
        SELECT count(*) FROM (
            SELECT 1 FROM executions WHERE ns = :ns AND created_at BETWEEN :oldest AND :newest LIMIT 1000
        )
    """,
}
"""How many the index of each statement would have to go through; a thousand stands for many."""

_CREATED_AT: Final = 20
"""The place of this column in `ROW`; `n` is the last."""
_END_OF_TIME: Final = 2**63 - 1


def query(db: sqlite3.Connection, ns: int, query: Query) -> Rows:
    newest, n = _END_OF_TIME if query.until is None else query.until - 1, _END_OF_TIME
    if query.cursor is not None:
        newest, n = _position(query.cursor)
    tags = [tag_text(*tag) for tag in query.tags.items()]
    parameters: dict[str, object] = {
        "ns": ns,
        "oldest": -_END_OF_TIME if query.since is None else query.since,
        "newest": newest,
        "n": n,
        "workflow": query.workflow,
        "parent_id": query.parent_id,
        "statuses": json.dumps([status.value for status in query.status]) if query.status else None,
        "prefix": query.id_prefix,
        "tags": json.dumps(tags),
        "tag": tags[0] if tags else None,
        "limit": query.limit + 1,
    }
    statement = _statement(db, query, parameters)
    # An index that is led by the status has an order for each; of each the first are enough.
    statuses = [status.value for status in query.status] if statement is _BY_STATUS else [None]
    found: list[tuple[Any, ...]] = []
    for status in dict.fromkeys(statuses):
        found += db.execute(statement, {**parameters, "status": status}).fetchall()
    found.sort(key=lambda columns: (columns[_CREATED_AT], columns[-1]), reverse=True)
    page = found[: query.limit]
    cursor = f"{page[-1][_CREATED_AT]}.{page[-1][-1]}" if page and len(found) > len(page) else None
    return Rows([row_of(columns) for columns in page], cursor)


def _leads(query: Query) -> list[str]:
    """The statements that may lead it, each by an index of its own; of equals the first is to be taken."""
    leads = [_BY_TAG] if query.tags else []
    if query.parent_id is not None:
        leads.append(_BY_PARENT)
    if query.status:
        leads.append(_BY_STATUS)
    if query.workflow is not None:
        leads.append(_BY_WORKFLOW)
    leads = leads or [_BY_CREATION]
    if query.id_prefix:
        leads.append(
            _BY_PREFIX
        )  # the last: ids are in no order of creation, so that all that begin so are read
    return leads


def _statement(db: sqlite3.Connection, query: Query, parameters: dict[str, object]) -> str:
    """The one whose index holds the fewest, as far as looking at a few of each tells."""
    leads = _leads(query)
    if len(leads) == 1:
        return leads[0]
    counts = [db.execute(_FEW[lead], parameters).fetchone()[0] for lead in leads]
    return leads[counts.index(min(counts))]


def _position(cursor: str) -> tuple[int, int]:
    created_at, _, n = cursor.partition(".")
    try:
        return int(created_at), int(n)
    except ValueError as error:
        raise InvalidInput(
            "this is no cursor of a page", "pass on the cursor of the page before, as it is"
        ) from error
