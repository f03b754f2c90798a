"""Ticks: one fire of one schedule, the same wherever it is looked at."""

from __future__ import annotations

from hashlib import sha256

from durable.clock import to_datetime
from durable.duration import Duration, to_ms


def tick_id(schedule_id: str, instant_ms: int) -> str:
    """The id of the execution that a schedule starts at `instant_ms`, so that only one can be created.

    It ends with the instant, to be read: `4f0c6e2b9d1a8c3e7f50:20260329T010000Z`. Up to the `:` it is a function of
    the schedule alone: a store that goes by that part of an id has all ticks of a schedule in one partition.
    """
    # A workflow's name cannot begin with "#", so that no key of a workflow has the same beginning by design.
    root = sha256(f"#schedule\n{schedule_id}".encode()).hexdigest()[:20]
    fraction = f".{instant_ms % 1000:03}" if instant_ms % 1000 else ""
    return f"{root}:{to_datetime(instant_ms):%Y%m%dT%H%M%S}{fraction}Z"


def tick_delay_ms(jitter: Duration, schedule_id: str, instant_ms: int) -> int:
    """How long after its instant a tick begins: from 0 to `jitter`, evenly spread, and always the same for this tick.

    Raises:
        InvalidInput: `jitter` is not a duration.
    """
    bits = int.from_bytes(sha256(f"#jitter\n{schedule_id}\n{instant_ms}".encode()).digest()[:8])
    return bits * (to_ms(jitter, what="jitter") + 1) >> 64
