"""Jobs that wait for jobs, as a graph: read from a file's tables, checked as a whole, and put in order. Pure.

    {"tasks": {"fetch": {"sh": "curl -O …"},
               "count": {"argv": ["wc", "-l"], "input": ["fetch"]},
               "tell":  {"py": "mail:send", "args": ["done"], "after": ["count"], "retries": 3}},
     "defaults": {"timeout": "1h"}}

Rules: everything that is wrong is found before anything is submitted, and told with the name of the task. A circle is
told as one, `a -> b -> c -> a`: each waits for the next.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from jobyard import limits
from jobyard.model import JobOptions

INPUTS_MAX: Final = 1000  # tickets in `after` and likewise in `input` of one job: the protocol's

T = TypeVar("T")


def in_groups(tickets: Sequence[T], most: int = INPUTS_MAX) -> list[Sequence[T]]:
    """As many groups as one job may read, and more only where a group would be more than one may read: the smaller each
    is, the less has its job to hold."""
    size = min(most, max(1, -(-len(tickets) // most)))
    return [tickets[at : at + size] for at in range(0, len(tickets), size)]


# --- tasks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One job of a graph. `after` and `input` name others."""

    name: str
    kind: str
    line: str
    after: tuple[str, ...] = ()
    input: tuple[str, ...] = ()
    options: JobOptions = field(default_factory=JobOptions)

    @property
    def needs(self) -> tuple[str, ...]:
        """Whom it waits for, each once."""
        return tuple(dict.fromkeys((*self.after, *self.input)))


Graph = dict[str, Task]  # by name, each behind all that it waits for

_KINDS: Final = ("sh", "argv", "exec", "py", "sleep")  # one of them says what a task does
_LISTS: Final = ("after", "input")
_TEXT: Final = "a text"
_NUMBER: Final = "a whole number"


def graph_of(document: Mapping[str, Any], seconds_of: Callable[[str], float], bytes_of: Callable[[str], int]) -> Graph:
    """The tasks of a file. `seconds_of` and `bytes_of` read the texts of durations and sizes. Raises ValueError."""
    _only(document, ("tasks", "defaults"), "the file")
    tables = _table(document.get("tasks", {}), "tasks")
    defaults = _table(document.get("defaults", {}), "defaults")
    if not tables:
        raise ValueError("there are no tasks: a file has a table [tasks.NAME] for each")
    read = _Reader(seconds_of, bytes_of)
    shared = read.options(defaults, "defaults")
    tasks = {name: read.task(name, _table(table, f"task {name!r}"), shared) for name, table in tables.items()}
    for task in tasks.values():
        _check_needs(task, tasks)
    return in_order(tasks)


