"""What may be done from the dashboard: one table for its forms and for its JSON API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast

from pydantic import JsonValue
from pydantic_core import from_json

from durable.dashboard.links import run_path
from durable.dashboard.signals import signal_named
from durable.dashboard.site import Site
from durable.dashboard.values import as_json
from durable.errors import InvalidInput
from durable.models import ExecutionStatus as S
from durable.operator.acts import APPLIES_TO
from durable.signals import Signal

_GOING: Final = tuple(status for status in S if not status.final)
_VERBS: Final = {"edit-step": "edit_step_result"}
"""The operator's names of verbs that have another one here."""

Target: TypeAlias = Literal["execution", "schedule", "queue", "worker"]
Fields: TypeAlias = Mapping[str, object]
"""What was given with it, as JSON values; what was not given is not there."""


@dataclass(frozen=True, slots=True)
class Done:
    """What to tell whoever did it, and the page to show then: of something new, where something is."""

    message: str
    execution_id: str | None = None

    @property
    def path(self) -> str | None:
        return None if self.execution_id is None else run_path(self.execution_id)


Run: TypeAlias = Callable[[Site, str, Fields, str], Awaitable[Done]]


@dataclass(frozen=True, slots=True)
class Act:
    """Something that may be done to one thing."""

    verb: str
    target: Target
    label: str
    about: str
    """What it does, in a sentence."""
    run: Run
    fields: Mapping[str, type] = field(default_factory=dict[str, type])
    """What it takes: `str` or, for any JSON value, `object`."""
    required: frozenset[str] = frozenset()
    hurts: bool = False
    """Where mistakes are dear, it is confirmed by typing a name."""
    ends: bool = False
    """It ends something, and looks like that."""
    bulk: bool = False
    """It may be done to many executions at once."""

    @property
    def applies_to(self) -> Collection[S]:
        """To executions in these statuses."""
        return (
            _GOING
            if self.verb == "signal"
            else APPLIES_TO[_VERBS.get(self.verb, self.verb.replace("-", "_"))]
        )


async def perform(site: Site, act: Act, id: str, fields: Fields, actor: str) -> Done:
    """Do it, if it is confirmed where it must be.

    Raises:
        InvalidInput: a field is missing, unknown or of another type, or the confirmation is not the name.
    """
    given = dict(fields)
    confirmed = given.pop("confirm", None)
    for name, value in given.items():
        if name not in act.fields:
            raise InvalidInput(
                f"{act.verb} takes no {name[:100]!r}", f"it takes {', '.join(act.fields) or 'nothing'}"
            )
        if act.fields[name] is str and not isinstance(value, str):
            raise InvalidInput(f"{name} of {act.verb} must be text")
    if missing := sorted(act.required - given.keys()):
        raise InvalidInput(f"{act.verb} needs {', '.join(missing)}")
    if site.confirms and act.hurts:
        check_confirmed(await name_of(site, act.target, id), confirmed)
    return await act.run(site, id, given, actor)


async def name_of(site: Site, target: Target, id: str) -> str:
    """What is typed to confirm an act: of an execution the name of its workflow."""
    return (await site.durable.status(id)).workflow if target == "execution" else id


def check_confirmed(name: str, typed: object) -> None:
    if typed != name:
        raise InvalidInput(f"this must be confirmed by typing {name!r}", "put it into the field `confirm`")


def find_act(target: str, verb: str) -> Act | None:
    return ACTS.get((target, verb))


def read_json(text: str, what: str) -> JsonValue:
    """The JSON value that somebody has typed; nothing typed is null."""
    if not text.strip():
        return None
    try:
        return cast("JsonValue", from_json(text, allow_inf_nan=False))
    except ValueError as error:
        raise InvalidInput(
            f"{what} is no JSON: {error}", 'write it as JSON: "text" in quotes, 42, true, {"name": "value"}'
        ) from None


# ---- executions


