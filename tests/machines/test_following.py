"""LOGS and EVENTS that are followed, WATCH, RETRY and FORGET from one end of a cluster to the other: nothing is told
twice and nothing is left out, whoever runs the job, whichever node is asked, and whatever breaks in between."""

import json
import random
import re

import pytest

from common.model import Outcome, Reason, Verdict
from tests.machines.asking import field
from tests.machines.cluster import Cluster

SEEDS = 60
BATCH = 20
FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 1, 0.5)
_HEAD = re.compile(r"OK (\S+) state=(\S+) attempt=(\d+) stdout=(\d+) stderr=(\d+)( end=1)? bytes=(\d+)\n")


def told(parts: list[str]) -> dict[int, tuple[str, str]]:
    """What the parts of a reply to LOGS hold, by attempt: standard output and standard error."""
    attempts: dict[int, tuple[str, str]] = {}
    for part in parts:
        head = _HEAD.match(part)
        assert head is not None, part
        attempt, stdout_bytes, size = int(head[3]), int(head[4]), int(head[7])
        body = part[head.end() : -1]
        assert len(body) == size == stdout_bytes + int(head[5])
        stdout, stderr = attempts.get(attempt, ("", ""))
        attempts[attempt] = (stdout + body[:stdout_bytes], stderr + body[stdout_bytes:])
    return {attempt: output for attempt, output in attempts.items() if any(output)}


def runner(cluster: Cluster, ticket: str) -> tuple[str, tuple[str, int]]:
    """Where the job runs; an older attempt may run on where nobody can be told that it was lost."""
    return max(cluster.where(ticket), key=lambda found: found[1])


def finish(cluster: Cluster, ticket: str, *, failed: bool = False, tail: bytes = b"") -> None:
    """The attempt that runs ends, with what it has printed and a last line."""
    name, id = runner(cluster, ticket)
    stdout, stderr = cluster.nodes[name].printed.get(id, (b"", b""))
    verdict, code = (Verdict.FAILED, 1) if failed else (Verdict.SUCCEEDED, 0)
    outcome = Outcome(verdict, Reason.EXIT if failed else None, code, 0.5, len(stdout + tail), len(stderr))
    cluster.finish(name, id, output=stdout + tail + stderr, outcome=outcome)


# --- LOGS ------------------------------------------------------------------------------------------------------


def test_any_node_shows_what_a_job_has_printed_while_it_runs_and_afterwards() -> None:
    cluster = Cluster(3)
    ticket = cluster.submit("n1")
    name, id = runner(cluster, ticket)
    cluster.prints(name, id, b"one\n", b"oops\n")
    for asked in cluster.nodes:
        assert cluster.say(asked, f"logs {ticket}") == (
            f"OK {ticket} state=running attempt=1 stdout=4 stderr=5 bytes=9\none\noops\n\n"
        )
    finish(cluster, ticket, tail=b"two\n")
    for asked in cluster.nodes:
        assert cluster.say(asked, f"logs {ticket}") == (
            f"OK {ticket} state=succeeded attempt=1 stdout=8 stderr=5 bytes=13\none\ntwo\noops\n\n"
        )


def test_any_node_follows_a_job_from_its_submission_to_its_end() -> None:
    cluster = Cluster(3, slots=1)
    busy = [cluster.submit("n1") for _ in range(3)]
    ticket = cluster.submit("n1", "retries=1 sh true")
    followers = {name: cluster.ask(name, f"logs follow=1 {ticket}") for name in cluster.nodes}
    for other in busy:
        finish(cluster, other)
    for failed in (True, False):
        name, id = runner(cluster, ticket)
        for line in (b"a\n", b"b\n"):
            cluster.prints(name, id, line, line.upper())
            cluster.advance(0.6)
        finish(cluster, ticket, failed=failed, tail=b"last words\n")
        cluster.advance(3.0)
    for name, query in followers.items():
        parts = cluster.parts(name, query)
        assert told(parts) == {1: ("a\nb\nlast words\n", "A\nB\n"), 2: ("a\nb\nlast words\n", "A\nB\n")}, name
        assert [" end=1 " in part for part in parts] == [False] * (len(parts) - 1) + [True]


