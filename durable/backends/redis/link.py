"""`Link`: one connection to one server, on which any number of tasks have commands under way at once."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast, final

import hiredis
from typing_extensions import override

from durable.backends.redis.location import Endpoint, Login
from durable.backends.redis.replies import Lost, Reply, ReplyError, Word, translate
from durable.errors import StoreUnavailable

Answer: TypeAlias = "Reply | ReplyError | Lost"
Push = Callable[[list[Reply]], object]

CONNECT_S: Final = 4.0
"""Connecting, TLS and the first commands together take no longer than this."""
_SILENCE_S: Final = 5.0
_PATIENT_S: Final = 1.0
"""A server that has been silent for so long is not waited for by who wants to leave."""
_INCOMPLETE: Final = object()
_TLS_HINT: Final = (
    "name the authority that signed the server's certificate by ssl_ca_certs=/path.pem, and the host as "
    "the certificate does; ssl_cert_reqs=none checks nothing"
)


@dataclass(slots=True)
class Sent:
    """What went out for callers, greetings and health checks not counted."""

    commands: int = 0
    writes: int = 0
    """Commands that left together count as one: an upper bound of the round trips."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says of itself when it is greeted."""

    version: str
    mode: str
    """"standalone", "cluster" or "sentinel"."""
    role: str
    """"master" or "replica"."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How to connect, and what to make of silence."""

    login: Login = field(default_factory=Login)
    tls: ssl.SSLContext | None = None
    database: int = 0
    on_push: Push | None = None
    """Given, the connection speaks RESP 3, and each list that comes is what the server pushes."""
    silence_s: float = _SILENCE_S
    """A server that owes an answer and has said nothing for so long is taken for dead."""
    ping_s: float = _SILENCE_S
    """A connection on which nothing came for so long is tried with a PING."""


