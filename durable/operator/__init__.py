"""What people ask about executions, and do to them, from nothing but the store.

    operator.py   `Operator`: the questions and the acts
    detail.py     one execution, as people see it

An act is a message in the execution's inbox. Whoever owns the execution next applies it, in its order among all that
came, together with what follows from it; until then it is shown as pending.
"""

from durable.operator.acts import APPLIES_TO
from durable.operator.operator import Operator

__all__ = ["APPLIES_TO", "Operator"]
