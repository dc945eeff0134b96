"""`jobyard top`: what it looks at, what it shows on which screen, and that it leaves a terminal as it was."""

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobyard.cli import picture
from jobyard.cli.lookout import RATE_WINDOW_S, Failure, Lookout, Rates, Sight
from jobyard.cli.picture import ASCII, UNICODE, Picture
from jobyard.cli.texts import cells, cut
from jobyard.errors import Unavailable, Unreachable
from jobyard.model import Node
from tests.runtime.shell import Shell, interrupted
from tests.runtime.terminal_emulator import Terminal
from tests.runtime.watched_cluster import WatchedCluster

NOWHERE = "tcp://127.0.0.1:1"


@pytest.fixture
def cluster() -> Iterator[WatchedCluster]:
    with WatchedCluster() as cluster:
        yield cluster


@pytest.fixture
def jobyard(capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capfdbinary)


# --- rates -------------------------------------------------------------------------------------------------------


def test_rates_are_differences_over_the_latest_looks() -> None:
    rates = Rates()
    assert rates.take(0.0, live=10, ended=500) == (None, None)
    assert rates.take(2.0, live=10, ended=508) == (4.0, 4.0)
    assert rates.take(4.0, live=6, ended=512) == (2.0, 3.0)


def test_what_is_older_than_the_window_no_longer_counts() -> None:
    rates = Rates()
    rates.take(0.0, live=0, ended=0)
    rates.take(1.0, live=0, ended=1000)
    assert rates.take(1.0 + RATE_WINDOW_S, live=0, ended=1000) == (0.0, 0.0)


def test_a_balancer_that_counts_from_0_again_makes_no_negative_rates() -> None:
    rates = Rates()
    rates.take(0.0, live=10, ended=500)
    assert rates.take(1.0, live=10, ended=0) == (None, None)
    assert rates.take(2.0, live=8, ended=2) == (0.0, 2.0)


# --- looking -----------------------------------------------------------------------------------------------------


def test_a_look_asks_for_events_only_where_a_job_has_failed(cluster: WatchedCluster) -> None:
    with Lookout(cluster.url) as lookout:
        lookout.look()
        lookout.look()
        assert cluster.heard.count("EVENTS since=now") == 2
        cluster.fail("k-9", "late")
        (failure,) = lookout.look().failures
        assert failure == Failure("k-9", "exit", "3", "n1", "late", "2026-11-21T10:00:00.000Z")
        heard = len(cluster.heard)
        assert lookout.look().failures == (failure,)
        assert [line for line in cluster.heard[heard:] if line.startswith(("EVENTS", "STATUS"))] == ["EVENTS since=now"]


def test_failures_of_before_the_first_look_are_listed_and_newer_ones_stand_above(cluster: WatchedCluster) -> None:
    cluster.listed = ["k-1 state=failed attempt=1 node=n2 reason=timeout exit=143 name=old"]
    with Lookout(cluster.url) as lookout:
        lookout.look()
        cluster.fail("k-2", "new")
        assert [failure.ticket for failure in lookout.look().failures] == ["k-2", "k-1"]
        cluster.fail("k-1", "old")  # it was retried, and failed again
        assert [failure.ticket for failure in lookout.look().failures] == ["k-1", "k-2"]


def test_a_node_that_is_gone_or_has_no_balancer_is_passed_over(cluster: WatchedCluster) -> None:
    with WatchedCluster(linked=False) as alone, Lookout(f"{NOWHERE},{alone.url},{cluster.url}") as lookout:
        sight = lookout.look()
        assert f"tcp://{sight.address}" == cluster.url
        cluster.linked = False
        with pytest.raises(Unavailable, match="has no link to the balancer"):
            lookout.look()
        alone.linked = True
        assert f"tcp://{lookout.look().address}" == alone.url


def test_where_no_node_answers_all_of_them_are_counted() -> None:
    with Lookout(f"{NOWHERE},tcp://127.0.0.1:2") as lookout, pytest.raises(Unreachable, match="none of the 2 nodes"):
        lookout.look()


# --- the picture -------------------------------------------------------------------------------------------------

