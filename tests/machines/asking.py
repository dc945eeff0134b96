"""What tests ask of a cluster, and what they read in its replies.

An Asker asks the balancer over a node's link, without the node's desk between.
"""

import itertools

from common.events import Received
from common.messages import Answer, Forget, Inquiry
from tests.machines.cluster import Cluster

_ids = itertools.count(1_000_000)


class Asker:
    """What the desk of one node would send and hear. Ids are beyond those of the node itself."""

    def __init__(self, cluster: Cluster, name: str = "n1") -> None:
        self.cluster = cluster
        self.name = name

    def ask(self, verb: str, *tickets: str, id: int | None = None, **fields: object) -> int:
        """Sends an inquiry about some tickets (WATCH), or with `ticket=`, `group=`, `since=` …; returns its id."""
        inquiry = Inquiry(next(_ids) if id is None else id, verb, tickets=tickets, **fields)  # type: ignore[arg-type]
        self._send(inquiry)
        return inquiry.id

    def forget(self, id: int) -> None:
        self._send(Forget(id))

    def _send(self, message: Inquiry | Forget) -> None:
        link = self.cluster.nodes[self.name].link
        assert link is not None
        self.cluster._step_balancer(Received(link, [message], self.cluster.wall))
        self.cluster.settle()

    def answers(self, id: int) -> list[str]:
        sent = (message for to, message in self.cluster.sent if to == self.name)
        return [answer.reply.decode() for answer in sent if isinstance(answer, Answer) and answer.id == id]

    def reply(self, id: int) -> str | None:
        """The answer, where there is one already; never a second one."""
        answers = self.answers(id)
        assert len(answers) <= 1, f"inquiry {id} was answered {len(answers)} times"
        return answers[0] if answers else None

    def say(self, verb: str, *tickets: str, **fields: object) -> str:
        """The answer to what is answered at once."""
        reply = self.reply(self.ask(verb, *tickets, **fields))
        assert reply is not None, f"{verb} is not answered yet"
        return reply


def head(reply: str | None) -> str:
    """The first line of a reply."""
    assert reply is not None, "there is no reply yet"
    return reply.split("\n", 1)[0]


def body(reply: str | None) -> list[str]:
    """The lines of the body of a reply."""
    assert reply is not None, "there is no reply yet"
    line, _, text = reply.partition("\n")
    size = int(line.rpartition("bytes=")[2])
    assert len(text.encode()) == size + 1, "bytes=N does not count the body"
    assert text.endswith("\n")
    return text[:-1].splitlines()


def field(reply: str | None, name: str) -> str | None:
    """A field of the first line, or of a line of the body."""
    words = (word.partition("=") for word in head(reply).split())
    return next((value for key, _, value in words if key == name), None)


def status(cluster: Cluster, ticket: str, name: str = "n1") -> str:
    """The reply to STATUS at a node, without its line end."""
    reply = cluster.say(name, f"status {ticket}")
    assert reply is not None, f"{name} does not answer for {ticket}"
    return reply.rstrip("\n")


def state_of(cluster: Cluster, ticket: str, name: str = "n1") -> str:
    found = field(status(cluster, ticket, name), "state")
    assert found is not None
    return found
