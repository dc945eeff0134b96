"""The client protocol: what each line means, how it is refused, and what replies look like."""

import re
from pathlib import Path
from typing import Any

import pytest

from common import lines
from common.errors import Code, Refusal
from common.kind_names import KINDS
from common.kinds import PythonCall, argv_of, python_call, sleep_s
from common.limits import AFTER_MAX, LINE_BYTES_MAX, MIB, WATCH_TICKETS_MAX
from common.model import Ended, Job, Reason, State
from common.options import EVENTS_OPTIONS, JOB_OPTIONS, LOGS_OPTIONS, WATCH_OPTIONS

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
VERBS = (
    *("SUBMIT", "RUN", "STATUS", "RESULT", "WAIT", "WATCH", "CANCEL", "RETRY", "FORGET", "EXPLAIN", "LOGS", "LIST"),
    *("NODES", "STATS", "PLACEMENT", "EVENTS", "DRAIN", "UNDRAIN"),
    *("AUTH", "PING", "VERSION", "HELP", "QUIT", "EXIT"),
)


def read(data: bytes, **settings: object) -> list[lines.Request]:
    return lines.Parser(**settings).feed(data)  # type: ignore[arg-type]


def read_one(line: str, **settings: object) -> lines.Request:
    (request,) = read(line.encode() + b"\n", **settings)
    return request


def job(line: str) -> Job:
    request = read_one(line)
    assert isinstance(request, lines.Submit), request
    return request.job


def refusal(line: str, code: Code = Code.BAD_REQUEST) -> str:
    request = read_one(line)
    assert isinstance(request, lines.Bad), request
    assert (request.code, request.close) == (code, False)
    return request.message


# --- requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("SUBMIT sh echo  hi ", lines.Submit(Job("sh", "echo  hi "), b"", wait=False)),
        ("submit sleep 1.5s", lines.Submit(Job("sleep", "1.5s"), b"", wait=False)),
        ("Run exec true", lines.Submit(Job("exec", "true"), b"", wait=True)),
        ("1500", lines.Submit(Job("sleep", "1500ms"), b"", wait=False)),
        ("  007 ", lines.Submit(Job("sleep", "7ms"), b"", wait=False)),
        ("0", lines.Submit(Job("sleep", "0ms"), b"", wait=False)),
        ("STATUS k3f7qa-1", lines.Status("k3f7qa-1")),
        ("status nope", lines.Status("nope")),
        ("\tRESULT\t k3f7qa-1 ", lines.Result("k3f7qa-1")),
        ("WAIT k3f7qa-1", lines.Wait("k3f7qa-1", None)),
        ("WAIT timeout=0 k3f7qa-1", lines.Wait("k3f7qa-1", 0.0)),
        ("WAIT timeout=1h30m k3f7qa-1", lines.Wait("k3f7qa-1", 5400.0)),
        ("CANCEL k3f7qa-1", lines.Cancel("k3f7qa-1", None)),
        ("CANCEL group=a%20b", lines.Cancel(None, "a b")),
        ("CANCEL k3f7qa-1_7", lines.Cancel("k3f7qa-1_7", None)),
        ("WATCH group=g", lines.Watch("g", (), None, None)),
        ("WATCH timeout=1m since=17.4 k3f7qa-1", lines.Watch(None, ("k3f7qa-1",), "17.4", 60.0)),
        ("watch K3F7QA-1,k3f7qa-2_7, k3f7qa-3", lines.Watch(None, ("k3f7qa-1", "k3f7qa-2_7", "k3f7qa-3"), None, None)),
        ("RETRY k3f7qa-1", lines.Retry("k3f7qa-1", None)),
        ("RETRY group=a%20b", lines.Retry(None, "a b")),
        ("FORGET k3f7qa-1", lines.Forget("k3f7qa-1", None)),
        ("forget group=g", lines.Forget(None, "g")),
        ("EXPLAIN k3f7qa-1", lines.Explain("k3f7qa-1")),
        ("LOGS k3f7qa-1", lines.Logs("k3f7qa-1", follow=False)),
        ("logs follow=1 k3f7qa-1_7", lines.Logs("k3f7qa-1_7", follow=True)),
        ("LOGS follow=0 k3f7qa-1", lines.Logs("k3f7qa-1", follow=False)),
        ("EVENTS", lines.Events(follow=False, since=None)),
        ("EVENTS since=a%3D1 follow=1", lines.Events(follow=True, since="a=1")),
        ("DRAIN", lines.Drain()),
        ("undrain", lines.Undrain()),
        ("LIST", lines.List(None, None, 100, local=False)),
        ("LIST state=failed group=g limit=7 local=1", lines.List("failed", "g", 7, local=True)),
        ("NODES", lines.Nodes()),
        ("STATS", lines.Stats(local=False)),
        ("STATS local=1", lines.Stats(local=True)),
        ("PLACEMENT", lines.Placement(None)),
        ("placement Round-Robin", lines.Placement("round-robin")),
        ("AUTH s3cret", lines.Auth("s3cret")),
        ("AUTH a=b==", lines.Auth("a=b==")),
        ("ping", lines.Ping()),
        ("VERSION", lines.Version()),
        ("HELP", lines.Help()),
        ("QUIT", lines.Quit()),
        ("exit", lines.Quit()),
    ],
)
def test_a_line_is_read_as_its_request(line: str, request_: lines.Request) -> None:
    assert read_one(line) == request_


