"""Random workflows, made from a seed, and what must come of them.

A program is plain data: a tree of operations, which is the input of one workflow that carries it out. `predict` says
what it gives without running anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from durable import (
    Completed,
    Context,
    ExecutionFailed,
    Fail,
    Handle,
    Received,
    Retry,
    Signal,
    StepFailed,
    TimedOut,
    current_step,
    workflow,
)
from durable.testing import DurableEnv
from durable.testing.simulation.world import Outcome

Op = dict[str, Any]

SIGNALS = [Signal(f"go{number}", int) for number in range(4)]
NOBODY = Signal("nobody", int)
ANYTHING = "<a number, or a timeout>"
EITHER = "<true or false>"
OPERATIONS = (
    "step", "flaky", "failing", "thread", "sleep", "wait", "race", "unheard", "gather", "group", "map", "child",
    "failing child", "detached", "saga", "broken saga", "loop", "value", "note", "chance", "slow", "timed step",
    "patch", "cancelled branch",
)  # fmt: skip
ENDS = ("return", "return", "return", "fail", "bail", "retry", "again", "rollback")


class Flaky(Exception):
    pass


# ---- what the programs do


async def give(value: int) -> int:
    return value


def give_in_a_thread(value: int) -> int:
    return value


async def give_slowly(value: int) -> int:
    await asyncio.sleep(2)
    return value


async def give_late(value: int) -> int:
    if current_step().attempt == 1:
        await asyncio.sleep(60)
    return value


async def give_in_the_end(value: int, failures: int) -> int:
    if current_step().attempt <= failures:
        raise Flaky(str(current_step().attempt))
    return value


async def undo(value: int) -> None: ...


@workflow(name="program", retry=Retry(3, base="1s", jitter=0), rollback="on_failure")
async def program(ctx: Context, root: Op) -> list[Any]:
    results = await perform(ctx, root["body"])
    match root["end"]:
        case "fail":
            raise Fail("as planned", code="planned")
        case "bail":
            ctx.bail("as planned")
        case "retry" if ctx.attempt < 3:
            raise Flaky(str(ctx.attempt))
        case "again" if root["left"]:
            ctx.continue_as_new({**root, "left": root["left"] - 1})
        case "rollback":
            await ctx.rollback()
    return results


async def perform(ctx: Context, ops: list[Op]) -> list[Any]:
    return [await PERFORM[op["op"]](ctx, op) for op in ops]


async def _step(ctx: Context, op: Op) -> Any:
    return await ctx.step("step", give, op["value"])


async def _flaky(ctx: Context, op: Op) -> Any:
    retry = Retry(op["failures"] + 1, base="1s")
    return await ctx.step("flaky", retry=retry).up(give_in_the_end, op["value"], op["failures"]).down(undo)


async def _failing(ctx: Context, op: Op) -> Any:
    try:
        return await ctx.step("failing", give_in_the_end, op["value"], 1)
    except (Flaky, StepFailed):
        return "failed"


async def _thread(ctx: Context, op: Op) -> Any:
    return await ctx.step("thread").up(give_in_a_thread, op["value"]).down(undo)


async def _slow(ctx: Context, op: Op) -> Any:
    return await ctx.step("slow", give_slowly, op["value"])


async def _timed_step(ctx: Context, op: Op) -> Any:
    return await ctx.step("late", retry=Retry(2, base="1s"), timeout="5s").up(give_late, op["value"])


async def _sleep(ctx: Context, op: Op) -> Any:
    await ctx.sleep(op["seconds"])
    return "slept"


async def _wait(ctx: Context, op: Op) -> Any:
    return await ctx.wait_for_signal(SIGNALS[op["signal"]])


async def _race(ctx: Context, op: Op) -> Any:
    match await ctx.wait_for_any(SIGNALS[op["signal"]], NOBODY, timeout=op["seconds"]):
        case Received(number):
            return number
        case TimedOut():
            return "timeout"


async def _unheard(ctx: Context, op: Op) -> Any:
    return (await ctx.wait_for_signal(NOBODY, timeout=op["seconds"])).kind


async def _gather(ctx: Context, op: Op) -> Any:
    return list(await ctx.gather(*(perform(ctx, part) for part in op["parts"])))


async def _group(ctx: Context, op: Op) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(perform(ctx, part)) for part in op["parts"]]
    return [task.result() for task in tasks]


async def _map(ctx: Context, op: Op) -> Any:
    return await ctx.map("item", give, op["items"], limit=op["limit"])


async def _child(ctx: Context, op: Op) -> Any:
    return await ctx.run(program, op["root"])


async def _failing_child(ctx: Context, op: Op) -> Any:
    try:
        return await ctx.run(program, op["root"])
    except ExecutionFailed as error:
        return error.code


async def _detached(ctx: Context, op: Op) -> Any:
    child = await ctx.start(program, op["root"], detached=True)
    match await ctx.wait_for(child, timeout="30d"):
        case Completed(value):
            return value
        case TimedOut():
            return "timeout"


async def _saga(ctx: Context, op: Op) -> Any:
    async with ctx.saga():
        for value in op["values"]:
            await ctx.step("part").up(give, value).down(undo)
    return sum(op["values"])


async def _broken_saga(ctx: Context, op: Op) -> Any:
    try:
        async with ctx.saga():
            for value in op["values"]:
                await ctx.step("part").up(give, value).down(undo)
            raise Flaky("as planned")
    except Flaky:
        return "undone"


async def _loop(ctx: Context, op: Op) -> Any:
    return [await perform(ctx, op["body"]) for _ in range(op["times"])]


async def _value(ctx: Context, op: Op) -> Any:
    await ctx.set_value("progress", op["value"])
    return "set"


async def _note(ctx: Context, op: Op) -> Any:
    await ctx.note("passed by", value=op["value"])
    return "noted"


async def _chance(ctx: Context, op: Op) -> Any:
    first = [str(ctx.uuid4()), ctx.random.random(), str(ctx.now())]
    # Another attempt of the run is no replay: it has a time of its own.
    kept: Any = await ctx.step(f"chance:{ctx.attempt}", lambda: first)
    return "the same" if kept == first else f"{kept} became {first}"


async def _patch(ctx: Context, op: Op) -> Any:
    return ctx.patched("new")


async def _cancelled_branch(ctx: Context, op: Op) -> Any:
    try:
        async with asyncio.timeout(0):
            await ctx.sleep("1d")
    except TimeoutError:
        return "given up"


PERFORM: dict[str, Callable[[Context, Op], Any]] = {
    name: globals()["_" + name.replace(" ", "_")] for name in OPERATIONS
}


# ---- making one


def make(random: Random) -> Op:
    """A program."""
    return _root(random, depth=0)


def _root(random: Random, depth: int) -> Op:
    ends = ENDS if depth == 0 else ("return",)
    return {
        "body": _ops(random, depth, most=4 - depth),
        "end": random.choice(ends),
        "left": random.randint(1, 2),
    }


def _ops(random: Random, depth: int, most: int) -> list[Op]:
    return [_op(random, depth) for _ in range(random.randint(1, max(1, most)))]


def _op(random: Random, depth: int, *, below: bool = False) -> Op:
    name = random.choice(OPERATIONS)
    if depth >= 2 and name in ("gather", "group", "child", "failing child", "detached", "loop"):
        name = "step"
    if depth >= 1 and name in ("wait", "race"):
        name = "unheard"  # nobody knows how often, or to whom
    op: Op = {"op": name, "value": random.randrange(100)}
    match name:
        case "flaky":
            op["failures"] = random.randint(1, 3)
        case "sleep" | "unheard" | "race":
            op["seconds"] = random.choice((0.001, 1, 30, 86400))
        case "gather" | "group":
            op["parts"] = [_ops(random, depth + 1, 2) for _ in range(random.randint(1, 3))]
        case "map":
            op |= {"items": list(range(random.randint(0, 4))), "limit": random.choice((None, 1, 2))}
        case "child" | "detached":
            op["root"] = _root(random, depth + 1)
        case "failing child":
            op["root"] = _root(random, depth + 1) | {"end": "fail"}
        case "saga" | "broken saga":
            op["values"] = [random.randrange(100) for _ in range(random.randint(1, 3))]
        case "loop":
            op |= {"times": random.randint(1, 3), "body": _ops(random, depth + 1, 2)}
        case "wait" | "race":
            op["signal"] = 0
        case _:
            pass
    if name in ("wait", "race"):
        op["signal"] = random.randrange(len(SIGNALS))
    return op


# ---- what must come of it


def predict(root: Op) -> Outcome:
    """How it ends."""
    match root["end"]:
        case "retry" if "broken saga" in ops_of(root, children=False):
            return Outcome("failed", ("Flaky", "1", None))  # nothing is tried again after a rollback
        case "fail":
            return Outcome("failed", ("Fail", "as planned", "planned"))
        case "bail":
            return Outcome("cancelled", ("ExecutionCancelled", "as planned", "cancelled"))
        case _:
            return Outcome("completed", [_value_of(op) for op in root["body"]])


def _value_of(op: Op) -> Any:
    match op["op"]:
        case "failing":
            return "failed"
        case "sleep":
            return "slept"
        case "wait" | "race":
            return ANYTHING
        case "unheard":
            return "timeout"
        case "gather" | "group":
            return [[_value_of(each) for each in part] for part in op["parts"]]
        case "map":
            return op["items"]
        case "child" | "detached":
            return predict(op["root"]).value
        case "failing child":
            return "planned"
        case "saga":
            return sum(op["values"])
        case "broken saga":
            return "undone"
        case "loop":
            return [[_value_of(each) for each in op["body"]] for _ in range(op["times"])]
        case "value":
            return "set"
        case "note":
            return "noted"
        case "chance":
            return "the same"
        case "patch":
            return EITHER
        case "cancelled branch":
            return "given up"
        case _:
            return op["value"]


def matches(expected: Any, got: Any) -> bool:
    """Whether it is what was predicted, as far as that can be known."""
    if expected == ANYTHING:
        return isinstance(got, int) or got == "timeout"
    if expected == EITHER:
        return isinstance(got, bool)
    if isinstance(expected, list):
        return (
            isinstance(got, list)
            and len(expected) == len(got)
            and all(matches(*pair) for pair in zip(expected, got, strict=True))
        )
    return bool(expected == got)


def ends_as(expected: Outcome, got: Outcome) -> bool:
    if expected.status != got.status:
        return False
    if expected.status == "completed":
        return matches(expected.value, got.value)
    assert isinstance(expected.value, tuple)
    assert isinstance(got.value, tuple)
    return got.value[0].endswith(expected.value[0]) and got.value[1:] == expected.value[1:]


# ---- the world around it


@dataclass(frozen=True)
class Plan:
    """A program and what its world does."""

    root: Op
    signals: list[int]
    """The numbers of the signals that are sent, in order."""
    pauses: list[float]
    """Seconds before each."""
    cancel_after: float | None
    expected: Outcome = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "expected", predict(self.root))

    async def drive(self, env: DurableEnv, handle: Handle[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(handle))
            if self.cancel_after is not None:
                group.create_task(self._cancel(handle, self.cancel_after))

    async def _send(self, handle: Handle[Any]) -> None:
        for number, pause in zip(self.signals, self.pauses, strict=True):
            await asyncio.sleep(pause)
            if not (await handle.status()).status.final:
                try:
                    await handle.signal(SIGNALS[number], number)
                except Exception as error:
                    if type(error).__name__ != "ExecutionClosed":
                        raise

    async def _cancel(self, handle: Handle[Any], after: float) -> None:
        await asyncio.sleep(after)
        await handle.cancel("by the world")

    def is_fine(self, outcome: Outcome) -> bool:
        if ends_as(self.expected, outcome):
            return True
        cancelled = Outcome("cancelled", ("durable.errors.ExecutionCancelled", "by the world", "cancelled"))
        return self.cancel_after is not None and outcome == cancelled


def plan(seed: int) -> Plan:
    random = Random(f"program {seed}")
    root = make(random)
    waits = [op["signal"] for op in _waits(root)] * (root["left"] + 2)
    return Plan(
        root,
        waits,
        [random.choice((0, 0, 0.001, 1, 40)) for _ in waits],
        random.choice((0, 0.001, 1, 40, 86400)) if random.random() < 0.15 else None,
    )


def _waits(root: Op) -> Iterator[Op]:
    yield from (op for op in root["body"] if op["op"] in ("wait", "race"))


def ops_of(node: Any, *, children: bool = True) -> Iterator[str]:
    """The name of each operation in a program, with those of its children or without."""
    if isinstance(node, dict):
        if "op" in node:
            yield node["op"]
        for name, part in node.items():
            if children or name != "root":
                yield from ops_of(part, children=children)
    elif isinstance(node, list):
        for part in node:
            yield from ops_of(part, children=children)