NODES = (
    Node("node1", "alive", 8, 6, 12, 0.3),
    Node("node2", "draining", 8, 1, 0, 0.1),
    Node("node3", "lost", 4, 0, 0, 93.0),
)
FAILURES = tuple(Failure(f"k-{number}", "exit", "1", "node1", f"job {number}") for number in range(30))
STATS = {
    "jobs_live": "31",
    "jobs_leased": "19",
    "jobs_queued": "11",
    "oldest_queued_s": "75.2",
    "slots": "16",
    "jobs_succeeded_total": "100",
    "jobs_failed_total": "30",
}
SIGHT = Sight("h:9000", 1_800_000_000.0, STATS | {"store_fraction": "0.61"}, NODES, FAILURES, 2.5, 1.25)
PICTURE = Picture(SIGHT, 1_800_000_001.0, keys=True)


def texts(of: Picture, columns: int, rows: int | None, glyphs: picture.Glyphs = UNICODE) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in picture.lines(of, columns, rows, glyphs)]


def test_a_screen_of_80_by_24_has_all_that_an_operator_looks_for() -> None:
    shown = texts(PICTURE, 79, 24)
    assert len(shown) == 24
    assert shown[1:11] == [
        "jobs   31 live: 7 running, 12 in backlogs, 11 queued, 1 not ready",
        "rates  in 2.5/s, ended 1.2/s · first in the queue for 1m15s",
        "ended  100 succeeded, 30 failed, 0 cancelled since the balancer's start",
        "nodes  1 alive, 1 draining, 1 lost, 16 slots · balancer's store 61% full",
        "",
        "NODE  STATE    RUNNING                 WAITING                            SEEN",
        "node1 alive    6/8 ██████████████····  12 (1.5/slot) ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒   0.3s",
        "node2 draining 1/8 ██················              0                      0.1s",
        "node3 lost     0/4 ··················              0                     1m33s",
        "",
    ]
    assert shown[11].split() == ["FAILED", "TICKET", "REASON", "EXIT", "NODE", "NAME"]
    assert shown[22:] == ["and 10 more of the latest failures", "q quit  p pause  s sort nodes (by name)"]


@pytest.mark.parametrize("columns", [20, 40, 79, 132, 200])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 10, 12, 16, 24, 50])
@pytest.mark.parametrize("trouble", ["", "it is gone"])
def test_whatever_the_size_no_line_is_too_long_and_the_keys_stay(columns: int, rows: int, trouble: str) -> None:
    many = tuple(Node(f"漢字-{number}", "alive", 4, 4, number * 100, 0.1) for number in range(40))
    for sight in (SIGHT, replace(SIGHT, nodes=many), replace(SIGHT, nodes=(), failures=()), None):
        shown = texts(replace(PICTURE, sight=sight, trouble=trouble), columns, rows)
        assert len(shown) <= rows
        assert all(cells(line) <= columns for line in shown)
        assert shown[-1].startswith("q quit")


def test_nodes_that_do_not_fit_are_counted_and_failures_keep_their_place() -> None:
    many = tuple(Node(f"n{number:02}", "alive", 4, 4, 0, 0.1) for number in range(40))
    shown = texts(replace(PICTURE, sight=replace(SIGHT, nodes=many)), 79, 24)
    (told,) = (line for line in shown if line.endswith("more nodes, by name"))
    named = sum(line.startswith("n") and "alive" in line and "4/4" in line for line in shown)
    assert told == f"and {40 - named} more nodes, by name"
    assert any(line.startswith("FAILED") for line in shown)


def test_what_is_not_nothing_is_seen_and_what_is_not_all_leaves_a_gap() -> None:
    nodes = (Node("a", "alive", 1000, 1, 0, 0.0), Node("b", "alive", 1000, 999, 1, 0.0))
    few, most = texts(replace(PICTURE, sight=replace(SIGHT, nodes=nodes)), 79, 24)[7:9]
    assert "1/1000 █·" in few
    assert "█·  " in most
    assert "▒" in most


def test_no_name_acts_on_the_terminal() -> None:
    evil = "\x1b[2J\u202e\x07\x9b"
    failure = Failure(evil, evil, evil, evil, evil, evil)
    sight = replace(SIGHT, address=evil, nodes=(Node(evil, evil, 1, 1, 1, 1.0),), failures=(failure,))
    for glyphs in (UNICODE, ASCII):
        for rows in (24, None):
            told = texts(replace(PICTURE, sight=sight, trouble=evil), 200, rows, glyphs)
            assert all(line.isprintable() for line in told)
    assert any(r"\x1b[2J\u202e\x07\x9b" in line for line in told)


