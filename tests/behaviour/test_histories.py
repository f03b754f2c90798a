"""What earlier versions have recorded: it fits the code of this one, and goes on to the same end on every backend."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from durable.codec import load_error
from durable.engine.rehearsal import Fit
from durable.engine.transitions import CANCEL, TIMEOUT
from durable.history import History, dump_histories, load_histories
from durable.protocols import InboxEntry, Message, MessageKind, Reach
from durable.testing import read_histories, replay_history, restore
from tests.histories.record import KEPT, histories_of, path_of
from tests.histories.scenarios import SCENARIOS, Scenario
from tests.support import World, ends

FILES = sorted(KEPT.glob("*/*.json"))
WORKFLOWS = list(dict.fromkeys(w for s in SCENARIOS.values() for w in (s.workflow, *s.others)))


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def essence(history: History) -> object:
    """What an execution came to."""
    row = history.row
    error = None if row.error is None else replace(load_error(row.error), attributes={})
    return row.status, row.result, row.code, error, row.attempt, row.generation


def records_of(history: History) -> dict[str, tuple[str, str, str, bytes, int]]:
    """What is recorded, but for the tries of steps: when they were made is in their data."""
    kept = [c for c in history.checkpoints if c.kind != "tries"]
    return {c.step_id: (c.kind, c.name, c.status, c.data, c.attempts) for c in kept}


@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_what_was_recorded_fits_the_code(file: Path) -> None:
    for history in read_histories(file):
        assert (await replay_history(WORKFLOWS, history)).fit is Fit.FITS
        assert load_histories(dump_histories([history])) == [history]


@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_without_its_values_a_history_says_nothing_wrong(file: Path) -> None:
    for history in read_histories(file):
        redacted = history.redact()
        assert load_histories(dump_histories([redacted])) == [redacted]
        assert (await replay_history(WORKFLOWS, redacted)).fit in (Fit.FITS, Fit.UNDECIDED)


@pytest.mark.parametrize("replay", [False, True], ids=["kept in memory", "replayed after each record"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
async def test_every_scenario_is_kept_and_still_records_the_same(scenario: Scenario, replay: bool) -> None:
    directory = max(file.parent for file in FILES)
    now = await histories_of(scenario, replay=replay)
    for number, histories in enumerate(now, 1):
        kept = read_histories(path_of(directory, scenario.name, number))
        assert [essence(history) for history in histories] == [essence(history) for history in kept]
        assert [records_of(history) for history in histories] == [records_of(history) for history in kept]


def files_by_number() -> dict[tuple[str, str], list[Path]]:
    """The files of one version that were kept at the first rest of their scenarios, at the second ..."""
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for file in FILES:
        found[file.parent.name, file.stem.rpartition("-")[2]].append(file)
    return found


def last_of(file: Path) -> History:
    """How the execution that a file holds first ended."""
    name = file.stem.rpartition("-")[0]
    number = max(int(each.stem.rpartition("-")[2]) for each in file.parent.glob(f"{name}-*.json"))
    return read_histories(path_of(file.parent, name, number))[0]


def still_to_come(history: History, last: History) -> list[Message]:
    """What reached the execution from outside after this was kept. A chain drops what was read, so it gets more."""
    known = {entry.id for entry in history.inbox}
    messages = [
        message(entry, again)
        for entry in last.inbox
        if entry.id not in known
        for again in range(last.row.generation - history.row.generation + 1)
        if entry.kind is MessageKind.SIGNAL or (entry.kind, entry.name) in (CANCEL, TIMEOUT)
    ]
    return [each for each in messages if not each.id.startswith("sent:")]


def message(entry: InboxEntry, again: int) -> Message:
    reach = Reach.PARKED if entry.kind is MessageKind.SIGNAL else Reach.BLOCKED
    return Message(entry.id + ":again" * again, entry.kind, entry.name, entry.data, reach)


@pytest.mark.parametrize("files", files_by_number().values(), ids=lambda files: name_of(files[0]))
async def test_what_was_recorded_goes_on_to_the_same_end(world: World, files: list[Path]) -> None:
    store = world.store()
    await store.open()
    for file in files:
        first, *others = read_histories(file)
        for child in others:
            if not child.row.status.final:
                await restore(store, child)
        await restore(store, first)
        for each in still_to_come(first, last_of(file)):
            await store.post(first.row.id, each)
    node = await world.node(*WORKFLOWS)
    for file in files:
        last = last_of(file)
        await ends(node.handle(last.row.id), within=20)
        now = await node.operator.get_history(last.row.id)
        assert essence(now) == essence(last), file
        assert records_of(now) == records_of(last), file
    await store.close()
