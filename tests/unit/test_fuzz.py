"""Whatever bytes and texts come from outside, they are read or refused by name, at once and without harm.

DURABLE_TEST_LONG=1       100 times as many
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from pydantic import BaseModel

from durable.backends.rabbitmq.letter import MalformedLetter, decode, encode
from durable.backends.rabbitmq.location import Location as RabbitLocation
from durable.backends.redis.letters import pack_out, unpack_out
from durable.backends.redis.location import Location as RedisLocation
from durable.backends.sqlite.location import Location as SqliteLocation
from durable.codec import MAX_PAYLOAD, UNTYPED, Schema, dump_error, load_error, rebuild
from durable.duration import to_ms, to_timedelta
from durable.errors import ConfigurationError, DurableError, InvalidInput, NotSerializable, PayloadTooLarge
from durable.models import ExecutionStatus
from durable.names import check_key, check_name, check_namespace, check_tags
from durable.protocols import (
    Doorbell,
    Emit,
    Message,
    MessageKind,
    NewExecution,
    Outcome,
    Post,
    Reach,
    Start,
    Watch,
)
from durable.redact import redact_url

FEW = settings(max_examples=20_000 if os.environ.get("DURABLE_TEST_LONG") == "1" else 200, derandomize=True)
NAME = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/#[]-")
DEEP = 100_000


class Order(BaseModel):
    id: str
    cents: int
    weight: float = 0.0
    lines: list[dict[str, int]] = []


SCHEMAS = [
    UNTYPED,
    Schema.of(Order),
    Schema.of(int),
    Schema.of(dict[str, object]),
    Schema.of(Decimal),
    Schema.of(bytes),
]

any_text = st.text(st.characters())
"""Lone surrogates, too: a `str` may hold them."""
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["$type", "value", "a", ""]) | st.text(max_size=3), inner, max_size=4
        )
    ),
    max_leaves=20,
)
NASTY = {
    "100 lists": b"[" * 100 + b"]" * 100,
    "many lists, open": b"[" * DEEP,
    "many lists": b"[" * DEEP + b"]" * DEEP,
    "many objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "many tags": b'{"$type":"list","value":' * 1000 + b"1" + b"}" * 1000,
    "names twice": b'{"id": "a", "id": "b", "cents": 1, "cents": 2}',
    "nan": b"NaN",
    "minus infinity": b"-Infinity",
    "beyond floats": b"1e999999999",
    "5,000 digits": b"9" * 5000,
    "500,000 digits": b"-" + b"9" * 500_000,
    "a surrogate": b'"\\ud800"',
    "surrogates": b'"\\udfff\\ud800"',
    "half a tag": b'{"$type": "tuple"}',
    "a module's function": b'{"$type": "os.system", "value": "true"}',
    "a tag of another kind": b'{"$type": ["tuple"], "value": {}}',
    "eval": b'{"$type": "builtins.eval", "value": ["1"]}',
    "a class that is no value": b'{"$type": "durable.codec.schema.Schema", "value": {}}',
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "utf-16": b"\xff\xfe{\x00}\x00",
    "nul": b"\x00",
    "nothing": b"",
    "blanks": b" " * 2_000_000,
}


@pytest.fixture(autouse=True)
def is_quick() -> Any:
    """No example takes long, so all of them do not."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 60


def raised(read: Callable[[], object], *expected: type[BaseException]) -> bool:
    """Was it refused, and as it should be? Anything else comes out."""
    try:
        read()
    except expected:
        return True
    return False


# ---- values and errors


@FEW
@given(
    st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(SCHEMAS),
)
def test_any_bytes_are_a_value_or_refused_as_none(data: bytes, schema: Schema[Any]) -> None:
    if not raised(lambda: schema.load(data), NotSerializable, InvalidInput):
        value = schema.load(data)
        with suppress(NotSerializable):  # NaN is read, and not written again
            assert schema.load(schema.dump(value)) == value or value != value


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(schema.annotation))
@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY)
def test_nasty_bytes_are_a_value_or_refused_at_once(schema: Schema[Any], data: bytes) -> None:
    started = time.monotonic()
    raised(lambda: schema.load(data), NotSerializable, InvalidInput, PayloadTooLarge)
    assert time.monotonic() - started < 5


@FEW
@given(json_values)
def test_any_value_comes_back_equal_or_is_refused(value: object) -> None:
    try:
        data = UNTYPED.dump(value)
    except (NotSerializable, PayloadTooLarge):
        return
    assert len(data) <= MAX_PAYLOAD
    assert UNTYPED.load(data) == value


@FEW
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_error_or_refused_as_none(data: bytes) -> None:
    if not raised(lambda: load_error(data), NotSerializable, PayloadTooLarge):
        record = load_error(data)
        assert isinstance(rebuild(record), Exception)
        assert load_error(dump_error(record)).message == record.message


