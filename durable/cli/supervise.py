"""`durable supervise`: worker processes, as many as there is work for."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from durable.app import Durable
from durable.cli import completion
from durable.cli.application import AppOption, find_application
from durable.cli.exits import ExitCode
from durable.cli.fleet import Fleet, Load, Scale
from durable.cli.logs import LogFormat
from durable.cli.stopping import Stop
from durable.cli.worker import say
from durable.duration import to_timedelta
from durable.errors import ConfigurationError, DurableError, InvalidInput

_EVERY_S: Final = 1.0


def supervise(
    application: Annotated[
        str | None, typer.Argument(metavar="[MODULE:NAME]", help="As --app.", show_default=False)
    ] = None,
    app: AppOption = None,
    least: Annotated[int, typer.Option("--min", min=0, help="The fewest workers.")] = 1,
    most: Annotated[
        int | None, typer.Option("--max", min=1, help="The most workers.", show_default="a core each")
    ] = None,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            "-q",
            help="A queue to serve; may be repeated.",
            autocompletion=completion.own_queues,
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", help="The most executions that each runs at once.")
    ] = None,
    patience: Annotated[
        str, typer.Option(metavar="DURATION", help="How long what is ready may wait for a worker.")
    ] = "5s",
    idle: Annotated[
        str, typer.Option(metavar="DURATION", help="After which a worker that is not needed is drained.")
    ] = "30s",
    log_format: Annotated[
        LogFormat | None, typer.Option("--log-format", help="Of the workers, as theirs.")
    ] = None,
) -> None:
    """Run as many workers as there is work for, and start others for those that die.

    The supervisor itself runs no execution. It fires timers and schedules, so that with --min 0 something that wakes
    up gets a worker, too. Ctrl-C or SIGTERM drains all of them; a second one ends them at once.

    \b
    Examples:
      durable supervise app:durable --max 4
      durable supervise app:durable --min 0 --max 2 -q reports --idle 5m
    """
    most = max(least, os.cpu_count() or 1) if most is None else most
    if least > most:
        raise InvalidInput(f"--min {least} is more than --max {most}", "let --max be at least --min")
    reference = application or app
    durable = find_application(reference).as_worker(queues or None, concurrency)
    if durable.store_url.startswith("memory:"):
        raise ConfigurationError(
            "memory:// is seen by one process only, and workers are processes of their own",
            "give your Durable a store that is shared, such as sqlite:///durable.db",
        )
    scale = Scale(
        least,
        most,
        durable.settings.concurrency,
        to_timedelta(patience, what="--patience").total_seconds(),
    )
    arguments = [] if reference is None else [reference]
    for queue in queues or ():
        arguments += ["--queue", queue]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    if log_format is not None:
        arguments += ["--log-format", log_format]
    supervisor = _Supervisor(
        durable, Fleet(arguments, say), scale, to_timedelta(idle, what="--idle").total_seconds()
    )
    asyncio.run(supervisor.run())
    if supervisor.stop.asked > 1:
        raise typer.Exit(ExitCode.INTERRUPTED)


class _Supervisor:
    def __init__(self, durable: Durable, fleet: Fleet, scale: Scale, idle_s: float) -> None:
        self._queues = durable.settings.queues
        self._durable = durable.as_sweeper()
        self._fleet = fleet
        self._scale = scale
        self._idle_s = idle_s
        self._needed_at = 0.0
        """When as many as there are were needed last."""
        self._grown_at = 0.0
        self.stop = Stop(self._again)

    async def run(self) -> None:
        with self.stop.listening():
            async with self._durable:
                say(
                    f"supervising {self._scale.least} to {self._scale.most} workers for {self._durable.store_url}"
                )
                while not self.stop.is_asked.is_set():
                    try:
                        await self._turn()
                    except DurableError as error:
                        say(f"goes on with {len(self._fleet.staying)} workers after an error: {error}")
                    await self._pause()
                say("stopping: what runs may end; Ctrl-C again stops at once")
                self._fleet.drain()
                await self._fleet.ended()
            say("stopped")

    async def _again(self) -> None:
        self._fleet.drain()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_EVERY_S):
                await self.stop.is_asked.wait()
        except TimeoutError:
            pass

    async def _turn(self) -> None:
        load, now = await self._load(), asyncio.get_running_loop().time()
        running = len(self._fleet.staying)
        wanted = self._scale.wanted(load, running)
        is_soon = now - self._grown_at < self._scale.patience_s
        if running < max(self._scale.least, min(wanted, 1)) or (wanted > running and not is_soon):
            await self._fleet.grow(wanted, f"{load.ready} ready, {load.busy} running")
            self._grown_at = now
        if wanted >= running:
            self._needed_at = now
        elif now - self._needed_at > self._idle_s:
            self._fleet.shrink(wanted)
            self._needed_at = now

    async def _load(self) -> Load:
        operator = self._durable.operator
        waiting = [each for each in await operator.queues() if each.queue in self._queues and not each.paused]
        host, busy = socket.gethostname(), 0
        alive = {each.pid: each for each in await operator.workers() if each.host == host}
        for member in self._fleet.members:
            member.busy = alive[member.pid].busy if member.pid in alive else 0
            busy += member.busy
        since = min((each.oldest_at for each in waiting if each.oldest_at is not None), default=None)
        oldest_s = 0.0 if since is None else (datetime.now(UTC) - since).total_seconds()
        return Load(sum(each.ready for each in waiting), busy, oldest_s)
