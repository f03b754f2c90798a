"""Doorbells over RabbitMQ, for workers on many machines. It holds no state: the broker may lose all it has.

"amqp://user:secret@host:5672/vhost"      options are aio-pika's, `heartbeat=15` unless given, and ours:
"amqps://..."                             over TLS, with the certificate checked
    declare=passive    check that exchanges and queues exist, and create none
    required=0         open also while the broker cannot be reached

ring ──▶ desk of this process ─────────────────────────────────────────▶ receive
  └────▶ Publisher ─ letters of many doorbells ─▶ broker ─▶ Consumer ─▶ desk

ns:work ─ direct, by queue and band ─▶ ns:q:<queue>:p2, :p1, :p0     greater priority, none, less
                                          └─ dead letters ─▶ ns:dlx ─▶ ns:dead
"""

from __future__ import annotations

from typing import Final

from durable.backends import Backend
from durable.backends.rabbitmq.location import Location
from durable.backends.rabbitmq.queue import RabbitQueue
from durable.clock import Clock

__all__ = ["RabbitQueue", "backend"]


def open_queue(url: str, *, namespace: str, clock: Clock) -> RabbitQueue:
    return RabbitQueue(Location.parse(url), namespace)


backend: Final = Backend(open_queue=open_queue)