def test_every_option_of_a_job_arrives_in_its_field() -> None:
    line = (
        "SUBMIT name=n%20m group=g key=k priority=-5 slots=2 crash_limit=7 timeout=1m dir=/tmp env.B=2 env.A=x=y "
        "sh echo name=not-an-option"
    )
    assert job(line) == Job(
        "sh",
        "echo name=not-an-option",
        name="n m",
        group="g",
        key="k",
        priority=-5,
        slots=2,
        crash_limit=7,
        timeout_s=60.0,
        dir="/tmp",
        env=(("B", "2"), ("A", "x=y")),
    )


def test_every_option_of_the_second_kind_arrives_in_its_field() -> None:
    line = (
        "SUBMIT retries=5 backoff=2s delay=1h after=K3F7QA-1,k3f7qb-2,k3f7qa-1 array=1-99:2%4 cpu=90 memory=512MiB "
        "files=64 processes=10 output=1GiB sh echo {}"
    )
    assert job(line) == Job(
        "sh",
        "echo {}",
        retries=5,
        backoff_s=2.0,
        delay_s=3600.0,
        after=("k3f7qa-1", "k3f7qb-2"),
        array="1-99:2%4",
        cpu_s=90.0,
        memory_bytes=512 * MIB,
        files=64,
        processes=10,
        output_bytes=1024 * MIB,
    )


def test_the_percent_sign_of_an_array_is_no_escape() -> None:
    assert job("SUBMIT array=1-1000%50 sh true").array == "1-1000%50"
    assert job("SUBMIT array=1-1000%5 sh true").array == "1-1000%5"


def test_as_many_dependencies_as_may_be_fit_into_a_line_although_other_values_are_short() -> None:
    tickets = tuple(f"k3f7qa-{number}" for number in range(1, AFTER_MAX + 1))
    assert job(f"SUBMIT after={','.join(tickets)} sh true").after == tickets
    assert job(f"SUBMIT input={','.join(tickets)} sh true").inputs == tickets


def test_inputs_keep_their_order_and_one_may_be_named_twice() -> None:
    asked = job("SUBMIT input=K3F7QA-2,k3f7qa-1,k3f7qa-2,k3f7qa-9_7 after=k3f7qa-1 sh cat")
    assert asked.inputs == ("k3f7qa-2", "k3f7qa-1", "k3f7qa-2", "k3f7qa-9_7")
    assert asked.after == ("k3f7qa-1",)


def test_a_line_with_braces_is_checked_as_its_first_element_runs_it() -> None:
    assert job("SUBMIT array=1-3 sleep {}s").line == "{}s"
    assert "'{}s' is no duration" in refusal("SUBMIT sleep {}s")
    assert "'5x' is no duration" in refusal("SUBMIT array=5-9 sleep {}x")


def test_a_call_is_its_body_and_its_line_is_for_people() -> None:
    (request,) = read(b"RUN bytes=3 call shop.checkout\n\x80\n\0\n")
    assert request == lines.Submit(Job("call", "shop.checkout", body_bytes=3), b"\x80\n\0", wait=True)
    (request,) = read(b"SUBMIT bytes=1 call\nx\n")
    assert isinstance(request, lines.Submit)
    assert request.job.line == ""


