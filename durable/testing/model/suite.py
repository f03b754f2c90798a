"""`StoreModel`: the random sequences of `StoreMachine` as a test that a backend's own test file subclasses."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from durable.backends.memory import MemoryStore
from durable.clock import VirtualClock
from durable.testing.model.machine import StoreMachine, Worlds
from durable.testing.model.pair import World
from durable.testing.model.reference import OUTCOMES

_START_MS: Final = 1_700_000_000_000


class StoreModel:
    """Subclass it with the fixture `worlds`: by name, how to open a fresh store; of each sequence all get the same.

        class TestMyStoreModel(StoreModel):
            @pytest.fixture
            def worlds(self) -> Worlds:
                return {"mine": my_world}

    where `my_world` is a function that gives an async context manager of a `World`: a store that is open and empty,
    closed afterwards, and a way to let time pass on its clock. Needs hypothesis.
    """

    machine: type[StoreMachine] = StoreMachine
    """Override it with a subclass that has more rules."""
    outcomes: frozenset[tuple[str, str]] = frozenset(
        (verb, what) for verb in OUTCOMES for what in OUTCOMES[verb]
    )
    """What must have come of some verb once; a run that misses one is too short to prove much."""
    sequences: int = 120
    acts: int = 50
    """In one sequence, at most."""

    def test_a_store_does_what_the_reference_says(self, worlds: Worlds) -> None:
        seen = Counter[tuple[str, str]]()
        with asyncio.Runner() as runner:
            play = partial(self.machine, worlds, runner, lambda verb, what: seen.update({(verb, what): 1}))
            # Any function that gives a machine will do, whatever its annotation says.
            run_state_machine_as_test(cast("type[StoreMachine]", play), settings=self.settings())
        for line in table(seen):
            print(line)  # noqa: T201  (pytest shows it when this fails, and on demand)
        assert sorted(self.outcomes - seen.keys()) == [], "these never happened"

    def settings(self) -> settings:
        """The same sequences each time; other ones when `DURABLE_TEST_LONG=1` asks for many."""
        is_long = os.environ.get("DURABLE_TEST_LONG") == "1"
        return settings(
            max_examples=int(os.environ.get("DURABLE_TEST_MODEL", "20000")) if is_long else self.sequences,
            stateful_step_count=100 if is_long else self.acts,
            derandomize=not is_long,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.filter_too_much,
                HealthCheck.data_too_large,
            ],
        )


def table(seen: Counter[tuple[str, str]]) -> Iterator[str]:
    """How often each outcome of each verb was seen."""
    for verb in sorted({verb for verb, _ in seen}):
        counts = [f"{what} {number}" for (of, what), number in sorted(seen.items()) if of == verb]
        yield f"{verb:<8}{', '.join(counts)}"


@asynccontextmanager
async def memory_world() -> AsyncGenerator[World]:
    """The memory store, to be compared with."""
    clock = VirtualClock(_START_MS)

    async def pass_time(ms: int) -> None:
        clock.advance_to(clock.now_ms() + ms)

    store = MemoryStore(clock)
    await store.open()
    yield World(store, pass_time, is_exact=True)
    await store.close()
