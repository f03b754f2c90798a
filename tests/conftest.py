"""What every test shares: asyncio as the event loop, and no deadline on hypothesis examples."""

import pytest
from hypothesis import settings

settings.register_profile("durable", deadline=None)
settings.load_profile("durable")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
