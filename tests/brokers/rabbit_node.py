"""A RabbitMQ node of the tests' own, with its own port mapper (epmd), cookie, data and logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from tests.brokers.binaries import binaries
from tests.brokers.password import PASSWORD
from tests.brokers.redis_server import HOST, free_port
from tests.brokers.run import Servers, ready, runs

LOG: Final = "rabbitmq.log"
_CONFIG: Final = """
listeners.tcp.local = {host}:{port}
loopback_users.guest = true
default_pass = {password}
num_acceptors.tcp = 2
disk_free_limit.absolute = 1MB
log.file.level = warning
"""
_LOOPBACK: Final = "-kernel inet_dist_use_interface {127,0,0,1}"


@final
class RabbitNode:
    """One node with its data, which a test may kill, stop, torment and start again on the same port.

    It is up about 4 s after `start`, which does not wait for it; `wait` does.
    """

    def __init__(self, servers: Servers, *, start: bool = True) -> None:
        self.servers = servers
        self.port = free_port()
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._log = servers.directory / LOG
        self.pid = 0
        self._configure()
        found = binaries()
        epmd = next(
            path
            for path in (Path(directory) / "epmd" for directory in found.env["PATH"].split(":"))
            if path.exists()
        )
        # A node starts an epmd that outlives it, unless there is one.
        servers.start(
            epmd,
            "-port",
            str(self._epmd_port),
            "-address",
            HOST,
            env=self.env,
            log=servers.directory / "epmd.log",
        )
        if start:
            self.start()

    @property
    def url(self) -> str:
        return f"amqp://guest:{PASSWORD}@{HOST}:{self.port}/"

    def start(self) -> None:
        self.pid = self.servers.start(
            binaries().rabbitmq / "rabbitmq-server",
            env=self.env | {"RUNNING_UNDER_SYSTEMD": "1"},
            log=self._log,
        )  # so the script becomes the node, whose process id it gives us, and starts no sentry of its own

    def wait(self) -> None:
        """Come back when it speaks AMQP."""
        wait_for_amqp(self.port, pid=self.pid, log=self._log)

    def kill(self) -> None:
        """As a power cut does, but what the kernel was given is kept."""
        self.resume()
        os.kill(self.pid, signal.SIGKILL)
        while runs(self.pid):
            time.sleep(0.005)

    def pause(self) -> None:
        """Its connections live, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints: `stop_app`, `start_app`, `close_all_connections why`, `eval expression`, ...

        It takes about a second. Raises: `AssertionError` with its complaint.
        """
        return await asyncio.to_thread(rabbitmqctl, self.env, *arguments)

    async def raise_memory_alarm(self) -> None:
        """It takes no more messages, and blocks those who publish, until the alarm is cleared."""
        await self.ctl("set_vm_memory_high_watermark", "0.00001")

    async def clear_memory_alarm(self) -> None:
        await self.ctl("set_vm_memory_high_watermark", "0.4")

    def _configure(self) -> None:
        home = self.servers.directory
        (home / "rabbitmq.conf").write_text(_CONFIG.format(host=HOST, port=self.port, password=PASSWORD))
        (home / "enabled_plugins").write_text("[].\n")
        self.env = binaries().env | {
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "HOME": str(home),  # the cookie is there
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "none.config"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "config"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_NODENAME": f"durable{self.port}@localhost",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _LOOPBACK,
        }


def rabbitmqctl(env: Mapping[str, str], *arguments: str) -> str:
    """What it prints, about the node with this environment. Raises: `AssertionError` with its complaint."""
    process = subprocess.run(
        [binaries().rabbitmq / "rabbitmqctl", "--quiet", *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def wait_for_amqp(port: int, *, pid: int, log: Path) -> None:
    """Come back when the node that listens on `port` speaks AMQP."""
    ready(lambda: _speaks_amqp(port), pids=[pid], log=log, within=60)


def _speaks_amqp(port: int) -> bool:
    with contextlib.suppress(OSError):
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"  # a method frame: connection.start
    return False
