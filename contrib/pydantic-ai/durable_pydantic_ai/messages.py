"""Messages as they may be stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

M = TypeVar("M", bound=ModelMessage)


def storable(messages: Sequence[M]) -> list[M]:
    """The messages as `ModelMessagesTypeAdapter` reads them back, which is how a checkpoint gives them.

    What a program builds may differ from that: a `BinaryContent` that is an image comes back as a `BinaryImage`. A
    workflow that takes or returns messages is given, and returns, these.
    """
    data = ModelMessagesTypeAdapter.dump_json(list[ModelMessage](messages))
    # Each message is read back as what it was: its class is written with it.
    return ModelMessagesTypeAdapter.validate_json(data)  # type: ignore[return-value]
