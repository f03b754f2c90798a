"""When does a schedule fire? Pure functions of an expression, a zone and an instant: no store, no clock, no task.

    Cron("0 9 * * *", tz="Europe/London") ─┐            ┌─ after(instant)        the next instant
                                           ├─ Trigger ──┼─ fires(after, until)   all of them
    Every("30s").anchored(created_at) ─────┘            └─ latest(after, until)  the last of them

`tick_id` and `tick_delay_ms` say which execution an instant starts, and how much later its jitter lets it begin.
All of it is the same in every process that has the same tz database. Instants are whole milliseconds since the
Unix epoch (UTC).
"""

from durable.calendar.cron import Cron
from durable.calendar.every import Every
from durable.calendar.tick import tick_delay_ms, tick_id
from durable.calendar.trigger import Trigger
from durable.calendar.wall_clock import zone

__all__ = ["Cron", "Every", "Trigger", "tick_delay_ms", "tick_id", "zone"]
