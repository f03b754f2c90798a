"""`Wire`: commands and scripts for a server, a master that Sentinels know, or a cluster.

    run, call ─▶ Topology ─ which node has the key ─▶ Node ─ kept connected ─▶ Link ─ one write for each loop turn

A command is sent once. The client library repeats nothing by itself, and neither does a `Wire`, except what it knows
that no server has executed: what was never sent, or was refused by a server that is not (or no longer) in charge of
the key; and a read, which may be repeated as one likes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, final

from typing_extensions import override

from durable.backends.redis.link import Answer, Sent, pack
from durable.backends.redis.location import Location
from durable.backends.redis.node import Node
from durable.backends.redis.preflight import SETTINGS, Found, Grade, judge, read_info, read_settings
from durable.backends.redis.replies import REDISCOVER, Failure, Lost, Reply, ReplyError, Word, translate
from durable.backends.redis.topology import Topology
from durable.errors import OutcomeUnknown, StoreUnavailable

__all__ = ["PATIENCE_S", "RedisWire", "Reply", "Script", "Sent", "Wire", "Word"]

logger = logging.getLogger("durable.redis")

PATIENCE_S: Final = 5.0
"""How long a call waits for a server to be there, unless told otherwise, before it raises."""
_SHORTLY_S: Final = 0.02
_LATER: Final = frozenset({"TRYAGAIN", "CLUSTERDOWN"})
_ELSEWHERE: Final = frozenset({"MOVED", "ASK"}) | _LATER
_ASKING: Final = pack(("ASKING",))


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. Its name is for people."""

    name: str
    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


class Wire(Protocol):
    """One logical connection, which any number of tasks share."""

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Word], *, op_id: str | None = None
    ) -> Reply:
        """Run a script where `keys[0]` is; all keys are in the slot of that one.

        `op_id` names a write: the word by which the store knows a repeat of it. None says that the script only
        reads, and may be sent again.

        Raises:
            StoreUnavailable: it was not executed; so also for a script that failed, as all scripts of ours check
                everything before they write.
            StoreFull: it was not executed, because the server is at its limit.
            OutcomeUnknown: it was sent and the connection lost; only with an `op_id`.
        """
        ...

    async def call(self, *command: Word, key: str, op_id: str | None = None) -> Reply:
        """Send a command to where `key` is. Otherwise as `run`."""
        ...

    async def each(self, *command: Word) -> Sequence[Reply]:
        """Send a command that only reads to every master; a reply from each. Raises as `call`."""
        ...


