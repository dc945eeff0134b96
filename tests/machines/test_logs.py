"""LOGS at the ledger: what has ended is read from the history, what runs is asked of its runner, and nobody is told
what an attempt printed that is no longer the job's."""

from common.events import Received
from common.messages import Answer, Begun, Inquiry
from common.model import Outcome, Verdict
from tests.machines.asking import Asker, field, head
from tests.machines.cluster import Cluster

OUTPUT = b"standard output, then standard error"
STDOUT_BYTES = 15


def printed(reply: str | None) -> tuple[str, str]:
    assert reply is not None
    stdout, stderr = int(field(reply, "stdout") or -1), int(field(reply, "stderr") or -1)
    text = reply.partition("\n")[2]
    assert len(text) == stdout + stderr + 1
    return text[:stdout], text[stdout:-1]


def ended(cluster: Cluster) -> str:
    ticket = cluster.submit("n1")
    ((runner, id),) = cluster.where(ticket)
    outcome = Outcome(Verdict.SUCCEEDED, exit=0, stdout_bytes=STDOUT_BYTES, stderr_bytes=len(OUTPUT) - STDOUT_BYTES)
    cluster.finish(runner, id, output=OUTPUT, outcome=outcome)
    return ticket


def referred(cluster: Cluster, name: str) -> list[Inquiry]:
    """What the ledger has asked this node about logs."""
    sent = (message for to, message in cluster.sent if to == name)
    return [message for message in sent if isinstance(message, Inquiry) and message.verb == "logs"]


def answer(cluster: Cluster, name: str, id: int, reply: bytes) -> None:
    link = cluster.nodes[name].link
    assert link is not None
    cluster._step_balancer(Received(link, [Answer(id, reply)], cluster.wall))


class Deaf:
    """A cluster whose nodes do not answer by themselves what they are asked about logs."""

    def __init__(self, nodes: int = 2) -> None:
        self.cluster = Cluster(nodes, slots=1)
        self.ticket = self.cluster.submit("n1")
        ((self.runner, self.id),) = self.cluster.where(self.ticket)
        self.other = next((name for name in self.cluster.nodes if name != self.runner), self.runner)
        self.asker = Asker(self.cluster, self.other)

    def ask(self, **fields: object) -> int:
        """Asks over the other node's link, while the runner hears nothing."""
        self.cluster.frozen = frozenset({self.runner})
        asked = self.asker.ask("logs", ticket=self.ticket, **fields)
        (self.inquiry,) = referred(self.cluster, self.runner)[-1:]
        return asked

    def answer(self, reply: bytes) -> None:
        answer(self.cluster, self.runner, self.inquiry.id, reply)


# --- ended --------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_read_from_the_ledger() -> None:
    cluster = Cluster(2)
    ticket = ended(cluster)
    reply = Asker(cluster, "n2").say("logs", ticket=ticket)
    assert head(reply) == f"OK {ticket} state=succeeded attempt=1 stdout=15 stderr=21 bytes=36"
    assert printed(reply) == ("standard output", ", then standard error")


def test_what_the_client_has_of_the_attempt_that_ended_is_not_told_again() -> None:
    cluster = Cluster(1)
    ticket = ended(cluster)
    asker = Asker(cluster)
    reply = asker.say("logs", ticket=ticket, attempt=1, stdout_at=9, stderr_at=7)
    assert printed(reply) == ("output", "standard error")
    whole = asker.say("logs", ticket=ticket, attempt=1, stdout_at=15, stderr_at=21)
    assert head(whole) == f"OK {ticket} state=succeeded attempt=1 stdout=0 stderr=0 bytes=0"
    beyond = asker.say("logs", ticket=ticket, attempt=1, stdout_at=99, stderr_at=99)
    assert printed(beyond) == ("", "")


def test_the_output_of_another_attempt_begins_anew() -> None:
    cluster = Cluster(1)
    ticket = ended(cluster)
    reply = Asker(cluster).say("logs", ticket=ticket, attempt=2, stdout_at=9, stderr_at=7)
    assert printed(reply) == ("standard output", ", then standard error")


