"""An execution with its children, all that is known of each: what a waterfall is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from durable.models import ExecutionDetail
from durable.operator import Operator

_DEEPEST: Final = 5
"""Levels of children."""
_MOST_CHILDREN: Final = 50


@dataclass(frozen=True, slots=True)
class Family:
    """An execution and its children, all the way down."""

    detail: ExecutionDetail
    why: str
    """What it waits for or how it ended, in a sentence."""
    children: Sequence[Family] = ()
    """In the order in which they were created, at most 50 of them."""


async def load_family(operator: Operator, execution_id: str, *, deepest: int = _DEEPEST) -> Family:
    """An execution with `deepest` levels of children.

    Raises:
        ExecutionNotFound: there is no such execution.
    """
    detail = await operator.get_execution_detail(execution_id)
    why = await operator.explain(execution_id)
    if deepest == 0:
        return Family(detail, why)
    page = await operator.list_executions(parent_id=execution_id, limit=_MOST_CHILDREN)
    born = [child.id for child in reversed(page.items) if child.rerun_of is None]
    children = [load_family(operator, id, deepest=deepest - 1) for id in born]
    return Family(detail, why, await asyncio.gather(*children))
