"""The linter for workflow bodies: what it finds, and above all what it leaves alone."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent

import pytest

from durable.lint import RULES, lint_file, lint_source

ROOT = Path(__file__).parents[2]
HEAD = """\
import asyncio, concurrent.futures, contextlib, datetime, os, pathlib, random, secrets, socket, subprocess, threading
import time, uuid
import time as clock
from contextlib import suppress
from datetime import UTC, date, datetime as dt, timedelta
from pathlib import Path
from random import Random, choice
from uuid import UUID, uuid4
import httpx, requests
import durable
from durable import Branch, Context, Signal, current_step, step, workflow

Go = Signal("go")
SEEN: list[str] = []
LIMITS = (1, 2)


@step
async def charge(cents: int) -> str:
    return httpx.post("/charge").text + str(uuid4()) + str(time.time())


@charge.undo
async def refund(charged: str) -> None:
    print("refund", open("log").read())


def tax(cents: int) -> int:
    return cents // 5


def now_as_text() -> str:
    return dt.now(UTC).isoformat()


async def ship(order: str) -> str:
    time.sleep(1)
    return requests.get("/ship").text


"""


def codes(
    body: str, *, signature: str = "ctx: Context, order: str", decorator: str = "@workflow\n"
) -> list[str]:
    source = f"{HEAD}{decorator}async def body({signature}):\n{indent(dedent(body).strip(), '    ')}\n"
    compile(source, "body.py", "exec")
    return [finding.code for finding in lint_source(source)]


BROKEN = [
    ("D101", "return time.time()"),
    ("D101", "return clock.monotonic()"),
    ("D101", "return dt.now(UTC)"),
    ("D101", "return datetime.datetime.utcnow()"),
    ("D101", "return date.today()"),
    ("D101", "return now_as_text()"),
    ("D101", 'await ctx.step("a", tax, int(time.time()))'),
    ("D101", "return [time.time() for _ in range(3)]"),
    ("D101", "import time as t\nreturn t.perf_counter()"),
    ("D102", "return random.randint(1, 6)"),
    ("D102", "return choice([1, 2])"),
    ("D102", "return uuid4()"),
    ("D102", "return uuid.uuid1()"),
    ("D102", "return secrets.token_hex()"),
    ("D102", "return os.urandom(8)"),
    ("D103", 'return open("x").read()'),
    ("D103", 'return Path("x").read_text()'),
    ("D103", 'path = Path("x") / order\nreturn path.exists()'),
    ("D103", 'return requests.get("/x")'),
    ("D103", 'async with httpx.AsyncClient() as client:\n    return await client.get("/")'),
    ("D103", "return socket.gethostname()"),
    ("D103", 'subprocess.run(["ls"])'),
    ("D103", "return os.listdir()"),
    ("D104", "await asyncio.sleep(5)"),
    ("D104", "time.sleep(5)"),
    ("D105", "await asyncio.wait_for(ctx.wait_for_signal(Go), 5)"),
    ("D106", "try:\n    await ctx.step(charge, 1)\nexcept:\n    pass"),
    ("D106", "try:\n    await ctx.step(charge, 1)\nexcept BaseException as error:\n    ctx.log.info(error)"),
    ("D106", "try:\n    await inner(ctx)\nexcept (ValueError, BaseException):\n    pass"),
    ("D106", "with suppress(BaseException):\n    await ctx.step(charge, 1)"),
    ("D107", 'for name in {"a", "b"}:\n    await ctx.step(charge, name)'),
    ("D107", 'names = set(order)\nfor name in names:\n    await ctx.step("a", tax, name)'),
    ("D107", "await ctx.gather(*(ctx.step(charge, n) for n in frozenset(order)))"),
    ("D107", "return [await ctx.step(charge, n) for n in {x for x in order}]"),
    ("D107", "both = set(order) | {order}\nfor n in both:\n    await ctx.step(charge, n)"),
    ("D108", "try:\n    pass\nfinally:\n    await ctx.step(charge, 1)"),
    ("D109", "await asyncio.to_thread(tax, 1)"),
    ("D109", "threading.Thread(target=tax).start()"),
    ("D109", "await asyncio.get_running_loop().run_in_executor(None, tax, 1)"),
    ("D110", "global LIMITS\nLIMITS = ()"),
    ("D110", "SEEN.append(order)"),
    ("D110", "SEEN[0] = order"),
    ("D111", "print(order)"),
    ("D112", "ctx.step(charge, 1)"),
    ("D112", 'ctx.transaction("a", tax)'),
    ("D112", 'ctx.step("a").up(charge, 1).down(refund)'),
    ("D113", "return await charge(1)"),
    ("D114", 'await ctx.step("a", lambda: ctx.sleep(1))'),
    ("D114", 'async def inner():\n    await ctx.sleep(1)\nawait ctx.step("a", inner)'),
    ("D115", 'return os.environ["HOME"]'),
    ("D115", 'return os.getenv("HOME")'),
    # wherever a body hides
    ("D101", "async def inner():\n    return time.time()\nreturn await inner()"),
    ("D101", 'await ctx.switch("a", order, {"a": lambda: ship_at(ctx, time.time())})'),
    (
        "D101",
        "async def branch():\n    await ctx.sleep(1)\n    return time.time()\nreturn await ctx.gather(branch())",
    ),
    ("D102", "match order:\n    case 'a':\n        return uuid4()"),
]

RIGHT = [
    "return ctx.now(), ctx.uuid4(), ctx.random.choice([1, 2]), ctx.random.random()",
    'return await ctx.step("now", time.time)',
    'return await ctx.transaction("now", lambda connection: time.time())',
    'return await ctx.step("now", lambda: time.time())',
    'return await ctx.step("id", lambda: str(uuid4()))',
    'return await ctx.step("read", Path("x").read_text)',
    'return await ctx.step("read", lambda path: open(path).read(), "x")',
    'return await ctx.step("label", retry=3).up(lambda: requests.get("/x").text).down(lambda x: print(x))',
    'return await ctx.map("sizes", lambda name: os.stat(name).st_size, ["a", "b"])',
    'def fetch():\n    return requests.get("/x").text\nreturn await ctx.step("fetch", fetch)',
    'async def fetch():\n    await asyncio.sleep(1)\n    return uuid4()\nreturn await ctx.step("fetch", fetch)',
    "@step\nasync def fetch():\n    return time.time()\nreturn await ctx.step(fetch)",
    "return await ctx.step(charge, 1), await ctx.step(ship, order)",
    "return await ctx.step(charge, tax(100))",
    "return Random(7).random(), UUID(order), dt.fromisoformat(order), timedelta(days=1)",
    "return dt(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), time.strftime",
    "await asyncio.sleep(0)",
    "async with asyncio.timeout(5):\n    await ctx.wait_for_signal(Go)",
    "async with asyncio.TaskGroup() as group:\n    group.create_task(ctx.step(charge, 1))",
    "task = asyncio.create_task(ctx.step(charge, 1))\nreturn await task",
    "return await asyncio.gather(*[ctx.step(charge, n) for n in range(3)])",
    "branch = ctx.step(charge, 1)\nreturn await ctx.gather(branch, ctx.sleep(1))",
    "try:\n    await ctx.step(charge, 1)\nexcept Exception:\n    return None",
    "try:\n    await ctx.step(charge, 1)\nexcept BaseException:\n    ctx.log.info('over')\n    raise",
    "try:\n    await ctx.sleep('3d')\nexcept asyncio.CancelledError:\n    await ctx.step(charge, 1)\n    raise",
    "try:\n    number = int(order)\nexcept:\n    number = 0\nawait ctx.step(charge, number)",
    "with suppress(ValueError):\n    await ctx.step(charge, 1)",
    "try:\n    await ctx.step(charge, 1)\nfinally:\n    ctx.log.info('done at %s', ctx.now())",
    "async with ctx.saga():\n    await ctx.step(charge, 1)",
    'for name in sorted({"a", "b"}):\n    await ctx.step(charge, name)',
    "for n in {1, 2, 3}:\n    await ctx.step(charge, n)",
    "for n in {'a': 1}:\n    await ctx.step(charge, n)",
    "names = set(order)\nfor name in names:\n    ctx.log.info(name)\nawait ctx.step(charge, len(names))",
    "names = set(order)\nnames = sorted(names)\nfor name in names:\n    await ctx.step(charge, name)",
    "seen = []\nseen.append(order)\nseen[0] = 'x'\nreturn seen",
    "SEEN = []\nSEEN.append(order)\nreturn SEEN",
    "return len(SEEN), LIMITS",
    "count = 0\ndef more():\n    nonlocal count\n    count += 1\nmore()\nreturn count",
    "ctx.log.info('hello')\nctx.patched('change')",
    "ctx.bail('no')",
    "ctx.continue_as_new(order)",
    'return await ctx.switch("a", 1, [Branch("late", lambda _: time.time() > 5, lambda: ship_at(ctx, 1))])',
    "time = ctx.now()\nreturn time.time()",
    "random = ctx.random\nreturn random.choice([1, 2])",
    "for open in [str]:\n    open('x')",
    "handle = ctx.handle(order)\nawait handle.signal(Go)\nreturn await ctx.wait_for(handle, timeout='1h')",
    "return os.path.join('a', 'b'), Path('a') / 'b', Path('a').name",
    "raise requests.exceptions.ConnectionError(httpx.URL('/x'))",
    "return await ctx.deps.client.get('/x')",
    "return [x async for x in order]",
    "return time.time()  # noqa: D101",
    "return time.time(), uuid4()  # noqa: D101, D102",
    "return time.time()  # noqa",
    "return (\n    time.time()  # noqa: E501,D101\n)",
]


@pytest.mark.parametrize(("code", "body"), BROKEN)
def test_what_breaks_a_rule_is_found(code: str, body: str) -> None:
    assert codes(body) == [code]


@pytest.mark.parametrize("body", RIGHT)
def test_what_is_right_is_left_alone(body: str) -> None:
    assert codes(body) == []


def test_every_rule_is_tested_and_on_the_page() -> None:
    assert {code for code, _ in BROKEN} == set(RULES)
    page = (ROOT / "docs/linter.md").read_text()
    assert re.findall(r"^\| (D\d+) \|", page, re.MULTILINE) == list(RULES)


@pytest.mark.parametrize(
    ("signature", "decorator", "is_body"),
    [
        ("ctx: Context", "", True),
        ("context: Context[int], order: str", "", True),
        ("c: durable.Context", "", True),
        ("c: 'Context'", "", True),
        ("c: Context | None = None", "", True),
        ("ctx", "", True),
        ("anything", '@workflow(name="x", version="2")\n', True),
        ("anything", "@durable.workflow\n", True),
        ("order: str", "", False),
        ("ctx: str", "", False),
        ("ctx: Context", "@step\n", False),
    ],
)
def test_a_body_is_what_gets_a_context(signature: str, decorator: str, is_body: bool) -> None:
    assert codes("return time.time()", signature=signature, decorator=decorator) == ["D101"] * is_body


def test_a_function_that_is_handed_the_context_is_a_body() -> None:
    source = HEAD + dedent(
        """
        @workflow
        async def order(ctx: Context) -> float:
            return await first(1, here=ctx)


        async def first(number, here):
            await here.step(charge, 1)
            return await second(here)


        async def second(there):
            return time.time()


        async def elsewhere(there):
            return time.time()
        """
    )
    (finding,) = lint_source(source, "app.py")
    assert source.splitlines()[finding.line - 2] == "async def second(there):"
    assert str(finding).startswith(f"app.py:{finding.line}:12: D101 time.time() is called")


def test_a_function_that_becomes_a_workflow_by_a_call_is_a_body() -> None:
    source = f"{HEAD}\nasync def old(c):\n    return uuid4()\n\n\nnew = workflow(name='x')(old)\n"
    assert [finding.code for finding in lint_source(source)] == ["D102"]


def test_a_file_that_is_no_python_has_no_findings() -> None:
    assert lint_source("def (") == []


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "docs/examples").glob("*.py")), ROOT / "durable/cli/demo/order.py"],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_the_examples_are_clean(path: Path) -> None:
    assert lint_file(path) == []


@pytest.mark.parametrize(
    "page",
    [page for page in ROOT.glob("docs/**/*.md") if page.name != "linter.md"],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_what_the_pages_show_is_clean(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    findings = lint_source("\n".join(blocks), str(page))
    assert [finding for finding in findings if not finding.is_warning] == []
