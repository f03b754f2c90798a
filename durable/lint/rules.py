"""The rules: their codes, what each says, and the names that break them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a body should not do."""

    code: str
    name: str
    advice: str
    is_warning: bool = False
    """It works, but probably not as meant."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A place in a body where a rule is broken. Lines and columns count from 1."""

    path: str
    line: int
    column: int
    code: str
    message: str
    is_warning: bool = False

    @override
    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.code} {self.message}"


CLOCK = Rule("D101", "clock", "it gives another time on each replay: use ctx.now()")
CHANCE = Rule("D102", "randomness", "it gives another value on each replay: use ctx.random or ctx.uuid4()")
IO = Rule("D103", "I/O", "it happens again on each replay: do it in a step")
SLEEP = Rule("D104", "sleep", "it is lost with the process, and keeps a slot: use ctx.sleep(...)")
WAIT_FOR = Rule(
    "D105", "wait_for", "it is lost with the process: give the wait a timeout=, or use asyncio.timeout"
)
CATCH_ALL = Rule(
    "D106",
    "catch-all",
    "it also catches how an execution is put aside and ended: catch Exception, or raise again",
)
SET = Rule("D107", "set order", "its order differs between processes: go through sorted(...)")
FINALLY = Rule(
    "D108",
    "effect in finally",
    "it is skipped when the run's time is over, and runs at a cancel: use ctx.saga(), .down() or rollback",
    is_warning=True,
)
THREAD = Rule("D109", "thread", "it runs again on each replay, and nothing waits for it: make it a step")
GLOBAL = Rule(
    "D110",
    "global state",
    "it changes again on each replay, and in one process only: return it, or ctx.set_value",
)
PRINT = Rule("D111", "print", "it prints again on each replay: use ctx.log", is_warning=True)
NOT_AWAITED = Rule("D112", "not awaited", "nothing happens without it: write `await`")
STEP_CALLED = Rule(
    "D113", "step called", "it is not recorded, and runs again on each replay: await ctx.step(...)"
)
CTX_IN_STEP = Rule(
    "D114", "ctx in a step", "a step is one unit, and ctx refuses to be used in it: move the call out"
)
ENVIRONMENT = Rule(
    "D115",
    "environment",
    "it may differ at the next replay: read it in a step, or put it into deps",
    is_warning=True,
)

RULES: Final[Mapping[str, Rule]] = {
    rule.code: rule
    for rule in (
        CLOCK,
        CHANCE,
        IO,
        SLEEP,
        WAIT_FOR,
        CATCH_ALL,
        SET,
        FINALLY,
        THREAD,
        GLOBAL,
        PRINT,
        NOT_AWAITED,
        STEP_CALLED,
        CTX_IN_STEP,
        ENVIRONMENT,
    )
}

_VERBS = ("get", "post", "put", "patch", "delete", "head", "options", "request")
_CALLS: Final[Mapping[Rule, Mapping[str, tuple[str, ...]]]] = {
    CLOCK: {
        "time": (
            *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
            *("process_time", "process_time_ns"),
        ),
        "datetime.datetime": ("now", "utcnow", "today"),
        "datetime.date": ("today",),
        "django.utils.timezone": ("now",),
        "pendulum": ("now", "today"),
        "arrow": ("now", "utcnow"),
    },
    CHANCE: {
        "uuid": ("uuid1", "uuid4", "uuid6", "uuid7"),
        "os": ("urandom", "getrandom"),
        "secrets": ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe"),
        "random": (
            *("random", "uniform", "triangular", "betavariate", "expovariate", "gauss", "normalvariate"),
            *("randint", "randrange", "getrandbits", "randbytes", "choice", "choices", "sample", "shuffle"),
            *("seed", "SystemRandom", "lognormvariate", "paretovariate", "vonmisesvariate", "weibullvariate"),
        ),
        "numpy.random": ("rand", "randn", "randint", "random", "choice", "shuffle", "permutation"),
    },
    IO: {
        "builtins": ("open", "input"),
        "io": ("open",),
        "requests": (*_VERBS, "Session", "session"),
        "httpx": (*_VERBS, "stream", "Client", "AsyncClient"),
        "aiohttp": ("request", "ClientSession"),
        "aiofiles": ("open",),
        "urllib.request": ("urlopen", "urlretrieve"),
        "socket": (
            *("socket", "create_connection", "create_server", "gethostbyname", "getaddrinfo", "gethostname"),
        ),
        "subprocess": ("run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"),
        "asyncio": ("create_subprocess_exec", "create_subprocess_shell", "open_connection", "start_server"),
        "shutil": ("copy", "copy2", "copyfile", "copytree", "move", "rmtree"),
        "os": (
            *("remove", "unlink", "rename", "replace", "mkdir", "makedirs", "rmdir", "removedirs", "listdir"),
            *("scandir", "walk", "stat", "system", "popen", "kill", "_exit", "open", "read", "write"),
        ),
        "os.path": ("exists", "isfile", "isdir", "getsize", "getmtime"),
        "glob": ("glob", "iglob"),
        "tempfile": ("mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile"),
        "sqlite3": ("connect",),
        "psycopg": ("connect",),
        "psycopg2": ("connect",),
        "asyncpg": ("connect", "create_pool"),
        "boto3": ("client", "resource"),
        "smtplib": ("SMTP", "SMTP_SSL"),
    },
    SLEEP: {"time": ("sleep",), "asyncio": ("sleep",), "anyio": ("sleep", "sleep_until"), "trio": ("sleep",)},
    WAIT_FOR: {"asyncio": ("wait_for",)},
    THREAD: {
        "threading": ("Thread", "Timer"),
        "concurrent.futures": ("ThreadPoolExecutor", "ProcessPoolExecutor"),
        "multiprocessing": ("Process", "Pool"),
        "asyncio": ("to_thread", "run_coroutine_threadsafe"),
        "anyio.to_thread": ("run_sync",),
    },
    PRINT: {"builtins": ("print",)},
    ENVIRONMENT: {"os": ("getenv",), "os.environ": ("get",)},
}

BY_NAME: Final[Mapping[str, Rule]] = {
    f"{module}.{name}": rule
    for rule, modules in _CALLS.items()
    for module, names in modules.items()
    for name in names
}
"""The rule that a call of this name breaks."""

OF_A_PATH: Final = frozenset(
    {
        *(
            "read_text",
            "read_bytes",
            "write_text",
            "write_bytes",
            "open",
            "exists",
            "is_file",
            "is_dir",
            "stat",
        ),
        *("unlink", "mkdir", "rmdir", "touch", "iterdir", "glob", "rglob", "rename"),
    }
)
"""Methods of a `Path` that touch the disk."""

OPERATIONS: Final = frozenset(
    {
        *(
            "step",
            "transaction",
            "sleep",
            "sleep_until",
            "wait_for_signal",
            "wait_for_any",
            "wait_for_event",
            "switch",
        ),
        *("gather", "map", "start", "run", "wait_for", "emit", "note", "set_value", "rollback"),
    }
)
"""Methods of a context that do something durable."""

MUTATORS: Final = frozenset(
    {
        *("append", "extend", "insert", "remove", "pop", "popleft", "appendleft", "clear", "add", "discard"),
        *("update", "setdefault", "popitem", "sort", "reverse"),
    }
)
MUTABLE: Final = frozenset(
    {
        *("builtins.list", "builtins.dict", "builtins.set", "collections.defaultdict", "collections.deque"),
        *("collections.Counter", "collections.OrderedDict"),
    }
)
