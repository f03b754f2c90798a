"""Options that several commands have, and what their texts mean."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer

from durable.cli import completion
from durable.cli.output import Output
from durable.duration import to_timedelta
from durable.errors import InvalidInput

OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="A table for people, JSON for programs, or ids alone.")
]
ExecutionArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The execution's id, or as much of it as is unique.",
        autocompletion=completion.executions,
    ),
]
ExecutionsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="Ids of executions, or as much of each as is unique.",
        autocompletion=completion.executions,
    ),
]

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Do nothing, and show what would be done.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
StatusOption = Annotated[
    list[str] | None,
    typer.Option("--status", help="Only these; may be repeated.", autocompletion=completion.statuses),
]
WorkflowOption = Annotated[
    str | None,
    typer.Option("--workflow", "-w", help="Only of this workflow.", autocompletion=completion.workflows),
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Only with this tag.")
]
SinceOption = Annotated[
    str | None, typer.Option(metavar="WHEN", help='Created since: "24h" ago, or an instant.')
]
UntilOption = Annotated[
    str | None, typer.Option(metavar="WHEN", help='Created until: "24h" ago, or an instant.')
]


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return ""


ByOption = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="NAME",
        default_factory=_me,
        show_default=False,
        help="Who does it, for the record: you, if nothing is said.",
    ),
]


def parse_tags(given: list[str] | None) -> dict[str, str]:
    """Tags of `name=value` texts."""
    tags: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInput(f"--tag must be name=value, not {text!r}", "such as --tag tenant=acme")
        tags[name] = value
    return tags


def parse_instant(text: str, what: str) -> datetime:
    """An instant in ISO 8601."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{what} must be an instant, not {text!r}", "such as 2026-03-01T09:00:00+01:00"
        ) from None


def parse_past(text: str, what: str, now: datetime) -> datetime:
    """An instant in ISO 8601, or how long ago it was: "24h"."""
    try:
        ago: timedelta | None = to_timedelta(text, what=what)
    except InvalidInput:
        ago = None
    return parse_instant(text, what) if ago is None else now - ago


def read_json(text: str) -> bytes:
    """The JSON that an argument holds; of "-" what stdin holds."""
    return sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
