"""Replies in parts: what a client that follows a job's output, or the cluster's events, has been told so far.

    asked ──► answered ──► part ──► delivered ──► (a pause) ──► asked for what is new since
                  │
                  └─ nothing new: no part, but for the first and the last

Each answer says how far it goes: LOGS with its attempt and byte counts, EVENTS with its cursor. The next inquiry
begins there, whoever answers it and over whichever link, so nothing is told twice and nothing is left out. A new
attempt prints anew; of an older one nothing is told any more.

Pure. When to ask is the desk's business.
"""

import re
from typing import Final, Protocol
from urllib.parse import unquote

import attrs

from common import lines
from common.limits import LOGS_PERIOD_S
from common.messages import Inquiry
from common.model import ENDED_STATES, State

_FIELD: Final = re.compile(r" ([a-z_]+)=(\S*)")


@attrs.frozen
class Part:
    """What a client is to be told next."""

    reply: bytes
    last: bool


class Stream(Protocol):
    """One reply in parts."""

    begun: bool  # whether a part has been made
    pause_s: float  # between a part that was delivered and the next inquiry

    def inquiry(self, query_id: int) -> Inquiry:
        """What is to be asked next."""

    def take(self, reply: bytes) -> Part | None:
        """Takes in the answer; None where it tells nothing new. An error is the last part, whatever it says."""


@attrs.define(eq=False)
class Printing:
    """LOGS follow=1: which attempt its client follows, and how many bytes of it the client has."""

    ticket: str
    attempt: int = 0
    stdout_at: int = 0
    stderr_at: int = 0
    begun: bool = False
    pause_s: float = LOGS_PERIOD_S

    def inquiry(self, query_id: int) -> Inquiry:
        return Inquiry(
            query_id,
            "logs",
            self.ticket,
            attempt=self.attempt,
            stdout_at=self.stdout_at,
            stderr_at=self.stderr_at,
        )

    def take(self, reply: bytes) -> Part | None:
        if not reply.startswith(b"OK "):
            return Part(reply, last=True)
        fields = _fields(reply)
        state, attempt = fields.get("state", ""), _number(fields, "attempt")
        last = state in ENDED_STATES
        new = self._go_on(attempt, _number(fields, "stdout"), _number(fields, "stderr"))
        if not (new or last) and self.begun:
            return None
        self.begun = True
        if last and attempt < self.attempt:
            return Part(lines.logs_reply(self.ticket, State(state), self.attempt, end=True), last=True)
        return Part(_with_end(reply), last=True) if last else Part(reply, last=False)

    def _go_on(self, attempt: int, stdout_bytes: int, stderr_bytes: int) -> bool:
        """Moves on by what an answer holds; whether it holds anything new."""
        if attempt < self.attempt:
            return False
        if attempt > self.attempt:
            self.attempt, self.stdout_at, self.stderr_at = attempt, 0, 0
        self.stdout_at += stdout_bytes
        self.stderr_at += stderr_bytes
        return bool(stdout_bytes or stderr_bytes)


@attrs.define(eq=False)
class Happenings:
    """EVENTS follow=1: the cursor behind which its client has not been told yet."""

    since: str | None
    begun: bool = False
    pause_s: float = 0.0

    def inquiry(self, query_id: int) -> Inquiry:
        return Inquiry(query_id, "follow", since=self.since)

    def take(self, reply: bytes) -> Part | None:
        if not reply.startswith(b"OK "):
            return Part(reply, last=True)
        fields = _fields(reply)
        self.since = fields.get("cursor", self.since)
        if not _number(fields, "count"):
            return None
        self.begun = True
        return Part(reply, last=False)


def _fields(reply: bytes) -> dict[str, str]:
    """The fields of a reply's line, their %XX undone."""
    line = reply.partition(b"\n")[0].decode()
    return {name: unquote(value) for name, value in _FIELD.findall(line)}


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else 0


def _with_end(reply: bytes) -> bytes:
    """The same reply with `end=1` before its `bytes=N`."""
    line, lf, body = reply.partition(b"\n")
    if b" end=1 " in line:
        return reply
    head, _, size = line.rpartition(b" bytes=")
    return b"%b end=1 bytes=%b%b%b" % (head, size, lf, body)
