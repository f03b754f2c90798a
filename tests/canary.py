"""Secrets that the tests carry, and a watch that fails each test in which one of them is shown.

The shared brokers' URLs have the password and some payloads the text. Neither may stand in a log record, in the text of
an error of ours, or in anything that is printed: what runs here is what people paste into a bug report.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Generator
from typing import Final, final

import pytest
from typing_extensions import override

from durable.errors import DurableError
from tests.brokers.password import PASSWORD

PAYLOAD: Final = "canary-7Ht9x3-payload"


@final
class Watch(logging.Handler):
    """Keeps where a secret was shown, until it is asked."""

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__(logging.NOTSET)
        self._secrets = tuple(secrets)
        self._leaks: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        error = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        # Some handlers send all that a record has, and not its message only.
        self.look(f"a log record of {record.name}", record.getMessage(), error, repr(vars(record)))

    def see_error(self, error: DurableError) -> None:
        self.look(f"a {type(error).__name__}", str(error), repr(error), error.hint, *error.__notes__)

    def look(self, where: str, *texts: str) -> None:
        if any(secret in text for secret in self._secrets for text in texts):
            self._leaks.append(where)

    def take(self) -> list[str]:
        """Where a secret was shown since the last call."""
        leaks, self._leaks = self._leaks, []
        return leaks


_watch: Final = Watch((PASSWORD, PAYLOAD))


def pytest_sessionstart() -> None:
    logging.getLogger().addHandler(_watch)
    logging.getLogger("durable").setLevel(logging.DEBUG)
    create = DurableError.__init__

    @functools.wraps(create)
    def create_and_show(
        self: DurableError, text: str, hint: str | None = None, *, args: tuple[object, ...] | None = None
    ) -> None:
        create(self, text, hint, args=args)
        _watch.see_error(self)

    DurableError.__init__ = create_and_show  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    for name, text in report.sections:
        _watch.look(name, text)
    if (leaks := _watch.take()) and not report.failed:
        report.outcome = "failed"
        report.longrepr = f"a secret is shown in {', '.join(dict.fromkeys(leaks))}"
    return report
