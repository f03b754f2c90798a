"""What a worker says of itself with each beat of its lease, for people and for the dashboard. Nothing decides by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from durable.clock import to_datetime
from durable.models import CurrentWork, WorkerRecord
from durable.protocols import ExecutionRow, WorkerInfo

MOST_WORK: Final = 10
"""Executions that a worker names: every worker reads what all of them say, with each sweep."""


@dataclass(frozen=True, slots=True)
class Work:
    """An execution that a worker runs. `since` is in milliseconds on the store's clock."""

    execution_id: str
    workflow: str
    step_id: str = ""
    since: int = 0


@dataclass(frozen=True, slots=True)
class Presence:
    """What one worker says. The fields that an older or newer version leaves out have their defaults."""

    version: str = ""
    host: str = ""
    pid: int = 0
    queues: Sequence[str] = ()
    workflows: Sequence[str] = ()
    """As `name@version`."""
    slots: int = 0
    busy: int = 0
    draining: bool = False
    started_at: int | None = None
    lease_ms: int = 0
    work: Sequence[Work] = ()
    """The longest first, `MOST_WORK` of them."""

    def takes(self, row: ExecutionRow) -> bool:
        """Whether it serves the queue and the workflow of this execution, and is not about to leave."""
        serves = row.queue in self.queues and f"{row.workflow}@{row.version}" in self.workflows
        return serves and not self.draining

    def pack(self) -> bytes:
        return to_json(self)

    @classmethod
    def unpack(cls, packed: bytes) -> Presence:
        """What was packed; nothing at all of what says it otherwise."""
        try:
            return _PRESENCE.validate_json(packed or b"{}")
        except ValidationError:
            return cls()


_PRESENCE: Final = TypeAdapter(Presence)


def worker_record(info: WorkerInfo, now: int) -> WorkerRecord:
    """What users see of a worker whose lease held at `now`."""
    said = Presence.unpack(info.info)
    beat_at = min(info.until - said.lease_ms, now) if said.lease_ms else now
    return WorkerRecord(
        id=info.id,
        version=said.version,
        host=said.host,
        pid=said.pid,
        queues=said.queues,
        workflows=said.workflows,
        slots=said.slots,
        busy=said.busy,
        draining=said.draining,
        started_at=None if said.started_at is None else to_datetime(said.started_at),
        beat_at=to_datetime(beat_at),
        until=to_datetime(info.until),
        work=[
            CurrentWork(each.execution_id, each.workflow, each.step_id, to_datetime(each.since))
            for each in said.work
        ],
    )


def drain_mark(worker_id: str) -> str:
    """What stands among the names of paused queues while this worker is asked to drain; no queue can be called so.

    Workers read those names with each sweep anyway, so that the asking costs none of them a read of its own.
    """
    return f"__drain:{worker_id}"


def is_mark(name: str) -> bool:
    """Whether what is paused is no queue but a worker."""
    return name.startswith("__drain:")
