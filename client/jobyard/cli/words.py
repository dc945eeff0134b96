"""Durations, sizes, variables and the like, as the words of a command line, with an error that says what is allowed.

Pure. What a word means is the protocol's affair; here it is read only so far as it has to be sent in another form, or
so that a slip of the pen is found before anything is sent.
"""

import re
from collections.abc import Callable
from typing import Final, TypeVar

import click

T = TypeVar("T")

_NUMBER: Final = r"([0-9]+(?:\.[0-9]+)?)"
_UNITS_S: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in _UNITS_S))
_SIZE: Final = re.compile(r"([0-9]{1,18})(?:([KMGT])(?:iB)?)?")
_SIZE_UNITS: Final = {None: 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def seconds_of(text: str) -> float:
    """The seconds of `90s`, `1h30m`, `250ms` or `1.5`."""
    if re.fullmatch(_NUMBER, text):
        return float(text)
    parts = _DURATION.fullmatch(text)
    if not text or parts is None:
        raise ValueError(f"{text!r} is no duration; write it like 90s, 1h30m, 250ms or 1.5")
    numbers = zip(parts.groups(), _UNITS_S.values(), strict=True)
    return sum(float(number) * unit_s for number, unit_s in numbers if number)


def bytes_of(text: str) -> int:
    """The bytes of `512MiB`, `2G` or `4096`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no size; write it like 512MiB, 2GiB (or 512M, 2G), or as a number of bytes")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def crash_limit_of(text: str) -> int | str:
    if text == "off":
        return text
    if not text.isdecimal():
        raise ValueError(f"{text!r} is neither a whole number nor off")
    return int(text)


def variable_of(text: str) -> tuple[str, str | None]:
    """`NAME=VALUE`, or `NAME` alone for the value that it has here."""
    name, equals, value = text.partition("=")
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{text!r} is not NAME=VALUE, nor the NAME of a variable of ours")
    return name, value if equals else None


def option(read: Callable[[str], T]) -> Callable[[str], T]:
    """The same reader as the `type` of an option: its ValueError is said as an error of the command line."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


DURATION: Final = option(seconds_of)
SIZE: Final = option(bytes_of)
CRASH_LIMIT: Final = option(crash_limit_of)
VARIABLE: Final = option(variable_of)
