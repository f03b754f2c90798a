"""The documents are true: their code runs, their links lead somewhere, their commands and errors exist.

A page's python blocks run in order, in one module of its own, in an empty directory. A block may use `await` at its
top level, as in `python -m asyncio`. A block below `<!-- from docs/examples/x.py -->` is a part of that file, word
for word, and a text block below `<!-- output of docs/examples/x.py -->` is what the file prints.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FunctionType, ModuleType
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

import durable
from durable import DurableError, ExecutionStatus
from durable.cli import program as cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = sorted([*(DOCS / "examples").glob("*.py"), *(ROOT / "contrib").glob("*/examples/*.py")])
CONTRIB = ROOT / "contrib"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted(CONTRIB.glob("**/*.md")),
]

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>from|output of) (?P<source>\S+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\[[^]]*\]\((?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
COMMAND = re.compile(r"^(?:\$ )?(?P<program>durable|make) (?P<rest>\S.*)$", re.MULTILINE)
SPAN = re.compile(r"`((?:durable|make) [a-z][^`]*)`")
PATH = re.compile(r"`((?:tests|durable|docs|benchmarks|contrib)/[\w./-]*)`")
NOT_OURS = re.compile(r"activity|daemon|helper|job|manager|orchestrat|util", re.IGNORECASE)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its first line of text."""
    mark: str | None
    source: str | None


def blocks(page: Path, *languages: str) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            found["language"],
            found["text"],
            text.count("\n", 0, found.start("text")) + 1,
            found["mark"],
            found["source"],
        )
        for found in FENCE.finditer(text)
        if not languages or found["language"] in languages
    ]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return FENCE.sub("", page.read_text())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
each_page_with_code = pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=name_of
)


# ---- code


