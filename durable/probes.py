"""`/metrics` and `/health` of a worker, on one port, from a thread of its own: they answer while the loop does not.

    GET /health         503 unless all is well: the loop answers, the store does, the lease holds
    GET /health/live    503 only when the loop is blocked: what a restart mends
    GET /health/ready   503 as /health, and while the worker drains
    GET /metrics        in the text format of Prometheus

Nothing can be changed here, and no execution is named. It is on loopback unless another address is given.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final, final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from typing_extensions import override

from durable.app import Durable
from durable.errors import ConfigurationError, InvalidInput
from durable.telemetry import LeaseMissed, LeaseRenewed, TelemetryEvent

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

LOOPBACK: Final = "127.0.0.1"
_PING_S: Final = 1.0
BLOCKED_S: Final = 3.0
"""For which the loop may not answer before it counts as blocked."""
_SLOW_CLIENT_S: Final = 5.0
_JSON: Final = "application/json; charset=utf-8"


@final
class Health:
    """A listener that knows how a worker is: asked on any thread, it answers at once."""

    def __init__(self) -> None:
        self._durable: Durable | None = None
        self._renewed_at: float | None = None
        self._missed: str | None = None
        self._answered_at = 0.0
        self._stopped = threading.Event()
        self._lease_s = 0.0

    def __call__(self, event: TelemetryEvent) -> None:
        if isinstance(event, LeaseRenewed):
            self._renewed_at, self._missed = time.monotonic(), None
        elif isinstance(event, LeaseMissed):
            self._missed = type(event.error).__name__

    def watch(self, durable: Durable) -> None:
        """Look after the loop and the worker of a `Durable` that is entered, until `stop`. On its event loop."""
        self._durable = durable
        self._lease_s = durable.settings.lease_ms / 1000
        self._answered_at = time.monotonic()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._ping, args=(loop,), name="durable.health", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def findings(self) -> dict[str, str]:
        """What is looked at, each with `ok` or what is wrong with it."""
        now = time.monotonic()
        silent = now - self._answered_at
        renewed = self._renewed_at
        lapsed = renewed is None or now - renewed > self._lease_s
        return {
            "loop": "ok" if silent <= BLOCKED_S else f"blocked for {silent:.0f} s",
            "store": "ok" if self._missed is None else f"away: {self._missed}",
            "lease": "ok" if not lapsed else "lost",
        }

    @property
    def is_draining(self) -> bool:
        """Whether the worker takes nothing new, or has none."""
        presence = None if self._durable is None else self._durable.presence()
        return presence is None or presence.draining

    def _ping(self, loop: asyncio.AbstractEventLoop) -> None:
        answered = threading.Event()
        answered.set()
        while not self._stopped.wait(_PING_S):
            if not answered.is_set():
                continue
            answered.clear()

            def answer() -> None:
                self._answered_at = time.monotonic()
                answered.set()

            try:
                loop.call_soon_threadsafe(answer)
            except RuntimeError:  # the loop is closed
                return


@final
class Probes:
    """The server. It listens when this returns; `port` says where, if 0 was given.

    Raises:
        ConfigurationError: the address cannot be listened at.
    """

    def __init__(self, address: str, health: Health, metrics: Callable[[], bytes], content_type: str) -> None:
        host, port = parse_address(address)
        self._health = health
        self._metrics = metrics
        self._content_type = content_type
        server_class = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, self._answer, server_class, _Requests)
        except OSError as error:
            raise ConfigurationError(
                f"--metrics cannot listen at {address}: {error.strerror or error}",
                "give another address, such as 127.0.0.1:0 for any free port",
            ) from error
        self.host, self.port = host, self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="durable.probes", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, content_type, body = self._respond(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        headers += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        start_response(f"{status.value} {status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _respond(self, method: str, path: str) -> tuple[HTTPStatus, str, bytes]:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _JSON, b"{}"
        if path == "/metrics":
            return HTTPStatus.OK, self._content_type, self._metrics()
        found = self._health.findings()
        draining = self._health.is_draining
        well = {
            "/health": all(what == "ok" for what in found.values()),
            "/health/live": found["loop"] == "ok",
            "/health/ready": all(what == "ok" for what in found.values()) and not draining,
        }.get(path)
        if well is None:
            return HTTPStatus.NOT_FOUND, _JSON, b"{}"
        state = "draining" if draining else "working"
        body = json.dumps({"status": "ok" if well else "unhealthy", "worker": state, **found}).encode()
        return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, _JSON, body


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[::1]:port` or a port alone, which is on loopback.

    Raises:
        InvalidInput: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else LOOPBACK
    if not (host and port.isascii() and port.isdecimal() and int(port) < 65_536):
        raise InvalidInput(f"an address to listen at is host:port, not {text!r}", "such as 127.0.0.1:9000")
    return host, int(port)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Requests(WSGIRequestHandler):
    timeout = _SLOW_CLIENT_S

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """One line for each scrape would be all that is logged."""

    @override
    def address_string(self) -> str:
        return str(self.client_address[0])  # and no look-up of its name