def test_of_a_long_output_no_more_than_its_end_is_told_where_that_is_asked_for() -> None:
    cluster = Cluster(1)
    ticket = ended(cluster)
    asker = Asker(cluster)
    reply = asker.say("logs", ticket=ticket, limit=6)
    assert head(reply) == (
        f"OK {ticket} state=succeeded attempt=1 stdout=6 stderr=6 stdout_cut=9 stderr_cut=15 bytes=12"
    )
    assert printed(reply) == ("output", " error")
    behind = asker.say("logs", ticket=ticket, limit=20, attempt=1, stdout_at=9, stderr_at=21)
    assert printed(behind) == ("output", "")
    for more in (21, 10**9):
        assert "cut" not in head(asker.say("logs", ticket=ticket, limit=more))
    beyond = asker.say("logs", ticket=ticket, limit=3, attempt=1, stdout_at=99, stderr_at=99)
    assert head(beyond) == f"OK {ticket} state=succeeded attempt=1 stdout=0 stderr=0 bytes=0"


# --- not begun ----------------------------------------------------------------------------------------------------


def test_a_job_that_has_not_begun_has_printed_nothing() -> None:
    cluster = Cluster(1, slots=1)
    cluster.submit("n1")
    ticket = cluster.submit("n1")
    assert head(Asker(cluster).say("logs", ticket=ticket)) == (
        f"OK {ticket} state=dispatched attempt=0 stdout=0 stderr=0 bytes=0"
    )


def test_a_job_that_its_origin_has_still_to_send_has_printed_nothing() -> None:
    cluster = Cluster(2)
    cluster.store_level("balancer", 0.9)
    ticket = cluster.submit("n1")
    reply = Asker(cluster, "n2").say("logs", ticket=ticket)
    assert head(reply) == f"OK {ticket} state=queued attempt=0 stdout=0 stderr=0 bytes=0"


def test_a_ticket_that_nobody_knows_has_no_logs() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1").replace("-1", "-77")
    assert Asker(cluster).say("logs", ticket=ticket).startswith("ERR UNKNOWN_TICKET")


def test_an_array_has_no_logs_and_its_elements_are_named() -> None:
    cluster = Cluster(1, slots=0)
    ticket = cluster.submit("n1", "array=7-9 sh true")
    reply = Asker(cluster).say("logs", ticket=ticket)
    assert reply.startswith(f"ERR BAD_REQUEST {ticket} is an array")
    assert reply.endswith(f": {ticket}_7\n")


# --- running ------------------------------------------------------------------------------------------------------


def test_what_runs_is_asked_of_its_runner_and_its_word_is_relayed() -> None:
    deaf = Deaf()
    asked = deaf.ask(attempt=1, stdout_at=3, stderr_at=4)
    inquiry = deaf.inquiry
    assert (inquiry.ticket, inquiry.attempt, inquiry.stdout_at, inquiry.stderr_at) == (deaf.ticket, 1, 3, 4)
    assert deaf.asker.reply(asked) is None
    deaf.answer(b"OK whatever the runner says\n")
    assert deaf.asker.reply(asked) == "OK whatever the runner says\n"


def test_only_the_node_that_was_asked_is_heard() -> None:
    deaf = Deaf()
    asked = deaf.ask()
    answer(deaf.cluster, deaf.other, deaf.inquiry.id, b"OK not mine\n")
    assert deaf.asker.reply(asked) is None
    deaf.answer(b"OK mine\n")
    deaf.answer(b"OK and once more\n")
    assert deaf.asker.reply(asked) == "OK mine\n"


def test_an_attempt_that_ends_before_its_runner_answers_is_told_from_the_ledger() -> None:
    deaf = Deaf()
    asked = deaf.ask()
    deaf.cluster.finish(deaf.runner, deaf.id, output=b"out")
    deaf.answer(b"OK something of an attempt that is over\n")
    assert printed(deaf.asker.reply(asked)) == ("out", "")
    assert field(deaf.asker.reply(asked), "state") == "succeeded"


