"""What the driver says of our connections: it goes to our own log, quietly, for we say it in our own words.

aiormq logs errors with tracebacks for each connection that is lost, and some of them name no connection. So its
tasks are known by the context that they inherit from those of ours that make them, and what an application does
with aiormq itself is logged as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Final, final

from typing_extensions import override

log = logging.getLogger("durable.rabbitmq.driver")

_LOGGERS: Final = ("aiormq.connection", "aiormq.channel")
_is_ours: ContextVar[bool] = ContextVar("durable.rabbitmq", default=False)


@contextmanager
def driving() -> Generator[None]:
    """Within, what the driver does and begins is done for us."""
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


def driving_context() -> Context:
    """For a task of ours that has to do with the driver."""
    context = copy_context()
    context.run(_is_ours.set, True)
    return context


@final
class _Detour(logging.Filter):
    """Takes the warnings and errors of our connections to our log, as DEBUG."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not _is_ours.get():
            return True
        log.debug("%s: %s", record.name, record.getMessage(), exc_info=record.exc_info)
        return False


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_Detour())
