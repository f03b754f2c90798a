"""A shell in a directory of its own, with the shop as its application: the command line as its users meet it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO, final

import pytest

from durable import Durable, ExecutionStatus
from durable.backends import backend_for
from durable.cli import program
from durable.clock import SystemClock
from durable.presence import Presence
from tests.cli import shop
from tests.support import reaches

ROOT = Path(__file__).parents[2]
SHOP = Path(__file__).with_name("shop.py")
PATIENCE = 30.0
FINAL = tuple(status for status in ExecutionStatus if status.final)


def commands(group: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """All commands of the program, each with what Typer has made of it."""
    found = program.command(program.program) if group is None else group
    below = getattr(found, "commands", {})
    if not below or (name and found.invoke_without_command):
        yield name, found
    for word, each in below.items():
        yield from commands(each, f"{name} {word}".strip())


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@final
class Shell:
    """Runs `durable` in a directory: most of it in this process, which is fast, and some of it as users do."""

    def __init__(self, directory: Path, url: str | None = None, namespace: str = "default") -> None:
        self.directory = directory
        self.url = url or f"sqlite:///{directory / 'shop.db'}"
        self.namespace = namespace
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DURABLE_")}
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            kept.pop(name, None)
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "DURABLE_STORE_URL": self.url, "TERM": "xterm"}
        if url is not None:
            self.environment |= {
                "DURABLE_NAMESPACE": namespace,
                "SHOP_STORE": self.url,
                "SHOP_NAMESPACE": namespace,
            }
        self.command = [sys.executable, "-m", "durable.cli"]

    def run(self, *arguments: str, stdin: str | bytes = "", code: int = 0, **environment: str | None) -> Ran:
        """Run it in this process, and look at its exit code. An environment variable that is None is not set."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        ended = self._run(arguments, out, err, stdin, environment)
        return _looked_at(arguments, ended, out.buffer, err.buffer, code)

    def run_on_terminal(
        self, *arguments: str, width: int = 100, code: int = 0, **environment: str | None
    ) -> Ran:
        """Run it in this process, which writes to a terminal, and look at its exit code."""
        with _terminal(width) as (shown, screen):
            ended = self._run(arguments, screen, screen, "", {"COLUMNS": str(width), **environment})
        return _looked_at(arguments, ended, shown, io.BytesIO(), code)

    def _run(
        self,
        arguments: Sequence[str],
        out: TextIO,
        err: TextIO,
        stdin: str | bytes,
        environment: dict[str, str | None],
    ) -> int:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in set(os.environ) - set(self.environment):
                patch.delenv(name)
            for name, value in {**self.environment, **environment}.items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            patch.setattr(sys, "path", [*sys.path])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(_bytes(stdin)), encoding="utf-8"))
            patch.chdir(self.directory)
            modules = set(sys.modules)
            try:
                return program.run(arguments)
            finally:
                for module in set(sys.modules) - modules:
                    if getattr(sys.modules[module], "__file__", "").startswith(str(self.directory)):
                        del sys.modules[module]

    def run_apart(
        self, *arguments: str, stdin: str | bytes = "", code: int = 0, **environment: str | None
    ) -> Ran:
        """Run it in a process of its own, in pipes, and look at its exit code."""
        ran = subprocess.run(
            [*self.command, *arguments],
            cwd=self.directory,
            env=self._environment(environment),
            input=_bytes(stdin),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return _looked_at(arguments, ran.returncode, io.BytesIO(ran.stdout), io.BytesIO(ran.stderr), code)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json").out)

    def refused(
        self, *arguments: str, code: int = 2, stdin: str | bytes = "", **environment: str | None
    ) -> str:
        """Run it, and see it say on stderr what is wrong and what to do, and nothing on stdout."""
        ran = self.run(*arguments, code=code, stdin=stdin, **environment)
        assert ran.out == ""
        assert re.search(r"^error: .", ran.err, re.MULTILINE), ran.err
        assert re.search(r"^hint: .", ran.err, re.MULTILINE), ran.err
        return ran.err

    def make_store(self) -> None:
        """Have a store that is empty."""

        async def enter() -> None:
            async with Durable(store=self.url, namespace=self.namespace, worker=False):
                pass

        asyncio.run(enter())

    async def beat(self, worker: str) -> None:
        """Let there be a worker that would take whatever is ready, and takes nothing."""
        backend = backend_for(self.url)
        assert backend.open_store is not None
        store = backend.open_store(self.url, namespace=self.namespace, clock=SystemClock())
        known = [f"{workflow.name}@{workflow.version}" for workflow in shop.durable.definitions()]
        about = Presence("1", "host", 1, queues=["default", "email"], workflows=known, slots=10)
        await store.open()
        try:
            await asyncio.to_thread(store.beat, worker, ttl_ms=3_600_000, info=about.pack())
        finally:
            await store.close()

    def start(self, *arguments: str) -> str:
        return self.run("start", *arguments).out.strip()

    def until(self, execution_id: str, *statuses: str) -> None:
        """Come back when the execution has one of these statuses; any final one, if none is named."""
        asyncio.run(self._until(execution_id, statuses or FINAL))

    async def _until(self, execution_id: str, statuses: tuple[str, ...]) -> None:
        async with Durable(store=self.url, namespace=self.namespace, worker=False) as durable:
            await reaches(durable.handle(execution_id), *statuses, within=PATIENCE)

    @contextmanager
    def process(self, *arguments: str, **environment: str | None) -> Generator[Process]:
        """A command that stays, in a pipe. It is killed at the end, if it still runs."""
        popen = subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.directory,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert popen.stdout is not None
        with _ended(Process(popen, popen.stdout)) as process:
            yield process

    @contextmanager
    def terminal(self, *arguments: str, width: int = 100, **environment: str | None) -> Generator[Process]:
        """A command that stays, under a terminal of its own."""
        parent, child = pty.openpty()
        termios.tcsetwinsize(child, (40, width))
        popen = subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.directory,
            env=self._environment(environment),
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        with _ended(Process(popen, os.fdopen(parent, "rb", buffering=0))) as process:
            yield process

    @contextmanager
    def worker(self, *arguments: str) -> Generator[Process]:
        """A worker that has begun to work."""
        with self.process("worker", *arguments) as worker:
            worker.says("queues")
            yield worker
            worker.stop(signal.SIGTERM)

    def _environment(self, changes: dict[str, str | None]) -> dict[str, str]:
        changed: dict[str, str | None] = {**self.environment, **changes}
        return {name: value for name, value in changed.items() if value is not None}


@final
class Process:
    """A command that is running."""

    def __init__(self, popen: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self.popen = popen
        self.output = output
        self.said = ""

    @property
    def pid(self) -> int:
        return self.popen.pid

    def says(self, text: str, *, times: int = 1) -> str:
        """Come back when it has said this; all that it has said by then."""
        self._read(lambda: self.said.count(text) >= times, text)
        return self.said

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ends(self) -> int:
        """Come back when it has ended and everything is read: its exit code."""
        self._read(lambda: False, None)
        return self.popen.wait(PATIENCE)

    def stop(self, number: signal.Signals) -> int:
        self.send(number)
        return self.ends()

    def _read(self, enough: Callable[[], bool], what: str | None) -> None:
        deadline = time.monotonic() + PATIENCE
        while not enough():
            left = deadline - time.monotonic()
            assert left > 0, f"{what or 'the end'} did not come:\n{self.said}"
            if not select.select([self.output], [], [], left)[0]:
                continue
            try:
                data = os.read(self.output.fileno(), 65536)
            except OSError:  # how the end of a terminal reads on Linux
                data = b""
            if not data:
                assert what is None, f"it ended and did not say {what}:\n{self.said}"
                return
            self.said += data.decode(errors="replace")


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _looked_at(arguments: Sequence[str], ended: int, out: Any, err: Any, code: int) -> Ran:
    ran = Ran(ended, *(stream.getvalue().decode() for stream in (out, err)))
    assert "Traceback" not in ran.err, ran.err
    assert ran.code == code, f"{arguments}: exit code {ran.code}\n{ran.out}\n{ran.err}"
    return ran


@contextmanager
def _terminal(width: int) -> Generator[tuple[io.BytesIO, TextIO]]:
    """What has been shown at the end of the block, and the terminal to write to."""
    parent, child = pty.openpty()
    tty.setraw(child)  # a line ends as it was written
    termios.tcsetwinsize(child, (40, width))
    shown = io.BytesIO()

    def look() -> None:
        with suppress(OSError):  # how the end of a terminal reads on Linux
            while data := os.read(parent, 65536):
                shown.write(data)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with os.fdopen(child, "w", encoding="utf-8") as screen:
            yield shown, screen
    finally:
        looking.join()
        os.close(parent)


@contextmanager
def _ended(process: Process) -> Generator[Process]:
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()
        process.output.close()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty directory, apart from the application."""
    shutil.copy(SHOP, tmp_path / "app.py")
    return Shell(tmp_path)


@dataclass(frozen=True)
class Sold:
    """A store in which something of everything has happened, to be read only."""

    shell: Shell
    waiting: str
    completed: str
    declined: str
    diverged: str
    unstorable: str
    parent: str


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Sold:
    directory = tmp_path_factory.mktemp("sold")
    shutil.copy(SHOP, directory / "app.py")
    shell = Shell(directory)
    sold = Sold(
        shell,
        waiting=shell.start(
            "fulfil", '{"id": "7", "cents": 700}', "--tag", "tenant=acme", "--key", "order:7"
        ),
        completed=shell.start("echo", '{"id": "é", "cents": 1}'),
        declined=shell.start("declined", "--tag", "tenant=acme"),
        diverged=shell.start("diverging", "--key", "diverging"),
        unstorable=shell.start("unstorable", "--key", "unstorable"),
        parent=shell.start("parent"),
    )
    with shell.worker():
        shell.until(sold.waiting, "waiting")
        for ended in (sold.completed, sold.declined, sold.parent):
            shell.until(ended)
        for parked in (sold.diverged, sold.unstorable):
            shell.until(parked, "parked")
    return sold


@pytest.fixture(scope="module")
def planned(sold: Sold) -> Sold:
    """With a worker, schedules, a queue that is paused and a limit that was set."""

    async def plan() -> None:
        async with Durable([shop.send_email], store=sold.shell.url, worker=False) as durable:
            for id in ("nightly", "a:hourly"):
                await durable.ensure_schedule(shop.send_email, id=id, cron="0 3 * * *")
            await durable.operator.pause_queue("email")
            await durable.operator.set_limit("report/concurrency", 3)
        await sold.shell.beat("host:1:abc")

    asyncio.run(plan())
    return sold
