"""What a file of tasks comes to, and what is wrong with it: found before anything is submitted, and named."""

import json
import tomllib
from typing import Any

import pytest

from common import lines
from common.requests import Bad, Submit
from jobyard import limits
from jobyard.cli.words import bytes_of, seconds_of
from jobyard.graphs import INPUTS_MAX, Task, graph_of, in_groups, in_order, levels
from jobyard.model import Job
from jobyard.protocol import encode_submit


def graph(tasks: dict[str, Any], **more: Any) -> dict[str, Task]:
    return graph_of({"tasks": tasks, **more}, seconds_of, bytes_of)


def waiting(**needs: str) -> dict[str, Any]:
    """Tasks by name, with whom they wait for."""
    return {name: {"sh": "true", "after": after.split()} for name, after in needs.items()}


def test_a_task_is_a_kind_a_line_and_options() -> None:
    read = graph({
        "a": {"sh": "echo 1", "timeout": "1h30m", "memory": "2GiB", "retries": 3, "env": {"A": "b", "N": 1}},
        "b": {"argv": ["wc", "-l", "ü"], "input": ["a"], "stdin": "text\n", "backoff": 0.5, "crash_limit": "off"},
        "c": {"py": "math:gcd", "args": [4, 6], "after": ["a"], "output": 100, "dir": "/x", "name": "other"},
        "d": {"sleep": "1.5", "slots": 2, "priority": -1, "array": "1-3%1"},
        "e": {"exec": "ls 'a b'", "cpu": 2, "crash_limit": 1},
        "f": {"sh": "a\nb", "files": 9, "processes": 8, "delay": "10s"},
        "g": {"py": "os:getpid"},
    })  # fmt: skip
    assert {task.name: (task.kind, task.line) for task in read.values()} == {
        "a": ("sh", "echo 1"),
        "b": ("argv", '["wc", "-l", "ü"]'),
        "c": ("py", "math:gcd [4, 6]"),
        "d": ("sleep", "1.5"),
        "e": ("exec", "ls 'a b'"),
        "f": ("argv", '["/bin/sh", "-c", "a\\nb"]'),
        "g": ("py", "os:getpid"),
    }
    assert {task.name: task.options for task in read.values()} == {
        "a": {"name": "a", "timeout_s": 5400.0, "memory_bytes": 2 << 30, "retries": 3, "env": {"A": "b", "N": "1"}},
        "b": {"name": "b", "body": b"text\n", "backoff_s": 0.5, "crash_limit": "off"},
        "c": {"name": "other", "output_bytes": 100, "dir": "/x"},
        "d": {"name": "d", "slots": 2, "priority": -1, "array": "1-3%1"},
        "e": {"name": "e", "cpu_s": 2.0, "crash_limit": 1},
        "f": {"name": "f", "files": 9, "processes": 8, "delay_s": 10.0},
        "g": {"name": "g"},
    }
    assert (read["b"].input, read["b"].after, read["c"].after) == (("a",), (), ("a",))


def test_defaults_are_for_all_and_weaker() -> None:
    tasks = {"a": {"sh": "x"}, "b": {"sh": "x", "retries": 0, "env": {"B": "2"}}}
    read = graph(tasks, defaults={"retries": 3, "env": {"A": "1", "B": "1"}})
    assert read["a"].options == {"name": "a", "retries": 3, "env": {"A": "1", "B": "1"}}
    assert read["b"].options == {"name": "b", "retries": 0, "env": {"A": "1", "B": "2"}}


