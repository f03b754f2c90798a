"""`durable limits list | set | unset`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from durable.app import Durable
from durable.cli import completion, known
from durable.cli.connection import Connection
from durable.cli.grouping import grouped
from durable.cli.listing import Listing, WatchOption
from durable.cli.options import OutputOption
from durable.cli.output import Output, acknowledge, table
from durable.duration import format_duration
from durable.models import LimitInfo

RuleArgument = Annotated[
    str,
    typer.Argument(
        metavar="RULE",
        help="As `list` names it: report/concurrency, limit/openai, ...",
        autocompletion=completion.rules,
    ),
]

_HEADERS = ("RULE", "KEY", "LIMIT", "HELD", "WAITING", "OLDEST", "WHO")
_PAGE = 100
_NAMED = 3

limits = typer.Typer(
    help="See who holds the slots of limits and who waits; change a limit.", no_args_is_help=True
)


@limits.command("list")
@grouped
def list_(
    *,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """List the limits at which somebody holds a slot or waits, each with its key, and those that were set.

    HELD slots are held by WHO, the longest first; a `!` behind LIMIT says that it was set here, not by the code.

    \b
    Examples:
      durable limits list --watch
      durable limits list -o json | jq '.limits[] | select(.waiting > 100) | {rule, key, waiting}'
    """

    listing = Listing(_read, _lines, _rules)
    listing.print(connection.client(), output, watch=watch)


@limits.command("set")
@grouped
def set_(
    *,
    rule: RuleArgument,
    limit: Annotated[int, typer.Argument(metavar="N", help="1 or more, for each key of the rule.")],
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let a rule have this limit from now on, whatever the code says. Who holds a slot above it keeps it.

    \b
    Examples:
      durable limits set report/concurrency 10
      durable limits set limit/openai 2
    """
    _change(rule, limit, output, f"{rule} has limit {limit}", connection)


@limits.command("unset")
@grouped
def unset(
    *,
    rule: RuleArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let a rule have the limit that the code says again.

    \b
    Examples:
      durable limits unset report/concurrency
    """
    _change(rule, None, output, f"{rule} has the limit that the code says", connection)


def _change(rule: str, limit: int | None, output: Output, done: str, connection: Connection) -> None:
    async def run() -> None:
        async with connection.client() as durable:
            there = await known.rules(durable)
            await durable.operator.set_limit(rule, limit)
            acknowledge(output, rule, done)
            known.doubt("rule", rule, there)

    asyncio.run(run())


@dataclass(frozen=True, slots=True)
class _Limits:
    limits: Sequence[LimitInfo]
    set: Mapping[str, int]
    """Limits that were set, by rule."""


async def _read(durable: Durable) -> _Limits:
    found: list[LimitInfo] = []
    after = ""
    while page := await durable.operator.held_limits(after=after, limit=_PAGE):
        found += page
        after = f"{page[-1].rule}|{page[-1].key}"
    return _Limits(found, await durable.operator.limits())


def _rules(found: _Limits) -> list[str]:
    return sorted({*found.set, *(each.rule for each in found.limits)})


def _lines(found: _Limits) -> list[Text]:
    return table(_HEADERS, list(_rows(found.limits, found.set, datetime.now(UTC))))


def _rows(found: Sequence[LimitInfo], changed: Mapping[str, int], now: datetime) -> Iterator[list[str]]:
    for each in found:
        yield [
            each.rule,
            each.key,
            f"{each.limit}{'!' if each.rule in changed else ''}",
            str(each.held) if each.opens_at is None else "",
            str(each.waiting),
            format_duration(max(now - each.oldest_at, now - now)) if each.oldest_at else "",
            _who(each, now),
        ]
    for rule, limit in sorted(changed.items()):
        if rule not in {each.rule for each in found}:
            yield [rule, "", f"{limit}!", "0", "0", "", ""]


def _who(limit: LimitInfo, now: datetime) -> str:
    if limit.opens_at is not None:
        return f"the next in {format_duration(max(limit.opens_at - now, now - now))}"
    named = [
        f"{slot.execution_id} step {slot.step_id}" if slot.step_id else slot.execution_id
        for slot in limit.slots[:_NAMED]
    ]
    return ", ".join([*named, f"{limit.held - _NAMED} more"] if limit.held > _NAMED else named)
