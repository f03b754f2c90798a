"""Where executions are kept and how processes hear of each other, by URL.

    "memory://" ──┐                          ┌─ open_store ─▶ DurableStore  the truth
    "sqlite:///x" ┼─ backend_for ─▶ Backend ─┼─ open_queue ─▶ DurableQueue  doorbells
    "amqp://..."  ┘                          └─ open_bus ───▶ EventBus      hints

A backend joins by an entry point of the group `durable.backends` whose name is the scheme and whose object is
a `Backend`; ours are joined in the same way. It is imported when a URL with its scheme is used, not before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Protocol, TypeVar

from durable.clock import Clock
from durable.errors import ConfigurationError
from durable.protocols import DurableQueue, DurableStore, EventBus
from durable.redact import redact_url

GROUP: Final = "durable.backends"
"""The group of entry points."""

_EXTRAS: Final = {"redis": "redis", "rediss": "redis", "amqp": "rabbitmq", "amqps": "rabbitmq"}
"""By what stands before a `+` in the scheme."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_points: Final[dict[str, EntryPoint]] = {}
"""By scheme, once it was found: it takes milliseconds to read what every installed package brings."""

PortT_co = TypeVar("PortT_co", covariant=True)


class Opener(Protocol[PortT_co]):
    """Makes a port from a URL. It does no I/O: the port is connected by its own `open`.

    Raises: `ConfigurationError` when the URL means nothing to this backend.
    """

    def __call__(self, url: str, *, namespace: str, clock: Clock) -> PortT_co: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What the URLs of one scheme can be opened as; None where they cannot."""

    open_store: Opener[DurableStore] | None = None
    open_queue: Opener[DurableQueue] | None = None
    """None, and there is a store: its ready index serves as the queue (`durable.backends.ready_queue`)."""
    open_bus: Opener[EventBus] | None = None


def backend_for(url: str) -> Backend:
    """The backend that is joined under the scheme of `url`.

    Raises: `ConfigurationError` when there is none, when it needs an extra that is not installed, when two
    distributions claim the scheme, or when this is no URL.
    """
    match = _SCHEME.match(url)
    if match is None:
        raise ConfigurationError(
            f"{redact_url(url)!r} is not the URL of a backend",
            f"write it as scheme://...; schemes: {_known()}",
        )
    scheme = match[1].lower()
    if scheme not in _points:  # what is not there may be installed later
        _points[scheme] = _find(scheme, url)
    return _load(scheme, _points[scheme])


def _find(scheme: str, url: str) -> EntryPoint:
    claims = {point.value: point for point in entry_points(group=GROUP, name=scheme)}
    if not claims:
        raise ConfigurationError(
            f"no backend is installed for {redact_url(url)!r}", _remedy(scheme) + f"schemes: {_known()}"
        )
    if len(claims) > 1:
        raise ConfigurationError(
            f"several backends claim the scheme {scheme!r}: {', '.join(sorted(claims))}",
            "uninstall all but one of the packages that bring them",
        )
    (point,) = claims.values()
    return point


def _load(scheme: str, point: EntryPoint) -> Backend:
    try:
        backend: object = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the backend for {scheme}:// cannot be imported: {error}",
            _remedy(scheme) or f"look at the package that brings {point.value}",
        ) from error
    if not isinstance(backend, Backend):
        raise ConfigurationError(
            f"the entry point {scheme!r} of {GROUP} is {point.value}, which is no Backend",
            "it must name a durable.backends.Backend",
        )
    return backend


def _remedy(scheme: str) -> str:
    extra = _EXTRAS.get(scheme.partition("+")[0])
    return f"pip install 'durable[{extra}]'; " if extra else ""


def _known() -> str:
    return ", ".join(sorted({point.name for point in entry_points(group=GROUP)})) or "none are installed"
