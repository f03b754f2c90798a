"""Prometheus metrics of this process, and of the whole store once for each scrape. Needs `durable[metrics]`.

    metrics = Metrics()
    durable = Durable([...], telemetry=[metrics])     what this process does: counters, histograms
    async with durable:
        metrics.watch(durable)                        and what is in the store: gauges
        ...                                           metrics.registry, to be shown by what you have; or durable.probes

Labels are names out of your code: workflows, functions of steps, queues, statuses. No id and no payload is one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from durable.app import Durable
from durable.errors import DurableError
from durable.models import Health
from durable.telemetry import (
    ClaimRefused,
    CommitMade,
    ExecutionClaimed,
    ExecutionClosed,
    ExecutionLost,
    ExecutionStarted,
    LeaseMissed,
    LoopBlocked,
    ReplayMismatched,
    StepEnded,
    SweepMade,
    TelemetryEvent,
    TimerFired,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_LATE: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_PATIENCE_S: Final = 2.0
_AT_MOST_EVERY_S: Final = 1.0


@final
class Metrics:
    """A listener that counts, in a registry of its own unless one is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, about, labels, buckets=buckets, registry=self.registry)

        self._started = counter(
            "durable_executions_started_total", "Executions that this process has started.", "workflow"
        )
        self._ended = counter(
            "durable_executions_total", "Executions that ended here, by how they did.", "workflow", "status"
        )
        self._lost = counter(
            "durable_executions_lost_total", "Executions that another worker had taken.", "reason"
        )
        self._steps = histogram(
            "durable_step_duration_seconds",
            "Tries of steps that ended here; a replayed step is none.",
            *(_SLOW, "workflow", "step", "outcome"),
        )
        self._claims = histogram(
            "durable_claim_duration_seconds", "Claims, by what came of them.", _QUICK, "outcome"
        )
        self._waited = histogram(
            "durable_claim_wait_seconds", "For which what was claimed had been ready.", _LATE, "queue"
        )
        self._commits = histogram("durable_commit_duration_seconds", "Commits.", _QUICK)
        self._sweeps = histogram("durable_sweep_duration_seconds", "Sweeps.", _QUICK)
        self._sweep_errors = counter("durable_sweep_errors_total", "Sweeps that failed.")
        self._timers = histogram(
            "durable_timers_lag_seconds", "From a timer's instant to when it was noticed.", _LATE
        )
        self._mismatches = counter(
            "durable_replay_mismatches_total", "Executions that did not fit the code.", "workflow"
        )
        self._blocked = counter("durable_loop_blocked_total", "Times that the event loop did not answer.")
        self._lease_misses = counter("durable_lease_misses_total", "Beats of the lease that failed.")

    def __call__(self, event: TelemetryEvent) -> None:
        match event:
            case StepEnded():
                self._steps.labels(event.workflow, event.name, event.outcome).observe(event.seconds)
            case CommitMade():
                self._commits.observe(event.seconds)
            case ExecutionClaimed():
                self._claims.labels("claimed").observe(event.seconds)
                self._waited.labels(event.queue).observe(event.waited)
            case ClaimRefused():
                self._claims.labels("refused").observe(event.seconds)
            case ExecutionClosed():
                self._ended.labels(event.workflow, event.status).inc()
            case ExecutionStarted(created=created):
                if created is not False:
                    self._started.labels(event.starting.workflow).inc()
            case ExecutionLost():
                self._lost.labels(event.reason).inc()
            case ReplayMismatched():
                self._mismatches.labels(event.workflow).inc()
            case TimerFired():
                self._timers.observe(event.lag)
            case SweepMade():
                self._sweeps.observe(event.seconds)
                if event.error_type is not None:
                    self._sweep_errors.inc()
            case LeaseMissed():
                self._lease_misses.inc()
            case LoopBlocked():
                self._blocked.inc()
            case _:
                pass

    def watch(self, durable: Durable) -> None:
        """Give the registry what is in the store of a `Durable` that is entered, and its worker's slots, too.

        To be called on its event loop; the registry may then be asked on any other thread. What the loop or the store
        does not answer within 2 seconds is left out, and `durable_store_up` is 0 then.
        """
        self.registry.register(_Fleet(durable, asyncio.get_running_loop()))

    def text(self) -> bytes:
        """All of it, in the text format. Not on the event loop: it waits for the store."""
        return generate_latest(self.registry)


@final
class _Fleet(Collector):
    """What the store knows: the same whichever worker is asked."""

    def __init__(self, durable: Durable, loop: asyncio.AbstractEventLoop) -> None:
        self._durable = durable
        self._loop = loop
        self._reading = threading.Lock()
        self._last: Health | None = None
        self._read_at = -_AT_MOST_EVERY_S

    def describe(self) -> Iterable[Metric]:
        return []  # else it would be asked when it is registered

    @override
    def collect(self) -> Iterable[Metric]:
        yield from self._slots()
        with self._reading:  # however many ask, the store is asked once a second
            read = self._read()
        up = GaugeMetricFamily("durable_store_up", "1 if the store answered to this scrape.")
        up.add_metric([], 0 if read is None else 1)
        yield up
        if read is None:
            return
        executions = GaugeMetricFamily(
            "durable_executions_stored", "Executions in the store.", labels=["status"]
        )
        for status, number in read.counts.items():
            executions.add_metric([status], number)
        backlog = GaugeMetricFamily(
            "durable_queue_backlog", "Executions that a worker could claim now.", labels=["queue"]
        )
        held = GaugeMetricFamily(
            "durable_queue_held", "Executions that flow control holds back.", labels=["queue"]
        )
        oldest = GaugeMetricFamily(
            "durable_queue_oldest_age_seconds",
            "How long the first of the backlog is ready.",
            labels=["queue"],
        )
        paused = GaugeMetricFamily("durable_queue_paused", "1 if it is paused.", labels=["queue"])
        for queue in read.queues:
            backlog.add_metric([queue.queue], queue.ready)
            held.add_metric([queue.queue], queue.held)
            since = 0 if queue.oldest_at is None else (read.at - queue.oldest_at).total_seconds()
            oldest.add_metric([queue.queue], max(since, 0))
            paused.add_metric([queue.queue], int(queue.paused))
        overdue = GaugeMetricFamily(
            "durable_timer_overdue_seconds", "How late the first timer is that should have fired."
        )
        overdue.add_metric([], read.timer_lag.total_seconds())
        yield from (executions, backlog, held, oldest, paused, overdue)
        if read.dead_letters is not None:
            dead = GaugeMetricFamily("durable_queue_dead_letters", "Messages that the broker has put aside.")
            dead.add_metric([], read.dead_letters)
            yield dead

    def _slots(self) -> Iterable[Metric]:
        presence = self._durable.presence()
        if presence is None:
            return
        slots = GaugeMetricFamily("durable_worker_slots", "Slots of this worker.", labels=["state"])
        slots.add_metric(["busy"], presence.busy)
        slots.add_metric(["free"], max(presence.slots - presence.busy, 0))
        yield slots

    def _read(self) -> Health | None:
        if self._loop.time() - self._read_at < _AT_MOST_EVERY_S:
            return self._last
        asked = self._durable.operator.health()
        try:
            reading = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop is closed
            asked.close()
            return None
        try:
            self._last = reading.result(_PATIENCE_S)
        except (TimeoutError, CancelledError, DurableError):
            reading.cancel()
            self._last = None
        self._read_at = self._loop.time()
        return self._last
