"""Retry policies: pure decisions about whether a failed try is repeated, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil, floor
from random import Random
from typing import TypeAlias

from durable._error import shown
from durable.duration import Duration, to_ms
from durable.errors import Fail, InvalidInput, RetryAfter, find_in, leaves

Catches: TypeAlias = type[Exception] | Iterable[type[Exception]] | None
"""The exceptions of `Retry.on`: one class, several, or None for every `Exception`."""

_MOST_ATTEMPTS = 1_000_000_000
_MOST = 1e15


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often something is tried, and how long it rests in between.

    `attempts` counts all tries: 1 means no retry. The delay after the n-th try is `base * factor ** (n - 1)`,
    at most `cap`, moved by up to `jitter` of itself either way but never above `cap`. Only the exceptions of
    `on` are tried again (none given: every `Exception`); a `Fail` never is, and a `RetryAfter` always, after
    its own delay.

    Raises:
        InvalidInput: a value is out of its range.
    """

    attempts: int
    base: timedelta
    factor: float
    cap: timedelta
    jitter: float
    on: tuple[type[Exception], ...]

    def __init__(
        self,
        attempts: int = 3,
        base: Duration = "1s",
        factor: float = 2.0,
        cap: Duration = "1h",
        jitter: float = 0.2,
        on: Catches = (Exception,),
    ) -> None:
        set_field = object.__setattr__
        set_field(self, "attempts", _attempts(attempts))
        set_field(self, "base", timedelta(milliseconds=to_ms(base, what="Retry.base")))
        set_field(self, "factor", _number("factor", factor, 1))
        set_field(self, "cap", timedelta(milliseconds=to_ms(cap, what="Retry.cap")))
        set_field(self, "jitter", _number("jitter", jitter, 0, 1))
        set_field(self, "on", _exceptions(on))

    @classmethod
    def of(cls, value: Retry | int | bool | None, default: Retry) -> Retry:
        """What a `retry=` argument means: a policy, a number of attempts, False for one try, None: `default`.

        True asks for retries: `default` if it has any, else the policy that a workflow has by itself.
        """
        if value is None or isinstance(value, Retry):
            return default if value is None else value
        if value is False:
            return replace(default, attempts=1)
        if value is True:
            return default if default.attempts > 1 else cls()
        return replace(default, attempts=value)

    @classmethod
    def from_dict(cls, stored: Mapping[str, object], on: Catches = (Exception,)) -> Retry:
        """The policy that `to_dict` wrote, for the exceptions `on`. What is missing has its default."""
        values = {**cls().to_dict(), **stored}
        return cls(
            attempts=_attempts(values["attempts"]),
            base=_number("base_ms", values["base_ms"]) / 1000,
            factor=_number("factor", values["factor"]),
            cap=_number("cap_ms", values["cap_ms"]) / 1000,
            jitter=_number("jitter", values["jitter"]),
            on=on,
        )

    def to_dict(self) -> dict[str, int | float]:
        """The policy as plain JSON, without `on`: exception classes stay in the code."""
        return {
            "attempts": self.attempts,
            "base_ms": to_ms(self.base),
            "factor": self.factor,
            "cap_ms": to_ms(self.cap),
            "jitter": self.jitter,
        }

    def handles(self, error: BaseException) -> bool:
        """Whether `error` may be tried again, attempts permitting: of a group, all that it holds."""
        if find_in(error, Fail) is not None:
            return False
        kinds = (*self.on, RetryAfter)
        return isinstance(error, kinds) or all(isinstance(leaf, kinds) for leaf in leaves(error))

    def delay_ms(self, attempt: int, random: Random) -> int:
        """Milliseconds to rest after try number `attempt`, counted from 1."""
        base, cap = to_ms(self.base), to_ms(self.cap)
        try:
            delay = int(min(base * self.factor ** (attempt - 1), cap))
        except OverflowError:  # a factor to the power of very many attempts
            delay = cap if base else 0
        return random.randint(ceil(delay * (1 - self.jitter)), min(floor(delay * (1 + self.jitter)), cap))

    def next_delay_ms(self, attempt: int, error: BaseException, random: Random) -> int | None:
        """Milliseconds to rest after `error` ended try number `attempt`, or None if that was the last one."""
        if attempt >= self.attempts or not self.handles(error):
            return None
        asked = find_in(error, RetryAfter)
        return self.delay_ms(attempt, random) if asked is None else to_ms(asked.delay)


def _attempts(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_ATTEMPTS:
        return value
    raise InvalidInput(
        f"Retry.attempts must be a whole number of at least 1, not {shown(value)}",
        "attempts counts all tries: 1 means no retry, 3 means up to two retries",
    )


def _number(field: str, value: object, least: float = 0, most: float = _MOST) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise InvalidInput(
        f"Retry.{field} must be a number from {least:g} to {most:g}, not {shown(value)}",
        "the defaults are factor=2.0 and jitter=0.2",
    )


def _exceptions(on: Catches) -> tuple[type[Exception], ...]:
    if on is None:
        return (Exception,)
    kinds = tuple(on) if isinstance(on, Iterable) else (on,)
    for kind in kinds:
        if not _is_exception(kind):
            raise InvalidInput(
                f"Retry.on must hold classes of exceptions, not {shown(kind)}",
                "such as on=(ConnectionError, TimeoutError); what cancels a task is never retried",
            )
    return kinds or (Exception,)


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


NO_RETRY = Retry(attempts=1)
"""One try: what a step has by itself."""
