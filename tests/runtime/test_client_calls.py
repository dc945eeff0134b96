"""The calls of an executor over one connection: what is sent when, and what replies come to. Without a socket."""

import pytest

from jobyard import Draining, Expired, Full, JobyardError, Outcome, ProtocolError, Ticket, Unauthorized, Unreachable
from jobyard.futures import calls
from jobyard.futures.calls import Begun, Calls, Elsewhere, Settled, Taken, Told
from jobyard.protocol import ReplyParser
from tests.runtime.fake_node import with_body


class Talk:
    """Calls and the node that they talk to, which is the test. Time stands still unless it is moved."""

    def __init__(self, nodes: int = 1) -> None:
        self.calls = Calls("g", nodes)
        self.now = 100.0
        self.numbers = 0

    def submit(self, count: int = 1) -> None:
        for _ in range(count):
            self.numbers += 1
            key = f"key{self.numbers}"
            self.calls.submit(self.numbers, key, f"SUBMIT key={key} call f\n".encode())

    def sent(self) -> list[str]:
        """What is to be sent now, all of it."""
        lines = []
        while data := self.calls.requests(self.now):
            lines += data.decode().splitlines()
        return lines

    def hears(self, *replies: bytes | str) -> list[Told]:
        told = []
        for reply in replies:
            data = reply if isinstance(reply, bytes) else f"{reply}\n".encode()
            (read,) = ReplyParser().feed(data)
            told += self.calls.take(read, self.now)
        return told


def watched(cursor: str, *lines: str) -> bytes:
    return with_body(f"OK count={len(lines)} live=0 cursor={cursor}", "".join(f"{line}\n" for line in lines))


def ended(ticket: str, **fields: str) -> str:
    return " ".join((ticket, "state=succeeded", "attempt=1", *(f"{name}={value}" for name, value in fields.items())))


def result(ticket: str, value: str = "v") -> bytes:
    line = f"OK {ticket} state=succeeded exit=0 attempt=1 node=n seconds=1 stdout={len(value)} stderr=0"
    return with_body(line, value)


def outcome(ticket: str, value: bytes = b"v") -> Outcome:
    return Outcome(Ticket(ticket), "succeeded", 1, 0, "n", 1.0, stdout=value)


@pytest.fixture
def talk() -> Talk:
    return Talk()


@pytest.fixture
def taken(talk: Talk) -> Talk:
    """A call that has its ticket, k-1; a WATCH for its end is on its way."""
    talk.submit()
    assert talk.sent() == ["SUBMIT key=key1 call f", "WATCH timeout=0.1 group=g"]
    assert talk.hears("OK k-1") == [Taken(1, Ticket("k-1"))]
    return talk


def test_a_call_goes_from_its_submission_to_its_outcome(taken: Talk) -> None:
    assert taken.hears(watched("c1", ended("k-1"))) == []
    assert taken.sent() == ["RESULT k-1", "WATCH timeout=0.2 since=c1 group=g"]
    assert taken.hears(result("k-1")) == [Settled(1, outcome("k-1"))]
    assert len(taken.calls) == 0
    assert taken.hears(watched("c2")) == []
    assert taken.sent() == [], "nothing is under way"


def test_a_watch_waits_longer_and_longer_until_something_is_submitted(taken: Talk) -> None:
    waits = []
    for _ in range(5):
        taken.hears(watched("c"))
        waits += [line.split()[1] for line in taken.sent() if line.startswith("WATCH")]
    assert waits == ["timeout=0.2", "timeout=0.4", "timeout=0.5", "timeout=0.5", "timeout=0.5"]
    taken.submit()
    assert taken.sent() == ["SUBMIT key=key2 call f"], "behind the WATCH that waits"
    taken.hears(watched("c"), "OK k-2")
    assert taken.sent() == ["WATCH timeout=0.1 since=c group=g"]


