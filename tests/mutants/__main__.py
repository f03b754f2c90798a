"""`python -m tests.mutants [name ...]`: which test notices which sabotage. Ends with 1 when one is not noticed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.mutants.gallery import GALLERY, Mutant
from tests.mutants.trial import try_out, try_unchanged


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help="a part of a mutant's name; all, if none is given"
    )
    parser.add_argument("--list", action="store_true", help="what there is, and try nothing")
    arguments = parser.parse_args()
    mutants = [
        mutant
        for mutant in GALLERY
        if not arguments.names or any(name in mutant.name for name in arguments.names)
    ]
    if not mutants:
        parser.error("there is no such mutant")
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.name:45} {mutant.breaks}")
        return 0
    return try_all(mutants)


def try_all(mutants: Sequence[Mutant]) -> int:
    unchanged = try_unchanged([test for mutant in mutants for test in mutant.tests])
    if unchanged.failed is not None:
        print(f"{unchanged.failed} fails on the code as it is:\n{unchanged.output}")
        return 1
    print(f"{unchanged.ran} tests pass on the code as it is\n")
    print("| mutant | killed by | seconds |\n|---|---|---|", flush=True)
    survivors = 0
    for mutant in mutants:
        outcome = try_out(mutant)
        survivors += outcome.failed is None
        print(f"| {mutant.name} | {outcome.failed or '**nothing**'} | {outcome.seconds:.1f} |", flush=True)
    print(f"\n{len(mutants) - survivors} of {len(mutants)} are killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