def compiled(block: Block, page: Path) -> CodeType:
    """The block, at its own line of its own page, for the sake of tracebacks."""
    source = "\n" * (block.line - 1) + block.text
    return compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def imported(example: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, for as long as the test runs."""
    spec = spec_from_file_location(example.stem, example)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, example.stem, module)
    spec.loader.exec_module(module)
    return module


@each_page_with_code
def test_every_python_block_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(DOCS / "examples"), *sys.path])
    # A module that can be imported again: an error is rebuilt from the name of its class.
    module = ModuleType("page_" + re.sub(r"\W", "_", name_of(page)))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module)["__builtins__"] = builtins  # as `exec` does, and imports from within C need
    with asyncio.Runner() as runner:
        for block in blocks(page, "python"):
            if block.source is not None:  # a part, which needs the rest
                vars(module).update(vars(imported(ROOT / block.source, monkeypatch)))
                continue
            code = compiled(block, page)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(FunctionType(code, vars(module))())
            else:
                exec(code, vars(module))


@cache
def output_of(example: Path, database_url: str = "") -> str:
    """What the example prints when it is run in an empty directory, as a user would run it."""
    environment = {"DATABASE_URL": database_url} if database_url else {}
    with TemporaryDirectory() as directory:
        # Under pytest's own defaults, as in a project that is not ours.
        pytest_or_not = (
            ["-m", "pytest", "-q", "-c", os.devnull, "--rootdir", directory] if is_test(example) else []
        )
        run = subprocess.run(
            [sys.executable, *pytest_or_not, str(example)],
            cwd=directory,
            env={
                "PYTHONPATH": f"{ROOT}:{DOCS / 'examples'}",
                "PATH": "",
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    return run.stdout


def is_test(example: Path) -> bool:
    return example.name.startswith("test_")


def asks_for_a_database(example: Path) -> bool:
    return "DATABASE_URL" in example.read_text()


@pytest.mark.parametrize("example", [each for each in EXAMPLES if not asks_for_a_database(each)], ids=name_of)
def test_every_example_runs_by_itself(example: Path) -> None:
    assert output_of(example) != ""


@pytest.mark.parametrize("example", [each for each in EXAMPLES if asks_for_a_database(each)], ids=name_of)
def test_every_example_of_a_database_runs_on_one(example: Path, postgres_url: str) -> None:
    assert output_of(example, postgres_url) != ""


@each_page
def test_what_a_page_shows_of_an_example_is_the_example(page: Path) -> None:
    for block in blocks(page):
        if block.source is not None:
            example = ROOT / block.source
            whole = example.read_text() if block.mark == "from" else output_of(example)
            assert block.text in whole, f"{name_of(page)}:{block.line} differs from {block.source}"


# ---- links and paths


def anchors(page: Path) -> set[str]:
    """The anchors that headings have: lower case, spaces as dashes, without other signs."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(prose(page)):
        if "://" in link["target"]:
            continue
        target = (page.parent / link["target"]).resolve() if link["target"] else page
        assert target.exists(), link[0]
        if link["anchor"]:
            assert link["anchor"] in anchors(target), link[0]


@each_page
def test_paths_that_a_page_names_exist(page: Path) -> None:
    assert [path for path in PATH.findall(prose(page)) if not (ROOT / path).exists()] == []


def test_every_page_is_reached_from_the_index() -> None:
    reached, left = set[Path](), [DOCS / "index.md"]
    while left:
        page = left.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            targets = (link["target"] for link in LINK.finditer(prose(page)) if link["target"])
            left += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert set(DOCS.rglob("*.md")) <= reached


# ---- commands


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Program and words of each command that the page shows."""
    shown = [block.text for block in blocks(page, "sh", "console")] + SPAN.findall(prose(page))
    for command in (command for text in shown for command in COMMAND.finditer(text)):
        yield command["program"], re.sub(r"'[^']*'", "x", command["rest"]).partition(" #")[0].split()


@cache
def help_of(*command: str) -> str:
    ran = CliRunner().invoke(cli.program, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert ran.exit_code == 0, ran.output
    return ran.output


@each_page
def test_every_command_of_a_page_exists(page: Path) -> None:
    for program, words in commands(page):
        if program == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[0] in targets, words
        else:
            command = [] if words[0].startswith("-") else words[:1]
            if command and "\nCommands:" in help_of(*command) and len(words) > 1:
                command = words[:2]
            known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(*command)))
            options = {word.partition("=")[0] for word in words if word.startswith("-")}
            assert options <= known, f"durable {' '.join(words)}"


# ---- errors and words


def all_errors() -> dict[str, type[DurableError]]:
    exported = {name: getattr(durable, name) for name in durable.__all__}
    return {
        name: kind
        for name, kind in exported.items()
        if isinstance(kind, type) and issubclass(kind, DurableError)
    }


def test_the_catalogue_of_errors_is_complete_and_right() -> None:
    page = (DOCS / "errors.md").read_text()
    entry = re.compile(r"^### (?P<name>\w+)\n\n(?P<facts>`.+)$", re.MULTILINE)
    catalogue = {found["name"]: found["facts"] for found in entry.finditer(page)}
    assert catalogue.keys() == all_errors().keys() == set(re.findall(r"^### (\w+)", page, re.MULTILINE))
    for name, kind in all_errors().items():
        bases = [base.__name__ for base in kind.__bases__ if base not in (DurableError, Exception)]
        parents = (f" · also {'an' if base[0] in 'AEIO' else 'a'} `{base}`" for base in bases)
        assert catalogue[name] == f"`{kind.code}`{''.join(parents)}", name


def test_every_status_is_explained() -> None:
    page = (DOCS / "concepts.md").read_text()
    assert [status for status in ExecutionStatus if f"| `{status}` |" not in page] == []


def test_the_glossary_is_in_order_and_the_code_says_no_other_words() -> None:
    page = (DOCS / "concepts.md").read_text()
    terms = re.findall(r"^\*\*(.+?)\*\*", page.partition("## Glossary")[2], re.MULTILINE)
    assert terms == sorted(set(terms))
    assert len(terms) > 30
    names = {
        node.name
        for source in (ROOT / "durable").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert [name for name in sorted(names) if NOT_OURS.search(name)] == []
