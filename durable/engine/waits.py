"""What the branches of a body wait for, and who of them gets what the inbox brings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import final

from durable.engine.branch import AnyTask
from durable.engine.journal import Topic
from durable.protocols import Checkpoint, InboxEntry


@final
@dataclass(slots=True, eq=False)
class Wait:
    """A branch that is blocked until something about one of `topics` is in the inbox."""

    kind: str
    topics: tuple[Topic, ...]
    settle: Callable[[InboxEntry], Checkpoint]
    """Take the entry: consume it and record what it means, at once."""
    wake_at: int | None = None
    task: AnyTask | None = None
    future: asyncio.Future[Checkpoint | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@final
class Waits:
    """The branches of one body that are blocked, in the order in which they began to wait."""

    def __init__(self) -> None:
        self._by_task: dict[AnyTask, Wait] = {}
        self._by_topic: dict[Topic, dict[Wait, None]] = {}

    def __len__(self) -> int:
        return len(self._by_task)

    def __contains__(self, task: AnyTask) -> bool:
        return task in self._by_task

    def all(self) -> Collection[Wait]:
        return self._by_task.values()

    def add(self, task: AnyTask, wait: Wait) -> None:
        wait.task = task
        self._by_task[task] = wait
        for topic in wait.topics:
            self._by_topic.setdefault(topic, {})[wait] = None

    def remove(self, wait: Wait) -> None:
        """The wait is over. Called twice: nothing happens."""
        if wait.task is not None and self._by_task.get(wait.task) is wait:
            del self._by_task[wait.task]
        for topic in wait.topics:
            waits = self._by_topic.get(topic)
            if waits is not None and waits.pop(wait, wait) is None and not waits:
                del self._by_topic[topic]

    def release(self, wait: Wait) -> None:
        """Let a branch go on that waited for nothing from the inbox."""
        self.remove(wait)
        if not wait.future.done():
            wait.future.set_result(None)

    def settle(self, topic: Topic, entry: InboxEntry) -> None:
        """Give the entry to the first wait for its topic, if there is one."""
        for wait in tuple(self._by_topic.get(topic, ())):
            if not wait.future.done():  # else its task was cancelled in this very turn of the loop
                self.remove(wait)
                wait.future.set_result(wait.settle(entry))
                return
