"""The runtime behind `Context`: its operations, and what else a body may ask."""

from __future__ import annotations

import hashlib
import inspect
import logging
import random as random_module
from collections.abc import Callable, Coroutine, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, NoReturn, final
from uuid import UUID

from typing_extensions import override

from durable.clock import to_datetime
from durable.codec import Schema
from durable.context import Context
from durable.engine.attempt import Attempt
from durable.engine.body import Bail, Body, ContinueAsNew
from durable.engine.branch import Branch
from durable.engine.child_operations import ChildOperations
from durable.engine.event_operations import EventOperations
from durable.engine.frames import (
    Choice,
)
from durable.engine.operations import COMPLETED, OPEN
from durable.engine.options import causes
from durable.engine.reruns import seed_of
from durable.engine.sagas import Saga
from durable.engine.step_operations import StepOperations
from durable.errors import (
    DurableError,
    NoMatchingBranch,
)
from durable.flow_control import merged
from durable.models import Cause

_log = logging.getLogger("durable.workflow")


def new_body(attempt: Attempt) -> Body:
    """The body of an attempt: its workflow's function, with a context and the input."""
    runtime = BodyRuntime(attempt)

    async def call() -> object:
        workflow = attempt.workflow
        context: Context[object] = Context(runtime)
        if not workflow.takes_input:
            return await workflow.fn(context)
        try:
            value = workflow.input_schema.load(merged(attempt.row.input))
        except DurableError as error:
            await attempt.needs_repair(error)
        return await workflow.fn(context, value)

    return Body(attempt, call)


@final
class BodyRuntime(StepOperations, ChildOperations, EventOperations):
    """Implements `durable.runtime.Runtime`."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(attempt)
        self._logger = _BodyLogger(_log, {"execution": attempt.row.id, "workflow": attempt.row.workflow})
        self._logger.attempt = attempt
        self._randoms: dict[str, random_module.Random] = {}
        self._uuids: dict[str, int] = {}
        self._root = seed_of(attempt.row)

    # ---- who it is

    @property
    def version(self) -> str:
        return self.driver.row.version

    @property
    def attempt(self) -> int:
        return self.driver.row.attempt

    @property
    def tags(self) -> Mapping[str, str]:
        return self.driver.row.tags

    @property
    def events(self) -> Sequence[Cause]:
        return causes(self.driver.row.cause)

    @property
    def deps(self) -> object:
        return self.driver.host.deps

    @property
    def is_replaying(self) -> bool:
        return self.driver.replaying or self.driver.host.onlooker is not None

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        return self._logger

    # ---- what would differ on every replay

    @property
    def random(self) -> random_module.Random:
        path = self.here().path
        if path not in self._randoms:
            self._randoms[path] = random_module.Random(self._seed(path, "random"))
        return self._randoms[path]

    def now(self) -> datetime:
        return to_datetime(self.here().time)

    def uuid4(self) -> UUID:
        path = self.here().path
        number = self._uuids[path] = self._uuids.get(path, 0) + 1
        return UUID(bytes=self._seed(path, f"uuid:{number}")[:16], version=4)

    def _seed(self, path: str, what: str) -> bytes:
        return hashlib.sha256(f"{self._root}\n{path}\n{what}".encode()).digest()

    # ---- a choice

    def switch(
        self,
        id: str,
        value: object,
        choose: Callable[[], str | None],
        branches: Mapping[str, Callable[[], object]],
        default: Callable[[], object] | None,
    ) -> Coroutine[Any, Any, Any]:
        branch = self.here()
        return self._switch(branch, branch.key(id), value, choose, branches, default)

    async def _switch(
        self,
        branch: Branch,
        key: str,
        value: object,
        choose: Callable[[], str | None],
        branches: Mapping[str, Callable[[], object]],
        default: Callable[[], object] | None,
    ) -> Any:
        found = await self.found(key, "switch", "", in_turn=False)
        if found is None:
            chosen = choose()
            if chosen is None and default is None:
                raise NoMatchingBranch(key, repr(value), list(branches))
            await self.driver.begin_nothing_if_watched()
            found = self.record(branch, key, "switch", "", OPEN, Choice(chosen).pack())
        choice = Choice.unpack(found.data)
        fn = default if choice.branch is None else branches.get(choice.branch)
        if fn is None:
            await self.mismatch(
                key, "switch", f"branch {choice.branch}", "switch", f"no branch {choice.branch}"
            )
        schema = Schema.returned_by(fn)
        given: object = None
        before = self._used_so_far()
        if choice.result is None or choice.used_ctx:
            given = fn()
            if inspect.isawaitable(given):
                given = await given
        if choice.result is not None:
            await self.driver.in_turn(found)
            branch.saw(found.finished_at or 0)
            return schema.load(choice.result)
        try:
            data, given = schema.roundtrip(given, f"the result of switch {key!r}")
        except DurableError as error:
            await self.driver.needs_repair(error)
        choice = Choice(choice.branch, data, used_ctx=self._used_so_far() != before)
        self.record(branch, key, "switch", "", COMPLETED, choice.pack(), started=found.started_at)
        return given

    def _used_so_far(self) -> object:
        """Something that differs once the body has used another name, task, id or random number here."""
        here = self.here()
        random = self._randoms.get(here.path)
        return here.calls, self._uuids.get(here.path), random and random.getstate()

    # ---- things that are done once

    def note(self, text: str, details: Mapping[str, object]) -> Coroutine[Any, Any, None]:
        branch = self.here()
        schema: Schema[object] = Schema.of(object)
        data = schema.dump({"text": text, "details": dict(details)}, "the note")
        return self.once(branch, branch.key("note"), "note", "", None, data)

    def set_value(self, name: str, value: object) -> Coroutine[Any, Any, None]:
        branch = self.here()
        schema: Schema[object] = Schema.of(object)
        data = schema.dump(value, f"the value {name!r}")
        return self.once(branch, branch.key(f"value:{name}"), "value", name, None, data)

    def patched(self, change: str) -> bool:
        # The first answer holds for the life of the execution, so a "no" is recorded too.
        key = f"patched:{change}"
        found = self.journal.history.get(key)
        if (onlooker := self.driver.host.onlooker) is not None:
            onlooker.asked(key, "patched", change, found)
        if found is None and self.driver.live:
            answer = b"false" if self.driver.replaying else b"true"
            found = self.record(self.here(), key, "patched", change, COMPLETED, answer)
        self.driver.visit(key)
        return found is not None and found.data == b"true"

    # ---- undoing, and ending

    async def rollback(self) -> None:
        self.here()
        await self.driver.compensations.run_all()

    def saga(self) -> AbstractAsyncContextManager[None, None]:
        self.here()
        return Saga(self.driver)

    def continue_as_new(self, input: object) -> NoReturn:
        schema = self.driver.workflow.input_schema
        what = "the input of the next in the chain"
        raise ContinueAsNew(schema.dump(schema.validate(input, what), what))

    def bail(self, reason: str) -> NoReturn:
        raise Bail(reason)


class _BodyLogger(logging.LoggerAdapter[logging.Logger]):
    """Says nothing while the body is replayed."""

    attempt: Attempt

    @override
    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        """With the fields that the caller gives as well as those of the execution."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    @override
    def isEnabledFor(self, level: int) -> bool:
        attempt = self.attempt
        watched = attempt.host.onlooker is not None
        return attempt.live and not attempt.replaying and not watched and super().isEnabledFor(level)