def test_a_crash_limit_can_be_off() -> None:
    assert job("SUBMIT crash_limit=off sh true").crash_limit is None


def test_option_values_are_any_utf8_text_by_percent_escapes() -> None:
    assert job("SUBMIT name=Zo%C3%AB%0A100%25 sh true").name == "Zoë\n100%"
    assert job("SUBMIT name=Zoë sh true").name == "Zoë"
    assert job(f"SUBMIT name={'x' * 200} sh true").name == "x" * 200


def test_blank_lines_are_ignored_and_a_cr_before_the_lf_is_dropped() -> None:
    assert read(b"\n\r\n  \t \nPING\r\nSUBMIT sh a\r\n") == [
        lines.Ping(),
        lines.Submit(Job("sh", "a"), b"", wait=False),
    ]


def test_the_rest_of_a_line_is_kept_as_it_stands() -> None:
    assert job("SUBMIT sh  printf 'a\u00a0b = %s\\n'\t$X ").line == "printf 'a\u00a0b = %s\\n'\t$X "


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("SUBMIT", "needs a kind"),
        ("SUBMIT name=x", "needs a kind"),
        ("SUBMIT bash ls", "'bash' is no kind of job; sh exec argv py call sleep are allowed"),
        ("SUBMIT SH ls", "'SH' is no kind of job"),
        ("SUBMIT call x", "call needs bytes=N and a body"),
        ("SUBMIT call", "call needs bytes=N and a body"),
        ("RUN retries=1 call x", "call needs bytes=N and a body"),
        ("SUBMIT sh", "sh needs a command"),
        ("SUBMIT exec ", "exec needs a command"),
        ("SUBMIT exec ''", "exec needs a command"),
        ("SUBMIT exec 'a", "exec cannot split its line into words: no closing quotation"),
        ("SUBMIT argv []", "not an empty one"),
        ('SUBMIT argv ["a", 1]', "array of strings"),
        ('SUBMIT argv {"a": "b"}', "array of strings"),
        ('SUBMIT argv ["a\\u0000"]', "NUL"),
        ('SUBMIT argv ["\\ud800"]', "half a character"),
        ("SUBMIT argv [", "must be JSON"),
        ("SUBMIT argv " + "[" * 50_000, "nested less deeply"),
        ("SUBMIT py", "module:function"),
        ("SUBMIT py math.sqrt", "module:function after it, not 'math.sqrt'"),
        ("SUBMIT py math:1sqrt", "module:function"),
        ("SUBMIT py math:sqrt 2", "array (positional) or a JSON object (keyword)"),
        ("SUBMIT py math:sqrt [NaN]", "NaN is not JSON"),
        ("SUBMIT sleep", "needs a duration"),
        ("SUBMIT sleep soon", "'soon' is no duration"),
        ("SUBMIT sleep 11000d", "0 to 10 years"),
        ("99999999999999999999", "0 to 10 years"),
        ("1500 1500", "stands alone"),
        ("1500 name=x", "stands alone"),
        ("STATUS", "takes one ticket"),
        ("STATUS a-1 b-2", "not 2 words"),
        ("STATUS local=1 a-1", "STATUS has no option 'local'; it has none"),
        ("WAIT timeout=-1 a-1", "'-1' is no duration"),
        ("WAIT since=1 a-1", "WAIT has no option 'since'; it has timeout=DURATION"),
        ("CANCEL", "takes one ticket"),
        ("CANCEL group=g a-1", "not both"),
        ("WATCH", "WATCH takes group=TEXT or tickets with commas between, one of the two"),
        ("WATCH timeout=1", "one of the two"),
        ("WATCH group=g k3f7qa-1", "one of the two"),
        ("WATCH timeout=soon k3f7qa-1", "'soon' is no duration"),
        ("WATCH since= k3f7qa-1", "0 bytes; 1 to 200"),
        ("WATCH limit=1 group=g", "WATCH has no option 'limit'; it has timeout=DURATION since=CURSOR group=TEXT"),
        ("WATCH " + ",".join(["a" * 6 + "-1"] * (WATCH_TICKETS_MAX + 1)), "5000 tickets at most, not 5001"),
        ("RETRY", "RETRY takes one ticket"),
        ("RETRY group=g a-1", "RETRY takes a ticket or group=TEXT, not both"),
        ("RETRY state=failed", "RETRY has no option 'state'; it has group=TEXT"),
        ("FORGET a-1 a-2", "FORGET takes one ticket, such as k3f7qa-1, not 2 words"),
        ("FORGET group=g a-1", "not both"),
        ("FORGET all=1", "FORGET has no option 'all'"),
        ("EXPLAIN", "EXPLAIN takes one ticket"),
        ("EXPLAIN group=g", "EXPLAIN has no option 'group'; it has none"),
        ("LOGS", "LOGS takes one ticket"),
        ("LOGS follow=1", "LOGS takes one ticket"),
        ("LOGS follow=yes a-1", "'yes' is not a whole number from 0 to 1"),
        ("LOGS since=1 a-1", "LOGS has no option 'since'; it has follow=1"),
        ("EVENTS all", "'all' is one word too many"),
        ("EVENTS follow=2", "from 0 to 1"),
        ("EVENTS group=g", "EVENTS has no option 'group'; it has follow=1 since=CURSOR"),
        ("DRAIN now", "'now' is one word too many; DRAIN takes nothing only"),
        ("UNDRAIN force=1", "UNDRAIN has no option 'force'; it has none"),
        ("LIST state=done", "none of scheduled blocked queued"),
        ("LIST limit=0", "from 1 to 10000"),
        ("LIST limit=10001", "from 1 to 10000"),
        ("LIST local=2", "from 0 to 1"),
        ("LIST all", "'all' is one word too many"),
        ("NODES all", "'all' is one word too many"),
        ("PING PING", "PING takes nothing"),
        ("AUTH", "one token, not 0 words"),
        ("AUTH a b", "one token, not 2 words"),
    ],
)
def test_a_wrong_line_is_refused_with_a_sentence_that_helps(line: str, said: str) -> None:
    assert said in refusal(line)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("colour=red", "SUBMIT has no option 'colour'; it has name=TEXT group=TEXT key=TEXT priority=-100..100"),
        ("NAME=x", "no option 'NAME'"),
        ("=x", "no option ''"),
        ("name=", "0 bytes; 1 to 200"),
        ("name=" + "x" * 201, "201 bytes; 1 to 200"),
        ("name=a\x07b", "not printable"),
        ("name=a\u3000b", "not printable"),
        ("name=100%", "a % itself is %25"),
        ("name=%zz", "a % itself is %25"),
        ("name=%FF", "not UTF-8"),
        ("name=%00", "NUL"),
        ("name=a name=b", "name is given twice"),
        ("priority=101", "from -100 to 100"),
        ("priority=-101", "from -100 to 100"),
        ("priority=5.0", "not a whole number"),
        ("priority=٣", "not a whole number"),
        ("slots=0", "from 1 to 10000"),
        ("slots=10001", "from 1 to 10000"),
        ("crash_limit=0", "from 1 to 1000, or off"),
        ("crash_limit=1001", "from 1 to 1000, or off"),
        ("timeout=0", "longer than 0, and at most 10 years"),
        ("timeout=4000d", "0 to 10 years"),
        ("retries=-1", "from 0 to 1000"),
        ("retries=1001", "from 0 to 1000"),
        ("backoff=-1s", "'-1s' is no duration"),
        ("delay=11y", "'11y' is no duration"),
        ("delay=4000d", "0 to 10 years"),
        ("after=,", "',' is no ticket"),
        ("after=k3f7qa-1,nope", "'nope' is no ticket"),
        ("after=" + ",".join(f"k3f7qa-{n}" for n in range(1, AFTER_MAX + 2)), "1001 tickets are too many"),
        ("input=,", "',' is no ticket; tickets with commas between are allowed"),
        ("input=k3f7qa-1,a.txt", "input: 'a.txt' is no ticket; tickets with commas between are allowed"),
        ("input=" + ",".join(f"k3f7qa-{n}" for n in range(1, AFTER_MAX + 2)), "1001 tickets are too many; 1000 are"),
        ("input=k3f7qa-1 input=k3f7qa-2", "input is given twice"),
        ("array=5", "'5' is no range of indexes; write it like 1-1000"),
        ("array=9-1", "'9-1' holds no index"),
        ("array=1-9:0", "holds no index"),
        ("array=1-9%0", "holds no index"),
        ("array=0-1000000", "has 1000001 indexes; 1000000 are allowed"),
        ("cpu=0", "longer than 0"),
        ("memory=1KiB", "a size from 1MiB to"),
        ("memory=lots", "a size from 1MiB to"),
        ("files=7", "from 8 to 1000000"),
        ("processes=0", "from 1 to 1000000"),
        ("output=-1", "a size from 0 to"),
        ("since=1", "no option 'since'"),
        ("dir=tmp", "not absolute"),
        ("env.=x", "cannot name a variable"),
        ("env.1A=x", "cannot name a variable"),
        ("env.A-B=x", "cannot name a variable"),
        ("env.JOBYARD_TICKET=x", "JOBYARD_*"),
        ("env.A=1 env.A=2", "env.A is given twice"),
        ("env=x", "no option 'env'"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(option: str, said: str) -> None:
    assert said in refusal(f"SUBMIT {option} sh true")


@pytest.mark.parametrize("line", ["WATCH nope", "WATCH k3f7qa-1,k3f7qa-0", "WATCH k3f7qa-1_", "WATCH k3f7qa-1.2"])
def test_what_is_no_ticket_cannot_be_watched(line: str) -> None:
    assert refusal(line, Code.UNKNOWN_TICKET).startswith("no job has the ticket '")


@pytest.mark.parametrize("line", ["HELO", "12a", "1.5", "-1", "+1", "٣", "GET / HTTP/1.1", "name=x", "\x1b[2J"])
def test_an_unknown_command_is_named_harmlessly(line: str) -> None:
    message = refusal(line, Code.UNKNOWN_COMMAND)
    assert message.startswith("there is no command '")
    assert message.isprintable()


def test_a_kind_that_this_node_does_not_allow_is_forbidden() -> None:
    request = read_one("SUBMIT sh true", kinds=("sleep",))
    assert isinstance(request, lines.Bad)
    assert request.code is Code.FORBIDDEN
    assert isinstance(read_one("SUBMIT sleep 1", kinds=("sleep",)), lines.Submit)
    assert isinstance(read_one("1500", kinds=("sh",)), lines.Bad)


@pytest.mark.parametrize("line", [b"SUBMIT sh \xff", b"SUBMIT sh a\0b", b"\xc3(", b"STATUS \0"])
def test_a_line_that_is_not_utf8_or_has_a_nul_is_refused_and_the_conversation_goes_on(line: bytes) -> None:
    bad, ping = read(line + b"\nPING\n")
    assert isinstance(bad, lines.Bad)
    assert (bad.code, bad.close) == (Code.BAD_REQUEST, False)
    assert ping == lines.Ping()


# --- framing ---------------------------------------------------------------------------------------------------


def test_a_body_is_read_with_its_line() -> None:
    requests = read(b"RUN bytes=6 sh cat\nQUIT\n\n\nPING\n")
    assert requests == [lines.Submit(Job("sh", "cat", body_bytes=6), b"QUIT\n\n", wait=True), lines.Ping()]


def test_an_empty_body_still_has_its_lf() -> None:
    assert read(b"SUBMIT bytes=0 sh cat\n\nPING\n") == [
        lines.Submit(Job("sh", "cat"), b"", wait=False),
        lines.Ping(),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"SUBMIT colour=red bytes=5 sh cat",
        b"SUBMIT priority=high bytes=5 sh cat",
        b"SUBMIT bytes=5 nosuchkind",
        b"SUBMIT bytes=5",
        b"SUBMIT bytes=5 sh \xff",
        b"SUBMIT bytes=5 sh \0",
        b"STATUS bytes=5 k3f7qa-1",
        b"PING bytes=5",
        b"1500 bytes=5",
        b"NOSUCHVERB bytes=5 sh cat",
        b"bytes=5 sh cat",
        b"SUBMIT Bytes=5 sh cat",
        b"SUBMIT = bytes=5 sh cat",
    ],
)
def test_the_body_of_a_wrong_line_is_consumed_and_never_taken_for_commands(line: bytes) -> None:
    bad, ping = read(line + b"\nQUIT\n\nPING\n")
    assert isinstance(bad, lines.Bad)
    assert not bad.close
    assert ping == lines.Ping()


