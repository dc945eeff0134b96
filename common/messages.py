"""What travels between balancer and node: one closed class for each message.

The names INFO, REQUEST_OF_RES, RESULT and RES_REQ are the reference system's. Everything that is per job travels in
batches. Records inside a batch (`bytes`) are opaque to whoever need not look: a job is packed once by its origin and
unpacked by the one that runs it.

An attempt is named by the pair (ticket, number). `docs/protocol.md` tells who sends what, and when.
"""

import math
from typing import Final, TypeAlias

from common.codec import Record
from common.limits import LEDGERS_OUTLIVED_MAX, OPTION_BYTES_MAX
from common.model import Outcome, is_prefix, parse_ticket

PROTOCOL: Final = 1
ID_BYTES_MAX: Final = 64

AttemptId: TypeAlias = tuple[str, int]

# What names a job must be a ticket before any machine sees it: keys of tables are made of it. These checks raise
# ValueError.


def _ticket(text: str) -> None:
    if parse_ticket(text) is None:
        raise ValueError(f"{text!r} is no ticket")


def _whole(text: str) -> None:
    """A ticket as it is issued: no element of an array."""
    if parse_ticket(text) is None or "_" in text:
        raise ValueError(f"{text!r} is no ticket that a node issues")


def _tickets(texts: tuple[str, ...]) -> None:
    for text in texts:
        if parse_ticket(text) is None:
            raise ValueError(f"{text!r} is no ticket")


def _attempt(number: int) -> None:
    if not 1 <= number < 2**32:
        raise ValueError(f"{number} is no attempt number")


def _attempts(ids: tuple[AttemptId, ...]) -> None:
    for ticket, number in ids:
        if parse_ticket(ticket) is None or not 1 <= number < 2**32:
            _ticket(ticket)
            _attempt(number)


def _names(pairs: tuple[tuple[str, str], ...]) -> None:
    """Pairs of a ticket and whatever name."""
    for ticket, _ in pairs:
        _ticket(ticket)


def _id(text: str) -> None:
    """Ids are keys of tables, too."""
    if not 1 <= len(text.encode()) <= ID_BYTES_MAX:
        raise ValueError(f"an id has 1 to {ID_BYTES_MAX} bytes")


# --- the handshake: the node speaks first, and the balancer proves itself before the node does ------------------


class Hello(Record, frozen=True):
    """Node → balancer, first frame: who dials. `nonce` is fresh for each connection."""

    protocol: int
    node_id: str
    boot_id: str
    prefix: str
    name: str
    slots: int
    kinds: tuple[str, ...]
    version: str
    nonce: bytes

    def __post_init__(self) -> None:
        _id(self.node_id)
        _id(self.boot_id)
        if not is_prefix(self.prefix):
            raise ValueError(f"{self.prefix!r} is no ticket prefix")
        if self.slots < 0:
            raise ValueError(f"a node has 0 slots or more, not {self.slots}")


class Challenge(Record, frozen=True):
    """Balancer → node: which ledger answers; `proof` is empty where no key is set."""

    ledger_id: str
    nonce: bytes
    proof: bytes


class Proof(Record, frozen=True):
    """Node → balancer: the answer to the challenge."""

    proof: bytes


class Welcome(Record, frozen=True):
    """Balancer → node: the link is open, and these are the cluster's periods."""

    node_timeout_s: float
    eager: bool

    def __post_init__(self) -> None:
        if not 0.0 < self.node_timeout_s < math.inf:
            raise ValueError(f"node_timeout_s is {self.node_timeout_s}; it is a time above 0")


class Refused(Record, frozen=True):
    """Balancer → node: not admitted, and why. The connection closes; the node dials again later."""

    reason: str


# --- presence ----------------------------------------------------------------------------------------------------


class Poll(Record, frozen=True):
    """Balancer → node: how many have you? Also the proof of life that either side waits for."""


class Info(Record, frozen=True):
    """Node → balancer, INFO: attempts begun, and the backlog."""

    running: int
    waiting: int
    draining: bool = False


