"""The check of the memory store: it finds each kind of damage, and none in what the store does."""

import random
from collections.abc import Callable

import pytest

from durable.backends.memory.tables import Tables
from durable.models import ExecutionStatus
from durable.protocols import (
    Block,
    Close,
    Continue,
    Live,
    Message,
    MessageKind,
    Next,
    Out,
    Post,
    Reach,
    Ready,
    State,
    Watch,
)
from tests.backends.memory_world import (
    DONE,
    PARK,
    RUN,
    START_MS,
    WANTED,
    World,
    at_once,
    nap,
    new,
    signal,
    step,
)


@pytest.fixture
def world() -> World:
    return World()


def test_whatever_is_done_the_indexes_fit(world: World) -> None:
    for seed in range(40):
        chance, world = random.Random(seed), World()
        names = [f"x{number}" for number in range(6)]
        for turn in range(150):
            do_something(world, chance, names, turn)
            if turn % 10 == 0:
                world.assert_sound()
        world.assert_sound()
        at_once(world.store.prune(before=2**53, status=list(ExecutionStatus), limit=99))
        world.assert_sound()


def do_something(world: World, chance: random.Random, names: list[str], turn: int) -> None:
    """Anything that a client, a worker, a ticker or an operator may do, to any execution."""
    name, other, store = chance.choice(names), chance.choice(names), world.store
    now = world.clock.now_ms()
    soon = now + chance.randrange(50)
    row = at_once(store.get(name))
    match chance.randrange(9):
        case 0 | 1:
            key = chance.choice([None, name, "shared"])
            delay_ms, timeout_ms = chance.choice([0, 30]), chance.choice([None, 40])
            spec = new(name, key=key, reuse_closed_key=True, delay_ms=delay_ms, timeout_ms=timeout_ms)
            at_once(store.create(spec, op_id=f"create {turn}"))
        case 2:
            kind, reach = chance.choice(list(MessageKind)), chance.choice(list(Reach))
            at_once(store.post(name, Message(f"m{turn % 40}", kind, "m", reach=reach)))
        case 3:
            world.clock.advance_to(soon)
            live = Live({}, at=chance.choice([0, soon]))
            at_once(store.tick(0, live=live, limit=chance.choice([1, 100])))
        case 4:
            at_once(store.due(0, WANTED, limit=2, again_ms=20))
        case 5 | 6:
            at_once(store.claim(name, nonce=f"nonce {name}", worker=f"w{turn % 3}"))
        case _ if row is not None and row.state is State.OWNED:
            nexts: list[Next] = [RUN, PARK, PARK, DONE, Continue(b""), Block(ExecutionStatus.PAUSED)]
            nexts += [Ready(soon, ExecutionStatus.RETRYING, 2), Close(ExecutionStatus.FAILED)]
            outs: list[Out] = [Watch(other, "join"), Post(other, signal(f"m{turn % 40}"))]
            world.send(
                name,
                chance.choice(nexts),
                seen=chance.choice([0, row.inbox_seq]),
                checkpoints=[chance.choice([nap(f"s{turn % 5}", soon), step(f"s{turn % 5}")])],
                drop=chance.choice([[], ["s1", "s2"]]),
                consume=[(chance.randrange(1, 5), "a")],
                out=chance.sample(outs, chance.randrange(3)),
            )
        case _:
            pass


DAMAGES: dict[str, Callable[[Tables], object]] = {
    "ready, not in its index": lambda tables: tables.ready.remove(tables.executions["ready"]),
    "owned, in the ready index": lambda tables: tables.ready.add(tables.executions["owned"], START_MS),
    "owned, not in its index": lambda tables: tables.owned.clear(),
    "ready, in the index of a worker": lambda tables: tables.owned["w"].update(
        {tables.executions["ready"]: None}
    ),
    "a timer, not in its index": lambda tables: tables.timers.discard(("owned", "nap")),
    "nobody's timer in the index": lambda tables: tables.timers.put(("ready", "nap"), 1),
    "an open checkpoint without its timer": lambda tables: tables.executions["owned"].timers.clear(),
    "a timer without its checkpoint": lambda tables: tables.executions["owned"].history.clear(),
    "unread, but not listed": lambda tables: tables.executions["owned"].unread.clear(),
    "closed, with a timer": lambda tables: tables.executions["closed"].timers.update(nap=1),
    "closed, and watched": lambda tables: tables.watchers.update(closed={("owned", "join"): None}),
    "missing, and watched": lambda tables: tables.watchers.update(missing={("owned", "join"): None}),
    "closed, not in its index": lambda tables: tables.closed.clear(),
    "a key of nobody": lambda tables: tables.keys.update({("order", "other"): tables.executions["ready"]}),
    "without a place in the order": lambda tables: tables.numbers.popitem(),
    "ready, with a nonce": lambda tables: setattr(tables.executions["ready"], "nonce", "n"),
    "owned by no worker": lambda tables: setattr(tables.executions["owned"], "worker", None),
    "closed, but not finished": lambda tables: setattr(tables.executions["closed"], "finished_at", None),
    "closed, shown as running": lambda tables: setattr(
        tables.executions["closed"], "status", ExecutionStatus.RUNNING
    ),
    "owned, to be woken": lambda tables: setattr(tables.executions["owned"], "wake_at", 1),
    "committed, without a version": lambda tables: setattr(tables.executions["owned"], "ver", 0),
    "inbox beyond its end": lambda tables: setattr(tables.executions["owned"], "inbox_seq", 0),
    "history beyond its end": lambda tables: setattr(tables.executions["owned"], "history_seq", 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_kind_of_damage_is_found(world: World, damage: str) -> None:
    world.create("ready", key="k")
    world.running("owned")
    world.post("owned", signal())
    world.commit("owned", checkpoints=[nap("nap", START_MS + 1)])
    world.running("closed")
    world.commit("closed", DONE)
    world.assert_sound()
    DAMAGES[damage](world.store._tables)  # pyright: ignore[reportPrivateUsage]
    assert at_once(world.store.check()) != []
