"""The file: its URL, its place, its permissions, its version, its file system."""

import sqlite3
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable.backends import backend_for
from durable.backends.sqlite import (
    SqliteStore,
    backend,
    preflight,
    schema,
)
from durable.backends.sqlite.connection import WriteLock
from durable.backends.sqlite.location import Location
from durable.clock import SystemClock
from durable.errors import ConfigurationError, StoreUnavailable
from tests.backends.sqlite_world import complete, create, ends_well, opened, own, pragma, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "durable.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(SqliteStore(path, synchronous="normal")) as store:
        yield store


# -- URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///orders.db", Location(Path("orders.db"))),
        ("sqlite:///data/orders.db", Location(Path("data/orders.db"))),
        ("sqlite:////var/lib/orders.db", Location(Path("/var/lib/orders.db"))),
        ("sqlite:///my%20orders%3F.db", Location(Path("my orders?.db"))),
        ("sqlite:///orders.db?synchronous=normal", Location(Path("orders.db"), "normal")),
        ("sqlite:///orders.db?synchronous=FULL", Location(Path("orders.db"), "full")),
        ("sqlite:///orders.db?foreign_keys=on", Location(Path("orders.db"), foreign_keys=True)),
        ("sqlite:///orders.db?foreign_keys=OFF", Location(Path("orders.db"))),
        ("SQLITE:///orders.db", Location(Path("orders.db"))),
    ],
)
def test_a_url_says_which_file(url: str, expected: Location) -> None:
    assert Location.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite://", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://orders.db", "three slashes"),
        ("sqlite://user:secret@host/orders.db", "three slashes"),
        ("sqlite:///data/", "sqlite:///relative.db"),
        ("sqlite:///orders.db#x", "sqlite:///relative.db"),
        ("sqlite:///a%00b", "sqlite:///relative.db"),
        ("sqlite:///orders.db?synchronous=off", "synchronous=normal"),
        ("sqlite:///orders.db?timeout=5", "synchronous=normal"),
        ("sqlite:///orders.db?foreign_keys=yes", "foreign_keys=on"),
    ],
)
def test_a_url_that_means_nothing_is_refused_with_a_hint(url: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Location.parse(url)
    assert hint in raised.value.hint
    assert "secret" not in str(raised.value)


async def test_the_scheme_leads_to_this_backend(path: Path) -> None:
    assert backend_for("sqlite:///x.db") is backend
    assert backend.open_store is not None
    assert backend.open_bus is not None
    url, clock = f"sqlite:///{path}?synchronous=normal", SystemClock()
    store = backend.open_store(url, namespace="shop", clock=clock)
    bus = backend.open_bus(url, namespace="shop", clock=clock)
    await store.open()
    await bus.open()
    assert (await store.capabilities()).grade == "D1"
    await bus.close()
    await store.close()


# -- the file


async def test_the_files_can_be_read_by_their_owner_only(store: SqliteStore, path: Path) -> None:
    await create(store)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"durable.db": 0o600, "durable.db-wal": 0o600, "durable.db-shm": 0o600}


async def test_a_file_that_exists_keeps_its_mode(path: Path) -> None:
    path.touch(0o640)
    async with opened(SqliteStore(path)) as store:
        await create(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("synchronous", "grade", "level"), [("full", "D2", 2), ("normal", "D1", 1)], ids=["full", "normal"]
)
async def test_the_grade_is_what_the_connection_does(
    path: Path, synchronous: str, grade: str, level: int
) -> None:
    async with opened(SqliteStore(path, synchronous=synchronous)) as store:
        capabilities = await store.capabilities()
        assert (capabilities.grade, capabilities.shared) == (grade, True)
        assert await pragma(store, "PRAGMA synchronous") == level
        assert await pragma(store, "PRAGMA journal_mode") == "wal"
        assert await pragma(store, "PRAGMA wal_autocheckpoint") == 0
        assert await pragma(store, "PRAGMA busy_timeout") == 0


