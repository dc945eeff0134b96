"""How the values of settings are written: each function here makes a reader, which turns a text into a value.

Pure. A reader raises ValueError with one phrase that says what is allowed, to stand after the name and the value of
the setting. Which setting takes which values is said in `common/settings.py`.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from common.durations import format_duration, parse_duration
from common.limits import GIB, KIB, MIB, OPTION_BYTES_MAX

T = TypeVar("T")
Reader: TypeAlias = Callable[[str], T]
Address: TypeAlias = tuple[str, int]  # host and port

OFF: Final = "off"
PORT_MAX: Final = 65_535
MILLISECOND_S: Final = 0.001

_SIZE = re.compile(r"([0-9]+) ?([KMGT]iB)?")
_SIZE_UNITS: Final = {None: 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB}
_ADDRESS = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


def duration_s(*, least_s: float = 0.0) -> Reader[float]:
    """Seconds, of a text whose plain number counts milliseconds."""

    def read(text: str) -> float:
        try:
            seconds = parse_duration(text, plain_unit_s=MILLISECOND_S)
        except ValueError:
            seconds = -1.0
        if seconds >= least_s:
            return seconds
        raise ValueError(
            f"allowed is a duration from {format_duration(least_s)} to 10 years, such as 250ms, 1.5s or 1h30m; "
            "a plain number is milliseconds"
        )

    return read


def integer(least: int, most: int) -> Reader[int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"allowed is a whole number from {least} to {most}")

    return read


def size_bytes(least: int, most: int) -> Reader[int]:
    def read(text: str) -> int:
        match = _SIZE.fullmatch(text)
        size = int(match[1]) * _SIZE_UNITS[match[2]] if match and len(text) < 20 else -1
        if least <= size <= most:
            return size
        raise ValueError(
            f"allowed is a size from {format_size(least)} to {format_size(most)}, "
            "a plain number of bytes or one with KiB, MiB, GiB or TiB"
        )

    return read


def format_size(size_bytes: int) -> str:
    """The shortest text that a size reader reads as `size_bytes`."""
    for unit, unit_bytes in sorted(_SIZE_UNITS.items(), key=lambda item: -item[1]):
        if size_bytes and unit and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{unit}"
    return str(size_bytes)


def one_of(*words: str) -> Reader[str]:
    def read(text: str) -> str:
        if text.lower() in words:
            return text.lower()
        raise ValueError(f"allowed is {_alternatives(words)}")

    return read


def some_of(*words: str) -> Reader[frozenset[str]]:
    def read(text: str) -> frozenset[str]:
        chosen = frozenset(word.strip() for word in text.split(","))
        if chosen <= set(words):
            return chosen
        raise ValueError(f"allowed is one or more of {','.join(words)}, separated by commas")

    return read


def address(text: str) -> Address:
    """Host and port; an IPv6 address stands in brackets, and port 0 takes a free one."""
    match = _ADDRESS.fullmatch(text)
    if match and int(match["port"]) <= PORT_MAX and (match["plain"] or _is_ipv6(match["bracketed"])):
        return match["plain"] or match["bracketed"], int(match["port"])
    raise ValueError(
        f"allowed is host:port, such as 127.0.0.1:9000, [::1]:9000 or, for every interface, 0.0.0.0:9000; "
        f"ports go from 0 (any free one) to {PORT_MAX}"
    )


def format_address(of: Address) -> str:
    """The inverse of `address`."""
    host, port = of
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name other than localhost may mean anything, so it is not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def or_off(reader: Reader[T]) -> Reader[T | None]:
    """`off` is None; all else is the reader's."""

    def read(text: str) -> T | None:
        try:
            return None if text.lower() == OFF else reader(text)
        except ValueError as error:
            raise ValueError(f"{error}; or {OFF}") from None

    return read


def word(text: str) -> str:
    """What can stand as one word in a line of the client protocol: a name, a token."""
    if text.isprintable() and " " not in text and 0 < len(text.encode()) <= OPTION_BYTES_MAX:
        return text
    raise ValueError(f"allowed are 1 to {OPTION_BYTES_MAX} bytes of printable characters without blanks")


def text(written: str) -> str:
    """Anything but nothing."""
    if written:
        return written
    raise ValueError("allowed is any text that is not empty")


def key(characters_least: int) -> Reader[bytes]:
    def read(written: str) -> bytes:
        if len(written) >= characters_least:
            return written.encode(errors="surrogateescape")  # the bytes that the environment or the file had
        raise ValueError(f"allowed are {characters_least} characters or more; random ones are best")

    return read


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _alternatives(words: Sequence[str]) -> str:
    named = [word or "(empty)" for word in words]
    return " or ".join(filter(None, (", ".join(named[:-1]), named[-1])))
