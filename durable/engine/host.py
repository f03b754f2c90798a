"""What a worker lends to its attempts, and what a test may put in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from durable.clock import Clock
from durable.errors import DurableError
from durable.flow_control import Limit
from durable.protocols import Checkpoint, Doorbell, DurableStore
from durable.telemetry import Telemetry
from durable.workflow import Registry

StepFn = Callable[..., object]


class Stubs(Protocol):
    """What stands in for the bodies of steps in a test."""

    def replace(self, step_id: str, fn: StepFn) -> StepFn: ...


class Onlooker(Protocol):
    """Who has a body replayed to see where it comes to, and begins nothing."""

    def asked(self, key: str, kind: str, name: str, found: Checkpoint | None) -> None:
        """The body has come to this operation."""
        ...

    def reached_new(self) -> None:
        """The operation that the running task has come to last is not recorded, or is to be tried again."""
        ...

    def refused(self, error: DurableError) -> None:
        """The execution would be parked."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """What a worker lends to its attempts."""

    clock: Clock
    random: Random
    threads: Executor
    deps: object
    max_crashes: int
    wake_at: Callable[[int], None]
    """A timer was stored that is due at this instant."""
    announce: Callable[[Sequence[Doorbell], Sequence[str]], None]
    """A write has made these executions ready, and left something for those."""
    nudge: Callable[[str], None]
    """Have a parked execution claimed again, because its body goes on by itself."""
    limits: Mapping[str, Limit] = field(default_factory=dict[str, Limit])
    """By which steps that name one are held back."""
    registry: Registry = field(default_factory=Registry)
    """For what a body starts without naming it: subscribers of its events."""
    store: DurableStore | None = None
    """For what a body asks; None: it asks nothing."""
    stubs: Stubs | None = None
    onlooker: Onlooker | None = None
    telemetry: Telemetry | None = None
    forgetful: bool = False
    """Give the execution back, to be replayed, as soon as something new is recorded and something else begins."""
