"""What a step of the node does: replies, messages over the link, notes. The worker and its parts put it here, in the
order in which they decide it, and it is done in this order once the step is on disk. What says only what the ledger
has on its disk, or what nobody was promised, does not wait for ours (docs/decisions/0017).

Pure.
"""

from collections.abc import Sequence
from typing import Any

from common.effects import Note, Reply, Send
from common.frames import batches
from common.messages import Begun, Jobs, Message, Pair, Result, Submission

_ENVELOPE_BYTES = 40  # about what a record weighs beside its bytes


class Outbox:
    """The actions of the step that is being taken, and the link over which its messages go, while there is one."""

    def __init__(self) -> None:
        self.link: int | None = None
        self._actions: list[Any] = []
        self._at_once: list[Any] = []
        self._link_is_new = False  # opened in this step: what is said first over it is among the actions

    def link_opened(self, link: int) -> None:
        self.link, self._link_is_new = link, True

    def take(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The actions of the step, which is over: those that need not wait for its writes, and the others."""
        at_once, actions = tuple(self._at_once), tuple(self._actions)
        self._at_once.clear()
        self._actions.clear()
        self._link_is_new = False
        return at_once, actions

    def do(self, action: object) -> None:
        self._actions.append(action)

    def reply(self, query_id: int, reply: bytes, *, more: bool = False) -> None:
        self._actions.append(Reply(query_id, reply, more))

    def reply_at_once(self, query_id: int, reply: bytes) -> None:
        """The whole answer, by what is on the ledger's disk."""
        self._at_once.append(Reply(query_id, reply))

    def note(self, event: str, level: str = "info", **fields: object) -> None:
        self._actions.append(Note(event, level, fields))

    def send(self, message: Message) -> None:
        assert self.link is not None, f"a {type(message).__name__} needs a link"
        self._actions.append(Send(self.link, message))

    def send_jobs(self, submissions: Sequence[Submission], *, at_once: bool = False) -> None:
        for items in batches(
            submissions, lambda item: len(item.job) + len(item.body) + len(item.output) + _ENVELOPE_BYTES
        ):
            (self.send_at_once if at_once else self.send)(Jobs(items))

    def send_results(self, pairs: Sequence[Pair]) -> None:
        for items in batches(pairs, lambda pair: len(pair.record) + len(pair.output) + _ENVELOPE_BYTES):
            self.send_at_once(Result(items))

    def send_at_once(self, message: Begun | Result | Jobs) -> None:
        """That an attempt runs is on nobody's disk, and whether an outcome that nobody has heard of survives its runner
        was never promised; nor that a job does of which no client was told."""
        assert self.link is not None, f"a {type(message).__name__} needs a link"
        (self._actions if self._link_is_new else self._at_once).append(Send(self.link, message))
