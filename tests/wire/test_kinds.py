"""What a job's line means, and the sentences for lines that mean nothing."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.kinds import PythonCall, argv_of, python_call


def test_sh_takes_the_rest_of_the_line_as_it_stands() -> None:
    assert argv_of("sh", "echo 'a  b' | wc") == ("/bin/sh", "-c", "echo 'a  b' | wc")


def test_exec_splits_words_as_a_shell_does() -> None:
    assert argv_of("exec", "a 'b c' \"d\"\\ e  f#g") == ("a", "b c", "d e", "f#g")


@given(st.text(alphabet=" abz09_@%+=:,./-'\"\\\t", max_size=30))
def test_the_short_way_of_splitting_finds_the_same_words(line: str) -> None:
    try:
        words = tuple(shlex.split(line))
    except ValueError:
        words = ()
    if words and words[0]:
        assert argv_of("exec", line) == words
    else:
        with pytest.raises(ValueError, match="exec"):
            argv_of("exec", line)


def test_argv_is_a_json_array_of_exactly_these_words() -> None:
    assert argv_of("argv", '["a", "", "b c", "\\u00e4\\n"]') == ("a", "", "b c", "ä\n")


@pytest.mark.parametrize(
    ("kind", "line", "sentence"),
    [
        ("sh", "  ", "sh needs a command after it"),
        ("exec", "", "exec needs a command after it"),
        ("exec", "'' x", "exec needs a command after it"),
        ("exec", "a 'b", "exec cannot split its line into words"),
        ("argv", "[]", "argv needs a JSON array of strings after it, and not an empty one"),
        ("argv", '["a", 1]', "argv needs a JSON array of strings"),
        ("argv", '{"a": "b"}', "argv needs a JSON array of strings"),
        ("argv", "ls", "the line of argv must be JSON: Expecting value"),
        ("argv", "[" * 60_000, "the line of argv must be JSON that is nested less deeply"),
        ("argv", '["a\\u0000b"]', "cannot be a word of a command"),
        ("sh", "a\0b", "cannot be a word of a command"),
        ("argv", '["\\ud800"]', "cannot be a word of a command"),
        ("sleep", "1", "a job of kind sleep has no command"),
    ],
)
def test_a_line_that_is_no_command_is_refused_with_a_sentence(kind: str, line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        argv_of(kind, line)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8),
    st.booleans(),
    st.sampled_from(["", "]", "x", "\n"]),
)
def test_the_quick_way_of_reading_arguments_finds_what_the_thorough_one_does(
    value: object, ascii: bool, end: str
) -> None:
    text = json.dumps([value], ensure_ascii=ascii) + end
    try:
        expected = PythonCall("m", "f", tuple(json.loads(text, parse_constant=refused)))
    except ValueError:
        with pytest.raises(ValueError, match="must be JSON"):
            python_call(f"m:f {text}")
    else:
        assert python_call(f"m:f {text}") == expected


def refused(name: str) -> None:
    raise ValueError(name)


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("m:f", PythonCall("m", "f")),
        (" pkg.mod:Class.method  [1, [2]] ", PythonCall("pkg.mod", "Class.method", (1, [2]))),
        ('m:f\t{"a b": null}', PythonCall("m", "f", (), {"a b": None})),
        ("größe:f []", PythonCall("größe", "f")),
    ],
)
def test_py_is_a_module_a_function_and_arguments(line: str, call: PythonCall) -> None:
    assert python_call(line) == call


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "py needs module:function after it"),
        ("module", "py needs module:function after it, not 'module'"),
        ("m.:f", "py needs module:function after it, not 'm.:f'"),
        ("m:", "py needs module:function after it, not 'm:'"),
        ("m:1f", "py needs module:function after it, not 'm:1f'"),
        ("m:f:g", "py needs module:function after it, not 'm:f:g'"),
        ("m:f 1", "a JSON array .* or a JSON object"),
        ("m:f [1", "the arguments of py must be JSON"),
        ("m:f [NaN]", "NaN is not JSON"),
        ("m:f " + "[" * 60_000, "nested less deeply"),
    ],
)
def test_a_line_that_is_no_call_is_refused_with_a_sentence(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        python_call(line)
