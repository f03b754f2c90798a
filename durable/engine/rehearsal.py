"""A rehearsal: what is recorded of an execution, replayed with the code as it is now, with nothing done and nothing
stored.

The engine is the one that runs executions; only what it commits goes nowhere, and where it would begin something it
stands still. So what a rehearsal says is what a worker will do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import NamedTuple, final

from pydantic_core import from_json
from typing_extensions import override

from durable.clock import VirtualClock
from durable.codec import load_error
from durable.engine.attempt import Attempt
from durable.engine.branch import AnyTask, Branch, current_branch, install
from durable.engine.call_site import call_site
from durable.engine.host import Host
from durable.engine.journal import Journal
from durable.engine.runtime import new_body
from durable.engine.transitions import CANCEL, END, TIMEOUT
from durable.errors import DurableError, LimitReached, ReplayMismatch
from durable.history import History
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Close,
    Committed,
    Continue,
    Fenced,
    InboxEntry,
    MessageKind,
    Next,
    Park,
    Ready,
    Run,
)
from durable.workflow import AnyWorkflow

_PAUSE = 0.02
_PATIENCE = 0.3
"""Seconds for what a body waits for on its own account, before it counts as standing still."""
_ENDED_FROM_OUTSIDE = ("poison", "force_failed", LimitReached.code)


class Fit(StrEnum):
    """Whether code and history fit."""

    FITS = "fits"
    """It goes on, or ends as it did."""
    NEEDS_PATCHED = "needs_patched"
    """The code asks for something new before what is recorded: it would be done now, in the middle of the past."""
    DIVERGES = "diverges"
    """The code asks for something else than what is recorded, or for less, or ends otherwise."""
    UNKNOWN_WORKFLOW = "unknown_workflow"
    """This workflow, or this version of it, is not there: a worker leaves the execution alone."""
    UNDECIDED = "undecided"
    """The body waits for something of its own, or for a value that was redacted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a rehearsal."""

    execution_id: str
    workflow: str
    version: str
    fit: Fit
    text: str
    """What was found, in one sentence."""
    hint: str = ""
    step_id: str | None = None
    """The checkpoint at which it goes on or diverges."""
    recorded: str | None = None
    """What is recorded there: its kind and its name."""
    asked: str | None = None
    """What the code asks for there."""
    where: str | None = None
    """File and line of the call."""

    @property
    def is_safe(self) -> bool:
        """Whether nothing speaks against running the execution with this code."""
        return self.fit not in (Fit.NEEDS_PATCHED, Fit.DIVERGES)

    def raise_if_unsafe(self) -> None:
        """Raises `ReplayMismatch`, with this verdict as a note, when code and history do not fit."""
        if self.is_safe:
            return
        error = ReplayMismatch(
            self.execution_id,
            self.step_id or "the end",
            self.recorded or "nothing",
            "",
            self.asked or "nothing",
            "",
            self.where or "",
        )
        error.hint = self.hint
        error.add_note(f"{self.fit}: {self.text}")
        raise error


def unknown_workflow(history: History, known: Sequence[str]) -> Verdict:
    """The verdict where no such workflow is registered; `known` are its versions that are."""
    row = history.row
    versions = f"only {', '.join(known)}" if known else "none of that name"
    return Verdict(
        row.id,
        row.workflow,
        row.version,
        Fit.UNKNOWN_WORKFLOW,
        f"version {row.version} of {row.workflow} is not registered ({versions})",
        "keep the old version registered until its executions have ended",
    )


async def rehearse(
    workflow: AnyWorkflow, history: History, *, deps: object = None, patience: float = 5.0
) -> Verdict:
    """Replay what is recorded with `workflow` as it is now: whether they fit.

    No step runs and nothing is stored; the body itself does run, up to the first thing that is not recorded. A body
    that waits for something of its own for `patience` seconds is given up as undecided.
    """
    row = history.row
    if row.started_at is None:
        return Verdict(row.id, row.workflow, row.version, Fit.FITS, "it has not begun")
    return await _Rehearsal(workflow, history, deps, patience).run()


class _Asked(NamedTuple):
    key: str
    kind: str
    name: str
    where: str

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}" if self.name else self.kind


@final
class _Rehearsal:
    """Implements `durable.engine.attempt.Onlooker` and `durable.engine.journal.Commits`."""

    def __init__(self, workflow: AnyWorkflow, history: History, deps: object, patience: float) -> None:
        self._workflow = workflow
        self._history = history
        self._deps = deps
        self._patience = patience
        self._asked: set[str] = set()
        self._branches: set[Branch] = set()
        self._last: dict[AnyTask | None, tuple[str, str, str]] = {}
        self._new: list[_Asked] = []
        self._error: DurableError | None = None
        self._next: Next | None = None
        self._batch: Batch | None = None
        self._waits_for_its_own = False
        self._waited = 0.0

    async def run(self) -> Verdict:
        row, checkpoints = self._history.row, self._history.checkpoints
        now = max(
            row.created_at,
            *(c.finished_at or c.started_at for c in checkpoints),
            *(e.at for e in self._history.inbox),
            row.finished_at or 0,
        )
        claimed = Claimed(replace(row, crashes=0), checkpoints, self._endings(), now)
        uninstall = install(asyncio.get_running_loop())
        with ThreadPoolExecutor(1) as threads:
            host = Host(
                clock=VirtualClock(now),
                random=Random(0),
                threads=threads,
                deps=self._deps,
                max_crashes=1,
                wake_at=_nothing,
                announce=_nothing,
                nudge=_nothing,
                onlooker=self,
            )
            journal = Journal(self, claimed, "rehearsal")
            attempt = Attempt(self._workflow, claimed, journal, host, new_body)
            try:
                async with asyncio.timeout(self._patience + _PATIENCE):
                    await attempt.activate(claimed)
            except TimeoutError:
                pass
            finally:
                attempt.let_go()
                uninstall()
        return self._verdict()

    # ---- what the engine tells

    def asked(self, key: str, kind: str, name: str, found: Checkpoint | None) -> None:
        self._asked.add(key)
        self._last[asyncio.current_task()] = key, kind, name
        if found is not None and found.status is CheckpointStatus.CANCELLED:
            self._waits_for_its_own = True
        branch = current_branch()
        while branch is not None:
            self._branches.add(branch)
            branch = branch.parent

    def reached_new(self) -> None:
        if (last := self._last.get(asyncio.current_task())) is not None:
            self._new.append(_Asked(*last, call_site(self._workflow)))

    def refused(self, error: DurableError) -> None:
        self._error = self._error or error

    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced:
        """Store nothing. An end is final; before a stand-still is believed, a body gets time to move by itself."""
        next = batch.next
        if isinstance(next, Run):
            return Committed(ver + 1, True, (), self._history.row.created_at)
        if isinstance(next, Park) and self._left():
            patience = self._patience if self._waits_for_its_own else _PATIENCE
            if self._waited < patience:
                await asyncio.sleep(_PAUSE)
                self._waited += _PAUSE
                return Committed(ver + 1, True, (), self._history.row.created_at)
        self._next, self._batch = next, batch
        return Fenced()

    # ---- what is recorded

    def _endings(self) -> list[InboxEntry]:
        """What ended the execution from outside, or is about to: its body sees that again."""
        row, inbox = self._history.row, self._history.inbox
        acts = [entry.seq for entry in inbox if entry.kind is MessageKind.OPERATOR]
        since = max(acts, default=0)
        ends = [entry for entry in inbox if (entry.kind, entry.name) in (CANCEL, TIMEOUT)]
        if not row.status.final:
            return [entry for entry in ends if entry.consumed_by is None]
        return [entry for entry in ends if entry.seq > since and self._is_its_end(entry)][:1]

    def _is_its_end(self, entry: InboxEntry) -> bool:
        row = self._history.row
        if row.status is ExecutionStatus.COMPENSATION_FAILED:
            return True  # nothing was consumed when it stopped there
        its_reason = row.code == "timeout" if entry.kind is MessageKind.TIMER else row.error == entry.data
        return entry.consumed_by == END and its_reason

    def _left(self) -> list[Checkpoint]:
        """What is recorded and was not asked for, in order. What an earlier attempt did may be left."""
        called = self._asked.union(*(branch.keys for branch in self._branches))
        restarted, acted = self._restarts()
        return [
            c
            for c in self._history.checkpoints
            if not c.step_id.startswith("__")
            and c.kind != "patched"
            and c.step_id not in called
            and c.seq > restarted
            and (c.finished_at or c.started_at) > acted
        ]

    def _restarts(self) -> tuple[int, int]:
        """The last record of an earlier attempt, and the last instant at which an operator let it begin again."""
        attempts = [c.seq for c in self._history.checkpoints if c.kind == "attempt"]
        acts = [entry.at for entry in self._history.inbox if entry.kind is MessageKind.OPERATOR]
        return max(attempts, default=0), max(acts, default=0)

    # ---- what follows

    def _verdict(self) -> Verdict:
        row = self._history.row
        if self._error is not None:
            return self._refusal(self._error)
        left = self._left()
        match self._next:
            case None:
                return self._undecided("its body waits for something of its own")
            case Park():
                return self._at_rest(left)
            case end if row.status.final and row.code not in _ENDED_FROM_OUTSIDE:
                return self._at_an_end(end, left)
            case end:
                if missing := _of_the_root(left):
                    return self._missing(missing[0], f"its end ({self._told(end)})")
                return self._says(Fit.FITS, f"it goes on to its end: {self._told(end)}")

    def _at_rest(self, left: Sequence[Checkpoint]) -> Verdict:
        row = self._history.row
        new = self._new[0] if self._new else None
        if left and self._waits_for_its_own:
            return self._undecided("a timeout of the body's own has to pass first")
        if left and new is not None:
            return self._ahead(new, left[0])
        if left:
            return self._missing(left[0], "nothing before it")
        if row.status.final and row.code not in _ENDED_FROM_OUTSIDE:
            ended = f"its end as {row.status}"
            if new is None:
                return self._says(
                    Fit.DIVERGES, f"recorded {ended}, and the code now waits", recorded=ended, hint=_OLD_CODE
                )
            return self._asks(Fit.NEEDS_PATCHED, new, new.key, f"recorded {ended}", ended, _guard(new))
        if new is None:
            waits = [c for c in self._history.checkpoints if not c.status.final and c.step_id in self._asked]
            shown = ", ".join(f"{c.kind} {c.step_id!r}" for c in waits if c.kind != "switch")
            return self._says(Fit.FITS, f"it goes on waiting for {shown or 'what comes'}")
        return self._asks(Fit.FITS, new, new.key, "it goes on", None, "")

    def _ahead(self, new: _Asked, left: Checkpoint) -> Verdict:
        """Something new is asked for before something recorded: added in front of it, or its new name."""
        recorded = _named(left)
        text = f"recorded {recorded} as {left.step_id!r} at {self._position(left)}"
        if (new.kind, new.name) == (left.kind, left.name):
            hint = f"keep the id: it is recorded as {left.step_id!r}"
            return self._asks(Fit.DIVERGES, new, left.step_id, text, recorded, hint)
        return self._asks(Fit.NEEDS_PATCHED, new, left.step_id, text, recorded, _guard(new))

    def _missing(self, left: Checkpoint, instead: str) -> Verdict:
        recorded = _named(left)
        return self._says(
            Fit.DIVERGES,
            f"recorded {recorded} as {left.step_id!r} at {self._position(left)}, the code now asks for {instead}",
            step_id=left.step_id,
            recorded=recorded,
            asked=instead,
            hint=_OLD_CODE,
        )

    def _at_an_end(self, end: Next, left: Sequence[Checkpoint]) -> Verdict:
        difference = self._difference(end)
        if difference is not None:
            recorded, asked = difference
            text = f"it ended as {recorded}, and now ends as {asked}"
            return self._says(Fit.DIVERGES, text, recorded=recorded, asked=asked, hint=_OLD_CODE)
        if missing := _of_the_root(left):
            return self._missing(missing[0], "its end")
        return self._says(Fit.FITS, f"it ends as it did: {self._history.row.status}")

    def _difference(self, end: Next) -> tuple[str, str] | None:
        """How it ended and how it ends now, where that is not the same."""
        row, now = self._history.row, end
        if isinstance(end, Ready) and (failure := self._failure()) is not None:
            now = Close(
                ExecutionStatus.FAILED, error=failure
            )  # its policy is another: the error is what counts
        if not isinstance(now, Close):
            return str(row.status), self._told(now)
        before = Close(row.status, row.result, row.error)
        if before.status is now.status and (self._history.redacted or _essence(before) == _essence(now)):
            return None
        return self._told(before), self._told(now)

    def _failure(self) -> bytes | None:
        """The error of an attempt that is to be followed by another."""
        records = self._batch.checkpoints if self._batch is not None else ()
        return next((c.data for c in records if c.kind == "attempt"), None)

    def _told(self, end: Next) -> str:
        match end:
            case Close(status=status, error=error) if error:
                return f"{status} ({load_error(error)})"
            case Close(status=status, result=result):
                return f"{status} with {(result or b'null')[:100].decode(errors='replace')}"
            case Ready() if (failure := self._failure()) is not None:
                return f"another attempt, after {load_error(failure)}"
            case Continue():
                return "the next of its chain"
            case _:
                return type(end).__name__.lower()

    def _refusal(self, error: DurableError) -> Verdict:
        if not isinstance(error, ReplayMismatch):
            return self._says(Fit.DIVERGES, str(error), hint=error.hint)
        at = next((c for c in self._history.checkpoints if c.step_id == error.step_id), None)
        recorded = _shown(error.recorded_kind, error.recorded_name)
        asked = _shown(error.asked_kind, error.asked_name)
        position = "" if at is None else f" at {self._position(at)}"
        return self._says(
            Fit.DIVERGES,
            f"recorded {recorded} as {error.step_id!r}{position}, the code now asks for {asked} ({error.where})",
            step_id=error.step_id,
            recorded=recorded,
            asked=asked,
            where=error.where,
            hint=error.hint,
        )

    def _is_mismatch(self) -> bool:
        return isinstance(self._error, ReplayMismatch)

    def _undecided(self, why: str) -> Verdict:
        return self._says(Fit.UNDECIDED, why)

    def _asks(
        self, fit: Fit, new: _Asked, step_id: str, before: str, recorded: str | None, hint: str
    ) -> Verdict:
        begins = "at" if fit is Fit.FITS else "the code now asks for"
        separator = " " if fit is Fit.FITS else ", "
        text = f"{before}{separator}{begins} {new} as {new.key!r} ({new.where})"
        return self._says(
            fit, text, step_id=step_id, recorded=recorded, asked=str(new), where=new.where, hint=hint
        )

    def _says(
        self,
        fit: Fit,
        text: str,
        *,
        step_id: str | None = None,
        recorded: str | None = None,
        asked: str | None = None,
        where: str | None = None,
        hint: str = "",
    ) -> Verdict:
        row = self._history.row
        if self._history.redacted and fit in (Fit.DIVERGES, Fit.NEEDS_PATCHED) and not self._is_mismatch():
            fit, text, hint = Fit.UNDECIDED, f"values were redacted, and it may be for that: {text}", ""
        return Verdict(row.id, row.workflow, row.version, fit, text, hint, step_id, recorded, asked, where)

    def _position(self, checkpoint: Checkpoint) -> int:
        """The number of a record among those that the body made, from 1."""
        ours = [c.step_id for c in self._history.checkpoints if not c.step_id.startswith("__")]
        return ours.index(checkpoint.step_id) + 1


_OLD_CODE = (
    "bring the old code back; or guard the change with ctx.patched(...); or register it as another version and "
    "let this one drain"
)


def _guard(new: _Asked) -> str:
    change = (new.name or new.key).rpartition(".")[2]
    return (
        f'guard it: `if ctx.patched("{change}"):`; or register it as another version and let this one drain'
    )


def _of_the_root(left: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Without what tasks have done that the body leaves behind: at its end they may not have come to it yet."""
    return [c for c in left if not c.step_id.startswith("#")]


def _nothing(*_: object) -> None: ...


def _named(checkpoint: Checkpoint) -> str:
    return _shown(checkpoint.kind, checkpoint.name)


def _shown(kind: str, name: str) -> str:
    return f"{kind} {name!r}" if name else kind


def _essence(close: Close) -> object:
    """What two ends must have in common."""
    if close.error is not None:
        error: ErrorRecord = load_error(close.error)
        return error.error_type, error.message, error.code
    try:
        return from_json(close.result or b"null")
    except ValueError:
        return close.result
