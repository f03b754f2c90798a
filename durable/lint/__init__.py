"""The linter for workflow bodies: what would differ on a replay, or happen again on each one, found in the source.

    source ──▶ Module ──▶ bodies ──▶ findings
               names      functions that    rules
                          get a context

It reads and runs nothing. It is careful: what it cannot know for sure it leaves alone.
"""

from durable.lint.checker import lint_file, lint_source
from durable.lint.rules import RULES, Finding, Rule

__all__ = ["RULES", "Finding", "Rule", "lint_file", "lint_source"]
