"""Replies of the client protocol as bytes: one line, and after `bytes=N` a body.

Pure. Field values are written like option values: printable UTF-8 without blanks, other bytes as %XX; a field that
is None is left out. So a reply is one line whatever it tells of.
"""

import functools
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import attrs

from common.errors import Code
from common.model import ENDED_STATES, Ended, State


@attrs.frozen
class Read:
    """A reply, taken apart again: `word` is OK, PENDING or ERR; of an error `code` and `message`."""

    word: str
    fields: Mapping[str, str]
    body: bytes = b""
    code: str = ""
    message: str = ""


def read_reply(reply: bytes) -> Read:
    """The parts of a reply that one of our own machines has made."""
    line, _, body = reply.partition(b"\n")
    word, _, rest = line.decode().partition(" ")
    if word == "ERR":
        code, _, message = rest.partition(" ")
        return Read(word, {}, code=code, message=message)
    fields = dict(field.split("=", 1) for field in rest.split(" ") if "=" in field)
    return Read(word, {name: unquote(value) for name, value in fields.items()}, body[: int(fields.get("bytes", 0))])


MESSAGE_CHARACTERS_MAX: Final = 500  # of an error: a screen line or two, whatever was typed

_PLAIN = re.compile(r"[!-$&-~]*")  # needs no %XX


def ok(ticket: str | None = None, /, *words: str, body: bytes | None = None, **fields: object) -> bytes:
    """`OK ticket words name=value …`; with a body `bytes=N` is the last field, and N bytes and a LF follow."""
    if ticket is not None:
        if body is None and not (words or fields):
            return f"OK {ticket}\n".encode()
        words = (ticket, *words)
    line = " ".join(("OK", *words, *_rendered(fields)))
    if body is None:
        return f"{line}\n".encode()
    return b"%b bytes=%d\n%b\n" % (line.encode(), len(body), body)


def pending(ticket: str, **fields: object) -> bytes:
    """`PENDING ticket name=value …`: not ended yet."""
    return " ".join(("PENDING", ticket, *_rendered(fields))).encode() + b"\n"


def err(code: Code, message: str) -> bytes:
    """`ERR CODE message`: always one line that acts on no terminal, and never a long one."""
    if len(message) > MESSAGE_CHARACTERS_MAX:
        message = message[:MESSAGE_CHARACTERS_MAX] + "…"
    if not message.isprintable():
        message = "".join(map(_harmless, message))
    return f"ERR {code} {message}\n".encode()


def status_fields(fields: Mapping[str, object]) -> str:
    """What STATUS says after the ticket, in the order of the mapping: `state=queued attempt=0`."""
    return " ".join(_rendered(fields))


def job_line(ticket: str, fields: Mapping[str, object]) -> bytes:
    """A job's line in the body of LIST: what STATUS says of it without the OK."""
    return f"{ticket} {status_fields(fields)}\n".encode()


def result_reply(ticket: str, ended: Ended, output: bytes) -> bytes:
    """The RESULT of an ended job; `output` is its standard output followed by its standard error."""
    stdout, stderr, node, seconds = ended.stdout_bytes, ended.stderr_bytes, ended.node, ended.seconds
    assert len(output) == stdout + stderr, f"{ticket}: {len(output)} bytes of output for {ended}"
    if ended.counts:
        return _array_reply(ticket, ended)
    is_plain = ended.state is State.SUCCEEDED and ended.exit == 0 and ended.reason is None and not ended.truncated
    if is_plain and node is not None and seconds is not None:
        sizes = (stdout, stderr, len(output))
        return _SUCCESS % (ticket.encode(), ended.attempt, _word(node).encode(), seconds, *sizes, output)
    return ok(
        ticket,
        state=ended.state,
        exit=ended.exit,
        attempt=ended.attempt,
        node=node,
        seconds=seconds,
        reason=ended.reason,
        truncated=ended.truncated or None,
        stdout=stdout,
        stderr=stderr,
        body=output,
    )


# Of a job that has succeeded, as most do, `ok` makes the same in five times the time.
_SUCCESS: Final = b"OK %b state=succeeded exit=0 attempt=%d node=%b seconds=%.3f stdout=%d stderr=%d bytes=%d\n%b\n"


def _array_reply(ticket: str, ended: Ended) -> bytes:
    """An array has no output of its own: its elements do, each under its own ticket."""
    counts = dict(ended.counts)
    ends = {state.value: counts.get(state, 0) for state in State if state in ENDED_STATES}
    fields: dict[str, object] = {"state": ended.state, "attempt": 0, "count": sum(counts.values()), **ends}
    return ok(ticket, **fields, reason=ended.reason, stdout=0, stderr=0, body=b"")


def logs_reply(
    ticket: str,
    state: State,
    attempt: int,
    stdout: bytes = b"",
    stderr: bytes = b"",
    *,
    end: bool = False,
    cut: tuple[int, int] = (0, 0),
) -> bytes:
    """A reply to LOGS: what an attempt has printed, or what it has printed since the reply before. Attempt 0 is none:
    nothing runs. `end` is in the last one; `cut` says how many bytes of each stream were left out before these."""
    return ok(
        ticket,
        state=state,
        attempt=attempt,
        stdout=len(stdout),
        stderr=len(stderr),
        stdout_cut=cut[0] or None,
        stderr_cut=cut[1] or None,
        end=end or None,
        body=stdout + stderr,
    )


def _rendered(fields: Mapping[str, object]) -> list[str]:
    return [
        f"{name}={value if type(value) is int else _value(value)}"
        for name, value in fields.items()
        if value is not None
    ]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return f"{value:.3f}"
    return _word(str(value))


@functools.lru_cache(maxsize=256)  # most often the name of a node, a state or a reason
def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable() and character not in " %":
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="replace"))


def _harmless(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