def test_a_locale_without_blocks_is_shown_ascii() -> None:
    sight = replace(SIGHT, nodes=(Node("漢", "alive", 2, 1, 1, 0.0),))
    shown = texts(replace(PICTURE, sight=sight), 79, 24, ASCII)
    assert "\n".join(shown).isascii()
    assert shown[7].startswith("\\u6f22 alive    1/2 #########.........  1 (0.5/slot) =========")


@pytest.mark.parametrize(
    ("sort", "first"), [("name", "node1"), ("waiting", "node1"), ("running", "node1"), ("state", "node3")]
)
def test_nodes_are_sorted_as_asked(sort: str, first: str) -> None:
    shown = texts(replace(PICTURE, sort=sort), 79, 24)
    assert shown[7].startswith(first)
    assert shown[-1].endswith(f"(by {sort})")


def test_letters_that_take_two_cells_or_none_are_measured_and_cut_as_shown() -> None:
    assert (cells("ab"), cells("漢字"), cells("e\u0301")) == (2, 4, 1)
    assert cut("漢字漢字", 8) == "漢字漢字"
    assert cut("漢字漢字", 7) == "漢字漢…"
    assert cut("漢字漢字", 6) == "漢字…"
    assert cut("abc", 0) == ""


# --- for scripts -------------------------------------------------------------------------------------------------


def test_once_prints_a_plain_picture_after_two_looks(jobyard: Shell, cluster: WatchedCluster) -> None:
    cluster.fail("k-1", "broken")
    cluster.listed = ["k-1 state=failed attempt=1 node=n1 reason=exit exit=3 name=broken"]
    assert jobyard(cluster.url, "top", "--once", "--interval", "100ms") == 0
    assert jobyard.lines[2] == "rates  in 0.0/s, ended 0.0/s"
    assert re.search(r"^n1   alive    1/2 █+·+ +3 \(1\.5/slot\) ▒+ +0\.2s$", jobyard.out.decode(), re.MULTILINE)
    assert re.search(r"^before  k-1     exit    3     n1    broken$", jobyard.out.decode(), re.MULTILINE)
    assert b"\033" not in jobyard.out
    assert b"q quit" not in jobyard.out


def test_without_a_terminal_it_is_once(jobyard: Shell, cluster: WatchedCluster) -> None:
    assert jobyard(cluster.url, "top", "--interval", "100ms") == 0
    assert jobyard.lines[0].startswith("jobyard top  127.0.0.1:")


def test_json_tells_what_the_picture_does(jobyard: Shell, cluster: WatchedCluster) -> None:
    cluster.stats |= {"jobs_live": 9, "jobs_leased": 4, "jobs_queued": 3, "oldest_queued_s": 7.5}
    cluster.listed = ["k-1 state=failed attempt=1 node=n1 reason=exit exit=3 name=broken"]
    assert jobyard(cluster.url, "top", "--once", "--json", "--interval", "100ms") == 0
    (line,) = jobyard.lines
    told = json.loads(line)
    numbers = {name: value for name, value in told.items() if isinstance(value, int | float)}
    assert numbers == {
        "live": 9, "running": 1, "waiting": 3, "queued": 3, "resting": 2, "oldest_queued_s": 7.5,
        "in_per_s": 0.0, "out_per_s": 0.0,
    }  # fmt: skip
    assert told["failures"] == [{"ticket": "k-1", "reason": "exit", "node": "n1", "name": "broken", "exit": 3}]
    assert [node["name"] for node in told["nodes"]] == ["n1", "n2"]


@pytest.mark.parametrize("format", [(), ("--json",)])
def test_once_says_that_nobody_is_there_as_every_verb_does(jobyard: Shell, format: tuple[str, ...]) -> None:
    assert jobyard(NOWHERE, "top", "--once", *format) == 3
    assert jobyard.err.startswith(b"jobyard: UNREACHABLE: ")


