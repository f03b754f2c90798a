"""The verbs that concern one execution. Each decides first, and changes nothing before it has decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from durable.backends.sqlite import moves, statements as sql
from durable.backends.sqlite.head import CLOSED, READY, STATES, Head, execution_row
from durable.backends.sqlite.moves import Effects
from durable.backends.sqlite.schema import NEVER
from durable.backends.sqlite.unit import Unit
from durable.errors import StoreFull
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Block,
    Claimed,
    Close,
    Committed,
    Continue,
    Created,
    Diverged,
    Emit,
    Exists,
    Fenced,
    Full,
    InboxEntry,
    Message,
    MessageKind,
    NewExecution,
    NotClaimed,
    NotPosted,
    Out,
    Park,
    Post,
    Posted,
    Reach,
    Ready,
    Run,
    Start,
    Watch,
)

MAX_CHECKPOINTS: Final = 10_000
MAX_UNREAD: Final = 10_000


# -- create


def create(unit: Unit, spec: NewExecution, op_id: str) -> Created | Exists:
    same_id = unit.head_if_taken(spec)
    same_key = unit.holder(spec.workflow, spec.key) if spec.key else None
    if same_id is not None or same_key is not None:
        found = _existing(unit, spec, op_id, same_id, same_key)
        if found is not None:
            return found
    head, is_ready = moves.insert(unit, spec, op_id)
    return Created(head.id, head.doorbell() if is_ready else None, head.available_at)


def _existing(
    unit: Unit, spec: NewExecution, op_id: str, same_id: Head | None, same_key: Head | None
) -> Created | Exists | None:
    for head in (same_id, same_key):
        if head is not None and unit.created(head)[0] == op_id:
            is_ready = head.state == READY and head.available_at <= unit.now
            return Created(head.id, head.doorbell() if is_ready else None, head.available_at)
    if same_key is not None and not (spec.reuse_closed_key and same_key.state == CLOSED):
        return Exists(same_key.id, unit.created(same_key)[1] == spec.input)
    if same_id is not None:
        return Exists(same_id.id, unit.created(same_id)[1] == spec.input)
    return None


# -- claim


def claim(
    unit: Unit, execution_id: str, nonce: str, worker: str, have_op: str | None
) -> Claimed | NotClaimed:
    head = unit.head(execution_id)
    if head is None:
        return NotClaimed(None)
    if head.nonce != nonce:
        if head.state != READY or head.available_at > unit.now:
            return NotClaimed(STATES[head.state])
        moves.own(unit, head, nonce, worker)
    knows_history = head.ver > 0 and head.op_id == have_op
    return Claimed(
        execution_row(head, unit.given(head), unit.end(head)),
        None if knows_history else unit.history(head),
        unit.unread(head, 0),
        unit.now,
    )


# -- commit


def commit(
    unit: Unit, execution_id: str, nonce: str, ver: int, op_id: str, batch: Batch
) -> Committed | Fenced | Diverged | Full:
    head = unit.head(execution_id)
    if head is None:
        return Fenced()
    if head.op_id == op_id and head.ver:
        return head.answer or _answer_again(unit, head, nonce, batch)
    if head.nonce != nonce:
        return Fenced()
    if head.ver != ver:
        return Diverged()
    full = None
    if batch.out or head.records + len(batch.checkpoints) > MAX_CHECKPOINTS:
        full = _above_a_limit(unit, head, batch)
    if (unit.is_exact or full is not None) and _changes_a_final_checkpoint(unit, head, batch):
        return Diverged()
    if full is not None:
        return full

    effects = Effects()
    for step_id in batch.drop:
        moves.forget(unit, head, step_id)
    for checkpoint in batch.checkpoints:
        moves.write(unit, head, checkpoint)
    for seq, step_id in batch.consume:
        head.unread -= unit.change(sql.CONSUME, head, step_id, seq)
    for name, data in batch.values.items():
        unit.db.execute(sql.SET_VALUE, (head.n, name, data))
    for out in batch.out:
        _send(unit, head, out, op_id, effects)
    head.ver += 1
    head.op_id = op_id
    head.crashes = 0
    unit.advanced(head)
    news = unit.unread(head, batch.seen)
    is_owned = _go_on(unit, head, batch, news, effects)
    answer = Committed(
        head.ver, is_owned, news, unit.now, tuple(effects.doorbells.values()), tuple(effects.touched)
    )
    head.answer = None if news else answer
    return answer


def _answer_again(unit: Unit, head: Head, nonce: str, batch: Batch) -> Committed:
    """The answer to the last accepted commit, as far as what is stored tells. Who is ready still may be rung again."""
    touched = dict.fromkeys(out.to for out in batch.out if isinstance(out, Post))
    if head.state == CLOSED:
        touched[head.id] = None
    started = dict.fromkeys(out.spec.id for out in batch.out if isinstance(out, Start))
    concerned = [unit.head(execution_id) for execution_id in {head.id: None, **touched, **started}]
    return Committed(
        ver=head.ver,
        owned=head.nonce == nonce,
        inbox=unit.unread(head, batch.seen),
        now=unit.now,
        doorbells=[
            other.doorbell()
            for other in concerned
            if other is not None and other.state == READY and other.available_at <= unit.now
        ],
        touched=tuple(touched),
    )


def _above_a_limit(unit: Unit, head: Head, batch: Batch) -> Full | None:
    if head.records + len(batch.checkpoints) > MAX_CHECKPOINTS:
        unit.settle(head)
        stored = {step_id for step_id, _ in unit.db.execute(sql.STEPS, (head.n,))}
        head.records = len(stored)
        stored.difference_update(batch.drop)
        stored.update(checkpoint.step_id for checkpoint in batch.checkpoints)
        if len(stored) > MAX_CHECKPOINTS and not isinstance(batch.next, Continue):
            return Full("checkpoints", len(stored), MAX_CHECKPOINTS)
    posted = Counter(out.to for out in batch.out if isinstance(out, Post) and out.message.kind.refusable)
    for execution_id, number in posted.items():
        target = unit.head(execution_id)
        if target is not None and target.unread + number > MAX_UNREAD:
            return Full("inbox", target.unread + number, MAX_UNREAD)
    return None


def _changes_a_final_checkpoint(unit: Unit, head: Head, batch: Batch) -> bool:
    unit.settle(head)
    statuses = dict(unit.db.execute(sql.STEPS, (head.n,)).fetchall())
    final = {step_id for step_id, status in statuses.items() if status not in ("open", "retrying")}
    final.difference_update(batch.drop)
    for checkpoint in batch.checkpoints:
        if checkpoint.step_id in final:
            return True
        if checkpoint.status.final:
            final.add(checkpoint.step_id)
    return False


def _send(unit: Unit, head: Head, out: Out, op_id: str, effects: Effects) -> None:
    match out:
        case Start(spec):
            created = create(unit, spec, op_id)
            if isinstance(created, Created) and created.doorbell is not None:
                effects.doorbells[created.id] = created.doorbell
        case Post(execution_id, message):
            target = unit.head(execution_id)
            if target is not None and _refusal(unit, target, message) is None:
                _post(unit, target, message, effects)
        case Watch():
            moves.watch(unit, head, out, effects)
        case Emit(event_id, name, data):
            unit.db.execute(sql.EMIT, (unit.ns, event_id, name, data, unit.now))


def _go_on(unit: Unit, head: Head, batch: Batch, news: Sequence[InboxEntry], effects: Effects) -> bool:
    """Enter the next state; does the owner go on?"""
    next = batch.next
    if isinstance(next, Run) or (news and isinstance(next, Park)):
        return True
    match next:
        case Park():
            moves.park(unit, head, next)
        case Block():
            moves.block(unit, head, next)
            if unit.has_urgent(head, batch.seen):
                moves.make_ready(unit, head, unit.now, effects)
        case Ready(at, status, attempt):
            head.status, head.attempt = status._value_, attempt
            moves.make_ready(unit, head, unit.now if unit.has_urgent(head, batch.seen) else at, effects)
        case Close():
            moves.close(unit, head, next, effects)
        case Continue(input):
            moves.restart(unit, head, input, effects)
    return False


# -- post


def post(unit: Unit, execution_id: str, message: Message) -> Posted | NotPosted:
    head = unit.head(execution_id)
    if head is None:
        return NotPosted(None)
    if (refusal := _refusal(unit, head, message)) is not None:
        return refusal
    if head.unread >= MAX_UNREAD and message.kind.refusable:
        raise StoreFull(
            f"execution {execution_id} has {MAX_UNREAD:,} unread messages",
            "let it read some, or cancel it; the call may be repeated then",
        )
    effects = Effects()
    _post(unit, head, message, effects)
    return Posted(head.inbox_seq, effects.doorbells.get(execution_id), closed=head.state == CLOSED)


def _refusal(unit: Unit, head: Head, message: Message) -> NotPosted | None:
    if unit.has_message_id(head, message.id):
        return NotPosted(STATES[head.state], duplicate=True)
    if head.state == CLOSED and message.reach is not Reach.CLOSED:
        return NotPosted(STATES[CLOSED])
    return None


def _post(unit: Unit, head: Head, message: Message, effects: Effects) -> None:
    unit.add_message_id(head, message.id)
    if message.kind is MessageKind.CANCEL and head.state == READY and head.started_at == NEVER:
        moves.append(unit, head, message, effects)
        moves.close(unit, head, Close(ExecutionStatus.CANCELLED, error=message.data), effects)
    else:
        moves.deliver(unit, head, message, effects)
