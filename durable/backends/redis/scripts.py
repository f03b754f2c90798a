"""The Lua scripts, one for each verb: the files of `scripts/`, each behind the prelude."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from durable.backends.redis.wire import Script

_FOLDER: Final = files("durable.backends.redis") / "scripts"
_PRELUDE: Final = (_FOLDER / "prelude.lua").read_text("utf-8")


def _script(name: str, flags: str = "allow-oom") -> Script:
    # The first line makes the server refuse undeclared keys, and the whole of a script when it is out of memory: only
    # of one that takes something in. What runs may end then, and what has ended can be deleted.
    shebang = f"#!lua flags={flags}" if flags else "#!lua"
    return Script(name, f"{shebang}\n{_PRELUDE}\n{(_FOLDER / f'{name}.lua').read_text('utf-8')}")


_INTAKE: Final = ""
_READ: Final = "no-writes"

META: Final = _script("meta")
CREATE: Final = _script("create", _INTAKE)
CLAIM: Final = _script("claim")
COMMIT: Final = _script("commit")
POST: Final = _script("post", _INTAKE)
WATCH: Final = _script("watch")
TELL: Final = _script("tell")
SWEEP: Final = _script("sweep", _READ)
FIRE: Final = _script("fire")
TAKEOVER: Final = _script("takeover")
DUE: Final = _script("due")
ERASE: Final = _script("erase")
FIND: Final = _script("find", _READ)
INDEX: Final = _script("index")
GATE: Final = _script("gate")
ADMIT: Final = _script("admit")
LIMIT: Final = _script("limit")
GATES: Final = _script("gates", _READ)
DEPTHS: Final = _script("depths", _READ)
EMIT: Final = _script("emit", _INTAKE)
LEAVE: Final = _script("leave", _INTAKE)
LISTEN: Final = _script("listen")
UNLISTEN: Final = _script("unlisten")
LOOKED: Final = _script("looked")
LOOK: Final = _script("look", _READ)
OUTDATE: Final = _script("outdate")
NAME: Final = _script("name")
SCHEDULE: Final = _script("schedule", _INTAKE)
UNSCHEDULE: Final = _script("unschedule")
AGENDA: Final = _script("agenda", _READ)
BEAT: Final = _script("beat")
LIVE: Final = _script("live", _READ)
OUTBOX: Final = _script("outbox", _READ)

ALL: Final = (
    META, CREATE, CLAIM, COMMIT, POST, WATCH, TELL, SWEEP, FIRE, TAKEOVER, DUE, ERASE, FIND, INDEX, GATE,
    ADMIT, LIMIT, GATES, DEPTHS, EMIT, LEAVE, LISTEN, UNLISTEN, LOOKED, LOOK, OUTDATE, NAME, SCHEDULE, UNSCHEDULE,
    AGENDA, BEAT, LIVE, OUTBOX,
)  # fmt: skip
