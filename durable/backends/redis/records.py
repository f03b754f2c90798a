"""How executions, checkpoints and messages are written in Redis.

A script reads what stands in front, in ASCII words; what follows is opaque to it. Bytes of users are never in a
script, in a name of a key, or in JSON.

    checkpoint   o12 c 1 1700000000000 - - 4 6\\n<kind><name><data>     under its step id
    message      3 1700000000001 sp 8 2\\n<id><name><data>
    consumed     5 <step><message>
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, cast

from pydantic_core import from_json, to_json

from durable.backends.redis.wire import Reply, Word
from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Doorbell,
    ExecutionRow,
    InboxEntry,
    Message,
    MessageKind,
    NewExecution,
    Outcome,
    Reach,
    State,
)

STATUS_LETTERS: Final = dict(zip(ExecutionStatus, "prtswukcfxz", strict=True))
STATUSES: Final = {letter.encode(): status for status, letter in STATUS_LETTERS.items()}
STATES: Final = {state.value[0].encode(): state for state in State}
CHECKPOINT_LETTERS: Final = dict(zip(CheckpointStatus, "orcfx", strict=True))
CHECKPOINT_STATUSES: Final = {letter.encode(): status for status, letter in CHECKPOINT_LETTERS.items()}
KIND_LETTERS: Final = dict(zip(MessageKind, "stcegxo", strict=True))
KINDS: Final = {ord(letter): kind for kind, letter in KIND_LETTERS.items()}
REACH_LETTERS: Final = {reach: reach.value[0] for reach in Reach}

_GREATEST_PRIORITY: Final = 2**31 - 1
_LAST_INSTANT: Final = 10**16 - 1

# ---- replies ---------------------------------------------------------------------------------------------------------


def as_bytes(reply: Reply) -> bytes:
    return cast("bytes", reply)


def as_int(reply: Reply) -> int:
    return cast("int", reply)


def as_list(reply: Reply) -> list[Reply]:
    return cast("list[Reply]", reply)


def as_words(reply: Reply) -> list[bytes]:
    return cast("list[bytes]", reply)


def as_pairs(reply: Reply) -> list[tuple[bytes, bytes]]:
    """Fields and values, or members and scores."""
    words = as_words(reply)
    return list(zip(words[::2], words[1::2], strict=True))


def clamp(instant: int) -> int:
    """An instant as 16 digits can write it."""
    return min(max(instant, 0), _LAST_INSTANT)


# ---- optional bytes and instants -------------------------------------------------------------------------------------


def pack_optional(data: bytes | None) -> bytes:
    return b"" if data is None else b"=" + data


def unpack_optional(packed: bytes | None) -> bytes | None:
    return packed[1:] if packed else None


def _optional_int(word: bytes | None) -> int | None:
    return int(word) if word and word != b"-" else None


# ---- executions ------------------------------------------------------------------------------------------------------


def digest(data: bytes) -> bytes:
    """By which an input is compared with that of another start."""
    return blake2b(data, digest_size=16).digest()


def key_field(workflow: str, key: str) -> str:
    return f"{workflow}\0{key}"


def lane(queue: str, workflow: str) -> str:
    """Where a ready execution is found by who wants it; `workflow` is `name@version`."""
    return f"{queue}\0{workflow}\0"


def rank(spec: NewExecution) -> str:
    """Its place in the ready index, but for the instant: the greatest priority first."""
    return f"{lane(spec.queue, f'{spec.workflow}@{spec.version}')}{_GREATEST_PRIORITY - spec.priority:010}"


def unpack_doorbell(member: bytes) -> Doorbell:
    """The doorbell that a member of the ready index is."""
    queue, workflow, rest, crashes = member.decode().split("\0")
    name, _, version = workflow.rpartition("@")
    priority, ready_at = _GREATEST_PRIORITY - int(rest[:10]), int(rest[10:26])
    return Doorbell(rest[26:], name, version, queue, priority, int(crashes), ready_at)


def workflow_prefix(workflow: str) -> str:
    return f"w{workflow}\0"


def parent_prefix(parent_id: str) -> str:
    return f"p{parent_id}\0"


def tag_prefix(name: str, value: str) -> str:
    return "t" + blake2b(to_json([name, value]), digest_size=16).hexdigest()


def status_prefix(status: ExecutionStatus) -> str:
    return "s" + STATUS_LETTERS[status]


def index_prefixes(spec: NewExecution) -> str:
    """Under what an execution is found by queries; all of them, and its status, besides."""
    prefixes = [workflow_prefix(spec.workflow)]
    if spec.parent_id is not None:
        prefixes.append(parent_prefix(spec.parent_id))
    prefixes += [tag_prefix(name, value) for name, value in spec.tags.items()]
    return "\n".join(prefixes)


def pack_spec(spec: NewExecution) -> bytes:
    """What never changes; JSON has no line ends."""
    words = [
        spec.workflow,
        spec.version,
        spec.queue,
        spec.priority,
        spec.key,
        dict(spec.tags),
        spec.parent_id,
    ]
    return to_json(words) + b"\n" + spec.options


@lru_cache(maxsize=256)
def _unpack_head(head: bytes) -> tuple[str, str, str, int, str | None, Mapping[str, str], str | None]:
    # The same for all executions of a workflow that have no key, no tags of their own and no parent.
    return cast(
        "tuple[str, str, str, int, str | None, Mapping[str, str], str | None]", tuple(from_json(head))
    )


def unpack_row(execution_id: str, fields: Mapping[bytes, bytes]) -> ExecutionRow:
    get = fields.get
    head, _, options = fields[b"s"].partition(b"\n")
    workflow, version, queue, priority, key, tags, parent_id = _unpack_head(head)
    state = STATES[fields[b"st"]]
    owned, closed = state is State.OWNED, state is State.CLOSED
    code = unpack_optional(get(b"co"))
    return ExecutionRow(
        id=execution_id,
        workflow=workflow,
        version=version,
        queue=queue,
        priority=priority,
        key=key,
        tags=dict(tags),
        options=options,
        input=fields[b"in"],
        parent_id=parent_id,
        state=state,
        status=STATUSES[fields[b"su"]],
        attempt=int(get(b"at", 1)),
        generation=int(get(b"ge", 0)),
        ver=int(get(b"ver", 0)),
        op_id=get(b"op", b"").decode(),
        nonce=fields[b"n"].decode() if owned else None,
        worker=fields[b"wk"].decode() if owned else None,
        crashes=int(get(b"cr", 0)),
        inbox_seq=int(get(b"iq", 0)),
        created_at=int(fields[b"ca"]),
        available_at=int(fields[b"av"]),
        started_at=_optional_int(get(b"sa")),
        finished_at=_optional_int(get(b"fa")) if closed else None,
        wake_at=_optional_int(get(b"wu")) if state is State.PARKED else None,
        deadline_at=_optional_int(get(b"dl")),
        result=unpack_optional(get(b"rs")) if closed else None,
        error=unpack_optional(get(b"er")),
        code=None if code is None else code.decode(),
        held_by=(get(b"hb", b"").decode() or None) if state is State.READY else None,
        cause=get(b"cs", b""),
    )


def unpack_outcome(status: bytes, workflow: bytes, attempt: bytes | int, data: bytes) -> Outcome:
    return Outcome(STATUSES[status], workflow.decode(), int(attempt), data[1:])


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def pack_checkpoint(checkpoint: Checkpoint) -> tuple[Word, Word, Word]:
    """Its step id; 'f' if it is final, else 'o', or 't' and the instant of its timer; all else."""
    status, wake_at = checkpoint.status, checkpoint.wake_at
    flag = "f" if status.final else "o" if wake_at is None else f"t{wake_at}"
    kind, name = checkpoint.kind.encode(), checkpoint.name.encode()
    finished_at = checkpoint.finished_at
    head = (
        f"{CHECKPOINT_LETTERS[status]} {checkpoint.attempts} {checkpoint.started_at} "
        f"{'-' if finished_at is None else finished_at} {'-' if wake_at is None else wake_at} {len(kind)} {len(name)}\n"
    )
    return checkpoint.step_id, flag, b"".join((head.encode(), kind, name, checkpoint.data))


def unpack_checkpoint(step_id: bytes, value: bytes) -> Checkpoint:
    head, _, body = value.partition(b"\n")
    seq, status, attempts, started_at, finished_at, wake_at, kind, name = head.split(b" ")
    end_of_kind = int(kind)
    end_of_name = end_of_kind + int(name)
    return Checkpoint(
        step_id.decode(),
        body[:end_of_kind].decode(),
        body[end_of_kind:end_of_name].decode(),
        CHECKPOINT_STATUSES[status],
        body[end_of_name:],
        int(attempts),
        int(started_at),
        _optional_int(finished_at),
        _optional_int(wake_at),
        int(seq[1:]),
    )


def unpack_history(reply: Reply) -> Sequence[Checkpoint]:
    """In order of `seq`."""
    records = [unpack_checkpoint(step_id, value) for step_id, value in as_pairs(reply)]
    records.sort(key=lambda record: record.seq)
    return records


# ---- messages --------------------------------------------------------------------------------------------------------


def pack_message(message: Message) -> bytes:
    message_id, name = message.id.encode(), message.name.encode()
    head = f"{KIND_LETTERS[message.kind]}{REACH_LETTERS[message.reach]} {len(message_id)} {len(name)}\n"
    return b"".join((head.encode(), message_id, name, message.data))


def unpack_entry(packed: bytes, consumed_by: str | None = None) -> InboxEntry:
    head, _, body = packed.partition(b"\n")
    seq, at, kind, message_id, name = head.split(b" ")
    end_of_id = int(message_id)
    end_of_name = end_of_id + int(name)
    return InboxEntry(
        int(seq),
        body[:end_of_id].decode(),
        KINDS[kind[0]],
        body[end_of_id:end_of_name].decode(),
        body[end_of_name:],
        int(at),
        consumed_by,
    )


def unpack_consumed(packed: bytes) -> InboxEntry:
    length, _, rest = packed.partition(b" ")
    end = int(length)
    return unpack_entry(rest[end:], rest[:end].decode())


def unpack_entries(reply: Reply) -> Sequence[InboxEntry]:
    return [unpack_entry(packed) for packed in as_words(reply)]


def unpack_doorbells(members: Iterable[Reply]) -> Sequence[Doorbell]:
    return [unpack_doorbell(as_bytes(member)) for member in members if member]