def test_bytes_after_the_kind_announces_nothing() -> None:
    assert read(b"SUBMIT sh dd bytes=5\nPING\n") == [
        lines.Submit(Job("sh", "dd bytes=5"), b"", wait=False),
        lines.Ping(),
    ]


@pytest.mark.parametrize("count", ["", "x", "-1", "+1", "1.5", "0x5", "%35", "٣", "9" * 5000, "5 bytes=5"])
def test_an_announcement_that_cannot_be_read_ends_the_conversation(count: str) -> None:
    parser = lines.Parser()
    (bad,) = parser.feed(f"SUBMIT bytes={count} sh cat\nPING\n".encode())
    assert isinstance(bad, lines.Bad)
    assert (bad.code, bad.close, parser.closed) == (Code.BAD_REQUEST, True, True)
    assert parser.feed(b"PING\n") == []
    assert parser.eof() == []


def test_an_announcement_over_the_limit_ends_the_conversation_and_one_at_the_limit_does_not() -> None:
    assert len(read(b"SUBMIT bytes=10 sh cat\n0123456789\n", body_bytes_max=10)) == 1
    (bad,) = read(b"SUBMIT bytes=11 sh cat\n01234567890\nPING\n", body_bytes_max=10)
    assert isinstance(bad, lines.Bad)
    assert (bad.code, bad.close) == (Code.TOO_LARGE, True)


