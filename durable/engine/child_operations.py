"""Other executions: children that are started, and whatever a body does through a handle."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine
from typing import Any, NoReturn

from pydantic_core import to_json

from durable.codec import Schema, load_error
from durable.engine.branch import Branch
from durable.engine.frames import (
    TIMEOUT_FRAME,
    Child,
)
from durable.engine.operations import COMPLETED, FAILED
from durable.engine.options import new_execution
from durable.engine.telling import started_within
from durable.engine.transitions import cancel_data
from durable.engine.wait_operations import WaitOperations
from durable.errors import (
    ConfigurationError,
    DurableError,
    InvalidInput,
)
from durable.handle import Handle
from durable.models import Execution
from durable.names import check_actor
from durable.protocols import (
    Checkpoint,
    Message,
    MessageKind,
    NewExecution,
    Outcome,
    Post,
    Reach,
    Start,
    Watch,
)
from durable.signals import Completed, Signal, TimedOut
from durable.workflow import AnyWorkflow

_LONGEST_ID = 200


class ChildOperations(WaitOperations):
    """`ctx.start`, `ctx.run`, `ctx.wait_for`, and `durable.handle.Remote` for the handles that a body holds."""

    def start(
        self, workflow: AnyWorkflow, input: object, *, id: str | None, detached: bool
    ) -> Coroutine[Any, Any, Handle[Any]]:
        branch = self.here()
        return self._start(branch, branch.key(id or workflow.name), workflow, input, detached)

    async def _start(
        self, branch: Branch, key: str, workflow: AnyWorkflow, input: object, detached: bool
    ) -> Handle[Any]:
        done = await self.found(key, "start", workflow.name)
        created = done is None
        if done is None:
            child = self._new_child(key, workflow, input)
            await self.driver.hold()
            data = (await self._begin_child(child, detached)).pack()
            done = self.record(branch, key, "start", workflow.name, COMPLETED, data)
        branch.saw(done.finished_at or 0)
        return Handle(self, Child.unpack(done.data).id, workflow, created=created)

    def run(self, workflow: AnyWorkflow, input: object, *, id: str | None) -> Coroutine[Any, Any, Any]:
        branch = self.here()
        return self._run(branch, branch.key(id or workflow.name), workflow, input)

    async def _run(self, branch: Branch, key: str, workflow: AnyWorkflow, input: object) -> Any:
        done = await self.found(key, "child", workflow.name)
        if done is None:
            spec = self._new_child(key, workflow, input)
            await self.driver.hold()
            child = await self._begin_child(spec, detached=False)
            done = await self.begin_wait(branch, key, "child", workflow.name, data=child.pack())
            self.journal.send(Watch(child.id, self.journal.watcher(key)))
        if not done.status.final:
            done = await self.until(key, done, ((MessageKind.CHILD, self.journal.watcher(key)),))
        await self.seen(branch, done)
        return await self._child_result(workflow, done)

    def wait_for(
        self, handle: Handle[Any], *, timeout_ms: int | None
    ) -> Coroutine[Any, Any, Completed[Any] | TimedOut]:
        branch = self.here()
        if handle.id == self.execution_id:
            raise InvalidInput(
                f"execution {handle.id} was asked to wait for itself", "wait for another execution's handle"
            )
        return self._wait_for(branch, branch.key("wait_for"), handle, timeout_ms)

    async def _wait_for(
        self, branch: Branch, key: str, handle: Handle[Any], timeout_ms: int | None
    ) -> Completed[Any] | TimedOut:
        done = await self.found(key, "wait_for", handle.id)
        if done is None or not done.status.final:
            fresh = done is None
            done = await self.begin_wait(branch, key, "wait_for", handle.id, timeout_ms, found=done)
            if fresh:
                self.journal.send(Watch(handle.id, self.journal.watcher(key)))
            done = await self.until(key, done, ((MessageKind.CHILD, self.journal.watcher(key)),))
        await self.seen(branch, done)
        if done.data == TIMEOUT_FRAME:
            return TimedOut()
        return Completed(await self._child_result(handle.workflow, done))

    async def _child_result(self, workflow: AnyWorkflow | None, done: Checkpoint) -> Any:
        if done.status is FAILED:
            raise self.failure(load_error(done.data))
        outcome = Outcome.unpack(done.data)
        if workflow is not None and outcome.workflow != workflow.name:
            raise InvalidInput(
                f"the handle says {workflow.name}, but the execution is one of {outcome.workflow}",
                "make the handle with the workflow that the execution runs",
            )
        schema: Schema[Any] = workflow.output_schema if workflow is not None else Schema.of(object)
        try:
            return schema.load(outcome.data)
        except DurableError as error:
            await self.driver.needs_repair(error)

    def _new_child(self, key: str, workflow: AnyWorkflow, input: object) -> NewExecution:
        row = self.driver.row
        what = f"the input of workflow {workflow.name}"
        value = workflow.input_schema.validate(input, what)
        data = workflow.input_schema.dump(value, what)
        # A function of the parent and the step, so that it is one child however often this is replayed; another one
        # when the parent tries again what failed, or has continued as new.
        again = "" if row.attempt == 1 and row.generation == 0 else f":{row.generation}.{row.attempt}"
        child_id = f"{row.id}/{key}{again}"
        if len(child_id) > _LONGEST_ID:
            child_id = hashlib.sha256(child_id.encode()).hexdigest()[:40]
        if workflow.flow.joins:
            child_id = hashlib.sha256(child_id.encode()).hexdigest()
        return new_execution(child_id, workflow, value, data, parent_id=row.id)

    async def _begin_child(self, spec: NewExecution, detached: bool) -> Child:
        """Start it with the next commit. One that joins a group is started now: whom it joins is not known before, and
        that one is not this parent's alone."""
        if spec.join is None:
            self.journal.send(Start(started_within(spec, self.driver.host.telemetry)))
            return Child(spec.id, detached)
        await self.driver.barrier()
        spec = started_within(spec, self.driver.host.telemetry)
        return Child((await self.driver.start_now(spec)).id, detached=True)

    def handle(self, execution_id: str, workflow: AnyWorkflow | None) -> Handle[Any]:
        return Handle(self, execution_id, workflow)

    async def result(self, execution_id: str, workflow: AnyWorkflow | None, *, timeout_ms: int | None) -> Any:
        handle: Handle[Any] = Handle(self, execution_id, workflow)
        match await self.wait_for(handle, timeout_ms=timeout_ms):
            case Completed(value):
                return value
            case timed_out:
                return timed_out

    def signal(
        self,
        execution_id: str,
        signal: Signal[Any],
        payload: object,
        *,
        key: str | None,
        connection: object = None,
    ) -> Coroutine[Any, Any, None]:
        if connection is not None:
            raise ConfigurationError(
                f"a body of workflow {self.workflow_name} sends a signal with a connection",
                "leave it out: what a body sends is stored with its checkpoints",
            )
        what = f"the payload of signal {signal.name}"
        data = signal.schema.dump(signal.schema.validate(payload, what), what)
        branch = self.here()
        here = branch.key(f"signal:{signal.name}")
        sender = f"{self.execution_id}:{self.driver.row.generation}:{here}"
        message_id = f"signal:{signal.name}:{key}" if key is not None else f"sent:{sender}"
        message = Message(message_id, MessageKind.SIGNAL, signal.name, data)
        return self.once(branch, here, "signal", execution_id, Post(execution_id, message), data)

    def cancel(self, execution_id: str, reason: str, *, by: str = "") -> Coroutine[Any, Any, None]:
        branch = self.here()
        here = branch.key("cancel")
        message = Message(
            f"cancel:{self.execution_id}:{here}",
            MessageKind.CANCEL,
            "cancel",
            cancel_data(reason, check_actor(by)),
            Reach.BLOCKED,
        )
        return self.once(branch, here, "cancel", execution_id, Post(execution_id, message), to_json(reason))

    async def status(self, execution_id: str) -> Execution:
        self._not_in_a_body("status")

    async def value(self, execution_id: str, name: str) -> object:
        self._not_in_a_body("value")

    def _not_in_a_body(self, what: str) -> NoReturn:
        raise ConfigurationError(
            f"handle.{what}() was called in the body of workflow {self.workflow_name}",
            "what it gives would differ on a replay: read it in a step, over a client of your own",
        )
