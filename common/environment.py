"""From environment variables to the fields of an attrs class, with every problem told at once.

A field made by `setting` carries a Setting as metadata, which is all that reading it, checking names and helping
people need. `read` makes an instance of a class from what is set, and leaves the default where a value is bad, so that
the caller can go on looking for problems.

Pure apart from the files of secrets that it is told to read. It knows no setting by name: `common/settings.py` does.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from common.errors import shown
from common.values import Reader

PREFIX: Final = "JOBYARD_"
SECRET_FILE_BYTES_MAX: Final = 4096  # a longer one is no secret but a mistaken path

T = TypeVar("T", bound=attrs.AttrsInstance)


@attrs.frozen
class Setting:
    """What a field says of itself: where its text comes from, how it is read, and what people are told of it."""

    names: tuple[str, ...]  # of its variables, any of which will do
    default: str  # as people would write it, or a description of it
    unit: str  # of a plain number; empty where there is none
    help: str
    read: Reader[Any]
    secret: bool  # never shown, and can be read from a file

    @property
    def file_name(self) -> str:
        """The variable that holds the path of the file with the secret."""
        return f"{self.names[0]}_FILE"

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.names, self.file_name) if self.secret else self.names


def setting(
    names: str,
    read: Reader[Any],
    default: str,
    help: str,
    *,
    unit: str = "",
    secret: bool = False,
    make: Callable[[], object] | None = None,
) -> Any:
    """A field whose default is what `default` reads as; or, where that is only a description, what `make` makes."""
    told = Setting(tuple(names.split()), default, unit, help, read, secret)
    value = attrs.Factory(make) if make else read(default)
    return attrs.field(default=value, metadata={Setting: told}, repr=not secret)


def settings_of(cls: type[Any]) -> dict[str, Setting]:
    """The settings of a class by field, its own before those it shares."""
    fields = sorted(attrs.fields(cls), key=lambda field: field.inherited)
    return {field.name: field.metadata[Setting] for field in fields if Setting in field.metadata}


def read(cls: type[T], environ: Mapping[str, str]) -> tuple[T, list[str]]:
    """An instance of `cls`, and a line for each problem; a bad value leaves its field at the default."""
    settings = settings_of(cls)
    given: dict[str, _Given] = {}
    values: dict[str, object] = {}
    problems: list[str] = []
    for field, told in settings.items():
        try:
            found = _secret_in(environ, told) if told.secret else _text_in(environ, told)
        except ValueError as error:
            problems.append(str(error))
        else:
            given |= {field: found} if found else {}
    for field, found in given.items():
        try:
            values[field] = settings[field].read(found.text)
        except ValueError as error:
            problems.append(f"{found.shown}: {error}")
    return cls(**values), problems


def unknown_names(environ: Mapping[str, str], known: Set[str]) -> Iterator[str]:
    """A line for each name that looks like ours and is not known. Its value is not repeated: it may be a secret
    under a misspelt name."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            yield f"{shown(name)}: no Jobyard program knows this name; {_suggestion(name, known)}"


def _suggestion(name: str, known: Set[str]) -> str:
    tails = {other.removeprefix(PREFIX): other for other in sorted(known)}  # the prefix makes every name look close
    close = difflib.get_close_matches(name.removeprefix(PREFIX), tails, n=1)
    return f"did you mean {tails[close[0]]}?" if close else "--help lists the names that are allowed"


# --- finding the text ------------------------------------------------------------------------------------------


@attrs.frozen
class _Given:
    text: str = attrs.field(repr=False)
    shown: str  # the variable and its value, for a message


def _text_in(environ: Mapping[str, str], told: Setting) -> _Given | None:
    given = [_Given(environ[name], f"{name}={shown(environ[name])}") for name in told.names if name in environ]
    if len({found.text for found in given}) > 1:
        both = " and ".join(found.shown for found in given)
        raise ValueError(f"{both}: allowed is one of these names, or the same value for both")
    return given[0] if given else None


def _secret_in(environ: Mapping[str, str], told: Setting) -> _Given | None:
    """Blanks and line feeds around a secret are no part of it: editors and shells add them."""
    text, path = environ.get(told.names[0]), environ.get(told.file_name)
    hidden = f"{told.names[0]}=(hidden)"
    if path is None:
        return None if text is None else _Given(text.strip(), hidden)
    file = f"{told.file_name}={shown(path)}"
    if text is not None:
        raise ValueError(f"{hidden} and {file}: allowed is one of these names")
    try:
        return _Given(_secret_of(Path(path)), file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{file}: {why}; allowed is the path of a file that holds the secret") from error


def _secret_of(path: Path) -> str:
    with path.open("rb") as file:
        secret = file.read(SECRET_FILE_BYTES_MAX + 1)
    if len(secret) > SECRET_FILE_BYTES_MAX:
        raise ValueError(f"it holds more than {SECRET_FILE_BYTES_MAX} bytes")
    if not secret.strip():
        raise ValueError("it is empty")
    return secret.decode(errors="surrogateescape").strip()  # as Python decodes the environment
