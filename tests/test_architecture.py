"""The rules about the source that no type checker knows: who imports whom, where time and chance come from,
and how SQL is written.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import durable

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "durable"
CONTRIB = ROOT / "contrib"
CONTRIBUTED = sorted(CONTRIB.glob("*/durable_*/**/*.py"))
SOURCES = [*sorted(PACKAGE.rglob("*.py")), *CONTRIBUTED]

TIME = (
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "time.monotonic",
    "time.perf_counter",
    "time.sleep",
    "time.time",
)
CHANCE = ("os.urandom", "random.", "secrets.", "uuid.uuid1", "uuid.uuid4")
SEEDED = ("random.Random",)
UNSAFE = ("cloudpickle", "dill", "marshal", "pickle", "shelve")
CODE_FROM_TEXT = ("__import__", "compile", "eval", "exec")
LOSSY = ("asyncio.wait_for",)
"""Up to 3.11 it swallows a cancellation that comes together with what is waited for: use `asyncio.timeout`."""

ORIGINS = {"clock.py", "ids.py"}
TOPS = {"cli", "dashboard", "testing"}

# (file, name): why this file may use it all the same.
EXCEPTIONS: dict[tuple[str, str], str] = {
    (
        "dashboard/access.py",
        "secrets.token_urlsafe",
    ): "what nobody may guess does not come from a generator whose other numbers everybody sees",
    (
        "worker/heart.py",
        "time.monotonic",
    ): "its thread measures how long the loop, and so the loop's clock, is blocked",
    ("probes.py", "time.monotonic"): "so does this one",
}


def place(path: Path) -> str:
    """Where a source is: within the package, or within the checkout."""
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT).as_posix()


def names_used(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported name that the module uses, written in full, with its line."""
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.partition(".")[0]
                full[alias.asname or head] = alias.name if alias.asname else head
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, _, rest = ast.unparse(node).partition(".")
            if head in full and rest.replace(".", "").isidentifier():
                yield f"{full[head]}.{rest}", node.lineno


def is_banned(name: str, file: str) -> bool:
    if name.startswith((*UNSAFE, *LOSSY)):
        return True
    if file in ORIGINS or name.startswith(SEEDED):
        return False
    return name.startswith(CHANCE) or (name.startswith(TIME) and file.partition("/")[0] not in TOPS)


def banned_names(source: str, file: str) -> dict[str, int]:
    return {name: line for name, line in names_used(ast.parse(source)) if is_banned(name, file)}


