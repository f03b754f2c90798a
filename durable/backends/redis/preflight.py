"""What a Redis promises, judged by what it says of itself; and which Redis is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from durable.backends.redis.location import Location
from durable.backends.redis.replies import Reply
from durable.errors import StoreUnavailable

OLDEST_REDIS: Final = (7, 0)

SETTINGS: Final = ("appendfsync", "min-replicas-to-write")
"""What only CONFIG GET tells."""

_DISK: Final = "set appendonly yes on the server (CONFIG SET appendonly yes, and in redis.conf)"
_EPHEMERAL: Final = "or add ?allow_ephemeral=1 to the URL, where nothing of value can be lost"


@dataclass(frozen=True, slots=True)
class Found:
    """What one server says; an empty mapping where it may not be asked."""

    info: Mapping[str, str]
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Grade:
    """What is promised: the durability grade, and what an operator should know, a sentence each."""

    grade: str
    """D0 lost with the server's process; D1 may go back seconds when the server or its host dies; D2 survives power
    loss; `+HA`: survives the loss of a node."""
    notes: tuple[str, ...]
    summary: str
    """What was found, in one line."""
    is_ephemeral: bool
    """A restart of the server, or an eviction, loses executions."""


def read_info(reply: bytes) -> dict[str, str]:
    """The fields of a reply to INFO."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def read_settings(reply: Sequence[Reply]) -> dict[str, str]:
    """The names and values of a reply to CONFIG GET."""
    words = [word.decode(errors="replace") for word in reply if isinstance(word, bytes)]
    return dict(zip(words[::2], words[1::2], strict=False))


def judge(servers: Sequence[Found], location: Location) -> Grade:
    """The grade of the weakest of them.

    Raises: `StoreUnavailable` when one of them is too old, or evicts, or keeps nothing, and the URL does not allow it.
    """
    for found in servers:
        _check_version(found, location)
    evicting = sorted({policy for found in servers if (policy := _policy(found)).startswith("allkeys-")})
    if evicting and not location.allow_ephemeral:
        raise StoreUnavailable(
            f"the Redis at {location.shown} evicts executions when it is full: maxmemory-policy is {evicting[0]}",
            f"set maxmemory-policy noeviction; {_EPHEMERAL}",
        )
    grades = [_disk_grade(found) for found in servers]
    grade = min(grades)
    if grade == "D0" and not location.allow_ephemeral and all("aof_enabled" in each.info for each in servers):
        raise StoreUnavailable(
            f"the Redis at {location.shown} keeps nothing that a restart would not lose: appendonly is no",
            f"{_DISK}; {_EPHEMERAL}",
        )
    has_failover = location.master is not None or _mode(servers[0]) == "cluster"
    has_replicas = all(_number(found, "connected_slaves") > 0 for found in servers)
    if has_failover and has_replicas and grade != "D0":
        # A failover may undo what the disk of the old master still has: no better than D1, whatever its fsync.
        grade = "D1+HA"
    return Grade(
        grade=grade,
        notes=tuple(_notes(servers, grade, evicting, has_failover=has_failover, has_replicas=has_replicas)),
        summary=_summary(servers),
        is_ephemeral=grade == "D0" or bool(evicting),
    )


def _check_version(found: Found, location: Location) -> None:
    version = found.info.get("redis_version")
    if version is None:
        return
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < OLDEST_REDIS:
        raise StoreUnavailable(
            f"the Redis at {location.shown} is version {version}, which is too old",
            "use Redis 7.0 or newer, or any Valkey",
        )


def _policy(found: Found) -> str:
    return found.info.get("maxmemory_policy", "")


def _mode(found: Found) -> str:
    """ "standalone", "cluster" or "sentinel"; "" when it does not say."""
    return found.info.get("redis_mode") or found.info.get("server_mode", "")  # the second of Valkey


def _number(found: Found, name: str) -> int:
    text = found.info.get(name, "0")
    return int(text) if text.isdecimal() else 0


def _disk_grade(found: Found) -> str:
    if found.info.get("aof_enabled") != "1":
        return "D0"
    return "D2" if found.settings.get("appendfsync") == "always" else "D1"


def _notes(
    servers: Sequence[Found], grade: str, evicting: Sequence[str], *, has_failover: bool, has_replicas: bool
) -> list[str]:
    notes: list[str] = []
    fsyncs = {found.settings.get("appendfsync") for found in servers if found.info.get("aof_enabled") == "1"}
    if any("aof_enabled" not in found.info for found in servers):
        notes.append("Whether this Redis keeps anything is not known: its user may not use INFO.")
    elif grade == "D0":
        notes.append(f"Everything is lost when the server restarts; {_DISK}.")
    if "everysec" in fsyncs:
        # While it syncs, a server puts off writing what it has already acknowledged.
        notes.append(
            "May go back up to about two seconds if Redis is killed or its host dies; see appendfsync."
        )
    if "no" in fsyncs:
        notes.append(
            "May go back half a minute if the Redis host dies: appendfsync is no; everysec is the usual."
        )
    if None in fsyncs:
        notes.append("How often the append-only file is synced is not known: CONFIG GET is forbidden here.")
    if evicting:
        notes.append(f"Executions are evicted when memory runs out: maxmemory-policy is {evicting[0]}.")
    if any(_policy(found).startswith("volatile-") for found in servers):
        notes.append(
            "maxmemory-policy is volatile-*: nothing of durable's is evicted, as none of it has an expiry."
        )
    if any("maxmemory" in found.info and not _number(found, "maxmemory") for found in servers):
        notes.append("maxmemory is not set: when the host runs out of memory the system kills the server.")
    if has_failover and has_replicas:
        notes.append(
            "A failover may undo the last acknowledged operations. Steps may repeat; an acknowledged start or signal "
            "of that moment can be lost. min-replicas-to-write narrows the window and does not close it."
        )
    elif has_failover:
        notes.append(
            "Some master has no replica at the moment, so that no other server could take over from it."
        )
    return notes


def _summary(servers: Sequence[Found]) -> str:
    first = servers[0]
    name = "Valkey" if first.info.get("server_name") == "valkey" else "Redis"
    version = first.info.get("valkey_version") or first.info.get("redis_version") or "of unknown version"
    aof = {"1": "on", "0": "off"}.get(first.info.get("aof_enabled", ""), "not known")
    fsync = first.settings.get("appendfsync")
    return ", ".join(
        (
            f"{name} {version} ({_mode(first) or 'mode not known'})",
            f"{len(servers)} masters" if len(servers) > 1 else f"role {first.info.get('role', 'not known')}",
            f"AOF {aof}" + (f" (fsync {fsync})" if aof == "on" and fsync else ""),
            f"maxmemory-policy {_policy(first) or 'not known'}",
            f"replicas {min(_number(found, 'connected_slaves') for found in servers)}",
        )
    )
