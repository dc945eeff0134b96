"""The options between a verb and what follows it: `name=TEXT priority=5 env.LANG=C`. One table says all of them.

Pure. A value is 1 to 200 bytes of printable UTF-8 without blanks; other bytes are written `%XX`, but for `array`, in
which a % stands for itself. Every refusal names the word that is wrong and says what is allowed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, TypeAlias

from common.arrays import parse_indexes
from common.durations import parse_duration
from common.errors import Code, Refusal, shown
from common.limits import (
    AFTER_MAX,
    GIB,
    LIST_LIMIT_MAX,
    MIB,
    OPTION_BYTES_MAX,
    PRIORITY_MAX,
    RETRIES_MAX,
    SLOTS_PER_JOB_MAX,
)
from common.model import State, parse_ticket
from common.values import size_bytes

Reader: TypeAlias = Callable[
    [str], Any
]  # gives the value of an option from its text; raises ValueError with a sentence
Table: TypeAlias = Mapping[str, tuple[str, Reader]]  # option → what its value is called, and how it is read

CRASH_LIMIT_MAX: Final = 1000
SIZE_MAX: Final = 1024 * 1024 * GIB
COUNT_MAX: Final = 1_000_000
ENV_PREFIX: Final = "env."

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_options(words: Iterable[bytes], table: Table, of: str) -> dict[str, Any]:
    """Name → value of the option words of the verb `of`. `env.NAME` words are gathered under `env`, in order.

    Raises Refusal for the first word that is wrong.
    """
    values: dict[str, Any] = {}
    for word in words:
        name, _, raw = word.partition(b"=")
        option = name.decode()
        if option.startswith(ENV_PREFIX) and ENV_PREFIX in table:
            _add_variable(values, option.removeprefix(ENV_PREFIX), _text(option, raw))
        elif option not in table:
            _refuse_option(option, table, of)
        elif option in values:
            raise Refusal(Code.BAD_REQUEST, f"the option {option} is given twice")
        else:
            values[option] = _value(option, raw, table[option][1])
    return values


def _value(option: str, raw: bytes, read: Reader) -> Any:
    text = _text(option, raw)
    try:
        return read(text)
    except ValueError as error:
        raise Refusal(Code.BAD_REQUEST, f"{option}: {error}") from None


def _text(option: str, raw: bytes) -> str:
    """The value with its %XX undone: whatever text may be said, if it is UTF-8 and holds no NUL."""
    if not 0 < len(raw) <= OPTION_BYTES_MAX and not (raw and option in _LONG):
        raise Refusal(Code.BAD_REQUEST, f"{shown(option)} has a value of {len(raw)} bytes; 1 to 200 are allowed")
    text = raw.decode()
    if not text.isprintable():
        raise Refusal(Code.BAD_REQUEST, f"{shown(option)} has a value that is not printable; write other bytes as %XX")
    if b"%" not in raw or option in _AS_IT_STANDS:
        return text
    try:
        text = _ESCAPE.sub(_unescape, raw).decode()
    except ValueError:
        message = f"{shown(option)} has a value that is not UTF-8 with other bytes as %XX; a % itself is %25"
        raise Refusal(Code.BAD_REQUEST, message) from None
    if "\0" in text:
        raise Refusal(Code.BAD_REQUEST, f"{shown(option)} has a value with a NUL in it")
    return text


def _unescape(escape: re.Match[bytes]) -> bytes:
    if escape[1] is None:
        raise ValueError("a % without two hexadecimal digits")
    return bytes.fromhex(escape[1].decode())


def _add_variable(values: dict[str, Any], name: str, text: str) -> None:
    if not _ENV_NAME.fullmatch(name):
        raise Refusal(Code.BAD_REQUEST, f"{shown(name)} cannot name a variable; letters, digits and _ can")
    if name.startswith("JOBYARD_"):
        raise Refusal(Code.BAD_REQUEST, f"{shown(name)} cannot be set; variables named JOBYARD_* are the node's own")
    variables: dict[str, str] = values.setdefault("env", {})
    if name in variables:
        raise Refusal(Code.BAD_REQUEST, f"the option env.{name} is given twice")
    variables[name] = text


def _refuse_option(option: str, table: Table, of: str) -> NoReturn:
    allowed = " ".join(
        f"{name}{value}" if name == ENV_PREFIX else f"{name}={value}" for name, (value, _) in table.items()
    )
    raise Refusal(Code.BAD_REQUEST, f"{of} has no option {shown(option)}; it has {allowed or 'none'}")


# --- how each value is read ------------------------------------------------------------------------------------


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number of this range."""

    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError(f"{shown(text)} is not a whole number from {least} to {most}")
        return int(text)

    return read


