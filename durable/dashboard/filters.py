"""Which executions are meant: filters as they stand in an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.datastructures import QueryParams

from durable.dashboard.links import with_query
from durable.duration import to_timedelta
from durable.errors import InvalidInput
from durable.names import check_name

SPANS: Final[Mapping[str, str]] = {
    "": "any time",
    "15m": "last 15 minutes",
    "1h": "last hour",
    "24h": "last 24 hours",
    "7d": "last 7 days",
    "30d": "last 30 days",
}
_LONGEST: Final = 512


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter over executions, as it was asked for."""

    status: Sequence[str] = ()
    q: str = ""
    """What was typed into the search: an id or its beginning, `name=value` of a tag, or the name of a workflow that is
    written after `workflow:`."""
    workflow: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: QueryParams) -> Filter:
        def one(name: str) -> str:
            return query.get(name, "").strip()[:_LONGEST]

        status = tuple(dict.fromkeys(each for each in query.getlist("status") if each))
        return cls(status, one("q"), one("workflow"), one("since"), one("until"))

    @property
    def is_empty(self) -> bool:
        return self == Filter()

    def address(self, path: str = "/", **changes: Any) -> str:
        """The address of the same filter with changes."""
        fields = {"status": self.status, "q": self.q, "workflow": self.workflow}
        return with_query(path, {**fields, "since": self.since, "until": self.until, **changes})

    def arguments(self, now: datetime | None = None) -> dict[str, Any]:
        """As `Operator.list_executions` takes it.

        Raises:
            InvalidInput: an instant or a name is none.
        """
        found: dict[str, Any] = {"status": list(self.status) or None}
        if self.workflow:
            found["workflow"] = check_name(self.workflow, "the name of a workflow")
        if self.since:
            found["since"] = instant(self.since, "since", now)
        if self.until:
            found["until"] = instant(self.until, "until", now)
        tags: dict[str, str] = {}
        for word in self.q.split():
            name, equals, value = word.partition("=")
            kind, colon, rest = word.partition(":")
            if equals and name:
                tags[name] = value
            elif colon and kind == "workflow" and rest:
                found["workflow"] = check_name(rest, "the name of a workflow")
            else:
                found["id_prefix"] = check_name(word, "an id")
        return found | ({"tags": tags} if tags else {})


def instant(text: str, what: str, now: datetime | None = None) -> datetime:
    """An instant in ISO 8601 (in UTC where it has no zone), or how long ago it was."""
    try:
        ago: timedelta | None = to_timedelta(text, what=what)
    except InvalidInput:
        ago = None
    if ago is not None:
        try:
            return (now or datetime.now(UTC)) - ago
        except OverflowError:
            raise InvalidInput(f"{what} is too long ago") from None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{what} is neither an instant nor a duration", "such as 24h, or 2026-03-01T09:00"
        ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