def test_a_body_without_its_lf_ends_the_conversation_and_is_not_executed() -> None:
    (bad,) = read(b"SUBMIT bytes=3 sh cat\nabcdef\nPING\n")
    assert isinstance(bad, lines.Bad)
    assert (bad.code, bad.close) == (Code.BAD_REQUEST, True)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_of_64_kib_is_read_and_one_byte_more_ends_the_conversation(ending: bytes) -> None:
    prefix = b"SUBMIT sh "
    longest = prefix + b"x" * (LINE_BYTES_MAX - len(prefix))
    (submit,) = read(longest + ending)
    assert isinstance(submit, lines.Submit)
    (bad,) = read(longest + b"x" + ending + b"PING\n")
    assert isinstance(bad, lines.Bad)
    assert (bad.code, bad.close) == (Code.TOO_LARGE, True)


def test_an_endless_line_is_refused_without_waiting_for_its_end() -> None:
    parser = lines.Parser()
    assert parser.feed(b"x" * LINE_BYTES_MAX) == []
    (bad,) = parser.feed(b"x")
    assert isinstance(bad, lines.Bad)
    assert bad.code is Code.TOO_LARGE


def test_the_cr_of_a_longest_line_may_come_before_its_lf() -> None:
    parser = lines.Parser()
    assert parser.feed(b"SUBMIT sh ".ljust(LINE_BYTES_MAX, b"x") + b"\r") == []
    (submit,) = parser.feed(b"\n")
    assert isinstance(submit, lines.Submit)


