"""What travels between balancer and node: one closed attrs class for each message.

The names INFO, REQUEST_OF_RES, RESULT and RES_REQ are the reference system's. Everything that is per job travels in
batches. Records inside a batch (`bytes`) are opaque to whoever need not look: a job is packed once by its origin and
unpacked by the one that runs it.

An attempt is named by the pair (ticket, number). `docs/protocol.md` tells who sends what, and when.
"""

import math
from typing import Any, Final, TypeAlias

import attrs

from common.limits import LEDGERS_OUTLIVED_MAX, OPTION_BYTES_MAX
from common.model import Outcome, array_of, is_prefix, parse_ticket

PROTOCOL: Final = 1
ID_BYTES_MAX: Final = 64

AttemptId: TypeAlias = tuple[str, int]

# What names a job must be a ticket before any machine sees it: keys of tables are made of it.


def _ticket(_: object, __: object, text: str) -> None:
    if parse_ticket(text) is None:
        raise ValueError(f"{text!r} is no ticket")


def _whole(_: object, __: object, text: str) -> None:
    """A ticket as it is issued: no element of an array."""
    if parse_ticket(text) is None or array_of(text) != text:
        raise ValueError(f"{text!r} is no ticket that a node issues")


def _tickets(_: object, __: object, texts: tuple[str, ...]) -> None:
    for text in texts:
        _ticket(None, None, text)


def _named(_: object, __: object, items: tuple[tuple[Any, ...], ...]) -> None:
    """Tuples that begin with a ticket; where a number follows, it is an attempt's."""
    for item in items:
        _ticket(None, None, item[0])
        if isinstance(item[1], int) and not 1 <= item[1] < 2**32:
            raise ValueError(f"{item[1]} is no attempt number")


def _attempt(_: object, __: object, number: int) -> None:
    if not 1 <= number < 2**32:
        raise ValueError(f"{number} is no attempt number")


def _id(_: object, __: object, text: str) -> None:
    """Ids are keys of tables, too."""
    if not 1 <= len(text.encode()) <= ID_BYTES_MAX:
        raise ValueError(f"an id has 1 to {ID_BYTES_MAX} bytes")


def _boot(_: object, __: object, text: str) -> None:
    """An id, or nothing."""
    if text:
        _id(None, None, text)


def _option(_: object, __: object, text: str) -> None:
    """What a client can have said as an option; a group is part of a table's key."""
    if len(text.encode()) > OPTION_BYTES_MAX:
        raise ValueError(f"an option has {OPTION_BYTES_MAX} bytes at most")


def _prefix(_: object, __: object, text: str) -> None:
    if not is_prefix(text):
        raise ValueError(f"{text!r} is no ticket prefix")


# --- the handshake: the node speaks first, and the balancer proves itself before the node does ------------------


@attrs.frozen
class Hello:
    """Node → balancer, first frame: who dials. `nonce` is fresh for each connection."""

    protocol: int
    node_id: str = attrs.field(validator=_id)
    boot_id: str = attrs.field(validator=_id)
    prefix: str = attrs.field(validator=_prefix)
    name: str
    slots: int = attrs.field(validator=attrs.validators.ge(0))
    kinds: tuple[str, ...]
    version: str
    nonce: bytes


@attrs.frozen
class Challenge:
    """Balancer → node: which ledger answers; `proof` is empty where no key is set."""

    ledger_id: str
    nonce: bytes
    proof: bytes


@attrs.frozen
class Proof:
    """Node → balancer: the answer to the challenge."""

    proof: bytes


@attrs.frozen
class Welcome:
    """Balancer → node: the link is open, and these are the cluster's periods."""

    node_timeout_s: float = attrs.field(validator=[attrs.validators.gt(0.0), attrs.validators.lt(math.inf)])
    eager: bool


@attrs.frozen
class Refused:
    """Balancer → node: not admitted, and why. The connection closes; the node dials again later."""

    reason: str


