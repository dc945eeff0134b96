"""What becomes of ended jobs other than to expire: they are revived, or forgotten."""

from common.codec import pack, replace
from common.effects import Table
from common.history import History
from common.keys import Claim, Keys, fingerprint
from common.memory import Memory
from common.model import Ended, Job, Reason, State, ticket_key
from tests.machines.cluster import WALL, Disk

TICKET = "aaaaaa-1"
JOB = Job("sh", "true", key="k")
ENDED = Ended(State.FAILED, WALL, Reason.EXIT, 1, 3, "n1", 0.5, stdout_bytes=3)


class Kept:
    """A history on a disk."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.memory = Memory(self.disk)
        self.history = History(self.memory, retention_s=3600.0)
        self.memory.put(Table.JOBS, ticket_key(TICKET), pack(JOB))
        self.memory.put(Table.BODIES, ticket_key(TICKET), b"body")
        Keys(self.memory).claim("k", Claim(TICKET, fingerprint(JOB, b"body")))
        self.history.record(TICKET, ENDED, b"out")
        self.commit()

    def commit(self) -> None:
        self.disk.commit(self.memory.take())
        self.memory.committed()

    def tables(self) -> set[Table]:
        return {table for table, records in self.disk.tables.items() if records}


def test_a_revived_job_keeps_all_but_its_end() -> None:
    kept = Kept()
    assert kept.history.revive(TICKET) == ENDED
    kept.commit()
    assert kept.tables() == {Table.JOBS, Table.BODIES, Table.KEYS}
    assert kept.history.revive(TICKET) is None, "once is enough"
    kept.commit()
    assert kept.history.expire(WALL + 1e6) == 0
    assert kept.tables() == {Table.JOBS, Table.BODIES, Table.KEYS}


def test_a_revived_job_ends_again_and_expires_by_its_new_end() -> None:
    kept = Kept()
    kept.history.revive(TICKET)
    again = replace(ENDED, ended_wall=WALL + 1000.0, stdout_bytes=0, retried=1)
    kept.history.record(TICKET, again, b"")
    kept.commit()
    assert kept.history.find(TICKET) == again
    assert kept.history.output(TICKET, again) == b""
    assert kept.history.expire(WALL + 4500.0) == 0
    assert kept.history.expire(WALL + 4600.0) == 1


def test_of_a_forgotten_job_nothing_is_left_and_its_key_is_free() -> None:
    kept = Kept()
    kept.history.forget(TICKET)
    kept.commit()
    assert kept.tables() == set()
    kept.history.forget(TICKET)
    kept.commit()
    assert kept.tables() == set()


def test_an_expired_job_that_is_forgotten_is_not_called_expired_any_more() -> None:
    kept = Kept()
    assert kept.history.expire(WALL + 4000.0) == 1
    kept.history.forget(TICKET)
    kept.commit()
    assert not kept.history.expired(TICKET)
    kept.history.expire(WALL + 8000.0)
    kept.commit()
    assert kept.tables() == set()


def test_the_key_of_a_forgotten_job_stays_anothers() -> None:
    kept = Kept()
    owner = Claim("aaaaaa-7", b"another")
    Keys(kept.memory).claim("k", owner)
    kept.history.forget(TICKET)
    assert Keys(kept.memory).find("k") == owner
