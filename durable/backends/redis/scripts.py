"""The Lua scripts, one for each verb: the files of `scripts/`, each behind the prelude."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from durable.backends.redis.wire import Script

_FOLDER: Final = files("durable.backends.redis") / "scripts"
_PRELUDE: Final = (_FOLDER / "prelude.lua").read_text("utf-8")


def _script(name: str, *, reads: bool = False) -> Script:
    # The first line makes the server refuse the whole script when it is out of memory, and undeclared keys.
    shebang = "#!lua flags=no-writes" if reads else "#!lua"
    return Script(name, f"{shebang}\n{_PRELUDE}\n{(_FOLDER / f'{name}.lua').read_text('utf-8')}")


META: Final = _script("meta")
CREATE: Final = _script("create")
CLAIM: Final = _script("claim")
COMMIT: Final = _script("commit")
POST: Final = _script("post")
WATCH: Final = _script("watch")
TELL: Final = _script("tell")
SWEEP: Final = _script("sweep", reads=True)
FIRE: Final = _script("fire")
TAKEOVER: Final = _script("takeover")
DUE: Final = _script("due")
ERASE: Final = _script("erase")
FIND: Final = _script("find", reads=True)
BEAT: Final = _script("beat")
LIVE: Final = _script("live", reads=True)

ALL: Final = (
    META, CREATE, CLAIM, COMMIT, POST, WATCH, TELL, SWEEP, FIRE, TAKEOVER, DUE, ERASE, FIND, BEAT, LIVE
)  # fmt: skip
