"""What reaches an execution from outside, by name: signals are sent to one, events to whomever they concern.

A wait gives `Received` or `TimedOut`, one for a child `Completed` or `TimedOut`: `kind` tells them apart
as well as `match` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, TypeAlias, cast, final, overload

from typing_extensions import TypeForm, TypeVar, override

from durable.codec import Schema
from durable.matching import Match, check_match, check_path
from durable.names import check_own_name

T = TypeVar("T", default=None)
T_co = TypeVar("T_co", covariant=True)


class _Named(Generic[T]):
    """A name and the type of what travels under it. Equal to another of its kind by name."""

    _kind: ClassVar[str]

    @overload
    def __init__(self, name: str) -> None: ...
    @overload
    def __init__(self, name: str, payload: TypeForm[T]) -> None: ...
    def __init__(self, name: str, payload: object = None) -> None:
        self._name = check_own_name(name, f"the name of {self._kind}")
        self._payload = payload

    @property
    def name(self) -> str:
        return self._name

    @property
    def payload(self) -> object:
        """The payload's type, as it was given; None for no payload."""
        return self._payload

    @cached_property
    def schema(self) -> Schema[T]:
        """What validates and stores the payload.

        Raises:
            ConfigurationError: the payload's type is none that can be stored.
        """
        return Schema.of(self._payload)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.name == self.name

    @override
    def __hash__(self) -> int:
        return hash((type(self), self._name))

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"


@final
class Signal(_Named[T]):
    """Something that one execution may be told, and wait for: `Approved = Signal("approved", Approval)`.

    The payload is any type that pydantic can validate, unions too; without one it is None.

    Raises:
        InvalidInput: the name is hostile or reserved.
    """

    _kind = "a signal"


@final
class Event(_Named[T]):
    """Something that happened, for whoever it concerns: `Paid = Event("payment.received", Payment)`.

    Nobody needs an execution's id to send it: it starts and resumes whatever asked for events of this name.

    Raises:
        InvalidInput: the name is hostile or reserved.
    """

    _kind = "an event"


When: TypeAlias = Match | Callable[[Any], bool]
"""The values that a payload must have, by their dotted paths; or a function of the payload."""


@final
@dataclass(frozen=True, slots=True)
class On:
    """Some events of a name: `on=[On(Paid, when={"currency": "EUR"})]` starts a workflow for those only.

    In `cancel_on=` it is `match` that says which execution is meant, a path into the event's payload for each path into
    the execution's input: `cancel_on=[On(OrderCancelled, match={"order_id": "order.id"})]`.

    Raises:
        InvalidInput: a path is none, or a value cannot be compared.
    """

    event: Event[Any]
    _: KW_ONLY
    when: When | None = None
    match: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        when: object = self.when
        if isinstance(when, Mapping):
            check_match(cast("Match", when), f"what is wanted of event {self.event.name}")
        for path, own in (self.match or {}).items():
            check_path(path, f"a path into event {self.event.name}")
            check_path(own, "a path into the input")


@final
@dataclass(frozen=True, slots=True)
class Received(Generic[T_co]):
    """A wait was met. `name` is the signal's or the event's: `case Received(payload): ...`."""

    __match_args__ = ("payload", "name")

    payload: T_co
    name: str
    kind: Literal["signal", "event"] = "signal"


@final
@dataclass(frozen=True, slots=True)
class TimedOut:
    """A wait's timeout came first."""

    kind: Literal["timeout"] = "timeout"


@final
@dataclass(frozen=True, slots=True)
class Completed(Generic[T_co]):
    """A child gave its result before the wait's timeout: `case Completed(value): ...`."""

    __match_args__ = ("value",)

    value: T_co
    kind: Literal["completed"] = "completed"
