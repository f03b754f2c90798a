"""What crash tests share: processes that are gone when the test is, however it ended."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.fleet import Fleet, Nursery, sqlite_site


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    try:
        yield nursery
    finally:
        nursery.end()


@pytest.fixture
def fleet(nursery: Nursery, tmp_path: Path) -> Fleet:
    return Fleet(nursery, tmp_path, sqlite_site(tmp_path))
