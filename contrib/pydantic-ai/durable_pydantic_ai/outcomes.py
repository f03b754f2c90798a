"""How a tool call ended, as a value that can be stored.

To ask the model to try again, or a person for approval, is an exception in Pydantic AI. Here it is an outcome like any
other: the function ran, it does not run again on a replay, and no retry of the step is due.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, JsonValue, TypeAdapter, ValidationError
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolReturn, ToolReturnContent
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import TypeIs

from durable import Fail


@dataclass
class Returned:
    value: ToolReturnContent
    kind: Literal["returned"] = "returned"


@dataclass
class ReturnedMore:
    """A value with content or metadata beside it."""

    value: ToolReturn[Any]
    kind: Literal["returned_more"] = "returned_more"


@dataclass
class Refused:
    """The model is asked to try again, or told that it failed, or that somebody else has to act."""

    how: Literal["retry", "failed", "approval", "deferred"]
    message: str = ""
    metadata: dict[str, JsonValue] | None = None
    kind: Literal["refused"] = "refused"


Outcome = Annotated[Returned | ReturnedMore | Refused, Discriminator("kind")]

_OUTCOMES: TypeAdapter[Returned | ReturnedMore | Refused] = TypeAdapter(
    Outcome, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
)


async def outcome_of(tool: str, call: Awaitable[Any]) -> Returned | ReturnedMore | Refused:
    """What became of the call, as it is read back from where it is stored.

    Raises:
        Fail: what the tool returned cannot be stored. The tool has run, so nothing is tried again.
    """
    outcome: Returned | ReturnedMore | Refused
    try:
        value = await call
        outcome = ReturnedMore(value) if _is_more(value) else Returned(value)
    except ModelRetry as error:
        outcome = Refused("retry", error.message)
    except ValidationError as error:
        outcome = Refused("retry", str(error))
    except ToolFailed as error:
        outcome = Refused("failed", error.message)
    except ApprovalRequired as error:
        outcome = Refused("approval", metadata=_plain(error.metadata))
    except CallDeferred as error:
        outcome = Refused("deferred", error.kind, _plain(error.metadata))
    try:
        return _OUTCOMES.validate_json(_OUTCOMES.dump_json(outcome))
    except (PydanticSerializationError, ValidationError) as error:
        raise Fail(
            f"what the tool {tool!r} returned cannot be stored: {error}", code="not_serializable"
        ) from error


def value_of(outcome: Returned | ReturnedMore | Refused) -> Any:
    """What the tool returned.

    Raises:
        ModelRetry, ToolFailed, ApprovalRequired, CallDeferred: as the tool did.
    """
    if not isinstance(outcome, Refused):
        return outcome.value
    match outcome.how:
        case "retry":
            raise ModelRetry(outcome.message)
        case "failed":
            raise ToolFailed(outcome.message)
        case "approval":
            raise ApprovalRequired(metadata=outcome.metadata)
        case "deferred":
            kind: Any = outcome.message
            raise CallDeferred(metadata=outcome.metadata, kind=kind)


def _is_more(value: object) -> TypeIs[ToolReturn[Any]]:
    return isinstance(value, ToolReturn)


def _plain(metadata: dict[str, Any] | None) -> dict[str, JsonValue] | None:
    return None if metadata is None else to_jsonable_python(metadata, fallback=repr)
