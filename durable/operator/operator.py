"""`Operator`: the questions and the acts, and the acts on many executions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final, final

from durable.clock import to_datetime
from durable.errors import ConfigurationError, DurableError, InvalidInput, WrongStatus
from durable.models import BulkReport, Execution, ExecutionStatus
from durable.operator.acts import APPLIES_TO, Acts
from durable.operator.questions import Statuses

_AT_ONCE: Final = 50


@final
class Operator(Acts):
    """Every verb takes an execution's id and raises `ExecutionNotFound` when there is none, `WrongStatus` when the verb
    does not apply to where the execution is. What it does is stored when it returns, with who did it (`by`, up to 200
    printable characters)."""

    async def bulk(
        self,
        verb: str,
        *,
        status: Statuses | None = None,
        workflow: str | None = None,
        tags: Mapping[str, str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        id_prefix: str | None = None,
        parent_id: str | None = None,
        reason: str = "",
        limit: int | None = None,
        dry_run: bool = False,
        by: str = "",
    ) -> BulkReport:
        """Do one act to all executions that match, at most `limit` of them, the newest first.

        `verb` is `cancel`, `rollback`, `force_fail` (these with the `reason`), `retry`, `retry_rollback`, `pause`,
        `resume` or `rerun`. Without a `status` those match to whose status the verb applies. What is created after the
        call began is left alone. `dry_run`: nothing is done, and the report is a preview.

        Raises:
            InvalidInput: the verb is none of these, nothing says which executions are meant, or as `list_executions`.
        """
        act = self._bulk_act(verb, reason, by)
        given = (status, workflow, tags, since, until, id_prefix, parent_id)
        if all(each is None for each in given):
            raise InvalidInput(
                f"{verb} of all executions there are was asked for",
                "say which: status=, workflow=, tags=, since=, until=, id_prefix= or parent_id=",
            )
        if limit is not None and limit < 1:
            raise InvalidInput(f"limit must be 1 or more, not {limit!r}")
        until = to_datetime(self._clock.now_ms() + 1) if until is None else until
        done: list[str] = []
        refused: dict[str, str] = {}
        cursor: str | None = None
        while limit is None or len(done) + len(refused) < limit:
            left = _AT_ONCE if limit is None else min(_AT_ONCE, limit - len(done) - len(refused))
            page = await self.list_executions(
                status=APPLIES_TO[verb] if status is None else status,
                workflow=workflow,
                tags=tags,
                since=since,
                until=until,
                id_prefix=id_prefix,
                parent_id=parent_id,
                limit=left,
                cursor=cursor,
            )
            outcomes = await asyncio.gather(*(_tried(verb, act, each, dry_run) for each in page.items))
            for execution, why in zip(page.items, outcomes, strict=True):
                if why is None:
                    done.append(execution.id)
                else:
                    refused[execution.id] = why
            cursor = page.cursor
            if cursor is None:
                break
        return BulkReport(verb, done, refused, dry_run)

    def _bulk_act(self, verb: str, reason: str, by: str) -> Callable[[str], Awaitable[object]]:
        acts: dict[str, Callable[[str], Awaitable[object]]] = {
            "cancel": lambda id: self.cancel(id, reason, by=by),
            "rollback": lambda id: self.rollback(id, reason, by=by),
            "force_fail": lambda id: self.force_fail(id, reason, by=by),
            "retry": lambda id: self.retry(id, by=by),
            "retry_rollback": lambda id: self.retry_rollback(id, by=by),
            "pause": lambda id: self.pause(id, by=by),
            "resume": lambda id: self.resume(id, by=by),
            "rerun": lambda id: self.rerun(id, by=by),
        }
        if verb not in acts:
            raise InvalidInput(f"{verb!r} is no act on many executions", f"use one of {', '.join(acts)}")
        return acts[verb]


async def _tried(
    verb: str, act: Callable[[str], Awaitable[object]], execution: Execution, dry_run: bool
) -> str | None:
    """Why it was not done, if it was not."""
    if ExecutionStatus(execution.status) not in APPLIES_TO[verb]:
        return str(WrongStatus(execution.id, verb, execution.status))
    if dry_run:
        return None
    try:
        await act(execution.id)
    except ConfigurationError:
        raise
    except DurableError as error:
        return str(error)
    return None
