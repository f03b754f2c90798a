"""One-line sabotages of the engine and of its stores, each of which the tests must notice.

Each undoes one rule that a promise rests on. One that survives shows that nothing holds that rule in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEMORY: Final = "durable/backends/memory/"
SQLITE: Final = "durable/backends/sqlite/"
REDIS: Final = "durable/backends/redis/"
LUA: Final = REDIS + "scripts/"

_CONTRACTS: Final = {
    MEMORY: "tests/backends/test_memory_contracts.py::TestMemoryStore::",
    SQLITE: "tests/backends/test_sqlite_contracts.py::TestSqliteStore::",
    REDIS: "tests/backends/test_redis_contracts.py::TestRedisStore::",
}
_TRANSACTIONS: Final = "tests/backends/test_sqlite_contracts.py::TestSqliteTransactions::"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault that is put into a copy of the package."""

    name: str
    breaks: str
    """What goes wrong, and which promise with it."""
    file: str
    old: str
    """Occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Node ids of everyday tests, one of which must fail."""


def _on(backend: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{_CONTRACTS[backend]}test_{name}" for name in names)


def _behaviour(page: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/behaviour/test_{page}.py::test_{name}[memory]" for name in names)


def _outbox(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/backends/test_redis_store.py::test_{name}" for name in names)


def _in_transactions(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/behaviour/test_transactions.py::test_{name}" for name in names)


GALLERY: Final = (
    # ---- who may write
    Mutant(
        "no fence, memory",
        "P5: whoever lost an execution goes on writing to it",
        MEMORY + "store.py",
        "if record.nonce != nonce:\n            return Fenced()",
        "if False:\n            return Fenced()",
        _on(MEMORY, "who_has_a_successor_is_fenced_even_on_the_right_version"),
    ),
    Mutant(
        "no fence, sqlite",
        "P5: whoever lost an execution goes on writing to it",
        SQLITE + "verbs.py",
        "if head.nonce != nonce:\n        return Fenced()",
        "if False:\n        return Fenced()",
        _on(SQLITE, "who_has_a_successor_is_fenced_even_on_the_right_version"),
    ),
    Mutant(
        "no fence, redis",
        "P5: whoever lost an execution goes on writing to it",
        LUA + "commit.lua",
        "if not is_owner then return {'f'} end",
        "",
        _on(REDIS, "who_has_a_successor_is_fenced_even_on_the_right_version"),
    ),
    Mutant(
        "no version, memory",
        "P5: after the store went back in time two histories are mixed",
        MEMORY + "store.py",
        "if record.ver != ver or _changes",
        "if _changes",
        _on(MEMORY, "another_version_diverges_and_nothing_is_written"),
    ),
    Mutant(
        "no version, sqlite",
        "P5: after the store went back in time two histories are mixed",
        SQLITE + "verbs.py",
        "if head.ver != ver:",
        "if False:",
        _on(SQLITE, "another_version_diverges_and_nothing_is_written"),
    ),
    Mutant(
        "no version, redis",
        "P5: after the store went back in time two histories are mixed",
        LUA + "commit.lua",
        "if has_ver ~= ver then return {'d'} end",
        "",
        _on(REDIS, "another_version_diverges_and_nothing_is_written"),
    ),
    # ---- what is written once
    Mutant(
        "a commit counts twice, memory",
        "P2: a commit whose answer was lost is refused when it is sent again",
        MEMORY + "store.py",
        "if record.answer is not None and record.op_id == op_id:",
        "if False:",
        _on(MEMORY, "a_commit_again"),
    ),
    Mutant(
        "a commit counts twice, sqlite",
        "P2: a commit whose answer was lost is refused when it is sent again",
        SQLITE + "verbs.py",
        "if head.op_id == op_id and head.ver:",
        "if False:",
        _on(SQLITE, "a_commit_again"),
    ),
    Mutant(
        "a commit counts twice, redis",
        "P2: a commit whose answer was lost is refused when it is sent again",
        LUA + "commit.lua",
        "if state and last_op == op then",
        "if false then",
        _on(REDIS, "a_commit_again"),
    ),
    Mutant(
        "a final record changes, memory",
        "P2: the outcome of a step changes after the body has seen it",
        MEMORY + "store.py",
        " or _changes_a_final_checkpoint(record, batch):",
        ":",
        _on(MEMORY, "a_final_record_never_changes_and_the_rest_of_the_batch_is_not_written"),
    ),
    Mutant(
        "a final record changes, sqlite",
        "P2: the outcome of a step changes after the body has seen it",
        SQLITE + "statements.py",
        "WHERE status IN ('open', 'retrying')",
        "WHERE 1",
        _on(SQLITE, "a_final_record_never_changes_and_the_rest_of_the_batch_is_not_written"),
    ),
    Mutant(
        "a final record changes, redis",
        "P2: the outcome of a step changes after the body has seen it",
        LUA + "commit.lua",
        "if before == 'f' then return {'d'} end",
        "",
        _on(REDIS, "a_final_record_never_changes_and_the_rest_of_the_batch_is_not_written"),
    ),
    Mutant(
        "an effect before its record",
        "P3: a step begins before the record of the one before it is stored, and a crash repeats both",
        "durable/engine/attempt.py",
        "if self._owned and (stored or not (dirty or self._committing)):",
        "if self._owned:",
        _behaviour(
            "workers",
            "records_of_a_dead_worker_are_those_that_it_stored",
            "another_worker_goes_on_where_a_dead_one_was",
        ),
    ),
    # ---- the inbox
    Mutant(
        "blind park, memory",
        "P6: a signal that comes while its execution goes to sleep is slept over",
        MEMORY + "store.py",
        "case Park() if news:",
        "case Park() if False:",
        _on(MEMORY, "a_park_does_not_hold_when_something_came_and_all_else_is_written"),
    ),
    Mutant(
        "blind park, sqlite",
        "P6: a signal that comes while its execution goes to sleep is slept over",
        SQLITE + "verbs.py",
        "or (news and isinstance(next, Park))",
        "",
        _on(SQLITE, "a_park_does_not_hold_when_something_came_and_all_else_is_written"),
    ),
    Mutant(
        "blind park, redis",
        "P6: a signal that comes while its execution goes to sleep is slept over",
        LUA + "commit.lua",
        " and not (next == 'p' and #news > 0)",
        "",
        _on(REDIS, "a_park_does_not_hold_when_something_came_and_all_else_is_written"),
    ),
    Mutant(
        "a message counts twice, memory",
        "P6: a signal that is sent again with its key is taken twice",
        MEMORY + "store.py",
        "if message.id in record.seen:",
        "if False:",
        _on(MEMORY, "a_message_id_counts_once_whatever_comes_with_it"),
    ),
    Mutant(
        "a message counts twice, redis",
        "P6: a signal that is sent again with its key is taken twice",
        LUA + "post.lua",
        "if call('SISMEMBER', seen_ids, 'i' .. message_id) == 1 then return {'=', state} end",
        "",
        _on(REDIS, "a_message_id_counts_once_whatever_comes_with_it"),
    ),
    Mutant(
        "messages are taken at the claim",
        "P6: outside of the commit that uses it a message is lost with the worker that dies in between",
        MEMORY + "store.py",
        "inbox=tuple(record.unread.values()),",
        "inbox=tuple(record.unread.pop(seq) for seq in list(record.unread)),",
        _on(MEMORY, "a_takeover_loses_no_message_and_no_timer", "a_claim_again"),
    ),
    Mutant(
        "messages are not taken by the commit",
        "P6: a signal is taken by two waits",
        "durable/engine/journal.py",
        "consume=tuple(self._consume),",
        "consume=(),",
        ("tests/behaviour/test_signals.py::test_each_wait_takes_one_signal[memory, forgetful]",),
    ),
    # ---- who is woken
    Mutant(
        "wakes by doorbell only, memory",
        "P11: what nobody heard of is never rung again",
        MEMORY + "store.py",
        "found = self._tables.ready.due(now, wanted, limit=limit, again_at=now + again_ms)",
        "found = self._tables.ready.due(now, wanted, limit=0, again_at=now + again_ms)",
        _on(MEMORY, "a_doorbell_that_got_lost_is_rung_again_as_it_was"),
    ),
    Mutant(
        "wakes by doorbell only, sqlite",
        "P11: what nobody heard of is never rung again",
        SQLITE + "head.py",
        "self.bell = BELL_DUE",
        "self.bell = BELL_NONE",
        _on(SQLITE, "what_becomes_ready_anew_is_rung_at_once"),
    ),
    Mutant(
        "wakes by doorbell only, redis",
        "P11: what nobody heard of is never rung again",
        LUA + "prelude.lua",
        "call('ZADD', at <= now and ready or later, at <= now and 0 or at, member)",
        "if at > now then call('ZADD', later, at, member) end",
        _on(REDIS, "what_becomes_ready_anew_is_rung_at_once"),
    ),
    Mutant(
        "acknowledged before the claim",
        "P11: a doorbell is used up by a process that dies before it has claimed anything",
        "durable/worker/dispatcher.py",
        "            claimed = await self._claim(execution_id, nonce, have)\n",
        "            if delivery is not None:\n"
        "                self._queue.ack(delivery)\n"
        "            claimed = await self._claim(execution_id, nonce, have)\n",
        _behaviour("workers", "a_doorbell_is_acknowledged_when_its_claim_is_stored"),
    ),
    # ---- the dead
    Mutant(
        "the dead keep what they own, memory",
        "P1: what a dead worker ran stays its own for ever",
        MEMORY + "tables.py",
        "if worker not in live.workers:",
        "if False:",
        _on(MEMORY, "what_a_dead_worker_owned_is_ready_again_with_a_crash_counted"),
    ),
    Mutant(
        "the dead keep what they own, sqlite",
        "P1: what a dead worker ran stays its own for ever",
        SQLITE + "sweeps.py",
        "for (n,) in deserted[:limit]:",
        "for (n,) in deserted[:0]:",
        _on(SQLITE, "what_a_dead_worker_owned_is_ready_again_with_a_crash_counted"),
    ),
    Mutant(
        "the dead keep what they own, redis",
        "P1: what a dead worker ran stays its own for ever",
        LUA + "sweep.lua",
        "if not live[worker] then",
        "if false then",
        _on(REDIS, "what_a_dead_worker_owned_is_ready_again_with_a_crash_counted"),
    ),
    Mutant(
        "crashes are not counted, redis",
        "P1: an execution that its workers die of is run for ever",
        LUA + "takeover.lua",
        "int(tonumber(crashes or 0) + 1)",
        "int(tonumber(crashes or 0))",
        _on(REDIS, "what_a_dead_worker_owned_is_ready_again_with_a_crash_counted"),
    ),
    Mutant(
        "poison is never given up",
        "P1: an execution that its workers die of is run for ever",
        "durable/engine/attempt.py",
        "if self._verdict is None and self.row.crashes >= self.host.max_crashes:",
        "if False:",
        _behaviour("workers", "an_execution_that_its_workers_die_of_is_given_up"),
    ),
    Mutant(
        "crashes are never forgiven",
        "P1: a long execution is given up though it gets further with each worker that dies",
        MEMORY + "store.py",
        "        record.crashes = 0\n",
        "",
        _on(MEMORY, "crashes_in_a_row_add_up_and_a_commit_ends_the_row"),
    ),
    # ---- time
    Mutant(
        "the worker's clock",
        "P7: waits are measured by whichever clock the worker has, and not by the store's",
        "durable/worker/sweeper.py",
        "self._clock.follow(live.at, asked_at)",
        "pass",
        _behaviour("clocks", "a_clock_that_goes_wrong_is_put_right_by_the_next_sweep_and_sweeps_go_on"),
    ),
    Mutant(
        "a clock that goes back stops the sweeps",
        "P1: nothing that a dead worker ran is taken over while a clock that was put back catches up",
        "durable/worker/sweeper.py",
        "sweeping = not self._swept_at <= now < self._swept_at + self._interval_ms",
        "sweeping = now - self._swept_at >= self._interval_ms",
        _behaviour("clocks", "a_clock_that_goes_wrong_is_put_right_by_the_next_sweep_and_sweeps_go_on"),
    ),
    Mutant(
        "a worker's own clock at the entry",
        "P7: the first waits are measured by whichever clock the worker has",
        "durable/app.py",
        "self._clock.follow((await self._store.live()).at, asked_at)",
        "await self._store.live()",
        ("tests/behaviour/test_clocks.py::test_who_enters_goes_by_the_clock_of_the_store_at_once[memory-1]",),
    ),
    Mutant(
        "timers are early",
        "P7: a timer fires before its time",
        MEMORY + "store.py",
        "for timer in islice(until(tables.timers, effects.now), limit):",
        "for timer in islice(until(tables.timers, effects.now + 1), limit):",
        _on(MEMORY, "the_next_timer_is_announced_and_not_early", "no_timer_is_early_and_none_is_forgotten"),
    ),
    Mutant(
        "timers of the ended stay, memory",
        "P7: timers of what has ended pile up, and fire into it when it is opened again",
        MEMORY + "tables.py",
        "for step_id in list(record.timers):\n            self._stop_timer(record, step_id)",
        "for step_id in ():\n            self._stop_timer(record, step_id)",
        _on(MEMORY, "a_closed_execution_has_no_timers"),
    ),
    Mutant(
        "timers of the ended stay, sqlite",
        "P7: timers of what has ended pile up, and fire into it when it is opened again",
        SQLITE + "moves.py",
        "unit.change(sql.DROP_TIMERS, head)",
        "pass",
        _on(SQLITE, "a_closed_execution_has_no_timers"),
    ),
    Mutant(
        "timers of the ended stay, redis",
        "P7: timers of what has ended pile up, and fire into it when it is opened again",
        LUA + "commit.lua",
        "if #own_timers > 0 then",
        "if false then",
        _on(REDIS, "a_closed_execution_has_no_timers"),
    ),
    # ---- undoing
    Mutant(
        "compensations oldest first",
        "P9: what was done first is undone first",
        "durable/engine/compensation.py",
        "newest = max(due, key=lambda left: left.order)",
        "newest = min(due, key=lambda left: left.order)",
        _behaviour("compensation", "rollback_undoes_newest_first_with_what_each_step_returned"),
    ),
    # ---- keys
    Mutant(
        "keys are not unique, memory",
        "P10: two starts with one key are two executions",
        MEMORY + "intake.py",
        "same_key = None if spec.key is None else tables.keys.get((spec.workflow, spec.key))",
        "same_key = None",
        _on(MEMORY, "a_taken_key_answers_with_its_execution"),
    ),
    Mutant(
        "keys are not unique, sqlite",
        "P10: two starts with one key are two executions",
        SQLITE + "verbs.py",
        "same_key = unit.holder(spec.workflow, spec.key) if spec.key else None",
        "same_key = None",
        _on(SQLITE, "a_taken_key_answers_with_its_execution"),
    ),
    Mutant(
        "keys are not unique, redis",
        "P10: two starts with one key are two executions",
        LUA + "create.lua",
        "if holder and holder ~= id then",
        "if false then",
        _on(REDIS, "a_taken_key_answers_with_its_execution"),
    ),
    # ---- transactions of users
    Mutant(
        "a failed try is committed, sqlite",
        "P12: rows of a function that has failed are there, and its checkpoint is not",
        SQLITE + "transactions.py",
        'self._end(db, "ROLLBACK")',
        'self._end(db, "COMMIT")',
        (f"{_TRANSACTIONS}test_a_block_that_raises_is_rolled_back_and_raises_the_same",),
    ),
    Mutant(
        "a function ends its transaction, sqlite",
        "P12: what a function commits by itself is there without its checkpoint",
        SQLITE + "transactions.py",
        "        self.set_authorizer(self._authorize)\n",
        "        pass\n",
        _in_transactions("a_step_cannot_end_its_transaction[kept]"),
    ),
    Mutant(
        "an unknown commit is sent again",
        "P12: a checkpoint is stored without the rows of its function, which were rolled back",
        "durable/engine/transactions.py",
        "            return await self._look(batch, op_id)\n",
        "            return await self._store.commit(\n"
        "                row.id, nonce=journal.nonce, ver=journal.ver, op_id=op_id, batch=batch\n"
        "            )\n",
        _in_transactions("an_unknown_commit_is_looked_up_and_never_sent_again[kept-before-2]"),
    ),
    Mutant(
        "a step keeps what it wrote without the execution",
        "P12: rows of a worker that has lost the execution are there, and its checkpoint is not",
        "durable/engine/transactions.py",
        "            await _leave(block, _RolledBack())\n",
        "            await block.__aexit__(None, None, None)\n",
        (
            "tests/behaviour/test_transactions.py::test_one_whose_execution_was_taken_over_is_rolled_back[kept]",
        ),
    ),
    # ---- between partitions
    Mutant(
        "an outbox is emptied before it is delivered",
        "P1: a child or a message is lost with the process that was to deliver it",
        REDIS + "courier.py",
        "            done = await self.deliver(letters, effects, blocked)\n"
        "            await self.take_off(part, done)\n",
        "            await self.take_off(part, letters)\n"
        "            done = await self.deliver(letters, effects, blocked)\n",
        _outbox("a_letter_to_a_full_inbox_stays_and_is_in_nobody_elses_way"),
    ),
    Mutant(
        "an end is told twice",
        "P2: a letter that is delivered again wakes who has heard it already",
        LUA + "tell.lua",
        "elseif seen[token] or seen[message_id] then",
        "elseif false then",
        _outbox(
            "what_a_process_left_in_the_outbox_arrives_once_however_often_it_is_delivered",
            "an_end_that_was_taken_is_not_told_again_by_an_old_letter",
        ),
    ),
    Mutant(
        "an end is told twice in one command",
        "P2: a letter that two deliver at once is heard twice",
        LUA + "tell.lua",
        "    seen[token], seen[message_id] = true, true\n",
        "",
        _outbox("a_watcher_is_told_in_one_command_of_all_that_end_in_one_turn"),
    ),
)
