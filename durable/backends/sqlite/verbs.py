"""The verbs that concern one execution. Each decides first, and changes nothing before it has decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from durable.backends.sqlite import events, gates, moves, schedules, statements as sql
from durable.backends.sqlite.head import CLOSED, READY, STATES, Head, execution_row
from durable.backends.sqlite.moves import Effects
from durable.backends.sqlite.schema import NEVER
from durable.backends.sqlite.unit import Unit
from durable.errors import StoreFull
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
    Emit,
    Exists,
    Fenced,
    Free,
    Full,
    InboxEntry,
    Join,
    Joined,
    Listen,
    Message,
    NewExecution,
    NotClaimed,
    NotPosted,
    Out,
    Park,
    Post,
    Posted,
    Reach,
    Ready,
    Receipt,
    Run,
    Saved,
    ScheduleRow,
    Seek,
    Sent,
    Start,
    Unlisten,
    Watch,
)

MAX_CHECKPOINTS: Final = 10_000
MAX_UNREAD: Final = 10_000


# -- create


def create(unit: Unit, spec: NewExecution, op_id: str) -> Created | Joined | Exists:
    effects = Effects()
    answer = start(unit, spec, op_id, effects)
    if isinstance(answer, Created):
        others = tuple(bell for id, bell in effects.doorbells.items() if id != answer.id)
        touched = tuple(id for id in effects.touched if id != answer.id)
        return replace(answer, doorbells=others, touched=touched, next_at=gates.next_at(unit))
    return answer


def start(unit: Unit, spec: NewExecution, op_id: str, effects: Effects) -> Created | Joined | Exists:
    """Create it, or let it join its group; what that means for others is added to the effects."""
    if spec.join is not None and (joined := _joined(unit, op_id)) is not None:
        return joined
    same_id = unit.head_if_taken(spec)
    same_key = unit.holder(spec.workflow, spec.key) if spec.key else None
    if same_id is not None or same_key is not None:
        found = _existing(unit, spec, op_id, same_id, same_key)
        if found is not None:
            return found
    if spec.join is not None:
        return _join(unit, spec, spec.join, op_id, effects)
    head = moves.insert(unit, spec, op_id, effects)
    return Created(head.id, effects.doorbells.get(head.id), head.available_at)


def _join(unit: Unit, spec: NewExecution, join: Join, op_id: str, effects: Effects) -> Created | Joined:
    found = unit.db.execute(sql.PENDING, (unit.ns, join.group)).fetchone()
    pending = unit.head_by_n(found[0]) if found else None
    is_joinable = pending is not None and pending.state == READY and pending.started_at == NEVER
    if pending is not None and is_joinable and pending.available_at > unit.now:
        unit.flush()
        (items,) = unit.db.execute(sql.ITEMS, (pending.n,)).fetchone()
        if join.size is None or items + join.items <= join.size:
            return _join_pending(unit, pending, spec, join, items, op_id, effects)
        moves.make_ready(unit, pending, unit.now, effects)
    is_full = join.size is not None and join.items >= join.size
    head = moves.insert(unit, replace(spec, delay_ms=0 if is_full else join.wait_ms), op_id, effects)
    unit.db.execute(sql.SET_PENDING, (unit.ns, join.group, head.n))
    return Created(head.id, effects.doorbells.get(head.id), head.available_at)


def _join_pending(
    unit: Unit, pending: Head, spec: NewExecution, join: Join, items: int, op_id: str, effects: Effects
) -> Joined:
    if join.size is None:
        unit.db.execute(sql.REPLACE_INPUT, (spec.input, spec.cause, pending.n))
        at = unit.now + join.wait_ms
        at = at if join.most_ms is None else min(at, pending.created_at + join.most_ms)
    else:
        unit.db.execute(sql.ADD_INPUT, (spec.input, join.items, spec.cause, pending.n))
        at = unit.now if items + join.items >= join.size else pending.available_at
    pending.given = None
    moves.make_ready(unit, pending, at, effects)
    unit.db.execute(sql.SET_JOINED, (unit.ns, op_id, pending.n, pending.available_at))
    return Joined(pending.id, effects.doorbells.get(pending.id), pending.available_at)


def _joined(unit: Unit, op_id: str) -> Joined | None:
    found = unit.db.execute(sql.JOINED, (unit.ns, op_id)).fetchone()
    if found is None:
        return None
    n, available_at = found
    head = unit.head_by_n(n)
    return None if head is None else Joined(head.id, _bell(unit, head), available_at)


def _bell(unit: Unit, head: Head) -> Doorbell | None:
    is_ready = head.state == READY and not head.is_held and head.available_at <= unit.now
    return head.doorbell() if is_ready else None


def _existing(
    unit: Unit, spec: NewExecution, op_id: str, same_id: Head | None, same_key: Head | None
) -> Created | Exists | None:
    for head in (same_id, same_key):
        if head is not None and unit.created(head)[0] == op_id:
            return Created(head.id, _bell(unit, head), head.available_at)
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
        if head.state != READY or head.is_held or head.available_at > unit.now:
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
        head.ver,
        is_owned,
        news,
        unit.now,
        tuple(effects.doorbells.values()),
        tuple(effects.touched),
        gates.next_at(unit),
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
            other.doorbell() for other in concerned if other is not None and _bell(unit, other) is not None
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
            start(unit, spec, op_id, effects)
        case Post(execution_id, message):
            target = unit.head(execution_id)
            if target is not None and _refusal(unit, target, message) is None:
                moves.post(unit, target, message, effects)
        case Watch():
            moves.watch(unit, head, out, effects)
        case Emit():
            emit(unit, out, op_id, effects)
        case Listen():
            moves.begin_to_listen(unit, head, out, effects)
        case Unlisten(event, step_id):
            events.unlisten(unit, head.n, event, step_id)
        case Seek():
            moves.seek_for_step(unit, head, out, effects)
        case Free(step_id):
            moves.free(unit, head, step_id, effects)


# -- events


def send(unit: Unit, sent: Sequence[Emit], op_id: str) -> Sent:
    effects = Effects()
    receipts = [emit(unit, each, f"{op_id}:{number}", effects) for number, each in enumerate(sent)]
    bells = tuple(effects.doorbells.values())
    return Sent(receipts, bells, tuple(effects.touched), gates.next_at(unit))


def emit(unit: Unit, emit: Emit, op_id: str, effects: Effects) -> Receipt:
    if (known := events.known(unit, emit)) is not None:
        return Receipt(known[1], duplicate=known[0] != op_id)
    unit.flush()
    row = events.store(unit, emit, op_id)
    ids = [start(unit, spec, f"{op_id}:{number}", effects).id for number, spec in enumerate(emit.starts)]
    for n, step_id, cancel in events.told(unit, emit):
        if (listener := unit.head_by_n(n)) is not None:
            ids.append(listener.id)
            moves.tell_event(unit, listener, step_id, cancel, row, effects)
    for n, step_id in events.sent_to_look(unit, emit):
        if (listener := unit.head_by_n(n)) is not None:
            moves.send_to_look(unit, listener, step_id, row.seq, effects)
    events.keep_receipt(unit, row, ids)
    return Receipt(ids, duplicate=False)


def save_schedule(unit: Unit, row: ScheduleRow, op_id: str, starts: Sequence[NewExecution]) -> Saved | None:
    found = schedules.save(
        unit, row, op_id, starts, lambda spec, op_id, effects: start(unit, spec, op_id, effects).id
    )
    if found is None:
        return None
    saved, effects = found
    bells = tuple(effects.doorbells.values())
    return replace(saved, doorbells=bells, touched=tuple(effects.touched), next_at=gates.next_at(unit))


def _go_on(unit: Unit, head: Head, batch: Batch, news: Sequence[InboxEntry], effects: Effects) -> bool:
    """Enter the next state; does the owner go on?"""
    next = batch.next
    if isinstance(next, Run) or (news and isinstance(next, Park)):
        return True
    match next:
        case Park():
            moves.park(unit, head, next, effects)
        case Block():
            moves.block(unit, head, next, effects)
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
    moves.post(unit, head, message, effects)
    own = effects.doorbells.pop(execution_id, None)
    others = tuple(effects.doorbells.values())
    return Posted(head.inbox_seq, own, head.state == CLOSED, others, gates.next_at(unit))


def _refusal(unit: Unit, head: Head, message: Message) -> NotPosted | None:
    if unit.has_message_id(head, message.id):
        return NotPosted(STATES[head.state], duplicate=True)
    if head.state == CLOSED and message.reach is not Reach.CLOSED:
        return NotPosted(STATES[CLOSED])
    return None
