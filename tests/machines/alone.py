"""A node's machine alone, for tests of its side of the conversation: the test plays balancer, clients and executors.

Every step gives back its whole answer, so that a test can say what was done *and nothing else*. Messages are given as
they are, without their link; commands for the executors come first, because they need not wait for the commit.
"""

import itertools

from common import frames, lines
from common.codec import pack, replace
from common.effects import Reply, Send
from common.events import Asked, LinkClosed, LinkOpened, Received, StoreLevel
from common.memory import Memory
from common.messages import Dispatch, Holdings, Inquiry, Jobs, Lease, Message, Pair, Result, Taken
from common.model import Ended, Job, State
from node.worker import Identity, RunNow, Worker
from tests.machines.cluster import WALL, Disk, may_overtake

PREFIX = "aaaaaa"
LEDGER = "ledger-1"
LINK = 1


class Alone:
    """A worker with a disk. Time passes only in `advance`."""

    def __init__(self, *, slots: int = 1, linked: bool = True, awake_max: int = 20_000) -> None:
        self.now = 1000.0
        self.disk = Disk()
        self.slots = slots
        self.awake_max = awake_max
        self._boots = itertools.count(1)
        self.last = 0  # the id of the query that was asked last
        self._links = itertools.count(LINK)
        self.link: int | None = None
        self.boot()
        if linked:
            self.open_link()

    @property
    def wall(self) -> float:
        return WALL + self.now

    def boot(self) -> None:
        """Starts, or starts again on the same disk."""
        who = Identity("id-n1", f"boot-{next(self._boots)}", PREFIX, "n1")
        self.worker = Worker(
            who,
            Memory(self.disk),
            slots=self.slots,
            retention_s=3600.0,
            drain_grace_s=10.0,
            awake_max=self.awake_max,
        )
        self.worker.restore(self.now, self.wall)
        self.link = None

    # --- steps ----------------------------------------------------------------------------------------------------

    def step(self, *events: object) -> list[object]:
        """What the machine does, in order."""
        effects = self.worker.handle(events, self.now)
        self.disk.commit(list(effects.writes))
        self.worker.committed()
        self.worker.check()
        done: list[object] = []
        for action in effects.at_once:
            assert may_overtake(action), f"{action} may not overtake the writes of its step"
        for action in (*effects.at_once, *effects.actions):
            if isinstance(action, RunNow):
                done += action.batch
                continue
            if isinstance(action, Send):
                assert action.link == self.link, f"{action.message} goes over a link that is gone"
                assert frames.Parser().feed(frames.encode(action.message)) == [action.message]
            done.append(action.message if isinstance(action, Send) else action)
        return done

    def advance(self, seconds: float) -> list[object]:
        """Lets time pass; what the machine does meanwhile."""
        end, done = self.now + seconds, []
        while (at := self.worker.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            done += self.step(self._tick())
        self.now = end
        return done + self.step(self._tick())

    def _tick(self) -> StoreLevel:
        """How the driver keeps its machine informed of calendar time."""
        return StoreLevel(0.1, False, self.wall)

    # --- the link -------------------------------------------------------------------------------------------------

    def open_link(self, ledger: str = LEDGER) -> list[object]:
        self.link = next(self._links)
        return self.step(LinkOpened(self.link, ledger, eager=True))

    def holdings(self) -> Holdings:
        """What the node says first on a new link."""
        (first, *_) = [action for action in self.open_link() if isinstance(action, Holdings)]
        return first

    def cut(self) -> list[object]:
        link, self.link = self.link, None
        return self.step(LinkClosed(link or 0, "cut"))

    def receive(self, *messages: Message) -> list[object]:
        return self.step(Received(self.link or 0, messages, self.wall))

    # --- clients --------------------------------------------------------------------------------------------------

    def ask(self, *asked: str) -> list[object]:
        """What is done when a client types these lines, which the node reads at once."""
        queries = [(id, query(line)) for id, line in enumerate(asked, self.last + 1)]
        self.last += len(asked)
        return self.step(Asked(queries, self.wall))

    def say(self, line: str) -> str:
        """The one thing that is done for this line is to answer it; the answer."""
        (reply,) = self.ask(line)
        assert reply == Reply(self.last, getattr(reply, "reply", b"")), f"{line} is not answered, but {reply} is done"
        assert isinstance(reply, Reply)
        return reply.reply.decode()

    def inquiry(self, line: str) -> Inquiry:
        """The one thing that is done for this line is to ask the ledger; the question."""
        (inquiry,) = self.ask(line)
        assert isinstance(inquiry, Inquiry), f"{line} is not asked of the ledger, but {inquiry} is done"
        assert inquiry.id == self.last
        return inquiry

    # --- jobs -----------------------------------------------------------------------------------------------------

    def submit(self, line: str = "sh true", *, taken: bool = True) -> str:
        """A job of ours, which the ledger acknowledges, where there is one."""
        done = self.ask(f"submit {line}")
        sent = tuple(item.ticket for message in done if isinstance(message, Jobs) for item in message.items)
        if taken and sent:
            done += self.receive(Taken(sent))
        (reply,) = [action.reply.decode() for action in done if isinstance(action, Reply)]
        assert reply.startswith("OK "), reply
        return reply.split()[1]

    def end(self, ticket: str, ended: Ended | None = None, output: bytes = b"") -> list[object]:
        """The ledger tells the end of one of our jobs."""
        ended = ended or Ended(State.SUCCEEDED, self.wall, None, 1, 0, "n2", 0.5, stdout_bytes=len(output))
        return self.receive(Result((Pair(ticket, pack(ended), output),)))

    def dispatch(self, *tickets: str, attempt: int = 1, job: Job | None = None) -> list[object]:
        packed = pack(job or Job("sh", "true"))
        return self.receive(Dispatch(tuple(Lease(ticket, attempt, packed) for ticket in tickets)))


def query(line: str) -> lines.Query:
    (request,) = lines.Parser().feed(line.encode() + b"\n")
    edge = lines.Bad | lines.Auth | lines.Ping | lines.Version | lines.Help | lines.Quit
    assert not isinstance(request, edge), f"{request} is not for a machine"
    return request


def failed(wall: float, **fields: object) -> Ended:
    """A job that ended with exit code 3 in its first attempt."""
    ended = Ended(State.FAILED, wall, None, 1, 3, "n2", 0.5)
    return replace(ended, **fields)
