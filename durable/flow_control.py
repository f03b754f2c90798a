"""Flow control: how many at once, how many in a time, and what is put together.

`Concurrency` holds back what is too much at once, `Throttle` what is too fast, and both lose nothing. `RateLimit`
drops. `Debounce` and `Batch` make one execution of several starts. The store decides, in the same write as the start or
the claim, so a limit is exact however many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias, cast, final

from durable._error import InvalidInput, shown
from durable.codec import dump_error, plain
from durable.duration import Duration, to_ms
from durable.errors import ConfigurationError
from durable.matching import MISSING, canonical, check_path, value_at
from durable.models import ErrorRecord
from durable.names import check_own_name
from durable.protocols import Gate, GateKind, Join, WhenFull

Key: TypeAlias = str | Callable[[Any], object]
"""A dotted path into the input, or a function of it. What is missing groups under one null key."""

_LONGEST_KEY: Final = 100
_WHEN_FULL: Final = {
    "queue": WhenFull.WAIT,
    "cancel_new": WhenFull.REFUSE,
    "cancel_running": WhenFull.REPLACE,
}


@final
@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` executions at once, for each `key`.

    A slot is held while an execution is being run, not while it waits; with `hold="run"` from its first claim to
    its end. With a `scope` all workflows that name it share the slots, by default a workflow has its own. `when_full`:
    "queue" lets a new one wait, greater priority first, "cancel_new" ends it as cancelled with code
    `concurrency_limited`, "cancel_running" cancels the oldest to make room.

    Raises:
        InvalidInput: a limit below 1, a bad path, or an unknown word.
    """

    limit: int
    _: KW_ONLY
    key: Key | None = None
    scope: str | None = None
    when_full: Literal["queue", "cancel_new", "cancel_running"] = "queue"
    hold: Literal["claim", "run"] = "claim"

    def __post_init__(self) -> None:
        _check_limit("Concurrency", self.limit)
        _check_key("Concurrency", self.key)
        if self.scope is not None:
            check_own_name(self.scope, "the scope of a Concurrency")
        if self.when_full not in _WHEN_FULL:
            raise InvalidInput(
                f"when_full is {shown(self.when_full)}", f"it is one of {', '.join(_WHEN_FULL)}"
            )
        if self.hold not in ("claim", "run"):
            raise InvalidInput(f"hold is {shown(self.hold)}", 'it is "claim" or "run"')


@final
@dataclass(frozen=True, slots=True)
class Throttle:
    """At most `limit` executions begin in each `per`, evenly spaced, `burst` more at once; the others wait in line.

    The generic cell rate algorithm (ITU-T I.371): no window of `per` has more than `limit + burst`. Nothing is lost.

    Raises:
        InvalidInput: a limit below 1, a burst below 0, a `per` of nothing, or a bad path.
    """

    limit: int
    per: Duration
    _: KW_ONLY
    key: Key | None = None
    burst: int = 0

    def __post_init__(self) -> None:
        _check_limit("Throttle", self.limit)
        _check_span("Throttle per", self.per)
        _check_key("Throttle", self.key)
        if not _is_int(self.burst) or self.burst < 0:
            raise InvalidInput(f"the burst of Throttle must be 0 or more, not {shown(self.burst)}")