def test_a_last_line_without_lf_is_not_executed() -> None:
    parser = lines.Parser()
    assert parser.feed(b"PING\nQUIT") == [lines.Ping()]
    (bad,) = parser.eof()
    assert isinstance(bad, lines.Bad)
    assert bad.code is Code.BAD_REQUEST
    assert "'QUIT'" in bad.message


def test_a_body_cut_off_by_the_end_is_not_executed() -> None:
    parser = lines.Parser()
    assert parser.feed(b"SUBMIT bytes=5 sh cat\nabcde") == []
    (bad,) = parser.eof()
    assert isinstance(bad, lines.Bad)
    assert "1 bytes before" in bad.message


def test_an_end_between_lines_is_no_error() -> None:
    parser = lines.Parser()
    parser.feed(b"PING\n \r")
    assert parser.eof() == []


def test_bodies_are_dropped_until_auth_and_kept_after_it() -> None:
    before, auth, after = read(b"SUBMIT bytes=3 sh cat\nabc\nAUTH x\nSUBMIT bytes=3 sh cat\nabc\n", keep_bodies=False)
    assert before == lines.Submit(Job("sh", "cat", body_bytes=3), b"", wait=False)
    assert auth == lines.Auth("x")
    assert after == lines.Submit(Job("sh", "cat", body_bytes=3), b"abc", wait=False)


# --- kinds -----------------------------------------------------------------------------------------------------


def test_the_words_of_a_command() -> None:
    assert argv_of("sh", "a 'b c'") == ("/bin/sh", "-c", "a 'b c'")
    assert argv_of("exec", "a 'b c' \"\" d\\ e") == ("a", "b c", "", "d e")
    assert argv_of("exec", " a  b ") == ("a", "b")
    assert argv_of("argv", ' ["a", "b c", "", "\\u00e9"] ') == ("a", "b c", "", "é")


