"""The small pure parts: codec, frames, messages, memory, timers, history, keys."""

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import messages
from common.codec import Malformed, Record, pack, replace, unpack
from common.effects import Delete, Put, Table
from common.frames import Parser, batches, encode
from common.history import History
from common.keys import Claim, Keys, fingerprint
from common.limits import BATCH_BYTES, BATCH_ITEMS_MAX
from common.memory import Memory
from common.messages import CODES, Begun, Dispatch, Info, Inquiry, Jobs, Lease, Message, Pair, Poll, Result, Submission
from common.model import Ended, Job, Outcome, Reason, State, Verdict, parse_ticket, ticket_key, ticket_of
from common.timers import Timers
from tests.machines.cluster import Disk

JOB = Job("sh", "echo hi", 12.5, name="ü x", env=(("A", "b"),), timeout_s=3.0)
MESSAGES: list[Message] = [
    Poll(),
    Info(3, 4),
    Jobs((Submission("aaaaaa-1", pack(JOB), b"\x00body"),)),
    Dispatch((Lease("aaaaaa-1", 2, pack(JOB)),)),
    Result((Pair("aaaaaa-1", b"record", b"output"),)),
]


# --- codec --------------------------------------------------------------------------------------------------------


def test_what_is_packed_unpacks_to_the_same() -> None:
    assert unpack(Job, pack(JOB)) == JOB
    outcome = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.25, truncated=True)
    assert unpack(Outcome, pack(outcome)) == outcome
    assert isinstance(unpack(Outcome, pack(outcome)).verdict, Verdict)


def test_defaults_are_left_out_so_that_a_field_can_be_added() -> None:
    assert b"priority" not in pack(JOB)
    assert b"crash_limit" not in pack(JOB)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "sh"},
        {"kind": "sh", "line": 3},
        {"kind": "sh", "line": "x", "color": "red"},
        {"kind": "sh", "line": "x", "slots": "2"},
        {"kind": "sh", "line": "x", "slots": True},
        {"kind": "sh", "line": "x", "slots": 0},
        {"kind": "sh", "line": "x", "env": [["A"]]},
        [1, 2],
        None,
    ],
)
def test_reading_is_closed(fields: object) -> None:
    import msgspec

    with pytest.raises(Malformed, match="not a Job"):
        unpack(Job, msgspec.msgpack.encode(fields))


@given(st.binary(max_size=200))
@example(b"\x81\x00\x00")  # a map of 0 to 0: a field whose name is no text
def test_garbage_is_malformed_and_nothing_else(data: bytes) -> None:
    for cls in (Job, Ended, messages.Hello, Jobs):
        try:
            unpack(cls, data)
        except Malformed:
            pass


# --- frames -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 200), max_size=20))
def test_any_segmentation_of_the_bytes_gives_the_same_messages(cuts: list[int]) -> None:
    data = b"".join(map(encode, MESSAGES))
    parser, found = Parser(), list[Message]()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        found += parser.feed(data[start:end])
    assert found == MESSAGES


@given(st.binary(min_size=6, max_size=300))
def test_garbage_frames_are_malformed_and_nothing_else(data: bytes) -> None:
    try:
        Parser().feed(data)
    except Malformed:
        pass


def test_every_message_has_a_code_of_its_own() -> None:
    classes = {cls for cls in vars(messages).values() if isinstance(cls, type) and issubclass(cls, Record)} - {
        Record,
        Submission,
        Lease,
        Pair,
        messages.Reported,
        Outcome,
    }
    assert set(CODES) == classes
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("name", ["x", "", "aaaaaa-0", "aaaaa-1", "aaaaaa-1-1", "aaaaaa-1_", "aaaaaa-1_03", "AAAA1A-1"])
def test_what_is_no_ticket_reaches_no_machine(name: str) -> None:
    with pytest.raises(ValueError, match="no ticket"):
        Begun(((name, 1),))
    with pytest.raises(ValueError, match="no ticket"):
        Pair(name, b"")


def test_an_element_of_an_array_can_be_an_attempt_but_never_a_submission() -> None:
    assert Begun((("aaaaaa-1_3", 1),)).attempts == (("aaaaaa-1_3", 1),)
    with pytest.raises(ValueError, match="no ticket that a node issues"):
        Submission("aaaaaa-1_3", b"")


