"""The model notices: a memory store with one rule of the port taken away is caught, whichever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from durable.backends.memory import MemoryStore, store as memory
from durable.backends.memory.index import ReadyIndex
from durable.backends.memory.record import Record
from durable.backends.memory.tables import Tables
from durable.ids import Ids
from durable.protocols import Batch, Message
from durable.testing.model import Mismatch, StoreMachine, memory_world

Patch = pytest.MonkeyPatch

ids = Ids()


def believe_every_nonce(patch: Patch) -> None:
    commit = MemoryStore.commit

    async def unfenced(store: Any, execution_id: str, *, nonce: str, **rest: Any) -> object:
        row = await store.get(execution_id)
        owner = row.nonce if row is not None and row.nonce is not None else nonce
        return await commit(store, execution_id, nonce=owner, **rest)

    patch.setattr(MemoryStore, "commit", unfenced)


def believe_every_version(patch: Patch) -> None:
    commit = MemoryStore.commit

    async def blind(store: Any, execution_id: str, *, ver: int, op_id: str, **rest: Any) -> object:
        row = await store.get(execution_id)
        is_repeat = row is None or row.op_id == op_id
        return await commit(store, execution_id, ver=ver if is_repeat else row.ver, op_id=op_id, **rest)

    patch.setattr(MemoryStore, "commit", blind)


def forget_what_was_answered(patch: Patch) -> None:
    commit = MemoryStore.commit

    async def again(store: Any, execution_id: str, *, op_id: str, **rest: Any) -> object:
        return await commit(store, execution_id, op_id=ids.nonce(), **rest)

    patch.setattr(MemoryStore, "commit", again)


def park_without_looking(patch: Patch) -> None:
    commit = MemoryStore.commit

    async def blind(store: Any, execution_id: str, *, batch: Batch, **rest: Any) -> object:
        return await commit(store, execution_id, batch=replace(batch, seen=2**53), **rest)

    patch.setattr(MemoryStore, "commit", blind)


def count_messages_twice(patch: Patch) -> None:
    post = MemoryStore.post

    async def twice(store: Any, execution_id: str, message: Message) -> object:
        return await post(store, execution_id, replace(message, id=ids.nonce()))

    patch.setattr(MemoryStore, "post", twice)


def overwrite_final_checkpoints(patch: Patch) -> None:
    patch.setattr(memory, "_changes_a_final_checkpoint", lambda record, batch: False)


def let_timers_run_on(patch: Patch) -> None:
    patch.setattr(Tables, "_stop_timer", lambda *_: None)


def take_over_from_the_living(patch: Patch) -> None:
    patch.setattr(Tables, "deserted", lambda self, live: [r for owned in self.owned.values() for r in owned])


def take_over_from_nobody(patch: Patch) -> None:
    patch.setattr(Tables, "deserted", lambda self, live: iter(()))


def let_a_cancel_wait(patch: Patch) -> None:
    patch.setattr(Record, "has_urgent_news", lambda self, seen: False)


def open_the_ended_to_anybody(patch: Patch) -> None:
    patch.setattr(Record, "is_open_to", lambda self, reach: True)


def ring_once_only(patch: Patch) -> None:
    due = ReadyIndex.due
    patch.setattr(
        ReadyIndex,
        "due",
        lambda self, now, wanted, **rest: due(self, now, wanted, **{**rest, "again_at": 2**53}),
    )


def keep_the_history_of_the_generation_before(patch: Patch) -> None:
    restart = Tables.restart

    def keep(self: Tables, record: Record, input: bytes, effects: Any) -> None:
        history = dict(record.history)
        restart(self, record, input, effects)
        record.history.update(history)

    patch.setattr(Tables, "restart", keep)


MUTANTS = [
    believe_every_nonce,
    believe_every_version,
    forget_what_was_answered,
    park_without_looking,
    count_messages_twice,
    overwrite_final_checkpoints,
    let_timers_run_on,
    take_over_from_the_living,
    take_over_from_nobody,
    let_a_cancel_wait,
    open_the_ended_to_anybody,
    ring_once_only,
    keep_the_history_of_the_generation_before,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_model_catches_a_store_that_would(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    seeking = settings(
        max_examples=300,
        stateful_step_count=40,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with asyncio.Runner() as runner, pytest.raises((Mismatch, KeyError)):
        run_state_machine_as_test(
            lambda: StoreMachine({"memory": memory_world}, runner, lambda verb, what: None), settings=seeking
        )
