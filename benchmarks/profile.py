"""Where does the time of a workload go? Samples of its event loop's thread, by part of the library.

py-spy looks at the program from outside, some hundred times a second, while it uses the processor. A sample counts for
the part that the innermost frame of ours belongs to: what the interpreter and other libraries do for a part is its own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.worlds import ROOT, World

_TIMES: Final[Mapping[str, int]] = {"w1": 4, "w2": 4, "w4": 1, "w6": 6}
"""Workloads of one process each, and how often they run, so that there is enough to look at."""
_LOOP: Final = "event loop"
_PARTS: Final[Mapping[str, Sequence[str]]] = {
    "the workload": ("benchmarks/",),
    "start and result": ("durable/app.py", "durable/client.py", "durable/handle.py", "durable/workflow.py"),
    "worker": ("durable/worker/",),
    "values": ("durable/codec/",),
    "connection": (
        "durable/backends/redis/link.py",
        "durable/backends/redis/wire.py",
        "durable/backends/redis/node.py",
    ),
    "doorbells and hints": (
        "durable/backends/ready_queue.py",
        "durable/backends/memory/bus.py",
        "durable/backends/redis/bus.py",
        "durable/backends/sqlite/bus.py",
        "durable/backends/rabbitmq/",
        "/aiormq/",
        "/aio_pika/",
        "/pamqp/",
    ),
    "store": ("durable/backends/",),
    "engine": ("durable/",),
}
"""Part -> how the paths of its files begin, in the checkout, or what is in them, elsewhere. The first counts."""
FIGURES: Final = tuple(
    Figure(f"{workload}: {what}", is_compared=False)
    for workload in _TIMES
    for what in (*(f"{part} %" for part in (*_PARTS, _LOOP)), "samples")
)
_BEGUN: Final = "run_process ("
_LOADING: Final = "<frozen importlib"
_HERTZ: Final = 400


async def measure(world: World, scale: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    for workload, times in _TIMES.items():
        found = Counter[str]()
        for _ in range(times if scale >= 1 else 1):
            found += by_part(await stacks(workload, world.backend, scale))
        for part in (*_PARTS, _LOOP):
            figures[f"{workload}: {part} %"] = 100 * found[part] / max(found.total(), 1)
        figures[f"{workload}: samples"] = found.total()
    return figures


def by_part(stacks: Iterable[str]) -> Counter[str]:
    """How many samples each part has, of lines with a stack, its frames from the outermost on, and their number."""
    found = Counter[str]()
    for line in stacks:
        stack, _, number = line.rpartition(" ")
        if _BEGUN in stack and _LOADING not in stack:
            found[_part_of(stack.split(";"))] += int(number)
    return found


def _part_of(frames: Sequence[str]) -> str:
    for frame in reversed(frames):
        if _BEGUN in frame:
            break
        path = frame.rpartition("(")[2].removeprefix(f"{ROOT}/")
        for part, places in _PARTS.items():
            if any(place in path if place.startswith("/") else path.startswith(place) for place in places):
                return part
    return _LOOP


async def stacks(workload: str, backend: str, scale: float) -> Sequence[str]:
    """Those of one run of it, as `by_part` takes them. Raises: `RuntimeError` where processes may not be looked at."""
    with tempfile.NamedTemporaryFile("r") as kept:
        sampler = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("py-spy")),
            *(
                "record",
                "--format=raw",
                "--full-filenames",
                f"--rate={_HERTZ}",
                f"--output={kept.name}",
                "--",
            ),
            *(sys.executable, "-m", "benchmarks.one", workload, backend, str(scale)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await sampler.communicate()
        if sampler.returncode:
            raise RuntimeError(f"{workload} on {backend} cannot be sampled: {said.decode(errors='replace')}")
        return kept.read().splitlines()