class Farewell(Record, frozen=True):
    """Node → balancer: I stop, and nothing is left of what you gave me. Balancer → node: the same back. Messages keep
    their order, and a draining node is given nothing, so at the echo of its last farewell nothing is under way between
    the two, and the node leaves."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError("farewells are numbered from 1")


class Holdings(Record, frozen=True):
    """Node → balancer, first message of every link: the attempts it holds (begun, and waiting), and those whose
    outcome it keeps, each with the boot that ran it. What is leased to it and not here did not survive."""

    begun: tuple[AttemptId, ...] = ()
    waiting: tuple[AttemptId, ...] = ()
    outcomes: tuple[tuple[str, int, str], ...] = ()
    draining: bool = False

    def __post_init__(self) -> None:
        _attempts(self.begun)
        _attempts(self.waiting)
        for ticket, number, _ in self.outcomes:
            _ticket(ticket)
            _attempt(number)


# --- jobs in -----------------------------------------------------------------------------------------------------


class Submission(Record, frozen=True):
    """A job on its way from origin to ledger. `ended` is set when the origin already knows the end: a new ledger
    learns history this way. `told`: its client has read `OK`, so that it can no longer be refused for its key.
    `age_s`: how long ago it was submitted, by the origin's clock; moments never travel. `outlived`: how many ledgers
    its origin has lost since it was submitted; attempts that those gave out may have been begun by anybody. `attempt`:
    what its origin gave itself while it had no balancer, and `boot_id` the boot that it gave it to; 0 when nothing."""

    ticket: str
    job: bytes
    body: bytes = b""
    ended: bytes = b""
    output: bytes = b""
    told: bool = True
    age_s: float = 0.0
    outlived: int = 0
    attempt: int = 0
    boot_id: str = ""

    def __post_init__(self) -> None:
        _whole(self.ticket)
        if not 0 <= self.outlived < LEDGERS_OUTLIVED_MAX:
            raise ValueError(f"{self.outlived} is not how many ledgers anybody has lost")
        if not 0 <= self.attempt < 2**32:
            raise ValueError(f"{self.attempt} is no attempt number")
        if self.boot_id:
            _id(self.boot_id)


class Jobs(Record, frozen=True):
    """Node → balancer: jobs that the ledger has not acknowledged. Sending one twice is harmless."""

    items: tuple[Submission, ...]


class Taken(Record, frozen=True):
    """Balancer → node: these are in the ledger, on disk. `aliases` are keyed jobs that are another job's second
    name; `conflicts` are keyed jobs that were refused, because their key belongs to another text and their client
    had not been told `OK` yet. Both are pairs of the ticket and the key's owner."""

    tickets: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    conflicts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _tickets(self.tickets)
        _names(self.aliases)
        _names(self.conflicts)


class Aliases(Record, frozen=True):
    """Node → balancer: these tickets of ours are other names of jobs (pairs of ticket and first name). Said when a
    ledger asks for one that it should know: it lost its volume."""

    pairs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        _names(self.pairs)


class SendAgain(Record, frozen=True):
    """Balancer → node: there was no room for some of your jobs; now there is."""


# --- attempts out ------------------------------------------------------------------------------------------------


class Lease(Record, frozen=True):
    """One attempt, given to one boot of one node. `order` is when its job arrived: of equal priority the earlier begins
    first, also where it was given later."""

    ticket: str
    attempt: int
    job: bytes
    body: bytes = b""
    order: int = 0

    def __post_init__(self) -> None:
        _ticket(self.ticket)
        _attempt(self.attempt)


class Dispatch(Record, frozen=True):
    """Balancer → node: run these. Each lease is on the ledger's disk already."""

    items: tuple[Lease, ...]


class Begun(Record, frozen=True):
    """Node → balancer: these attempts run now."""

    attempts: tuple[AttemptId, ...]

    def __post_init__(self) -> None:
        _attempts(self.attempts)


class Cancel(Record, frozen=True):
    """Balancer → node: end these attempts (SIGTERM, later SIGKILL) and report their outcome."""

    attempts: tuple[AttemptId, ...]

    def __post_init__(self) -> None:
        _attempts(self.attempts)


class Drop(Record, frozen=True):
    """Balancer → node: these attempts were given to others; end them, nobody waits for their outcome."""

    attempts: tuple[AttemptId, ...]

    def __post_init__(self) -> None:
        _attempts(self.attempts)


class Recall(Record, frozen=True):
    """Balancer → node: hand these back where they have not begun."""

    attempts: tuple[AttemptId, ...]

    def __post_init__(self) -> None:
        _attempts(self.attempts)


class Returned(Record, frozen=True):
    """Node → balancer: not begun and no longer held. Neither a failure nor a crash."""

    attempts: tuple[AttemptId, ...]

    def __post_init__(self) -> None:
        _attempts(self.attempts)


# --- results back ------------------------------------------------------------------------------------------------


