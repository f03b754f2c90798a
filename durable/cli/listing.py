"""What `list` commands share: records as a table, as JSON or as ids; once, or again and again until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Generic, TypeVar, final

import typer
from rich.text import Text

from durable.app import Durable
from durable.cli.output import Output, clean, console, fitted, print_json, print_lines, to_json

T = TypeVar("T")

WatchOption = Annotated[bool, typer.Option("--watch", help="Stay, and show what changes.")]

_EVERY_S: Final = 1.0


@final
@dataclass(frozen=True)
class Listing(Generic[T]):
    """How records are read and shown."""

    read: Callable[[Durable], Awaitable[T]]
    lines: Callable[[T], list[Text]]
    """The table's, its headers first."""
    ids: Callable[[T], Sequence[str]]
    records: Callable[[T], object] = lambda found: found
    """What its JSON is of."""
    changes: Callable[[T, Output], list[str]] | None = None
    """What a pipe that watches is told of it, each when it is new or differs: by default the lines of the table, or
    the JSON whole."""
    remark: Callable[[Durable, T], Awaitable[None]] | None = None
    """Says more on stderr, once."""

    def print(self, client: Durable, output: Output, *, watch: bool) -> None:
        """Print what there is, and, to watch, what becomes of it."""
        asyncio.run(self._run(client, output, watch))

    async def _run(self, client: Durable, output: Output, watch: bool) -> None:
        async with client as durable:
            found = await self.read(durable)
            if self.remark is not None:
                await self.remark(durable, found)
            if not watch:
                self._print_once(found, output)
                return
            try:
                if console().is_terminal and output is Output.TABLE:
                    await self._watch_live(durable, found)
                await self._watch_lines(durable, found, output)
            except asyncio.CancelledError:
                pass  # Ctrl-C is how a watch ends

    def _print_once(self, found: T, output: Output) -> None:
        match output:
            case Output.JSON:
                print_json(self.records(found))
            case Output.IDS:
                for id in self.ids(found):
                    console().print(clean(id))
            case Output.TABLE:
                print_lines(self.lines(found))

    async def _watch_live(self, durable: Durable, found: T) -> None:
        """The table, which stays where it is on the terminal and is drawn anew."""
        from rich.live import Live

        out = console()
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(Text("\n").join([fitted(line, out) for line in self.lines(found)]), refresh=True)
                await asyncio.sleep(_EVERY_S)
                found = await self.read(durable)

    async def _watch_lines(self, durable: Durable, found: T, output: Output) -> None:
        """Each line when it is new or differs."""
        told = self.changes or self._as_lines
        shown: set[str] = set()
        while True:
            lines = told(found, output)
            for line in lines:
                if line not in shown:
                    console().print(line)
            sys.stdout.flush()
            shown = set(lines)
            await asyncio.sleep(_EVERY_S)
            found = await self.read(durable)

    def _as_lines(self, found: T, output: Output) -> list[str]:
        match output:
            case Output.JSON:
                return [to_json(self.records(found), indent=None)]
            case Output.IDS:
                return [clean(id) for id in self.ids(found)]
            case Output.TABLE:
                return [line.plain for line in self.lines(found)]
