"""Executions on Redis, for many machines: a server, a master that Sentinels know, or a Redis Cluster.

"redis://host:6379/0"                         one server (and its database number)
"redis://:secret@host/0", "redis://user:secret@host/0"
"redis+cluster://node1:6379,node2:6379"      a Redis Cluster, by any of its nodes; redis:// finds it out by itself
"redis+sentinel://s1:26379,s2:26379/orders"  the master that these Sentinels know as "orders"
"rediss://...", "rediss+cluster://..."       any of them over TLS

Options: `partitions=16` of a new namespace (fixed from then on); `allow_ephemeral=1` to use a Redis that keeps
nothing or evicts; with Sentinel `db=0`, `sentinel_username=`, `sentinel_password=`; with TLS `ssl_ca_certs=`,
`ssl_certfile=`, `ssl_keyfile=` (paths), `ssl_check_hostname=0`, `ssl_cert_reqs=none`.

RedisStore ─ scripts ─▶ RedisWire ─▶ Topology ─▶ Node ─▶ Link      RedisBus ─▶ Node ─▶ Link
                        by key       one server,  keeps  one pipelined
                                     or a cluster a link connection
"""

from __future__ import annotations

from typing import Final

from durable.backends import Backend
from durable.backends.redis.bus import RedisBus
from durable.backends.redis.location import Location
from durable.backends.redis.store import RedisStore
from durable.clock import Clock

__all__ = ["RedisBus", "RedisStore", "backend"]


def open_store(url: str, *, namespace: str, clock: Clock) -> RedisStore:
    return RedisStore(Location.parse(url), namespace)


def open_bus(url: str, *, namespace: str, clock: Clock) -> RedisBus:
    return RedisBus(Location.parse(url), namespace)


backend: Final = Backend(open_store=open_store, open_bus=open_bus)
