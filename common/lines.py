"""The client protocol: bytes ↔ requests and replies. What a person types into `nc`, and what clients speak.

    line ── LF ──► request                     no bytes=N among the leading option words
    line ── LF ──► N bytes ── LF ──► request   bytes=N there, and N within the limit
    line over 64 KiB, bytes=N that cannot be read or is too large, no LF after the body ──► Bad(close), the end

Pure and sans-I/O: a Parser is fed what was read, in any segmentation, and gives whole requests; it knows no socket,
clock or machine. The rule of the framing is that a body is never taken for commands: the announcement is read
before anything else of its line, and obeyed whatever the answer to that line. Nothing is read after a Bad(close).

The requests themselves are in `common/requests.py`, the replies in `common/replies.py`; this module is the one
that others import.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Final

from common.errors import Code, Refusal, shown
from common.help import HELP_PAGE
from common.kind_names import KINDS
from common.limits import BODY_BYTES_MAX, LINE_BYTES_MAX, OPTION_BYTES_MAX
from common.replies import err, job_line, logs_reply, ok, pending, result_reply, status_fields
from common.requests import (
    Auth,
    Bad,
    Cancel,
    Drain,
    Events,
    Explain,
    Forget,
    Help,
    List,
    Logs,
    Nodes,
    Ping,
    Placement,
    Query,
    Quit,
    Request,
    Result,
    Retry,
    Stats,
    Status,
    Submit,
    Undrain,
    Version,
    Wait,
    Watch,
    read_request,
)

__all__ = [
    "HELP_PAGE",
    "Auth",
    "Bad",
    "Cancel",
    "Drain",
    "Events",
    "Explain",
    "Forget",
    "Help",
    "List",
    "Logs",
    "Nodes",
    "Parser",
    "Ping",
    "Placement",
    "Query",
    "Quit",
    "Request",
    "Result",
    "Retry",
    "Stats",
    "Status",
    "Submit",
    "Undrain",
    "Version",
    "Wait",
    "Watch",
    "err",
    "job_line",
    "logs_reply",
    "ok",
    "pending",
    "result_reply",
    "status_fields",
]

# The option words: each has a `=`, and only such words and blanks stand before it. Blanks are those of ASCII.
_OPTION_WORDS = re.compile(rb"(?:\s*+[^\s=]*+=\S*+)*+")


_ANNOUNCES: Final = b"bytes="
_ALL_KINDS: Final = frozenset(KINDS)
_LF: Final = ord("\n")


class BrokenFraming(Refusal):
    """Nobody can tell where the next request begins."""


class Parser:
    """The requests of one conversation.

    With `keep_bodies=False` bodies are read and dropped until an AUTH has been seen: whoever has not said who he is
    fills no memory. (A wrong AUTH ends the conversation, so it opens nothing.)
    """

    def __init__(
        self,
        *,
        body_bytes_max: int = BODY_BYTES_MAX,
        kinds: Iterable[str] | None = None,
        keep_bodies: bool = True,
    ) -> None:
        self.closed = False  # after broken framing: nothing more is read
        self._body_bytes_max = body_bytes_max
        self._kinds = _ALL_KINDS if kinds is None else frozenset(kinds)
        self._keep_bodies = keep_bodies
        self._line = bytearray()  # the beginning of a line whose LF has not come yet
        self._due: Request | None = None  # the request whose body is being read
        self._body = bytearray()
        self._body_missing = 0  # bytes, with the LF after the body

    def feed(self, data: bytes) -> list[Request]:
        """The requests that are complete with these bytes. Linear in all bytes fed, however they are cut."""
        requests: list[Request] = []
        at = 0
        try:
            if self._due is None and not self.closed and _ANNOUNCES not in data.lower():
                at = self._feed_in_a_row(data, requests)
            while at < len(data) and not self.closed:
                at = self._feed_lines(data, at, requests) if self._due is None else self._feed_body(data, at, requests)
        except BrokenFraming as broken:
            requests.append(self._close(broken))
        return requests

    def eof(self) -> list[Request]:
        """The client closed its sending side: what is cut off in the middle is not executed, but answered."""
        cut, self._line = bytes(self._line).strip(), bytearray()
        if self._due is not None:
            missing = self._body_missing
            return [self._close(Refusal(Code.BAD_REQUEST, f"the connection ended {missing} bytes before the body did"))]
        if cut and not self.closed:
            message = f"the line beginning {shown(cut.split()[0])} did not end with a LF, so it was not executed"
            return [self._close(Refusal(Code.BAD_REQUEST, message))]
        return []

    @property
    def body_bytes(self) -> int:
        """What is held of a body that is not complete."""
        return len(self._body)

    def refuse_body(self, code: Code, message: str) -> None:
        """The body that is being read will not be kept, and its request is answered so."""
        if self._due is not None:
            self._due, self._body = Bad(code, message), bytearray()

    def _close(self, refusal: Refusal) -> Bad:
        self.closed = True
        self._due, self._line, self._body = None, bytearray(), bytearray()
        return Bad(refusal.code, refusal.message, close=True)

    # --- lines -------------------------------------------------------------------------------------------------

    def _feed_lines(self, data: bytes, at: int, requests: list[Request]) -> int:
        """Reads lines up to the end of `data` or up to a body; returns where it stopped."""
        while at < len(data) and self._due is None:
            at = self._feed_line(data, at, requests)
        return at

    def _feed_line(self, data: bytes, at: int, requests: list[Request]) -> int:
        """Reads one line, or as much of it as there is; returns where it stopped."""
        end = data.find(b"\n", at)
        if end < 0:
            self._hold(data, at)
            return len(data)
        raw = data[at:end]
        if self._line:
            raw, self._line = bytes(self._line) + raw, bytearray()
        request = self._read_line(raw)
        if request is not None:
            requests.append(request)
        return end + 1

    def _feed_in_a_row(self, data: bytes, requests: list[Request]) -> int:
        """Reads all lines that are whole, where none of them announces a body, unless the first does, a part of which
        came before; returns where it stopped."""
        at = self._feed_line(data, 0, requests) if self._line else 0
        end = data.rfind(b"\n", at)
        if end < 0 or self._due is not None:
            return at
        for raw in data[at:end].split(b"\n"):
            read = _read_again if raw[:1] in _SAID_AGAIN and len(raw) <= _SAID_AGAIN_BYTES else _read
            request, _ = read(raw, self._body_bytes_max, self._kinds)
            if request is not None:
                requests.append(request)
                if not self._keep_bodies and isinstance(request, Auth):
                    self._keep_bodies = True
        return end + 1

    def _hold(self, data: bytes, at: int) -> None:
        """Keeps the beginning of a line. One that is too long is refused without waiting for its end."""
        length = len(self._line) + len(data) - at
        if length > LINE_BYTES_MAX and not (length == LINE_BYTES_MAX + 1 and data.endswith(b"\r")):
            raise _line_too_long()
        self._line += data[at:]

    def _read_line(self, raw: bytes) -> Request | None:
        """The request of a line, or None where the line is blank or its body is still due."""
        read = _read_again if raw[:1] in _SAID_AGAIN and len(raw) <= _SAID_AGAIN_BYTES else _read
        request, body_bytes = read(raw, self._body_bytes_max, self._kinds)
        if not self._keep_bodies and isinstance(request, Auth):
            self._keep_bodies = True
        if body_bytes is None:
            return request
        self._due, self._body_missing = request, body_bytes + 1
        return None

    # --- bodies ------------------------------------------------------------------------------------------------

    def _feed_body(self, data: bytes, at: int, requests: list[Request]) -> int:
        """Reads on in the body that is due, and with its LF gives the request; returns where it stopped."""
        due = self._due
        piece = memoryview(data)[at : at + self._body_missing]
        kept = isinstance(due, Submit) and self._keep_bodies
        if kept:
            self._body += piece
        self._body_missing -= len(piece)
        if not self._body_missing:
            if piece[-1] != _LF:
                raise BrokenFraming(Code.BAD_REQUEST, "no LF after the body: bytes=N does not fit what was sent")
            assert due is not None
            requests.append(Submit(due.job, self._take_body(), due.wait) if isinstance(due, Submit) and kept else due)
            self._due = None
        return at + len(piece)

    def _take_body(self) -> bytes:
        del self._body[-1]  # the LF
        body, self._body = bytes(self._body), bytearray()
        return body


def _read(raw: bytes, body_bytes_max: int, kinds: frozenset[str]) -> tuple[Request | None, int | None]:
    """The request of a line, None where it is blank, and the length of the body that it announces."""
    if raw.endswith(b"\r"):
        raw = raw[:-1]
    if len(raw) > LINE_BYTES_MAX:
        raise _line_too_long()
    verb, options, rest = _split(raw)
    if not verb:
        return None, None
    body_bytes = _announced(options, body_bytes_max) if options and _ANNOUNCES in raw.lower() else None
    try:
        if b"\0" in raw or not raw.isascii():
            _check_text(raw)
        return read_request(verb, options, rest, body_bytes=body_bytes, kinds=kinds), body_bytes
    except Refusal as refusal:
        return Bad(refusal.code, refusal.message), body_bytes


# What clients say again and again is read once: requests are values. The lines of SUBMIT, RUN, STATUS and RESULT, and
# bare numbers; AUTH is not among them, so no token stays behind.
_SAID_AGAIN: Final = frozenset(bytes([byte]) for byte in b"SsRr0123456789")
_SAID_AGAIN_BYTES: Final = 256
_read_again: Final = functools.lru_cache(maxsize=2048)(_read)


def _split(raw: bytes) -> tuple[bytes, Sequence[bytes], bytes]:
    """Verb, option words and the rest of a line. All empty for a blank line."""
    words = raw.split(None, 1)
    if not words:
        return b"", (), b""
    verb = words[0]
    rest = words[1] if len(words) == 2 else b""
    if b"=" not in raw:
        return verb, (), rest
    if b"=" in verb:
        rest = raw  # an announcement counts even where the verb was forgotten
    leading = _OPTION_WORDS.match(rest)
    assert leading is not None, "there may be none, and that matches"
    end = leading.end()
    return verb, rest[:end].split(), rest[end:]


def _announced(options: Sequence[bytes], body_bytes_max: int) -> int | None:
    """The N of bytes=N, or None without one. Bytes nobody can count off break the framing."""
    announced = [word[len(_ANNOUNCES) :] for word in options if word[: len(_ANNOUNCES)].lower() == _ANNOUNCES]
    if not announced:
        return None
    if len(announced) > 1:
        raise BrokenFraming(Code.BAD_REQUEST, "bytes=N is given twice; the body cannot be told from commands")
    if not announced[0].isdigit() or len(announced[0]) > OPTION_BYTES_MAX:
        raise BrokenFraming(Code.BAD_REQUEST, f"bytes={shown(announced[0])} is not a whole number of bytes")
    body_bytes = int(announced[0])
    if body_bytes > body_bytes_max:
        message = f"a body of {body_bytes} bytes is too large; {body_bytes_max} are allowed (JOBYARD_BODY_MAX)"
        raise BrokenFraming(Code.TOO_LARGE, message)
    return body_bytes


def _check_text(raw: bytes) -> None:
    if b"\0" in raw:
        raise Refusal(Code.BAD_REQUEST, "a line must not contain a NUL byte; a body (bytes=N) may")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        message = f"a line must be UTF-8, and byte {error.start} of this one is not; a body (bytes=N) may be anything"
        raise Refusal(Code.BAD_REQUEST, message) from None


def _line_too_long() -> BrokenFraming:
    return BrokenFraming(Code.TOO_LARGE, f"a line holds {LINE_BYTES_MAX} bytes at most; send more with bytes=N")
