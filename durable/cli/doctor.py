"""`durable doctor`: whether the store is well and its work gets done, a line each, with what to do about it."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final, Protocol, runtime_checkable

import typer
from rich.text import Text

from durable.backends import backend_for
from durable.cli.connection import Connection, check_exists, store_url
from durable.cli.exits import ExitCode
from durable.cli.grouping import grouped
from durable.cli.output import Output, clean, console, print_json, print_lines, table
from durable.clock import SystemClock
from durable.duration import format_duration, to_timedelta
from durable.errors import ConfigurationError, DurableError, ReplayMismatch
from durable.models import ExecutionStatus
from durable.names import check_namespace
from durable.presence import Presence
from durable.protocols import DurableStore, ExecutionRow, Query, State
from durable.redact import redact_url

_MOST_CHECKED: Final = 2_000
"""Executions up to which the store is checked without --deep."""
_MOST_SKEW_MS: Final = 1_000
_MOST_LATE_MS: Final = 30_000
_MOST_READ: Final = 1_000
_MOST_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `ok` is None for what is neither right nor wrong."""

    check: str
    ok: bool | None
    text: str
    remedy: str = ""


class _Port(Protocol):
    async def open(self) -> None: ...
    async def close(self) -> None: ...


@runtime_checkable
class _KeepsLetters(Protocol):
    """A queue, and not a bus."""

    async def dead_letters(self) -> int | None: ...


@grouped
def doctor(
    *,
    deep: Annotated[
        bool, typer.Option("--deep", help="Check every execution, however many there are.")
    ] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="A table for people, or JSON.")
    ] = Output.TABLE,
    connection: Connection,
) -> None:
    """Check the store, and that its work gets done. Exits with 1 if something is wrong.

    \b
    Examples:
      durable doctor
      durable doctor --store sqlite:///orders.db --deep
    """
    url, space = store_url(connection.store), check_namespace(connection.namespace)
    findings = asyncio.run(examine(url, space, connection.queue, connection.bus, deep=deep))
    match output:
        case Output.JSON:
            print_json(findings)
        case Output.IDS:
            print_lines(Text(finding.check) for finding in findings if finding.ok is False)
        case Output.TABLE:
            for line in table(("", "CHECK", "FOUND"), [_row(finding) for finding in findings])[1:]:
                console().print(line)  # whole, however narrow the terminal is
    raise typer.Exit(ExitCode.FAILED if any(finding.ok is False for finding in findings) else ExitCode.DONE)


async def examine(
    url: str, namespace: str, queue: str | None, bus: str | None, *, deep: bool
) -> list[Finding]:
    """All findings. What needs the store is left out when there is none."""
    findings = [_versions()]
    clock = SystemClock()
    backend = backend_for(url)
    if backend.open_store is None:
        raise ConfigurationError(
            f"{redact_url(url)} cannot be used as a store", "name the store with --store"
        )
    store = backend.open_store(url, namespace=namespace, clock=clock)
    try:
        check_exists(url)
        async with _opened(store):
            findings += await _store_findings(store, clock, redact_url(url), deep=deep)
    except DurableError as error:
        findings.append(Finding("store", False, f"{redact_url(url)}: {error}", error.hint))
    for what, other in (("queue", queue), ("bus", bus)):
        if other is not None:
            findings.append(await _port_finding(what, other, namespace, clock))
    return findings


async def _store_findings(store: DurableStore, clock: SystemClock, url: str, *, deep: bool) -> list[Finding]:
    about = await store.capabilities()
    findings = [
        Finding("store", True, f"{url} · {about.name}, {about.grade}"),
        *(Finding("store", None, note) for note in about.notes),
        Finding("schema", True, "up to date"),
    ]
    counts = await store.counts()
    findings.append(await _consistency(store, sum(counts.values()), deep=deep))
    findings.append(await _clock_skew(store, clock))
    findings += await _work(store)
    if number := counts.get(ExecutionStatus.PARKED, 0):
        findings += await _parked(store, number)
    if number := counts.get(ExecutionStatus.COMPENSATION_FAILED, 0):
        text = f"{number} are not rolled back to the end"
        findings.append(
            Finding("executions", None, text, f"durable list --status {ExecutionStatus.COMPENSATION_FAILED}")
        )
    return findings