stored_errors = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["ValueError", "KeyError", "os.system", "builtins.SystemExit", "durable.errors.Fail"]
        )
        | st.text(),
        "message": st.text(),
    },
    optional={
        "args": json_values,
        "attributes": st.dictionaries(
            st.text(max_size=3) | st.sampled_from(["__class__", "__dict__", "args"]), json_values, max_size=3
        ),
        "code": st.text(),
        "details": json_values,
        "step_id": st.text(),
        "retry": st.booleans(),
    },
)


@FEW
@given(stored_errors)
def test_what_looks_like_a_stored_error_becomes_an_exception_and_nothing_else(
    stored: dict[str, object],
) -> None:
    data = json.dumps(stored).encode()
    if not raised(lambda: load_error(data), NotSerializable, PayloadTooLarge):
        error = rebuild(load_error(data))
        assert isinstance(error, Exception)
        assert str(error) is not None


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY)
def test_nasty_bytes_are_no_error(data: bytes) -> None:
    assert raised(lambda: load_error(data), NotSerializable, PayloadTooLarge)


# ---- what travels


@FEW
@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_message_body_is_a_letter_or_malformed(body: bytes) -> None:
    raised(lambda: decode("ns", body), MalformedLetter)


rows = st.tuples(
    json_values | st.just("id"),
    st.just("order"),
    st.just("1"),
    json_values | st.just(0),
    st.just(0),
    st.just(0),
)


@FEW
@given(
    st.fixed_dictionaries(
        {
            "v": st.just(1) | json_values,
            "ns": st.just("ns") | st.text(),
            "queue": st.just("default") | st.text(),
            "hops": st.integers() | json_values,
            "bells": st.lists(rows, max_size=3) | json_values,
        }
    )
)
def test_what_looks_like_a_letter_names_only_what_can_be_named(letter: dict[str, object]) -> None:
    with suppress(MalformedLetter):
        bells, hops = decode("ns", json.dumps(letter).encode())
        assert 0 <= hops <= 1000
        assert all(set(bell.id) <= NAME and set(bell.queue) <= NAME for bell in bells)


@pytest.mark.parametrize("body", NASTY.values(), ids=NASTY)
def test_nasty_bodies_are_no_letters(body: bytes) -> None:
    assert raised(lambda: decode("ns", body), MalformedLetter)


@FEW
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**62), st.text(max_size=20))
def test_a_letter_comes_back_as_it_was_sent(priority: int, ready_at: int, version: str) -> None:
    bell = Doorbell("id", "order", version, "default", priority, 3, ready_at)
    assert decode("ns", encode("ns", "default", [bell], 7)) == ([bell], 7)


messages = st.builds(
    Message, st.text(), st.sampled_from(MessageKind), st.text(), st.binary(), st.sampled_from(Reach)
)
outs = st.one_of(
    st.builds(
        Start,
        st.builds(
            NewExecution, st.text(), st.text(), st.text(), st.binary(), key=st.none() | st.text(),
            tags=st.dictionaries(st.text(), st.text(), max_size=2), options=st.binary(),
            delay_ms=st.integers(0, 2**53), at_ms=st.none() | st.integers(0, 2**53),
            timeout_ms=st.none() | st.integers(0, 2**53), priority=st.integers(-(2**31), 2**31),
            parent_id=st.none() | st.text(), reuse_closed_key=st.booleans(),
        ),
    ),
    st.builds(Post, st.text(), messages),
    st.builds(Watch, st.text(), st.text()),
    st.builds(Emit, st.text(), st.text(), st.binary()),
)  # fmt: skip


@FEW
@given(outs)
def test_what_lies_in_an_outbox_comes_out_as_it_went_in(out: Start | Post | Watch | Emit) -> None:
    assert unpack_out(pack_out(out)) == out


@FEW
@given(
    st.none() | st.sampled_from(ExecutionStatus),
    st.text("abc._:/#[]-", max_size=20),
    st.integers(0, 2**53),
    st.binary(),
)
def test_an_outcome_comes_back_as_it_was(
    status: ExecutionStatus | None, workflow: str, attempt: int, data: bytes
) -> None:
    outcome = Outcome(status, workflow, attempt, data)
    again = Outcome.unpack(outcome.pack())
    assert again == outcome or (workflow, again.workflow) == ("", "-")


@FEW
@given(st.binary())
@example(b"completed order 9" + b"9" * 5000 + b"\n")
@example(b"missing - 0\n" + b"\n" * 10)
def test_any_bytes_are_an_outcome_or_a_value_error(packed: bytes) -> None:
    raised(lambda: Outcome.unpack(packed), ValueError)


# ---- names, durations, URLs


