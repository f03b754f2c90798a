"""The command line: `durable demo | worker | supervise | start | list | show | signal | send | cancel | retry |
schedules ... | queues ... | limits ... | workers | check | describe | export | prune | doctor`.

    program ──▶ worker  supervise
                start  check           need the application: `--app module:durable`        (application)
            ──▶ executions  show  acts
                schedules  queues  workers
                limits  export         need no more than the store's URL: `--store`        (connection)
            ──▶ doctor
            ──▶ demo                   needs nothing

What is printed goes through `output`, which knows terminals from pipes; errors and exit codes are in `exits`.
Exit codes: 0 done, 1 the execution failed, 2 usage, 3 not found, 4 wait timed out, 5 replay mismatch.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that the process's arguments name, and exit with its code."""
    missing = [package for package in ("typer", "rich") if find_spec(package) is None]
    if missing:
        print(f"error: the command line needs {' and '.join(missing)}", file=sys.stderr)
        print("hint: pip install 'durable[cli]'", file=sys.stderr)
        sys.exit(2)
    from durable.cli.program import run

    sys.exit(run(sys.argv[1:]))
