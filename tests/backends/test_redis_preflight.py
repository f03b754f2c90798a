"""Which promise a Redis is graded with, and which Redis is refused."""

from __future__ import annotations

import pytest

from durable.backends.redis.location import Location
from durable.backends.redis.preflight import Found, Grade, judge, read_info, read_settings
from durable.errors import StoreUnavailable

KEEPS = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "role": "master",
    "aof_enabled": "1",
    "maxmemory": "1000000",
    "maxmemory_policy": "noeviction",
    "connected_slaves": "0",
}
EVERYSEC = {"appendfsync": "everysec"}


def found(settings: dict[str, str] | None = None, **info: str) -> Found:
    return Found(KEEPS | info, EVERYSEC if settings is None else settings)


def grade(*servers: Found, url: str = "redis://h") -> Grade:
    return judge(servers, Location.parse(url))


@pytest.mark.parametrize(
    ("servers", "url", "expected"),
    [
        ([found()], "redis://h", "D1"),
        ([found({"appendfsync": "always"})], "redis://h", "D2"),
        ([found({"appendfsync": "no"})], "redis://h", "D1"),
        ([found({})], "redis://h", "D1"),
        ([found(connected_slaves="2")], "redis://h", "D1"),
        ([found(connected_slaves="2")], "redis://s/orders", "D1+HA"),
        ([found({"appendfsync": "always"}, connected_slaves="1")], "redis://s/orders", "D1+HA"),
        ([found()], "redis://s/orders", "D1"),
        ([found(redis_mode="cluster", connected_slaves="1")] * 3, "redis://h", "D1+HA"),
        ([found(redis_mode="cluster", connected_slaves=n) for n in "110"], "redis://h", "D1"),
        ([found({"appendfsync": "always"}), found()], "redis://h", "D1"),
        ([found(aof_enabled="0")], "redis://h?allow_ephemeral=1", "D0"),
        ([found(), found(aof_enabled="0")], "redis://h?allow_ephemeral=1", "D0"),
        ([Found({}, {})], "redis://h", "D0"),
    ],
)
def test_the_weakest_server_and_the_failover_decide(servers: list[Found], url: str, expected: str) -> None:
    assert grade(*servers, url=url).grade == expected


@pytest.mark.parametrize(
    ("servers", "name", "remedy"),
    [
        ([found(aof_enabled="0")], "appendonly is no", "appendonly yes"),
        ([found(), found(aof_enabled="0")], "appendonly is no", "allow_ephemeral=1"),
        ([found(maxmemory_policy="allkeys-lru")], "maxmemory-policy is allkeys-lru", "noeviction"),
        ([found(redis_version="6.2.14")], "version 6.2.14", "7.0"),
    ],
)
def test_what_would_lose_executions_is_refused_by_name(servers: list[Found], name: str, remedy: str) -> None:
    with pytest.raises(StoreUnavailable, match=name) as refused:
        grade(*servers, url="redis://:canary@h")
    assert remedy in refused.value.hint
    assert "canary" not in str(refused.value)


def test_a_cluster_of_valkey_has_failovers_too() -> None:
    servers = [found(server_mode="cluster", connected_slaves="1") for _ in range(3)]
    for server in servers:
        del server.info["redis_mode"]
    assert grade(*servers).grade == "D1+HA"


def test_what_was_allowed_is_still_told() -> None:
    given = grade(found(aof_enabled="0", maxmemory_policy="allkeys-lfu"), url="redis://h?allow_ephemeral=1")
    assert given.is_ephemeral
    assert any("lost when the server restarts" in note for note in given.notes)
    assert any("allkeys-lfu" in note for note in given.notes)


@pytest.mark.parametrize(
    ("server", "part"),
    [
        (found(), "two seconds"),
        (found({"appendfsync": "no"}), "appendfsync is no"),
        (found({}), "CONFIG GET is forbidden"),
        (Found({}, {}), "may not use INFO"),
        (found(maxmemory="0"), "maxmemory is not set"),
        (found(maxmemory_policy="volatile-lru"), "none of it has an expiry"),
    ],
)
def test_what_an_operator_should_know_is_noted(server: Found, part: str) -> None:
    assert any(part in note for note in grade(server).notes)


def test_a_failover_is_described_only_where_there_can_be_one() -> None:
    notes = grade(found(connected_slaves="1"), url="redis://s/orders").notes
    assert any("failover may undo" in note for note in notes)
    assert not any("failover" in note for note in grade(found(connected_slaves="1")).notes)
    assert any("no replica" in note for note in grade(found(), url="redis://s/orders").notes)


def test_what_was_found_is_one_line() -> None:
    summary = grade(found(), found()).summary
    assert summary == (
        "Redis 7.0.15 (standalone), 2 masters, AOF on (fsync everysec), maxmemory-policy noeviction, replicas 0"
    )
    valkey = found(
        server_name="valkey", valkey_version="8.1.0", redis_version="7.2.4", server_mode="standalone"
    )
    del valkey.info["redis_mode"]
    assert grade(valkey).summary.startswith("Valkey 8.1.0 (standalone), ")
    assert "AOF not known" in grade(Found({}, {})).summary


def test_replies_are_read_whatever_they_hold() -> None:
    assert read_info(b"# Server\r\nredis_version:7.0.15\r\nos:Linux: 5\r\n\r\n\xff\xfe") == {
        "redis_version": "7.0.15",
        "os": "Linux: 5",
    }
    assert read_settings([b"appendfsync", b"always", b"odd"]) == {"appendfsync": "always"}