def test_a_watch_does_not_wait_while_more_is_to_be_sent(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SUBMISSIONS_MAX", 2)
    talk.submit(3)
    assert talk.sent() == ["SUBMIT key=key1 call f", "SUBMIT key=key2 call f", "WATCH timeout=0 group=g"]
    talk.hears("OK k-1", "OK k-2")
    assert talk.sent() == ["SUBMIT key=key3 call f"], "the window is open again"


def test_only_so_many_results_are_on_their_way_at_once(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "RESULTS_MAX", 2)
    talk.submit(3)
    talk.sent()
    talk.hears("OK k-1", "OK k-2", "OK k-3", watched("c", ended("k-1"), ended("k-2"), ended("k-3")))
    assert talk.sent() == ["RESULT k-1", "RESULT k-2", "WATCH timeout=0 since=c group=g"]
    talk.hears(result("k-1"))
    assert talk.sent() == ["RESULT k-3"]


def test_an_end_that_is_told_before_its_ticket_is_not_forgotten(talk: Talk) -> None:
    talk.submit()
    talk.sent()
    talk.hears("OK k-1")
    talk.submit(2)
    assert talk.sent() == ["SUBMIT key=key2 call f", "SUBMIT key=key3 call f"]
    assert talk.hears(watched("c", ended("k-3"), ended("x-1"))) == []
    assert talk.sent() == ["WATCH timeout=0 since=c group=g"], "there will be a result to ask for"
    assert talk.hears("OK k-2", "OK k-3") == [Taken(2, Ticket("k-2")), Taken(3, Ticket("k-3"))]
    assert talk.sent() == ["RESULT k-3"]
    talk.hears(watched("c"))
    assert talk.sent() == ["WATCH timeout=0.2 since=c group=g"]


def test_an_end_that_is_told_before_its_ticket_survives_the_loss_of_the_connection(talk: Talk) -> None:
    talk.submit()
    talk.sent()
    talk.hears("OK k-1")
    talk.submit()
    talk.sent()
    talk.hears(watched("c", ended("k-2")))
    talk.calls.lost()
    assert talk.sent() == ["SUBMIT key=key2 call f", "STATUS k-1", "WATCH timeout=0 since=c group=g"]
    talk.hears("OK k-2")
    assert talk.sent() == ["RESULT k-2"]


def test_ends_of_others_in_the_same_group_are_nothing_to_hurry_for(taken: Talk) -> None:
    taken.hears(watched("c", ended("x-1"), ended("x-2")))
    assert taken.sent() == ["WATCH timeout=0.2 since=c group=g"]


def test_a_job_that_is_told_of_under_another_name_is_known_by_its_key(taken: Talk) -> None:
    taken.hears(watched("c", ended("a-9", key="key1")))
    assert taken.sent()[0] == "RESULT k-1"
    assert taken.hears(result("a-9")) == [Settled(1, outcome("a-9"))]


def test_a_call_is_running_when_status_says_so_and_that_is_told_once(taken: Talk) -> None:
    taken.now += calls.LOOK_S
    taken.hears(watched("c"))
    assert taken.sent() == ["STATUS k-1", "WATCH timeout=0.2 since=c group=g"]
    assert taken.hears("OK k-1 state=running attempt=1", watched("c")) == [Begun(1)]
    assert taken.sent() == ["WATCH timeout=0.4 since=c group=g"], "it is not time for another look"
    taken.now += calls.LOOK_S
    assert taken.hears(watched("c")) == []
    taken.sent()
    assert taken.hears("OK k-1 state=running attempt=1") == []


def test_the_oldest_are_looked_at_and_all_others_in_turn(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "LOOK_AHEAD", 2)
    monkeypatch.setattr(calls, "LOOK_AROUND", 1)
    talk.submit(4)
    talk.sent()
    talk.hears(*(f"OK k-{number}" for number in range(1, 5)), watched("c"))
    looks = []
    for state in ("queued", "running", "running", "running", "running"):
        talk.now += calls.LOOK_S
        *asked, watch = talk.sent()
        assert watch.startswith("WATCH")
        looks.append(" ".join(asked))
        talk.hears(*(f"OK {line.split()[1]} state={state} attempt=1" for line in asked), watched("c"))
    assert looks == [
        "STATUS k-1 STATUS k-2",
        "STATUS k-1 STATUS k-2",
        "STATUS k-3 STATUS k-4",
        "STATUS k-4",
        "STATUS k-1",
    ]


def test_an_end_that_nobody_told_is_found_by_looking(taken: Talk) -> None:
    taken.now += calls.LOOK_S
    taken.hears(watched("c"))
    taken.sent()
    taken.hears("OK a-9 state=failed attempt=1 reason=exit", watched("d", ended("k-1")))
    assert taken.sent() == ["RESULT k-1", "WATCH timeout=0.4 since=d group=g"], "once"


@pytest.mark.parametrize("reply", ["ERR UNKNOWN_TICKET no job has it", "ERR EXPIRED it ended long ago"])
def test_a_job_that_is_gone_settles_its_call(taken: Talk, reply: str) -> None:
    taken.now += calls.LOOK_S
    taken.hears(watched("c"))
    taken.sent()
    (told,) = taken.hears(reply)
    assert isinstance(told, Settled)
    assert isinstance(told.how, JobyardError)
    assert told.how.code in reply


def test_a_result_that_nobody_can_give_is_asked_again_after_a_while(taken: Talk) -> None:
    taken.hears(watched("c", ended("k-1")))
    taken.sent()
    taken.hears("ERR UNAVAILABLE the balancer cannot be reached", "ERR UNAVAILABLE the balancer cannot be reached")
    assert taken.sent() == ["WATCH timeout=0.4 since=c group=g"]
    taken.now += calls.AGAIN_S
    assert taken.sent() == ["RESULT k-1"]


def test_a_job_that_was_queued_again_ends_again(taken: Talk) -> None:
    taken.hears(watched("c", ended("k-1")))
    taken.sent()
    taken.hears("PENDING k-1 state=queued", watched("d", ended("k-1")))
    assert taken.sent()[0] == "RESULT k-1"


def test_an_expired_result_settles_the_call(taken: Talk) -> None:
    taken.hears(watched("c", ended("k-1")))
    taken.sent()
    (told,) = taken.hears("ERR EXPIRED it ended long ago")
    assert isinstance(told, Settled)
    assert isinstance(told.how, Expired)


# --- cancelling ------------------------------------------------------------------------------------------------


def test_what_was_not_sent_is_dropped(talk: Talk) -> None:
    talk.submit(2)
    talk.calls.cancel(1)
    assert talk.sent() == ["SUBMIT key=key2 call f", "WATCH timeout=0.1 group=g"]
    assert len(talk.calls) == 1


def test_what_was_taken_is_cancelled_there(taken: Talk) -> None:
    taken.calls.cancel(1)
    taken.calls.cancel(1)
    assert taken.sent() == ["CANCEL k-1"], "once, and behind the WATCH that waits"
    assert taken.hears(watched("c", "k-1 state=cancelled attempt=0 reason=user")) == []
    assert taken.sent() == ["WATCH timeout=0.2 since=c group=g"], "its outcome interests nobody"
    assert taken.hears("OK k-1 state=cancelled") == []
    assert len(taken.calls) == 0


def test_what_is_on_its_way_is_cancelled_when_its_ticket_is_known(talk: Talk) -> None:
    talk.submit()
    talk.sent()
    talk.calls.cancel(1)
    assert talk.sent() == []
    talk.hears("OK k-1")
    assert talk.sent() == ["CANCEL k-1"]


def test_a_cancel_is_not_lost_with_its_connection(talk: Talk) -> None:
    talk.submit(2)
    talk.sent()
    talk.hears("OK k-1")
    talk.calls.cancel(1)
    talk.calls.cancel(2)
    talk.sent()
    talk.calls.lost()
    assert talk.sent() == ["CANCEL k-1", "SUBMIT key=key2 call f", "WATCH timeout=0.1 group=g"]
    talk.hears("ERR UNAVAILABLE the balancer cannot be reached", "OK k-2")
    assert talk.sent() == ["CANCEL k-2"]
    talk.now += calls.AGAIN_S
    assert talk.sent() == ["CANCEL k-1"]
    talk.hears(watched("c"), "OK k-2 state=cancelled", "OK k-1 state=cancelled")
    assert len(talk.calls) == 0


# --- when something goes wrong ---------------------------------------------------------------------------------


def test_after_a_loss_everything_is_asked_again_and_nothing_twice(talk: Talk) -> None:
    talk.submit(3)
    talk.sent()
    talk.hears("OK k-1", "OK k-2")
    talk.calls.lost()
    assert talk.sent() == ["SUBMIT key=key3 call f", "STATUS k-1", "STATUS k-2", "WATCH timeout=0.1 group=g"]
    queued = "OK k-1 state=queued attempt=0"
    talk.hears("OK k-3", queued, queued, watched("c", ended("k-1")))
    talk.sent()
    talk.calls.lost()
    assert talk.sent()[0] == "RESULT k-1"


def test_a_submission_that_is_refused_settles_its_call(talk: Talk) -> None:
    talk.submit()
    talk.sent()
    (told,) = talk.hears("ERR FULL no room on disk")
    assert isinstance(told, Settled)
    assert isinstance(told.how, Full)
    assert len(talk.calls) == 0


def test_what_one_node_refuses_is_tried_at_each_of_the_others() -> None:
    talk = Talk(nodes=3)
    talk.submit()
    for _ in range(2):
        talk.sent()
        with pytest.raises(Elsewhere, match="it stops"):
            talk.hears("ERR DRAINING it stops")
        talk.calls.lost()
    talk.sent()
    (told,) = talk.hears("ERR DRAINING it stops")
    assert isinstance(told, Settled)
    assert isinstance(told.how, Draining)
    talk.submit()
    talk.now += calls.REFUSED_S + 1
    talk.sent()
    talk.hears(watched("c"))
    with pytest.raises(Elsewhere):
        talk.hears("ERR DRAINING it stops")


def test_a_node_without_room_for_the_connection_is_left(taken: Talk) -> None:
    with pytest.raises(Elsewhere):
        taken.hears("ERR TOO_MANY_CONNECTIONS 1024 are open")


def test_a_reply_that_nobody_asked_for_is_a_farewell(talk: Talk) -> None:
    with pytest.raises(Elsewhere):
        talk.hears("OK bye")


def test_what_cannot_be_mended_is_raised(taken: Talk) -> None:
    with pytest.raises(Unauthorized):
        taken.hears("ERR UNAUTHORIZED send AUTH first")
    with pytest.raises(ProtocolError):
        taken.hears("OK something else")


def test_in_the_end_every_call_fails_but_those_that_were_cancelled(talk: Talk) -> None:
    talk.submit(3)
    talk.sent()
    talk.hears("OK k-1")
    talk.calls.cancel(2)
    error = Unreachable("gone")
    assert talk.calls.fail(error) == [Settled(1, error), Settled(3, error)]
    assert (len(talk.calls), talk.sent()) == (0, [])