@final
@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` executions in any window of `per`; what is too much ends as cancelled, code `rate_limited`.

    Raises:
        InvalidInput: a limit below 1, a `per` of nothing, or a bad path.
    """

    limit: int
    per: Duration
    _: KW_ONLY
    key: Key | None = None

    def __post_init__(self) -> None:
        _check_limit("RateLimit", self.limit)
        _check_span("RateLimit per", self.per)
        _check_key("RateLimit", self.key)


@final
@dataclass(frozen=True, slots=True)
class Debounce:
    """One execution, `period` after the last start of its key, with the last input; at most `max_wait` after the first.

    Raises:
        InvalidInput: a period of nothing, a `max_wait` below it, or a bad path.
    """

    period: Duration
    _: KW_ONLY
    key: Key | None = None
    max_wait: Duration | None = None

    def __post_init__(self) -> None:
        period = _check_span("Debounce period", self.period)
        _check_key("Debounce", self.key)
        if self.max_wait is not None and _check_span("Debounce max_wait", self.max_wait) < period:
            raise InvalidInput(
                f"max_wait {shown(self.max_wait)} is shorter than the period {shown(self.period)}"
            )


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """One execution for up to `size` items of a key: when there are so many, or `every` after the first.

    The workflow's input is a list; the lists of the starts that join are put together in their order. A start's own
    list is never split, and items of different keys never meet.

    Raises:
        InvalidInput: a size below 1, an `every` of nothing, or a bad path.
    """

    size: int
    every: Duration
    _: KW_ONLY
    key: Key | None = None

    def __post_init__(self) -> None:
        _check_limit("Batch", self.size)
        _check_span("Batch every", self.every)
        _check_key("Batch", self.key)


Rules: TypeAlias = Concurrency | Sequence[Concurrency]

_CONTRADICTIONS: Final[Sequence[tuple[str, str, str]]] = (
    ("batch", "debounce", "one collects, the other keeps the last only"),
    ("batch", "throttle", "a batch has its pace from `every`"),
    ("batch", "rate_limit", "a batch that is dropped loses all that it collected"),
    ("debounce", "rate_limit", "a debounced start that is dropped loses the last input"),
)


@final
class FlowControl:
    """All the rules of one workflow.

    Raises:
        ConfigurationError: two of them contradict each other; the text names both.
    """

    def __init__(
        self,
        workflow: str,
        *,
        concurrency: Rules | None = None,
        throttle: Throttle | None = None,
        rate_limit: RateLimit | None = None,
        debounce: Debounce | None = None,
        batch: Batch | None = None,
    ) -> None:
        self.workflow = workflow
        rules = concurrency if concurrency is not None else ()
        self.concurrency = (rules,) if isinstance(rules, Concurrency) else tuple(rules)
        self.throttle, self.rate_limit, self.debounce, self.batch = throttle, rate_limit, debounce, batch
        self._check()

    @property
    def joins(self) -> bool:
        """Whether several starts may be one execution."""
        return self.debounce is not None or self.batch is not None

    def __bool__(self) -> bool:
        return bool(self.concurrency or self.throttle or self.rate_limit or self.debounce or self.batch)

    def gates(self, input: object, data: bytes) -> tuple[Gate, ...]:
        """What an execution with this input passes; `data` is what is stored of it.

        Windows first, so that nothing is held for what is dropped; slots in an order that is one for all workflows,
        those first that are kept while an execution waits, because it seeks the others again while it has them: so no
        two executions ever wait for each other; rates last, so that what they let pass begins at once.
        """
        structure = plain(data) if self._asks_for_paths else None
        item = input
        if self.batch is not None:
            item = cast("list[object]", input)[0]
            structure = cast("list[object]", structure)[0] if self._asks_for_paths else None
        gates: list[Gate] = []
        if self.rate_limit is not None:
            rule = self.rate_limit
            name = f"{self.workflow}/rate_limit"
            gates.append(
                Gate(
                    name,
                    _key(rule.key, item, structure),
                    GateKind.WINDOW,
                    rule.limit,
                    to_ms(rule.per),
                    refusal=_refusal("rate_limited", f"the rate limit of {self.workflow} was reached"),
                )
            )
        for name, slots in self._slots():
            gates.append(
                Gate(
                    name,
                    _key(slots.key, item, structure),
                    GateKind.SLOTS,
                    slots.limit,
                    when_full=_WHEN_FULL[slots.when_full],
                    keeps=slots.hold == "run",
                    refusal=_refusal("concurrency_limited", f"the slots of {name} were taken"),
                )
            )
        if self.throttle is not None:
            pace = self.throttle
            key = _key(pace.key, item, structure)
            rate = Gate(
                f"{self.workflow}/throttle", key, GateKind.RATE, pace.limit, to_ms(pace.per), pace.burst
            )
            gates.append(rate)
        return tuple(gates)

    def join(self, input: object, data: bytes) -> Join | None:
        """The group that a start with this input joins.

        Raises:
            InvalidInput: the list of a batch is empty, or has items of different keys.
        """
        if self.debounce is not None:
            key = _key(self.debounce.key, input, plain(data) if isinstance(self.debounce.key, str) else None)
            most = None if self.debounce.max_wait is None else to_ms(self.debounce.max_wait)
            return Join(f"{self.workflow}|{key}", to_ms(self.debounce.period), most)
        if self.batch is not None:
            items = cast("list[object]", input)
            structures = cast("list[object]", plain(data))
            keys = {_key(self.batch.key, *pair) for pair in zip(items, structures, strict=True)}
            if len(keys) != 1:
                what = "no item" if not keys else f"items of {len(keys)} keys"
                raise InvalidInput(
                    f"a start of {self.workflow} has {what} for its batch",
                    "start it once for each key, with 1 item or more",
                )
            group = f"{self.workflow}|{keys.pop()}"
            return Join(group, to_ms(self.batch.every), size=self.batch.size, items=len(items))
        return None

    @property
    def needs_code(self) -> bool:
        """Whether a key is a function, so that only a process that has it can start the workflow."""
        rules = (*self.concurrency, self.throttle, self.rate_limit, self.debounce, self.batch)
        return any(callable(rule.key) for rule in rules if rule is not None)

    def to_dict(self) -> dict[str, object]:
        """Plain data from which `from_dict` makes an equal one, unless a key is a function."""
        kinds = {"throttle": self.throttle, "rate_limit": self.rate_limit}
        groups = {"debounce": self.debounce, "batch": self.batch}
        found: dict[str, object] = {
            name: _to_dict(rule) for name, rule in (*kinds.items(), *groups.items()) if rule is not None
        }
        if self.concurrency:
            found["concurrency"] = [_to_dict(rule) for rule in self.concurrency]
        return found

    @classmethod
    def from_dict(cls, workflow: str, found: Mapping[str, Any]) -> FlowControl:
        make = {"throttle": Throttle, "rate_limit": RateLimit, "debounce": Debounce, "batch": Batch}
        rules: dict[str, Any] = {name: make[name](**found[name]) for name in make if name in found}
        slots = [Concurrency(**rule) for rule in found.get("concurrency", ())]
        return cls(workflow, concurrency=slots, **rules)

    # ----

    @property
    def _asks_for_paths(self) -> bool:
        rules = (*self.concurrency, self.throttle, self.rate_limit)
        return any(isinstance(rule.key, str) for rule in rules if rule is not None)

    def _slots(self) -> list[tuple[str, Concurrency]]:
        named = [
            (f"scope/{rule.scope}" if rule.scope else f"{self.workflow}/concurrency{number or ''}", rule)
            for number, rule in enumerate(self.concurrency)
        ]
        return sorted(named, key=lambda pair: (pair[1].hold != "run", pair[1].limit, pair[0]))

    def _check(self) -> None:
        for one, other, why in _CONTRADICTIONS:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ConfigurationError(
                    f"workflow {self.workflow} has both {one}= and {other}=: {why}", "leave one of them out"
                )
        names = [name for name, _ in self._slots()]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigurationError(
                f"workflow {self.workflow} has two concurrency rules for {twice}",
                "give each a scope of its own",
            )
        if self.batch is not None and any(rule.when_full != "queue" for rule in self.concurrency):
            raise ConfigurationError(
                f"workflow {self.workflow} has both batch= and a concurrency that cancels: "
                "a batch that is cancelled loses all that it collected",
                'leave one of them out, or use when_full="queue"',
            )


Limit: TypeAlias = Concurrency | Throttle
"""What steps share by a name: so many at once, or so many in a time."""


def limit_gate(name: str, limit: Limit) -> Gate:
    """The gate of a named limit."""
    if isinstance(limit, Throttle):
        return Gate(f"limit/{name}", "", GateKind.RATE, limit.limit, to_ms(limit.per), limit.burst)
    return Gate(f"limit/{name}", "", GateKind.SLOTS, limit.limit)


def check_limits(limits: Mapping[str, Limit]) -> Mapping[str, Limit]:
    """The named limits themselves.

    Raises:
        InvalidInput: a name is hostile or reserved.
        ConfigurationError: one is no Concurrency or Throttle, or has what means nothing for steps.
    """
    for name, limit in limits.items():
        check_own_name(name, "the name of a limit")
        if not isinstance(cast("object", limit), Concurrency | Throttle):
            raise ConfigurationError(f"limit {name} is {shown(limit)}", "give a Concurrency or a Throttle")
        plain_one = limit.key is None and (
            isinstance(limit, Throttle) or limit == Concurrency(limit.limit, when_full="queue")
        )
        if not plain_one:
            raise ConfigurationError(
                f"limit {name} has a key, a scope or a way to cancel, which mean nothing for steps",
                "leave them out",
            )
    return dict(limits)


def merged(data: bytes) -> bytes:
    """The input of a batch as one list: what joined stands behind line feeds, which JSON has none of."""
    if b"\n" not in data:
        return data
    return b"[" + b",".join(part.strip()[1:-1] for part in data.split(b"\n")) + b"]"


def _key(key: Key | None, input: object, structure: object) -> str:
    if key is None:
        return ""
    found = value_at(structure, key) if isinstance(key, str) else key(input)
    text = canonical(None if found is MISSING else found)
    return (
        text if len(text) <= _LONGEST_KEY and text.isprintable() else sha256(text.encode()).hexdigest()[:32]
    )


def _refusal(code: str, message: str) -> bytes:
    return dump_error(ErrorRecord("durable.errors.ExecutionCancelled", message, code=code, retry=False))


def _to_dict(rule: Concurrency | Throttle | RateLimit | Debounce | Batch) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name in rule.__dataclass_fields__:
        value: object = getattr(rule, name)
        is_span = name in ("per", "period", "max_wait", "every") and value is not None
        fields[name] = (
            to_ms(cast("Duration", value)) / 1000 if is_span else None if callable(value) else value
        )
    return fields


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_limit(what: str, limit: object) -> None:
    if not _is_int(limit) or cast("int", limit) < 1:
        raise InvalidInput(f"the limit of {what} must be a whole number of 1 or more, not {shown(limit)}")


def _check_span(what: str, span: Duration) -> int:
    ms = to_ms(span, what=what)
    if ms < 1:
        raise InvalidInput(f"{what} must be longer than nothing, not {shown(span)}")
    return ms


def _check_key(what: str, key: Key | None) -> None:
    if key is not None and not callable(key):
        check_path(key, f"the key of {what}")
