"""What a Redis URL says, and which ones say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from durable.backends.redis.location import Endpoint, Location, Login
from durable.errors import ConfigurationError


def test_a_plain_url_is_one_server() -> None:
    location = Location.parse("redis://cache.example/3")
    assert location.endpoints == (Endpoint("cache.example", 6379),)
    assert (location.database, location.master, location.tls, location.is_cluster) == (3, None, None, False)
    assert (location.partitions, location.allow_ephemeral) == (None, False)


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("redis://localhost", Login()),
        ("redis://:p%40ss%2Fword@localhost", Login("default", "p@ss/word")),
        ("redis://ann:p%3Ass@localhost", Login("ann", "p:ss")),
        ("redis://ann:@localhost", Login("ann", "")),
    ],
)
def test_a_login_is_unquoted(url: str, login: Login) -> None:
    assert Location.parse(url).login == login


@pytest.mark.parametrize(
    ("hosts", "endpoints"),
    [
        ("", (Endpoint("localhost", 6379),)),
        ("a:1,b,c:65535", (Endpoint("a", 1), Endpoint("b", 6379), Endpoint("c", 65535))),
        ("[::1]:7000,[fe80::2]", (Endpoint("::1", 7000), Endpoint("fe80::2", 6379))),
    ],
)
def test_several_servers_are_separated_by_commas(hosts: str, endpoints: tuple[Endpoint, ...]) -> None:
    assert Location.parse(f"redis+cluster://{hosts}").endpoints == endpoints


def test_a_name_at_the_end_is_that_of_a_master_behind_sentinels() -> None:
    for scheme in ("redis", "redis+sentinel", "REDIS"):
        location = Location.parse(
            f"{scheme}://u:p@s1,s2:5000/orders?db=2&sentinel_username=w&sentinel_password=q"
        )
        assert location.master == "orders"
        assert location.endpoints == (Endpoint("s1", 26379), Endpoint("s2", 5000))
        assert (location.login, location.sentinel_login) == (Login("u", "p"), Login("w", "q"))
        assert location.database == 2


def test_options_are_read() -> None:
    location = Location.parse("redis://h?partitions=64&allow_ephemeral=yes")
    assert (location.partitions, location.allow_ephemeral) == (64, True)


def test_tls_checks_the_certificate_unless_told_otherwise(tmp_path: Path) -> None:
    checked = Location.parse("rediss+cluster://h").tls
    assert checked is not None
    assert (checked.check_certificate, checked.check_hostname) == (True, True)
    assert checked.context().check_hostname
    unchecked = Location.parse("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=0").tls
    assert unchecked is not None
    assert not unchecked.context().check_hostname
    missing = Location.parse(f"rediss://h?ssl_ca_certs={tmp_path}/no.pem").tls
    assert missing is not None
    with pytest.raises(ConfigurationError, match=r"no\.pem"):
        missing.context()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://h:port", "a port that is none"),
        ("redis://h:0", "a port that is none"),
        ("redis://h:65536", "a port that is none"),
        ("redis://h:²", "a port that is none"),
        ("redis://:6379", "a port without a host"),
        ("redis://[::1", "is not a URL"),
        ("redis://h/a/b", "not the URL of a Redis"),
        ("redis://h/0#x", "not the URL of a Redis"),
        ("redis+pigeon://h", "not the URL of a Redis"),
        ("redis://h?retries=3", "options that do not exist: retries"),
        ("redis://h?partitions=0", "partitions is a number from 1 to 1024"),
        ("redis://h?partitions=x", "partitions is a number"),
        ("redis://h?allow_ephemeral=maybe", "allow_ephemeral is 1 or 0"),
        ("redis://h?ssl_ca_certs=/x", "options of TLS and does not use it"),
        ("rediss://h?ssl_cert_reqs=optional", "required or none"),
        ("redis+cluster://h/1", "a cluster has none"),
        ("redis://a,b/1", "a cluster has none"),
        ("redis+cluster://h/orders", "only a master behind Sentinels"),
        ("redis+sentinel://h", "names Sentinels and no master"),
        ("redis+sentinel://h/0", "names Sentinels and no master"),
        ("redis://h/orders?db=-1", "db is a number"),
    ],
)
def test_what_means_nothing_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        Location.parse(url)
    assert refused.value.hint


def test_no_secret_is_shown() -> None:
    url = "rediss+sentinel://ann:canary@h/orders?sentinel_password=canary&partitions=4"
    location = Location.parse(url)
    assert "canary" not in repr(location) + str(location) + location.shown
    with pytest.raises(ConfigurationError) as refused:
        Location.parse(url + "&nonsense=1")
    assert "canary" not in str(refused.value) + refused.value.hint