def test_an_attempt_that_has_given_way_to_the_next_is_not_told_of() -> None:
    deaf = Deaf(1)
    asked = deaf.ask()
    earlier = deaf.inquiry
    deaf.cluster.finish(deaf.runner, deaf.id, outcome=Outcome(Verdict.INTERRUPTED))
    link = deaf.cluster.nodes[deaf.runner].link
    assert link is not None
    deaf.cluster._step_balancer(Received(link, [Begun(((deaf.ticket, 2),))], deaf.cluster.wall))
    answer(deaf.cluster, deaf.runner, earlier.id, b"OK of the first attempt\n")
    assert deaf.asker.reply(asked) is None
    deaf.inquiry = referred(deaf.cluster, deaf.runner)[-1]
    assert deaf.inquiry.id != earlier.id
    deaf.answer(b"OK of the second attempt\n")
    assert deaf.asker.reply(asked) == "OK of the second attempt\n"


def test_a_node_that_has_not_told_yet_what_it_holds_is_not_asked() -> None:
    deaf = Deaf()
    deaf.cluster.cut(deaf.cluster.nodes[deaf.runner].link or 0)
    deaf.cluster.frozen = frozenset({deaf.runner})
    deaf.cluster.dial(deaf.runner)
    deaf.asker.ask("logs", ticket=deaf.ticket)
    assert referred(deaf.cluster, deaf.runner) == []
    deaf.cluster.frozen = frozenset()
    deaf.cluster.settle()
    assert len(referred(deaf.cluster, deaf.runner)) == 1


def test_a_runner_that_is_cut_off_is_asked_again_when_it_is_back() -> None:
    deaf = Deaf()
    asked = deaf.ask()
    deaf.cluster.cut(deaf.cluster.nodes[deaf.runner].link or 0)
    assert deaf.asker.reply(asked) is None
    deaf.cluster.dial(deaf.runner)  # still deaf to what it is asked, but for its Welcome
    deaf.cluster.frozen = frozenset()
    assert len(referred(deaf.cluster, deaf.runner)) == 1
    deaf.cluster._deliver_one()  # Welcome
    deaf.cluster.frozen = frozenset({deaf.runner})
    deaf.cluster.settle()
    assert len(referred(deaf.cluster, deaf.runner)) == 2
    deaf.inquiry = referred(deaf.cluster, deaf.runner)[-1]
    deaf.answer(b"OK again\n")
    assert deaf.asker.reply(asked) == "OK again\n"


def test_who_asks_while_the_runner_is_away_is_told_when_it_is_presumed_gone() -> None:
    deaf = Deaf()
    deaf.cluster.submit(deaf.other)
    deaf.cluster.kill_node(deaf.runner)
    asked = deaf.asker.ask("logs", ticket=deaf.ticket)
    deaf.cluster.advance(14)
    assert deaf.asker.reply(asked) is None
    deaf.cluster.advance(5)
    assert head(deaf.asker.reply(asked)) == f"OK {deaf.ticket} state=queued attempt=0 stdout=0 stderr=0 bytes=0"


def test_a_runner_that_comes_back_in_a_new_boot_has_lost_the_attempt() -> None:
    deaf = Deaf()
    deaf.cluster.kill_node(deaf.runner)
    asked = deaf.asker.ask("logs", ticket=deaf.ticket)
    assert deaf.asker.reply(asked) is None
    deaf.cluster.restart_node(deaf.runner)
    assert field(deaf.asker.reply(asked), "attempt") == "0"


def test_who_has_gone_is_not_answered_by_the_runner() -> None:
    deaf = Deaf()
    asked = deaf.ask()
    deaf.asker.forget(asked)
    deaf.answer(b"OK too late\n")
    assert deaf.asker.answers(asked) == []
    assert deaf.cluster.balancer is not None
    assert deaf.cluster.balancer.machine.statistics()["queries_open"] == 0
