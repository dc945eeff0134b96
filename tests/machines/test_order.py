"""The order of arrival, against a dictionary."""

import random

import pytest

from balancer.order import Order
from balancer.queue import Queue
from balancer.records import LiveRecord
from balancer.runs import Runs, Seen
from common.codec import glance, pack
from common.model import ticket, ticket_key

A, B = "aaaaaa", "bbbbbb"


def test_those_that_arrive_one_behind_the_other_are_one_run() -> None:
    order = Order()
    for number in range(1, 1001):
        order.add(number + 50, A, number)
    assert len(order._sequences) == 1
    assert (order.ticket(51), order.ticket(1050)) == (f"{A}-1", f"{A}-1000")
    assert (order.ticket(50), order.ticket(1051)) == (None, None)


def test_an_origin_between_two_jobs_of_another_breaks_its_run() -> None:
    order = Order()
    for sequence, (prefix, number) in enumerate([(A, 1), (B, 7), (A, 2), (A, 3), (A, 9)], 1):
        order.add(sequence, prefix, number)
    assert [order.ticket(sequence) for sequence in range(1, 6)] == [f"{A}-1", f"{B}-7", f"{A}-2", f"{A}-3", f"{A}-9"]
    assert len(order._sequences) == 4


def test_a_place_is_given_up_once() -> None:
    order = Order()
    order.add(1, A, 1, count=3)
    assert not order.remove(2, f"{A}-3"), "that has another place"
    assert order.remove(2, f"{A}-2")
    assert (order.ticket(2), order.sequence_of(f"{A}-2"), len(order)) == (None, None, 2)
    assert not order.remove(2, f"{A}-2")
    assert not order.remove(4, f"{A}-4")
    assert len(order) == 2


def test_nobody_arrives_before_one_that_is_here() -> None:
    order = Order()
    order.add(5, A, 1)
    with pytest.raises(AssertionError, match="arrives with 5, before one that is here"):
        order.add(5, A, 2)


def test_who_comes_after_the_last_has_gone_and_the_ranks_were_closed_begins_a_run() -> None:
    order = Order()
    order.add(1, A, 1, count=5000)
    for sequence in range(5000, 0, -1):
        assert order.remove(sequence, f"{A}-{sequence}")
    assert len(order._taken) < 1000, "the places of those that have gone were never given back"
    order.add(5001, A, 5001)
    assert (order.ticket(5001), order.ticket(5000), len(order)) == (f"{A}-5001", None, 1)


@pytest.mark.parametrize("seed", range(12))
def test_whoever_comes_and_goes_the_order_tells_what_a_dictionary_would(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.order._FREE_MIN", 8)  # the ranks are closed often
    chance, order, known = random.Random(seed), Order(), dict[int, str]()
    sequence, numbers = 0, {A: 0, B: 0}
    for _ in range(400):
        if chance.random() < 0.5:
            prefix = chance.choice([A, A, A, B])
            sequence += chance.choice([1, 1, 1, 3])
            count, number = chance.randint(1, 4), numbers[prefix] + chance.choice([1, 1, 1, 5])
            order.add(sequence, prefix, number, count)
            known |= {sequence + at: f"{prefix}-{number + at}" for at in range(count)}
            sequence, numbers[prefix] = sequence + count - 1, number + count - 1
        elif known:
            gone = chance.choice([min(known), max(known), chance.choice(list(known))])
            assert order.remove(gone, known.pop(gone))
        look = chance.randint(0, sequence + 2)
        assert order.ticket(look) == known.get(look)
        assert order.first_behind(look) == min((one for one in known if one > look), default=None)
        assert order.last_before(look) == max((one for one in known if one < look), default=None)
        assert order.last_before(None) == max(known, default=None)
        assert (len(order), order.last) == (len(known), sequence)
    for sequence, name in known.items():
        assert order.sequence_of(name) == sequence


# --- the queue, which stands in this order -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_queue_gives_what_a_sorted_list_would(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.queue._CUT_MIN", 4)
    chance, queue, known, came = random.Random(seed), Queue(), list[tuple[int, int]](), 0
    needs = ("sh", 1)
    for _ in range(400):
        priority = chance.choice([0, 0, 5])
        match chance.randint(0, 4):
            case 0:
                came += 1
                queue.push(needs, priority, came)
                known.append((-priority, came))
            case 1:
                came += 1
                many = range(came, came + chance.randint(1, 5))
                queue.extend(needs, priority, many)
                known += [(-priority, sequence) for sequence in many]
                came = many[-1]
            case 2 if came:  # one comes back to its older place
                place = (-priority, chance.randint(1, came))
                if place not in known:
                    queue.push(needs, *(-place[0], place[1]))
                    known.append(place)
            case _ if known:
                known.sort()
                assert queue.heads() == [(known[0], needs)]
                assert queue.pop(needs) == known.pop(0)[1]
        place = (-chance.choice([0, 3, 5]), chance.randint(0, came + 1))
        ahead = sorted(sequence for priority, sequence in known if (priority, sequence) < place)
        assert sorted(queue.ahead_of(place, [needs])) == ahead
        assert queue.count_ahead_of(place, [needs]) == len(ahead)
        assert bool(queue) is bool(known)


# --- the runs that a restart finds -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_the_runs_of_a_restart_are_the_jobs_that_arrived_in_their_order(seed: int) -> None:
    chance = random.Random(seed)
    records: dict[bytes, tuple[str, LiveRecord]] = {}
    sequence, numbers = 0, {A: 0, B: 0}
    for _ in range(200):
        prefix = chance.choice([A, A, A, B])
        sequence, numbers[prefix] = sequence + chance.choice([1, 1, 1, 2]), numbers[prefix] + chance.choice([1, 1, 2])
        name = ticket(prefix, numbers[prefix])
        held = chance.choice([{}] * 9 + [{"leased": True}, {"cancelled": True}, {"due_wall": 5.0}, {"array": "1-3"},
                                         {"waits_for": ("a",)}, {"due_wall": 5.0, "retrying": True}])  # fmt: skip
        record = LiveRecord(sequence, chance.choice(["sh", "sh", "py"]), chance.choice([0, 0, 3]), **held)
        records[ticket_key(name)] = (name, record)
    runs = Runs()
    for key, (name, record) in sorted(records.items()):
        at_rest = not (record.leased or record.cancelled or record.due_wall or record.array or record.waits_for)
        assert runs.take(key, glance(Seen, pack(record))) is at_rest, name
    assert not runs.take(ticket_key(f"{A}-1_7"), Seen(1, "sh")), "an element rests"
    found = [
        (sequence, ticket(run.prefix, run.number + at), run.shape.needs, run.shape.priority)
        for run in runs.in_order()
        for at, sequence in enumerate(run.sequences)
    ]
    came = sorted(records.values(), key=lambda one: one[1].sequence)
    assert found == [(record.sequence, name, (record.kind, 1), record.priority) for name, record in came]


def test_jobs_that_are_alike_and_came_one_behind_the_other_are_one_run() -> None:
    runs = Runs()
    for number in range(1, 1001):
        runs.take(ticket_key(ticket(A, number)), Seen(number + 7, "sh"))
    (run,) = runs.in_order()
    assert (run.sequences, run.number) == (range(8, 1008), 1)
