"""What a Redis server answers, and what its errors mean to us."""

from __future__ import annotations

from typing import Final, TypeAlias, final

from durable.errors import DurableError, StoreFull, StoreUnavailable

Reply: TypeAlias = "bytes | int | list[Reply] | None"
"""A reply in RESP 2, undecoded."""

Word: TypeAlias = bytes | str | int
"""One argument of a command."""

REDISCOVER: Final = frozenset({"READONLY", "MASTERDOWN", "LOADING"})
"""Codes of a server that is not, or not yet, the master it was taken for. The command was not executed."""

_HINTS: Final = {
    "NOAUTH": "put the password into the URL: redis://:password@host or redis://user:password@host",
    "WRONGPASS": "correct the user name and the password in the URL",
    "NOPERM": "give this user the commands it lacks, and the keys and channels of this namespace (ACL SETUSER)",
    "READONLY": "this server is a replica: name the master, or the Sentinels that know it",
    "LOADING": "the server is reading its data from disk; wait until it has done so",
    "MASTERDOWN": "this server is a replica that has lost its master: name the master",
    "CLUSTERDOWN": "look at CLUSTER INFO: some slots have no master at the moment",
    "TRYAGAIN": "a slot is being moved between nodes; the call may be repeated",
    "BUSY": "a script of somebody else blocks the server; see SLOWLOG, and SCRIPT KILL",
    "MISCONF": "the server cannot write to its disk and refuses to go on; see its log",
    "NOREPLICAS": "min-replicas-to-write is not met; look at the replicas",
    "CROSSSLOT": "this server is a node of a Redis Cluster; name it in the URL without a database number",
    "DENIED": "the server runs in protected mode; give it a password, and allow this host to connect",
}
_ROOM: Final = "give Redis more memory (maxmemory), or prune executions that have ended"


class Failure(Exception):
    """What came instead of a reply. It is handed on as an answer is, and raised by nobody."""


@final
class ReplyError(Failure):
    """An error that the server answered. What it refused, it did not execute."""

    def __init__(self, line: str) -> None:
        self.code, _, rest = line.partition(" ")
        # The server repeats the arguments of a command that it does not know: they may hold a payload.
        self.text = rest.partition(", with args")[0]
        super().__init__(f"{self.code} {self.text}")


@final
class Lost(Failure):
    """The connection was lost before the reply came."""

    def __init__(self, *, sent: bool, reason: str) -> None:
        self.sent = sent
        """It may have reached the server, and may have been executed."""
        self.reason = reason
        super().__init__(reason)


def translate(error: ReplyError, shown: str) -> DurableError:
    """`error` of the server at the redacted URL `shown`, as one of ours."""
    if error.code == "OOM":
        return StoreFull(f"the Redis at {shown} has reached its maxmemory", _ROOM)
    if error.code == "MISCONF" and "No space left" in error.text:
        return StoreFull(
            f"the disk of the Redis at {shown} is full", "make room on it, or give it a larger one"
        )
    return StoreUnavailable(f"the Redis at {shown} refuses: {error}", _HINTS.get(error.code))
