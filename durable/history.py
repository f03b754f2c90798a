"""Histories outside of a store: what is recorded of executions, as a file that people read and tests keep.

    store ──History.read──▶ History ──dump──▶ JSON ──load──▶ History ──▶ a rehearsal, or another store

A payload is written as what it is: `{"json": ...}` where its bytes are the plain JSON of a value, else `{"text": ...}`,
else `{"base64": ...}`. So every byte comes back, and what can be read can be read.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cache
from typing import Any, cast, final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from durable.clock import to_datetime
from durable.codec import dump_error, load_error
from durable.errors import DurableError, ExecutionNotFound, InvalidInput
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import Checkpoint, DurableStore, ExecutionRow, InboxEntry, MessageKind, Outcome

FORMAT, FORMAT_VERSION = "durable-history", 1

_PAYLOADS = ("input", "options", "result", "error", "data")
_INSTANTS = ("created_at", "available_at", "started_at", "finished_at", "wake_at", "deadline_at", "at")
_OF_THE_OWNER = ("state", "ver", "op_id", "nonce", "worker", "crashes", "inbox_seq")
"""What only an execution in a store has."""
_FRAMED = frozenset({"wait_for_signal", "start", "child", "wait_for", "switch"})
_OF_A_FRAME = frozenset({"branch", "child", "detached", "name", "timeout"})
"""What our own records say of where an execution is, beside what it is about."""
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*|\d{4}-\d\d-\d\d")


@final
@dataclass(frozen=True, slots=True)
class History:
    """What is recorded of one execution: itself, its checkpoints and its inbox, both in order."""

    row: ExecutionRow
    checkpoints: Sequence[Checkpoint]
    inbox: Sequence[InboxEntry]
    redacted: bool = False
    """Values are replaced by their shapes: what depends on one cannot be told from it."""

    @classmethod
    async def read(cls, store: DurableStore, execution_id: str) -> History:
        """What a store holds of an execution, between two of its commits. Nothing is written.

        Raises:
            ExecutionNotFound: there is no such execution.
        """
        while True:
            row = await store.get(execution_id)
            if row is None:
                raise ExecutionNotFound(execution_id)
            history = cls(row, await store.history(execution_id), await store.inbox(execution_id))
            after = await store.get(execution_id)
            if after is not None and (after.ver, after.generation) == (row.ver, row.generation):
                return history

    def redact(self) -> History:
        """A copy that shows the shapes of values and not the values: letters become `a`, digits 1, instants one
        instant. Names, keys of objects, booleans, nulls, lengths, and the times at which things happened stay."""
        row = replace(
            self.row,
            input=_redacted(self.row.input),
            result=None if self.row.result is None else _redacted(self.row.result),
            error=None if self.row.error is None else _redacted_error(self.row.error),
            key=None if self.row.key is None else _shape_of_text(self.row.key),
            tags={name: _shape_of_text(value) for name, value in self.row.tags.items()},
        )
        checkpoints = [replace(c, data=_redacted_record(c)) for c in self.checkpoints]
        inbox = [replace(entry, data=_redacted_entry(entry)) for entry in self.inbox]
        return History(row, checkpoints, inbox, redacted=True)


def dump_histories(histories: Iterable[History]) -> str:
    """The histories as readable JSON, which `load_histories` of this and every later version reads."""
    executions = [
        {
            **_written(history.row, leave_out=_OF_THE_OWNER),
            "redacted": history.redacted,
            "checkpoints": [_written(checkpoint) for checkpoint in history.checkpoints],
            "inbox": [_written(entry) for entry in history.inbox],
        }
        for history in histories
    ]
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, "executions": executions}
    return to_json(whole, indent=2).decode() + "\n"


def load_histories(text: str | bytes) -> list[History]:
    """The histories that `dump_histories` wrote.

    Raises:
        InvalidInput: it is no such text, or one of a later format.
    """
    try:
        whole: object = from_json(text)
    except ValueError as error:
        raise InvalidInput(f"this is no JSON: {error}", "give what `durable export` wrote") from None
    if not (isinstance(whole, dict) and cast("dict[str, Any]", whole).get("format") == FORMAT):
        raise InvalidInput("this is no file of histories", "give what `durable export` wrote")
    whole = cast("dict[str, Any]", whole)
    version: object = whole.get("format_version")
    if version != FORMAT_VERSION:
        raise InvalidInput(
            f"these histories have format {version!r}, and format {FORMAT_VERSION} is what can be read here",
            "use the durable that wrote them, or a later one",
        )
    try:
        return [_history(record) for record in whole["executions"]]
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"a history in this file is damaged: {error!r}", "export the execution again"
        ) from None


def _history(record: Mapping[str, Any]) -> History:
    of_a_row, of_a_checkpoint, of_an_entry = _readers()
    inbox = [of_an_entry.validate_python(_read(each)) for each in record["inbox"]]
    owner = {"state": "ready", "ver": 0, "op_id": "", "nonce": None, "worker": None, "crashes": 0}
    row = of_a_row.validate_python(
        _read(record) | owner | {"inbox_seq": max((e.seq for e in inbox), default=0)}
    )
    checkpoints = [of_a_checkpoint.validate_python(_read(each)) for each in record["checkpoints"]]
    return History(row, checkpoints, inbox, bool(record["redacted"]))


@cache
def _readers() -> tuple[TypeAdapter[ExecutionRow], TypeAdapter[Checkpoint], TypeAdapter[InboxEntry]]:
    return TypeAdapter(ExecutionRow), TypeAdapter(Checkpoint), TypeAdapter(InboxEntry)


def _written(record: ExecutionRow | Checkpoint | InboxEntry, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for name in (field.name for field in fields(record) if field.name not in leave_out):
        value = getattr(record, name)
        if name in _PAYLOADS and value is not None:
            value = _payload(value)
        elif name in _INSTANTS and value is not None:
            value = to_datetime(value).isoformat(timespec="milliseconds")
        written[name] = value
    return written


def _read(written: Mapping[str, Any]) -> dict[str, Any]:
    record = {
        name: value for name, value in written.items() if name not in ("checkpoints", "inbox", "redacted")
    }
    for name in _PAYLOADS:
        if record.get(name) is not None:
            record[name] = _bytes(record[name])
    for name in _INSTANTS:
        if record.get(name) is not None:
            record[name] = round(datetime.fromisoformat(record[name]).timestamp() * 1000)
    return record


def _payload(data: bytes) -> dict[str, object]:
    try:
        value: object = from_json(data)
    except ValueError:
        pass
    else:
        if to_json(value) == data:
            return {"json": value}
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _bytes(payload: Mapping[str, Any]) -> bytes:
    if "json" in payload:
        return to_json(payload["json"])
    if "text" in payload:
        return str(payload["text"]).encode()
    return b64decode(payload["base64"])


# ---- shapes


def _redacted_record(checkpoint: Checkpoint) -> bytes:
    if checkpoint.status in ("failed", "retrying") or checkpoint.kind in ("attempt", "end"):
        return _redacted_error(checkpoint.data)
    if checkpoint.kind in ("child", "wait_for") and checkpoint.status == "completed":
        return _redacted_outcome(checkpoint.data)
    return _redacted(checkpoint.data, _OF_A_FRAME if checkpoint.kind in _FRAMED else frozenset())


def _redacted_entry(entry: InboxEntry) -> bytes:
    if entry.kind is MessageKind.CHILD:
        return _redacted_outcome(entry.data)
    if entry.kind is MessageKind.CANCEL:
        return _redacted_error(entry.data)
    return _redacted(entry.data)


def _redacted_outcome(data: bytes) -> bytes:
    try:
        outcome = Outcome.unpack(data)
    except ValueError:
        return _redacted(data, _OF_A_FRAME)  # a timeout
    is_value = outcome.status is ExecutionStatus.COMPLETED
    return replace(outcome, data=(_redacted if is_value else _redacted_error)(outcome.data)).pack()


def _redacted_error(data: bytes) -> bytes:
    if not data:
        return data
    try:
        error = load_error(data)
    except DurableError:
        return _redacted(data)
    shown = ErrorRecord(
        error.error_type,
        _shape_of_text(error.message),
        code=error.code,
        details=_shape(error.details),
        step_id=error.step_id,
        retry=error.retry,
    )
    return dump_error(shown)


def _redacted(data: bytes, kept: frozenset[str] = frozenset()) -> bytes:
    """JSON of the same shape; what is no JSON becomes nothing."""
    try:
        return to_json(_shape(from_json(data), kept)) if data else data
    except ValueError:
        return b"null"


def _shape(value: object, kept: frozenset[str] = frozenset()) -> object:
    match value:
        case bool() | None:
            return value
        case int():
            return 1
        case float():
            return 1.0
        case str():
            return _shape_of_text(value)
        case list():
            return [_shape(item) for item in cast("list[object]", value)]
        case dict():
            members = cast("dict[str, object]", value).items()
            return {name: item if name in kept or name == "$type" else _shape(item) for name, item in members}
        case _:
            return None


def _shape_of_text(text: str) -> str:
    if _INSTANT.fullmatch(text):
        return re.sub(r"\d", "1", text)
    return "".join(
        "1" if char.isdigit() else ("A" if char.isupper() else "a") if char.isalpha() else char
        for char in text
    )
