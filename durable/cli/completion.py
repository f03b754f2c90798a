"""What a shell offers for the word that is being typed, from the store or the application that the line names.

It is asked at each press of a key: it answers within a second or not at all, and says nothing of what went wrong.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import chain
from typing import Final, cast
from zoneinfo import available_timezones

import typer

from durable.app import Durable
from durable.cli import known
from durable.cli.application import find_application, is_reference
from durable.cli.connection import Connection, find_id
from durable.models import ExecutionStatus, StepRecord
from durable.operator import APPLIES_TO

Offers = list[tuple[str, str]]
"""Each with what a shell may show beside it."""
Complete = Callable[[typer.Context, str], Offers]

_ASKED: Final = "_DURABLE_COMPLETE"
PATIENCE_S = 1.0
_MOST: Final = 20
_BREAKS: Final = re.compile("[:=]+")


def _from_store(
    find: Callable[[Durable, typer.Context, str], Awaitable[Iterable[tuple[str, str]]]],
) -> Complete:
    """Let a command's argument be completed by what is found in the store that its line or the environment names."""

    async def ask(context: typer.Context, incomplete: str) -> Offers:
        given = context.params
        client = Connection(store=given.get("store"), namespace=given.get("namespace") or "default").client()
        async with asyncio.timeout(PATIENCE_S), client as durable:
            return list(await find(durable, context, incomplete))

    def complete(context: typer.Context, incomplete: str) -> Offers:
        with _quietly():
            return _those(asyncio.run(ask(context, incomplete)), context, incomplete)
        return []

    return complete


def _from_application(find: Callable[[Durable, typer.Context], Iterable[tuple[str, str]]]) -> Complete:
    """Let it be completed by what the user's own code says, which is imported for it."""

    def complete(context: typer.Context, incomplete: str) -> Offers:
        words: list[str] = [*(context.params.get("arguments") or ()), context.params.get("application") or ""]
        named = next((word for word in words if is_reference(word)), context.params.get("app"))
        with _quietly():
            return _those(find(find_application(named), context), context, incomplete)
        return []

    return complete


@contextmanager
def _quietly() -> Generator[None]:
    """Whatever goes wrong, and whatever is printed, is of no use to somebody who is typing."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except Exception:  # noqa: BLE001 (as it says)
        pass


def _those(found: Iterable[tuple[str, str]], context: typer.Context, incomplete: str) -> Offers:
    values = cast("Iterable[object]", context.params.values())
    given = set(chain.from_iterable(cast("list[object]", each) for each in values if isinstance(each, list)))
    return [(name, about) for name, about in found if name.startswith(incomplete) and name not in given][
        :_MOST
    ]


def _names(find: Callable[[Durable], Awaitable[set[str]]]) -> Complete:
    async def named(durable: Durable, context: typer.Context, incomplete: str) -> Offers:
        return [(name, "") for name in sorted(await find(durable))]

    return _from_store(named)


def _words(words: Callable[[], Iterable[str]]) -> Complete:
    def complete(context: typer.Context, incomplete: str) -> Offers:
        return [(word, "") for word in words() if word.startswith(incomplete)]

    return complete


# ---- what is found


async def _executions(durable: Durable, context: typer.Context, incomplete: str) -> Offers:
    """The newest to which the command applies."""
    page = await durable.operator.list_executions(
        id_prefix=incomplete or None, status=_applicable(context.info_name or ""), limit=_MOST
    )
    return [(execution.id, f"{execution.workflow}, {execution.status}") for execution in page.items]


def _applicable(command: str) -> list[ExecutionStatus] | None:
    verb = command.replace("-", "_")
    if verb == "signal":
        verb = "cancel"
    found = [*APPLIES_TO.get(verb, ()), *(APPLIES_TO["retry_rollback"] if verb == "retry" else ())]
    return found or None


async def _steps(durable: Durable, context: typer.Context, incomplete: str) -> Offers:
    """Those to which the command applies, of the execution that stands before."""
    # What stands before an option that lacks its value is not parsed.
    given = [context.params.get("execution"), *(context.params.get("executions") or ()), *context.args]
    id = next((word for word in given if word), None)
    if id is None:
        return []
    detail = await durable.operator.get_execution_detail(await find_id(durable, id))
    steps = [step for step in detail.steps if _fits(context.info_name, step)]
    return [(step.id, f"{step.kind}, {step.status}") for step in steps]


def _fits(command: str | None, step: StepRecord) -> bool:
    match command:
        case "skip-step":
            return step.status != "completed"
        case "edit-step":
            return step.status == "completed" and step.kind == "step"
        case _:
            return True


async def _signals(durable: Durable, context: typer.Context, incomplete: str) -> Offers:
    """Those for which the execution waits."""
    given: str | None = context.params.get("execution")
    if given is None:
        return []
    detail = await durable.operator.get_execution_detail(await find_id(durable, given))
    return list(known.signals(detail).items())


def _workflows_of(durable: Durable, context: typer.Context) -> Offers:
    words = [word for word in context.params.get("arguments") or () if not is_reference(word)]
    return [] if words else sorted({(workflow.name, "") for workflow in durable.workflows()})


def _queues_of(durable: Durable, context: typer.Context) -> Offers:
    return sorted({(workflow.queue, "") for workflow in durable.workflows()})


executions = _from_store(_executions)
steps = _from_store(_steps)
signals = _from_store(_signals)
workflows = _names(known.workflows)
queues = _names(known.queues)
schedules = _names(known.schedules)
workers = _names(known.workers)
rules = _names(known.rules)
statuses = _words(lambda: list(ExecutionStatus))
zones = _words(lambda: sorted(available_timezones()))
own_workflows = _from_application(_workflows_of)
own_queues = _from_application(_queues_of)


# ---- what a shell asks


def is_asked() -> bool:
    """Whether it is a shell that has called this process, to complete a line."""
    return _ASKED in os.environ


def answer(main: Callable[[], object]) -> int:
    """Let Typer answer the shell; the exit code that the shell expects.

    Bash takes `app:durable` and `redis://...` for several words, which are one here; and it replaces the last of its
    own words, so that what it is offered begins behind the `:`.
    """
    said, cut = io.StringIO(), 0
    if os.environ[_ASKED] == "complete_bash":
        cut = _join_words()
    try:
        with redirect_stdout(said):
            code = main()
    except SystemExit as ended:
        code = ended.code
    for line in filter(None, said.getvalue().splitlines()):
        print(line[cut:] if line[:cut].endswith((":", "=")) else line)
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _join_words() -> int:
    """Put together what Bash has split; how much of the last word it does not take for its own."""
    words = os.environ.get("COMP_WORDS", "").split("\n")
    last = int(os.environ.get("COMP_CWORD", "0"))
    joined: list[str] = []
    is_open = False
    for word in words[: last + 1]:
        is_break = _BREAKS.fullmatch(word) is not None
        if joined and (is_open or is_break) and len(joined) > 1:
            joined[-1] += word
        else:
            joined.append(word)
        is_open = is_break
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(joined), str(len(joined) - 1)
    return max(joined[-1].rfind(":"), joined[-1].rfind("=")) + 1
