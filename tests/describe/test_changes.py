"""What has changed in a workflow since a revision of its source: nothing of that revision is imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from durable import ConfigurationError, Context, workflow
from durable.describe.changes import differences
from durable.describe.revision import shapes_since

PARTS = """
from durable import Signal, step, workflow

Go = Signal("go")
SHIP = "ship"

@step(name="charge-card")
async def charge(x): ...

@charge.undo
async def refund(x): ...

@workflow(name="child-of-it")
async def child(ctx, n): ...

async def finish(ctx):
    await ctx.step(SHIP, print)
"""
FLOWS = """
from durable import Context, workflow
from shop.parts import Go, charge, child
from . import parts
import shop.parts

@workflow
async def order(ctx: Context, n: int) -> None:
    await ctx.step(charge, n)
    await ctx.step("pack", print)
    await ctx.wait_for_signal(Go, timeout="1h")
    await ctx.run(child, n)
    await parts.finish(ctx)
"""


class Repository:
    """A git repository with a package in it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._monkeypatch = monkeypatch
        self.git("init", "--quiet")
        (root / "src" / "shop").mkdir(parents=True)
        self.write("__init__", "")
        self.write("parts", PARTS)
        self.write("flows", FLOWS)
        self.commit()

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", self.root, *identity, *arguments], check=True, capture_output=True)

    def write(self, module: str, text: str) -> None:
        (self.root / "src" / "shop" / f"{module}.py").write_text(text)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a state")

    def flows(self) -> ModuleType:
        """The module as it is now, imported."""
        for name in ("shop", "shop.parts", "shop.flows"):
            self._monkeypatch.delitem(sys.modules, name, raising=False)
        self._monkeypatch.syspath_prepend(str(self.root / "src"))
        found = importlib.import_module("shop.flows")
        for name in ("shop", "shop.parts", "shop.flows"):
            self._monkeypatch.setitem(sys.modules, name, sys.modules[name])
        return found

    def changes(self, revision: str = "HEAD") -> list[str]:
        before, after = shapes_since(self.flows().order, revision)
        assert before is not None
        return [str(difference) for difference in differences(before, after)]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Repository(tmp_path, monkeypatch)


def test_both_shapes_are_read_from_the_source_through_its_imports(repository: Repository) -> None:
    before, after = shapes_since(repository.flows().order, "HEAD")
    assert before == after
    told = [(n.id, n.kind, n.has_compensation, n.signal, n.timeout, n.workflow) for n in after.nodes[1:-1]]
    assert told == [
        ("charge-card", "step", True, None, None, None),
        ("pack", "step", False, None, None, None),
        ("go", "wait_for_signal", False, "go", "1h", None),
        ("child-of-it", "child", False, None, None, "child-of-it"),
        ("ship", "step", False, None, None, None),
    ]
    assert repository.changes() == []


def test_steps_that_came_went_were_renamed_or_moved_are_told(repository: Repository) -> None:
    repository.write(
        "flows",
        FLOWS.replace('await ctx.step("pack", print)', 'await ctx.step("wrap", print)').replace(
            '"1h"', '"2h"'
        ),
    )
    assert repository.changes() == [
        "~ step pack is now wrap",
        "! wait_for_signal go: timeout was 1h, is 2h",
    ]
    repository.write("flows", FLOWS.replace('    await ctx.step("pack", print)\n', ""))
    assert repository.changes() == ["- step pack"]
    repository.write("flows", FLOWS + '    await ctx.step("mail", print)\n')
    assert repository.changes() == ["+ step mail"]
    moved = FLOWS.replace("    await ctx.step(charge, n)\n", "") + "    await ctx.step(charge, n)\n"
    repository.write("flows", moved)
    assert repository.changes() == ["> step charge-card has another place"]


def test_a_change_in_a_module_that_is_imported_is_a_change_of_the_workflow(repository: Repository) -> None:
    repository.write("parts", PARTS.replace('SHIP = "ship"', 'SHIP = "send"').replace("@charge.undo", ""))
    assert repository.changes() == [
        "! step charge-card: has_compensation was True, is False",
        "~ step ship is now send",
    ]


def test_a_revision_is_any_that_git_knows(repository: Repository) -> None:
    repository.git("tag", "first")
    repository.write("flows", FLOWS + '    await ctx.step("mail", print)\n')
    repository.commit()
    assert repository.changes("HEAD") == []
    assert repository.changes("HEAD~1") == repository.changes("first") == ["+ step mail"]


def test_the_old_source_is_read_and_not_run(repository: Repository, tmp_path: Path) -> None:
    trap = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    repository.write("flows", trap + FLOWS.replace('"pack"', '"old"'))
    repository.commit()
    repository.write("flows", FLOWS)
    assert repository.changes() == ["~ step old is now pack"]
    assert not (tmp_path / "ran").exists()


def test_a_workflow_that_was_not_there_has_no_old_shape(repository: Repository) -> None:
    repository.write("flows", FLOWS.replace("async def order", "async def other"))
    repository.commit()
    repository.write("flows", FLOWS)
    assert shapes_since(repository.flows().order, "HEAD")[0] is None


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", "", "HEAD; ls"])
def test_a_revision_that_git_does_not_know_is_refused(repository: Repository, revision: str) -> None:
    with pytest.raises(ConfigurationError, match="git says"):
        shapes_since(repository.flows().order, revision)


def test_a_workflow_that_a_function_made_is_refused() -> None:
    @workflow
    async def inner(ctx: Context) -> None: ...

    with pytest.raises(ConfigurationError, match="is not defined at the top"):
        shapes_since(inner, "HEAD")


def test_a_file_outside_of_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    file = tmp_path / "alone.py"
    file.write_text("from durable import workflow\n@workflow\nasync def order(ctx): ...\n")
    spec = importlib.util.spec_from_file_location("alone", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ConfigurationError, match="git says"):
        shapes_since(module.order, "HEAD")
