"""The signals that workflows wait for, found where their code is: for forms, and to check what is sent."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from durable.signals import Signal
from durable.workflow import AnyWorkflow


def signal_named(workflow: AnyWorkflow | None, name: str) -> Signal[Any] | None:
    """The signal of that name that the workflow's code can see; None: it must be taken as any JSON."""
    if workflow is None:
        return None
    return next((signal for signal in _seen_by(workflow) if signal.name == name), None)


def _seen_by(workflow: AnyWorkflow) -> Iterator[Signal[Any]]:
    """Its module's, those that a function around it holds, and those of the modules that its module imports."""
    body = inspect.unwrap(workflow.fn)
    held = inspect.getclosurevars(body)
    around = dict(vars(inspect.getmodule(body) or ModuleType("none")))
    for names in (held.nonlocals, around):
        yield from (value for value in names.values() if isinstance(value, Signal))
    for module in [value for value in around.values() if isinstance(value, ModuleType)]:
        yield from (value for value in list(vars(module).values()) if isinstance(value, Signal))