def code_from_text(source: str) -> list[int]:
    """Lines that name a builtin which runs a text as code."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and node.id in CODE_FROM_TEXT
    ]


def sql_built_in_place(source: str) -> list[int]:
    """Lines that hand `.execute()` and its kin a statement glued together on the spot."""

    def is_glued(node: ast.AST) -> bool:
        return isinstance(node, ast.JoinedStr | ast.BinOp) or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"
        )

    return [
        call.lineno
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in {"execute", "executemany", "executescript"}
        and any(is_glued(node) for argument in call.args[:1] for node in ast.walk(argument))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_time_and_chance_come_from_the_clock_and_the_ids(path: Path) -> None:
    file = place(path)
    found = banned_names(path.read_text(), file)
    excused = {name for excused_file, name in EXCEPTIONS if excused_file == file}
    assert set(found) - excused == set(), "take it from durable.clock or durable.ids"
    assert excused - set(found) == set(), "no longer used: drop it from EXCEPTIONS"


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_no_text_is_run_as_code(path: Path) -> None:
    assert code_from_text(path.read_text()) == []


@pytest.mark.parametrize("source", ["eval(x)", "run = exec", "compile(x, '', 'exec')", "__import__(x)"])
def test_each_way_to_run_a_text_is_seen(source: str) -> None:
    assert code_from_text(source) == [1]


def test_a_pattern_that_is_compiled_is_no_code() -> None:
    assert code_from_text("import re\nre.compile('x')") == []


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_sql_is_a_constant(path: Path) -> None:
    assert sql_built_in_place(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import time\ntime.time()", "time.time"),
        ("import time as t\nwait = t.monotonic", "time.monotonic"),
        ("from time import sleep", "time.sleep"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("import datetime\ndatetime.datetime.utcnow()", "datetime.datetime.utcnow"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
        ("import random\nrandom.random()", "random.random"),
        ("import os\nos.urandom(8)", "os.urandom"),
        ("import secrets\nsecrets.token_hex()", "secrets.token_hex"),
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle.loads"),
    ],
)
def test_each_way_to_reach_time_and_chance_is_seen(source: str, name: str) -> None:
    assert name in banned_names(source, "engine/attempt.py")


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("import time\ntime.time()", "clock.py"),
        ("import time\ntime.time()", "cli/demo.py"),
        ("import uuid\nuuid.uuid4()", "ids.py"),
        ("import random\nrandom.Random(7).random()", "testing/simulation.py"),
        ("from uuid import UUID", "models.py"),
    ],
)
def test_what_is_allowed_is_left_alone(source: str, file: str) -> None:
    assert banned_names(source, file) == {}


@pytest.mark.parametrize(
    "statement", ["f'select {x}'", "'select %s' % x", "'select {}'.format(x)", "'select ' + x"]
)
def test_each_way_to_glue_sql_is_seen(statement: str) -> None:
    assert sql_built_in_place(f"db.execute({statement}, (1,))") == [1]


def test_imports_go_downward_only() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    command = [lint_imports, "--no-cache", "--no-logo"]
    lint = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout + lint.stderr


def documented_modules() -> set[str]:
    """Those of the table in docs/index.md."""
    table = (ROOT / "docs" / "index.md").read_text().partition("## Modules")[2]
    return set(re.findall(r"^\| `(durable[\w.]*)` \|", table, re.MULTILINE))


def modules_of_durable(source: str) -> set[str]:
    """The modules of durable that a source imports; a name that `durable` exports is no module of it."""
    tree = ast.parse(source)
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    inner = {
        f"durable.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "durable"
        for alias in node.names
        if alias.name not in durable.__all__
    }
    return {module for module in plain | named | inner if module.partition(".")[0] == "durable"}


@pytest.mark.parametrize("path", sorted(CONTRIB.rglob("*.py")), ids=place)
def test_contributed_packages_import_documented_modules_only(path: Path) -> None:
    assert modules_of_durable(path.read_text()) <= documented_modules()


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import durable.engine.attempt", {"durable.engine.attempt"}),
        ("from durable.workflow import Workflow", {"durable.workflow"}),
        ("from durable import codec, step, workflow", {"durable", "durable.codec"}),
        ("import durable_fastapi", set[str]()),
    ],
)
def test_each_way_to_import_a_module_is_seen(source: str, modules: set[str]) -> None:
    assert modules_of_durable(source) == modules


def test_the_contract_of_contributed_packages_is_the_list_of_documented_modules() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [one for one in linter["contracts"] if one["name"].startswith("Contributed packages")]
    allowed = {line.removeprefix("** -> ") for line in contract["ignore_imports"]}
    names_of_modules = {f"durable.{name}" for name in durable.__all__ if (PACKAGE / f"{name}.py").exists()}
    names_of_packages = {f"durable.{name}" for name in durable.__all__ if (PACKAGE / name).is_dir()}
    assert allowed == documented_modules() - {"durable"} | names_of_modules | names_of_packages
    packages = {path.parent.name for path in CONTRIB.glob("*/durable_*/py.typed")}
    assert set(contract["source_modules"]) == packages - {
        "durable_mystore"
    }  # which is a skeleton to be copied
    assert set(linter["root_packages"]) == {"durable", *contract["source_modules"]}


EXTRAS = {
    *(
        "aio_pika",
        "jinja2",
        "mmdr",
        "opentelemetry",
        "prometheus_client",
        "pythonjsonlogger",
        "redis",
        "rich",
    ),
    *("starlette", "termaid", "typer", "uvicorn", "uvloop"),
}


def test_importing_durable_brings_in_no_broker_and_no_command_line() -> None:
    program = "import sys, durable; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True)
    roots = {module.partition(".")[0] for module in loaded.split()}
    assert roots.isdisjoint(EXTRAS)


def test_the_help_of_the_command_line_brings_in_only_what_draws_it() -> None:
    program = "import sys; from durable.cli.program import run; run(['--help']); print(*sys.modules)"
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    roots = {module.partition(".")[0] for module in printed.splitlines()[-1].split()}
    assert roots & EXTRAS <= {"rich", "typer"}
