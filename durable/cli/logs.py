"""What a worker's process logs, as lines for people or as JSON for programs, each about its execution."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, final

from rich.console import Console
from rich.text import Text
from typing_extensions import override

from durable.cli.output import clean, console
from durable.logs import FIELDS, ExecutionFilter

_STYLES: Final = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class LogFormat(StrEnum):
    """How a worker logs."""

    TEXT = "text"
    JSON = "json"


@contextmanager
def logging_as(form: LogFormat | None, *, verbose: bool) -> Generator[None]:
    """Log to stdout within the block, unless the application has set up its own logging.

    Without a `form` it is what `durable` logs, as text; with one all that the process logs.
    """
    root, ours = logging.getLogger(), logging.getLogger("durable")
    if root.handlers or ours.handlers:
        yield
        return
    handler = _json_lines() if form is LogFormat.JSON else _Lines(console())
    logger = ours if form is None else root
    before = logger.level, ours.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.propagate = form is not None
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        ours.propagate = before[1]


@final
class _Lines(logging.Handler):
    """Log records as lines, each with its traceback below."""

    def __init__(self, out: Console) -> None:
        super().__init__()
        self._out = out
        self.addFilter(ExecutionFilter())
        self.setFormatter(_WithExecution("%(asctime)s %(message)s", "%H:%M:%S"))

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in self.format(record).splitlines():
                self._out.print(Text(clean(line), _STYLES.get(record.levelno, "")))
            sys.stdout.flush()
        except Exception:  # noqa: BLE001 as every handler of logging: a line that cannot be written stops no work
            self.handleError(record)


@final
class _WithExecution(logging.Formatter):
    """Names the execution behind a message that does not name it itself."""

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        line, fields = super().formatMessage(record), vars(record)
        if not fields["execution"] or fields["execution"] in line:
            return line
        where = f"{fields['workflow']} {fields['execution']} {fields['step']}".rstrip()
        return f"{line}  ({where})"


def _json_lines() -> logging.Handler:
    """A handler that writes records as JSON, one on each line, with whatever fields they were given."""
    from pythonjsonlogger.json import JsonFormatter

    handler = logging.StreamHandler(sys.stdout)
    names = {"levelname": "level", "name": "logger"}
    handler.setFormatter(JsonFormatter(["levelname", "name", "message"], rename_fields=names, timestamp="at"))
    handler.addFilter(ExecutionFilter())
    handler.addFilter(_only_what_is_known)
    return handler


def _only_what_is_known(record: logging.LogRecord) -> bool:
    for name in FIELDS:
        if vars(record).get(name) == "":
            delattr(record, name)
    return True
