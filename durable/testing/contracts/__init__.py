"""What every backend must do, as tests that a backend's own test file subclasses with one fixture.

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self) -> AsyncIterator[DurableStore]:
            store = MyStore("my://localhost")
            await store.open()
            yield store
            await store.close()

The docstrings of `durable.protocols` are the specification; a test here is one sentence of it. Needs pytest.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("bus", "queue", "store", "transactions")))