def test_an_old_sqlite_is_refused_and_one_with_the_wal_reset_bug_noted() -> None:
    with pytest.raises(StoreUnavailable, match=r"3\.34\.1 is too old"):
        preflight.check_sqlite((3, 34, 1))
    preflight.check_sqlite((3, 40, 1))
    assert "WAL-reset bug" in preflight.notes((3, 51, 2))[0]
    assert preflight.notes((3, 51, 3)) == []


async def assert_refused(path: Path, what: str, **options: Any) -> None:
    before = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    with pytest.raises(StoreUnavailable, match=what) as raised:
        await SqliteStore(path, **options).open()
    assert raised.value.hint
    assert {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()} == before


async def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await SqliteStore(tmp_path / "missing" / "durable.db").open()
    assert list(tmp_path.iterdir()) == []


async def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreUnavailable, match="is not a directory"):
        await SqliteStore(tmp_path / "file" / "durable.db").open()


async def test_a_path_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "durable.db").mkdir()
    await assert_refused(tmp_path / "durable.db", "is not a file")


async def test_a_place_where_nothing_can_be_created_is_refused() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be"):
        await SqliteStore("/proc/durable.db").open()


@pytest.mark.parametrize(("directory", "file"), [(0o555, None), (0o777, 0o444), (0o555, 0o666)])
def test_a_place_without_write_permission_is_refused(directory: int, file: int | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "durable.db")
        if file is not None:
            path.touch()
            path.chmod(file)
        path.parent.chmod(directory)
        program = """
            async def main(path):
                with pytest.raises(StoreUnavailable, match="cannot be written"):
                    await SqliteStore(path).open()
            if os.geteuid() == 0:
                os.setuid(65534)  # from root no permission can be taken away
            asyncio.run(main(sys.argv[1]))
        """
        ends_well(run(program, path))
        path.parent.chmod(0o777)


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("Dear diary, " * 1000)
    await assert_refused(path, "is not a database")


