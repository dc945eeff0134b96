"""What the balancer answers over HTTP: metrics, health, and the JSON API on which dashboards and scripts are built.

    GET /metrics · /healthz · /readyz
    GET /api/v1/overview · nodes · jobs · events · throughput · failures · stream
    GET /api/v1/jobs/{ticket} · jobs/{ticket}/output · jobs/{ticket}/events
    GET / and /page/…: the dashboard (`balancer/page/`), which asks the API as anybody would; its files need no token

`/api/v1/openapi.json` describes all of it (`balancer/openapi.py`). Everything comes from the machine, asked as clients
ask it, or from the tally; this module translates, and decides nothing.
"""

from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from balancer.openapi import DOCUMENT
from common import __version__
from common.limits import OPTION_BYTES_MAX
from common.model import State
from common.replies import Read, read_reply
from common.runtime import metrics, web
from common.runtime.asking import Asking, TooSlow
from common.runtime.http_side import Site
from common.runtime.tally import FAILURES_KEPT, SECONDS_KEPT, Tally
from common.settings import BalancerSettings

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1000
OUTPUT_BYTES_DEFAULT: Final = 64 * 1024
OUTPUT_BYTES_MAX: Final = 1024 * 1024
STREAM_PERIOD_S: Final = 1.0
QUIET_S: Final = 15.0  # then a stream without news says that it is still there
FAILURES_IN_SNAPSHOT: Final = 20
CURSOR_BYTES_MAX: Final = 200
PAGE_DIRECTORY: Final = Path(__file__).with_name("page")
PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def site(settings: BalancerSettings, asking: Asking, tally: Tally, directory: Path) -> Site:
    """Everything that the balancer serves over HTTP."""
    api = Api(asking, tally)
    routes: dict[str, web.Endpoint] = {
        "/healthz": web.health(directory),
        "/readyz": web.readiness(asking),
        "/metrics": partial(scrape, asking, tally, settings.store_max_bytes),
        "/api/v1/openapi.json": describe,
        "/api/v1/overview": api.overview,
        "/api/v1/nodes": api.nodes,
        "/api/v1/jobs": api.jobs,
        "/api/v1/jobs/{ticket}": api.job,
        "/api/v1/jobs/{ticket}/output": api.output,
        "/api/v1/jobs/{ticket}/events": api.life,
        "/api/v1/events": api.events,
        "/api/v1/throughput": api.throughput,
        "/api/v1/failures": api.failures,
        "/api/v1/stream": api.stream,
    }
    host = settings.http_listen[0] if settings.http_listen else ""
    page = web.files(PAGE_DIRECTORY, PAGE_HEADERS)
    app = web.application(
        routes | page, token=settings.client_token, listens_on=host, open_paths=web.OPEN_PATHS | page.keys()
    )
    return Site(app, [api.snapshots.run])


async def scrape(asking: Asking, tally: Tally, store_bytes_max: int, request: Request) -> Response:
    figures = msgspec.json.decode(await asking.ask("figures"))
    text = metrics.exposition(metrics.balancer_families(figures, tally, store_bytes_max))
    return Response(text, headers={"content-type": metrics.CONTENT_TYPE})


async def describe(request: Request) -> Response:
    return web.json(DOCUMENT)


