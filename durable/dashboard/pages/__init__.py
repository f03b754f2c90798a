"""The pages: what each reads and hands to its template. None of them writes anything."""

from typing import Final

from durable.dashboard.pages.health import health
from durable.dashboard.pages.queues import queues
from durable.dashboard.pages.run import run
from durable.dashboard.pages.runs import runs
from durable.dashboard.pages.schedules import schedules
from durable.dashboard.pages.waiting import waiting
from durable.dashboard.pages.workers import workers
from durable.dashboard.pages.workflows import workflows
from durable.dashboard.site import Page

PAGES: Final = (
    Page("runs", "/", runs, "runs"),
    Page("run", "/runs/{id:path}", run, "runs"),
    Page("waiting", "/waiting", waiting, "waiting"),
    Page("workflows", "/workflows", workflows, "workflows"),
    Page("schedules", "/schedules", schedules, "schedules"),
    Page("queues", "/queues", queues, "queues"),
    Page("workers", "/workers", workers, "workers"),
    Page("health", "/health", health, "health"),
)
