"""The parts of the command line that decide or only look: words, tables, colours, the bar, output as it comes."""

import io
import os
import sys
from pathlib import Path

import pytest

from jobyard.cli import records, tables, terminal, words
from jobyard.cli.inputs import READ_BYTES, Streamed
from jobyard.cli.live import Live
from jobyard.cli.records import RECORDS
from jobyard.cli.reference import reference
from jobyard.cli.root import VERBS
from jobyard.cli.templates import Template
from jobyard.cli.texts import clock, harmless
from jobyard.model import Drained, Explanation, Logs, Outcome, Status, Ticket

TICKET = Ticket("k-1")


def plain(text: str, word: str) -> str:
    return text


class Screen(io.TextIOWrapper):
    """A terminal."""

    def __init__(self) -> None:
        self.shown = io.BytesIO()
        super().__init__(self.shown, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def getvalue(self) -> str:
        return self.shown.getvalue().decode()


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("1d2h3m4s5ms", 93784.005), ("250ms", 0.25), ("0", 0)]
)
def test_a_duration_is_read_as_the_protocol_has_it(text: str, seconds: float) -> None:
    assert words.seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("512MiB", 512 << 20), ("512M", 512 << 20), ("2G", 2 << 30), ("1TiB", 1 << 40)]
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert words.bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "x", "1x", "1.5M", "-1", "1 M", "M"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="512MiB"):
        words.bytes_of(text)


# --- templates ---------------------------------------------------------------------------------------------------

PATHS = {  # input → what {.} {/} {//} {/.} make of it
    "a.txt": ("a", "a.txt", ".", "a"),
    "d/a.tar.gz": ("d/a.tar", "a.tar.gz", "d", "a.tar"),
    "/a": ("/a", "a", "/", "a"),
    "d.e/a": ("d.e/a", "a", "d.e", "a"),
    "d/e/": ("d/e/", "''", "d", "''"),
    "a.": ("a.", "a.", ".", "a."),
}


@pytest.mark.parametrize(("path", "parts"), PATHS.items(), ids=PATHS)
def test_the_parts_of_a_path(path: str, parts: tuple[str, ...]) -> None:
    assert Template("{.} {/} {//} {/.}", 1).line([path], 1) == " ".join(parts)


def test_what_only_looks_like_a_place_is_left_alone() -> None:
    assert Template("awk '{print $1}' {0} {a} ${X} {}", 1).line(["f"], 1) == "awk '{print $1}' {0} {a} ${X} f"


def test_a_place_beyond_the_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\{3\} is in the command, and a job has 2"):
        Template("x {1} {3}", 2)


# --- inputs ------------------------------------------------------------------------------------------------------


def test_inputs_from_a_pipe_are_there_line_by_line_and_the_last_needs_no_end() -> None:
    read, write = os.pipe()
    inputs = Streamed(read, 2, b"\n")
    os.write(write, b"a\nb\nc")
    assert inputs.take(9, 0.0) == [("a", "b")]
    assert inputs.take(9, 0.0) == []
    os.write(write, b"c\n\ne\n")
    assert inputs.take(1, 0.0) == [("cc", "")]
    assert not inputs.exhausted
    os.close(write)
    assert inputs.take(9, None) == [("e",)]
    assert inputs.exhausted
    os.close(read)


def test_no_more_is_read_than_there_is_room_for(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"line\n" * 1_000_000)
    with (tmp_path / "long").open("rb") as file:
        inputs = Streamed(file.fileno(), 1, b"\n")
        assert inputs.take(2, None) == [("line",), ("line",)]
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) <= READ_BYTES


# --- output as it comes ------------------------------------------------------------------------------------------


def said(attempt: int, stdout: bytes, stderr: bytes = b"") -> Logs:
    return Logs(TICKET, "running", attempt, stdout, stderr)


def outcome(stdout: bytes, stderr: bytes = b"") -> Outcome:
    return Outcome(TICKET, "succeeded", 1, stdout=stdout, stderr=stderr)


def test_the_outcome_brings_what_is_missing() -> None:
    live = Live()
    assert live.take(said(1, b"ab", b"x")) == (b"ab", b"x")
    assert live.end(outcome(b"abc", b"xy")) == (b"c", b"y")


def test_a_job_of_which_nothing_was_followed_comes_whole() -> None:
    assert Live().end(outcome(b"abc", b"x")) == (b"abc", b"x")


def test_a_new_attempt_is_silent_until_it_goes_further() -> None:
    live = Live()
    live.take(said(1, b"abcd"))
    assert live.take(said(2, b"ab")) == (b"", b"")
    assert live.take(said(2, b"cdef")) == (b"ef", b"")
    assert live.end(outcome(b"abcdefg")) == (b"g", b"")
    assert not live.differs


def test_a_new_attempt_that_says_less_in_the_end_is_told_of() -> None:
    live = Live()
    live.take(said(1, b"abcd"))
    assert live.take(said(2, b"ab")) == (b"", b"")
    assert live.end(outcome(b"ab")) == (b"ab", b"")
    assert live.differs