class Api:
    def __init__(self, asking: Asking, tally: Tally) -> None:
        self._asking = asking
        self._tally = tally
        self._streams = web.Streams()
        self.snapshots = Snapshots(self._snapshot)

    # --- one answer each -------------------------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        web.options(request, {})
        return web.json_of(await self._asking.ask("overview"))

    async def nodes(self, request: Request) -> Response:
        web.options(request, {})
        return web.json_of(await self._asking.ask("view nodes"))

    async def jobs(self, request: Request) -> Response:
        chosen = web.options(
            request,
            {
                "state": web.one_of(*State),
                "group": web.text_up_to(OPTION_BYTES_MAX),
                "limit": web.whole(1, PAGE_MAX),
                "cursor": web.text_up_to(CURSOR_BYTES_MAX),
            },
        )
        answer = await self._asking.ask(
            "view jobs",
            state=chosen.get("state"),
            group=chosen.get("group"),
            limit=chosen.get("limit", PAGE_DEFAULT),
            since=chosen.get("cursor"),
        )
        return web.json_of(answer)

    async def job(self, request: Request) -> Response:
        web.options(request, {})
        answer = await self._asking.ask("view job", request.path_params["ticket"])
        if answer.startswith(b"{"):
            return web.json_of(answer)
        told = _unless_refused(answer)  # by its origin: the ledger has still to learn of the job
        shown = {"ticket": request.path_params["ticket"].lower(), "state": told.fields.get("state", State.QUEUED)}
        text = "the node that took it in has it, and the ledger does not know it yet"
        return web.json({**shown, "attempts": [], "explanation": {"code": "on_its_way", "text": text}})

    async def life(self, request: Request) -> Response:
        web.options(request, {})
        return web.json_of(await self._asking.ask("view life", request.path_params["ticket"]))

    async def output(self, request: Request) -> Response:
        chosen = web.options(request, {"limit": web.whole(0, OUTPUT_BYTES_MAX)})
        ticket = request.path_params["ticket"]
        limit = chosen.get("limit", OUTPUT_BYTES_DEFAULT)
        told = _unless_refused(await self._asking.ask("logs", ticket, limit=max(1, limit)))  # 0 would be all of it
        size = int(told.fields["stdout"])
        return web.json(
            {
                "ticket": ticket.lower(),
                "state": told.fields["state"],
                "attempt": int(told.fields["attempt"]),
                "stdout": _end_of(told.body[:size], limit, int(told.fields.get("stdout_cut", 0))),
                "stderr": _end_of(told.body[size:], limit, int(told.fields.get("stderr_cut", 0))),
            }
        )

    async def throughput(self, request: Request) -> Response:
        chosen = web.options(request, {"seconds": web.whole(1, SECONDS_KEPT)})
        seconds = self._tally.last(chosen.get("seconds", SECONDS_KEPT))
        return web.json({"seconds": [attrs.asdict(second) for second in seconds]})

    async def failures(self, request: Request) -> Response:
        web.options(request, {})
        return web.json({"failures": self._failures(FAILURES_KEPT)})

    def _failures(self, most: int) -> list[dict[str, object]]:
        """The newest first."""
        newest = list(reversed(self._tally.failures))[:most]
        return [{name: value for name, value in failure.items() if value is not None} for failure in newest]

    # --- streams ---------------------------------------------------------------------------------------------------

    async def stream(self, request: Request) -> Response:
        """Snapshots of the cluster, one each STREAM_PERIOD_S."""
        web.options(request, {})
        return self._streams.response(self.snapshots.follow())

    async def _snapshot(self) -> bytes:
        overview = msgspec.Raw(await self._asking.ask("overview"))
        last = [attrs.asdict(second) for second in self._tally.last(1)]
        shown = {
            "overview": overview,
            "second": last[0] if last else None,
            "failures": self._failures(FAILURES_IN_SNAPSHOT),
            "program": {"version": __version__, "started_wall": self._tally.began_wall},
        }
        return msgspec.json.encode(shown)

    async def events(self, request: Request) -> Response:
        """Behind a cursor; with `follow=1` as a stream, from now on where none is given."""
        chosen = web.options(request, {"since": web.text_up_to(CURSOR_BYTES_MAX), "follow": web.one_of("1")})
        since = chosen.get("since", request.headers.get("last-event-id", "")[:CURSOR_BYTES_MAX] or None)
        if "follow" in chosen:
            return self._streams.response(self._follow(since or "now"))
        told = _unless_refused(await self._asking.ask("events", since=since))
        events = [msgspec.Raw(line) for line in told.body.splitlines()]
        return web.json({"events": events, "cursor": told.fields["cursor"], "lost": "lost" in told.fields})

    async def _follow(self, since: str) -> AsyncGenerator[bytes, None]:
        """Each event with a cursor as its id, so that a browser that reconnects goes on behind it. A gap is told."""
        while True:
            try:
                told = _unless_refused(await self._asking.ask("follow", since=since, wait_s=QUIET_S))
            except TooSlow:
                yield web.STILL_HERE
                continue
            since = told.fields["cursor"]
            tag = since.partition(".")[0]
            lines = told.body.splitlines()
            if "lost" in told.fields:
                yield web.LOST
            if not lines:
                yield web.STILL_HERE
            else:
                yield b"".join(web.sent_event(line, f"{tag}.{_number(line)}") for line in lines)


class _Numbered(msgspec.Struct):
    seq: int


def _number(line: bytes) -> int:
    return msgspec.json.decode(line, type=_Numbered).seq


class Snapshots:
    """Makes a snapshot each STREAM_PERIOD_S while somebody follows, one for all of them. Who is slow misses some."""

    def __init__(self, make: Callable[[], Any], period_s: float = STREAM_PERIOD_S) -> None:
        self._make = make
        self._period_s = period_s
        self._followers = 0
        self._wanted = trio.Event()
        self._made = trio.Event()
        self._last = b""

    async def run(self) -> None:
        while True:
            if not self._followers:
                self._wanted = trio.Event()
                await self._wanted.wait()
            began = trio.current_time()
            try:
                self._last = web.sent_event(await self._make())
            except TooSlow:
                self._last = web.STILL_HERE
            made, self._made = self._made, trio.Event()
            made.set()
            await trio.sleep_until(began + self._period_s)

    async def follow(self) -> AsyncGenerator[bytes, None]:
        self._followers += 1
        self._wanted.set()
        try:
            while True:
                await self._made.wait()
                yield self._last
        finally:
            self._followers -= 1


def _unless_refused(answer: bytes) -> Read:
    told = read_reply(answer)
    if told.word == "ERR":
        raise web.refused(told)
    return told


def _end_of(data: bytes, limit: int, cut_bytes: int) -> dict[str, object]:
    """The last bytes of a stream that has been cut before these, as text: what is no UTF-8 is shown as �. What comes
    from another node is not cut."""
    kept = data[len(data) - limit :] if len(data) > limit else data
    whole = cut_bytes + len(data)
    return {"text": kept.decode(errors="replace"), "bytes": whole, "cut_bytes": whole - len(kept)}
