"""`Intake`: how executions and events come in, and what they find there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from durable.backends.memory.record import Record
from durable.backends.memory.tables import Effects, Tables
from durable.protocols import Created, Emit, Exists, Joined, NewExecution, Receipt, State


@final
@dataclass(frozen=True, slots=True)
class Intake:
    tables: Tables

    def create(self, spec: NewExecution, op_id: str, effects: Effects) -> Created | Joined | Exists:
        tables = self.tables
        if (joined := tables.joined.get(op_id)) is not None:
            return joined.joined[op_id]
        same_id = tables.executions.get(spec.id)
        same_key = None if spec.key is None else tables.keys.get((spec.workflow, spec.key))
        for other in (same_id, same_key):
            if other is not None and other.created_op == op_id:
                return other.created
        if same_key is not None and not (spec.reuse_closed_key and same_key.state is State.CLOSED):
            return Exists(same_key.id, same_key.spec.input == spec.input)
        if same_id is not None:
            return Exists(same_id.id, same_id.spec.input == spec.input)
        return tables.insert(spec, op_id, effects) if spec.join is None else self._join(spec, op_id, effects)

    def _join(self, spec: NewExecution, op_id: str, effects: Effects) -> Created | Joined:
        join, tables, now = spec.join, self.tables, effects.now
        assert join is not None
        pending = tables.pending.get(join.group)
        begun = Effects(now)
        if pending is not None and pending.available_at > now and pending.started_at is None:
            if pending.state is State.READY and (
                join.size is None or pending.items + join.items <= join.size
            ):
                return self._join_pending(pending, spec, op_id, effects)
            if pending.state is State.READY:
                tables.make_ready(pending, now, begun)
        is_full = join.size is not None and join.items >= join.size
        created = tables.insert(replace(spec, delay_ms=0 if is_full else join.wait_ms), op_id, effects)
        record = tables.executions[spec.id]
        record.items = join.items
        tables.pending[join.group] = record
        if begun.doorbells:
            created = record.created = replace(created, doorbells=(*created.doorbells, *begun.doorbells))
            effects.add(begun)
        return created

    def _join_pending(self, pending: Record, spec: NewExecution, op_id: str, effects: Effects) -> Joined:
        join, now = spec.join, effects.now
        assert join is not None
        if join.size is None:
            pending.input, pending.cause = spec.input, spec.cause
            at = now + join.wait_ms
            at = at if join.most_ms is None else min(at, pending.created_at + join.most_ms)
        else:
            pending.input += b"\n" + spec.input
            pending.cause = b"\n".join(filter(None, (pending.cause, spec.cause)))
            pending.items += join.items
            at = now if pending.items >= join.size else pending.available_at
        own = Effects(now)
        self.tables.make_ready(pending, at, own)
        effects.add(own)
        joined = Joined(pending.id, next(iter(own.doorbells), None), pending.available_at)
        pending.joined[op_id] = joined
        self.tables.joined[op_id] = pending
        return joined

    def emit(self, emit: Emit, op_id: str, effects: Effects) -> Receipt:
        log = self.tables.log(emit.name)
        if (known := log.by_id.get(emit.id)) is not None:
            return Receipt(tuple(known.execution_ids), duplicate=known.op_id != op_id)
        event = log.store(emit, op_id, effects.now)
        for number, spec in enumerate(emit.starts):
            event.execution_ids.append(self.create(spec, f"{op_id}:{number}", effects).id)
        for (execution_id, _), listen in log.told(event):
            event.execution_ids.append(execution_id)
            self.tables.tell_event(self.tables.executions[execution_id], listen, event.row, effects)
        for (execution_id, _), listen in log.sent_to_look(event):
            self.tables.send_to_look(self.tables.executions[execution_id], listen, event.row, effects)
        return Receipt(tuple(event.execution_ids), duplicate=False)
