"""The statements of the write path. `(?)` stands for a row of parameters that is repeated by `Many`."""

from __future__ import annotations

from typing import Final

_HEAD: Final = """
    SELECT n, id, workflow, version, queue, priority, key, parent_id, state, status, attempt, generation, ver, op_id,
           nonce, worker, crashes, inbox_seq, urgent_seq, unread, history_seq, records, timers, watchers, created_at,
           available_at, bell, ring_at, owned_at, started_at, finished_at, wake_at, deadline_at,
           result IS NULL AND error IS NULL AND code IS NULL
    FROM executions
"""
HEAD_BY_ID: Final = _HEAD + "WHERE ns = ? AND id = ?"
HEAD_BY_N: Final = _HEAD + "WHERE n = ?"
HOLDER: Final = "SELECT n FROM executions WHERE ns = ? AND workflow = ? AND key = ? AND holds_key = 1"
STATE_OF_FILE: Final = """
    SELECT max((SELECT ifnull(max(n), 0) FROM executions), (SELECT value FROM meta WHERE name = 'last_deleted')),
           (SELECT value FROM meta WHERE name = 'min_writer'),
           EXISTS (SELECT 1 FROM seekers WHERE ns = ?) OR EXISTS (SELECT 1 FROM changed_rules WHERE ns = ?),
           EXISTS (SELECT 1 FROM listeners WHERE ns = ?)
"""
KEEP_LAST: Final = "UPDATE meta SET value = max(value, ?) WHERE name = 'last_deleted'"
GIVEN: Final = "SELECT input, options, tags, cause FROM inputs WHERE n = ?"
CREATED: Final = "SELECT create_op, ifnull(first_input, input) FROM inputs WHERE n = ?"
END: Final = "SELECT result, error, code FROM executions WHERE n = ?"

INSERT_HEADS: Final = """
    INSERT INTO executions (
        n, ns, id, workflow, version, queue, priority, key, holds_key, parent_id, state, status, attempt, generation,
        ver, op_id, nonce, worker, crashes, inbox_seq, urgent_seq, unread, history_seq, records, timers, watchers,
        created_at, available_at, bell, ring_at, owned_at, started_at, finished_at, wake_at, deadline_at
    ) VALUES (?)
"""
ADVANCE_HEADS: Final = """
    WITH new (
        n, ver, op_id, crashes, inbox_seq, urgent_seq, unread, history_seq, records, timers, watchers
    ) AS (VALUES (?))
    UPDATE executions
    SET ver = new.ver, op_id = new.op_id, crashes = new.crashes, inbox_seq = new.inbox_seq,
        urgent_seq = new.urgent_seq, unread = new.unread, history_seq = new.history_seq, records = new.records,
        timers = new.timers, watchers = new.watchers
    FROM new WHERE executions.n = new.n
"""
ADVANCE_HEAD: Final = """
    UPDATE executions
    SET ver = ?2, op_id = ?3, crashes = ?4, inbox_seq = ?5, urgent_seq = ?6, unread = ?7, history_seq = ?8,
        records = ?9, timers = ?10, watchers = ?11
    WHERE n = ?1
"""
MOVE_HEADS: Final = """
    WITH new (
        n, ver, op_id, crashes, inbox_seq, urgent_seq, unread, history_seq, records, timers, watchers,
        state, status, attempt, generation, nonce, worker, available_at, bell, ring_at, owned_at, started_at,
        finished_at, wake_at, deadline_at
    ) AS (VALUES (?))
    UPDATE executions
    SET ver = new.ver, op_id = new.op_id, crashes = new.crashes, inbox_seq = new.inbox_seq,
        urgent_seq = new.urgent_seq, unread = new.unread, history_seq = new.history_seq, records = new.records,
        timers = new.timers, watchers = new.watchers,
        state = new.state, status = new.status, attempt = new.attempt, generation = new.generation,
        nonce = new.nonce, worker = new.worker, available_at = new.available_at, bell = new.bell,
        ring_at = new.ring_at, owned_at = new.owned_at, started_at = new.started_at,
        finished_at = new.finished_at, wake_at = new.wake_at, deadline_at = new.deadline_at
    FROM new WHERE executions.n = new.n
"""
MOVE_HEAD: Final = """
    UPDATE executions
    SET ver = ?2, op_id = ?3, crashes = ?4, inbox_seq = ?5, urgent_seq = ?6, unread = ?7, history_seq = ?8,
        records = ?9, timers = ?10, watchers = ?11,
        state = ?12, status = ?13, attempt = ?14, generation = ?15, nonce = ?16, worker = ?17, available_at = ?18,
        bell = ?19, ring_at = ?20, owned_at = ?21, started_at = ?22, finished_at = ?23, wake_at = ?24, deadline_at = ?25
    WHERE n = ?1
"""
END_HEADS: Final = """
    WITH new (
        n, ver, op_id, crashes, inbox_seq, urgent_seq, unread, history_seq, records, timers, watchers,
        state, status, attempt, generation, nonce, worker, available_at, bell, ring_at, owned_at, started_at,
        finished_at, wake_at, deadline_at, result, error, code
    ) AS (VALUES (?))
    UPDATE executions
    SET ver = new.ver, op_id = new.op_id, crashes = new.crashes, inbox_seq = new.inbox_seq,
        urgent_seq = new.urgent_seq, unread = new.unread, history_seq = new.history_seq, records = new.records,
        timers = new.timers, watchers = new.watchers,
        state = new.state, status = new.status, attempt = new.attempt, generation = new.generation,
        nonce = new.nonce, worker = new.worker, available_at = new.available_at, bell = new.bell,
        ring_at = new.ring_at, owned_at = new.owned_at, started_at = new.started_at,
        finished_at = new.finished_at, wake_at = new.wake_at, deadline_at = new.deadline_at,
        result = new.result, error = new.error, code = new.code
    FROM new WHERE executions.n = new.n
"""
END_HEAD: Final = """
    UPDATE executions
    SET ver = ?2, op_id = ?3, crashes = ?4, inbox_seq = ?5, urgent_seq = ?6, unread = ?7, history_seq = ?8,
        records = ?9, timers = ?10, watchers = ?11,
        state = ?12, status = ?13, attempt = ?14, generation = ?15, nonce = ?16, worker = ?17, available_at = ?18,
        bell = ?19, ring_at = ?20, owned_at = ?21, started_at = ?22, finished_at = ?23, wake_at = ?24,
        deadline_at = ?25, result = ?26, error = ?27, code = ?28
    WHERE n = ?1
"""
LOSE_KEY: Final = "UPDATE executions SET holds_key = 0 WHERE n = ?"
INSERT_INPUTS: Final = "INSERT INTO inputs (n, create_op, input, options, tags, cause, items) VALUES (?)"
INSERT_TAGS: Final = "INSERT INTO tags (ns, tag, created_at, n) VALUES (?)"
COUNT: Final = """
    INSERT INTO counts (ns, status, number) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET number = number + excluded.number
"""

