"""The running process: takes doorbells, claims, drives attempts, fires timers, holds its lease.

The store decides who owns what; this package only asks. It holds nothing that cannot be lost.

    queue ─receive─▶ Dispatcher ─claim─▶ Attempt ─commit─▶ store
    Sweeper: timers that are due, workers that died, doorbells that got lost        Heart: the lease, from a thread
"""

from durable.worker.heart import Heart, MakePulse, Pulse
from durable.worker.worker import Worker, WorkerSettings

__all__ = ["Heart", "MakePulse", "Pulse", "Worker", "WorkerSettings"]
