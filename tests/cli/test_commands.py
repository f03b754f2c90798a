"""Every command of the program, as it is typed: into a terminal and in a pipe, on memory, SQLite and Redis."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import pytest
from rich.cells import cell_len

from durable import Durable, Handle
from tests.brokers.fixtures import fresh_namespace
from tests.brokers.run import Run
from tests.cli import shop
from tests.cli.conftest import SHOP, Shell, commands
from tests.support import ends, reaches

WIDTH: Final = 60
IDS: Final = re.compile(r"[A-Za-z0-9._:/#\[\]+-]+")
ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")
ORDER: Final = '{"id": "7", "cents": 700}'


@dataclass(frozen=True)
class Row:
    """A command as somebody calls it. `{waiting}` and the like are executions that no other call has had."""

    arguments: Sequence[str] = ()
    code: int = 0
    is_table: bool = False
    """It draws one, with colours and no wider than the terminal."""
    is_whole: bool = False
    """But what it advises is not cut."""
    adds: str = ""
    """What it says on stderr though nothing is wrong."""
    is_shared: bool = True
    """It needs a store that other processes see."""
    stays: str = ""
    """What it says once it does what it does until it is stopped."""
    tested_in: str = ""
    """It is too long for a table of commands."""


TABLE: Final = {
    "demo": Row(tested_in="test_demo.py", is_shared=False),
    "worker": Row(["--app", "app:durable", "-q", "idle"], stays="queues idle", is_shared=False),
    "supervise": Row(["app:durable", "--min", "0", "-q", "idle"], stays="supervising 0"),
    "dashboard": Row(["--port", "0"], stays="Ctrl-C"),
    "start": Row(["--app", "app:durable", "echo", ORDER]),
    "list": Row(["--workflow", "echo"], is_table=True),
    "show": Row(["{ended}"], is_table=True),
    "events": Row(["{ended}"], is_table=True),
    "signal": Row(["{waiting}", "noticed", '"ada"']),
    "send": Row(["paid", '{"cents": 700}']),
    "cancel": Row(["{waiting}"]),
    "rollback": Row(["{waiting}"]),
    "retry": Row(["{failed}"]),
    "rerun": Row(["{ended}"]),
    "pause": Row(["{waiting}"]),
    "resume": Row(["{paused}"]),
    "force-fail": Row(["{waiting}"]),
    "skip-step": Row(["{failed}", "read", '"by hand"']),
    "edit-step": Row(["{waiting}", "charge", '"charge-8"']),
    "schedules list": Row(is_table=True),
    "schedules show": Row(["nightly"], is_table=True),
    "schedules next": Row(["nightly"], is_table=True),
    "schedules pause": Row(["nightly"]),
    "schedules resume": Row(["nightly"]),
    "schedules trigger": Row(["nightly"]),
    "schedules remove": Row(["{schedule}"]),
    "schedules backfill": Row(["nightly", "--since", "2d", "--until", "0s"]),
    "queues list": Row(is_table=True),
    "queues pause": Row(["email"]),
    "queues resume": Row(["email"]),
    "limits list": Row(is_table=True),
    "limits set": Row(["report/concurrency", "3"]),
    "limits unset": Row(["report/concurrency"]),
    "workers": Row(is_table=True),
    "workers drain": Row(["host:1"]),
    "check": Row(
        ["app:durable", "--status", "completed"], is_table=True, is_whole=True, adds="0 of them must not"
    ),
    "describe": Row(["app:durable", "fulfil"], is_shared=False),
    "export": Row(["{ended}"]),
    "prune": Row(["--older-than", "1d", "--yes"]),
    "doctor": Row(is_table=True, is_whole=True),
}
AT_ONCE: Final = [name for name, row in TABLE.items() if not (row.stays or row.tested_in)]
STAYING: Final = [name for name, row in TABLE.items() if row.stays]


COMMANDS: Final = dict(commands())


def has(name: str, option: str) -> bool:
    return any(option in parameter.opts for parameter in COMMANDS[name].params)


@final
class Store:
    """A shell whose store holds something for every command, and what of that was not used yet."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self._left: dict[str, list[str]] = {}

    def call(self, name: str) -> list[str]:
        """The command's words, with things of their own."""
        return [*name.split(), *(self._filled(word) for word in TABLE[name].arguments)]

    def _filled(self, word: str) -> str:
        things = self._left.get(word, [word])
        return things.pop() if len(things) > 1 else things[0]

    async def fill(self) -> None:
        uses = 8
        async with self._durable(worker=True) as durable:
            order = shop.Order("7", 700)
            ended = await durable.start(shop.echo, order)
            failed = [await durable.start(shop.fixable) for _ in range(2 * uses)]
            waiting = [await durable.start(shop.fulfil, order) for _ in range(8 * uses)]
            started: list[Handle[Any]] = [ended, *failed]
            for handle in started:
                await ends(handle)
            for handle in waiting:
                await reaches(handle, "waiting")
        async with self._durable(worker=False) as durable:
            paused = [waiting.pop() for _ in range(uses)]
            for handle in paused:
                await durable.operator.pause(handle.id)
            schedules = ["nightly", *(f"gone-{number}" for number in range(uses))]
            for id in schedules:
                await durable.ensure_schedule(shop.send_email, id=id, cron="0 3 * * *")
        self._left = {
            "{ended}": [ended.id],
            "{failed}": [handle.id for handle in failed],
            "{waiting}": [handle.id for handle in waiting],
            "{paused}": [handle.id for handle in paused],
            "{schedule}": schedules[1:],
        }
        await self.shell.beat("host:1:abc")

    def _durable(self, *, worker: bool) -> Durable:
        known = shop.durable.definitions()
        return Durable(list(known), store=self.shell.url, namespace=self.shell.namespace, worker=worker)


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis_url"))]
)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, broker_run: Run
) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp("commands")
    shutil.copy(SHOP, directory / "app.py")
    with fresh_namespace(broker_run) as namespace:
        is_redis = request.param == "redis"
        url = request.getfixturevalue("redis_url") if is_redis else f"sqlite:///{directory / 'shop.db'}"
        store = Store(Shell(directory, url, namespace))
        asyncio.run(store.fill())
        yield store


