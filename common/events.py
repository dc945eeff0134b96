"""What a machine is told. Events carry batches; an event that needs calendar time carries `wall`."""

from collections.abc import Sequence

import attrs

from common.codec import Record
from common.lines import Query
from common.messages import Hello, Inquiry, Message


class Asked(Record, frozen=True):
    """Queries of clients, each with the id under which its reply is owed."""

    queries: Sequence[tuple[int, Query]]
    wall: float


@attrs.frozen
class ClientsGone:
    """Nobody waits for these replies any more."""

    query_ids: Sequence[int]


@attrs.frozen
class Delivered:
    """The last part of these replies is written to its client: there is room for the next (`Reply.more`)."""

    query_ids: Sequence[int]


@attrs.frozen
class Inquired:
    """Questions of this program's own HTTP side; each is answered by a `Reply` under its id."""

    inquiries: Sequence[Inquiry]
    wall: float


@attrs.frozen
class Uninquired:
    """Nobody waits for the answers to these questions any more."""

    ids: Sequence[int]


@attrs.frozen
class Knocked:
    """Balancer: a node has proved the key on this link and asks to be admitted."""

    link: int
    hello: Hello


@attrs.frozen
class LinkOpened:
    """Node: the balancer has admitted us."""

    link: int
    ledger_id: str
    eager: bool


@attrs.frozen
class LinkRefused:
    """Node: the balancer answered and did not admit us."""

    reason: str


@attrs.frozen
class LinkClosed:
    """The link is gone, for whatever reason."""

    link: int
    reason: str


class Received(Record, frozen=True):
    """What one read of a link brought."""

    link: int
    messages: Sequence[Message]
    wall: float


@attrs.frozen
class StoreLevel:
    """How full the store is: a fraction of the map, and whether the disk has room."""

    fraction: float
    disk_full: bool
    wall: float


@attrs.frozen
class Stop:
    """The program was asked to end as planned."""
