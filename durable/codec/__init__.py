"""Values and errors as bytes, and back. JSON only: nothing that is stored can run code when it is read.

    value ── Schema.roundtrip ──▶ bytes, and the copy that the caller gets
    bytes ── Schema.load ───────▶ an equal copy, on every replay
    error ── record_error ──▶ ErrorRecord ── rebuild ──▶ the error that the caller gets

The rule that everything here serves: what a caller gets on the first run is what each replay will read. So
a value is written, read again and compared; what does not come back equal is refused, never altered silently.

How a value is written. One that its annotation can write and read back equal is the plain JSON that pydantic
makes of it. Any other (a subclass under the annotation of its base, a datetime in a `dict[str, object]`) and
any value without an annotation is JSON in which what JSON lacks is tagged: `{"$type": "tuple", "value": []}`,
`{"$type": "app.Charge", "value": {"id": "ch_1"}}`. What is found again by its name is a model, a dataclass, a
NamedTuple, an enum or an exception of a module that is imported already; any other is refused.
"""

from durable.codec.error_records import dump_error, load_error, rebuild, record_error
from durable.codec.schema import MAX_PAYLOAD, UNTYPED, Schema, plain

__all__ = [
    "MAX_PAYLOAD",
    "UNTYPED",
    "Schema",
    "dump_error",
    "load_error",
    "plain",
    "rebuild",
    "record_error",
]
