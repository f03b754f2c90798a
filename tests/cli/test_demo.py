"""`durable demo`: it proves what it claims, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import select
import signal
from pathlib import Path

import pytest

from durable.cli.demo.ledger import Entry
from durable.cli.demo.order import Order, Receipt
from durable.cli.demo.play import prove
from durable.cli.demo.stage import Failed
from tests.cli.conftest import Shell

ORDER = Order("42", 100)
RECEIPT = Receipt("charge-42", "ada", "parcel-42")
CHARGED, SHIPPED = Entry("charge", "x:0:charge", 1), Entry("ship", "x:0:ship", 2)


@pytest.fixture
def demo(tmp_path: Path) -> Shell:
    """A shell whose temporary directory is to be found empty afterwards."""
    shell = Shell(tmp_path)
    (tmp_path / "tmp").mkdir()
    shell.environment["TMPDIR"] = str(tmp_path / "tmp")
    return shell


def left_behind(demo: Shell) -> list[Path]:
    return list((demo.directory / "tmp").iterdir())


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def worker_pids(said: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"worker \d is process (\d+)", said)]


def test_the_demo_kills_a_worker_and_charges_once(demo: Shell) -> None:
    ran = demo.run_apart("demo", DURABLE_STORE_URL=None)
    first, second = worker_pids(ran.out)
    assert "killed with SIGKILL (return code -9)" in ran.out
    assert f"  charge   by process {first}\n  ship     by process {second}\n" in ran.out
    assert ran.out.count("by process") == 2
    assert re.search(r"^├─ ✓ charge ", ran.out, re.MULTILINE)
    assert "✓ The card was charged exactly once" in ran.out
    assert "\x1b" not in ran.out
    assert not is_alive(first)
    assert not is_alive(second)
    assert left_behind(demo) == []


def test_the_demo_shows_its_progress_on_a_terminal(demo: Shell) -> None:
    with demo.terminal("demo") as terminal:
        assert terminal.ends() == 0
    assert "starting a worker ..." in terminal.said
    assert "charged exactly once" in terminal.said


def test_what_the_demo_keeps_can_be_looked_at(demo: Shell) -> None:
    ran = demo.run_apart("demo", "--keep")
    (kept,) = left_behind(demo)
    assert {"orders.db", "ledger.jsonl", "worker-1.log", "worker-2.log"} <= {
        path.name for path in kept.iterdir()
    }
    look = re.search(r"durable (list --store \S+ --namespace demo)", ran.out)
    assert look is not None
    assert "fulfil_order" in demo.run(*look[1].split()).out


def test_the_demo_runs_on_another_store(demo: Shell) -> None:
    demo.run_apart("demo", "--store", demo.url)
    assert [execution["status"] for execution in demo.json("list", "-n", "demo")] == ["completed"]


def test_the_demo_refuses_a_store_that_no_worker_can_see(demo: Shell) -> None:
    demo.refused("demo", "--store", "memory://")
    demo.refused("demo", "--store", "sqlite:////nowhere/at/all/x.db")
    assert left_behind(demo) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(demo: Shell, number: signal.Signals) -> None:
    with demo.process("demo") as process:
        (pid,) = worker_pids(process.says("\n"))
        assert process.stop(number) == 130
    assert not is_alive(pid)
    assert left_behind(demo) == []


def test_the_workers_of_a_demo_that_is_killed_end_by_themselves(demo: Shell) -> None:
    with demo.process("demo") as process:
        (pid,) = worker_pids(process.says("\n"))
        worker = os.pidfd_open(pid)
        process.stop(signal.SIGKILL)
    # A process descriptor becomes readable when its process has ended.
    assert select.select([worker], [], [], 20)[0]
    os.close(worker)


def test_a_ledger_in_which_each_step_ran_once_is_proof() -> None:
    prove([CHARGED, SHIPPED], RECEIPT, ORDER, pids={"charge": 1, "ship": 2})


@pytest.mark.parametrize(
    ("entries", "receipt"),
    [
        ([], RECEIPT),
        ([CHARGED, CHARGED, SHIPPED], RECEIPT),
        ([CHARGED, SHIPPED, SHIPPED], RECEIPT),
        ([SHIPPED], RECEIPT),
        ([CHARGED, Entry("ship", "x:0:ship", 1)], RECEIPT),
        ([CHARGED, SHIPPED], Receipt("charge-42", "eve", "parcel-42")),
    ],
)
def test_any_other_ledger_or_result_is_not(entries: list[Entry], receipt: Receipt) -> None:
    with pytest.raises(Failed):
        prove(entries, receipt, ORDER, pids={"charge": 1, "ship": 2})
