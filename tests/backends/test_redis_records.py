"""What is packed for Redis comes out as it went in, whatever is in it."""

from __future__ import annotations

from hypothesis import given, strategies as st

from durable.backends.redis.letters import pack_out, unpack_out
from durable.backends.redis.records import (
    index_prefixes,
    pack_checkpoint,
    pack_message,
    pack_optional,
    pack_spec,
    rank,
    unpack_checkpoint,
    unpack_consumed,
    unpack_doorbell,
    unpack_entry,
    unpack_optional,
    unpack_row,
)
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Doorbell,
    Emit,
    InboxEntry,
    Listen,
    Message,
    MessageKind,
    NewExecution,
    Out,
    Post,
    Reach,
    Start,
    Unlisten,
    Watch,
)

TEXTS = st.text()
NAMES = st.from_regex(r"[A-Za-z0-9._:/#\[\]-]{1,20}", fullmatch=True)
INSTANTS = st.integers(0, 2**60)
PRIORITIES = st.integers(-(2**31), 2**31 - 1)
CHECKPOINTS = st.builds(
    Checkpoint,
    step_id=TEXTS,
    kind=TEXTS,
    name=TEXTS,
    status=st.sampled_from(CheckpointStatus),
    data=st.binary(),
    attempts=INSTANTS,
    started_at=INSTANTS,
    finished_at=st.none() | INSTANTS,
    wake_at=st.none() | INSTANTS,
    seq=INSTANTS,
)
MESSAGES = st.builds(
    Message,
    id=TEXTS,
    kind=st.sampled_from(MessageKind),
    name=TEXTS,
    data=st.binary(),
    reach=st.sampled_from(Reach),
)
LISTENS = st.builds(
    Listen,
    event=NAMES,
    step_id=NAMES,
    topic=TEXTS,
    shape=TEXTS,
    seen=st.none() | INSTANTS,
    cancel=st.none() | st.binary(),
)
SPECS = st.builds(
    NewExecution,
    id=NAMES,
    workflow=NAMES,
    version=NAMES,
    input=st.binary(),
    queue=NAMES,
    priority=PRIORITIES,
    key=st.none() | TEXTS,
    reuse_closed_key=st.booleans(),
    tags=st.dictionaries(TEXTS, TEXTS, max_size=3),
    options=st.binary(),
    delay_ms=INSTANTS,
    at_ms=st.none() | INSTANTS,
    timeout_ms=st.none() | INSTANTS,
    parent_id=st.none() | NAMES,
    listens=st.lists(LISTENS, max_size=2).map(tuple),
    cause=st.binary(),
)
FEW_TEXTS = st.lists(TEXTS, max_size=3).map(tuple)
OUTS = st.one_of(
    st.builds(Start, SPECS),
    st.builds(Post, NAMES, MESSAGES),
    st.builds(Watch, NAMES, TEXTS),
    st.builds(Emit, NAMES, NAMES, st.binary(), FEW_TEXTS, FEW_TEXTS, st.lists(SPECS, max_size=2).map(tuple)),
    LISTENS,
    st.builds(Unlisten, NAMES, NAMES),
)


@given(CHECKPOINTS)
def test_a_checkpoint(checkpoint: Checkpoint) -> None:
    step_id, flag, packed = pack_checkpoint(checkpoint)
    assert isinstance(step_id, str)
    assert isinstance(flag, str)
    assert isinstance(packed, bytes)
    stored = f"{flag[0]}{checkpoint.seq} ".encode() + packed  # as the script does
    assert unpack_checkpoint(step_id.encode(), stored) == checkpoint


@given(MESSAGES, INSTANTS, INSTANTS, TEXTS)
def test_a_message_unread_and_consumed(message: Message, seq: int, at: int, step_id: str) -> None:
    stored = f"{seq} {at} ".encode() + pack_message(message)
    expected = InboxEntry(seq, message.id, message.kind, message.name, message.data, at)
    assert unpack_entry(stored) == expected
    step = step_id.encode()
    consumed = unpack_consumed(b"%d %b%b" % (len(step), step, stored))
    assert consumed == InboxEntry(seq, message.id, message.kind, message.name, message.data, at, step_id)


@given(SPECS)
def test_an_execution(spec: NewExecution) -> None:
    fields = {b"st": b"r", b"su": b"p", b"ca": b"1", b"av": b"2", b"s": pack_spec(spec), b"in": spec.input}
    row = unpack_row(spec.id, fields)
    assert (row.workflow, row.version, row.queue, row.priority) == (
        spec.workflow,
        spec.version,
        spec.queue,
        spec.priority,
    )
    assert (row.key, row.tags, row.options, row.parent_id) == (
        spec.key,
        spec.tags,
        spec.options,
        spec.parent_id,
    )


@given(SPECS, st.integers(0, 2**53), st.integers(0, 10**6))
def test_a_doorbell(spec: NewExecution, since: int, crashes: int) -> None:
    member = f"{rank(spec)}{since:016}{spec.id}\0{crashes}".encode()
    expected = Doorbell(spec.id, spec.workflow, spec.version, spec.queue, spec.priority, crashes)
    assert unpack_doorbell(member) == expected


@given(SPECS, PRIORITIES)
def test_a_greater_priority_comes_first(spec: NewExecution, other: int) -> None:
    first, second = (rank(NewExecution("x", "w", "1", b"", priority=each)) for each in (spec.priority, other))
    assert (first < second) == (spec.priority > other)


@given(SPECS)
def test_no_two_prefixes_of_the_index_run_into_each_other(spec: NewExecution) -> None:
    prefixes = index_prefixes(spec).split("\n")
    assert len(prefixes) == 1 + (spec.parent_id is not None) + len(spec.tags)
    assert len(set(prefixes)) == len(prefixes)


@given(OUTS)
def test_a_letter(out: Out) -> None:
    assert unpack_out(pack_out(out)) == out


@given(st.none() | st.binary())
def test_what_may_be_missing(data: bytes | None) -> None:
    assert unpack_optional(pack_optional(data)) == data


@given(st.binary(), st.binary())
def test_a_letter_of_the_older_schema(input: bytes, options: bytes) -> None:
    spec = NewExecution("x", "order", "1", input, options=options)
    words = b'["x","order","1","default",0,null,false,{},0,null,null,null,%d]\n' % len(input)
    assert unpack_out(b"S" + words + input + options) == Start(spec)
    assert unpack_out(b'E["e","paid"]\n' + input) == Emit("e", "paid", input)
