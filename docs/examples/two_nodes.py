"""Two processes on one file: one only accepts orders and asks for them, the other does the work."""

import asyncio
import sys
from asyncio.subprocess import PIPE

from order import Approved, Order, fulfil_order

from durable import Durable

STORE = "sqlite:///orders.db"


async def work() -> None:
    """The worker's process: it runs until it is told to stop."""
    async with Durable([fulfil_order], store=STORE):
        await asyncio.to_thread(sys.stdin.read)


async def accept() -> None:
    """The front's process: it runs no workflow."""
    async with Durable([fulfil_order], store=STORE, worker=False) as durable:
        handle = await durable.start(fulfil_order, Order("7", cents=500))
        print("accepted:", (await handle.status()).status)
        worker = await asyncio.create_subprocess_exec(sys.executable, __file__, "work", stdin=PIPE)
        try:
            await handle.signal(Approved, "grace")
            print("result:", await handle.result(timeout="30s"))
        finally:
            await worker.communicate(b"")


if __name__ == "__main__":
    asyncio.run(work() if "work" in sys.argv else accept())
