"""Letters between processes: what is written is read, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from durable.backends.rabbitmq.letter import MOST_BELLS, MalformedLetter, decode, encode
from durable.protocols import Doorbell

NAMES = st.text("abcXYZ019._:/#[]-", min_size=1, max_size=200)
INTS = st.integers(-(2**63), 2**63 - 1)
BELLS = st.builds(
    Doorbell, NAMES, NAMES, st.text(max_size=200), st.just("mail"), priority=INTS, crashes=INTS, ready_at=INTS
)


@given(st.lists(BELLS, min_size=1, max_size=MOST_BELLS))
def test_what_is_written_is_read(bells: list[Doorbell]) -> None:
    read, hops = decode("shop", encode("shop", "mail", bells, 3))
    assert (read, hops) == (bells, 3)
    assert [bell.ready_at for bell in read] == [bell.ready_at for bell in bells]


def test_a_letter_of_one_doorbell_is_small() -> None:
    assert len(encode("shop", "default", [Doorbell("x" * 20, "order", "1", "default")])) < 150


@given(st.binary(max_size=500))
def test_any_bytes_are_a_letter_or_refused(body: bytes) -> None:
    with pytest.raises(MalformedLetter):
        decode("shop", body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["v", "ns", "queue", "bells"]), x),
    )
)
def test_any_json_is_a_letter_or_refused(value: object) -> None:
    with pytest.raises(MalformedLetter):
        decode("shop", json.dumps(value).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"ns": "other"},
        {"queue": ""},
        {"queue": "a b"},
        {"queue": "mail\n"},
        {"bells": []},
        {"bells": [["x", "order", "1", 0, 0, 0]] * (MOST_BELLS + 1)},
        {"bells": [["x\r\n", "order", "1", 0, 0, 0]]},
        {"bells": [["x", "order", "1", "0", 0, 0]]},
        {"bells": [["x", "order", "1", 2**63, 0, 0]]},
        {"bells": [["x", "order", "1", True, 0, 0]]},
        {"bells": [["x", "order", "1", 0, 0]]},
        {"hops": -1},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_nearly_a_letter_is_refused(change: dict[str, object]) -> None:
    letter = {"v": 1, "ns": "shop", "queue": "mail", "hops": 0, "bells": [["x", "order", "1", 0, 0, 0]]}
    decode("shop", json.dumps(letter).encode())
    with pytest.raises(MalformedLetter):
        decode("shop", json.dumps(letter | change).encode())


def test_a_letter_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(MalformedLetter, match="65540 bytes"):
        decode("shop", b'{"a"' * 16385)


def test_a_refusal_quotes_nothing_of_what_it_refuses() -> None:
    with pytest.raises(MalformedLetter) as refusal:
        decode("shop", b'{"v": 1, "ns": "hunter2", "queue": "hunter2", "bells": "hunter2"}')
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None
