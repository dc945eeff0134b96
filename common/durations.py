"""Durations as people write them: `90s`, `1h30m`, `250ms`, `1.5s`, or a plain number.

Pure. What a plain number counts depends on where it is written: seconds in the client protocol, milliseconds in
the settings. So the caller says it.
"""

import math
import re
from typing import Final

from common.errors import shown
from common.limits import DURATION_MAX_S

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_PLAIN = re.compile(_NUMBER)
_UNITS_S: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PARTS = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in _UNITS_S))  # each once, the largest first
_PLAIN_NAMES: Final = {1.0: "seconds", 0.001: "milliseconds"}


def parse_duration(text: str, *, plain_unit_s: float) -> float:
    """Seconds, from 0 to ten years. Raises ValueError with a sentence that says what is allowed."""
    if plain := _PLAIN.fullmatch(text):
        seconds = float(plain[1]) * plain_unit_s
    elif text and (parts := _PARTS.fullmatch(text)):
        numbers = zip(parts.groups(), _UNITS_S.values(), strict=True)
        seconds = sum(float(number) * unit_s for number, unit_s in numbers if number)
    else:
        raise ValueError(f"{shown(text)} is no duration; {_allowed(plain_unit_s)}")
    if seconds > DURATION_MAX_S:
        raise ValueError(f"{shown(text)} is too long; durations go from 0 to 10 years")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as `seconds`, rounded to milliseconds: `1h30m`, `250ms`, `0s`."""
    assert 0 <= seconds < math.inf, f"{seconds} is no duration"
    rest_ms = round(seconds * 1000)
    if 0 < rest_ms < 1000:
        return f"{rest_ms}ms"
    text = ""
    for unit, unit_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        count, rest_ms = divmod(rest_ms, unit_ms)
        text += f"{count}{unit}" if count else ""
    if rest_ms or not text:
        whole_s, part_ms = divmod(rest_ms, 1000)
        text += f"{whole_s}.{part_ms:03}".rstrip("0").rstrip(".") + "s" if part_ms else f"{whole_s}s"
    return text


def _allowed(plain_unit_s: float) -> str:
    plain = _PLAIN_NAMES.get(plain_unit_s, f"units of {plain_unit_s} s")
    return f"write it like 90s, 1h30m, 250ms or 1.5s (units d h m s ms); a plain number is {plain}"
