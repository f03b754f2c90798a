"""`Verbs`: each write of the port as one run of its script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

from durable.backends.redis import scripts
from durable.backends.redis.gates import is_given_back, pack_gates
from durable.backends.redis.keys import Keyspace
from durable.backends.redis.letters import Letter, pack_out, unpack_letter
from durable.backends.redis.records import (
    KIND_LETTERS,
    REACH_LETTERS,
    STATES,
    STATUS_LETTERS,
    as_bytes,
    as_int,
    as_list,
    as_pairs,
    as_words,
    digest,
    index_prefixes,
    key_field,
    pack_checkpoint,
    pack_message,
    pack_optional,
    pack_spec,
    rank,
    unpack_doorbell,
    unpack_entries,
    unpack_history,
    unpack_row,
)
from durable.backends.redis.wire import Wire, Word
from durable.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from durable.protocols import (
    Batch,
    Block,
    Claimed,
    Close,
    Committed,
    Continue,
    Created,
    Diverged,
    Doorbell,
    Exists,
    Fenced,
    Free,
    Full,
    Joined,
    Message,
    MessageKind,
    NewExecution,
    Next,
    NotClaimed,
    NotPosted,
    Park,
    Posted,
    Ready,
    Run,
    Seek,
)

MAX_CHECKPOINTS: Final = 10_000
MAX_UNREAD: Final = 10_000
_ANY_NUMBER: Final = 2**53


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb answers, and what it put into the outbox for others."""

    committed: Committed
    letters: Sequence[Letter] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """What became of a start, whether it was created just now, and what it put into the outbox."""

    answer: Created | Joined | Exists
    is_new: bool = False
    letters: Sequence[Letter] = ()


