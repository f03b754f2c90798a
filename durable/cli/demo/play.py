"""What happens in the demo, in order, and the proof at its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.text import Text

from durable.cli.demo.ledger import Entry, read_ledger
from durable.cli.demo.order import Approved, Order, Receipt, fulfil_order
from durable.cli.demo.stage import Failed, Stage
from durable.cli.output import clean, console
from durable.cli.show import print_family
from durable.family import load_family
from durable.handle import Handle
from durable.ids import Ids
from durable.models import ExecutionStatus

_STEPS: Final = ("charge", "ship")


async def play(stage: Stage) -> None:
    """The order is charged, its worker killed, another one started, and the order approved and shipped.

    Raises:
        Failed: the ledger, or the result, is not what it must be.
    """
    order = Order(id=Ids().execution_id()[:6], cents=4200)
    with _scene("starting a worker") as done:
        first = await stage.start_worker()
        handle = await stage.durable.start(fulfil_order, order, key=f"order:{order.id}")
        done(f"order {order.id} is started; worker 1 is process {first.pid}")
    with _scene("charging the card") as done:
        await stage.until(lambda: _is_charged(stage, handle), "the charge is recorded")
        done(f"worker 1 has charged the card ({order.cents / 100:.2f}); the order waits for an approval")
    with _scene("killing worker 1") as done:
        code = await stage.kill(first)
        done(f"worker 1 is killed with SIGKILL (return code {code}): nothing runs now")
    with _scene("starting another worker") as done:
        second = await stage.start_worker()
        done(f"worker 2 is process {second.pid}")
    with _scene("approving the order") as done:
        await handle.signal(Approved, "ada")
        done("ada approves the order")
    with _scene("going on where it was") as done:
        await stage.until(lambda: _has_ended(handle), "the order is shipped")
        receipt = await handle.result()
        done(f"the order is shipped: {receipt.parcel}, approved by {receipt.approved_by}")
    _print()
    print_family(await load_family(stage.durable.operator, handle.id))
    _print()
    prove(read_ledger(stage.ledger), receipt, order, pids={"charge": first.pid, "ship": second.pid})


async def _is_charged(stage: Stage, handle: Handle[Receipt]) -> bool:
    detail = await stage.durable.operator.get_execution_detail(handle.id)
    recorded = any(step.id == "charge" and step.status == "completed" for step in detail.steps)
    return recorded and detail.execution.status is ExecutionStatus.WAITING


async def _has_ended(handle: Handle[Receipt]) -> bool:
    return (await handle.status()).status.final


def prove(entries: Sequence[Entry], receipt: Receipt, order: Order, *, pids: dict[str, int]) -> None:
    """What the ledger says, and whether that is right."""
    _print("The ledger, which the steps wrote themselves:")
    for entry in entries:
        _print(f"  {entry.step:8} by process {entry.pid}")
    times = Counter(entry.step for entry in entries)
    by = {entry.step: entry.pid for entry in entries}
    if times != dict.fromkeys(_STEPS, 1):
        raise Failed(f"each step must have run once, and they ran {dict(times)}")
    if by != pids:
        raise Failed(f"the steps ran in processes {by}, and not in {pids}")
    expected = Receipt(f"charge-{order.id}", "ada", f"parcel-{order.id}")
    if receipt != expected:
        raise Failed(f"the result is {receipt}, and not {expected}")
    _print()
    console().print(
        "✓ The card was charged exactly once, and each step ran once, although the worker", style="green"
    )
    console().print("  was killed in between. Its successor took the charge from the store.", style="green")


@contextmanager
def _scene(what: str) -> Generator[Callable[[str], None]]:
    """Show that something is going on; then, as a line, what came of it."""
    out = console()
    began = asyncio.get_running_loop().time()
    said: list[str] = []
    if out.is_terminal:
        with out.status(f"{what} ..."):
            yield said.append
    else:
        yield said.append
    took = asyncio.get_running_loop().time() - began
    for text in said:
        out.print(Text.assemble(("✓ ", "green"), clean(text), (f"  {took:.1f}s", "dim")))


def _print(text: str = "") -> None:
    console().print(clean(text))