# A final record is not replaced: then fewer rows are changed than were given.
UPSERT_CHECKPOINTS: Final = """
    INSERT INTO checkpoints (
        n, step_id, seq, kind, name, status, data, attempts, started_at, finished_at, wake_at
    ) VALUES (?)
    ON CONFLICT DO UPDATE
    SET seq = excluded.seq, kind = excluded.kind, name = excluded.name, status = excluded.status,
        data = excluded.data, attempts = excluded.attempts, started_at = excluded.started_at,
        finished_at = excluded.finished_at, wake_at = excluded.wake_at
    WHERE status IN ('open', 'retrying')
"""
DROP_CHECKPOINT: Final = "DELETE FROM checkpoints WHERE step_id = ? AND n = ?"
DROP_HISTORY: Final = "DELETE FROM checkpoints WHERE n = ?"
STEPS: Final = "SELECT step_id, status FROM checkpoints WHERE n = ?"
HISTORY: Final = """
    SELECT step_id, kind, name, status, data, attempts, started_at, finished_at, wake_at, seq
    FROM checkpoints WHERE n = ? ORDER BY seq
"""

INSERT_INBOX: Final = "INSERT INTO inbox (n, seq, id, kind, name, data, at, urgent) VALUES (?)"
INSERT_MESSAGE_IDS: Final = "INSERT INTO message_ids (n, id) VALUES (?)"
HAS_MESSAGE_ID: Final = "SELECT 1 FROM message_ids WHERE n = ? AND id = ?"
HAS_UNREAD_ID: Final = "SELECT 1 FROM inbox WHERE n = ? AND consumed_by IS NULL AND id = ?"
HAS_URGENT: Final = "SELECT 1 FROM inbox WHERE n = ? AND consumed_by IS NULL AND seq > ? AND urgent = 1"
UNREAD: Final = """
    SELECT seq, id, kind, name, data, at, consumed_by
    FROM inbox WHERE n = ? AND consumed_by IS NULL AND seq > ? ORDER BY seq
"""
CONSUME: Final = "UPDATE inbox SET consumed_by = ? WHERE seq = ? AND n = ? AND consumed_by IS NULL"
DROP_CONSUMED: Final = "DELETE FROM inbox WHERE n = ? AND consumed_by IS NOT NULL"

UPSERT_TIMERS: Final = """
    INSERT INTO timers (n, step_id, ns, at, seq) VALUES (?)
    ON CONFLICT DO UPDATE SET at = excluded.at, seq = excluded.seq
"""
DROP_TIMER: Final = "DELETE FROM timers WHERE step_id = ? AND n = ?"
DROP_TIMERS: Final = "DELETE FROM timers WHERE n = ?"
DROP_STEP_TIMERS: Final = "DELETE FROM timers WHERE n = ? AND step_id != '__timeout'"
DUE_TIMERS: Final = "SELECT n, step_id, seq FROM timers WHERE ns = ? AND at <= ? ORDER BY at, n, seq LIMIT ?"
NEXT_TIMER: Final = "SELECT min(at) FROM timers WHERE ns = ?"

