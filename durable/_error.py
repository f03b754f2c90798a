"""The root of every error, and the one error that is raised below `durable.errors` as well.

Import both from `durable.errors`. They stand here so that `durable.duration` can refuse a value, and
`RetryAfter` can read one, with no import going upward.
"""

from __future__ import annotations

import reprlib

from typing_extensions import override

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 100


def shown(value: object) -> str:
    """The `repr` of any value, short and on one line, for the text of an error."""
    try:
        return _repr.repr(value)
    except ValueError:  # an int of so many digits that Python will not print it
        return f"<{type(value).__name__}>"


class DurableError(Exception):
    """The root of every error that `durable` raises.

    `code` is stable text for programs; `hint` tells people what to do and stands below a plain traceback.
    `args` is plain JSON from which the class rebuilds an equal error: `type(error)(*error.args)`.
    """

    __module__ = "durable.errors"

    code: str = "durable_error"
    hint: str = "read what the error says; its class and its code name the condition"
    _text: str | None = None

    def __init__(self, text: str, hint: str | None = None, *, args: tuple[object, ...] | None = None) -> None:
        self._text = text
        if hint is not None:
            self.hint = hint
        self.add_note(f"hint: {self.hint}")
        # A user's subclass with a constructor of its own is rebuilt from the arguments of that one. They are
        # in `args` since Exception.__new__; Exception.__init__ would replace them and is not called.
        constructed_by = next(kind for kind in type(self).__mro__ if "__init__" in vars(kind))
        if constructed_by.__module__ == DurableError.__module__:
            self.args = args if args is not None else (text,) if hint is None else (text, hint)

    @override
    def __str__(self) -> str:
        return super().__str__() if self._text is None else self._text


class InvalidInput(DurableError, ValueError):
    """A value from outside was refused before anything was stored.

    Naive datetimes, bad durations, cron expressions and zones, reserved and hostile ids, inputs that do not
    validate.
    """

    __module__ = "durable.errors"

    code = "invalid_input"
    hint = "correct the value and call again; nothing was stored"