@final
@dataclass(frozen=True, slots=True)
class Verbs:
    """Stateless: all that is decided is decided in the scripts."""

    wire: Wire
    space: Keyspace
    max_unread: int = field(default=MAX_UNREAD)

    async def start(self, spec: NewExecution, op_id: str, watcher: str = "", token: str = "") -> Started:
        """Create it, watched from the beginning if there is a watcher."""
        keys = self.space.of(spec.id)
        join, delay_ms = spec.join, _delay_ms(spec)
        args: list[Word] = [
            spec.id,
            op_id,
            "" if spec.key is None else key_field(spec.workflow, spec.key),
            "1" if spec.reuse_closed_key else "",
            digest(spec.input),
            delay_ms,
            spec.at_ms or 0,
            "" if spec.timeout_ms is None else spec.timeout_ms,
            pack_spec(spec),
            spec.input,
            rank(spec),
            index_prefixes(spec),
            spec.workflow,
            watcher,
            token,
            pack_gates(spec.gates),
            int(any(map(is_given_back, spec.gates))),
            spec.cause,
        ]
        if join is None:
            args += ["", "", "", ""]
        else:
            most, size = join.most_ms, join.size
            args += [join.group, "" if most is None else most, "" if size is None else size, join.items]
        args += [len(spec.history), len(spec.values)]
        tail: list[Word] = []
        for checkpoint in spec.history:
            step_id, _, packed = pack_checkpoint(checkpoint)
            tail += (step_id, packed)
        for value in spec.values.items():
            tail += value
        tail += [pack_out(listen) for listen in spec.listens]
        holder = ""
        declared: tuple[str, ...] = keys.create
        while True:
            code, *rest = as_list(
                await self.wire.run(scripts.CREATE, declared, [*args, holder, *tail], op_id=op_id)
            )
            if code != b"k":
                break
            # Another execution has the key, or is pending for the group. Its record has to be declared, so that the
            # script can look at it.
            holder = as_bytes(rest[0]).decode()
            declared = (*keys.create, f"{keys.part.prefix}x:{holder}")
        execution_id = as_bytes(rest[0]).decode()
        if code == b"e":
            return Started(Exists(execution_id, bool(rest[1])))
        letters = [unpack_letter(keys.part, letter) for letter in as_list(rest[3])]
        if code == b"j":
            bell = unpack_doorbell(as_bytes(rest[2])) if rest[2] else None
            return Started(Joined(execution_id, bell, int(as_bytes(rest[1]))), letters=letters)
        created_at = rest[1] if isinstance(rest[1], int) else int(as_bytes(rest[1]))
        created = _created(spec, delay_ms, execution_id, created_at)
        if rest[4]:
            created = replace(created, doorbells=(unpack_doorbell(as_bytes(rest[4])),))
        return Started(created, bool(rest[2]), letters)

    async def claim(
        self, execution_id: str, nonce: str, worker: str, have_op: str | None
    ) -> Claimed | NotClaimed:
        keys = self.space.of(execution_id)
        reply = await self.wire.run(
            scripts.CLAIM,
            keys.claim,
            (execution_id, nonce, worker, have_op or "", worker_place(worker)),
            op_id=nonce,
        )
        code, *rest = as_list(reply)
        if code != b"o" or not rest:
            return NotClaimed(STATES.get(as_bytes(code)))
        now, fields, records, entries = rest
        if records == 1:
            try:
                records = await self.wire.call("HGETALL", keys.history, key=keys.x)
            except (
                StoreUnavailable
            ) as error:  # but it is owned by now, under a nonce that only the caller knows
                raise OutcomeUnknown(nonce, "its history could not be read") from error
        return Claimed(
            row=unpack_row(execution_id, dict(as_pairs(fields))),
            history=None if records is None else unpack_history(records),
            inbox=unpack_entries(entries),
            now=as_int(now),
        )

    async def commit(
        self, execution_id: str, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Answer | Fenced | Diverged | Full:
        keys = self.space.of(execution_id)
        args = _commit_args(execution_id, nonce, ver, op_id, batch)
        is_step = isinstance(batch.next, Run) and not (
            batch.drop or batch.consume or batch.values or batch.out
        )
        reply = as_list(
            await self.wire.run(scripts.COMMIT, keys.step if is_step else keys.commit, args, op_id=op_id)
        )
        if reply[0] == b"?":
            reply = as_list(await self.wire.run(scripts.COMMIT, keys.commit, args, op_id=op_id))
        match reply[0]:
            case b"w":
                pass
            case b"f":
                return Fenced()
            case b"d":
                return Diverged()
            case _:
                return Full("checkpoints", as_int(reply[1]), MAX_CHECKPOINTS)
        ver, owned, now, news = int(as_bytes(reply[1])), bool(reply[2]), as_int(reply[3]), reply[4]
        if len(reply) == 5:  # it was sent before: what it put into the outbox is the relay's to carry
            return Answer(Committed(ver, owned, unpack_entries(news), now))
        doorbell, sent, told = as_bytes(reply[5]), as_words(reply[6]), as_list(reply[7])
        letters: list[Letter] = []
        if sent:
            incarnation = sent[-1].decode()
            outs = [out for out in batch.out if not isinstance(out, (Seek, Free))]
            letters = [
                Letter(keys.part, entry_id, execution_id, incarnation, out)
                for entry_id, out in zip(sent[:-1], outs, strict=True)
            ]
        letters += [unpack_letter(keys.part, entry) for entry in told]
        return Answer(
            Committed(
                ver,
                owned,
                unpack_entries(news),
                now,
                (unpack_doorbell(doorbell),) if doorbell else (),
                (execution_id,) if isinstance(batch.next, Close) else (),
            ),
            letters,
        )

    async def post(
        self, execution_id: str, message: Message, heard: tuple[str, str, str] | None = None
    ) -> tuple[Posted | NotPosted, Sequence[Letter]]:
        """Post it; if it was heard, only to who listens still (where, since which letter, and whether it goes on).

        Raises: `StoreFull`.
        """
        keys = self.space.of(execution_id)
        is_cancel = message.kind is MessageKind.CANCEL
        reply = await self.wire.run(
            scripts.POST,
            keys.post,
            (
                execution_id,
                message.id,
                KIND_LETTERS[message.kind],
                REACH_LETTERS[message.reach],
                pack_message(message),
                pack_optional(message.data) if is_cancel else "",
                self.max_unread if message.kind.refusable else _ANY_NUMBER,
                *(heard or ()),
            ),
            op_id=message.id,
        )
        code, *rest = as_list(reply)
        match code:
            case b"p":
                seq, doorbell, closed, told = rest
                bell: Doorbell | None = unpack_doorbell(as_bytes(doorbell)) if doorbell else None
                letters = [unpack_letter(keys.part, entry) for entry in as_list(told)]
                return Posted(as_int(seq), bell, bool(closed)), letters
            case b"=":
                return NotPosted(STATES[as_bytes(rest[0])], duplicate=True), ()
            case b"!":
                raise StoreFull(
                    f"execution {execution_id} has {self.max_unread:,} unread messages",
                    "let it read some, or cancel it; the call may be repeated then",
                )
            case _:
                return NotPosted(STATES[b"c"] if code == b"x" else None), ()


def worker_place(worker: str) -> bytes:
    """Where what a worker owns begins in the index of the owned; its length first, so that none is within another's."""
    name = worker.encode()
    return b"%04x%b" % (len(name), name)


def _delay_ms(spec: NewExecution) -> int:
    """A group's wait for others, unless one is as many as there may be."""
    join = spec.join
    if join is None:
        return spec.delay_ms
    return 0 if join.size is not None and join.items >= join.size else join.wait_ms


def _created(spec: NewExecution, delay_ms: int, execution_id: str, created_at: int) -> Created:
    """What has gates is claimable only when it has passed them."""
    available_at = max(created_at + delay_ms, spec.at_ms or 0)
    bell = Doorbell(
        execution_id, spec.workflow, spec.version, spec.queue, spec.priority, ready_at=available_at
    )
    is_claimable = available_at <= created_at and not spec.gates
    return Created(execution_id, bell if is_claimable else None, available_at)


def _commit_args(execution_id: str, nonce: str, ver: int, op_id: str, batch: Batch) -> list[Word]:
    letter, next_args = _pack_next(batch.next)
    # These come from the script as letters of its own: the record knows what is sought.
    outs: list[Word] = []
    passing: list[Word] = []
    for out in batch.out:
        match out:
            case Seek(step_id, gates, message_id):
                passing += (step_id, message_id, pack_gates(gates))
            case Free(step_id):
                passing += (step_id, "", "")
            case _:
                outs.append(pack_out(out))
    args: list[Word] = [
        execution_id,
        nonce,
        ver,
        op_id,
        batch.seen,
        letter,
        len(batch.checkpoints),
        len(batch.drop),
        len(batch.consume),
        len(batch.values),
        len(outs),
        len(passing) // 3,
    ]
    for checkpoint in batch.checkpoints:
        args += pack_checkpoint(checkpoint)
    args += batch.drop
    for taken in batch.consume:
        args += taken
    for value in batch.values.items():
        args += value
    args += outs
    args += passing
    args += next_args
    return args


def _pack_next(next: Next) -> tuple[str, tuple[Word, ...]]:
    match next:
        case Run():
            return "u", ()
        case Park(status, wake_at):
            return "p", (STATUS_LETTERS[status], "" if wake_at is None else wake_at)
        case Block(status, error, code):
            return "b", (STATUS_LETTERS[status], pack_optional(error), _pack_code(code))
        case Ready(at_ms, status, attempt):
            return "r", (STATUS_LETTERS[status], at_ms, attempt)
        case Close(status, result, error, code):
            packed = (pack_optional(result), pack_optional(error), _pack_code(code))
            return "c", (STATUS_LETTERS[status], *packed)
        case Continue(input):
            return "n", ("", input)


def _pack_code(code: str | None) -> bytes:
    return pack_optional(None if code is None else code.encode())
