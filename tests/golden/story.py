"""What the golden directories hold: the life of a small cluster, up to a moment at which all of it is killed.

A balancer and three nodes (the machines, in memory and in virtual time, as in `tests/machines/cluster.py`) go through
everything that leaves a record of its own. The jobs are such that real programs could run them to their ends.
Deterministic: the same code makes the same records. See README.md beside it.
"""

from common.effects import Table
from common.model import Outcome, Reason, Verdict
from tests.machines.cluster import Cluster, Disk

NODE_IDS = {"n1": "1" * 32, "n2": "2" * 32, "n3": "3" * 32}
PREFIXES = {"n1": "aaaaab", "n2": "aaaaac", "n3": "aaaaad"}
LEDGER_ID = "b" * 32
FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.25, stdout_bytes=4, stderr_bytes=4)
RETENTION_S = 86400.0
SLOTS = 7

FINAL = {  # how what is live ends, where its line is run for real: state and standard output
    "revived while its origin was away": ("failed", ""),
    "lost with its node": ("succeeded", ""),
    "of a group, live": ("succeeded", "night"),
    "blocked": ("succeeded", "unblocked"),
    "with limits": ("succeeded", "me"),
    "array that is live": ("failed", ""),  # one of its elements had
    "retrying": ("succeeded", "retried"),
    "scheduled": ("succeeded", "delayed"),
    "leased by its origin to itself": ("succeeded", "alone"),
    "never sent": ("succeeded", "unsent"),
    "never sent, with a body": ("succeeded", "unsent"),
}