@final
class RedisWire(Wire):
    """A `Wire` over any topology. It takes calls between `open` and `close`."""

    def __init__(self, location: Location, sent: Sent, *, patience_s: float = PATIENCE_S) -> None:
        self._location = location
        self._shown = location.shown
        self._patience_s = patience_s
        self._servers: Topology | None = None
        self._grade: Grade | None = None
        self._judging: asyncio.Task[None] | None = None
        self._lessons: set[tuple[str, Node]] = set()
        """Scripts whose source is under way, and where to."""
        self.sent = sent
        """Grows with each command and each write: a test can count round trips."""

    @property
    def grade(self) -> Grade:
        """What was found when the server was last looked at: by `preflight`, and after each new connection."""
        if self._grade is None:
            raise self._closed()
        return self._grade

    async def open(self, topology: Topology) -> None:
        """Raises: `StoreUnavailable` within seconds."""
        await topology.open()
        self._servers = topology

    async def preflight(self) -> None:
        """Look at what this Redis promises, and say so in the log.

        Raises: `StoreUnavailable` when it is refused by `preflight.judge`.
        """
        self._grade = judge(await self._find_out(), self._location)
        logger.info("%s is %s: %s", self._shown, self._grade.grade, self._grade.summary)

    async def load(self, scripts: Sequence[Script]) -> None:
        """Let every server know these scripts, all in one write to each.

        A call that finds its script unknown is sent again with the source, and what was sent behind it goes first. So
        that happens only after a failover, and where loading is forbidden.

        Raises: `StoreUnavailable` when the connection is lost.
        """
        loading = [pack(("SCRIPT", "LOAD", script.source)) for script in scripts]
        masters = self._topology.masters()
        await asyncio.gather(*(self._ask_master(node, packed) for node in masters for packed in loading))

    async def close(self) -> None:
        """Take no more calls, let those that were sent be answered, disconnect. Called twice: nothing happens."""
        topology, self._servers = self._servers, None
        if self._judging is not None:
            self._judging.cancel()
            await asyncio.wait((self._judging,))
        if topology is not None:
            await topology.close()

    @override
    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Word], *, op_id: str | None = None
    ) -> Reply:
        rest = (len(keys), *keys, *args)
        packed = pack(("EVALSHA", script.sha, *rest))
        answer = await self._ask(packed, keys[0], op_id)
        if _is_unknown(answer):
            answer = await self._teach(script, packed, rest, op_id)
        return self._reply(answer)

    @override
    async def call(self, *command: Word, key: str, op_id: str | None = None) -> Reply:
        return self._reply(await self._ask(pack(command), key, op_id))

    @override
    async def each(self, *command: Word) -> Sequence[Reply]:
        packed = pack(command)
        masters = self._topology.masters()
        answers = await asyncio.gather(*(self._ask_master(node, packed) for node in masters))
        return [self._reply(answer) for answer in answers]

    def look_again(self) -> None:
        """Say so when this Redis promises less than it did: it was restarted, perhaps, or another took over."""
        if self._grade is not None and self._servers is not None and self._judging is None:
            self._judging = asyncio.create_task(self._judge_again(), name="durable.redis.preflight")
            self._judging.add_done_callback(self._judged)

    def _judged(self, _: asyncio.Task[None]) -> None:
        self._judging = None

    async def _judge_again(self) -> None:
        before = self.grade
        try:
            now = judge(await self._find_out(), replace(self._location, allow_ephemeral=True))
        except StoreUnavailable as error:
            logger.warning("what %s promises now is not known: %s", self._shown, error)
            return
        if now.grade < before.grade or (now.is_ephemeral and not before.is_ephemeral):
            notes = " ".join(now.notes)
            logger.warning(
                "%s was %s and is %s: %s. %s", self._shown, before.grade, now.grade, now.summary, notes
            )
        self._grade = now

    async def _find_out(self) -> list[Found]:
        masters = self._topology.masters()
        return list(await asyncio.gather(*(self._find_out_of(node) for node in masters)))

    async def _find_out_of(self, node: Node) -> Found:
        """A server may forbid either question: it is in order without the answer, and graded without it."""
        info, settings = await asyncio.gather(
            self._ask_master(node, pack(("INFO",))),
            self._ask_master(node, pack(("CONFIG", "GET", *SETTINGS))),
        )
        return Found(
            read_info(info) if isinstance(info, bytes) else {},
            read_settings(settings) if isinstance(settings, list) else {},
        )

    async def _ask_master(self, node: Node, packed: bytes) -> Reply | ReplyError:
        link = node.link or await node.wait(self._patience_s)
        if link is None:
            raise self._closed()
        answer = await link.send(packed)
        if isinstance(answer, Lost):
            raise StoreUnavailable(f"the connection to the Redis at {self._shown} is lost: {answer}")
        return answer

    def _reply(self, answer: Reply | ReplyError) -> Reply:
        if isinstance(answer, ReplyError):
            raise translate(answer, self._shown)
        return answer

    async def _ask(self, packed: bytes, key: str, op_id: str | None) -> Reply | ReplyError:
        """The reply; or an error, if waiting or asking somebody else does not help."""
        node = self._topology.node_of(key)
        link = node.link
        answer: Answer = None
        if link is not None:
            answer = await link.send(packed)
            if not isinstance(answer, Failure):
                return answer
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while True:
            stand_in: Node | None = None
            if isinstance(answer, Lost):
                lost = f"the connection to the Redis at {self._shown} is lost: {answer}"
                if answer.sent and op_id is not None:
                    raise OutcomeUnknown(op_id, lost)
                if loop.time() > deadline:  # each connection is lost by this very call, perhaps
                    raise StoreUnavailable(lost)
            if isinstance(answer, ReplyError):
                if answer.code in REDISCOVER and link is not None:
                    node.suspect(link, str(answer))
                    return answer
                if answer.code not in _ELSEWHERE or loop.time() > deadline:
                    return answer
                stand_in = self._topology.redirect(answer, key)
                if answer.code in _LATER:
                    await asyncio.sleep(_SHORTLY_S)
            node = stand_in or self._topology.node_of(key)
            link = node.link or await node.wait(deadline - loop.time())
            if link is None:  # the node left the cluster: another one has its keys
                answer = None
                continue
            if stand_in is not None:
                _ = link.send(_ASKING, counts=0)
            answer = await link.send(packed)
            if not isinstance(answer, Failure):
                return answer

    async def _teach(
        self, script: Script, packed: bytes, rest: tuple[Word, ...], op_id: str | None
    ) -> Reply | ReplyError:
        """Run a script on a server that is new, or was told to forget its scripts.

        Thousands of calls may find this out together: one of them takes the source along, and the others go behind it.
        """
        key = str(rest[1])
        lesson = (script.sha, self._topology.node_of(key))
        if lesson in self._lessons:
            answer = await self._ask(packed, key, op_id)
            if not _is_unknown(answer):
                return answer
        self._lessons.add(lesson)
        try:
            return await self._ask(pack(("EVAL", script.source, *rest)), key, op_id)
        finally:
            self._lessons.discard(lesson)

    @property
    def _topology(self) -> Topology:
        if self._servers is None:
            raise self._closed()
        return self._servers

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"the connection to the Redis at {self._shown} is closed", "open() it first")


def _is_unknown(answer: Reply | ReplyError) -> bool:
    return isinstance(answer, ReplyError) and answer.code == "NOSCRIPT"
