"""The store port as a model: random sequences of verbs, played on stores and on a reference, and compared.

    StoreMachine ── one act ──▶ Pair ──┬──▶ the store ──────┐
     (rules)                           └──▶ Reference ──────┴─ differences ─▶ none

Each store has a reference of its own, because the port leaves some choices to a store; several stores that agree with
their references agree with each other. How to add a verb: to `Reference`, with its outcomes in `OUTCOMES`; to `Pair`,
which compares; and as a rule to `StoreMachine`, or to a subclass that `StoreModel.machine` names.

Time. The clock of a store on its server cannot be frozen, so nothing here depends on milliseconds: all instants of a
sequence are steps of an hour apart, and a store's instants may be up to `SLACK_MS` later than the reference's.
"""

from durable.testing.model.machine import StoreMachine, Worlds
from durable.testing.model.pair import Mismatch, Pair, World
from durable.testing.model.reference import OUTCOMES, Reference
from durable.testing.model.suite import StoreModel, memory_world

__all__ = [
    "OUTCOMES",
    "Mismatch",
    "Pair",
    "Reference",
    "StoreMachine",
    "StoreModel",
    "World",
    "Worlds",
    "memory_world",
]