@pytest.mark.parametrize("text", ["", "g" * 201, "ü" * 101])
def test_a_group_or_key_that_no_client_can_have_said_reaches_no_table(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 200 bytes"):
        Job("sh", "true", group=text)
    with pytest.raises(ValueError, match="1 to 200 bytes"):
        Job("sh", "true", key=text)
    if text:
        with pytest.raises(ValueError, match="200 bytes"):
            Inquiry(1, "watch", group=text)


def test_batches_are_bounded_in_bytes_and_in_items_and_lose_nothing() -> None:
    sizes = [10, BATCH_BYTES, 5, 5, BATCH_BYTES * 3, 1]
    cut = list(batches(sizes, lambda size: size))
    assert [size for batch in cut for size in batch] == sizes
    assert all(len(batch) == 1 or sum(batch) <= BATCH_BYTES for batch in cut)
    assert [len(batch) for batch in batches(range(BATCH_ITEMS_MAX + 1), lambda _: 0)] == [BATCH_ITEMS_MAX, 1]
    assert list(batches([], len)) == []


# --- tickets ------------------------------------------------------------------------------------------------------


@given(st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=6, max_size=6), st.integers(1, 10**17))
def test_keys_of_tickets_sort_by_origin_and_then_by_number(prefix: str, number: int) -> None:
    name = f"{prefix}-{number}"
    assert parse_ticket(name) == (prefix, number)
    assert ticket_of(ticket_key(name)) == name
    assert ticket_key(name) < ticket_key(f"{prefix}-{number + 1}")


# --- memory -------------------------------------------------------------------------------------------------------


def test_a_machine_reads_its_own_writes_and_the_last_one_is_what_is_committed() -> None:
    disk = Disk()
    disk.commit([Put(Table.JOBS, b"a", b"1"), Put(Table.JOBS, b"b", b"2")])
    memory = Memory(disk)
    memory.put(Table.JOBS, b"a", b"new")
    memory.delete(Table.JOBS, b"b")
    memory.put(Table.JOBS, b"c", b"3")
    memory.put(Table.JOBS, b"c", b"4")
    assert [memory.get(Table.JOBS, key) for key in (b"a", b"b", b"c")] == [b"new", None, b"4"]
    assert memory.scan(Table.JOBS, limit=9) == [(b"a", b"new"), (b"c", b"4")]
    assert memory.scan(Table.JOBS, limit=1, backwards=True) == [(b"c", b"4")]
    assert memory.scan(Table.JOBS, limit=9, after=b"a") == [(b"c", b"4")]
    writes = memory.take()
    assert sorted(writes, key=lambda write: write.key) == [
        Put(Table.JOBS, b"a", b"new"),
        Delete(Table.JOBS, b"b"),
        Put(Table.JOBS, b"c", b"4"),
    ]
    disk.commit(writes)
    memory.committed()
    assert not memory.take()
    assert len(writes) == 3, "whoever has them keeps them"
    assert writes[0] == next(iter(writes))
    assert memory.get(Table.JOBS, b"c") == b"4"


_KEYS = st.integers(0, 20).map(lambda number: b"%02d" % number)


@given(
    stored=st.sets(_KEYS),
    written=st.dictionaries(_KEYS, st.sampled_from([None, b"new"])),
    after=st.just(b"") | _KEYS,
    prefix=st.sampled_from([b"", b"0", b"1"]),
    limit=st.integers(1, 25),
    backwards=st.booleans(),
)
def test_a_scan_reads_like_one_table_however_much_of_it_is_not_committed(
    stored: set[bytes], written: dict[bytes, bytes | None], after: bytes, prefix: bytes, limit: int, backwards: bool
) -> None:
    disk = Disk()
    disk.commit([Put(Table.JOBS, key, b"old") for key in stored])
    memory = Memory(disk)
    memory.writes_to(Table.JOBS).update(written)
    both = dict.fromkeys(stored, b"old") | written
    prefix = b"" if backwards else prefix  # nobody asks for both
    records = [(key, both[key]) for key in sorted(both, reverse=backwards) if both[key] is not None]
    if after:
        records = [record for record in records if (record[0] < after if backwards else record[0] > after)]
    expected = [record for record in records if record[0].startswith(prefix)][:limit]
    assert memory.scan(Table.JOBS, prefix=prefix, after=after, limit=limit, backwards=backwards) == expected


@pytest.mark.parametrize("backwards", [False, True])
def test_a_scan_for_little_reads_little_however_much_is_not_committed(backwards: bool) -> None:
    """What is in the journal and not in LMDB yet may be a thousand records of a table."""
    limits: list[int] = []

    class Watched(Disk):
        def scan(self, *arguments: Any, limit: int, **more: Any) -> list[tuple[bytes, bytes]]:
            limits.append(limit)
            return super().scan(*arguments, limit=limit, **more)

    memory = Memory(Watched())
    memory.writes_to(Table.JOBS).update({b"%04d" % number: b"" for number in range(1000)})
    memory.delete(Table.JOBS, b"0000")
    memory.delete(Table.JOBS, b"0500")
    memory.delete(Table.JOBS, b"0999")
    for limit in (1, 50):
        assert len(memory.scan(Table.JOBS, limit=limit, backwards=backwards)) == limit
    assert limits == [2, 51], "and for what was deleted as far as that"