def test_a_new_attempt_that_differs_is_printed_from_its_beginning_and_goes_on() -> None:
    live = Live()
    live.take(said(1, b"abcd"))
    assert live.take(said(2, b"ax")) == (b"ax", b"")
    assert live.differs
    assert live.take(said(2, b"y")) == (b"y", b"")
    assert not live.differs
    assert live.end(outcome(b"axyz")) == (b"z", b"")


# --- tables ------------------------------------------------------------------------------------------------------

COLUMNS = (tables.Column("A"), tables.Column("B", right=True), tables.Column("C", shrinks=True, painted=True))


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    assert list(tables.table(COLUMNS, [("aaa", "1", ""), ("b", "22", "")], None, plain)) == [
        "A     B",
        "aaa   1",
        "b    22",
    ]
    assert list(tables.table(COLUMNS, [], None, plain)) == ["A  B  C"]


def test_a_table_fits_the_terminal() -> None:
    lines = list(tables.table(COLUMNS, [("aaa", "1", "long " * 20)], 30, plain))
    assert lines[1] == f"aaa  1  {('long ' * 20)[:21]}…"
    assert max(map(len, lines)) <= 30


def test_colours_do_not_move_columns_and_text_from_others_does_nothing_to_the_terminal() -> None:
    columns = (tables.Column("STATE", painted=True), tables.Column("NAME"))
    lines = list(tables.table(columns, [("failed", "\033[2J"), ("ok", "x")], None, terminal.painted))
    assert lines == ["STATE   NAME", "\033[31mfailed\033[0m  \\x1b[2J", "ok      x"]


def test_when_a_job_is_due_and_how_old_it_is_are_told_from_now() -> None:
    status = Status(TICKET, "retrying", retry_at="2026-11-21T10:01:30Z", submitted="2026-11-21T09:00:00.000Z")
    row = tables.job_row(status, tables._wall("2026-11-21T10:00:00+00:00"))
    assert (row[7], row[8]) == ("1m30s", "1h00m")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (-3, "0.0s"), (9.94, "9.9s"), (59.9, "59s"), (61, "1m01s"), (90000, "1d01h")]
)
def test_a_time_is_short(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_text_is_harmless() -> None:
    assert harmless("a\033[2Jb\n\u202eü") == "a\\x1b[2Jb\\n\\u202eü"


# --- terminals ---------------------------------------------------------------------------------------------------


def test_colours_are_for_terminals_and_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.has_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.has_colours()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.has_colours()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not terminal.has_colours()
    assert terminal.width() is None


def test_the_bar_stands_below_what_is_printed_and_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.Bar(True, 4) as bar:
        bar.count(succeeded=True)
        bar.count(succeeded=False)
        bar.clear()
        screen.write("a line\n")
        bar.draw()
    shown = screen.getvalue()
    assert "a line\n\r\033[K[████████████············] 2/4, 1 failed, 0.0s left" in shown
    assert shown.endswith("\r\033[K")


def test_the_bar_does_not_wipe_out_a_line_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    bar = terminal.Bar(True, 4)
    bar.print(b"half", b"")
    bar.draw()
    assert screen.getvalue().startswith("half\n\r\033[K[")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe := io.BytesIO()))
    bar.print(b"half", b"")
    assert pipe.getvalue() == b"half"


def test_without_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.Bar(False, 4) as bar:
        bar.count(succeeded=True)
        bar.draw()
    assert screen.getvalue() == ""


def test_a_bar_without_a_total_counts() -> None:
    bar = terminal.Bar(True)
    bar.count(succeeded=True)
    assert bar.text(75) == "1 ended, 1m15s"


# --- the document ------------------------------------------------------------------------------------------------


def test_the_document_of_the_command_is_what_the_code_says() -> None:
    document = Path(__file__).parents[2] / "docs" / "cli.md"
    assert document.read_text() == reference(), "run: python -m jobyard.cli.reference > docs/cli.md"


def test_each_verb_prints_a_record_that_is_documented() -> None:
    text = reference()
    for verb in VERBS:
        assert f"\n### {verb}\n" in text
    for record in RECORDS:
        assert f"(#json-{record.name.replace(' ', '-')})" in text, f"no verb prints {record.name}"


def test_a_record_has_the_fields_that_are_documented() -> None:
    status = Status(TICKET, "running", fields={"state": "running", "attempt": "1", "count": "2", "running": "2"})
    told = Outcome(TICKET, "failed", 1, 3, "n1", 0.5, "exit", True, b"a", b"\xff", {"failed": 1})
    for record, made in (
        (records.JOB, records.of_status(status)),
        (records.OUTCOME, records.of_outcome(told)),
        (records.LOGS, records.of_logs(said(1, b"a", b"\xff"))),
        (records.VERSION, records.of_version("1", "jobyard 2 protocol=1")),
        (records.DRAINED, records.of_drained(Drained("draining", 1, 2))),
        (records.EXPLANATION, records.of_explanation(Explanation(TICKET, "queued", "no_node", "text"))),
    ):
        types = {"string": str, "number": (int, float), "boolean": bool, "object": dict}
        documented = {field.name: types[field.type] for field in record.fields}
        for name, value in made.items():
            assert isinstance(value, documented[name]), f"{record.name}: {name} is {value!r}"