def test_the_last_words_of_a_failed_attempt_are_told_although_the_next_has_begun() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1", "retries=1 backoff=0 sh true")
    query = cluster.ask("n2", f"logs follow=1 {ticket}")
    name, id = runner(cluster, ticket)
    cluster.prints(name, id, b"first\n")
    cluster.advance(0.5)
    finish(cluster, ticket, failed=True, tail=b"last words\n")
    cluster.advance(0.01)
    name, id = runner(cluster, ticket)
    assert id == (ticket, 2), "the next has begun before anybody asked again"
    cluster.prints(name, id, b"second\n")
    cluster.advance(1.0)
    assert told(cluster.parts("n2", query)) == {1: ("first\nlast words\n", ""), 2: ("second\n", "")}


def test_a_client_that_does_not_read_is_told_everything_when_it_does() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    name, id = runner(cluster, ticket)
    cluster.reading = False
    query = cluster.ask("n2", f"logs follow=1 {ticket}")
    for line in (b"a\n", b"b\n", b"c\n"):
        cluster.prints(name, id, line)
        cluster.advance(1.0)
    assert len(cluster.parts("n2", query)) == 1
    finish(cluster, ticket)
    cluster.reading = True
    cluster.settle()
    cluster.advance(1.0)
    assert told(cluster.parts("n2", query)) == {1: ("a\nb\nc\n", "")}


def test_an_element_of_an_array_is_followed_and_its_array_is_not() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1", "array=4-5 sh work {}")
    for name in cluster.nodes:
        assert (cluster.say(name, f"logs follow=1 {ticket}") or "").startswith("ERR BAD_REQUEST")
        assert (cluster.say(name, f"logs {ticket}_6") or "").startswith("ERR UNKNOWN_TICKET")
    followers = {name: cluster.ask(name, f"logs follow=1 {ticket}_5") for name in cluster.nodes}
    name, id = runner(cluster, f"{ticket}_5")
    cluster.prints(name, id, b"five\n")
    cluster.advance(1.0)
    finish(cluster, f"{ticket}_5")
    cluster.advance(1.0)
    for name, query in followers.items():
        assert told(cluster.parts(name, query)) == {1: ("five\n", "")}


def test_a_sleeping_job_can_be_followed_to_its_end() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "sleep 5")
    query = cluster.ask("n1", f"logs follow=1 {ticket}")
    cluster.advance(6.0)
    assert [_HEAD.match(part)[2] for part in cluster.parts("n1", query)] == ["running", "succeeded"]  # type: ignore[index]


