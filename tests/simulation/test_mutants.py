"""The simulation finds a store that breaks one of its rules: each mutant is one sabotage of the memory store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from durable.backends.memory import MemoryStore
from durable.backends.memory.tables import Tables
from durable.protocols import Park, State
from durable.testing.simulation.simulate import in_a_thread
from tests.simulation.test_programs import run_programs

_MOST_SEEDS = 1000

commit: Any = MemoryStore.commit
go_on: Any = MemoryStore._go_on
post: Any = Tables.post


async def no_fence(self: Any, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Any) -> Any:
    record = self._tables.executions.get(execution_id)
    if record is not None and record.state is State.OWNED and record.op_id != op_id:
        nonce, ver = record.nonce, record.ver
    return await commit(self, execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch)


async def commit_forgets_its_answer(self: Any, execution_id: str, **rest: Any) -> Any:
    record = self._tables.executions.get(execution_id)
    if record is not None and record.op_id == rest["op_id"]:
        record.op_id += "!"
    return await commit(self, execution_id, **rest)


def blind_park(self: Any, record: Any, batch: Any, news: Any, effects: Any) -> Any:
    return go_on(self, record, batch, () if isinstance(batch.next, Park) else news, effects)


def no_dedupe(self: Any, record: Any, message: Any, effects: Any) -> None:
    post(self, record, message, effects)
    record.seen.pop(message.id)


def no_reaper(self: Any, live: Any) -> Any:
    return iter(())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "verb", "mutant"),
    [
        pytest.param(MemoryStore, "commit", no_fence, id="no fence"),
        pytest.param(MemoryStore, "commit", commit_forgets_its_answer, id="commit not repeatable"),
        pytest.param(MemoryStore, "_go_on", blind_park, id="blind park"),
        pytest.param(Tables, "post", no_dedupe, id="no dedupe"),
        pytest.param(Tables, "deserted", no_reaper, id="no reaper"),
    ],
)
async def test_a_mutant_is_found(
    kind: type, verb: str, mutant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, verb, mutant)
    with pytest.raises(AssertionError, match=r"seed \d+"):
        await in_a_thread(lambda is_cancelled: run_programs(range(_MOST_SEEDS), Counter(), is_cancelled))
