"""The tables, and the steps that lead from one version of them to the next.

`executions` is narrow, since each commit rewrites a row of it; what is written once is in `inputs` and `checkpoints`.
Children refer to an execution by its number `n`, which grows: what is written together stands together. What is not
there is -1 or empty rather than NULL where it is written often: to bind a NULL costs the driver three times as much.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from durable.backends.sqlite.connection import WriteLock
from durable.errors import StoreUnavailable

APPLICATION_ID: Final = 1146442306
"""Marks a file as ours: "DURB" in ASCII."""

NEVER: Final = -1
"""An instant that is not there."""

BELL_NONE: Final = -1
"""Not ready."""
BELL_DUE: Final = 0
"""To be returned by `due`."""
BELL_RUNG: Final = 1
"""Returned by `due`; again from `ring_at` on, unless it is claimed."""
BELL_LATER: Final = 2
"""Not to be claimed before `ring_at`."""
BELL_OPENING: Final = 3
"""Held: to seek its gates from `ring_at` on."""
BELL_HELD: Final = 4
"""Held: in line at a gate. `ring_at` is when it came there."""

VERSION_1: Final = (
    """
    CREATE TABLE meta (
        name  TEXT PRIMARY KEY,
        value NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE namespaces (
        ns   INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    )
    """,
    """
    CREATE TABLE executions (
        n            INTEGER PRIMARY KEY,   -- never used again
        ns           INTEGER NOT NULL,
        id           TEXT NOT NULL,
        workflow     TEXT NOT NULL,
        version      TEXT NOT NULL,
        queue        TEXT NOT NULL,
        priority     INTEGER NOT NULL,
        key          TEXT NOT NULL,
        holds_key    INTEGER NOT NULL,   -- 0: there is no key, or a younger execution has it
        parent_id    TEXT NOT NULL,
        state        TEXT NOT NULL,
        status       TEXT NOT NULL,
        attempt      INTEGER NOT NULL,
        generation   INTEGER NOT NULL,
        ver          INTEGER NOT NULL,
        op_id        TEXT NOT NULL,
        nonce        TEXT NOT NULL,
        worker       TEXT NOT NULL,
        crashes      INTEGER NOT NULL,
        inbox_seq    INTEGER NOT NULL,   -- the last entry's
        urgent_seq   INTEGER NOT NULL,   -- the last entry's whose message reaches further than a parked execution
        unread       INTEGER NOT NULL,   -- number of entries that nobody has consumed
        history_seq  INTEGER NOT NULL,   -- the last checkpoint's
        records      INTEGER NOT NULL,   -- at least the number of checkpoints
        timers       INTEGER NOT NULL,   -- at least the number of timers of checkpoints
        watchers     INTEGER NOT NULL,   -- at least the number of watchers
        created_at   INTEGER NOT NULL,
        available_at INTEGER NOT NULL,
        bell         INTEGER NOT NULL,   -- while ready: one of the BELL_ values
        ring_at      INTEGER NOT NULL,   -- for BELL_RUNG and BELL_LATER
        owned_at     INTEGER NOT NULL,
        started_at   INTEGER NOT NULL,
        finished_at  INTEGER NOT NULL,
        wake_at      INTEGER NOT NULL,
        deadline_at  INTEGER NOT NULL,
        result       BLOB,
        error        BLOB,
        code         TEXT
    )
    """,
    "CREATE UNIQUE INDEX executions_id ON executions (ns, id)",
    "CREATE INDEX executions_created ON executions (ns, created_at)",
    "CREATE INDEX executions_status ON executions (ns, status, created_at)",
    "CREATE INDEX executions_workflow ON executions (ns, workflow, created_at)",
    "CREATE UNIQUE INDEX executions_key ON executions (ns, workflow, key) WHERE holds_key = 1",
    "CREATE INDEX executions_parent ON executions (ns, parent_id, created_at) WHERE parent_id != ''",
    """
    CREATE INDEX executions_due ON executions (ns, queue, workflow, version, priority DESC, available_at)
    WHERE bell = 0
    """,
    "CREATE INDEX executions_later ON executions (ns, bell, ring_at) WHERE bell > 0",
    """
    CREATE TABLE inputs (
        n           INTEGER PRIMARY KEY,
        create_op   TEXT NOT NULL,
        input       BLOB NOT NULL,
        options     BLOB NOT NULL,
        tags        TEXT NOT NULL,    -- a JSON object
        first_input BLOB              -- of one that continued as new
    )
    """,
    """
    CREATE TABLE tags (
        ns         INTEGER NOT NULL,
        tag        TEXT NOT NULL,   -- its name and its value, as a JSON array
        created_at INTEGER NOT NULL,
        n          INTEGER NOT NULL,
        PRIMARY KEY (ns, tag, created_at, n)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE checkpoints (
        n           INTEGER NOT NULL,
        step_id     TEXT NOT NULL,
        seq         INTEGER NOT NULL,
        kind        TEXT NOT NULL,
        name        TEXT NOT NULL,
        status      TEXT NOT NULL,
        data        BLOB NOT NULL,
        attempts    INTEGER NOT NULL,
        started_at  INTEGER NOT NULL,
        finished_at INTEGER NOT NULL,
        wake_at     INTEGER NOT NULL,
        PRIMARY KEY (n, step_id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE timers (
        n       INTEGER NOT NULL,
        step_id TEXT NOT NULL,
        ns      INTEGER NOT NULL,
        at      INTEGER NOT NULL,
        seq     INTEGER NOT NULL,   -- the checkpoint's, 0 for the run's timeout
        PRIMARY KEY (n, step_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX timers_due ON timers (ns, at, n, seq)",
    """
    CREATE TABLE inbox (
        n           INTEGER NOT NULL,
        seq         INTEGER NOT NULL,
        id          TEXT NOT NULL,
        kind        TEXT NOT NULL,
        name        TEXT NOT NULL,
        data        BLOB NOT NULL,
        at          INTEGER NOT NULL,
        urgent      INTEGER NOT NULL,   -- 1: it reaches further than a parked execution
        consumed_by TEXT,
        PRIMARY KEY (n, seq)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE message_ids (
        n  INTEGER NOT NULL,
        id TEXT NOT NULL,
        PRIMARY KEY (n, id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX inbox_unread ON inbox (n, seq) WHERE consumed_by IS NULL",
    """
    CREATE TABLE watchers (
        target  INTEGER NOT NULL,
        watcher INTEGER NOT NULL,
        step_id TEXT NOT NULL,
        UNIQUE (target, watcher, step_id)
    )
    """,
    """
    CREATE TABLE "values" (
        n    INTEGER NOT NULL,
        name TEXT NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (n, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE events (
        ns   INTEGER NOT NULL,
        id   TEXT NOT NULL,
        name TEXT NOT NULL,
        data BLOB NOT NULL,
        at   INTEGER NOT NULL,
        PRIMARY KEY (ns, id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE counts (
        ns     INTEGER NOT NULL,
        status TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (ns, status)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE workers (
        ns    INTEGER NOT NULL,
        id    TEXT NOT NULL,
        until INTEGER NOT NULL,
        info  BLOB NOT NULL,
        PRIMARY KEY (ns, id)
    ) WITHOUT ROWID
    """,
    # Processes that know less than this version must not write.
    "INSERT INTO meta (name, value) VALUES ('min_writer', 1)",
    # The greatest number of an execution that was deleted.
    "INSERT INTO meta (name, value) VALUES ('last_deleted', 0)",
    "PRAGMA application_id = 1146442306",
    "PRAGMA user_version = 1",
)

VERSION_2: Final = (
    "ALTER TABLE inputs ADD COLUMN cause BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE inputs ADD COLUMN items INTEGER NOT NULL DEFAULT 0",  # while it is pending for a batch
    """
    CREATE TABLE seekers (
        n          INTEGER NOT NULL,
        step_id    TEXT NOT NULL,      -- empty: the execution itself
        ns         INTEGER NOT NULL,
        gates      TEXT NOT NULL,      -- a JSON array
        at         INTEGER NOT NULL,   -- number of gates that it has passed
        counted    TEXT NOT NULL,      -- the rates and windows that have counted it: a JSON array
        message_id TEXT NOT NULL,
        PRIMARY KEY (n, step_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX seekers_namespace ON seekers (ns)",
    """
    CREATE TABLE gates (
        ns         INTEGER NOT NULL,
        name       TEXT NOT NULL,
        rule       TEXT NOT NULL,
        kind       TEXT NOT NULL,
        declared   INTEGER NOT NULL,   -- the limit, as it was declared last
        per_ms     INTEGER NOT NULL,
        burst      INTEGER NOT NULL,
        arrival_at REAL NOT NULL,      -- of a rate: the theoretical arrival time of the next
        turn       INTEGER NOT NULL,   -- of the last one that came to stand in line
        opens_at   INTEGER NOT NULL,   -- of a rate with a line: when it lets the first pass
        idle_at    INTEGER NOT NULL,   -- from when on it is as if nobody had sought it, unless somebody is there
        PRIMARY KEY (ns, name)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX gates_opening ON gates (ns, opens_at) WHERE opens_at != -1",
    "CREATE INDEX gates_rule ON gates (ns, rule)",
    "CREATE INDEX gates_idle ON gates (ns, idle_at)",
    """
    CREATE TABLE slots (
        ns       INTEGER NOT NULL,
        gate     TEXT NOT NULL,
        n        INTEGER NOT NULL,
        step_id  TEXT NOT NULL,
        since    INTEGER NOT NULL,
        replaced INTEGER NOT NULL,   -- 1: it was told to make room
        UNIQUE (ns, gate, n, step_id)
    )
    """,
    "CREATE INDEX slots_execution ON slots (n)",
    """
    CREATE TABLE line (
        ns       INTEGER NOT NULL,
        gate     TEXT NOT NULL,
        priority INTEGER NOT NULL,
        since    INTEGER NOT NULL,
        turn     INTEGER NOT NULL,
        n        INTEGER NOT NULL,
        step_id  TEXT NOT NULL,
        replaced INTEGER NOT NULL,
        UNIQUE (n, step_id)
    )
    """,
    "CREATE INDEX line_order ON line (ns, gate, priority DESC, since, turn)",
    "CREATE TABLE passes (ns INTEGER NOT NULL, gate TEXT NOT NULL, at INTEGER NOT NULL)",
    "CREATE INDEX passes_at ON passes (ns, gate, at)",
    """
    CREATE TABLE limits (
        ns     INTEGER NOT NULL,
        rule   TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (ns, rule)
    ) WITHOUT ROWID
    """,
    # The rules whose limit was changed since the last tick.
    "CREATE TABLE changed_rules (ns INTEGER NOT NULL, rule TEXT NOT NULL, PRIMARY KEY (ns, rule)) WITHOUT ROWID",
    "CREATE TABLE paused_queues (ns INTEGER NOT NULL, queue TEXT NOT NULL, PRIMARY KEY (ns, queue)) WITHOUT ROWID",
    # By group: the execution that the next one may join, unless it is due or claimed by now.
    'CREATE TABLE pending (ns INTEGER NOT NULL, "group" TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (ns, "group"))',
    "CREATE INDEX pending_execution ON pending (n)",
    # By operation: the execution that it joined.
    """
    CREATE TABLE joined (
        ns           INTEGER NOT NULL,
        op_id        TEXT NOT NULL,
        n            INTEGER NOT NULL,
        available_at INTEGER NOT NULL,
        PRIMARY KEY (ns, op_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX joined_execution ON joined (n)",
    """
    CREATE TABLE event_names (
        ns   INTEGER NOT NULL,
        name TEXT NOT NULL,
        seq  INTEGER NOT NULL,   -- the last event's
        PRIMARY KEY (ns, name)
    ) WITHOUT ROWID
    """,
    "ALTER TABLE events RENAME TO old_events",
    """
    CREATE TABLE events (
        ns      INTEGER NOT NULL,
        name    TEXT NOT NULL,
        seq     INTEGER NOT NULL,
        id      TEXT NOT NULL,
        data    BLOB NOT NULL,
        at      INTEGER NOT NULL,
        op_id   TEXT NOT NULL,
        shapes  TEXT NOT NULL,   -- that its sender knew: a JSON array
        topics  TEXT NOT NULL,   -- a JSON array
        receipt TEXT NOT NULL,   -- ids of executions: a JSON array
        PRIMARY KEY (ns, name, seq)
    ) WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX events_id ON events (ns, name, id)",
    "CREATE INDEX events_at ON events (ns, at)",
    """
    INSERT INTO events SELECT ns, name, row_number() OVER (PARTITION BY ns, name ORDER BY at, id), id, data, at,
                              '', '[]', '[]', '[]' FROM old_events
    """,
    "INSERT INTO event_names SELECT ns, name, max(seq) FROM events GROUP BY ns, name",
    "DROP TABLE old_events",
    """
    CREATE TABLE event_shapes (
        ns    INTEGER NOT NULL,
        name  TEXT NOT NULL,
        shape TEXT NOT NULL,
        UNIQUE (ns, name, shape)
    )
    """,
    """
    CREATE TABLE listeners (
        n       INTEGER NOT NULL,
        event   TEXT NOT NULL,
        step_id TEXT NOT NULL,
        ns      INTEGER NOT NULL,
        shape   TEXT NOT NULL,
        topic   TEXT NOT NULL,
        cancel  BLOB,
        UNIQUE (n, event, step_id)
    )
    """,
    "CREATE INDEX listeners_topic ON listeners (ns, event, topic)",
    "CREATE INDEX listeners_shape ON listeners (ns, event, shape)",
    """
    CREATE TABLE subscribers (
        ns       INTEGER NOT NULL,
        event    TEXT NOT NULL,
        workflow TEXT NOT NULL,
        data     BLOB NOT NULL,
        shapes   TEXT NOT NULL,   -- a JSON array
        PRIMARY KEY (ns, event, workflow)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE schedules (
        ns            INTEGER NOT NULL,
        id            TEXT NOT NULL,
        data          BLOB NOT NULL,
        next_at       INTEGER NOT NULL,
        ver           INTEGER NOT NULL,
        op_id         TEXT NOT NULL,   -- of the last save
        execution_ids TEXT NOT NULL,   -- that it started: a JSON array
        PRIMARY KEY (ns, id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX schedules_due ON schedules (ns, next_at) WHERE next_at != -1",
    # Who does not know of gates would claim what is held.
    "UPDATE meta SET value = 2 WHERE name = 'min_writer'",
    "PRAGMA user_version = 2",
)

STEPS: Final = (VERSION_1, VERSION_2)
"""`STEPS[v]` leads from version `v` to `v + 1`."""
VERSION: Final = len(STEPS)


def migrate(db: sqlite3.Connection, path: Path, lock: WriteLock) -> None:
    """Bring a file to our version; it may be empty, or have tables of its user's. A process that dies halfway leaves
    it as it was.

    Raises: `StoreUnavailable` when it is not ours, or a version that we must not write.
    """
    if _version(db, path) >= VERSION:
        return
    lock.patiently(lambda: db.execute("PRAGMA journal_mode = WAL"))
    lock.begin(db)
    try:
        for step in STEPS[_version(db, path) :]:
            for statement in step:
                db.execute(statement)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def namespace_number(db: sqlite3.Connection, name: str, lock: WriteLock) -> int:
    """What stands for a namespace in all tables."""
    found = db.execute("SELECT ns FROM namespaces WHERE name = ?", (name,)).fetchone()
    if found is None:
        lock.patiently(lambda: db.execute("INSERT OR IGNORE INTO namespaces (name) VALUES (?)", (name,)))
        found = db.execute("SELECT ns FROM namespaces WHERE name = ?", (name,)).fetchone()
    number: int = found[0]
    return number


def newer(min_writer: int) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database has been upgraded by a newer durable: it asks for schema {min_writer}, this one has {VERSION}",
        "upgrade durable in this process; a database is never taken back to an older schema",
    )


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Zero: nothing of ours is there."""
    version: int
    try:
        # In this order, for another process may be creating ours meanwhile, which makes the last of these ours too.
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application_id,) = db.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise not_ours(path, "is not a database") from error
    if application_id != APPLICATION_ID:
        if application_id or version:  # both become ours
            raise not_ours(
                path, "is a database of another application, by its application_id or user_version"
            )
        if taken := names and names & _our_names():
            raise not_ours(path, f"is a database of another application, with names of ours: {sorted(taken)}")
    if version > VERSION:
        (min_writer,) = db.execute("SELECT value FROM meta WHERE name = 'min_writer'").fetchone()
        if min_writer > VERSION:
            raise newer(min_writer)
    return version


def _our_names() -> set[str]:
    """What tables and indexes are called, or were once."""
    names: set[str] = set()
    with closing(sqlite3.connect(":memory:")) as db:
        for step in STEPS:
            for statement in step:
                db.execute(statement)
            names.update(name for (name,) in db.execute("SELECT name FROM sqlite_master"))
    return names


def not_ours(path: Path, what: str) -> StoreUnavailable:
    return StoreUnavailable(f"{path} {what}", "give the URL a path of its own; the file was left as it is")