def test_every_command_has_its_row() -> None:
    assert sorted(TABLE) == sorted(COMMANDS)


@pytest.mark.parametrize("name", AT_ONCE)
def test_in_a_pipe_a_command_prints_plain_lines(store: Store, name: str) -> None:
    row = TABLE[name]
    ran = store.shell.run(*store.call(name), code=row.code)
    assert ran.out
    assert "\x1b" not in ran.out + ran.err
    assert (row.adds in ran.err) if row.adds else (ran.err == "")


@pytest.mark.parametrize("name", [name for name in AT_ONCE if has(name, "--output")])
def test_its_json_can_be_parsed_and_its_ids_can_be_piped(store: Store, name: str) -> None:
    answer = store.shell.run(*store.call(name), "-o", "json", code=TABLE[name].code)
    assert json.loads(answer.out) is not None
    ids = store.shell.run(*store.call(name), "-o", "ids", code=TABLE[name].code)
    assert [line for line in ids.lines if not IDS.fullmatch(line)] == []


@pytest.mark.parametrize("name", AT_ONCE)
def test_on_a_terminal_a_command_has_colors_and_keeps_to_its_width(store: Store, name: str) -> None:
    row = TABLE[name]
    ran = store.shell.run_on_terminal(*store.call(name), width=WIDTH, code=row.code)
    if not row.is_table:
        assert "\x1b" not in ran.out
        return
    assert ESCAPE.search(ran.out)
    assert row.is_whole or [line for line in ran.lines if cell_len(ESCAPE.sub("", line)) > WIDTH] == []
    bare = store.shell.run_on_terminal(*store.call(name), width=WIDTH, code=row.code, NO_COLOR="1")
    assert "\x1b" not in bare.out


@pytest.mark.parametrize("name", STAYING)
def test_a_command_that_stays_ends_when_it_is_told_to(store: Store, name: str) -> None:
    shell = store.shell
    stay = shell.terminal if shell.url.startswith("sqlite") else shell.process
    with stay(*store.call(name)) as process:
        process.says(TABLE[name].stays)
        assert process.stop(signal.SIGTERM) == 0
    assert shell.url.startswith("sqlite") or "\x1b" not in process.said


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.is_shared])
def test_on_memory_what_needs_a_store_of_several_processes_is_refused(shell: Shell, name: str) -> None:
    memory = {"DURABLE_STORE_URL": "memory://", "SHOP_STORE": "memory://"}
    words = [re.sub(r"\{(\w+)\}", r"\1", word) for word in TABLE[name].arguments]
    refused = shell.refused(*name.split(), *words, **memory)
    assert "memory:// is seen by one process only" in refused


def test_on_memory_a_workflow_is_described_and_a_worker_works(shell: Shell) -> None:
    assert "charge" in shell.run("describe", "app:durable", "fulfil", SHOP_STORE="memory://").out
    with shell.process(*["worker", "--app", "app:durable"], SHOP_STORE="memory://") as worker:
        worker.says("queues default")
        assert worker.stop(signal.SIGTERM) == 0