def one_of(words: Iterable[str]) -> Reader:
    allowed = tuple(words)

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{shown(text)} is none of {' '.join(allowed)}")
        return text

    return read


def duration(text: str) -> float:
    return parse_duration(text, plain_unit_s=1.0)


def _some_time(text: str) -> float:
    seconds = duration(text)
    if not seconds:
        raise ValueError("it must be longer than 0, and at most 10 years")
    return seconds


def _tickets(text: str) -> tuple[str, ...]:
    """In the order in which they are named, and as often: who waits for one twice waits once, but an input has it
    twice."""
    tickets = tuple(part.lower() for part in text.split(",") if part)
    wrong = next((part for part in tickets if parse_ticket(part) is None), None)
    if wrong is not None or not tickets:
        raise ValueError(f"{shown(wrong or text)} is no ticket; tickets with commas between are allowed")
    if len(tickets) > AFTER_MAX:
        raise ValueError(f"{len(tickets)} tickets are too many; {AFTER_MAX} are allowed")
    return tickets


def _tickets_once(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_tickets(text)))


def _array(text: str) -> str:
    parse_indexes(text)
    return text


def _crash_limit(text: str) -> int | None:
    if text == "off":
        return None
    try:
        return _crash_limit_number(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from None


def _directory(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{shown(text)} is not absolute; a path that begins with / is allowed")
    return text


def _flag(text: str) -> bool:
    return bool(_flag_number(text))


_crash_limit_number: Final = whole(1, CRASH_LIMIT_MAX)
_flag_number: Final = whole(0, 1)

# `bytes` is read with the framing, before anything else (`common/lines.py`); here it is only known.
JOB_OPTIONS: Final[Table] = {
    "name": ("TEXT", str),
    "group": ("TEXT", str),
    "key": ("TEXT", str),
    "priority": (f"-{PRIORITY_MAX}..{PRIORITY_MAX}", whole(-PRIORITY_MAX, PRIORITY_MAX)),
    "slots": (f"1..{SLOTS_PER_JOB_MAX}", whole(1, SLOTS_PER_JOB_MAX)),
    "crash_limit": (f"1..{CRASH_LIMIT_MAX}|off", _crash_limit),
    "retries": (f"0..{RETRIES_MAX}", whole(0, RETRIES_MAX)),
    "backoff": ("DURATION", duration),
    "timeout": ("DURATION", _some_time),
    "delay": ("DURATION", duration),
    "after": ("TICKET,...", _tickets_once),
    "input": ("TICKET,...", _tickets),
    "array": ("FIRST-LAST[:STEP][%MOST]", _array),
    "cpu": ("DURATION", _some_time),
    "memory": ("SIZE", size_bytes(MIB, SIZE_MAX)),
    "files": (f"8..{COUNT_MAX}", whole(8, COUNT_MAX)),
    "processes": (f"1..{COUNT_MAX}", whole(1, COUNT_MAX)),
    "output": ("SIZE", size_bytes(0, SIZE_MAX)),
    "dir": ("PATH", _directory),
    "bytes": ("N", int),
    ENV_PREFIX: ("NAME=VALUE", str),
}
_LONG: Final = frozenset({"after", "input"})  # values that only the line's length bounds
_AS_IT_STANDS: Final = frozenset({"array"})  # values with a % of their own: 1-1000%50 is no 1-1000P

WAIT_OPTIONS: Final[Table] = {"timeout": ("DURATION", duration)}
WATCH_OPTIONS: Final[Table] = {"timeout": ("DURATION", duration), "since": ("CURSOR", str), "group": ("TEXT", str)}
GROUP_OPTIONS: Final[Table] = {"group": ("TEXT", str)}
LOGS_OPTIONS: Final[Table] = {"follow": ("1", _flag)}
EVENTS_OPTIONS: Final[Table] = {"follow": ("1", _flag), "since": ("CURSOR", str)}
LIST_OPTIONS: Final[Table] = {
    "state": ("STATE", one_of(State)),
    "group": ("TEXT", str),
    "limit": (f"1..{LIST_LIMIT_MAX}", whole(1, LIST_LIMIT_MAX)),
    "local": ("1", _flag),
}
STATS_OPTIONS: Final[Table] = {"local": ("1", _flag)}
NO_OPTIONS: Final[Table] = {}
