"""Letters: doorbells as they travel. One carries what was rung in one turn of the loop, for one queue and band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from durable.protocols import Doorbell

MOST_BELLS: Final = 50
"""In one letter: as much as one worker is given to settle at a time."""
_MOST_BYTES: Final = 64 * 1024

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/#\[\]-]{1,200}\z")]
_Version = Annotated[str, Field(max_length=200)]
_Int = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class MalformedLetter(ValueError):
    """It is not ours, or of a version that we cannot read. The text says why, and quotes nothing of it."""


class _Letter(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    v: Literal[1] = 1
    ns: str
    queue: _Name
    hops: Annotated[int, Field(ge=0, le=1000)]
    bells: Annotated[
        list[tuple[_Name, _Name, _Version, _Int, _Int, _Int]], Field(min_length=1, max_length=MOST_BELLS)
    ]
    """Id, workflow, version, priority, crashes, ready since."""


def encode(namespace: str, queue: str, bells: Sequence[Doorbell], hops: int = 0) -> bytes:
    """`hops`: how often these were rung on by somebody who had no use for them."""
    rows = [
        (bell.id, bell.workflow, bell.version, bell.priority, bell.crashes, bell.ready_at) for bell in bells
    ]
    letter = _Letter.model_construct(v=1, ns=namespace, queue=queue, hops=hops, bells=rows)
    return letter.model_dump_json().encode()


def decode(namespace: str, body: bytes) -> tuple[list[Doorbell], int]:
    """The doorbells, and how often they were rung on.

    Raises: `MalformedLetter` for any bytes that `encode` did not make, in this namespace.
    """
    if len(body) > _MOST_BYTES:
        raise MalformedLetter(f"it has {len(body)} bytes")
    try:
        letter = _Letter.model_validate_json(body)
    except ValidationError as error:
        raise MalformedLetter(f"it is no letter: {error.errors()[0]['type']}") from None
    if letter.ns != namespace:
        raise MalformedLetter("it is of another namespace")
    bells = [
        Doorbell(id, workflow, version, letter.queue, priority, crashes, ready_at)
        for id, workflow, version, priority, crashes, ready_at in letter.bells
    ]
    return bells, letter.hops