@FEW
@given(any_text)
@example("a\n")
@example("a" * 201)
@example("\uff41")
@example("\u0661")
@example("../a")
def test_a_name_is_of_the_alphabet_or_refused(name: str) -> None:
    is_name = 1 <= len(name) <= 200 and set(name) <= NAME
    assert raised(lambda: check_name(name, "workflow"), InvalidInput) != is_name


@FEW
@given(any_text)
@example("\ud800")
@example("\u202e")
@example("a\x00")
def test_a_key_that_is_taken_can_be_stored(key: str) -> None:
    if not raised(lambda: check_key(key), InvalidInput):
        assert key.encode().decode() == key
        assert 1 <= len(key) <= 512


@FEW
@given(any_text)
@example("a}{b")
@example("a\r\n")
def test_a_namespace_that_is_taken_cannot_end_a_redis_tag(namespace: str) -> None:
    if not raised(lambda: check_namespace(namespace), InvalidInput):
        assert set(namespace) <= NAME - set(":/#[]")


@FEW
@given(st.dictionaries(any_text, any_text | st.integers(), max_size=3) | json_values)
def test_tags_that_are_taken_can_be_stored(tags: object) -> None:
    if not raised(lambda: check_tags(tags), InvalidInput):
        assert all(f"{key}{value}".encode() is not None for key, value in check_tags(tags).items())


@FEW
@given(
    any_text
    | st.floats()
    | st.integers()
    | st.timedeltas()
    | st.from_regex(r"\A[0-9]{1,20}(\.[0-9]{1,20})?(ms|[smhdw])\Z")
)
@example("1" * 10_000 + "s")
@example("٣s")
@example("1e9s")
@example("-1s")
@example(" 1s")
@example(True)
@example(10**400)
def test_a_duration_is_from_0_to_100_years_or_refused(value: Any) -> None:
    if not raised(lambda: to_ms(value), InvalidInput):
        exact = to_timedelta(value)
        assert timedelta(0) <= exact <= timedelta(days=36_525)
        assert 0 <= to_ms(value) - exact / timedelta(milliseconds=1) < 1 + 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -0.0, 5e-324])
def test_floats_at_the_edge_are_durations_or_refused(value: float) -> None:
    assert raised(lambda: to_ms(value), InvalidInput) or to_ms(value) in (0, 1)


schemes = st.sampled_from(
    ["redis", "rediss", "redis+cluster", "redis+sentinel", "amqp", "amqps", "sqlite", "memory", ""]
)
urls = st.builds(
    "{}{}{}{}{}".format,
    schemes,
    st.sampled_from(["://", ":", ":///", "://["]),
    any_text | st.just("user:canary-secret@host:6379"),
    st.sampled_from(["", "/", "/0", "/a/b", "/%00", "/../x", "/99999999999999999999"]),
    st.sampled_from(
        ["", "?", "?a=b", "?partitions=-1", "?partitions=٣", "?db=1e3", "#x", "?password=canary-secret"]
    ),
)


@FEW
@given(urls, st.sampled_from([RedisLocation.parse, RabbitLocation.parse, SqliteLocation.parse]))
@example("redis://h:99999999", RedisLocation.parse)
@example("redis://[::1", RedisLocation.parse)
@example("redis://h/" + "9" * 5000, RedisLocation.parse)
@example("redis://h:" + "9" * 5000, RedisLocation.parse)
@example("redis://h?partitions=" + "9" * 5000, RedisLocation.parse)
@example("amqp://h:" + "9" * 5000, RabbitLocation.parse)
@example("redis:user:canary-secret@host:6379", RedisLocation.parse)
@example("redis+sentinel:///user:canary-secret@host", RedisLocation.parse)
@example("amqp://user:canary-secret@host", RabbitLocation.parse)
@example("amqp://[", RabbitLocation.parse)
@example("sqlite://[", SqliteLocation.parse)
@example("redis://h/²", RedisLocation.parse)
@example("redis://h:²", RedisLocation.parse)
@example("amqp://h:²", RabbitLocation.parse)
@example("amqp://h:99999999", RabbitLocation.parse)
def test_any_url_is_a_location_or_refused_without_its_secret(
    url: str, parse: Callable[[str], object]
) -> None:
    try:
        shown = repr(parse(url))
    except ConfigurationError as error:
        shown = f"{error} {error.hint} {error!r}"
    # A file may be called anything, and its path is no secret.
    assert "canary-secret" not in shown or parse == SqliteLocation.parse


@FEW
@given(urls)
def test_any_url_is_shown_without_its_secret_on_one_line(url: str) -> None:
    shown = redact_url(url)
    assert "canary-secret" not in shown
    assert shown.isprintable()


def test_every_refusal_is_an_error_of_ours() -> None:
    assert all(issubclass(kind, DurableError) for kind in (InvalidInput, NotSerializable, PayloadTooLarge))