def test_the_call_of_a_python_function() -> None:
    assert python_call("math:sqrt") == PythonCall("math", "sqrt")
    assert python_call("a.b:C.d  [1, [2]] ") == PythonCall("a.b", "C.d", args=(1, [2]))
    assert python_call('m:f {"x": 1}') == PythonCall("m", "f", kwargs={"x": 1})


def test_the_length_of_a_sleep() -> None:
    assert (sleep_s("2"), sleep_s(" 1500ms "), sleep_s("0")) == (2.0, 1.5, 0.0)


# --- replies ---------------------------------------------------------------------------------------------------


def test_replies_are_one_line_with_fields_in_order() -> None:
    assert lines.ok() == b"OK\n"
    assert lines.ok("k3f7qa-1") == b"OK k3f7qa-1\n"
    assert lines.ok(None, "jobyard", "0.1.0", protocol=1) == b"OK jobyard 0.1.0 protocol=1\n"
    assert (
        lines.pending("k3f7qa-1", state=State.QUEUED, as_of_s=1.5) == b"PENDING k3f7qa-1 state=queued as_of_s=1.500\n"
    )


def test_a_body_follows_the_line_that_announces_it() -> None:
    assert lines.ok(count=1, body=b"a\nb") == b"OK count=1 bytes=3\na\nb\n"
    assert lines.ok(body=b"") == b"OK bytes=0\n\n"


def test_field_values_can_hold_anything_and_none_is_left_out() -> None:
    reply = lines.ok("k3f7qa-1", name="a b%\n", group="Zoë", node=None, flag=True, nbsp="\u00a0")
    assert reply == "OK k3f7qa-1 name=a%20b%25%0A group=Zoë flag=1 nbsp=%C2%A0\n".encode()


def test_a_field_value_comes_back_as_an_option_value() -> None:
    text = "a b%\n\u3000é"
    value = lines.ok(name=text).decode().removeprefix("OK name=").strip()
    assert job(f"SUBMIT name={value} sh true").name == text


def test_an_error_is_always_one_harmless_short_line() -> None:
    reply = lines.err(Code.BAD_REQUEST, "what\n\x1b[2J" + "x" * 10_000)
    assert reply.startswith(b"ERR BAD_REQUEST what\\n\\x1b[2J")
    assert reply.endswith("…\n".encode())
    assert reply.count(b"\n") == 1
    assert len(reply) < 600


def test_a_job_in_a_list_is_its_status_line_without_the_ok() -> None:
    fields: dict[str, Any] = {"state": State.RUNNING, "attempt": 1, "node": "node1", "reason": None, "name": "a b"}
    assert lines.status_fields(fields) == "state=running attempt=1 node=node1 name=a%20b"
    assert b"OK " + lines.job_line("k3f7qa-1", fields) == lines.ok("k3f7qa-1", **fields)


def test_the_result_of_a_job() -> None:
    ended = Ended(State.SUCCEEDED, 0.0, None, 1, 0, "node2", 0.0041, stdout_bytes=3, stderr_bytes=2)
    assert lines.result_reply("k3f7qa-1", ended, b"outer") == (
        b"OK k3f7qa-1 state=succeeded exit=0 attempt=1 node=node2 seconds=0.004 stdout=3 stderr=2 bytes=5\nouter\n"
    )
    failed = Ended(State.FAILED, 0.0, Reason.TIMEOUT, 2, 143, "n", 10.0, stdout_bytes=1, truncated=True)
    assert lines.result_reply("k3f7qa-2", failed, b"o") == (
        b"OK k3f7qa-2 state=failed exit=143 attempt=2 node=n seconds=10.000 reason=timeout truncated=1 "
        b"stdout=1 stderr=0 bytes=1\no\n"
    )


