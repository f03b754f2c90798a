"""`Link`: one connection with one channel, that is made again for as long as it is open.

The driver's own recovery has left consumers behind that were connected and dead; here a connection that has lost
anything is thrown away, and the new one begins from nothing.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, cast, final

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ConnectionNotAllowed,
    IncompatibleProtocolError,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from durable.backends.rabbitmq.driver import driving, driving_context
from durable.backends.rabbitmq.location import Location
from durable.errors import QueueUnavailable

log = logging.getLogger("durable.rabbitmq")

_CONNECT_S: Final = 3.0
_CLOSE_S: Final = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
FAILURES: Final = (AMQPError, OSError, RuntimeError, asyncio.TimeoutError, asyncio.CancelledError)
"""What the driver raises when a connection or a channel is gone. (Its `CancelledError` is not ours: see `is_mine`.)"""


def is_mine(error: BaseException) -> bool:
    """Whether this task was really cancelled, and not only told so by the driver when its connection closed."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


@final
class Link:
    """`set_up` is called with the channel of each new connection, before `channel` shows it; `on_up` right after that.

    What is raised by `set_up` makes the link throw the connection away and try again, later.
    """

    def __init__(
        self,
        location: Location,
        name: str,
        *,
        set_up: Callable[[AbstractChannel], Awaitable[None]],
        on_up: Callable[[], object] = lambda: None,
        confirms: bool = False,
    ) -> None:
        self._location = location
        self._name = name
        self._set_up = set_up
        self._on_up = on_up
        self._confirms = confirms
        self._random = Random()
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_asked_to_rebuild = asyncio.Event()
        self._trouble = ""
        """Why there is no connection, as it was logged: each reason is logged once."""
        self.channel: AbstractChannel | None = None
        """None while there is no connection."""
        self.connections = 0
        """How many there were."""

    async def open(self) -> None:
        """Raises: `QueueUnavailable` when the broker refuses us, and when it cannot be reached but is required."""
        try:
            await self._connect()
        except QueueUnavailable as error:
            if self._location.required or not isinstance(error.__cause__, OSError | TimeoutError):
                raise
            self._complain(error)
        self._task = asyncio.create_task(
            self._keep(), name=f"durable.rabbitmq.{self._name}", context=driving_context()
        )

    async def close(self) -> None:
        """Called twice: nothing happens."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        await self._drop()

    def rebuild(self, why: str | None = None) -> None:
        """Throw the connection away, and make another. `why` is logged."""
        if self.channel is not None:
            if why is not None:
                log.warning("the %s connection to %s is made anew: %s", self._name, self._location.shown, why)
            self._is_asked_to_rebuild.set()

    # ---- its life

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            if self.channel is not None:
                await self._until_lost()
                await self._drop()
            try:
                await self._connect()
                pause = _FIRST_PAUSE
            except QueueUnavailable as error:
                self._complain(error)
                await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _complain(self, error: QueueUnavailable) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("%s; the %s connection is tried again until it succeeds", error, self._name)

    async def _until_lost(self) -> None:
        assert self._connection is not None
        assert self.channel is not None
        self._is_asked_to_rebuild.clear()
        asked = asyncio.ensure_future(self._is_asked_to_rebuild.wait())
        lost: list[asyncio.Future[Any]] = [
            cast("Any", self._connection).closing,
            cast("Any", self.channel).closing,
        ]
        try:
            await asyncio.wait((asked, *lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (asked, *lost):
                each.cancel()
        if not asked.done() or asked.cancelled():
            errors = [error for each in lost if not each.cancelled() and (error := each.exception())]
            why = _reason(errors[0]) if errors else "it was closed"
            log.warning("the %s connection to %s is lost: %s", self._name, self._location.shown, why)

    async def _connect(self) -> None:
        try:
            with driving():
                channel = await self._dial()
        except QueueUnavailable:
            await self._drop()
            raise
        except FAILURES as error:
            await self._drop()
            if is_mine(error):
                raise
            raise self._explained(error) from error
        self.channel = channel
        self.connections += 1
        if self._trouble:
            self._trouble = ""
            log.info("the %s connection to %s is there again", self._name, self._location.shown)
        self._on_up()

    async def _dial(self) -> AbstractChannel:
        async with asyncio.timeout(_CONNECT_S):
            properties: dict[str, Any] = {"connection_name": f"durable {self._name}"}
            self._connection = await aiormq.connect(self._location.url, client_properties=properties)
            channel = await self._connection.channel(publisher_confirms=self._confirms, on_return_raises=True)
            await self._set_up(channel)
            return channel

    def _explained(self, error: BaseException) -> QueueUnavailable:
        shown = self._location.shown
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError):
            error = cause
        match error:
            case AuthenticationError() | ProbableAuthenticationError():
                return QueueUnavailable(
                    f"{shown} refuses the user or the password", "correct them in the URL"
                )
            case ConnectionNotAllowed() | InvalidFrameError():  # the second when it says so instead of "open"
                return QueueUnavailable(
                    f"{shown} refuses the virtual host: there is none of that name, or not for this user",
                    "create it, or correct the path of the URL",
                )
            case ssl.SSLError():
                return QueueUnavailable(
                    f"{shown}: no TLS connection: {error.reason or type(error).__name__}",
                    "check scheme and port, and name the authority's certificate with ?cafile=",
                )
            case IncompatibleProtocolError():
                return QueueUnavailable(f"{shown} does not speak AMQP", "check scheme and port")
            case TimeoutError():
                return QueueUnavailable(f"{shown} does not answer", "check host and port, and the broker")
            case _:
                return QueueUnavailable(
                    f"{shown} cannot be reached: {_reason(cause or error)}",
                    "check host and port, and the broker",
                )

    async def _drop(self) -> None:
        connection, self._connection, self.channel = self._connection, None, None
        if connection is not None:
            try:
                with driving():
                    async with asyncio.timeout(_CLOSE_S):
                        await connection.close(None)
            except FAILURES as error:
                if is_mine(error):
                    raise


def _reason(error: BaseException) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
