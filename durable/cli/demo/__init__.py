"""`durable demo`: an order whose worker is killed with SIGKILL right after it charged the card.

this process ── start, approve, wait ──▶ store ◀── worker 1 ✗   worker 2
                                           ledger ◀────┴───────────┘     what the steps did to the world
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import typer

from durable.cli.connection import store_url
from durable.cli.demo.play import play
from durable.cli.demo.stage import NAMESPACE, Failed, Stage
from durable.cli.exits import ExitCode, tell
from durable.cli.output import clean, console, error_console
from durable.redact import redact_url

_SIGNALS: Final = ("SIGTERM", "SIGHUP")


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the directory, to look around in it.")] = False,
    store: Annotated[
        str | None, typer.Option("--store", "-s", metavar="URL", help="Another store than a SQLite file.")
    ] = None,
) -> None:
    """Run an order workflow, kill its worker in the middle, and prove that nothing happened twice.

    It needs nothing, asks nothing, and leaves nothing behind.

    \b
    Examples:
      durable demo
      durable demo --keep
    """
    with ExitStack() as stack:
        if keep:
            directory = Path(tempfile.mkdtemp(prefix="durable-demo-"))
        else:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-demo-")))
        url = f"sqlite:///{quote(str(directory / 'orders.db'))}" if store is None else store_url(store)
        try:
            asyncio.run(_run(url, directory))
        except Failed as failure:
            tell(str(failure), "`durable demo --keep` keeps the store and the workers' logs, to be looked at")
            for line in failure.details:
                error_console().print(f"  {clean(line)}")
            raise typer.Exit(ExitCode.FAILED) from None
        finally:
            if keep:
                console().print(f"\nkept in {directory}: the store, the ledger and the logs. Look around:")
                console().print(f"  durable list --store {redact_url(url)} --namespace {NAMESPACE}")


async def _run(url: str, directory: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    for name in _SIGNALS:  # whatever ends the demo, its workers end first
        if hasattr(signal, name):
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), task.cancel)
    async with Stage(url, directory) as stage:
        await play(stage)
