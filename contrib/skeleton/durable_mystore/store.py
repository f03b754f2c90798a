"""`MyStore`: where executions are kept."""

from __future__ import annotations

from durable.backends.memory import MemoryStore
from durable.backends.wrapped import WrappedStore
from durable.clock import Clock


class MyStore(WrappedStore):
    """A store on mystore. So far it is the memory store: `within` does everything, and forgets it with the process.

    Make it yours in one of two ways. To keep what the memory store decides, override `through`, as a log or a cache
    does. To decide in a database, derive from `durable.protocols.DurableStore` instead: a type checker names the verbs
    that are missing, and the contract what each must do.
    """

    def __init__(self, place: str, namespace: str, clock: Clock) -> None:
        super().__init__(MemoryStore(clock, namespace))
        self.place = place
