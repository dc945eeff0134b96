"""The reception of a node: what clients ask for goes to the one whom it concerns.

    SUBMIT, RUN ....... the submissions, unless nothing is taken in at this moment; many plain ones together
    DRAIN, UNDRAIN .... the drain
    CANCEL ............ the fallback, where it can be done without the ledger
    all else .......... the desk

Pure.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final

from common import lines
from common.events import Asked
from node.desk import Desk
from node.drain import Drain
from node.fallback import Fallback
from node.intake import is_plain
from node.outbox import Outbox
from node.submissions import Submissions

FEW: Final = 3  # of fewer, one by one is as quick


class Reception:
    """`refusal` says why no job is taken in at this moment, if so."""

    def __init__(
        self,
        submissions: Submissions,
        drain: Drain,
        fallback: Fallback,
        desk: Desk,
        refusal: Callable[[], bytes | None],
        outbox: Outbox,
    ) -> None:
        self._submissions = submissions
        self._drain = drain
        self._fallback = fallback
        self._desk = desk
        self._refusal = refusal
        self._outbox = outbox

    def serve(self, asked: Asked, now: float) -> None:
        for plain, queries in groupby(asked.queries, _is_plain):
            run = list(queries)
            if plain and len(run) >= FEW and self._refusal() is None:
                submits = [(id, query) for id, query in run if isinstance(query, lines.Submit)]
                self._submissions.take_in_a_row(submits, asked.wall, now)
            else:
                self._serve_one_by_one(run, asked.wall, now)

    def _serve_one_by_one(self, queries: Iterable[tuple[int, lines.Query]], wall: float, now: float) -> None:
        refused = self._refusal()
        for query_id, query in queries:
            match query:
                case lines.Submit():
                    if refused is None:
                        self._submissions.take(query_id, query, wall, now)
                    else:
                        self._outbox.reply(query_id, refused)
                case lines.Drain():
                    self._drain.drain(query_id)
                    refused = self._refusal()
                case lines.Undrain():
                    self._drain.undrain(query_id)
                    refused = self._refusal()
                case lines.Cancel(ticket=str(text)) if (done := self._fallback.cancel(text, now, wall)) is not None:
                    self._outbox.reply(query_id, done)
                case _:
                    self._desk.ask(query_id, query, now)


def _is_plain(asked: tuple[int, lines.Query]) -> bool:
    """Whether this is a submission of which nothing has to be looked at before it is taken in."""
    query = asked[1]
    return type(query) is lines.Submit and not query.body and is_plain(query.job)