WRONG = {
    "task 'a': after names 'z', and there is no such task": {"a": {"sh": "x", "after": ["z"]}},
    "task 'a': input names 'z', and there is no such task": {"a": {"sh": "x", "input": ["z"]}},
    "task 'a': 'retry' is not known; there may be sh, argv,": {"a": {"sh": "x", "retry": 3}},
    "task 'a': nothing is to be run; there must be one of sh,": {"a": {"after": []}},
    "task 'a': sh and argv are two": {"a": {"sh": "x", "argv": ["x"]}},
    "task 'a': args are for py": {"a": {"sh": "x", "args": [1]}},
    "task 'a': args: 1 is neither a list of arguments nor a table": {"a": {"py": "m:f", "args": 1}},
    "task 'a': retries: 'many' is not a whole number": {"a": {"sh": "x", "retries": "many"}},
    "task 'a': retries: True is not a whole number": {"a": {"sh": "x", "retries": True}},
    "task 'a': timeout: 'soon' is no duration": {"a": {"sh": "x", "timeout": "soon"}},
    "task 'a': memory: 'much' is no size": {"a": {"sh": "x", "memory": "much"}},
    "task 'a': argv: [1] is not a list of texts": {"a": {"argv": [1]}},
    "task 'a': sh: '' is not a text": {"a": {"sh": ""}},
    "task 'a': after: 'b' is not a list of texts": {"a": {"sh": "x", "after": "b"}, "b": {"sh": "x"}},
    "task 'a': after names 'b' twice": {"a": {"sh": "x", "after": ["b", "b"]}, "b": {"sh": "x"}},
    "task 'a': env: 3 is not a table of variables": {"a": {"sh": "x", "env": 3}},
    "task 'a': 'true' is not a table": {"a": "true"},
    "there are no tasks": {},
    "task 'a': priority: 101 is not a whole number from -100 to 100": {"a": {"sh": "x", "priority": 101}},
    "task 'a': crash_limit: 0 is not a whole number from 1 to 1000": {"a": {"sh": "x", "crash_limit": 0}},
    "task 'a': memory: 1 is not a whole number from 1048576": {"a": {"sh": "x", "memory": 1}},
    "task 'a': array: 'junk' is no range of indexes": {"a": {"sh": "x", "array": "junk"}},
    "task 'a': env: '1' cannot name a variable": {"a": {"sh": "x", "env": {"1": "x"}}},
    "task 'a': env: 'JOBYARD_X' cannot be set": {"a": {"sh": "x", "env": {"JOBYARD_X": "x"}}},
    "task 'a': sleep: inf is no duration in seconds; 0 to 10 years are": {"a": {"sleep": float("inf")}},
    "task 'a': sleep: nan is no duration": {"a": {"sleep": float("nan")}},
    "task 'a': sleep: -1 is no duration": {"a": {"sleep": -1}},
    "task 'a': timeout: it must be longer than 0": {"a": {"sh": "x", "timeout": 1e-9}},
    "task 'a': py: 'nonsense' is not module:function": {"a": {"py": "nonsense"}},
    "task 'a': args: JSON cannot say them": {"a": {"py": "m:f", "args": tomllib.loads("at = [2026-11-21]")["at"]}},
    "task 'a': exec: the line cannot be split into words: no closing quotation": {"a": {"exec": "'unclosed"}},
    "task 'a': sh: there is nothing to be run": {"a": {"sh": "  "}},
    "task 'a': stdin: 'utf-8' codec can't encode": {"a": {"sh": "x", "stdin": "\ud800"}},
}