class Leaving(WatchedCluster):
    """Its balancer is gone after the first look."""

    def _on_nodes(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        self.linked = False
        return super()._on_nodes(options, rest, body)


@pytest.mark.parametrize("format", [(), ("--json",)])
def test_a_cluster_that_goes_away_between_two_looks_makes_no_picture(jobyard: Shell, format: tuple[str, ...]) -> None:
    with Leaving() as cluster:
        assert jobyard(cluster.url, "top", "--once", "--interval", "100ms", *format) == 5
    assert jobyard.out == b""
    assert re.search(rb"UNAVAILABLE: the node at [\d.:]+ has no link to the balancer", jobyard.err)


def test_json_without_once_goes_on_over_an_absence_until_it_is_told_to_end(
    jobyard: Shell, cluster: WatchedCluster
) -> None:
    def seen() -> None:
        cluster.until(lambda: cluster.heard.count("NODES") >= 2)
        cluster.linked = False
        asked = len(cluster.heard)
        cluster.until(lambda: len(cluster.heard) >= asked + 2)
        cluster.linked = True
        asked = cluster.heard.count("NODES")
        cluster.until(lambda: cluster.heard.count("NODES") >= asked + 2)

    thread = interrupted(seen)
    assert jobyard(cluster.url, "top", "--json", "--interval", "100ms") == 130
    thread.join()
    assert len([json.loads(line) for line in jobyard.lines]) >= 2
    assert b"has no link to the balancer; trying again" in jobyard.err


def test_a_wrong_token_ends_it_at_once(jobyard: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_CLIENT_TOKEN", "wrong")
    with WatchedCluster(token="right") as cluster:
        assert jobyard(cluster.url, "top", "--once") == 5
        with terminal(cluster, 80, 24, env={"JOBYARD_CLIENT_TOKEN": "wrong"}) as person:
            assert person.end() == 5
            assert person.lines[-1] or "UNAUTHORIZED" in person.written.decode()


# --- on a terminal -----------------------------------------------------------------------------------------------


def terminal(
    cluster: WatchedCluster, columns: int, rows: int, env: dict[str, str] | None = None, term: str = "linux"
) -> Terminal:
    return Terminal(
        columns, rows, "top", "--interval", "100ms", env={"JOBYARD_URL": cluster.url} | (env or {}), term=term
    )


def test_on_80_by_24_it_is_live(cluster: WatchedCluster) -> None:
    with terminal(cluster, 80, 24) as person:
        person.until("no job has failed")
        cluster.fail("k-7", "broken 漢字")
        person.until("broken")
        moved = re.compile(r"\d\d:\d\d:\d\d|127\.0\.0\.1:\d+|\d+\.\d/s\b")
        assert [moved.sub("_", line) for line in person.lines] == [
            "jobyard top  _ · _ · every 0.1s",
            "jobs   0 live: 1 running, 3 in backlogs, 0 queued",
            "rates  in _, ended _",
            "ended  0 succeeded, 1 failed, 0 cancelled since the balancer's start",
            "nodes  2 alive, 4 slots · balancer's store 2% full",
            "",
            "NODE STATE    RUNNING                  WAITING                            SEEN",
            "n1   alive    1/2 ██████████·········  3 (1.5/slot) ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒   0.2s",
            "n2   alive    0/2 ···················             0                       0.3s",
            "",
            "FAILED    TICKET  REASON  EXIT  NODE  NAME",
            "_  k-7     exit    3     n1    broken 漢字",
            *[""] * 11,
            "q quit  p pause  s sort nodes (by name)",
        ]
        assert person.colour_of("alive    1/2") == "green"
        assert person.colour_of("1 failed") == "red"
        person.press("q")
        assert person.end() == 0


def test_on_200_by_50_bars_and_names_have_more_room(cluster: WatchedCluster) -> None:
    with terminal(cluster, 200, 50) as person:
        person.until("no job has failed")
        assert f"n1   alive    1/2 {'█' * 20}{'·' * 20}  3 (1.5/slot) {'▒' * 40}   0.2s" in person.lines
        assert person.lines[49] == "q quit  p pause  s sort nodes (by name)"


def test_keys_sort_pause_and_go_on(cluster: WatchedCluster) -> None:
    with terminal(cluster, 80, 24) as person:
        person.until("by name")
        person.press("s")
        person.until("by waiting")
        person.press("p")
        person.until("PAUSED")
        cluster.stats["jobs_live"] = 77
        heard = len(cluster.heard)
        cluster.until(lambda: cluster.heard[heard:].count("NODES") >= 3)  # it goes on looking,
        assert "77 live" not in person.until("by waiting")  # and shows nothing of it
        person.press("p")
        person.until("77 live")


def test_it_follows_the_size_of_its_window(cluster: WatchedCluster) -> None:
    with terminal(cluster, 80, 24) as person:
        person.until("n2   alive")
        person.resize(120, 30)
        person.until(lambda text: len(text.splitlines()[6]) > 110 and text.splitlines()[-1].startswith("q quit"))
        person.resize(40, 8)
        person.until(lambda text: text.splitlines()[-1].startswith("q quit") and "no room for nodes" in text)


def test_it_says_since_when_nobody_answers_and_comes_back_by_itself(cluster: WatchedCluster) -> None:
    with terminal(cluster, 80, 24) as person:
        person.until("n2   alive")
        cluster.linked = False
        told = r"not connected since \d\d:\d\d:\d\d \(\d\.\ds\), trying again, below what was seen last"
        shown = person.until(rf"{told}\n  the node at [\d.:]+ has no link to the balancer")
        assert "n2   alive" in shown
        assert person.colour_of("not connected") == "red"
        cluster.stats["jobs_live"] = 55
        cluster.linked = True
        assert "not connected" not in person.until("55 live")


def test_a_cluster_that_is_not_there_yet_is_waited_for() -> None:
    with WatchedCluster(linked=False) as cluster, terminal(cluster, 80, 24) as person:
        person.until("not connected since")
        cluster.linked = True
        person.until("n2   alive")


def test_without_colours_nothing_is_lost(cluster: WatchedCluster) -> None:
    cluster.nodes[1] = cluster.nodes[1].replace("alive", "lost")
    with terminal(cluster, 80, 24, {"NO_COLOR": "1"}) as person:
        person.until("n2   lost")
        assert person.colour_of("lost") == "default"
        assert not re.search(rb"\033\[[0-9;]*3[0-7]", person.written)


def test_where_the_locale_cannot_the_screen_is_ascii(cluster: WatchedCluster) -> None:
    with terminal(cluster, 80, 24, {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}) as person:
        person.until("n2   alive")
        assert "1/2 ##########.........  3 (1.5/slot) ===================" in person.text
        assert person.text.isascii()


def test_a_locale_that_is_not_installed_is_the_plain_one(cluster: WatchedCluster) -> None:
    with terminal(cluster, 80, 24, {"LC_ALL": "xx_YY.UTF-8"}) as person:
        person.until("n2   alive")
        assert "1/2 ##########.........  3 (1.5/slot) ===================" in person.text
        assert person.text.isascii()
        person.press("q")
        assert person.end() == 0


@pytest.mark.parametrize(
    ("leave", "code"),
    {
        "q": (lambda person: person.press("q"), 0),
        "Ctrl-C": (lambda person: person.press("\x03"), 130),
        "SIGTERM": (lambda person: person.process.send_signal(signal.SIGTERM), 143),
    }.values(),
    ids=["q", "Ctrl-C", "SIGTERM"],
)
def test_however_it_ends_the_terminal_is_as_it_was(cluster: WatchedCluster, leave: object, code: int) -> None:
    assert callable(leave)
    with terminal(cluster, 80, 24, term="xterm-256color") as person:
        person.until("q quit")
        assert person.after != person.before
        leave(person)
        assert person.end() == code
        assert person.after == person.before
        for taken, given_back in ((b"\033[?1049h", b"\033[?1049l"), (b"\033[?25l", b"\033[?25h")):
            assert person.written.rindex(given_back) > person.written.rindex(taken)
        assert b"Traceback" not in person.written


def test_an_unknown_terminal_is_named(cluster: WatchedCluster) -> None:
    with terminal(cluster, 80, 24, term="no-such-terminal") as person:
        assert person.end() == 2
        assert b"nothing is known of a terminal TERM='no-such-terminal'" in person.written