class Reported(Record, frozen=True):
    """How an attempt ended, as its runner keeps it until the ledger has acknowledged it."""

    attempt: int
    boot_id: str
    outcome: Outcome

    def __post_init__(self) -> None:
        _attempt(self.attempt)


class Pair(Record, frozen=True):
    """A job id and its result: a packed `Reported` on the way to the ledger, a packed `Ended` on the way back."""

    ticket: str
    record: bytes
    output: bytes = b""

    def __post_init__(self) -> None:
        if parse_ticket(self.ticket) is None:
            _ticket(self.ticket)


class RequestOfRes(Record, frozen=True):
    """Either way, REQUEST_OF_RES: the ids whose results are wanted."""

    tickets: tuple[str, ...]

    def __post_init__(self) -> None:
        _tickets(self.tickets)


class Result(Record, frozen=True):
    """Either way, RESULT: pairs of job id and result."""

    items: tuple[Pair, ...]


class ResReq(Record, frozen=True):
    """Either way, RES_REQ: both in one message."""

    items: tuple[Pair, ...]
    tickets: tuple[str, ...]

    def __post_init__(self) -> None:
        _tickets(self.tickets)


class Acknowledged(Record, frozen=True):
    """Balancer → node: these outcomes are settled on the ledger's disk (recorded or, when late, dropped)."""

    attempts: tuple[AttemptId, ...]

    def __post_init__(self) -> None:
        _attempts(self.attempts)


class Lapsed(Record, frozen=True):
    """Balancer → node: these of your tickets ended and were expired while you were away."""

    tickets: tuple[str, ...]

    def __post_init__(self) -> None:
        _tickets(self.tickets)


class Notices(Record, frozen=True):
    """Balancer → node: what became of jobs that you issued and that had ended: `revived` ones are live again (RETRY),
    `forgotten` ones are gone (FORGET). Sent on every link until a Noticed for it comes back."""

    revived: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _tickets(self.revived)
        _tickets(self.forgotten)


class Noticed(Record, frozen=True):
    """Node → balancer: these notices are on our disk."""

    revived: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _tickets(self.revived)
        _tickets(self.forgotten)


# --- questions ---------------------------------------------------------------------------------------------------


class Inquiry(Record, frozen=True):
    """Either way: a client's request that the other side can answer. `verb` is the protocol's, in lower case."""

    id: int
    verb: str
    ticket: str | None = None
    group: str | None = None
    state: str | None = None
    limit: int = 0  # LIST: rows; LOGS: the last so many bytes of each stream; 0 is no limit
    tickets: tuple[str, ...] = ()  # WATCH
    since: str | None = None  # a cursor of WATCH or EVENTS, as the client said it
    attempt: int = 0  # LOGS: the attempt and
    stdout_at: int = 0  # how much of its standard output and
    stderr_at: int = 0  # of its standard error the client has
    policy: str | None = None  # PLACEMENT, where another is to be put in force

    def __post_init__(self) -> None:
        if self.group is not None and len(self.group.encode()) > OPTION_BYTES_MAX:
            raise ValueError(f"an option has {OPTION_BYTES_MAX} bytes at most")


class Forget(Record, frozen=True):
    """Node → balancer: the client that asked this went away, or has waited long enough."""

    id: int


class Answer(Record, frozen=True):
    """The reply to an Inquiry, as the client will read it. Whoever relays it does not look inside."""

    id: int
    reply: bytes


Message: TypeAlias = (
    Hello | Challenge | Proof | Welcome | Refused | Poll | Info | Holdings | Farewell | Jobs | Taken | SendAgain
    | Aliases | Dispatch | Begun | Cancel | Drop | Recall | Returned
    | RequestOfRes | Result | ResReq | Acknowledged | Lapsed | Notices | Noticed | Inquiry | Answer | Forget
)  # fmt: skip

# The number of a class on the wire. Never reuse one.
CODES: Final[dict[type[Message], int]] = {
    Hello: 1, Challenge: 2, Proof: 3, Welcome: 4, Refused: 5,
    Poll: 10, Info: 11, Holdings: 12, Farewell: 13,
    Jobs: 20, Taken: 21, SendAgain: 22, Aliases: 23,
    Dispatch: 30, Begun: 31, Cancel: 32, Drop: 33, Recall: 34, Returned: 35,
    RequestOfRes: 40, Result: 41, ResReq: 42, Acknowledged: 43, Lapsed: 44, Notices: 45, Noticed: 46,
    Inquiry: 50, Answer: 51, Forget: 52,
}  # fmt: skip
