"""Several processes on one file: races, kills, forks, hints."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durable.backends.sqlite import (
    SqliteBus,
    SqliteStore,
)
from durable.models import ExecutionStatus
from tests.backends.sqlite_world import complete, ends_well, opened, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "durable.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(SqliteStore(path, synchronous="normal")) as store:
        yield store


# -- several processes


async def test_many_processes_at_once_meet_no_lock_and_lose_no_heartbeat(path: Path) -> None:
    program = """
        async def main(path, name):
            async with opened(SqliteStore(path)) as store:
                async def hammer():
                    for number in range(20):
                        id = await create(store)
                        nonce = await own(store, id)
                        for ver in range(3):
                            answer = await commit(store, id, nonce, ver, checkpoints=[record(str(ver))])
                            assert isinstance(answer, Committed), answer
                        assert isinstance(await store.post(id, message()), Posted)
                        assert isinstance(await commit(store, id, nonce, 3, DONE), Committed)
                def beat():
                    for _ in range(20):
                        store.beat(name, ttl_ms=60_000)
                await asyncio.gather(asyncio.to_thread(beat), *[hammer() for _ in range(5)])
        asyncio.run(main(*sys.argv[1:]))
    """
    processes = [run(program, path, f"w{number}") for number in range(8)]
    for process in processes:
        await asyncio.to_thread(ends_well, process)
    async with opened(SqliteStore(path)) as store:
        assert await store.counts() == {ExecutionStatus.COMPLETED: 800}
        assert len((await store.live()).workers) == 8
        assert await store.check() == []


async def test_processes_that_create_one_file_at_once_all_open_it(path: Path) -> None:
    program = """
        async def main(path):
            async with opened(SqliteStore(path)) as store:
                await create(store)
        asyncio.run(main(sys.argv[1]))
    """
    for process in [run(program, path) for _ in range(6)]:
        await asyncio.to_thread(ends_well, process)
    async with opened(SqliteStore(path)) as store:
        assert await store.counts() == {ExecutionStatus.PENDING: 6}


@pytest.mark.parametrize("acknowledged", [1, 10, 100, 400])
async def test_a_kill_loses_nothing_that_was_acknowledged_and_leaves_nothing_half_written(
    path: Path, acknowledged: int
) -> None:
    program = """
        async def main(path):
            async with opened(SqliteStore(path)) as store:
                async def hammer():
                    while True:
                        id = await create(store, tags={"a": "b"}, key=ids.nonce())
                        nonce = await own(store, id)
                        await commit(store, id, nonce, 0, checkpoints=[record("a", bytes(5000))])
                        print(id, flush=True)
                        await commit(store, id, nonce, 1, DONE)
                await asyncio.gather(*[hammer() for _ in range(20)])
        asyncio.run(main(sys.argv[1]))
    """
    process = run(program, path)
    assert process.stdout is not None
    reported = [(await asyncio.to_thread(process.stdout.readline)).strip() for _ in range(acknowledged)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    reported += [line for line in rest.split("\n")[:-1] if line]
    async with opened(SqliteStore(path)) as store:
        assert await store.check() == []
        for id in reported:
            assert [entry.step_id for entry in await store.history(id)] == ["a"]


def test_a_store_that_was_opened_before_a_fork_says_so_in_the_child(path: Path) -> None:
    program = """
        import warnings
        warnings.simplefilter("ignore")
        async def main(path):
            async with opened(SqliteStore(path)) as store:
                await create(store)
                if os.fork() == 0:
                    code = 1
                    try:
                        for call in (lambda: create(store), lambda: store.get("x"), lambda: store.live()):
                            with pytest.raises(StoreUnavailable, match="fork"):
                                await call()
                        with pytest.raises(StoreUnavailable, match="fork"):
                            store.beat("w", ttl_ms=1000)
                        for other in (store, SqliteStore(path, "other")):
                            with pytest.raises(StoreUnavailable, match="fork"):
                                asyncio.run(other.open())
                        await store.close()
                        code = 0
                    finally:
                        os._exit(code)
                _, status = os.wait()
                assert status == 0
                await create(store)
                assert await store.check() == []
        asyncio.run(main(sys.argv[1]))
    """
    ends_well(run(program, path))


# -- the bus


class Ear:
    def __init__(self) -> None:
        self.heard = 0
        self.something = asyncio.Event()

    def __call__(self) -> None:
        self.heard += 1
        self.something.set()


WRITE_ONCE = """
    async def main(path):
        async with opened(SqliteStore(path)) as store:
            await create(store)
    asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("with_store", [True, False], ids=["beside a store", "alone"])
async def test_a_write_of_another_process_is_a_hint_for_everybody(path: Path, with_store: bool) -> None:
    store, bus = SqliteStore(path), SqliteBus(path)
    await store.open()
    if not with_store:
        await store.close()
    await bus.open()
    ears = [Ear(), Ear()]
    for ear in ears:
        await bus.subscribe("x:1", ear)
    for _ in range(2):
        for ear in ears:
            ear.something.clear()
        await asyncio.to_thread(ends_well, run(WRITE_ONCE, path))
        async with asyncio.timeout(10):
            await asyncio.gather(*[ear.something.wait() for ear in ears])
    await bus.close()
    await store.close()


async def test_own_writes_are_no_hint(store: SqliteStore, path: Path) -> None:
    bus, ear = SqliteBus(path), Ear()
    await bus.open()
    await bus.subscribe("x:1", ear)
    for _ in range(20):
        await complete(store)
        await asyncio.to_thread(store.beat, "w", ttl_ms=60_000)
    assert ear.heard == 0
    await asyncio.to_thread(ends_well, run(WRITE_ONCE, path))
    async with asyncio.timeout(10):
        await ear.something.wait()
    await bus.close()


async def test_a_hint_reaches_another_bus_of_the_process_at_once(path: Path) -> None:
    one, two, other = SqliteBus(path), SqliteBus(path), SqliteBus(path, "other")
    ear, stranger = Ear(), Ear()
    for bus in (one, two, other):
        await bus.open()
    await two.subscribe("t", ear)
    await other.subscribe("t", stranger)
    one.publish(["t"])
    assert (ear.heard, stranger.heard) == (1, 0)
    for bus in (one, two, other):
        await bus.close()