@pytest.mark.parametrize(("message", "tasks"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_told_with_the_name_of_the_task(message: str, tasks: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  the text follows
        graph(tasks)
    assert str(raised.value).startswith(message)


def test_tables_that_nobody_knows_are_refused() -> None:
    with pytest.raises(ValueError, match="the file: 'task' is not known; there may be tasks, defaults"):
        graph_of({"task": {}}, seconds_of, bytes_of)
    with pytest.raises(ValueError, match="defaults: 'after' is not known"):
        graph({"a": {"sh": "x"}}, defaults={"after": ["a"]})


def test_more_needs_than_a_job_may_have_are_refused() -> None:
    many = {f"n{number}": {"sh": "x"} for number in range(INPUTS_MAX + 1)}
    assert len(graph({**many, "last": {"sh": "x", "after": list(many)[1:]}})) == INPUTS_MAX + 2
    with pytest.raises(ValueError, match="task 'last': after names 1001 tasks, and a job may wait for 1000"):
        graph({**many, "last": {"sh": "x", "after": list(many)}})


# --- as a node has it ------------------------------------------------------------------------------------------------


def is_taken(request: bytes) -> bool:
    """By a node."""
    (read,) = lines.Parser().feed(request)
    assert isinstance(read, Submit | Bad)
    return isinstance(read, Submit)


def is_sound(table: dict[str, Any]) -> bool:
    try:
        graph({"a": table})
    except ValueError:
        return False
    return True


BOUNDS = [
    (option, number)
    for option, (least, most) in limits.RANGES.items()
    for number in (least - 1, least, least + 1, most - 1, most, most + 1)
]


@pytest.mark.parametrize(("option", "number"), BOUNDS)
def test_ranges_are_those_of_a_node(option: str, number: int) -> None:
    assert is_sound({"sh": "true", option: number}) == is_taken(f"SUBMIT {option}={number} sh true\n".encode())


@pytest.mark.parametrize("option", ["timeout", "cpu", "backoff", "delay"])
@pytest.mark.parametrize("seconds", [0, 0.000001, 1, limits.DURATION_S_MAX, limits.DURATION_S_MAX + 1])
def test_durations_are_those_of_a_node(option: str, seconds: float) -> None:
    assert is_sound({"sh": "true", option: seconds}) == is_taken(f"SUBMIT {option}={seconds:f} sh true\n".encode())


ARRAYS = ["1-3", "1-3:2%1", "3-1", "1-3:0", "1-3%0", "1-1000000", "0-1000000", "0-999999999:1000", "1-1000000000:9999",
          "1", "-1-2", "0-0", " 1-2"]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS)
def test_arrays_are_those_of_a_node(array: str) -> None:
    assert is_sound({"sh": "true", "array": array}) == is_taken(f"SUBMIT array={array} sh true\n".encode())


@pytest.mark.parametrize("name", ["A", "_1", "1", "A-B", "JOBYARD_X", "JOBYARDX", "ü", "a.b"])
def test_variables_are_those_of_a_node(name: str) -> None:
    assert is_sound({"sh": "true", "env": {name: "x"}}) == is_taken(f"SUBMIT env.{name}=x sh true\n".encode())


LINES = [("exec", "a 'b c'"), ("exec", "'open"), ("exec", "''"), ("exec", "a \\"), ("py", "m:f"), ("py", "m:f [1]"),
         ("py", "m.n:f.g {}"), ("py", "m"), ("py", ":f"), ("py", "m:"), ("py", "m:f nonsense"), ("py", "m:f 1"),
         ("py", "m:f [NaN]"), ("py", "1m:f"), ("sh", "'open"), ("exec", "#")]  # fmt: skip


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_lines_are_those_of_a_node(kind: str, line: str) -> None:
    assert is_sound({kind: line}) == is_taken(encode_submit(Job(kind, line)))


@pytest.mark.parametrize("words", [["a", ""], [""], ["a", "\0"], ["ü"]])
def test_words_are_those_of_a_node(words: list[str]) -> None:
    assert is_sound({"argv": words}) == is_taken(encode_submit(Job("argv", json.dumps(words))))


def test_an_index_may_stand_where_a_line_would_be_wrong_without_it() -> None:
    assert is_sound({"py": "m:f{}", "array": "1-3"})
    assert not is_sound({"py": "m:f{}"})


# --- order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "circle"),
    [
        ({"a": "a"}, "a -> a"),
        ({"a": "b", "b": "c", "c": "a"}, "a -> b -> c -> a"),
        ({"x": "a", "a": "b", "b": "y c", "y": "", "c": "b"}, "b -> c -> b"),
    ],
)
def test_a_circle_is_refused_and_named(needs: dict[str, str], circle: str) -> None:
    with pytest.raises(ValueError, match=rf": {circle}$"):
        graph(waiting(**needs))


def test_a_circle_through_an_input_is_one() -> None:
    with pytest.raises(ValueError, match=r": a -> b -> a$"):
        graph({"a": {"sh": "x", "input": ["b"]}, "b": {"sh": "x", "after": ["a"]}})


def test_each_task_is_behind_all_that_it_waits_for_and_otherwise_where_it_stood() -> None:
    assert list(graph(waiting(a="c", b="", c="d", d="", e="a b"))) == ["d", "c", "a", "b", "e"]
    assert list(graph(waiting(a="", b="", c=""))) == ["a", "b", "c"]


def test_a_chain_of_any_length_is_put_in_order() -> None:
    length = 20_000
    tasks = {str(number): Task(str(number), "sh", "x", after=(str(number + 1),)) for number in range(length)}
    tasks[str(length)] = Task(str(length), "sh", "x")
    assert list(in_order(tasks)) == [str(number) for number in range(length, -1, -1)]


def test_tasks_that_can_be_submitted_together_are_one_level() -> None:
    found = levels(graph(waiting(a="", b="a", c="a", d="b c", e="", f="e d")))
    assert [[task.name for task in level] for level in found] == [["a", "e"], ["b", "c"], ["d"], ["f"]]


def test_groups_are_as_small_as_will_do() -> None:
    def sizes(count: int) -> list[int]:
        return [len(group) for group in in_groups(range(count), most=10)]

    assert sizes(11) == [2, 2, 2, 2, 2, 1]
    assert sizes(100) == [10] * 10
    assert sizes(101) == [10] * 10 + [1]
    assert sizes(0) == []
