"""`--metrics`: what a worker's process shows of itself over HTTP."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import final

from durable.app import Durable
from durable.errors import ConfigurationError
from durable.telemetry import Listener


@final
class Probing:
    """Listens to a worker, and then serves what it knows.

    Raises:
        InvalidInput: the address is none.
        ConfigurationError: what it needs is not installed.
    """

    def __init__(self, address: str) -> None:
        if find_spec("prometheus_client") is None:
            raise ConfigurationError("--metrics needs prometheus-client", "pip install 'durable[metrics]'")
        from durable.metrics import Metrics
        from durable.probes import Health, parse_address

        parse_address(address)
        self._address = address
        self._metrics, self._health = Metrics(), Health()

    @property
    def listeners(self) -> Sequence[Listener]:
        return (self._metrics, self._health)

    @contextmanager
    def serving(self, durable: Durable) -> Generator[str]:
        """Answer within the block, which is on the loop of a `Durable` that is entered; where."""
        from durable.metrics import CONTENT_TYPE
        from durable.probes import Probes

        probes = Probes(self._address, self._health, self._metrics.text, CONTENT_TYPE)
        self._metrics.watch(durable)
        self._health.watch(durable)
        try:
            host = f"[{probes.host}]" if ":" in probes.host else probes.host
            yield f"http://{host}:{probes.port}"
        finally:
            self._health.stop()
            probes.close()