async def _parked(store: DurableStore, number: int) -> list[Finding]:
    rows = (await store.query(Query(status=[ExecutionStatus.PARKED], limit=_MOST_READ))).rows
    found = Finding(
        "executions",
        None,
        f"{number} are parked until somebody repairs them",
        f"durable list --status {ExecutionStatus.PARKED}",
    )
    if mismatches := sum(row.code == ReplayMismatch.code for row in rows):
        text = f"{mismatches} of those that are parked do not fit their code"
        return [found, Finding("mismatches", None, text, "durable check names the places")]
    return [found]


def _versions() -> Finding:
    return Finding("python", True, f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")


async def _consistency(store: DurableStore, number: int, *, deep: bool) -> Finding:
    if number > _MOST_CHECKED and not deep:
        return Finding(
            "contents", None, f"{number:,} executions, not checked", "durable doctor --deep reads them all"
        )
    contradictions = await store.check()
    if not contradictions:
        return Finding("contents", True, f"{number:,} executions, no contradiction")
    shown = "; ".join(contradictions[:_MOST_SHOWN])
    more = f"; and {len(contradictions) - _MOST_SHOWN} more" if len(contradictions) > _MOST_SHOWN else ""
    return Finding(
        "contents", False, shown + more, "keep a copy of the store, and report this as a fault in durable"
    )


async def _clock_skew(store: DurableStore, clock: SystemClock) -> Finding:
    before = clock.now_ms()
    live = await store.live()
    after = clock.now_ms()
    skew = max(before - live.at, live.at - after, 0)
    shown = format_duration(to_timedelta(skew / 1000))
    if skew > _MOST_SKEW_MS:
        return Finding("clock", False, f"this host and the store differ by {shown}", "synchronise them (NTP)")
    return Finding("clock", True, f"this host and the store agree within {shown}")


async def _work(store: DurableStore) -> list[Finding]:
    """Who is there to work, and what nobody will take."""
    live = await store.live()
    workers = [Presence.unpack(worker.info) for worker in live.workers.values()]
    slots = sum(about.slots for about in workers)
    found = f"{len(workers)} live, {slots} slots" if workers else "none is live"
    findings = [Finding("workers", True if workers else None, found)]
    ready = await _ready(store, live.at)
    orphaned = Counter(
        (row.queue, f"{row.workflow}@{row.version}")
        for row in ready
        if not any(about.takes(row) for about in workers)
    )
    for (queue, workflow), number in sorted(orphaned.items()):
        text = f"queue {queue!r} has {number} ready of {workflow}, and no worker takes them"
        findings.append(Finding("backlog", False, text, f"start one that has it: durable worker -q {queue}"))
    findings.append(await _timers(store, live.at))
    if not orphaned:
        findings.append(
            Finding("backlog", True, f"{len(ready)} ready" if ready else "nothing waits for a worker")
        )
    return findings


async def _timers(store: DurableStore, now: int) -> Finding:
    first = await store.first_timer()
    late = 0 if first is None else max(now - first, 0)
    if late <= _MOST_LATE_MS:
        return Finding("timers", True, "none is late")
    shown = format_duration(to_timedelta(late // 1000))
    return Finding("timers", False, f"the first is {shown} late", "start a worker: durable worker")


async def _ready(store: DurableStore, now: int) -> list[ExecutionRow]:
    """Executions that a worker could claim now; the newest, where there are very many."""
    statuses = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING, ExecutionStatus.RETRYING)
    rows = (await store.query(Query(status=statuses, limit=_MOST_READ))).rows
    return [row for row in rows if row.state is State.READY and row.available_at <= now]


async def _port_finding(what: str, url: str, namespace: str, clock: SystemClock) -> Finding:
    try:
        backend = backend_for(url)
        opener = backend.open_queue if what == "queue" else backend.open_bus
        if opener is None:
            return Finding(
                what, False, f"{redact_url(url)} cannot be used as a {what}", "use another backend there"
            )
        port: _Port = opener(url, namespace=namespace, clock=clock)
        async with _opened(port):
            dead = await port.dead_letters() if isinstance(port, _KeepsLetters) else None
            if dead:
                text = f"{redact_url(url)}: {dead} dead letters, which nobody could take"
                return Finding(what, None, text, "look at them on the broker, then empty that queue")
            return Finding(what, True, redact_url(url))
    except DurableError as error:
        return Finding(what, False, f"{redact_url(url)}: {error}", error.hint)


@asynccontextmanager
async def _opened(port: _Port) -> AsyncGenerator[None]:
    await port.open()
    try:
        yield
    finally:
        await port.close()


def _row(finding: Finding) -> list[Text | str]:
    mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}[finding.ok]
    text = f"{finding.text} → {finding.remedy}" if finding.remedy else finding.text
    return [Text(mark, style), finding.check, clean(text)]
