"""What a node takes of a job, so that a slip is found before anything is sent: ranges, shapes and lines. Pure.

The rules are the protocol's, and nodes apply them whatever was checked here; a test holds the two together. Every
refusal is a ValueError with a phrase that says what is allowed, to stand behind the name of the option.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

RANGES: Final[Mapping[str, tuple[int, int]]] = {  # option → the least and the most of a whole number
    "priority": (-100, 100),
    "slots": (1, 10_000),
    "retries": (0, 1000),
    "crash_limit": (1, 1000),
    "memory": (1 << 20, 1 << 50),
    "files": (8, 1_000_000),
    "processes": (1, 1_000_000),
    "output": (0, 1 << 50),
}
DURATION_S_MAX: Final = 10 * 365.25 * 86400.0
SOME_TIME: Final = frozenset({"timeout", "cpu"})  # durations that cannot be 0
INDEXES_MAX: Final = 1_000_000
INDEX_MAX: Final = 999_999_999

_RANGE_OF_INDEXES: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,9})(?::([0-9]{1,9}))?(?:%([0-9]{1,9}))?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


# --- options -----------------------------------------------------------------------------------------------------


def check_whole(option: str, number: int) -> int:
    least, most = RANGES[option]
    if not least <= number <= most:
        raise ValueError(f"{number} is not a whole number from {least} to {most}")
    return number


def check_seconds(option: str, seconds: float) -> float:
    """Also refuses what is no number, and what is nothing once it is written with microseconds."""
    if not 0 <= seconds <= DURATION_S_MAX:
        raise ValueError(f"{seconds} is no duration in seconds; 0 to 10 years are")
    if option in SOME_TIME and not round(seconds, 6):
        raise ValueError("it must be longer than 0, and at most 10 years")
    return float(seconds)


def check_array(text: str) -> str:
    match = _RANGE_OF_INDEXES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no range of indexes; write it like 1-1000, 0-99:3 or 1-1000%50")
    first, last, step, at_once_max = (int(number) if number else 1 for number in match.groups())
    if first > last or not step or not at_once_max:
        raise ValueError(f"{text!r} holds no index; first-last:step%most goes upwards, with step and most from 1")
    if (count := (last - first) // step + 1) > INDEXES_MAX:
        raise ValueError(f"{text!r} has {count} indexes; {INDEXES_MAX} are allowed")
    return text


def check_text(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"{text!r} has a NUL in it, and no text of a job may")
    return text


def check_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a variable; letters, digits and _ can")
    if name.startswith("JOBYARD_"):
        raise ValueError(f"{name!r} cannot be set; variables named JOBYARD_* are the node's own")
    return name


# --- lines -------------------------------------------------------------------------------------------------------


def check_line(kind: str, line: str) -> None:
    """Raises ValueError where a job of this kind and line could never start."""
    check_text(line)
    if not line.strip():
        raise ValueError("there is nothing to be run")
    if kind in _CHECKS:
        _CHECKS[kind](line)


def _check_exec(line: str) -> None:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ValueError(f"the line cannot be split into words: {str(error).lower()}") from None
    _check_words(words)


def _check_argv(line: str) -> None:
    _check_words(json.loads(line))


def _check_words(words: Iterable[str]) -> None:
    first, *_ = [*map(check_text, words), ""]
    if not first:
        raise ValueError("the first word, which is what is to be started, is empty")


def _check_python(line: str) -> None:
    target, *text = line.split(None, 1)
    module, colon, function = target.partition(":")
    if not colon or not _is_dotted_name(module) or not _is_dotted_name(function):
        raise ValueError(f"{target!r} is not module:function")
    try:
        arguments: Any = json.loads(text[0], parse_constant=_refuse_constant) if text else []
    except ValueError as error:
        raise ValueError(f"the arguments are not JSON: {error}") from None
    if not isinstance(arguments, (list, dict)):
        raise ValueError("the arguments are neither an array nor an object of JSON")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


_CHECKS: Final[Mapping[str, Callable[[str], None]]] = {
    "exec": _check_exec,
    "argv": _check_argv,
    "py": _check_python,
}
