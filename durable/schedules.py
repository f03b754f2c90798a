"""Schedules: executions that start at their instants, once each, whoever notices that it is time.

    ensure ─▶ row {next_at} ─ due ─▶ fire ─▶ one write: the executions of these instants, and the next instant

Each execution's id is a function of the schedule and the instant, and the write that starts it moves `next_at`, if
nobody else has. So there is no leader, and no instant is started twice, whoever dies where.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypedDict, cast, final

from pydantic_core import from_json, to_json

from durable.calendar import Cron, Every, Trigger, tick_delay_ms, tick_id
from durable.client import PATIENCE, Client
from durable.clock import Clock, to_datetime
from durable.codec import plain
from durable.duration import Duration, to_instant_ms, to_ms
from durable.engine.options import new_execution
from durable.engine.persist import persist
from durable.engine.templates import Template, decided_by, is_newer, startable
from durable.errors import ConfigurationError, InvalidInput, ScheduleNotFound, shown
from durable.handle import Handle
from durable.ids import Ids
from durable.models import Schedule
from durable.names import check_name, check_own_name
from durable.protocols import (
    DurableStore,
    Gate,
    GateKind,
    NewExecution,
    Saved,
    ScheduleRow,
)
from durable.workflow import AnyWorkflow, Registry

log = logging.getLogger("durable.schedules")

Catchup: TypeAlias = Literal["latest", "none", "all"]
"""Which of the instants are made up for that passed while nobody was there to notice."""
Overlap: TypeAlias = Literal["allow", "skip", "queue"]
"""What happens at an instant while an earlier execution of the schedule has not ended."""


class ScheduleChanges(TypedDict, total=False):
    """What `update_schedule` can change."""

    input: object
    cron: str
    interval: Duration
    tz: str
    catchup: Catchup
    overlap: Overlap
    jitter: Duration


_CATCHUPS, _OVERLAPS = ("latest", "none", "all"), ("allow", "skip", "queue")
_LATE_MS = 10_000
"""With catchup="none": how late an instant may be noticed and still start."""
_MOST_AT_ONCE = 100
_MOST_BACKFILLED = 1000
_OF_CODE = ":on:"


@final
@dataclass(frozen=True, slots=True)
class _Plan:
    """What is stored of a schedule."""

    template: Template
    input: bytes
    cron: str | None
    tz: str
    interval_ms: int | None
    anchor_ms: int
    catchup: Catchup
    overlap: Overlap
    jitter_ms: int
    paused: bool = False
    last_at: int | None = None
    last_id: str | None = None
    """The execution of the last instant."""

    @property
    def workflow(self) -> str:
        return self.template.name

    @property
    def rule(self) -> tuple[object, ...]:
        """What its instants follow from."""
        return self.cron, self.tz, self.interval_ms

    @property
    def trigger(self) -> Trigger:
        if self.cron is not None:
            return Cron(self.cron, self.tz)
        return Every((self.interval_ms or 0) / 1000).anchored(self.anchor_ms)

    def pack(self) -> bytes:
        fields = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("template", "input")
        }
        return to_json(
            {
                **fields,
                "workflow": self.workflow,
                "template": self.template.to_dict(),
                "input": self.input.decode(),
            }
        )

    @classmethod
    def unpack(cls, data: bytes) -> _Plan:
        fields: dict[str, Any] = from_json(data)
        template = Template.from_dict(fields.pop("workflow"), fields.pop("template"))
        return cls(template, fields.pop("input").encode(), **fields)


@final
class Schedules:
    """The schedules of one namespace, as `Durable` offers them."""

    def __init__(
        self, store: DurableStore, client: Client, registry: Registry, clock: Clock, ids: Ids
    ) -> None:
        self._store = store
        self._client = client
        self._registry = registry
        self._clock = clock
        self._ids = ids
        self.on_fire: list[Callable[[int], None]] = []
        """Called with the instants at which a schedule of ours is due."""

    # ---- making and changing them

    async def ensure(
        self,
        workflow: AnyWorkflow,
        input: object,
        *,
        id: str,
        cron: str | None,
        interval: Duration | None,
        tz: str,
        catchup: Catchup,
        overlap: Overlap,
        jitter: Duration | None,
    ) -> Schedule:
        check_own_name(id, "the id of a schedule")
        wanted = self._plan(workflow, input, cron, interval, tz, catchup, overlap, jitter)
        return await self._ensure(id, wanted)

    async def ensure_those_of(self, registry: Registry) -> None:
        """Let the times in the `on=` of what is registered be schedules, and no other ones of these workflows."""
        declared: dict[str, _Plan] = {}
        for workflow in registry.newest():
            triggers = [trigger for trigger in workflow.on if isinstance(trigger, Cron | Every)]
            for number, trigger in enumerate(triggers):
                cron = trigger.expression if isinstance(trigger, Cron) else None
                interval = trigger.interval if isinstance(trigger, Every) else None
                tz = trigger.tz if isinstance(trigger, Cron) else "UTC"
                declared[f"{workflow.name}{_OF_CODE}{number}"] = self._plan(
                    workflow, None, cron, interval, tz, "latest", "allow", None
                )
        for id, plan in declared.items():
            await self._ensure(id, plan, of_code=True)
        for workflow in registry.newest():
            prefix = f"{workflow.name}{_OF_CODE}"
            for row in await self._store.schedules(after=prefix):
                if row.id.startswith(prefix) and row.id not in declared and not self._is_newer(row, workflow):
                    await self._store.remove_schedule(row.id)

    async def update(self, id: str, changes: Mapping[str, Any]) -> Schedule:
        """Change what is given, and nothing else. With another rule the next fire is the first of that rule from
        now."""

        def changed(plan: _Plan) -> _Plan:
            workflow = self._registry.find(plan.workflow)
            rule: dict[str, Any] = {"cron": plan.cron, "tz": plan.tz, "interval": _seconds(plan.interval_ms)}
            if "cron" in changes:
                rule["interval"] = None
            if "interval" in changes:
                rule["cron"] = None
            options = {"catchup": plan.catchup, "overlap": plan.overlap, "jitter": _seconds(plan.jitter_ms)}
            given: dict[str, Any] = {
                **rule,
                **options,
                **{name: value for name, value in changes.items() if name != "input"},
            }
            input = changes["input"] if "input" in changes else workflow.input_schema.load(plan.input)
            return self._plan(workflow, input, **given)

        return await self._change(id, lambda plan: _adopted(plan, changed(plan), self._clock.now_ms()))

    async def pause(self, id: str) -> None:
        await self._change(id, lambda plan: replace(plan, paused=True))

    async def resume(self, id: str) -> None:
        await self._change(id, lambda plan: replace(plan, paused=False))

    async def remove(self, id: str) -> None:
        if not await persist(lambda: self._store.remove_schedule(check_name(id, "the id of a schedule"))):
            raise await self._not_found(id)

    # ---- what is known of them

    async def get(self, id: str) -> Schedule:
        return _schedule(await self._row(id))

    async def all(self) -> list[Schedule]:
        found: list[Schedule] = []
        while rows := await self._store.schedules(after=found[-1].id if found else ""):
            found += [_schedule(row) for row in rows]
        return found

    async def next_fires(self, id: str, number: int) -> list[datetime]:
        """Its next instants, as if it were not paused."""
        row = await self._row(id)
        after = self._clock.now_ms() if row.next_at is None else row.next_at - 1
        return [to_datetime(at) for at in _Plan.unpack(row.data).trigger.fires(after, limit=number)]

    # ---- starting

    async def start_now(self, id: str) -> Handle[Any]:
        """Start an execution out of turn."""
        row = await self._row(id)
        plan = _Plan.unpack(row.data)
        workflow = self._startable(plan)
        spec = new_execution(self._ids.execution_id, workflow, decided_by(workflow, plan.input), plan.input)
        return await self._client.begin(spec, self._registry.newest_of(plan.workflow))

    async def backfill(self, id: str, since: datetime, until: datetime) -> list[Handle[Any]]:
        """Start the executions of the instants from `since` to `until` that were not started."""
        plan = _Plan.unpack((await self._row(id)).data)
        first, last = to_instant_ms(since, what="since"), to_instant_ms(until, what="until")
        instants = list(plan.trigger.fires(first - 1, last, _MOST_BACKFILLED + 1))
        if len(instants) > _MOST_BACKFILLED:
            raise InvalidInput(
                f"schedule {id} has more than {_MOST_BACKFILLED:,} instants in that time",
                "backfill it in parts",
            )
        workflow = self._startable(plan)
        known = self._registry.newest_of(plan.workflow)
        specs = [_tick(id, plan, workflow, instant, self._clock.now_ms()) for instant in instants]
        return [await self._client.begin(spec, known) for spec in specs]

    # ----

    def _plan(
        self,
        workflow: AnyWorkflow,
        input: object,
        cron: str | None,
        interval: Duration | timedelta | None,
        tz: str,
        catchup: Catchup,
        overlap: Overlap,
        jitter: Duration | None,
    ) -> _Plan:
        if (cron is None) == (interval is None):
            given = "neither" if cron is None else "both"
            raise InvalidInput(f"a schedule needs cron= or interval=, and {given} of them was given")
        if catchup not in _CATCHUPS or overlap not in _OVERLAPS:
            word, known = (catchup, _CATCHUPS) if catchup not in _CATCHUPS else (overlap, _OVERLAPS)
            raise InvalidInput(f"{shown(word)} is none of {', '.join(known)}")
        jitter_ms = 0 if jitter is None else to_ms(jitter, what="jitter")
        if jitter_ms and workflow.flow.joins:
            raise ConfigurationError(
                f"workflow {workflow.name} joins its starts, and a schedule with jitter gives each its own instant",
                "leave jitter= out: debounce= or batch= says when it begins",
            )
        if overlap != "allow" and workflow.flow.joins:
            raise ConfigurationError(
                f"workflow {workflow.name} joins its starts, and overlap={overlap!r} asks for one after the other",
                "leave overlap= out: what comes while one is pending is part of it",
            )
        schema, what = workflow.input_schema, f"the input of workflow {workflow.name}"
        now = self._clock.now_ms()
        if cron is not None:
            expression: str | None = Cron(cron, tz).expression
            interval_ms = None
        else:
            expression, interval_ms = None, to_ms(Every(cast("Duration", interval)).interval)
        plan = _Plan(
            Template.of(workflow),
            schema.dump(schema.validate(input, what), what),
            expression,
            tz,
            interval_ms,
            now,
            catchup,
            overlap,
            jitter_ms,
        )
        if plan.trigger.after(now) is None:
            raise InvalidInput(f"the schedule {shown(cron)} never fires again", "check its days and months")
        return plan

    async def _ensure(self, id: str, wanted: _Plan, *, of_code: bool = False) -> Schedule:
        while True:
            row = await persist(lambda: self._store.schedule(id), patience=PATIENCE)
            if row is None:
                plan, next_at = wanted, wanted.trigger.after(wanted.anchor_ms)
                row = ScheduleRow(id, b"", None)
            else:
                stored = _Plan.unpack(row.data)
                if stored.workflow != wanted.workflow:
                    raise ConfigurationError(
                        f"schedule {id} starts workflow {stored.workflow}, and cannot be bound to {wanted.workflow}",
                        "use another id, or remove_schedule() first",
                    )
                if of_code and is_newer(stored.template.version, wanted.template.version):
                    return _schedule(row)
                plan, next_at = _adopted(stored, wanted, self._clock.now_ms()), row.next_at
                if plan == stored:
                    return _schedule(row)
                if plan.rule != stored.rule:
                    next_at = None if plan.paused else plan.trigger.after(self._clock.now_ms())
            saved = await self._save(replace(row, data=plan.pack(), next_at=next_at))
            if saved is not None:
                return _schedule(saved)

    async def _change(self, id: str, change: Callable[[_Plan], _Plan]) -> Schedule:
        while True:
            row = await self._row(id)
            stored = _Plan.unpack(row.data)
            plan, next_at = change(stored), row.next_at
            if plan == stored:
                return _schedule(row)
            if plan.paused:
                next_at = None
            elif stored.paused or plan.rule != stored.rule:
                next_at = plan.trigger.after(self._clock.now_ms())
            saved = await self._save(replace(row, data=plan.pack(), next_at=next_at))
            if saved is not None:
                return _schedule(saved)

    async def _save(self, row: ScheduleRow) -> ScheduleRow | None:
        op_id = self._ids.nonce()
        saved = await persist(lambda: self._store.save_schedule(row, op_id=op_id), patience=PATIENCE)
        if saved is None:
            return None
        if row.next_at is not None:
            for listener in self.on_fire:
                listener(row.next_at)
        return replace(row, ver=saved.ver)

    async def _row(self, id: str) -> ScheduleRow:
        check_name(id, "the id of a schedule")
        row = await persist(lambda: self._store.schedule(id), patience=PATIENCE)
        if row is None:
            raise await self._not_found(id)
        return row

    async def _not_found(self, id: str) -> ScheduleNotFound:
        return ScheduleNotFound(id, [schedule.id for schedule in await self.all()])

    def _startable(self, plan: _Plan) -> Any:
        found = startable(plan.template, self._registry)
        if found is None:
            raise ConfigurationError(
                f"workflow {plan.workflow} decides by a function and is not registered here",
                "register it with this Durable; on the command line, name yours with --app",
            )
        return found

    @staticmethod
    def _is_newer(row: ScheduleRow, workflow: AnyWorkflow) -> bool:
        return is_newer(_Plan.unpack(row.data).template.version, workflow.version)


@final
@dataclass(frozen=True, slots=True)
class Fired:
    """A schedule was moved on."""

    saved: Saved
    next_at: int | None


async def fire(
    store: DurableStore, row: ScheduleRow, registry: Registry, now: int, op_id: str
) -> Fired | None:
    """Start what a due schedule is to start by now, and move it on; None: somebody else has, or has to."""
    plan = _Plan.unpack(row.data)
    workflow = startable(plan.template, registry)
    if workflow is None or row.next_at is None:
        return None
    instants = list(plan.trigger.fires(row.next_at - 1, now, _MOST_AT_ONCE)) if plan.catchup == "all" else []
    if plan.catchup != "all":
        latest = plan.trigger.latest(row.next_at - 1, now)
        is_late = latest is not None and plan.catchup == "none" and now - latest > _LATE_MS
        instants = [] if latest is None or is_late else [latest]
    passed = instants[-1] if plan.catchup == "all" and instants else now
    if plan.overlap == "skip" and instants:
        instants = [] if await _has_not_ended(store, plan) else instants[:1]
    specs = [_tick(row.id, plan, workflow, instant, now) for instant in instants]
    if instants:
        plan = replace(plan, last_at=instants[-1], last_id=specs[-1].id)
    moved = replace(row, data=plan.pack(), next_at=plan.trigger.after(passed))
    saved = await persist(lambda: store.save_schedule(moved, op_id=op_id, starts=specs), patience=PATIENCE)
    return None if saved is None else Fired(saved, moved.next_at)


async def _has_not_ended(store: DurableStore, plan: _Plan) -> bool:
    last = None if plan.last_id is None else await store.get(plan.last_id)
    return last is not None and not last.status.final


def _tick(id: str, plan: _Plan, workflow: Any, instant: int, now: int) -> NewExecution:
    begins_at = instant + tick_delay_ms(plan.jitter_ms / 1000, id, instant) if plan.jitter_ms else None
    spec = new_execution(
        tick_id(id, instant),
        workflow,
        decided_by(workflow, plan.input),
        plan.input,
        at_ms=begins_at if begins_at is not None and begins_at > now else None,
    )
    if plan.overlap != "queue":
        return spec
    one_by_one = Gate(f"schedule/{id}", "", GateKind.SLOTS, 1, keeps=True)
    return replace(spec, gates=(one_by_one, *spec.gates))


def _adopted(stored: _Plan, wanted: _Plan, now: int) -> _Plan:
    """What is wanted, with what the stored one has lived through: an unchanged interval keeps its anchor."""
    anchor = stored.anchor_ms if wanted.rule == stored.rule else now
    return replace(
        wanted, anchor_ms=anchor, paused=stored.paused, last_at=stored.last_at, last_id=stored.last_id
    )


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _schedule(row: ScheduleRow) -> Schedule:
    plan = _Plan.unpack(row.data)
    return Schedule(
        id=row.id,
        workflow=plan.workflow,
        cron=plan.cron,
        interval=None if plan.interval_ms is None else timedelta(milliseconds=plan.interval_ms),
        tz=plan.tz,
        input=plain(plan.input),
        paused=plan.paused,
        next_fire_at=None if row.next_at is None else to_datetime(row.next_at),
        last_fire_at=None if plan.last_at is None else to_datetime(plan.last_at),
        catchup=plan.catchup,
        overlap=plan.overlap,
        jitter=timedelta(milliseconds=plan.jitter_ms) if plan.jitter_ms else None,
    )