# --- presence ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Poll:
    """Balancer → node: how many have you? Also the proof of life that either side waits for."""


@attrs.frozen
class Info:
    """Node → balancer, INFO: attempts begun, and the backlog."""

    running: int
    waiting: int
    draining: bool = False


@attrs.frozen
class Farewell:
    """Node → balancer: I stop, and nothing is left of what you gave me. Balancer → node: the same back. Messages keep
    their order, and a draining node is given nothing, so at the echo of its last farewell nothing is under way between
    the two, and the node leaves."""

    number: int = attrs.field(validator=attrs.validators.ge(1))


@attrs.frozen
class Holdings:
    """Node → balancer, first message of every link: the attempts it holds (begun, and waiting), and those whose
    outcome it keeps, each with the boot that ran it. What is leased to it and not here did not survive."""

    begun: tuple[AttemptId, ...] = attrs.field(default=(), validator=_named)
    waiting: tuple[AttemptId, ...] = attrs.field(default=(), validator=_named)
    outcomes: tuple[tuple[str, int, str], ...] = attrs.field(default=(), validator=_named)
    draining: bool = False


# --- jobs in -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Submission:
    """A job on its way from origin to ledger. `ended` is set when the origin already knows the end: a new ledger
    learns history this way. `told`: its client has read `OK`, so that it can no longer be refused for its key.
    `age_s`: how long ago it was submitted, by the origin's clock; moments never travel. `outlived`: how many ledgers
    its origin has lost since it was submitted; attempts that those gave out may have been begun by anybody. `attempt`:
    what its origin gave itself while it had no balancer, and `boot_id` the boot that it gave it to; 0 when nothing."""

    ticket: str = attrs.field(validator=_whole)
    job: bytes
    body: bytes = b""
    ended: bytes = b""
    output: bytes = b""
    told: bool = True
    age_s: float = 0.0
    outlived: int = attrs.field(
        default=0, validator=attrs.validators.and_(attrs.validators.ge(0), attrs.validators.lt(LEDGERS_OUTLIVED_MAX))
    )
    attempt: int = attrs.field(
        default=0, validator=attrs.validators.and_(attrs.validators.ge(0), attrs.validators.lt(2**32))
    )
    boot_id: str = attrs.field(default="", validator=_boot)


@attrs.frozen
class Jobs:
    """Node → balancer: jobs that the ledger has not acknowledged. Sending one twice is harmless."""

    items: tuple[Submission, ...]


@attrs.frozen
class Taken:
    """Balancer → node: these are in the ledger, on disk. `aliases` are keyed jobs that are another job's second
    name; `conflicts` are keyed jobs that were refused, because their key belongs to another text and their client
    had not been told `OK` yet. Both are pairs of the ticket and the key's owner."""

    tickets: tuple[str, ...] = attrs.field(validator=_tickets)
    aliases: tuple[tuple[str, str], ...] = attrs.field(default=(), validator=_named)
    conflicts: tuple[tuple[str, str], ...] = attrs.field(default=(), validator=_named)


@attrs.frozen
class Aliases:
    """Node → balancer: these tickets of ours are other names of jobs (pairs of ticket and first name). Said when a
    ledger asks for one that it should know: it lost its volume."""

    pairs: tuple[tuple[str, str], ...] = attrs.field(validator=_named)


@attrs.frozen
class SendAgain:
    """Balancer → node: there was no room for some of your jobs; now there is."""


# --- attempts out ------------------------------------------------------------------------------------------------


@attrs.frozen
class Lease:
    """One attempt, given to one boot of one node."""

    ticket: str = attrs.field(validator=_ticket)
    attempt: int = attrs.field(validator=_attempt)
    job: bytes
    body: bytes = b""


@attrs.frozen
class Dispatch:
    """Balancer → node: run these. Each lease is on the ledger's disk already."""

    items: tuple[Lease, ...]


