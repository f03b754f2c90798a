"""What a verb reads does not grow with what is stored: counted in the server, on a database new to its planner."""

from __future__ import annotations

import asyncio

from tests.postgres_table import session

from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Close,
    Committed,
    Emit,
    Gate,
    GateKind,
    Listen,
    Message,
    MessageKind,
    NewExecution,
    Run,
)
from durable_postgres import PostgresStore
from tests.brokers.postgres_server import database
from tests.support import until

MANY = 150
READS = """
    SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = 'durable' AND idx_tup_read > $1
"""
SCANS = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'executions_id'"
MOST_FOR_EACH = 40


async def test_no_verb_reads_what_is_stored_beside_what_it_is_about(postgres_url: str) -> None:
    with database(postgres_url) as url:
        store = PostgresStore(url)
        await store.open()
        try:
            await asyncio.gather(*(_live(store, number) for number in range(MANY)))
        finally:
            await store.close()
        async with session(url) as db:
            await until(
                lambda: db.fetchval(SCANS), within=20
            )  # sessions tell what they counted when they end
            found = await db.fetch(READS, MANY * MOST_FOR_EACH)
            assert [tuple(row) for row in found] == []


async def _live(store: PostgresStore, number: int) -> None:
    """The life of one execution, at a gate of its own, with an event of its own."""
    id, topic = f"x{number}", f"t{number}"
    gate = Gate("own", key=id, kind=GateKind.SLOTS, limit=1)
    listen = Listen("paid", step_id="s", topic=topic, shape="shape", seen=None)
    await store.create(
        NewExecution(id, "order", "1", b"{}", gates=[gate], listens=[listen], tags={"n": id}), op_id=id
    )
    await store.claim(id, nonce=id, worker="w")
    await store.send([Emit(id, "paid", b"1", shapes=["shape"], topics=[topic])], op_id=f"e{number}")
    assert await store.event("paid", id) is not None
    await store.post(id, Message("m", MessageKind.SIGNAL, "go"))
    for ver in range(3):
        done = Checkpoint(f"c{ver}", "step", "step", CheckpointStatus.COMPLETED, b"1", 1, 1, 1)
        close = Close(ExecutionStatus.COMPLETED, b"1") if ver == 2 else Run()
        answer = await store.commit(
            id, nonce=id, ver=ver, op_id=f"{id}{ver}", batch=Batch(seen=9, next=close, checkpoints=(done,))
        )
        assert isinstance(answer, Committed)
    assert await store.get(id) is not None
    assert await store.history(id)
