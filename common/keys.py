"""Idempotency keys: one key gives one job, until that job is forgotten.

A key's record names the job and carries a fingerprint of what was asked, so that the same key with another text is
told apart from a repetition.
"""

import hashlib

from common.codec import Record, canonical, pack, replace, unpack
from common.effects import Table
from common.memory import Memory
from common.model import Job, ticket_key


class Claim(Record, frozen=True):
    """Whose a key is, and what was asked under it."""

    ticket: str
    fingerprint: bytes


def fingerprint(job: Job, body: bytes) -> bytes:
    """The same for two requests that ask for the same, whenever they were made."""
    asked = canonical(replace(job, submitted_wall=0.0))
    return hashlib.blake2b(asked + body, digest_size=16).digest()


def first_name(memory: Memory, ticket: str) -> str:
    """The first name of a job by one of its tickets. A name can lead to a name, where ledgers were lost; each is
    followed once, so that not even a circle could keep us."""
    followed = {ticket}
    while (alias := memory.get(Table.ALIASES, ticket_key(ticket))) is not None and alias.decode() not in followed:
        ticket = alias.decode()
        followed.add(ticket)
    return ticket


class Keys:
    """The keys of one data directory."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def find(self, key: str) -> Claim | None:
        packed = self._memory.get(Table.KEYS, key.encode())
        return None if packed is None else unpack(Claim, packed)

    def claim(self, key: str, claim: Claim) -> None:
        self._memory.put(Table.KEYS, key.encode(), pack(claim))

    def release(self, key: str, ticket: str) -> None:
        """Frees a key, where it is this job's."""
        claim = self.find(key)
        if claim is not None and claim.ticket == ticket:
            self._memory.delete(Table.KEYS, key.encode())
