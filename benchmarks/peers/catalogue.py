"""Which peers are measured, from which packages, and with which of our backends each is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.peers.environments import Environment
from benchmarks.peers.servers import database, restate
from benchmarks.servers import redis_url, virtual_host
from tests.brokers.run import Run

_UVLOOP = "uvloop==0.23.0"
_DBOS = Environment("dbos", ["dbos==3.4.0", "psycopg[binary]==3.3.9", _UVLOOP])
_ABSURD = Environment("absurd", ["absurd-sdk==0.5.1", "absurdctl==0.5.1", _UVLOOP])
_RESTATE = Environment("restate", ["restate-sdk==1.3.0", "hypercorn==0.18.0", "httpx==0.28.1", _UVLOOP])
_RESTATE_SERVER = Environment("restate-server", ["@restatedev/restate-server@1.7.12"], is_node=True)
_RUNNER = Environment("runner", ["@bluelibs/runner@5.5.0"], is_node=True)

ALL = ("w1", "w2", "w3", "w4", "w5", "w6", "w7")

Urls = AbstractContextManager[Mapping[str, str]]


@dataclass(frozen=True)
class Peer:
    """Another framework on one of its backends."""

    title: str
    environments: Sequence[Environment]
    """The first is the driver's."""
    driver: str
    state: Callable[[Run, Environment, Path], Urls]
    """Where its state is: something new with nothing in it. Raises: `Absent`."""
    against: Sequence[str]
    """Backends of ours that a user would choose instead."""
    workloads: Sequence[str] = ALL
    after_kill: Literal["nothing", "restart", "standby"] = "nothing"
    """W7: what has the work go on. Nothing but the worker that is left; the victim's executor, started again; or the
    other worker, which cannot work beside the victim."""

    def install(self) -> None:
        """Raises: `Absent`."""
        for each in self.environments:
            each.install()

    @property
    def command(self) -> Sequence[str]:
        environment = self.environments[0]
        driver = str(Path(__file__).with_name(self.driver))
        return ["node", driver] if environment.is_node else [str(environment.python), driver]


@contextmanager
def _postgres(run: Run, environment: Environment, directory: Path) -> Iterator[Mapping[str, str]]:
    with database(run, environment) as url:
        yield {"database": url}


def _sqlite(run: Run, environment: Environment, directory: Path) -> Urls:
    return nullcontext({"database": f"sqlite:///{directory / 'peer.db'}"})


def _nowhere(run: Run, environment: Environment, directory: Path) -> Urls:
    return nullcontext({})


@contextmanager
def _redis_and_rabbitmq(run: Run, environment: Environment, directory: Path) -> Iterator[Mapping[str, str]]:
    """Its queue on the broker has always the same name: it is not to find what the last one left."""
    with redis_url(run) as redis, virtual_host(run) as amqp:
        yield {"redis": redis, "amqp": amqp}


def _restate(run: Run, environment: Environment, directory: Path) -> Urls:
    return restate(run, _RESTATE_SERVER)


PEERS: Mapping[str, Peer] = {
    "runner-memory": Peer(
        "BlueLibs Runner 5.5, memory",
        [_RUNNER],
        "runner_driver.mjs",
        _nowhere,
        ["memory"],
        workloads=("w1", "w2", "w3", "w4", "w6"),
    ),
    "runner-redis+rabbitmq": Peer(
        "BlueLibs Runner 5.5, Redis + RabbitMQ",
        [_RUNNER],
        "runner_driver.mjs",
        _redis_and_rabbitmq,
        ["redis+rabbitmq", "redis"],
    ),
    "dbos-sqlite": Peer(
        "DBOS 3.4, SQLite", [_DBOS], "dbos_driver.py", _sqlite, ["sqlite-full"], after_kill="restart"
    ),
    "dbos-postgres": Peer(
        "DBOS 3.4, PostgreSQL",
        [_DBOS],
        "dbos_driver.py",
        _postgres,
        ["sqlite-full", "redis"],
        after_kill="restart",
    ),
    "restate": Peer(
        "Restate 1.7",
        [_RESTATE, _RESTATE_SERVER],
        "restate_driver.py",
        _restate,
        ["sqlite-full", "redis"],
        after_kill="standby",
    ),
    "absurd-postgres": Peer(
        "Absurd 0.5, PostgreSQL", [_ABSURD], "absurd_driver.py", _postgres, ["sqlite-full", "redis"]
    ),
}
"""By name, in the order in which they are shown."""
