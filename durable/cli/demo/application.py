"""What the demo's workers run: `durable worker durable.cli.demo.application:durable`."""

from __future__ import annotations

import os
import sys
import threading

from durable import Durable
from durable.cli.demo.order import fulfil_order

durable = Durable.from_env([fulfil_order], lease="2s", sweep="500ms")


def _end_with_the_demo() -> None:
    """The demo holds the other end of stdin: when it is gone, however it went, this worker goes too."""
    sys.stdin.buffer.read()
    os._exit(1)


threading.Thread(target=_end_with_the_demo, daemon=True).start()
