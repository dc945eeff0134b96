"""The client protocol, version 1, as bytes: requests out, replies in.

    request   VERB name=value … words LF                 and after bytes=N: N bytes LF
    reply     OK|PENDING [ticket] name=value … LF        and after bytes=N, its last field: N bytes LF
              ERR CODE message LF

Pure: no socket, no clock, no file. Whatever cannot be one line, or could break out of it, is refused here with a
ValueError, so that a ticket or a job from a stranger is never taken for a second command.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from jobyard.errors import JobyardError, ProtocolError, TooLarge, refusal
from jobyard.model import Job

LINE_BYTES_MAX: Final = 64 * 1024  # the protocol's, without the LF
BODY_BYTES_MAX: Final = 64 * 1024 * 1024  # the protocol's; a node may be set to less
OPTION_BYTES_MAX: Final = 200  # the protocol's, of a value as it is sent
REPLY_LINE_BYTES_MAX: Final = 64 * 1024  # of what we read: longer is another protocol
REPLY_BODY_BYTES_MAX: Final = 1024 * 1024 * 1024  # likewise: far above any output a node keeps

_STATUS_WORDS: Final = frozenset({"OK", "PENDING", "ERR"})
_PLAIN: Final = re.compile(r"[!-$&-~]+")  # an option's value that needs no %XX
_PRINTABLE: Final = re.compile(r"[!-~]+")
_WORD: Final = re.compile(r"[^\s,\x00-\x1f\x7f]+")
_LINE_BREAK: Final = re.compile(r"[\r\n]")
_BODY: Final = re.compile(r" bytes=([0-9]{1,18})\Z")

# --- requests --------------------------------------------------------------------------------------------------


def encode(verb: str, *words: str, options: Mapping[str, object] | None = None, body: bytes | None = None) -> bytes:
    """A request. Options that are None are left out. Raises ValueError, or TooLarge for what no node would take."""
    parts = [verb]
    parts += [encode_option(name, value) for name, value in (options or {}).items() if value is not None]
    if body is not None:
        parts.append(f"bytes={len(body)}")
    line = " ".join((*parts, *words))
    if _LINE_BREAK.search(line):
        raise ValueError(f"a request is one line, and this {verb} has a line break in it; an argv job or a body may")
    return _framed(verb, line, body)


def _framed(verb: str, line: str, body: bytes | None) -> bytes:
    try:
        data = line.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the line of this {verb} is not UTF-8; a body may be anything") from None
    if len(data) > LINE_BYTES_MAX:
        raise TooLarge(f"the line of this {verb} has {len(data)} bytes, and {LINE_BYTES_MAX} fit; a body holds more")
    if body is None:
        return data + b"\n"
    if len(body) > BODY_BYTES_MAX:
        raise TooLarge(f"the body of this {verb} has {len(body)} bytes, and {BODY_BYTES_MAX} are allowed at most")
    return b"%b\n%b\n" % (data, body)


def encode_submit(job: Job) -> bytes:
    return encode("SUBMIT", job.kind, job.line, options=dict(_job_options(job)), body=job.body)


_PLAIN_OPTIONS: Final = {  # option → field of Job
    **{name: name for name in ("name", "group", "key", "priority", "slots", "retries", "crash_limit", "array", "dir")},
    "memory": "memory_bytes",
    "files": "files",
    "processes": "processes",
    "output": "output_bytes",
}
_DURATION_OPTIONS: Final = {"timeout": "timeout_s", "backoff": "backoff_s", "delay": "delay_s", "cpu": "cpu_s"}
_RAW_OPTIONS: Final = frozenset({"array"})  # in which a % stands for itself
_LONG_OPTIONS: Final = frozenset({"after", "input"})  # that only the line's length bounds


def _job_options(job: Job) -> Iterator[tuple[str, object]]:
    for option, field_name in _PLAIN_OPTIONS.items():
        yield option, getattr(job, field_name)
    for option, field_name in _DURATION_OPTIONS.items():
        seconds = getattr(job, field_name)
        yield option, None if seconds is None else duration(seconds)
    for option, tickets in (("after", job.after), ("input", job.input)):
        yield option, ",".join(map(as_ticket, tickets)) if tickets else None
    for variable, value in (job.env or {}).items():
        yield f"env.{variable}", value


def encode_option(name: str, value: object) -> str:
    """`name=value`, with everything that is not printable, and blanks and %, as %XX."""
    if not _PLAIN.fullmatch(name) or "=" in name:
        raise ValueError(f"{name!r} cannot be the name of an option or variable")
    text = str(value)
    if not _PLAIN.fullmatch(text) and not (name in _RAW_OPTIONS and _PRINTABLE.fullmatch(text)):
        text = "".join(map(_escaped, text))
    size = len(text.encode())
    if not 0 < size <= OPTION_BYTES_MAX and not (size and name in _LONG_OPTIONS):
        raise ValueError(f"the value of {name} takes {size} bytes; 1 to {OPTION_BYTES_MAX} can be sent")
    return f"{name}={text}"


def _escaped(character: str) -> str:
    if character.isprintable() and character not in " %":
        return character
    try:
        return "".join(f"%{byte:02X}" for byte in character.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{character!r} cannot be sent: it is not UTF-8") from None


def as_ticket(text: str) -> str:
    """A ticket that is to stand in a list of them, or as a word of its own."""
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} is no ticket: it has blanks, commas or control characters, or nothing at all")
    return text


def duration(seconds: float) -> str:
    """Seconds as the protocol writes them: a plain number, never with an exponent."""
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{seconds} is no duration; 0 to 10 years are")
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


# --- replies ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `ticket` is its first word that is no field, whatever that stands for after PING or VERSION."""

    status: str  # OK, PENDING or ERR
    ticket: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)  # with their %XX undone
    body: bytes | None = None
    text: str = ""  # all that follows the status, as it stood

    @property
    def error(self) -> JobyardError | None:
        """The exception that an ERR stands for."""
        if self.status != "ERR":
            return None
        code, _, message = self.text.partition(" ")
        return refusal(code, message)


