"""`durable dashboard`: the dashboard in a process of its own, until it is told to stop."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typing_extensions import override

from durable.app import Durable
from durable.cli.application import CodeOption
from durable.cli.connection import Connection
from durable.cli.grouping import grouped
from durable.cli.output import clean, console
from durable.cli.process import run_process
from durable.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn import Server

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


@grouped
def dashboard(
    *,
    app: CodeOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8700,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DURABLE_DASHBOARD_TOKEN",
            metavar="TOKEN",
            help="What people must show; needed on every address that others can reach. Prefer the variable.",
        ),
    ] = None,
    readonly: Annotated[bool, typer.Option("--readonly", help="Let nothing be changed.")] = False,
    environment: Annotated[
        str,
        typer.Option(
            envvar="DURABLE_ENVIRONMENT",
            metavar="NAME",
            help='In "prod", what hurts is confirmed by typing a name.',
        ),
    ] = "dev",
    connection: Connection,
) -> None:
    """Show executions in a browser, as they run, and let them be approved, mended and cancelled there.

    With --app it knows your workflows, and shows their graphs and the forms of their signals; it runs none of them.

    \b
    Examples:
      durable dashboard --store sqlite:///orders.db
      durable dashboard --app app:durable
      DURABLE_DASHBOARD_TOKEN=... durable dashboard --host 0.0.0.0 --environment prod
    """
    try:
        from durable.dashboard import dashboard as application
        from durable.dashboard.access import is_loopback
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the dashboard needs {error.name}, which is not installed", "pip install 'durable[dashboard]'"
        ) from None
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from elsewhere, and nobody would be asked for a token",
            "set DURABLE_DASHBOARD_TOKEN, or listen on 127.0.0.1",
        )
    durable = connection.client_with(app)
    web = application(durable, auth=token, readonly=readonly, environment=environment)
    run_process(_serve(durable, web, _listening(host, port)))


async def _serve(durable: Durable, web: ASGIApp, listening: socket.socket) -> None:
    from uvicorn import Config

    host, port, *_ = listening.getsockname()
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    said = clean(f"dashboard of {durable.store_url} on {address} · Ctrl-C stops it")
    config = Config(web, log_level="warning", access_log=False, lifespan="on", server_header=False)
    async with durable:
        await _server(config, said).serve(sockets=[listening])
    console().print("stopped")


def _server(config: object, said: str) -> Server:
    from uvicorn import Config, Server

    class OwnServer(Server):
        """Ends when it is told to, and leaves it to us what becomes of the process then."""

        @override
        async def main_loop(self) -> None:
            console().print(said)  # from here on it hears of signals
            sys.stdout.flush()
            await super().main_loop()

        @override
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            before = {number: signal.signal(number, self.handle_exit) for number in _STOPPING}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    assert isinstance(config, Config)
    return OwnServer(config)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            "choose another --port, or 0 for any",
        ) from error