WATCH: Final = "INSERT OR IGNORE INTO watchers (target, watcher, step_id) VALUES (?, ?, ?)"
WATCHERS: Final = "SELECT watcher, step_id FROM watchers WHERE target = ? ORDER BY rowid"
DROP_WATCHERS: Final = "DELETE FROM watchers WHERE target = ?"

SET_VALUE: Final = 'INSERT OR REPLACE INTO "values" (n, name, data) VALUES (?, ?, ?)'
DROP_VALUES: Final = 'DELETE FROM "values" WHERE n = ?'
RESTART: Final = "UPDATE inputs SET first_input = ifnull(first_input, input), input = ? WHERE n = ?"

DESERTED: Final = """
    SELECT n FROM executions
    WHERE ns = ? AND status = 'running' AND state = 'owned' AND owned_at < ?
    AND worker NOT IN (SELECT value FROM json_each(?)) LIMIT ?
"""
# The index of bells holds those with `bell > 0`, and has to be told so. `likely` keeps the planner from searching by
# that alone, through all that is held and all that is to be ready later.
NEXT_READY: Final = """
    SELECT min(at) FROM (
        SELECT min(ring_at) AS at FROM executions WHERE ns = ?1 AND bell = 2 AND likely(bell > 0) AND ring_at > ?2
        UNION ALL
        SELECT min(ring_at) FROM executions WHERE ns = ?1 AND bell = 3 AND likely(bell > 0) AND ring_at > ?2
    )
"""
ADVANCING: Final = """
    SELECT n FROM (
        SELECT n, ring_at FROM executions WHERE ns = ?1 AND bell = 1 AND likely(bell > 0) AND ring_at <= ?2
        UNION ALL
        SELECT n, ring_at FROM executions WHERE ns = ?1 AND bell = 2 AND likely(bell > 0) AND ring_at <= ?2
    ) ORDER BY ring_at LIMIT ?3
"""
OPENING: Final = """
    SELECT n FROM executions WHERE ns = ? AND bell = 3 AND likely(bell > 0) AND ring_at <= ? ORDER BY ring_at LIMIT ?
"""
SET_BELL: Final = """
    UPDATE executions SET bell = ?, ring_at = ? WHERE n IN (SELECT value FROM json_each(?))
"""
DUE: Final = """
    SELECT e.n, e.id, e.workflow, e.version, e.queue, e.priority, e.crashes, e.available_at
    FROM json_each(?) AS lane CROSS JOIN executions AS e
    ON e.n IN (
        SELECT n FROM executions
        WHERE ns = ? AND bell = 0 AND queue = json_extract(lane.value, '$[0]')
        AND workflow = json_extract(lane.value, '$[1]') AND version = json_extract(lane.value, '$[2]')
        ORDER BY priority DESC, available_at, n LIMIT ?
    )
    ORDER BY e.priority DESC, e.available_at, e.n LIMIT ?
"""

PENDING: Final = 'SELECT n FROM pending WHERE ns = ? AND "group" = ?'
SET_PENDING: Final = 'INSERT OR REPLACE INTO pending (ns, "group", n) VALUES (?, ?, ?)'
JOINED: Final = "SELECT n, available_at FROM joined WHERE ns = ? AND op_id = ?"
SET_JOINED: Final = "INSERT INTO joined (ns, op_id, n, available_at) VALUES (?, ?, ?, ?)"
ITEMS: Final = "SELECT items FROM inputs WHERE n = ?"
REPLACE_INPUT: Final = "UPDATE inputs SET input = ?, cause = ? WHERE n = ?"
ADD_INPUT: Final = """
    UPDATE inputs SET input = CAST(input || x'0a' || ?1 AS BLOB), items = items + ?2,
                      cause = CASE WHEN length(cause) THEN CAST(cause || x'0a' || ?3 AS BLOB) ELSE ?3 END
    WHERE n = ?4
"""

OLD: Final = """
    SELECT n, created_at, tags FROM executions CROSS JOIN inputs USING (n)
    WHERE ns = ? AND status = ? AND created_at < ? AND finished_at < ? LIMIT ?
"""
DELETE_TAG: Final = "DELETE FROM tags WHERE ns = ? AND tag = ? AND created_at = ? AND n = ?"
DELETE_ALL: Final = (
    "DELETE FROM joined WHERE n IN (SELECT value FROM json_each(?))",
    "DELETE FROM pending WHERE n IN (SELECT value FROM json_each(?))",
    "DELETE FROM checkpoints WHERE n IN (SELECT value FROM json_each(?))",
    "DELETE FROM inbox WHERE n IN (SELECT value FROM json_each(?))",
    "DELETE FROM message_ids WHERE n IN (SELECT value FROM json_each(?))",
    'DELETE FROM "values" WHERE n IN (SELECT value FROM json_each(?))',
    "DELETE FROM inputs WHERE n IN (SELECT value FROM json_each(?))",
    "DELETE FROM executions WHERE n IN (SELECT value FROM json_each(?))",
)
"""Each takes a JSON array of numbers. Timers and watchers of what is closed are gone already; where it watches others
itself they forget it when they close, as its number is never used again."""