class ReplyParser:
    """Replies out of bytes that come in any pieces. Linear in all that is fed; holds one reply at most beyond it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._line: str | None = None  # of a reply whose body is still due
        self._body_bytes = 0

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete with these bytes. Raises ProtocolError; then the connection is of no use."""
        self._buffer += data
        replies = []
        while (reply := self._next()) is not None:
            replies.append(reply)
        return replies

    def _next(self) -> Reply | None:
        if self._line is not None:
            return self._with_body(self._line)
        line = self._take_line()
        if line is None:
            return None
        announced = _BODY.search(line) if line.startswith("OK ") else None
        if announced is None:
            return decode_line(line)
        self._body_bytes = int(announced[1])
        if self._body_bytes > REPLY_BODY_BYTES_MAX:
            raise ProtocolError(f"a reply announces {self._body_bytes} bytes; no node keeps so much")
        self._line = line
        return self._with_body(line)

    def _take_line(self) -> str | None:
        end = self._buffer.find(b"\n", 0, REPLY_LINE_BYTES_MAX + 1)
        if end < 0:
            if len(self._buffer) > REPLY_LINE_BYTES_MAX:
                raise ProtocolError(f"no line end in {REPLY_LINE_BYTES_MAX} bytes: this is no Jobyard node")
            return None
        line = self._buffer[:end].decode(errors="replace")
        del self._buffer[: end + 1]
        return line

    def _with_body(self, line: str) -> Reply | None:
        size = self._body_bytes
        if len(self._buffer) <= size:
            return None
        if self._buffer[size] != ord("\n"):
            raise ProtocolError(f"no line end after a body of {size} bytes: the replies cannot be told apart any more")
        with memoryview(self._buffer) as view:
            body = bytes(view[:size])
        del self._buffer[: size + 1]
        self._line = None
        return decode_line(line, body)


def decode_line(line: str, body: bytes | None = None) -> Reply:
    """The reply that one line is. Raises ProtocolError."""
    status, _, text = line.partition(" ")
    if status not in _STATUS_WORDS:
        raise ProtocolError(f"{line[:60]!r} is no reply of a Jobyard node")
    if status == "ERR":
        return Reply(status, text=text)
    ticket, fields = decode_fields(text)
    return Reply(status, ticket, fields, body, text)


def decode_fields(text: str) -> tuple[str | None, dict[str, str]]:
    """The first bare word of a line, if there is one, and its `name=value` fields."""
    words = text.split(" ")
    bare = next((word for word in words if word and "=" not in word), None)
    pairs = (word.partition("=") for word in words if "=" in word)
    return bare, {name: unquote(value) if "%" in value else value for name, _, value in pairs}
