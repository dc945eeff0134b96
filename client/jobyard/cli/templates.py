"""The command of `map` as a template: `convert {} {.}.png` and one input after another make lines for a shell.

    {}     the input                    {.}    without its extension
    {/}    without its directory        {//}   its directory alone
    {/.}   without either               {#}    the number of the job, from 1
    {2}    {2.}  {2/} …                 the second input of a job that has several, where {} is all of them

As GNU parallel has it: each input is quoted for the shell, a template without any of these gets ` {}` at its end, and
an empty one is the input itself, which then is a whole command. Pure.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Final

_PLACE: Final = re.compile(r"\{(?:(#)|([1-9][0-9]*)?(//|/\.|/|\.)?)\}")
_EXTENSION: Final = re.compile(r"\.[^/.]+$")


def _base(text: str) -> str:
    return text.rpartition("/")[2]


def _directory(text: str) -> str:
    head, slash, _ = text.rstrip("/").rpartition("/")
    return head.rstrip("/") or ("/" if slash else ".")


_HOW: Final[dict[str, Callable[[str], str]]] = {
    "": lambda text: text,
    ".": lambda text: _EXTENSION.sub("", text),
    "/": _base,
    "//": _directory,
    "/.": lambda text: _EXTENSION.sub("", _base(text)),
}


class Template:
    """A command, and where its inputs go. Raises ValueError where one asks for more inputs than a job has."""

    def __init__(self, command: str, inputs_per_job: int) -> None:
        self._is_command = not command.strip()
        self._command = command if self._is_command or _PLACE.search(command) else f"{command} {{}}"
        places = [int(match[2]) for match in _PLACE.finditer(command) if match[2]]
        if places and max(places) > inputs_per_job:
            raise ValueError(f"{{{max(places)}}} is in the command, and a job has {inputs_per_job} input(s)")

    def line(self, args: Sequence[str], seq: int) -> str:
        """The line for a shell. The last job may have fewer inputs than others; what is not there is empty."""
        if self._is_command:
            return " ".join(args)

        def filled(match: re.Match[str]) -> str:
            if match[1]:
                return str(seq)
            chosen = args if match[2] is None else args[int(match[2]) - 1 : int(match[2])]
            return " ".join(shlex.quote(_HOW[match[3] or ""](text)) for text in chosen)

        return _PLACE.sub(filled, self._command)
