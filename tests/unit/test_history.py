"""Histories as files: every byte comes back, and a redacted one shows shapes only."""

from __future__ import annotations

from typing import Any

import pytest

from durable.codec import dump_error, load_error
from durable.errors import InvalidInput
from durable.history import History, dump_histories, load_histories
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    ExecutionRow,
    InboxEntry,
    MessageKind,
    Outcome,
    State,
)

NOW = 1_767_268_800_123


def history(data: bytes = b"null", kind: str = "step", status: str = "completed", **fields: Any) -> History:
    row: dict[str, Any] = {
        "id": "x",
        "workflow": "order",
        "version": "1",
        "queue": "default",
        "priority": 3,
        "key": "order:42",
        "tags": {"tenant": "Acme"},
        "options": b"",
        "input": data,
        "parent_id": None,
        "state": State.READY,
        "status": ExecutionStatus.WAITING,
        "attempt": 2,
        "generation": 1,
        "ver": 0,
        "op_id": "",
        "nonce": None,
        "worker": None,
        "crashes": 0,
        "inbox_seq": 1,
        "created_at": NOW,
        "available_at": NOW + 1,
        "started_at": NOW + 2,
        "deadline_at": NOW + 10**9,
    }
    checkpoint = Checkpoint("a#2", kind, "charge", CheckpointStatus(status), data, 2, NOW, NOW + 1, None, 7)
    entry = InboxEntry(1, "m", MessageKind.SIGNAL, "go", data, NOW, "go")
    return History(ExecutionRow(**(row | fields)), [checkpoint], [entry])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b'"text"',
        b'{"b":1,"a":[1.5,1e300,true,null]}',
        b'{"a": "with space"}',
        b'{"a":1,"a":2}',
        b"1.0",
        b"1e2",
        b"123456789012345678901234567890",
        b"NaN",
        b'"\\u001b[31m"',
        '"é☃😀"'.encode(),
        b"completed order 1\n{}",
        b"\x00\xff\xfe",
        "ünpacked".encode("latin-1"),
    ],
    ids=repr,
)
def test_every_payload_comes_back_as_it_was(data: bytes) -> None:
    was = history(data, result=data or None, error=data or None)
    assert load_histories(dump_histories([was, was])) == [was, was]


def test_a_history_is_read_by_people() -> None:
    text = dump_histories([history(b'{"id":"7"}')])
    assert '"json": {\n' in text
    assert '"started_at": "2026-01-01T12:00:00.123+00:00"' in text
    assert "nonce" not in text


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (b'"Ada Lovelace"', b'"Aaa Aaaaaaaa"'),
        (b'"2026-02-28T23:59:59Z"', b'"1111-11-11T11:11:11Z"'),
        (b'"2026-02-28"', b'"1111-11-11"'),
        (b'"12.50"', b'"11.11"'),
        (b'"ada@example.com"', b'"aaa@aaaaaaa.aaa"'),
        (b'"9f1b"', b'"1a1a"'),
        (b"4711", b"1"),
        (b"47.11", b"1.0"),
        (b"true", b"true"),
        (b"null", b"null"),
        (b'[{"name":"Ada","born":1815}]', b'[{"name":"Aaa","born":1}]'),
        (b'{"$type":"app.Charge","value":{"id":"ch_1"}}', b'{"$type":"app.Charge","value":{"id":"aa_1"}}'),
        (b"\xff", b"null"),
    ],
    ids=repr,
)
def test_of_a_value_the_shape_stays(data: bytes, shape: bytes) -> None:
    redacted = history(data, result=data).redact()
    assert redacted.redacted
    assert [redacted.row.input, redacted.row.result, redacted.checkpoints[0].data] == [shape] * 3
    assert redacted.inbox[0].data == shape
    assert load_histories(dump_histories([redacted])) == [redacted]


@pytest.mark.parametrize(
    ("kind", "data", "shape"),
    [
        (
            "wait_for_signal",
            b'{"name":"go","payload":{"name":"Ada"}}',
            b'{"name":"go","payload":{"name":"Aaa"}}',
        ),
        ("child", b'{"child":"x/child","detached":false}', b'{"child":"x/child","detached":false}'),
        ("switch", b'{"branch":"premium","result":"Ada"}', b'{"branch":"premium","result":"Aaa"}'),
    ],
)
def test_of_a_record_of_ours_the_place_stays(kind: str, data: bytes, shape: bytes) -> None:
    assert history(data, kind, "open").redact().checkpoints[0].data == shape


def test_of_an_outcome_and_of_an_error_the_kind_stays() -> None:
    error = ErrorRecord(
        "app.Declined", "card of Ada", args=("Ada",), rebuildable=True, code="declined", retry=False
    )
    outcome = Outcome(ExecutionStatus.FAILED, "child", 1, dump_error(error)).pack()
    shown = Outcome.unpack(history(outcome, "child").redact().checkpoints[0].data)
    assert (shown.status, shown.workflow) == (ExecutionStatus.FAILED, "child")
    for data in (shown.data, history(dump_error(error), status="failed").redact().checkpoints[0].data):
        record = load_error(data)
        assert (record.error_type, record.message, record.args) == ("app.Declined", "aaaa aa Aaa", ())
        assert (record.code, record.retry) == ("declined", False)


def test_nothing_of_a_redacted_history_is_left() -> None:
    text = dump_histories([history(b'{"secret":"hunter2 Acme"}').redact()])
    assert "hunter2" not in text
    assert "Acme" not in text
    assert "order:42" not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[]", "no file of histories"),
        ('{"format":"other"}', "no file of histories"),
        ('{"format":"durable-history","format_version":2,"executions":[]}', "format 2"),
        ('{"format":"durable-history","format_version":1}', "damaged"),
        ('{"format":"durable-history","format_version":1,"executions":[3]}', "damaged"),
    ],
)
def test_what_is_no_file_of_histories_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        load_histories(text)
