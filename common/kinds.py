"""What the line of a job must look like for its kind, so that a job that cannot start is refused when submitted.

The client protocol asks here when a job is submitted, and the spawner when it is started: both read a line alike.
Pure: nothing is started here and no module imported. Every refusal is a ValueError whose text is a sentence for the
person who typed the line.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

import attrs
import msgspec

from common.durations import parse_duration
from common.errors import shown

SHELL: Final = ("/bin/sh", "-c")

_PLAIN_WORDS = re.compile(r"[A-Za-z0-9_@%+=:,./ -]*")  # none of it means anything to a shell


@attrs.frozen
class PythonCall:
    """What a `py` line calls: a function of a module, both perhaps dotted."""

    module: str
    function: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict)


def argv_of(kind: str, line: str) -> tuple[str, ...]:
    """The words that a job of kind `sh`, `exec` or `argv` starts."""
    if kind == "sh":
        _check_shell(line)
        _check_words((line,))
        words: tuple[str, ...] = (*SHELL, line)
    elif kind == "exec":
        words = _shell_words(line)
    elif kind == "argv":
        words = _json_words(line)
    else:
        raise ValueError(f"a job of kind {kind} has no command; sh, exec and argv have")
    if not words or not words[0]:
        raise ValueError(f"{kind} needs a command after it")
    return words


def python_call(line: str) -> PythonCall:
    """A JSON array holds positional arguments, an object keyword arguments; nothing after the function is no
    arguments."""
    module, function, text = python_parts(line)
    arguments = _json("the arguments of py", text) if text else []
    if isinstance(arguments, list):
        return PythonCall(module, function, args=tuple(arguments))
    return PythonCall(module, function, kwargs=arguments)


def python_parts(line: str) -> tuple[str, str, str]:
    """Module, function and arguments as they were typed, when they are found to be what they should."""
    target, *text = line.split(None, 1) or [""]
    module, colon, function = target.partition(":")
    if not colon or not _is_dotted_name(module) or not _is_dotted_name(function):
        raise ValueError(f"py needs module:function after it, not {shown(target)}")
    arguments = text[0].strip() if text else ""
    if arguments and not isinstance(_json("the arguments of py", arguments), (list, dict)):
        raise ValueError("the arguments of py must be a JSON array (positional) or a JSON object (keyword)")
    return module, function, arguments


def sleep_s(line: str) -> float:
    """The seconds that a `sleep` line asks for."""
    if not line.strip():
        raise ValueError("sleep needs a duration after it, such as 1.5s")
    return parse_duration(line.strip(), plain_unit_s=1.0)


def check_line(kind: str, line: str) -> None:
    """Raises ValueError where a job of this kind and line could never start."""
    _CHECKS[kind](line)


def _check_shell(line: str) -> None:
    if not line.strip():
        raise ValueError("sh needs a command after it")


def _check_words_of_exec(line: str) -> None:
    if not _PLAIN_WORDS.fullmatch(line) or not line.strip():  # else any words will do
        argv_of("exec", line)


_CHECKS: Final[dict[str, Callable[[str], object]]] = {
    "sh": _check_shell,
    "exec": _check_words_of_exec,
    "argv": lambda line: argv_of("argv", line),
    "py": python_parts,
    "call": lambda line: None,  # for people: what is called is in the body
    "sleep": sleep_s,
}


def _shell_words(line: str) -> tuple[str, ...]:
    if _PLAIN_WORDS.fullmatch(line):
        return tuple(line.split())  # the same words, in a hundredth of the time
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise ValueError(f"exec cannot split its line into words: {str(error).lower()}") from None
    _check_words(words)
    return words


def _json_words(line: str) -> tuple[str, ...]:
    words = _json("the line of argv", line)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError("argv needs a JSON array of strings after it, and not an empty one")
    _check_words(words)
    return tuple(words)


def _check_words(words: Iterable[str]) -> None:
    for word in words:
        if "\0" in word or not _is_encodable(word):
            raise ValueError(f"{shown(word)} cannot be a word of a command (a NUL or half a character)")


def _json(what: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)  # in a tenth of the time; it is the stricter one, and says less
    except (ValueError, RecursionError):
        pass
    try:
        return _parse(text)
    except RecursionError:
        raise ValueError(f"{what} must be JSON that is nested less deeply") from None
    except ValueError as error:
        raise ValueError(f"{what} must be JSON: {str(error)[:100]}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_parse: Final = json.JSONDecoder(parse_constant=_refuse_constant).decode  # json.loads would make one for each text


def _is_dotted_name(text: str) -> bool:
    return text.isidentifier() or all(part.isidentifier() for part in text.split("."))


def _is_encodable(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
