"""`durable worker`: run executions until the process is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Final, final

import typer
from rich.console import Console
from rich.text import Text
from typing_extensions import override

from durable import __version__
from durable.app import Durable
from durable.cli.application import AppOption, find_application
from durable.cli.exits import ExitCode
from durable.cli.output import clean, console
from durable.cli.process import run_process
from durable.duration import format_duration, to_timedelta

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
_STYLES: Final = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


def worker(
    application: Annotated[
        str | None, typer.Argument(metavar="[MODULE:NAME]", help="As --app.", show_default=False)
    ] = None,
    app: AppOption = None,
    queues: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="A queue to serve; may be repeated.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", help="The most executions that run at once.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run executions of your application's workflows, until Ctrl-C or SIGTERM.

    Then what runs may end, for as long as the application's drain= allows; a second Ctrl-C stops at once, and
    other workers go on from there.

    \b
    Examples:
      durable worker app:durable
      durable worker app:durable -q email -q default --concurrency 20
      DURABLE_APP=app:durable durable worker
    """
    durable = find_application(application or app).as_worker(queues or None, concurrency)
    stop = _Stop(durable)
    with _logging(console(), verbose=verbose):
        run_process(_work(durable, stop))
        logging.shutdown()
    if stop.asked > 1:
        # A sync step may still be running in its thread, for which the interpreter would wait.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ExitCode.INTERRUPTED)


async def _work(durable: Durable, stop: _Stop) -> None:
    with stop.listening():
        async with durable:
            _say(_header(durable))
            await stop.is_asked.wait()
            drain = format_duration(to_timedelta(durable.settings.drain_ms / 1000))
            _say(f"stopping: what runs may end within {drain}; Ctrl-C again stops at once")
        _say("stopped")


@final
class _Stop:
    """Counts how often the process was told to stop: once drains, twice stops, a third time exits on the spot."""

    def __init__(self, durable: Durable) -> None:
        self.asked = 0
        self._durable = durable
        self._stopping: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self) -> Generator[None]:
        self.is_asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        before = {number: signal.signal(number, self._on_signal) for number in _STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        if self.asked == 1:
            self._loop.call_soon_threadsafe(self.is_asked.set)
        elif self.asked == 2:
            self._loop.call_soon_threadsafe(self._stop_now)
        else:  # perhaps the loop is blocked
            os._exit(128 + number)

    def _stop_now(self) -> None:
        self._stopping = self._loop.create_task(self._durable.stop())


def _header(durable: Durable) -> str:
    settings, workflows = durable.settings, durable.workflows()
    some = f"{len(workflows)} workflow{'' if len(workflows) == 1 else 's'}"
    queues = f"queues {', '.join(settings.queues)} ({settings.concurrency})"
    return f"durable {__version__} · {durable.store_url} · {some} · {queues}"


def _say(text: str) -> None:
    console().print(clean(text))
    sys.stdout.flush()


@contextmanager
def _logging(out: Console, *, verbose: bool) -> Generator[None]:
    """What `durable` logs as lines on stdout, unless the application has set up its own logging."""
    log = logging.getLogger("durable")
    if logging.getLogger().handlers or log.handlers:
        yield
        return
    lines = _Lines(out)
    lines.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    level, propagates = log.level, log.propagate
    log.addHandler(lines)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(lines)
        log.setLevel(level)
        log.propagate = propagates


@final
class _Lines(logging.Handler):
    """Log records as lines, each with its traceback below."""

    def __init__(self, out: Console) -> None:
        super().__init__()
        self._out = out

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in self.format(record).splitlines():
                self._out.print(Text(clean(line), _STYLES.get(record.levelno, "")))
            sys.stdout.flush()
        except Exception:  # noqa: BLE001 as every handler of logging: a line that cannot be written stops no work
            self.handleError(record)
