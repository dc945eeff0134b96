"""What a step sends: gathered for each link, so that a step sends one batch of each kind, and in a fixed order.

Acknowledgements leave before leases, and leases before what ends them; and the links on which leases go out come
first, because there somebody has something to begin. Messages that are not batched go out in the order in which they
were decided. Pure.
"""

from collections.abc import Iterator
from typing import Any

import attrs

from balancer.roster import Node
from common.effects import Hangup, Note, Reply, Send
from common.frames import batches
from common.messages import Acknowledged, AttemptId, Cancel, Dispatch, Drop, Lapsed, Lease, Message, Taken


@attrs.define(eq=False)
class Mail:
    """The batches for one link."""

    taken: list[str] = attrs.field(factory=list)
    aliases: list[tuple[str, str]] = attrs.field(factory=list)
    conflicts: list[tuple[str, str]] = attrs.field(factory=list)
    lapsed: list[str] = attrs.field(factory=list)
    acknowledged: list[AttemptId] = attrs.field(factory=list)
    drops: list[AttemptId] = attrs.field(factory=list)
    leases: list[Lease] = attrs.field(factory=list)
    cancels: list[AttemptId] = attrs.field(factory=list)
    awaited: bool = False  # a client waits for what is said here of a job

    @property
    def is_receipt(self) -> bool:
        """Whether it only says that a single job or outcome was written down, and nobody waits for that: on an idle
        cluster a node would be woken for it in the very moment in which others have that job in hand."""
        more = self.aliases or self.conflicts or self.lapsed or self.drops or self.leases or self.cancels
        return not more and not self.awaited and len(self.taken) <= 1 and len(self.acknowledged) <= 1

    def messages(self) -> Iterator[Message]:
        if self.taken:
            yield Taken(tuple(self.taken), tuple(self.aliases), tuple(self.conflicts))
        if self.lapsed:
            yield Lapsed(tuple(self.lapsed))
        if self.acknowledged:
            yield Acknowledged(tuple(self.acknowledged))
        if self.drops:
            yield Drop(tuple(self.drops))
        for items in batches(self.leases, lambda lease: len(lease.job) + len(lease.body)):
            yield Dispatch(items)
        if self.cancels:
            yield Cancel(tuple(self.cancels))


class Outbox:
    """The actions of the step under way."""

    def __init__(self) -> None:
        self._actions: list[Any] = []
        self._mail: dict[int, Mail] = {}

    def to(self, node: Node) -> Mail:
        """The batches for this node, to be added to."""
        link = _link_of(node)
        mail = self._mail.get(link)
        if mail is None:
            mail = self._mail[link] = Mail()
        return mail

    def send(self, node: Node, message: Message) -> None:
        self.send_on(_link_of(node), message)

    def send_on(self, link: int, message: Message) -> None:
        self._actions.append(Send(link, message))

    def reply(self, query_id: int, reply: bytes) -> None:
        """The answer to a question of our own HTTP side."""
        self._actions.append(Reply(query_id, reply))

    def hang_up(self, link: int, reason: str) -> None:
        self.link_closed(link)
        self._actions.append(Hangup(link, reason))

    def link_closed(self, link: int) -> None:
        """Nothing batched can reach it any more."""
        self._mail.pop(link, None)

    def note(self, event: str, level: str = "info", **fields: object) -> None:
        self._actions.append(Note(event, level, fields))

    def take(self) -> tuple[object, ...]:
        """Everything, in order; the outbox is empty again."""
        for link, mail in sorted(self._mail.items(), key=lambda item: not item[1].leases):
            can_wait = mail.is_receipt
            self._actions += [Send(link, message, can_wait) for message in mail.messages()]
        actions = tuple(self._actions)
        self._mail.clear()
        self._actions.clear()
        return actions


def _link_of(node: Node) -> int:
    assert node.link is not None, f"{node.record.name} is not connected"
    return node.link
