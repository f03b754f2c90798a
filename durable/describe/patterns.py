"""Patterns of `match`: whether one of them takes whatever comes."""

from __future__ import annotations

import ast
from collections.abc import Sequence


def exhausts(cases: Sequence[ast.match_case]) -> bool:
    """Whether a `match` has a case for whatever comes; for each outcome, where it is of a wait."""
    kinds = {
        ast.unparse(case.pattern.cls).rpartition(".")[2]
        for case in cases
        if isinstance(case.pattern, ast.MatchClass) and _takes_whatever_is_in_it(case, case.pattern)
    }
    return (
        any(map(_takes_all, cases)) or kinds >= {"Received", "TimedOut"} or kinds >= {"Completed", "TimedOut"}
    )


def _takes_whatever_is_in_it(case: ast.match_case, pattern: ast.MatchClass) -> bool:
    within = [*pattern.patterns, *pattern.kwd_patterns]
    return case.guard is None and all(isinstance(p, ast.MatchAs) and p.pattern is None for p in within)


def _takes_all(case: ast.match_case) -> bool:
    patterns = case.pattern.patterns if isinstance(case.pattern, ast.MatchOr) else [case.pattern]
    return case.guard is None and any(isinstance(p, ast.MatchAs) and p.pattern is None for p in patterns)
