"""No secret of a URL is shown, whatever the URL looks like."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from durable.redact import redact_url


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("sqlite:///orders.db", "sqlite:///orders.db"),
        ("sqlite:////home/a@b/orders.db", "sqlite:////home/a@b/orders.db"),
        ("memory://name", "memory://name"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://h1:1,h2:2/0?db=1", "redis://h1:1,h2:2/0?db=1"),
        ("redis://:s3cret@h/0", "redis://:***@h/0"),
        ("rediss://app:s3cret@h:6380/0?db=1", "rediss://app:***@h:6380/0?db=1"),
        ("redis://s3cret@h", "redis://***@h"),
        ("amqp://u:p:s3cret@h//", "amqp://u:***@h//"),
        ("amqp://u:p@s3cret@h/%2f", "amqp://u:***@h/%2f"),
        ("redis://h?password=s3cret&db=1", "redis://h?password=***&db=1"),
        ("redis://h?db=1&pass%77ord=s3cret", "redis://h?db=1&pass%77ord=***"),
        ("redis://h?API_KEY=a&s3cret&db=1", "redis://h?API_KEY=***&***&db=1"),
        ("redis://h#token=s3cret", "redis://h#token=***"),
        ("unix:///run/redis.sock?password=s3cret", "unix:///run/redis.sock?password=***"),
        ("redis://:p/s3cret@h/0", "redis://***"),
        ("redis://u:p?s3cret#x@h", "redis://***"),
        ("redis:///u:s3cret@h", "redis://***"),
        ("redis://:s3cret", "redis://:***"),
        ("redis://u:s3cret:6379", "redis://u:***"),
        ("redis://[::1:s3cret@h", "redis://[:***@h"),
        ("u:s3cret@h", "u:***@h"),
        ("redis:/u:s3cret@h", "***"),
        ("orders.db", "orders.db"),
        ("redis://h\r\nX: 1", "redis://h��X:***"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, redacted: str) -> None:
    assert redact_url(url) == redacted


@given(st.text())
def test_redacting_never_raises_and_gives_one_printable_line(url: str) -> None:
    assert redact_url(url).isprintable()


@given(st.text("abc:/?#&;=@[]% \n", max_size=12), st.text("abc:/?#&;=@[]% \n", max_size=12))
def test_no_password_before_an_at_sign_is_shown_however_malformed(before: str, after: str) -> None:
    assert "S3CRET" not in redact_url(f"redis://user:{before}S3CRET{after}@host:6379/0")
