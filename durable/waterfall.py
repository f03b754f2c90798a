"""The layout of a waterfall: when things happened, as bars on one axis. Pure: nothing here prints or asks the time.

Work (a step) keeps its proportions. What is only waited through is cut short, so that four hours of waiting for a
person leave the sixty milliseconds of a step visible:

    true axis    charge █                                                            compressed  charge ████
                 wait   ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░                                wait       ░░╱╱░░
                 ship                                            █                               ship             █████
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import ceil, floor
from typing import Final

_CUT_SHARE: Final = 1 / 3
"""Of the axis, at most, for all that is cut short."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from `start` to `end`, not before it, in milliseconds since any origin."""

    start: int
    end: int
    is_work: bool = True
    """A step's body ran; otherwise something was waited for."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Cells from `offset` on, at least one. `is_cut`: shorter than its span is on the axis."""

    offset: int
    length: int
    is_cut: bool = False


def layout(spans: Sequence[Span], width: int, *, linear: bool = False) -> list[Bar]:
    """A bar for each span, within `width` cells; `linear` cuts nothing short. Work takes at least a millisecond."""
    spans = [replace(span, end=max(span.end, span.start + span.is_work)) for span in spans]
    instants = sorted({instant for span in spans for instant in (span.start, span.end)})
    if not instants:
        return []
    lengths = [end - start for start, end in pairwise(instants)]
    shown: Sequence[float] = lengths if linear else _cut(lengths, _is_busy(instants, spans))
    place = dict(zip(instants, accumulate(shown, initial=0.0), strict=True))
    cuts = accumulate((now < true for now, true in zip(shown, lengths, strict=True)), initial=0)
    cuts_before = dict(zip(instants, cuts, strict=True))
    scale = width / (place[instants[-1]] or 1)

    def bar(span: Span) -> Bar:
        # Rounded first, so that what meets on the axis meets in the cells too.
        offset = min(floor(round(place[span.start] * scale, 6)), width - 1)
        end = min(ceil(round(place[span.end] * scale, 6)), width)
        return Bar(offset, max(1, end - offset), cuts_before[span.end] > cuts_before[span.start])

    return [bar(span) for span in spans]


def busy_ms(spans: Sequence[Span]) -> int:
    """For how long at least one of them worked."""
    instants = sorted({instant for span in spans for instant in (span.start, span.end)})
    lengths = (end - start for start, end in pairwise(instants))
    return sum(length for length, busy in zip(lengths, _is_busy(instants, spans), strict=True) if busy)


def _is_busy(instants: Sequence[int], spans: Sequence[Span]) -> list[bool]:
    """For each piece between two instants, whether something worked all through it."""
    change = Counter[int]()
    for span in spans:
        if span.is_work:
            change[span.start] += 1
            change[span.end] -= 1
    return [working > 0 for working in accumulate(change[instant] for instant in instants[:-1])]


def _cut(lengths: Sequence[int], is_busy: Sequence[bool]) -> list[float]:
    """The pieces without work cut down to an equal most, so that they have their share of the axis and no more."""
    busy = sum(length for length, works in zip(lengths, is_busy, strict=True) if works)
    idle = len(lengths) - sum(is_busy)
    if not busy or not idle:
        return list(lengths)
    most = busy * _CUT_SHARE / (1 - _CUT_SHARE) / idle
    return [length if works else min(length, most) for length, works in zip(lengths, is_busy, strict=True)]