@attrs.frozen
class Begun:
    """Node → balancer: these attempts run now."""

    attempts: tuple[AttemptId, ...] = attrs.field(validator=_named)


@attrs.frozen
class Cancel:
    """Balancer → node: end these attempts (SIGTERM, later SIGKILL) and report their outcome."""

    attempts: tuple[AttemptId, ...] = attrs.field(validator=_named)


@attrs.frozen
class Drop:
    """Balancer → node: these attempts were given to others; end them, nobody waits for their outcome."""

    attempts: tuple[AttemptId, ...] = attrs.field(validator=_named)


@attrs.frozen
class Recall:
    """Balancer → node: hand these back where they have not begun."""

    attempts: tuple[AttemptId, ...] = attrs.field(validator=_named)


@attrs.frozen
class Returned:
    """Node → balancer: not begun and no longer held. Neither a failure nor a crash."""

    attempts: tuple[AttemptId, ...] = attrs.field(validator=_named)


# --- results back ------------------------------------------------------------------------------------------------


@attrs.frozen
class Reported:
    """How an attempt ended, as its runner keeps it until the ledger has acknowledged it."""

    attempt: int = attrs.field(validator=_attempt)
    boot_id: str
    outcome: Outcome


@attrs.frozen
class Pair:
    """A job id and its result: a packed `Reported` on the way to the ledger, a packed `Ended` on the way back."""

    ticket: str = attrs.field(validator=_ticket)
    record: bytes
    output: bytes = b""


@attrs.frozen
class RequestOfRes:
    """Either way, REQUEST_OF_RES: the ids whose results are wanted."""

    tickets: tuple[str, ...] = attrs.field(validator=_tickets)


@attrs.frozen
class Result:
    """Either way, RESULT: pairs of job id and result."""

    items: tuple[Pair, ...]


@attrs.frozen
class ResReq:
    """Either way, RES_REQ: both in one message."""

    items: tuple[Pair, ...]
    tickets: tuple[str, ...] = attrs.field(validator=_tickets)


@attrs.frozen
class Acknowledged:
    """Balancer → node: these outcomes are settled on the ledger's disk (recorded or, when late, dropped)."""

    attempts: tuple[AttemptId, ...] = attrs.field(validator=_named)


@attrs.frozen
class Lapsed:
    """Balancer → node: these of your tickets ended and were expired while you were away."""

    tickets: tuple[str, ...] = attrs.field(validator=_tickets)


@attrs.frozen
class Notices:
    """Balancer → node: what became of jobs that you issued and that had ended: `revived` ones are live again (RETRY),
    `forgotten` ones are gone (FORGET). Sent on every link until a Noticed for it comes back."""

    revived: tuple[str, ...] = attrs.field(default=(), validator=_tickets)
    forgotten: tuple[str, ...] = attrs.field(default=(), validator=_tickets)


@attrs.frozen
class Noticed:
    """Node → balancer: these notices are on our disk."""

    revived: tuple[str, ...] = attrs.field(default=(), validator=_tickets)
    forgotten: tuple[str, ...] = attrs.field(default=(), validator=_tickets)


# --- questions ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Inquiry:
    """Either way: a client's request that the other side can answer. `verb` is the protocol's, in lower case."""

    id: int
    verb: str
    ticket: str | None = None
    group: str | None = attrs.field(default=None, validator=attrs.validators.optional(_option))
    state: str | None = None
    limit: int = 0
    tickets: tuple[str, ...] = ()  # WATCH
    since: str | None = None  # a cursor of WATCH or EVENTS, as the client said it
    attempt: int = 0  # LOGS: the attempt and
    stdout_at: int = 0  # how much of its standard output and
    stderr_at: int = 0  # of its standard error the client has


@attrs.frozen
class Forget:
    """Node → balancer: the client that asked this went away, or has waited long enough."""

    id: int


@attrs.frozen
class Answer:
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