async def _cancel(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.cancel(id, str(fields.get("reason") or ""), by=actor)
    return Done("It was asked to end as cancelled.")


async def _rollback(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.rollback(id, str(fields.get("reason") or ""), by=actor)
    return Done("It was asked to undo what it has completed, and to end.")


async def _retry(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.retry(id, by=actor)
    return Done("It runs again: completed steps keep their results.")


async def _retry_rollback(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.retry_rollback(id, by=actor)
    return Done("The rollback goes on from the compensation that failed.")


async def _force_fail(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.force_fail(id, str(fields["reason"]), by=actor)
    return Done("It was asked to end as failed.")


async def _pause(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.pause(id, by=actor)
    return Done("It pauses before its next step.")


async def _resume(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.resume(id, by=actor)
    return Done("It goes on.")


async def _rerun(site: Site, id: str, fields: Fields, actor: str) -> Done:
    from_step = str(fields.get("from_step") or "") or None
    if "input" in fields:
        handle = await site.durable.operator.rerun(id, from_step=from_step, input=fields["input"], by=actor)
    else:
        handle = await site.durable.operator.rerun(id, from_step=from_step, by=actor)
    return Done("This is the new execution.", handle.id)


async def _skip_step(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.skip_step(id, str(fields["step_id"]), fields.get("value"), by=actor)
    return Done("The step is skipped, and has this result.")


async def _edit_step(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.edit_step_result(id, str(fields["step_id"]), fields["value"], by=actor)
    return Done("The step has this result now.")


async def _signal(site: Site, id: str, fields: Fields, actor: str) -> Done:
    name, key = str(fields["name"]), str(fields.get("key") or "") or None
    execution = await site.durable.status(id)
    signal = signal_named(site.workflow_of(execution), name) or Signal(name, JsonValue)
    payload = signal.schema.validate_json(as_json(fields.get("payload")), f"the payload of signal {name}")
    await site.durable.signal(id, signal, payload, key=key)
    return Done(f"Signal {name} was sent.")


# ---- schedules, queues, workers


async def _pause_schedule(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.pause_schedule(id)
    return Done(f"Schedule {id} starts nothing until it is resumed.")


async def _resume_schedule(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.resume_schedule(id)
    return Done(f"Schedule {id} goes on.")


async def _trigger_schedule(site: Site, id: str, fields: Fields, actor: str) -> Done:
    handle = await site.durable.trigger_schedule(id)
    return Done(f"Schedule {id} was triggered: this is its execution.", handle.id)


async def _pause_queue(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.pause_queue(id)
    return Done(f"Workers take nothing from queue {id} any more; what runs goes on.")


async def _resume_queue(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.resume_queue(id)
    return Done(f"Workers take from queue {id} again.")


async def _drain_worker(site: Site, id: str, fields: Fields, actor: str) -> Done:
    await site.durable.operator.drain_worker(id)
    return Done("The worker takes nothing new; what it runs goes on.")


_ALL: Final = (
    Act(
        "cancel",
        "execution",
        "Cancel",
        "Ask it to end as cancelled: its body may clean up, and compensations run where the workflow says so.",
        _cancel,
        {"reason": str},
        hurts=True,
        ends=True,
        bulk=True,
    ),
    Act(
        "rollback",
        "execution",
        "Roll back",
        "Undo its completed steps, newest first; if it goes on, it ends there as cancelled.",
        _rollback,
        {"reason": str},
        hurts=True,
        ends=True,
        bulk=True,
    ),
    Act(
        "retry",
        "execution",
        "Retry",
        "Run it again from where it failed: completed steps keep their results.",
        _retry,
        bulk=True,
    ),
    Act(
        "retry-rollback",
        "execution",
        "Retry rollback",
        "Go on with the rollback, from the compensation that failed.",
        _retry_rollback,
        hurts=True,
        bulk=True,
    ),
    Act(
        "pause",
        "execution",
        "Pause",
        "Let it begin no further step until it is resumed.",
        _pause,
        bulk=True,
    ),
    Act(
        "resume",
        "execution",
        "Resume",
        "Let it go on.",
        _resume,
        bulk=True,
    ),
    Act(
        "force-fail",
        "execution",
        "Force fail",
        "End it as failed, whatever it is doing. No compensation runs.",
        _force_fail,
        {"reason": str},
        frozenset({"reason"}),
        hurts=True,
        ends=True,
        bulk=True,
    ),
    Act(
        "rerun",
        "execution",
        "Rerun",
        "Start a new execution with this input; results of steps before the chosen one are copied.",
        _rerun,
        {"from_step": str, "input": object},
        hurts=True,
    ),
    Act(
        "skip-step",
        "execution",
        "Skip step",
        "Let a step that has not completed have this result, without running it.",
        _skip_step,
        {"step_id": str, "value": object},
        frozenset({"step_id"}),
        hurts=True,
    ),
    Act(
        "edit-step",
        "execution",
        "Edit result",
        "Replace the result of a completed step.",
        _edit_step,
        {"step_id": str, "value": object},
        frozenset({"step_id", "value"}),
        hurts=True,
    ),
    Act(
        "signal",
        "execution",
        "Signal",
        "Send it a signal.",
        _signal,
        {"name": str, "payload": object, "key": str},
        frozenset({"name"}),
    ),
    Act(
        "pause", "schedule", "Pause", "Let it start nothing until it is resumed.", _pause_schedule, hurts=True
    ),
    Act("resume", "schedule", "Resume", "Let it go on with its next instant.", _resume_schedule),
    Act(
        "trigger",
        "schedule",
        "Trigger",
        "Start an execution now, out of turn.",
        _trigger_schedule,
        hurts=True,
    ),
    Act("pause", "queue", "Pause", "Let workers take nothing from it.", _pause_queue, hurts=True),
    Act("resume", "queue", "Resume", "Let workers take from it again.", _resume_queue),
    Act(
        "drain",
        "worker",
        "Drain",
        "Let it take nothing new; what it runs goes on.",
        _drain_worker,
        hurts=True,
        ends=True,
    ),
)
ACTS: Final[Mapping[tuple[str, str], Act]] = {(act.target, act.verb): act for act in _ALL}
"""By what they are done to, and their verb."""


def acts_on(status: S) -> list[Act]:
    """What may be done to an execution that has this status."""
    return [act for act in _ALL if act.target == "execution" and status in act.applies_to]


def acts_for(target: Target) -> Mapping[str, Act]:
    """What may be done to things of a kind, by verb."""
    return {act.verb: act for act in _ALL if act.target == target}
