"""A Redis server of the tests' own, alone or as a cluster of three masters."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from tests.brokers.binaries import binaries
from tests.brokers.run import Servers, ready, runs

HOST: Final = "127.0.0.1"
_SLOTS: Final = 16384


@final
class RedisServer:
    """One server with its data, which a test may kill, stop and start again on the same port.

    `options` are those of redis.conf (`maxmemory="3mb"`, `requirepass="..."`); they overrule ours: everything is kept
    in an append-only file that is synced each second, and nothing is evicted. With `tls` it speaks nothing else.
    """

    def __init__(self, servers: Servers, *, name: str = "redis", tls: bool = False, **options: str) -> None:
        self.servers = servers
        self.directory = servers.directory / name
        self.directory.mkdir()
        self.port = free_port()
        self.password = options.get("requirepass", "")
        self.tls = tls
        self.options = {
            "bind": HOST,
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        } | {name.replace("_", "-"): value for name, value in options.items()}
        self.options |= self._tls() if tls else {"port": str(self.port)}
        self._log = self.directory / "redis.log"
        self.pid = 0
        self.start()

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        if not self.tls:
            return f"redis://{secret}{HOST}:{self.port}/0"
        return f"rediss://{secret}{HOST}:{self.port}/0?ssl_ca_certs={self.certificate}"

    @property
    def certificate(self) -> Path:
        """With `tls`: the server's certificate, which vouches for itself."""
        return self.directory / "server.pem"

    def start(self) -> None:
        """Come back when it answers."""
        found = binaries()
        options = [part for name, value in self.options.items() for part in (f"--{name}", value)]
        for tries_left in reversed(range(20)):
            self.pid = self.servers.start(found.redis_server, *options, env=found.env, log=self._log)
            try:
                ready(self._answers, pids=[self.pid], log=self._log, within=20)
                return
            except RuntimeError as error:
                # The port of one that was killed may be held a little longer than the process is there.
                if tries_left == 0 or "Address already in use" not in str(error):
                    raise
                time.sleep(0.1)

    def kill(self) -> None:
        """As a power cut does, but what the kernel was given is kept."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As a deployment does."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it, and start it again with its data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Its connections live, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, command: str) -> str:
        """The raw reply to an inline command, or as much of it as came at once."""
        login = [f"AUTH {self.password}"] if self.password else []
        return ask(self.port, *login, command, context=_unchecked() if self.tls else None)

    def _end(self, signum: signal.Signals) -> None:
        self.resume()
        os.kill(self.pid, signum)
        while runs(self.pid):
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            return self.ask("PING").endswith("+PONG\r\n")
        except OSError:
            return False

    def _tls(self) -> dict[str, str]:
        key = self.directory / "server.key"
        request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", f"subjectAltName=IP:{HOST},DNS:localhost"]
        files = ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(["openssl", *request.split(), *names, *files], check=True, capture_output=True)
        return {
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(key),
            "tls-ca-cert-file": str(self.certificate),
            "tls-auth-clients": "no",
        }


def redis_cluster(servers: Servers) -> list[RedisServer]:
    """Three masters that are about to serve all slots together: `wait_for_cluster`."""
    nodes = []
    for number in range(3):
        options = {"cluster_enabled": "yes", "cluster_port": str(free_port()), "cluster_node_timeout": "2000"}
        nodes.append(RedisServer(servers, name=f"redis{number}", **options))
    edges = [_SLOTS * number // 3 for number in range(4)]
    for node, start, end in zip(nodes, edges, edges[1:], strict=False):
        assert "OK" in node.ask(f"CLUSTER ADDSLOTSRANGE {start} {end - 1}")
        for other in nodes:
            assert "OK" in node.ask(f"CLUSTER MEET {HOST} {other.port} {other.options['cluster-port']}")
    return nodes


def wait_for_cluster(ports: Sequence[int], *, within: float = 20) -> None:
    """Come back when each node serves its slots: about 2 s after they met, for a new master takes no writes."""
    deadline = time.monotonic() + within
    while not all(map(_is_whole, ports)):
        assert time.monotonic() < deadline, f"no cluster of {ports} after {within} s"
        time.sleep(0.02)


def cluster_url(ports: Sequence[int]) -> str:
    return "redis://" + ",".join(f"{HOST}:{port}" for port in ports)


def free_port() -> int:
    """One that nobody listens on.

    It is below those that the kernel gives to outgoing connections, so that it stays free while a server is down.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return port


def ask(port: int, *commands: str, context: ssl.SSLContext | None = None) -> str:
    """The raw reply to inline commands, or as much of it as came at once."""
    with socket.create_connection((HOST, port), timeout=5) as plain:
        with context.wrap_socket(plain) if context else contextlib.nullcontext(plain) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in commands).encode())
            return connection.recv(65536).decode()


def _is_whole(port: int) -> bool:
    info = ask(port, "CLUSTER INFO")
    return "cluster_state:ok" in info and "cluster_known_nodes:3" in info and "cluster_size:3" in info


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
