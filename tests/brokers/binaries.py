"""Where the brokers' programs are: installed, or fetched into the checkout, or else the one command that helps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.brokers import fetch

FETCH_VARIABLE: Final = "DURABLE_TEST_BROKERS"
"""Set to `fetch`: what is installed does not count."""

_BIN: Final = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin")
# Debian's script on PATH changes users, and refuses those who are not root. The one that it wraps does not.
_RABBITMQ: Final = (
    "/usr/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/local/lib/rabbitmq/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Programs, and the environment that they need."""

    redis_server: Path
    rabbitmq: Path
    """The directory of rabbitmq-server and rabbitmqctl."""
    env: dict[str, str]


def binaries() -> Binaries:
    """Raises: `RuntimeError` with the one command to run, when they are not there and cannot be fetched."""
    redis, rabbit, erl = _installed()
    if redis and rabbit and erl:
        path = f"{erl.parent}:{os.environ.get('PATH', '')}:/usr/bin:/bin"
        return Binaries(redis, rabbit.parent, {"PATH": path, "LC_ALL": "C.UTF-8"})
    if not fetch.can_fetch():
        raise RuntimeError(f"the tests need Redis and RabbitMQ: run {_remedy()!r} and try again")
    try:
        root = fetch.fetched()
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", "") or error)
        raise RuntimeError(
            f"Redis and RabbitMQ cannot be fetched: run {_remedy()!r} and try again\n{said}"
        ) from error
    return Binaries(
        root / "usr/bin/redis-server", root / "usr/lib/rabbitmq/bin", {"LC_ALL": "C.UTF-8"} | fetch.env(root)
    )


def _installed() -> tuple[Path | None, Path | None, Path | None]:
    if os.environ.get(FETCH_VARIABLE) == "fetch":
        return None, None, None
    return (
        _program("redis-server", _BIN) or _program("valkey-server", _BIN),
        _program("rabbitmq-server", _RABBITMQ, first=True),
        _program("erl", _BIN),
    )


def _program(name: str, known: Iterable[str], *, first: bool = False) -> Path | None:
    """Looked for on PATH and then in the known directories, or in these `first`."""
    elsewhere = shutil.which(name, path=":".join(known))
    found = (elsewhere or shutil.which(name)) if first else (shutil.which(name) or elsewhere)
    return Path(found) if found else None


def _remedy() -> str:
    if sys.platform == "darwin":
        return "brew install redis rabbitmq"
    for manager, command in (
        ("apt-get", "sudo apt-get install redis-server rabbitmq-server"),
        ("dnf", "sudo dnf install redis rabbitmq-server"),
        ("pacman", "sudo pacman -S redis rabbitmq"),
        ("apk", "sudo apk add redis rabbitmq-server"),
    ):
        if shutil.which(manager):
            return command
    return "export DURABLE_TEST_REDIS_URL=redis://... DURABLE_TEST_AMQP_URL=amqp://..."