def test_writing_while_a_step_is_being_committed_is_a_bug_that_is_noticed() -> None:
    memory = Memory(Disk())
    memory.put(Table.JOBS, b"a", b"1")
    memory.take()
    with pytest.raises(AssertionError, match="being committed"):
        memory.put(Table.JOBS, b"b", b"2")
    with pytest.raises(AssertionError, match="being committed"):
        memory.writes_to(Table.JOBS)


def test_to_have_looked_at_the_writes_of_a_table_is_not_to_have_written() -> None:
    memory = Memory(Disk())
    memory.writes_to(Table.JOBS)
    assert not memory.untaken
    assert not memory.take()
    memory.put(Table.JOBS, b"a", b"1")
    assert memory.untaken


@given(
    st.dictionaries(st.binary(min_size=1, max_size=2), st.binary(max_size=2)),
    st.dictionaries(st.binary(min_size=1, max_size=2), st.none() | st.binary(max_size=2)),
    st.binary(max_size=2),
    st.binary(max_size=1),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_scan_over_uncommitted_writes_is_as_if_they_were_committed(
    stored: dict[bytes, bytes],
    written: dict[bytes, bytes | None],
    after: bytes,
    prefix: bytes,
    limit: int,
    backwards: bool,
    between: bool,
    many: bool,
) -> None:
    disk, both = Disk(), Disk()
    for target in (disk, both):
        target.commit([Put(Table.JOBS, key, value) for key, value in stored.items()])
    memory = Memory(disk)
    for key, value in written.items():
        if between:
            memory.scan(Table.JOBS, limit=1)
        if many:
            memory.writes_to(Table.JOBS)[key] = value
        elif value is None:
            memory.delete(Table.JOBS, key)
        else:
            memory.put(Table.JOBS, key, value)
    options = {"prefix": prefix, "after": after, "limit": limit, "backwards": backwards}
    seen = memory.scan(Table.JOBS, **options)  # type: ignore[arg-type]
    both.commit(memory.take())
    assert seen == both.scan(Table.JOBS, **options)  # type: ignore[arg-type]


# --- timers -------------------------------------------------------------------------------------------------------


def test_timers_come_up_in_order_once_and_can_be_moved_and_cancelled() -> None:
    timers = Timers()
    for name, at in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 1.5)):
        timers.set(name, at)
    timers.set("b", 5.0)
    timers.cancel("d")
    assert timers.next() == 2.0
    assert timers.due(1.9) == []
    assert timers.due(4.0) == ["c", "a"]
    assert timers.due(4.0) == []
    assert timers.due(9.0) == ["b"]
    assert timers.next() is None


def test_moving_a_timer_for_ever_does_not_grow() -> None:
    timers = Timers()
    for number in range(100_000):
        timers.set("poll", float(number))
    assert len(timers._heap) < 200
    assert timers.due(1e9) == ["poll"]


# --- history and keys ---------------------------------------------------------------------------------------------


def test_damaged_output_is_replaced_by_zeros_of_its_length() -> None:
    history = History(Memory(Disk()), 60.0)
    ended = Ended(State.SUCCEEDED, 1.0, attempt=1, exit=0, stdout_bytes=3, stderr_bytes=2)
    history.record("aaaaaa-1", ended, b"")
    assert history.output("aaaaaa-1", ended) == bytes(5)


def test_early_expiry_takes_the_oldest_first_and_in_bounded_steps() -> None:
    disk = Disk()
    history = History(Memory(disk), 60.0)
    for number in range(1, 1501):
        history.record(f"aaaaaa-{number}", Ended(State.SUCCEEDED, float(number)), b"")
    assert history.expire(1500.0, early=True) == 1000
    assert history.expired("aaaaaa-1000")
    assert history.find("aaaaaa-1001") is not None


def test_a_key_is_freed_with_its_job_and_with_no_other() -> None:
    keys = Keys(Memory(Disk()))
    keys.claim("k", Claim("aaaaaa-1", b"print"))
    keys.release("k", "aaaaaa-2")
    assert keys.find("k") == Claim("aaaaaa-1", b"print")
    keys.release("k", "aaaaaa-1")
    assert keys.find("k") is None


def test_a_fingerprint_is_of_what_was_asked_and_not_of_when() -> None:
    same = replace(JOB, submitted_wall=99.0)
    assert fingerprint(JOB, b"x") == fingerprint(same, b"x")
    assert fingerprint(JOB, b"x") != fingerprint(JOB, b"y")
    assert fingerprint(JOB, b"x") != fingerprint(replace(JOB, priority=1), b"x")


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_welcome_with_a_timeout_that_is_none_is_malformed(seconds: float) -> None:
    with pytest.raises(ValueError, match="node_timeout_s"):
        messages.Welcome(seconds, eager=True)
