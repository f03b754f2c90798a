"""`Lane`: a thread that serves event loops, as many requests at a time as have piled up, in order.

    loop: submit ──▶ queue ──▶ thread: serve(group) ──▶ call_soon_threadsafe, once for each loop ──▶ futures

Who waits may be cancelled at any time: the future is dropped, and the request goes through all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from durable.backends.sqlite.hub import check_process
from durable.errors import StoreUnavailable

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)
T = TypeVar("T")

logger = logging.getLogger(__name__)

_AFTER_A_FAILURE_S: Final = 1.0
MOST: Final = 256
"""Requests that are served in one go."""


# Plain tuples: there is one of each for every call.
Request = tuple[Callable[[C], object], "asyncio.Future[Any]", str]
"""Something to be done once, for whom, and its `op_id`. What it returns or raises is the answer."""
Answer = tuple["asyncio.Future[Any]", object, BaseException | None]
"""For whom, and what was returned or raised."""


class Server(Protocol[C_co]):
    """What a lane does. All of it is called on the lane's thread."""

    def serve(self, group: Sequence[Request[C_co]]) -> Sequence[Answer]:
        """One answer for each request."""
        ...

    def rest(self) -> float | None:
        """Called after a group was answered, or when nothing came: for how many seconds to wait for requests."""
        ...

    def close(self) -> None:
        """Called at the end."""
        ...


class Lane(Generic[C]):
    def __init__(self, name: str, server: Server[C]) -> None:
        self._server = server
        self._requests: queue.SimpleQueue[Request[C] | None] = queue.SimpleQueue()
        self._pid = os.getpid()
        self._gate = threading.Lock()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, act: Callable[[C], T], op_id: str = "") -> asyncio.Future[T]:
        """What `act` returns or raises, on the running loop.

        Raises: `StoreUnavailable` when the lane is closed, or belongs to the parent of this process.
        """
        check_process(self._pid)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._gate:
            if self._is_closing:
                raise StoreUnavailable("the store is closed", "open it first, and close it last")
            self._requests.put((act, future, op_id))
        return future

    def close(self) -> None:
        """Serve what was submitted, and end. Blocks. Called twice: nothing happens."""
        with self._gate:
            if not self._is_closing:
                self._is_closing = True
                self._requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group: list[Request[C]] = []
            with contextlib.suppress(queue.Empty):
                request = self._requests.get(timeout=self._rest())
                while request is not None:
                    group.append(request)
                    if len(group) == MOST:
                        break
                    request = self._requests.get_nowait()
                is_open = request is not None
            if group:
                _deliver(self._serve(group))
        self._server.close()

    def _rest(self) -> float | None:
        try:
            return self._server.rest()
        except Exception:
            logger.exception("housekeeping failed, and is tried again later")
            return _AFTER_A_FAILURE_S

    def _serve(self, group: Sequence[Request[C]]) -> Sequence[Answer]:
        try:
            return self._server.serve(group)
        except Exception as error:  # noqa: BLE001 the lane goes on, and whoever asked is told
            return [(future, None, error) for _, future, _ in group]


def _deliver(answers: Sequence[Answer]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        loops.setdefault(answer[0].get_loop(), []).append(answer)
    for loop, its_own in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, its_own)


def _settle(answers: Sequence[Answer]) -> None:
    for future, value, error in answers:
        if not future.done():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
