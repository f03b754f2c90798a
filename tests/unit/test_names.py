"""What names, namespaces and keys may be."""

from enum import StrEnum

import pytest

from durable.errors import InvalidInput
from durable.names import check_key, check_name, check_namespace, check_own_name


class Tier(StrEnum):
    GOLD = "gold"


@pytest.mark.parametrize(
    "name", ["a", "order.42", "a/b:c#2", "thumb[0]", "A_b-9", "x" * 200, "__own", "rollback:x"]
)
def test_names_hold_letters_digits_and_some_marks(name: str) -> None:
    assert check_name(name, "id") == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 201, "a b", "a\n", "a\x00", "é", "a,b", "../../x y", "{a}", "a'b", "٣", None, 3, b"a", ["a"]],
)
def test_every_other_name_is_refused_and_the_error_says_what_it_was_for(name: object) -> None:
    with pytest.raises(InvalidInput, match="the id of a step"):
        check_name(name, "the id of a step")


@pytest.mark.parametrize("name", ["__", "__init", "rollback:charge", "rollback:"])
def test_reserved_names_are_refused_to_users(name: str) -> None:
    with pytest.raises(InvalidInput, match="reserved"):
        check_own_name(name, "id")


@pytest.mark.parametrize("name", ["_private", "rollback", "a__b", "my-rollback:x"])
def test_what_only_looks_reserved_is_allowed(name: str) -> None:
    assert check_own_name(name, "id") == name


def test_a_name_that_is_a_member_of_an_enumeration_becomes_plain_text() -> None:
    assert type(check_own_name(Tier.GOLD, "id")) is str
    assert check_own_name(Tier.GOLD, "id") == "gold"


def test_namespaces_are_narrower_than_names() -> None:
    assert check_namespace("shop.eu-1_a") == "shop.eu-1_a"
    for namespace in ["", "a:b", "a/b", "a b", "x" * 101]:
        with pytest.raises(InvalidInput, match="namespace"):
            check_namespace(namespace)


@pytest.mark.parametrize("key", ["order:42", "müller & söhne", "日本 語", "x" * 512])
def test_a_key_is_any_printable_text(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 513, "a\nb", "a\x00", "a\u202eb", "\ud800", None, 42])
def test_a_key_that_cannot_be_printed_is_refused(key: object) -> None:
    with pytest.raises(InvalidInput, match="key must be"):
        check_key(key)