class Story:
    """The tickets by what became of their jobs, and the disks at the end."""

    def __init__(self) -> None:
        self.tickets: dict[str, str] = {}
        self.cluster = Cluster(fallback_s=10.0)
        self.cluster.seed = 4
        for name, node_id in NODE_IDS.items():
            self.cluster.add_node(name, slots=SLOTS, node_id=node_id, prefix=PREFIXES[name])
        self._before_the_first_ledger_was_lost()
        self._ended()
        self._arrays_and_groups()
        self._changed_after_their_end()
        self._live()
        self._while_the_balancer_is_away()
        nodes = {**self.cluster.nodes, **self.cluster._down}
        self.now = self.cluster.now
        balancer = self.cluster._kept[0]
        self.disks: dict[str, Disk] = {"balancer": balancer} | {name: node.disk for name, node in nodes.items()}
        self._identify()

    # --- what happens ----------------------------------------------------------------------------------------------

    def _before_the_first_ledger_was_lost(self) -> None:
        """Jobs that are expired by now, and some that the second ledger learned of from their origins."""
        self._end("expired", "n1")
        self._sleep(RETENTION_S + 10)
        self._end("ended under a ledger that was lost", "n1", output=b"old")
        self._submit("ended after its ledger was lost", "n2", "priority=-5 sh printf late")
        self.cluster.kill_balancer()
        self.cluster.start_balancer(volume_lost=True)
        for name in self.cluster.nodes:
            self.cluster.dial(name)
        self.cluster.finish_all()

    def _sleep(self, seconds: float) -> None:
        """Everything is off for so long."""
        self.cluster.kill_balancer()
        for name in NODE_IDS:
            self.cluster.kill_node(name)
        self.cluster.now += seconds
        self.cluster.start_balancer()
        for name in NODE_IDS:
            self.cluster.restart_node(name)
        self.cluster.advance(1)

    def _ended(self) -> None:
        self._end("succeeded", "n1", "name=the%20first sh printf hello", output=b"hello")
        self._end("succeeded without output", "n3")
        self._end("failed", "n2", "sh printf abcd; printf efgh >&2; exit 3", output=b"abcdefgh", outcome=FAILED)
        self._end("with a body", "n1", "bytes=4 exec cat", body=b"body", output=b"body")
        ticket = self._submit("tried twice", "n1", "retries=1 backoff=2s sh flaky")
        self._finish(ticket, b"abcdefgh", FAILED)
        self.cluster.advance(3)
        self._finish(ticket, b"at last")
        self._cancel("cancelled", "n2", "sh sleep 1")
        self._end("first of its key", "n1", "key=once sh printf one", output=b"one")
        reply = self.cluster.say("n2", "submit key=once sh printf one")
        assert reply == f"OK {self.tickets['first of its key']}\n", reply
        self.tickets["second name"] = "aaaaac-4"

    def _arrays_and_groups(self) -> None:
        ticket = self._submit("array that has ended", "n1", "array=1-3 group=night sh exit {}")
        for index in (1, 2, 3):
            self._finish(f"{ticket}_{index}", b"" if index < 3 else b"abcdefgh", FAILED if index == 3 else None)
        self._end("of a group", "n2", "group=night sh true")
        ticket = self._submit("array that was cancelled", "n3", "array=0-99:3%1 sh sleep 0.01")
        self._finish(f"{ticket}_0")
        self.cluster.say("n1", f"cancel {ticket}")
        self._finish(f"{ticket}_3", outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 0.1))

    def _changed_after_their_end(self) -> None:
        ticket = self._end("revived and ended again", "n1", "sh exit 3", output=b"abcdefgh", outcome=FAILED)
        self.cluster.say("n2", f"retry {ticket}")
        self._finish(ticket, b"better")
        ticket = self._end("forgotten", "n1", "key=forgotten sh true")
        self.cluster.say("n2", f"forget {ticket}")
        told_later = [self._end(f"{what} while its origin was away", "n3", "sh exit 3", output=b"abcdefgh",
                                outcome=FAILED) for what in ("forgotten", "revived")]  # fmt: skip
        self._submit_to_each("lost with its node")
        self.cluster.kill_node("n3")
        self.cluster.advance(20)
        self.cluster.say("n1", f"forget {told_later[0]}")
        self.cluster.say("n1", f"retry {told_later[1]}")

    def _live(self) -> None:
        """From here on some run and some wait."""
        self.cluster.say("n2", "drain")
        running = [self._submit(f"running {number}", "n1", f"sh printf running{number}") for number in (1, 2)]
        self._submit("of a group, live", "n1", "group=night sh printf night")
        self._submit("blocked", "n1", f"after={running[1]} sh printf unblocked")
        self._submit("with limits", "n1", "cpu=10s memory=256MiB files=64 processes=16 output=1MiB timeout=60s "
                     "env.WHO=me priority=7 sh printf $WHO")  # fmt: skip
        ticket = self._submit("array that is live", "n1", "array=1-20%2 priority=9 group=night sh printf {}")
        self._finish(running[0], b"running1")
        self._finish(f"{ticket}_1", b"1")
        self._finish(f"{ticket}_2", b"abcdefgh", FAILED)
        ticket = self._submit("retrying", "n1", "retries=2 backoff=2s priority=10 sh printf retried")
        self._finish(ticket, b"abcdefgh", FAILED)
        self._submit("scheduled", "n1", "delay=2s sh printf delayed")

    def _while_the_balancer_is_away(self) -> None:
        """An outcome that is not acknowledged, what a node did by itself, and jobs that were not sent."""
        self.cluster.kill_balancer()
        ((name, id),) = self.cluster.where(self.tickets["running 2"])
        self.cluster.finish(name, id, output=b"running2")
        alone = self._submit("ended without a balancer", "n1", "sh printf ended")
        self._submit("leased by its origin to itself", "n1", "sh printf alone")
        self.cluster.advance(12)
        self._finish(alone, b"ended")
        self._submit("never sent", "n1", "slots=4 sh printf unsent")  # the first in line, and there is no room for it
        self._submit("never sent, with a body", "n1", "bytes=6 exec cat", body=b"unsent")

    # --- how -------------------------------------------------------------------------------------------------------

    def _submit(self, what: str, name: str, line: str = "sh true", body: bytes | None = None) -> str:
        reply = self.cluster.say(name, f"submit {line}", body)
        assert reply is not None and reply.startswith("OK "), f"{what}: {reply}"  # noqa: PT018
        ticket = reply.split()[1]
        self.tickets[what] = ticket
        self.cluster.advance(0.5)
        return ticket

    def _finish(self, ticket: str, output: bytes = b"", outcome: Outcome | None = None) -> None:
        where = self.cluster.where(ticket)
        while not where:  # others have the slots
            other = next(id for node in self.cluster.nodes.values() for id in node.running)
            self._finish(other[0])
            where = self.cluster.where(ticket)
        ((name, id),) = where
        self.cluster.advance(0.25)
        self.cluster.finish(name, id, output=output, outcome=outcome)

    def _submit_to_each(self, what: str) -> None:
        """A job to each node; the one that the last of them runs is what it is about."""
        tickets = [self._submit(f"{what}, or not", "n1") for _ in NODE_IDS]
        ((self.tickets[what], _),) = self.cluster.nodes["n3"].running
        del self.tickets[f"{what}, or not"]
        for ticket in tickets:
            if ticket != self.tickets[what]:
                self._finish(ticket)

    def _end(self, what: str, name: str, line: str = "sh true", *, body: bytes | None = None, output: bytes = b"",
             outcome: Outcome | None = None) -> str:  # fmt: skip
        ticket = self._submit(what, name, line, body)
        self._finish(ticket, output, outcome)
        return ticket

    def _cancel(self, what: str, name: str, line: str) -> None:
        ticket = self._submit(what, name, line)
        self.cluster.say(name, f"cancel {ticket}")
        self._finish(ticket, outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 0.1))

    def _identify(self) -> None:
        """What the programs themselves write when they make a directory."""
        self.disks["balancer"].tables[Table.META][b"id"] = LEDGER_ID.encode()
        for name, node_id in NODE_IDS.items():
            meta = self.disks[name].tables[Table.META]
            meta |= {b"id": node_id.encode(), b"prefix": PREFIXES[name].encode()}