def _only(table: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for name in table:
        if name not in allowed:
            raise ValueError(f"{where}: {name!r} is not known; there may be {', '.join(allowed)}")


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {value!r} is not a table")
    return value


def _check_needs(task: Task, tasks: Mapping[str, Task]) -> None:
    for option in _LISTS:
        named: tuple[str, ...] = getattr(task, option)
        for need in named:
            if need not in tasks:
                raise ValueError(f"task {task.name!r}: {option} names {need!r}, and there is no such task")
        if len(set(named)) < len(named):
            twice = next(need for place, need in enumerate(named) if need in named[:place])
            raise ValueError(f"task {task.name!r}: {option} names {twice!r} twice")
        if len(named) > INPUTS_MAX:
            raise ValueError(
                f"task {task.name!r}: {option} names {len(named)} tasks, and a job may wait for {INPUTS_MAX}; put tasks"
                " between them, each of which waits for some"
            )


class _Reader:
    """The words of a task."""

    def __init__(self, seconds_of: Callable[[str], float], bytes_of: Callable[[str], int]) -> None:
        self._seconds_of = seconds_of
        self._bytes_of = bytes_of
        self._readers: dict[str, tuple[str, Callable[[Any], Any]]] = {  # option → field of a job, and how it is read
            **{name: (name, _text) for name in ("name", "dir")},
            **{name: (name, _whole(name)) for name in ("priority", "slots", "retries", "files", "processes")},
            **{name: (f"{name}_s", self._seconds(name)) for name in ("timeout", "backoff", "delay", "cpu")},
            **{name: (f"{name}_bytes", self._size(name)) for name in ("memory", "output")},
            "array": ("array", lambda value: limits.check_array(_text(value))),
            "crash_limit": ("crash_limit", _crash_limit),
            "env": ("env", _env),
        }

    def task(self, name: str, table: Mapping[str, Any], shared: JobOptions) -> Task:
        where = f"task {name!r}"
        _only(table, (*_KINDS, "args", *_LISTS, "stdin", *self._readers), where)
        kind, line = _kind_and_line(table, where, self._seconds("sleep"))
        needs = {option: _read(table[option], where, option, _names) for option in _LISTS if option in table}
        own = self.options({option: table[option] for option in table if option in self._readers}, where)
        options: dict[str, Any] = {"name": name, **shared, **own}
        if "env" in own and "env" in shared:
            options["env"] = {**(shared["env"] or {}), **(own["env"] or {})}
        if "stdin" in table:
            options["body"] = _read(table["stdin"], where, "stdin", _body)
        _check_line(kind, line, options.get("array"), where)
        return Task(name, kind, line, options=cast(JobOptions, options), **needs)

    def options(self, table: Mapping[str, Any], where: str) -> JobOptions:
        _only(table, self._readers, where)
        read = ((name, *self._readers[name]) for name in table)
        return cast(JobOptions, {field: _read(table[name], where, name, reader) for name, field, reader in read})

    def _seconds(self, option: str) -> Callable[[Any], float]:
        def read(value: Any) -> float:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return limits.check_seconds(option, value if is_number else self._seconds_of(_text(value)))

        return read

    def _size(self, option: str) -> Callable[[Any], int]:
        def read(value: Any) -> int:
            return limits.check_whole(option, self._bytes_of(value) if isinstance(value, str) else _number(value))

        return read


def _check_line(kind: str, line: str, array: str | None, where: str) -> None:
    """As its first element runs it, if it is an array: the index may stand anywhere."""
    try:
        limits.check_line(kind, line if array is None else line.replace("{}", array.partition("-")[0]))
    except ValueError as error:
        raise ValueError(f"{where}: {kind}: {error}") from None


def _kind_and_line(table: Mapping[str, Any], where: str, seconds: Callable[[Any], float]) -> tuple[str, str]:
    kinds = [kind for kind in _KINDS if kind in table]
    if len(kinds) != 1:
        found = f"{kinds[0]} and {kinds[1]} are two" if kinds else "nothing is to be run"
        raise ValueError(f"{where}: {found}; there must be one of {', '.join(_KINDS)}")
    kind, value = kinds[0], table[kinds[0]]
    if "args" in table and kind != "py":
        raise ValueError(f"{where}: args are for py")
    if kind == "argv":
        return kind, json.dumps(_read(value, where, kind, _words), ensure_ascii=False)
    if kind == "sleep":
        return kind, f"{_read(value, where, kind, seconds):.6f}".rstrip("0").rstrip(".")
    text = _read(value, where, kind, _text).strip()
    if kind == "sh" and ("\n" in text or "\r" in text):
        return "argv", json.dumps(["/bin/sh", "-c", text], ensure_ascii=False)
    if kind == "py" and "args" in table:
        return kind, f"{text} {_read(table['args'], where, 'args', _arguments)}"
    return kind, text


def _read(value: Any, where: str, option: str, reader: Callable[[Any], T]) -> T:
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{where}: {option}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not {_TEXT}")
    return limits.check_text(value)


def _body(value: Any) -> bytes:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not {_TEXT}")
    return value.encode()


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not {_NUMBER}")
    return value


def _whole(option: str) -> Callable[[Any], int]:
    least, most = limits.RANGES[option]

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is not {_NUMBER} from {least} to {most}")
        return limits.check_whole(option, value)

    return read


def _words(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{value!r} is not a list of texts")
    return value


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_words(value)) if value != [] else ()


def _arguments(value: Any) -> str:
    if not isinstance(value, (list, Mapping)):
        raise ValueError(f"{value!r} is neither a list of arguments nor a table of them by name")
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"JSON cannot say them, which is how they are sent ({error}); a text can say all") from None


def _crash_limit(value: Any) -> int | str:
    return value if value == "off" else _whole("crash_limit")(value)


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a table of variables")
    texts = {limits.check_variable(name): text if isinstance(text, str) else str(_number(text))
             for name, text in value.items()}  # fmt: skip
    return {name: limits.check_text(text) for name, text in texts.items()}


# --- order -------------------------------------------------------------------------------------------------------


def in_order(tasks: Mapping[str, Task]) -> Graph:
    """Each behind all that it waits for, otherwise as they came. Raises ValueError, which names a circle."""
    ordered: Graph = {}
    path: dict[str, Iterator[str]] = {}  # who waits for the next, and whom it has yet to be asked after
    for name in tasks:
        ahead: str | None = name
        while True:
            if ahead is not None and ahead not in ordered:
                if ahead in path:
                    circle = [*path][[*path].index(ahead) :]
                    raise ValueError(f"these tasks wait for each other: {' -> '.join((*circle, ahead))}")
                path[ahead] = iter(tasks[ahead].needs)
            if not path:
                break
            waiting = next(reversed(path))
            ahead = next(path[waiting], None)
            if ahead is None:
                del path[waiting]
                ordered[waiting] = tasks[waiting]
    return ordered


def levels(graph: Graph) -> list[list[Task]]:
    """Tasks that can be submitted together: nobody waits for another of the same level."""
    depth: dict[str, int] = {}
    found: list[list[Task]] = []
    for name, task in graph.items():
        depth[name] = 1 + max((depth[need] for need in task.needs), default=-1)
        found += [[] for _ in range(depth[name] + 1 - len(found))]
        found[depth[name]].append(task)
    return found


def because_of(task: Task, ends: Mapping[str, str]) -> str | None:
    """Whom of those that it waits for a cancelled task has to thank for that: one that did not succeed."""
    return next((need for need in task.needs if ends.get(need, "succeeded") != "succeeded"), None)
