"""What every operation of a body shares: where it stands, what is recorded there, and how it records."""

from __future__ import annotations

from typing import Any, NoReturn

from durable.codec import Schema, rebuild
from durable.engine.attempt import Attempt
from durable.engine.branch import Branch, current_branch
from durable.engine.call_site import call_site
from durable.errors import (
    ConfigurationError,
    DurableError,
    ReplayMismatch,
)
from durable.models import ErrorRecord
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Post,
)
from durable.steps import STEP

OPEN, RETRYING = CheckpointStatus.OPEN, CheckpointStatus.RETRYING
COMPLETED, FAILED, CANCELLED = (
    CheckpointStatus.COMPLETED,
    CheckpointStatus.FAILED,
    CheckpointStatus.CANCELLED,
)


class Operations:
    """The operations of one attempt's body: each is a key, a look at the history, and a record.

    The key is allocated at the call, in the caller's branch. If the history has a final record under it, the
    operation gives what is recorded. If it has an open one, it takes up waiting where it was. Otherwise it is live.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.driver = attempt
        self.journal = attempt.journal
        self.clock = attempt.host.clock

    @property
    def execution_id(self) -> str:
        return self.driver.row.id

    @property
    def workflow_name(self) -> str:
        return self.driver.row.workflow

    def here(self) -> Branch:
        branch = current_branch()
        if STEP.get(None) is not None:
            raise ConfigurationError(
                f"ctx was used inside a step of workflow {self.workflow_name}",
                "a step is one unit: call the function itself, or move the call into the workflow's body",
            )
        if branch is None or branch.owner is not self.driver:
            raise ConfigurationError(
                f"ctx of execution {self.execution_id} was used outside its workflow's body",
                "use ctx only in the body it was given to, and in tasks that this body starts",
            )
        return branch

    async def found(self, key: str, kind: str, name: str, *, in_turn: bool = True) -> Checkpoint | None:
        """What is recorded under a key. A final record is given back in its turn, unless the caller sees to that."""
        if not self.driver.live:
            await self.driver.refuse()
        found = self.journal.history.get(key)
        if (onlooker := self.driver.host.onlooker) is not None:
            onlooker.asked(key, kind, name, found)
        if found is None:
            return None
        if found.kind != kind or found.name != name:
            await self.mismatch(key, found.kind, found.name, kind, name)
        if found.status.final and found.status is not CANCELLED and kind != "rollback":
            if in_turn:
                await self.driver.in_turn(found)
        else:
            self.driver.visit(key)
        return found

    async def mismatch(
        self, key: str, recorded_kind: str, recorded_name: str, asked_kind: str, asked_name: str
    ) -> NoReturn:
        where = call_site(self.driver.workflow)
        await self.driver.needs_repair(
            ReplayMismatch(
                self.execution_id, key, recorded_kind, recorded_name, asked_kind, asked_name, where
            )
        )

    def failure(self, record: ErrorRecord) -> Exception:
        """The exception that a failed step or child raises in the body."""
        error = rebuild(record)
        if record.step_id is not None:
            self.driver.failures.append((error, record.step_id))
        return error

    async def loaded(self, schema: Schema[Any], done: Checkpoint) -> object:
        try:
            return schema.load(done.data)
        except DurableError:
            pass
        try:
            return schema.load(done.data, f"the recorded result of {done.kind} {done.step_id!r}")
        except DurableError as error:
            await self.driver.needs_repair(error)

    def record(
        self,
        branch: Branch,
        key: str,
        kind: str,
        name: str,
        status: CheckpointStatus,
        data: bytes,
        *,
        started: int | None = None,
        wake_at: int | None = None,
    ) -> Checkpoint:
        now = self.clock.now_ms()
        finished = now if status.final else None
        if finished is not None:
            branch.saw(finished)
        started = now if started is None else started
        return self.journal.record(
            key, kind, name, status, data, started_at=started, finished_at=finished, wake_at=wake_at
        )

    async def once(
        self,
        branch: Branch,
        key: str,
        kind: str,
        name: str,
        out: Post | None,
        data: bytes,
    ) -> None:
        done = await self.found(key, kind, name)
        if done is None:
            await self.driver.hold()
            if out is not None:
                self.journal.send(out)
            if kind == "value":
                self.journal.set_value(name, data)
            done = self.record(branch, key, kind, name, COMPLETED, data)
        branch.saw(done.finished_at or 0)
