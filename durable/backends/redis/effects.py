"""`Effects`: what deliveries mean for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from durable.backends.redis.letters import Letter, Place
from durable.protocols import Doorbell


@final
@dataclass(slots=True)
class Effects:
    """Whom to ring and to hint, and what else is to be done."""

    doorbells: list[Doorbell] = field(default_factory=list[Doorbell])
    touched: dict[str, None] = field(default_factory=dict[str, None])
    next_at: int | None = None
    """When a gate lets somebody pass who was left waiting at it."""
    read: list[Letter] = field(default_factory=list[Letter])
    """Delivered letters that deliveries had put into outboxes, where they still are."""

    named: dict[Place, str] = field(default_factory=dict[Place, str])
    """The executions to which starts have led, where a kept answer names them."""

    def names(self, ids: Sequence[str], places: Sequence[Place]) -> Sequence[str]:
        """These ids as they are known by now."""
        return [self.named.get(place, each) for each, place in zip(ids, places, strict=True)]

    def opens(self, at: int) -> None:
        self.next_at = at if self.next_at is None else min(at, self.next_at)