class Story:
    """One seed: a job that prints, fails and is retried, while links break and the balancer dies."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.cluster = Cluster(3, slots=2)
        self.cluster.seed = seed
        self.ticket = self.cluster.submit("n1", "retries=5 backoff=2 crash_limit=off sh true")
        self.followers = {name: self.cluster.ask(name, f"logs follow=1 {self.ticket}") for name in self.cluster.nodes}
        self.printed: dict[int, tuple[str, str]] = {}
        self.ended: set[int] = set()  # the attempts of which the ledger has the outcome; the others were lost

    def tell(self) -> None:
        for _ in range(60):
            self.chance.choices(
                [self.print, self.pass_time, self.fail, self.cut, self.dial, self.kill, self.restart, self.dawdle],
                [30, 30, 3, 3, 6, 1, 3, 2],
            )[0]()
        self.recover()
        for name, query in self.followers.items():
            parts = self.cluster.parts(name, query)
            assert " end=1 " in parts[-1], (name, parts)
            self.audit(told(parts))

    def audit(self, told: dict[int, tuple[str, str]]) -> None:
        assert set(told) <= set(self.printed)
        for attempt, output in self.printed.items():
            if attempt in self.ended:
                assert told.get(attempt, ("", "")) == output, f"attempt {attempt} is not told as it was printed"
            for whole, part in zip(output, told.get(attempt, ("", "")), strict=True):
                assert whole.startswith(part), f"of attempt {attempt} something is told twice, or left out"

    def running(self) -> tuple[str, tuple[str, int]] | None:
        return runner(self.cluster, self.ticket) if self.cluster.where(self.ticket) else None

    def print(self) -> None:
        if (found := self.running()) is not None:
            name, id = found
            stdout, stderr = f"{self.chance.randint(0, 999)}\n", self.chance.choice(["", "!"])
            self.cluster.prints(name, id, stdout.encode(), stderr.encode())
            before = self.printed.get(id[1], ("", ""))
            self.printed[id[1]] = (before[0] + stdout, before[1] + stderr)

    def fail(self) -> None:
        """Only where everybody sees it: what a failed attempt printed last is told while it waits for the next."""
        connected = all(node.link is not None for node in self.cluster.nodes.values())
        found = self.running()
        if found is not None and connected and len(self.ended) < 5:
            self.ended.add(found[1][1])
            finish(self.cluster, self.ticket, failed=True)
            self.cluster.reading = True
            self.cluster.settle()
            self.cluster.advance(1.0)

    def pass_time(self) -> None:
        self.cluster.advance(self.chance.choice([0.1, 0.3, 1.0, 4.0]))

    def dawdle(self) -> None:
        self.cluster.reading = not self.cluster.reading

    def cut(self) -> None:
        links = sorted(self.cluster._owners)
        if links:
            self.cluster.cut(self.chance.choice(links))

    def dial(self) -> None:
        away = [name for name, node in self.cluster.nodes.items() if node.link is None]
        if away and self.cluster.balancer is not None:
            self.cluster.dial(self.chance.choice(away))

    def kill(self) -> None:
        if self.cluster.balancer is not None:
            self.cluster.kill_balancer()

    def restart(self) -> None:
        if self.cluster.balancer is None:
            self.cluster.start_balancer()

    def recover(self) -> None:
        self.cluster.reading = True
        self.restart()
        for name, node in self.cluster.nodes.items():
            if node.link is None:
                self.cluster.dial(name)
        for _ in range(20):
            if self.running() is None:
                self.cluster.advance(5.0)
        self.print()
        self.ended.add(runner(self.cluster, self.ticket)[1][1])
        finish(self.cluster, self.ticket)
        self.cluster.advance(5.0)


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_whatever_breaks_followers_are_told_all_that_was_printed_and_nothing_twice(first: int) -> None:
    for seed in range(first, first + BATCH):
        try:
            Story(seed).tell()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


# --- EVENTS ----------------------------------------------------------------------------------------------------


def events(parts: list[str]) -> list[tuple[int, str]]:
    found = [json.loads(line) for part in parts for line in part.splitlines()[1:] if line]
    return [(event["seq"], event["event"]) for event in found]


def test_whoever_follows_the_events_is_told_each_once_also_over_a_restart_of_the_balancer() -> None:
    cluster = Cluster(2, slots=1)
    query = cluster.ask("n2", "events follow=1")
    cluster.submit("n1")
    cluster.finish_all()
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    cluster.submit("n2")
    cluster.finish_all()
    followed = events(cluster.parts("n2", query))
    assert followed == events([cluster.say("n1", "events") or ""])
    assert [event for _, event in followed].count("job.succeeded") == 2
    assert [seq for seq, _ in followed] == sorted({seq for seq, _ in followed})


def test_events_go_on_behind_a_cursor_at_any_node() -> None:
    cluster = Cluster(2)
    cluster.submit("n1")
    before = cluster.say("n1", "events")
    assert (cluster.say("n2", f"events since={field(before, 'cursor')}") or "").startswith("OK count=0 ")
    query = cluster.ask("n2", f"events follow=1 since={field(before, 'cursor')}")
    assert cluster.parts("n2", query) == []
    cluster.finish_all()
    assert [event for _, event in events(cluster.parts("n2", query))] == ["job.succeeded"]


# --- WATCH -----------------------------------------------------------------------------------------------------


def test_thousands_are_watched_by_one_question_that_goes_on_at_another_node() -> None:
    cluster = Cluster(2, slots=4)
    tickets = [cluster.submit(f"n{1 + number % 2}", "group=g sh true") for number in range(40)]
    seen: list[str] = []
    cursor, name = None, "n1"
    while len(seen) < len(tickets):
        since = "" if cursor is None else f"since={cursor} "
        query = cluster.ask(name, f"watch {since}{','.join(tickets)}")
        if cluster.reply(name, query) is None:
            ((runs_on, id), *_) = [found for ticket in tickets for found in cluster.where(ticket)]
            cluster.finish(runs_on, id)
        reply = cluster.reply(name, query) or ""
        cursor, name = field(reply, "cursor"), "n2" if name == "n1" else "n1"
        seen += [line.split()[0] for line in reply.splitlines()[1:] if line]
        assert int(field(reply, "live") or "-1") == len(tickets) - len(seen)
    assert sorted(seen) == sorted(tickets)


def test_a_watch_that_ends_without_an_end_says_how_many_are_live() -> None:
    cluster = Cluster(2)
    tickets = [cluster.submit("n1", "group=g sh true") for _ in range(3)]
    queries = [cluster.ask("n2", f"watch timeout=5 {what}") for what in ("group=g", ",".join(tickets))]
    cluster.advance(5.1)
    for query in queries:
        assert (cluster.reply("n2", query) or "").startswith("OK count=0 live=3 cursor=")
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["queries_open"] == 0


def test_a_watch_goes_on_over_a_restart_of_the_balancer() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    query = cluster.ask("n2", f"watch {ticket}")
    cluster.kill_balancer()
    cluster.advance(30.0)
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    cluster.finish_all()
    assert (cluster.reply("n2", query) or "").startswith("OK count=1 live=0 ")


# --- RETRY and FORGET ------------------------------------------------------------------------------------------


def failed_job(cluster: Cluster, line: str = "sh false") -> str:
    ticket = cluster.submit("n1", line)
    name, id = runner(cluster, ticket)
    cluster.finish(name, id, outcome=FAILED)
    return ticket


@pytest.mark.parametrize("asked", ["n1", "n2"])
def test_whoever_has_read_that_a_job_is_queued_again_reads_nothing_else_next(asked: str) -> None:
    cluster = Cluster(2)
    ticket = failed_job(cluster)
    assert cluster.say(asked, f"retry {ticket}") == f"OK {ticket} state=queued\n"
    assert (cluster.say(asked, f"result {ticket}") or "").startswith("PENDING")
    waiting = cluster.ask(asked, f"wait {ticket}")
    assert cluster.reply(asked, waiting) is None
    cluster.finish_all()
    assert (cluster.reply(asked, waiting) or "").startswith(f"OK {ticket} state=succeeded")


def test_a_job_whose_ledger_was_lost_is_retried_as_soon_as_its_origin_has_told_of_it() -> None:
    cluster = Cluster(2)
    ticket = failed_job(cluster)
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.store_level("balancer", 0.9)
    cluster.dial("n1")
    cluster.dial("n2")
    query = cluster.ask("n2", f"retry {ticket}")
    assert cluster.reply("n2", query) is None
    cluster.store_level("balancer", 0.1)
    assert cluster.reply("n2", query) == f"OK {ticket} state=queued\n"
    cluster.finish_all()
    assert "state=succeeded" in (cluster.say("n1", f"status {ticket}") or "")


def test_a_forgotten_job_is_unknown_everywhere_and_its_key_makes_a_new_one() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1", "key=k sh true")
    cluster.finish_all()
    assert cluster.say("n2", f"forget {ticket}") == f"OK {ticket}\n"
    for name in cluster.nodes:
        for verb in ("status", "result", "explain", "logs", "retry", "forget"):
            assert (cluster.say(name, f"{verb} {ticket}") or "").startswith("ERR UNKNOWN_TICKET"), (name, verb)
    assert cluster.submit("n2", "key=k sh false") != ticket
