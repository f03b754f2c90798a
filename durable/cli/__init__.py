"""The command line: `durable demo`, `worker`, `start`, `list` and all the others that `durable --help` names.

    program ──▶ worker  supervise  start
                check  describe        need the application: `--app module:durable`        (application)
            ──▶ executions  show  events
                acts  operate  amend
                schedules  queues  limits
                workers  export
                dashboard  doctor      need no more than the store's URL: `--store`        (connection)
            ──▶ demo                   needs nothing

Options that commands share are the fields of dataclasses, which `grouping` spreads out. Lists are a `listing`. What is
printed goes through `output`, which knows terminals from pipes; errors and exit codes are in `exits`. Shells ask
`completion`, which asks `known`, as a mistyped name does.
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
