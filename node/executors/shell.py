"""What a job's line means: the words of a command, or the call of a Python function.

Rules: pure; the client protocol asks here when a job is submitted, the spawner when it is started, so both read a
line alike. Every refusal is a ValueError whose text is a sentence for the person who typed the line.
"""

import json
import re
import shlex
from typing import Any, NoReturn

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./ -]*")  # nothing in it means anything to a shell
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def argv_of(kind: str, line: str) -> tuple[str, ...]:
    """The words that a job of kind `sh`, `exec` or `argv` starts; raises ValueError."""
    words: tuple[str, ...]
    if kind == "sh":
        words = ("/bin/sh", "-c", line) if line.strip() else ()
    elif kind == "exec":
        words = _split(line)
    elif kind == "argv":
        words = _array(line)
    else:
        raise ValueError(f"a job of kind {kind} has no command; sh, exec and argv have")
    if not words or not words[0]:
        raise ValueError(f"{kind} needs a command after it")
    for word in words:
        _check(word)
    return words


def python_call(line: str) -> tuple[str, str, list[Any], dict[str, Any]]:
    """Module, function, positional and keyword arguments of a `py` line; raises ValueError.

    A JSON array holds the positional arguments, an object the keyword arguments; nothing stands for none.
    The function may be dotted (`Class.method`), and so may the module.
    """
    module, function, text = split_python(line)
    arguments = _json(text, "the arguments of py must be JSON") if text else []
    if isinstance(arguments, list):
        return module, function, arguments, {}
    if isinstance(arguments, dict):
        return module, function, [], arguments
    raise ValueError("the arguments of py are a JSON array (positional) or object (keyword), not a bare value")


def split_python(line: str) -> tuple[str, str, str]:
    """Module, function and the text of the arguments, whose JSON is not looked at; raises ValueError."""
    target, *arguments = line.split(maxsplit=1) or [""]
    module, colon, function = target.partition(":")
    if not colon:
        raise ValueError(f"py needs module:function after it, not {target!r}")
    for name in (module, function):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} in {target!r} is not a Python name")
    return module, function, arguments[0].strip() if arguments else ""


def _split(line: str) -> tuple[str, ...]:
    if _PLAIN.fullmatch(line):
        return tuple(line.split())  # the same words, in a hundredth of the time
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise ValueError(f"the words of exec cannot be told apart: {error}") from None


def _array(line: str) -> tuple[str, ...]:
    words = _json(line, "argv needs a JSON array of strings")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("argv needs a JSON array of strings")
    return tuple(words)


def _json(text: str, expected: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ValueError(f"{expected}: {error}") from None
    except RecursionError:
        raise ValueError(f"{expected}, less deeply nested") from None


def _check(word: str) -> None:
    """Refuse what no program can be given."""
    if "\0" in word:
        raise ValueError("a word of a command cannot hold a NUL byte")
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the word {word!r} cannot be written as UTF-8") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
