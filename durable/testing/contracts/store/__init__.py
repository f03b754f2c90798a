"""`StoreContract`: what a `DurableStore` must do, part by part."""

from durable.testing.contracts.store.claiming import Claiming
from durable.testing.contracts.store.committing import Committing
from durable.testing.contracts.store.concurrency import Concurrency
from durable.testing.contracts.store.creating import Creating
from durable.testing.contracts.store.events import Eventing
from durable.testing.contracts.store.gates import Gating
from durable.testing.contracts.store.inbox import Inbox
from durable.testing.contracts.store.joining import Joining
from durable.testing.contracts.store.leases import Leases
from durable.testing.contracts.store.lifecycle import Lifecycle
from durable.testing.contracts.store.processes import Processes
from durable.testing.contracts.store.pruning import Pruning
from durable.testing.contracts.store.reading import Reading
from durable.testing.contracts.store.repeats import Repeats
from durable.testing.contracts.store.ringing import Ringing
from durable.testing.contracts.store.scheduling import Scheduling
from durable.testing.contracts.store.sending import Sending
from durable.testing.contracts.store.states import NextStates
from durable.testing.contracts.store.takeover import Takeover
from durable.testing.contracts.store.texts import HostileTexts
from durable.testing.contracts.store.timers import Timers
from durable.testing.contracts.store.values import HostileValues
from durable.testing.contracts.store.watching import Watching

__all__ = ["StoreContract"]


class StoreContract(
    Lifecycle,
    Creating,
    Claiming,
    Committing,
    NextStates,
    Inbox,
    Timers,
    Takeover,
    Ringing,
    Watching,
    Sending,
    Gating,
    Joining,
    Eventing,
    Scheduling,
    Leases,
    Reading,
    Pruning,
    HostileValues,
    HostileTexts,
    Repeats,
    Concurrency,
    Processes,
):
    """Subclass it with the fixture `store`: opened, empty, and closed afterwards.

        class TestMyStore(StoreContract):
            @pytest.fixture
            async def store(self) -> AsyncIterator[DurableStore]:
                store = MyStore("my://localhost/fresh-namespace")
                await store.open()
                yield store
                await store.close()

    Two more may be overridden: the fixture `peers`, several stores on the same data as several processes
    would have them, for the races; and `pass_time`, when the store runs on a clock that the test can move.
    """