@pytest.mark.parametrize(
    "ended",
    [
        Ended(State.SUCCEEDED, 0.0, None, 1, 0, "node 2%", 0.0049, stdout_bytes=1),
        Ended(State.FAILED, 0.0, Reason.SIGNAL, 3, 137, "ü", 0.0, stderr_bytes=1, truncated=True, begun=3, retried=1),
        Ended(State.FAILED, 0.0, Reason.CRASH_LIMIT, 3, None, None, None, stdout_bytes=1),
    ],
)
def test_the_result_of_a_job_is_written_as_any_other_reply(ended: Ended) -> None:
    assert lines.result_reply("k3f7qa-1", ended, b"o") == lines.ok(
        "k3f7qa-1",
        state=ended.state,
        exit=ended.exit,
        attempt=ended.attempt,
        node=ended.node,
        seconds=ended.seconds,
        reason=ended.reason,
        truncated=ended.truncated or None,
        stdout=ended.stdout_bytes,
        stderr=ended.stderr_bytes,
        body=b"o",
    )


def test_the_result_of_a_job_that_never_ran_has_no_exit_node_or_seconds() -> None:
    ended = Ended(State.CANCELLED, 0.0, Reason.USER)
    assert lines.result_reply("k3f7qa-1", ended, b"") == (
        b"OK k3f7qa-1 state=cancelled attempt=0 reason=user stdout=0 stderr=0 bytes=0\n\n"
    )


def test_the_help_page_fits_a_terminal_and_names_every_verb_kind_and_option() -> None:
    page = lines.HELP_PAGE.splitlines()
    assert len(page) <= 60
    assert max(map(len, page)) <= 80
    words = set(re.findall(r"[\w.]+", lines.HELP_PAGE))
    assert set(VERBS) <= words
    assert set(KINDS) <= words
    options = {*JOB_OPTIONS, *WATCH_OPTIONS, *LOGS_OPTIONS, *EVENTS_OPTIONS}
    assert options - {"env."} | {"env.NAME"} <= words


def test_the_protocol_document_names_every_verb_option_and_error_code() -> None:
    words = set(re.findall(r"[\w.]+", DOCUMENT.read_text()))
    assert {*VERBS, *Code, *JOB_OPTIONS, *WATCH_OPTIONS, *KINDS, *State, *Reason} - {"env."} | {"env.NAME"} <= words


def test_a_refusal_says_its_code_and_message() -> None:
    assert str(Refusal(Code.FULL, "the queue is full")) == "FULL the queue is full"


def test_the_conversation_of_the_protocol_document_is_read_as_it_says() -> None:
    transcript = DOCUMENT.read_text().split("```")[1]
    sent = "".join(f"{line[2:]}\n" for line in transcript.splitlines() if line.startswith("> "))
    requests = read(sent.encode())
    assert [type(request).__name__ for request in requests] == [
        *("Submit", "Result", "Submit", "Submit", "Submit", "Wait", "Cancel", "Status", "Bad", "Quit")
    ]
    assert requests[3] == lines.Submit(
        Job("exec", "wc -w", name="count words", body_bytes=13), b"three short\nx", False
    )


# --- what is said again ------------------------------------------------------------------------------------------


def test_a_line_that_is_said_again_means_the_very_same_value() -> None:
    first, second = read(b"SUBMIT name=a sleep 0\nSUBMIT name=a sleep 0\n")
    (third,) = read(b"SUBMIT name=a sleep 0\n")
    assert first is second is third


def test_a_line_that_is_said_again_is_read_by_the_rules_of_the_conversation_it_is_said_in() -> None:
    line = b"SUBMIT bytes=20 sleep 0\n"
    assert lines.Parser(body_bytes_max=100).feed(line) == []
    (refused,) = lines.Parser(body_bytes_max=10).feed(line)
    assert isinstance(refused, lines.Bad)
    assert refused.code == Code.TOO_LARGE
    (allowed,) = lines.Parser(kinds=("sleep",)).feed(b"SUBMIT sleep 0\n")
    (forbidden,) = lines.Parser(kinds=("sh",)).feed(b"SUBMIT sleep 0\n")
    assert isinstance(allowed, lines.Submit)
    assert forbidden == lines.Bad(
        Code.FORBIDDEN, "jobs of kind 'sleep' are not allowed on this node (JOBYARD_JOB_KINDS)"
    )


@pytest.mark.parametrize("line", [b"AUTH open-sesame\n", b" auth open-sesame\r\n", b"\tAuth open-sesame\n"])
def test_no_token_stays_behind_when_it_was_read(line: bytes) -> None:
    first, second = read(line * 2)
    assert first == second == lines.Auth("open-sesame")
    assert first is not second, "it was kept to be read again"