# Its stub takes tuples of one word.
_pack = cast("Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


def pack(command: Sequence[Word]) -> bytes:
    """A command, ready to be sent."""
    return _pack(tuple(command))


@final
class Link(asyncio.Protocol):
    """Made by `dial`. It never reconnects: when it is lost, every command gets `Lost`, and that is the end of it.

    All commands of one turn of the loop leave as one write; replies are matched in order. A caller that goes away
    has its reply read and dropped, so nobody gets another's.
    """

    def __init__(self, manners: Manners, sent: Sent) -> None:
        self._loop = asyncio.get_running_loop()
        self._manners = manners
        self._sent = sent
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._unsent: list[asyncio.Future[Answer]] = []
        self._uncounted = 0
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._is_paused = False
        self._lost: str | None = None
        self._quiet_since = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self.on_lost: Callable[[], object] | None = None

    @property
    def is_lost(self) -> bool:
        return self._lost is not None

    def send(self, packed: bytes, *, counts: int = 1) -> asyncio.Future[Answer]:
        """The answer to come. It is never an exception: what went wrong is a `Failure`."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self._lost is not None:
            future.set_result(Lost(sent=False, reason=self._lost))
            return future
        self.tell(packed)
        self._unsent.append(future)
        self._uncounted += counts
        return future

    def tell(self, packed: bytes) -> None:
        """Send what is not answered."""
        if self._lost is None:
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(packed)

    def abort(self, reason: str) -> None:
        """Give the connection up, with all that is under way."""
        self._lose(reason)
        if self._transport is not None:
            self._transport.abort()

    async def drain(self) -> None:
        """Come back when what was sent until now is answered, or lost, or the server has been silent for a second."""
        under_way = [future for future in (*self._waiting, *self._unsent) if not future.done()]
        while under_way and (left := self._quiet_since + _PATIENT_S - self._loop.time()) > 0:
            _, still = await asyncio.wait(under_way, timeout=left)
            under_way = list(still)

    # -- sending

    def _flush(self) -> None:
        if self._transport is None or self._is_paused or not self._out:
            return
        if not self._waiting:
            self._quiet_since = self._loop.time()
        self._waiting.extend(self._unsent)
        self._unsent.clear()
        packed, self._out = self._out, []
        if self._uncounted:
            self._sent.writes += 1
            self._sent.commands += self._uncounted
            self._uncounted = 0
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    @override
    def pause_writing(self) -> None:
        self._is_paused = True

    @override
    def resume_writing(self) -> None:
        self._is_paused = False
        self._flush()

    # -- receiving

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._quiet_since = self._loop.time()
        self._watch = self._loop.call_later(self._manners.ping_s / 4, self._look)
        self._flush()

    @override
    def data_received(self, data: bytes) -> None:
        self._quiet_since = self._loop.time()
        reader, waiting, on_push = self._reader, self._waiting, self._manners.on_push
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                if on_push is not None and isinstance(reply, list):
                    on_push(cast("list[Reply]", reply))
                    continue
                future = waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (hiredis.HiredisError, IndexError) as error:
            self.abort(f"what came is not the protocol of Redis: {error}")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(str(exc) if exc else "the server closed the connection")

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        if self._watch is not None:
            self._watch.cancel()
        for futures, was_sent in ((self._waiting, True), (self._unsent, False)):
            for future in futures:
                if not future.done():
                    future.set_result(Lost(sent=was_sent, reason=reason))
            futures.clear()
        self._out.clear()
        if self.on_lost is not None:
            self.on_lost()

    def _look(self) -> None:
        quiet_s = self._loop.time() - self._quiet_since
        if self._waiting and quiet_s > self._manners.silence_s:
            self.abort(f"no answer for {self._manners.silence_s:g} s")
            return
        if not self._waiting and quiet_s > self._manners.ping_s:
            _ = self.send(pack(("PING",)), counts=0)
        self._watch = self._loop.call_later(self._manners.ping_s / 4, self._look)


async def dial(
    endpoint: Endpoint, manners: Manners, *, shown: str, sent: Sent | None = None
) -> tuple[Link, Greeting]:
    """A connection that has been greeted, logged in, and found to answer.

    Raises: `StoreUnavailable` within `CONNECT_S` seconds.
    """
    sent = sent or Sent()
    link: Link | None = None
    try:
        async with asyncio.timeout(CONNECT_S):
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: Link(manners, sent), endpoint.host, endpoint.port, ssl=manners.tls
            )
            return link, await _greet(link, manners, f"{endpoint} ({shown})")
    except TimeoutError as error:
        _drop(link)
        raise StoreUnavailable(
            f"the Redis at {endpoint} ({shown}) does not answer within {CONNECT_S:g} s",
            "check the host and the port, that a firewall lets them through, and that the server is not stopped"
            + ("; if it does not speak TLS write redis://" if manners.tls else ""),
        ) from error
    except ssl.SSLError as error:
        why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        raise StoreUnavailable(
            f"TLS with the Redis at {endpoint} ({shown}) fails: {why or error}",
            "this port does not speak TLS: write redis://" if _is_no_tls(error) else _TLS_HINT,
        ) from error
    except OSError as error:
        raise StoreUnavailable(
            f"the Redis at {endpoint} ({shown}) cannot be reached: {error.strerror or error}",
            "check that the server runs there, and that the URL is right",
        ) from error
    except BaseException:
        _drop(link)
        raise


async def _greet(link: Link, manners: Manners, shown: str) -> Greeting:
    login = manners.login
    auth: tuple[Word, ...] = () if login.password is None else ("AUTH", login.user, login.password)
    commands: list[tuple[Word, ...]] = [
        ("HELLO", 3 if manners.on_push else 2, *auth, "SETNAME", "durable"),
        ("PING",),  # a server that is still loading its data answers HELLO, but not this
    ]
    if manners.database:
        commands.insert(1, ("SELECT", manners.database))
    answers = [link.send(pack(command), counts=0) for command in commands]
    for answer in answers:
        failure = await answer
        if isinstance(failure, ReplyError):
            if failure.text.startswith("unknown command"):
                raise StoreUnavailable(
                    f"the Redis at {shown} is too old: it does not know HELLO",
                    "use Redis 7.0 or newer, or any Valkey",
                )
            raise translate(failure, shown)
        if isinstance(failure, Lost):
            raise StoreUnavailable(
                f"the Redis at {shown} closes the connection when it is greeted: {failure.reason}",
                "if the server expects TLS write rediss://; else look at its log",
            )
    return _greeting(answers[0].result())


def _greeting(answer: Answer) -> Greeting:
    if isinstance(answer, dict):  # RESP 3
        said = cast("dict[bytes, object]", answer)
    else:
        flat = cast("list[object]", answer)
        said = cast("dict[bytes, object]", dict(zip(flat[::2], flat[1::2], strict=False)))
    version, mode, role = (said.get(key, b"") for key in (b"version", b"mode", b"role"))
    return Greeting(*(each.decode() if isinstance(each, bytes) else "" for each in (version, mode, role)))


def _is_no_tls(error: ssl.SSLError) -> bool:
    return error.reason in ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_EOF_WHILE_READING")


def _drop(link: Link | None) -> None:
    if link is not None:
        link.abort("it is not used")