@pytest.mark.parametrize(
    "script",
    [
        "PRAGMA application_id = 7",
        "PRAGMA application_id = 7; CREATE TABLE t (x)",
        "PRAGMA user_version = 1; CREATE TABLE t (x)",
        "CREATE TABLE orders (id); CREATE TABLE executions (n)",
        "CREATE TABLE orders (id); CREATE INDEX gates_rule ON orders (id)",
    ],
)
async def test_the_database_of_another_application_is_refused(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    await assert_refused(path, "another application")


async def test_a_file_with_tables_of_its_user_is_shared(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE orders (id); INSERT INTO orders VALUES (7)")
        async with opened(SqliteStore(path)) as store:
            await create(store, "x")
            assert await store.check() == []
        async with opened(SqliteStore(path)) as store:
            assert await store.get("x") is not None
        assert db.execute("SELECT id FROM orders").fetchall() == [(7,)]


@pytest.mark.parametrize("statement", [1, 2, 3, 4])
def test_a_file_that_another_process_fills_while_it_is_looked_at_is_ours(path: Path, statement: int) -> None:
    lock = WriteLock()

    class Overtaken(sqlite3.Connection):
        asked = 0

        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            self.asked += 1
            if self.asked == statement:
                with closing(sqlite3.connect(path, isolation_level=None)) as other:
                    schema.migrate(other, path, lock)
            return super().execute(sql, parameters)

    with closing(sqlite3.connect(path, isolation_level=None, factory=Overtaken)) as db:
        schema.migrate(db, path, lock)
        assert db.asked >= statement
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


async def alter(path: Path, script: str) -> None:
    async with opened(SqliteStore(path)) as store:
        await create(store, "x")
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


async def test_a_newer_schema_that_we_must_not_write_is_refused(path: Path) -> None:
    await alter(path, "PRAGMA user_version = 9; UPDATE meta SET value = 8 WHERE name = 'min_writer'")
    await assert_refused(path, "newer durable")


async def test_a_newer_schema_that_we_may_write_is_used(path: Path) -> None:
    await alter(path, "PRAGMA user_version = 9; ALTER TABLE executions ADD COLUMN more TEXT")
    async with opened(SqliteStore(path)) as store:
        await own(store, "x")
        await complete(store)
        assert await store.check() == []


async def test_a_store_that_is_open_while_the_schema_becomes_newer_writes_no_more(
    store: SqliteStore, path: Path
) -> None:
    await create(store)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = 8 WHERE name = 'min_writer'")
    with pytest.raises(StoreUnavailable, match="newer durable"):
        await create(store)


async def test_an_older_schema_is_brought_to_ours_or_left_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(SqliteStore(path)) as store:
        await create(store, "x")
    good, bad = "ALTER TABLE executions ADD COLUMN colour TEXT", "ALTER TABLE nobody ADD COLUMN colour TEXT"
    version, steps = schema.VERSION + 1, schema.STEPS
    is_next = f"PRAGMA user_version = {version}"
    monkeypatch.setattr(schema, "VERSION", version)
    monkeypatch.setattr(schema, "STEPS", (*steps, (good, bad, is_next)))
    with pytest.raises(StoreUnavailable, match="nobody"):
        await SqliteStore(path).open()
    monkeypatch.setattr(schema, "STEPS", (*steps, (good, is_next)))
    for _ in range(2):
        async with opened(SqliteStore(path)) as store:
            assert await pragma(store, "PRAGMA user_version") == version
            assert await pragma(store, "SELECT count(colour) FROM executions") == 0
            assert await store.get("x") is not None


async def test_the_events_of_a_first_schema_are_kept(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        for statement in schema.VERSION_1:
            db.execute(statement)
        db.execute("INSERT INTO namespaces (ns, name) VALUES (1, 'default')")
        db.executemany(
            "INSERT INTO events (ns, id, name, data, at) VALUES (1, ?, 'paid', x'01', ?)",
            [("b", 1), ("a", 2)],
        )
    async with opened(SqliteStore(path)) as store:
        found = [await store.event("paid", event_id) for event_id in ("b", "a")]
        assert [(event.seq, event.at, event.data) for event in found if event] == [
            (1, 1, b"\1"),
            (2, 2, b"\1"),
        ]


# -- file systems


@pytest.fixture
def mounts(tmp_path: Path) -> Callable[[str], Path]:
    def table(kind: str) -> Path:
        here = str(tmp_path / "a disk").replace(" ", r"\040")
        lines = ["proc /proc proc rw 0 0", "/dev/sda / ext4 rw 0 0", f"server:/x {here} {kind} rw,hard 0 0"]
        (tmp_path / "mounts").write_text("\n".join([*lines, "tmpfs /nowhere tmpfs rw 0 0", ""]))
        return tmp_path / "mounts"

    (tmp_path / "a disk").mkdir()
    return table


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.glusterfs", "ceph"]
)
async def test_a_network_file_system_is_refused(
    tmp_path: Path, mounts: Callable[[str], Path], kind: str
) -> None:
    await assert_refused(tmp_path / "a disk" / "durable.db", "network file system", mounts=mounts(kind))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a disk")
    await assert_refused(link / "durable.db", "network file system", mounts=mounts(kind))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk", "apfs"])
async def test_a_local_file_system_is_used(tmp_path: Path, mounts: Callable[[str], Path], kind: str) -> None:
    async with opened(SqliteStore(tmp_path / "a disk" / "durable.db", mounts=mounts(kind))) as store:
        await create(store)


async def test_a_system_that_tells_no_file_systems_is_trusted(tmp_path: Path) -> None:
    assert preflight.filesystem_of(tmp_path, tmp_path / "missing") is None
    assert preflight.filesystem_of(Path("/proc/self")) in ("proc", None)
