"""What every HTTP answer of ours has in common: who may ask, how errors read, health, metrics, and streams of events.

- GET and HEAD alone: nothing is changed over HTTP.
- Where a client token is set, it is wanted as `Authorization: Bearer …` for everything but /healthz, /readyz and
  the files of a page. Where none is set, we answer only to an address or a plain name in `Host`: a page of another
  site that has its own name point here must not read jobs through somebody's browser. No other site may read answers
  (no CORS).
- An error is JSON that says what is allowed: {"error": {"code": …, "message": …}}.
- A bounded number of requests is under way, and of streams; an exception is logged, and ends its request alone.

Starlette is imported here and in the two programs' `web.py` alone.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Set
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import structlog
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from common.errors import Code, shown
from common.replies import Read, read_reply
from common.runtime.asking import Asking, TooSlow
from common.runtime.pulse import health_problem

REQUESTS_MAX: Final = 128  # under way at once, streams included; but for OPEN_PATHS, whose bound are connections
STREAMS_MAX: Final = 32
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})  # who looks after processes has no token

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
Parsers: TypeAlias = Mapping[str, Callable[[str], Any]]

_STATUS: Final[Mapping[str, int]] = {
    Code.BAD_REQUEST: 400,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.UNKNOWN_TICKET: 404,
    Code.UNKNOWN_COMMAND: 404,
    Code.CONFLICT: 409,
    Code.EXPIRED: 410,
    Code.TOO_MANY_CONNECTIONS: 503,
    Code.UNAVAILABLE: 503,
}
_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

_MEDIA_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

log = structlog.get_logger()


class Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, code: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or _STATUS.get(code, 500)


def json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def json_of(answer: bytes) -> Response:
    """What a machine has answered: JSON as it stands, or raises the error that it is."""
    if answer.startswith(b"{"):
        return Response(answer, media_type="application/json")
    raise refused(read_reply(answer))


def refused(read: Read) -> Refused:
    assert read.word == "ERR", f"{read.word} was taken for an error"
    return Refused(read.code, read.message)


def error(refusal: Refused) -> Response:
    response = json({"error": {"code": refusal.code, "message": refusal.message}}, refusal.status)
    if refusal.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


# --- requests ----------------------------------------------------------------------------------------------------


def options(request: Request, parsers: Parsers) -> dict[str, Any]:
    """The query's options, each read by its parser, which raises ValueError with what is allowed."""
    read: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        if name not in parsers or name in read:
            why = "is there twice" if name in read else "is not known"
            raise Refused(Code.BAD_REQUEST, f"{shown(name)} {why}; allowed are {', '.join(parsers) or 'no options'}")
        try:
            read[name] = parsers[name](text)
        except ValueError as problem:
            raise Refused(Code.BAD_REQUEST, f"{name}={shown(text)}: {problem}") from None
    return read


def whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"allowed is a whole number from {least} to {most}")

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"allowed is one of {', '.join(words)}")

    return parse


def text_up_to(most_bytes: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if 0 < len(text.encode(errors="replace")) <= most_bytes:
            return text
        raise ValueError(f"allowed are 1 to {most_bytes} bytes")

    return parse


# --- the application ---------------------------------------------------------------------------------------------


def application(
    routes: Mapping[str, Endpoint], *, token: str | None, listens_on: str, open_paths: Set[str] = OPEN_PATHS
) -> "Guard":
    """The ASGI application with these routes; GET and HEAD of each. What is open may be read without the token."""
    handlers: dict[Any, Any] = {
        Refused: _tell_refused,
        TooSlow: _tell_slow,
        HTTPException: _tell_unknown(sorted(routes)),
        Exception: _tell_failed,  # which the guard logs
    }
    described = [Route(path, endpoint, methods=["GET"]) for path, endpoint in routes.items()]
    app = Starlette(routes=described, exception_handlers=handlers)
    return Guard(app, token, listens_on, open_paths)


async def _tell_refused(_: Request, refusal: Refused) -> Response:
    return error(refusal)


async def _tell_slow(_: Request, problem: TooSlow) -> Response:
    return error(Refused(Code.UNAVAILABLE, f"{problem}; /healthz says whether the program makes progress"))


async def _tell_failed(_: Request, __: Exception) -> Response:
    return error(Refused(Code.INTERNAL, "an error of ours, which is in the log; the cluster goes on"))


def _tell_unknown(paths: list[str]) -> Callable[[Request, HTTPException], Awaitable[Response]]:
    async def tell(request: Request, _: HTTPException) -> Response:
        message = f"there is no {shown(request.url.path)}; there are {', '.join(paths)}"
        return error(Refused("NOT_FOUND", message, status=404))

    return tell


class Guard:
    """Stands before the application: see the rules of the module."""

    def __init__(self, app: Starlette, token: str | None, listens_on: str, open_paths: Set[str]) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._listens_on = listens_on.lower()
        self._open_paths = open_paths
        self._requests = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return

        async def told(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                ours = [header for header in _HEADERS if header[0] not in said]
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        self._requests += 1
        try:
            refusal = self._refusal(scope)
            await (self._app if refusal is None else error(refusal))(scope, receive, told)
        except Exception:
            log.exception("http.request_failed", path=scope["path"])
        finally:
            self._requests -= 1

    def _refusal(self, scope: Mapping[str, Any]) -> Refused | None:
        if scope["method"] not in ("GET", "HEAD"):
            return Refused("METHOD_NOT_ALLOWED", f"{shown(scope['method'])}: allowed are GET and HEAD", status=405)
        if scope["path"] in OPEN_PATHS:  # also under load, else a program that does well is started again
            return None
        if self._requests > REQUESTS_MAX:
            return Refused(Code.UNAVAILABLE, f"{REQUESTS_MAX} requests are under way; try again later")
        if self._token is not None and scope["path"] in self._open_paths:
            return None
        given = {name: value for name, value in scope["headers"] if name in (b"authorization", b"host")}
        if self._token is None:
            host = given.get(b"host", b"").decode("latin-1")
            return None if self._may_be_called(host) else _not_by_name(host)
        scheme, _, said = given.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(said.strip(), self._token):
            return None
        return Refused(Code.UNAUTHORIZED, "the client token is wanted: Authorization: Bearer <JOBYARD_CLIENT_TOKEN>")

    def _may_be_called(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        if name == self._listens_on or "." not in name.rstrip("."):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _not_by_name(host: str) -> Refused:
    return Refused(
        Code.FORBIDDEN,
        f"Host {shown(host)}: without a client token, allowed are an address and a name without a dot, such as "
        "localhost; set JOBYARD_CLIENT_TOKEN to be reached by any name",
    )


# --- health ------------------------------------------------------------------------------------------------------


def health(directory: Path) -> Endpoint:
    """Whether the program makes progress: what `--health` looks at."""

    async def healthz(_: Request) -> Response:
        problem = health_problem(directory)
        return json({"healthy": problem is None, "why": problem or "makes progress"}, 200 if problem is None else 503)

    return healthz


def readiness(asking: Asking) -> Endpoint:
    """Whether the program takes jobs at this moment."""

    async def readyz(_: Request) -> Response:
        try:
            answer = await asking.ask("ready")
        except TooSlow as problem:
            return json({"ready": False, "why": str(problem)}, 503)
        ready = msgspec.json.decode(answer)["ready"]
        return Response(answer, 200 if ready else 503, media_type="application/json")

    return readyz


# --- files of a page --------------------------------------------------------------------------------------------


def files(directory: Path, headers: Mapping[str, str]) -> dict[str, Endpoint]:
    """The files of a page: index.html at `/`, the others below `/page/`. They are read once, so nothing that a request
    names is looked for on disk. Browsers ask each time whether theirs is still the one (ETag)."""
    paths = [path for path in sorted(directory.iterdir()) if path.suffix in _MEDIA_TYPES]
    return {"/" if path.name == "index.html" else f"/page/{path.name}": _file(path, headers) for path in paths}


def _file(path: Path, headers: Mapping[str, str]) -> Endpoint:
    data = path.read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    said = {"etag": tag, "cache-control": "no-cache", **headers}

    async def send(request: Request) -> Response:
        known = {word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")}
        if tag in known:
            return Response(status_code=304, headers=said)
        return Response(data, headers=said, media_type=_MEDIA_TYPES[path.suffix])

    return send


# --- streams of events -------------------------------------------------------------------------------------------


class Streams:
    """Server-sent events, for STREAMS_MAX clients. A client that does not read is cut by the port."""

    def __init__(self, most: int = STREAMS_MAX) -> None:
        self._most = most
        self.open = 0

    def response(self, pieces: AsyncGenerator[bytes, None]) -> Response:
        """Sends the pieces as they come, until the client goes away."""
        if self.open >= self._most:
            raise Refused(Code.UNAVAILABLE, f"{self._most} clients follow events already; try again later")
        return _Stream(self, pieces)


class _Stream(Response):
    media_type = "text/event-stream"

    def __init__(self, streams: Streams, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._streams = streams
        self._pieces = pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._streams.open += 1
        try:
            async with aclosing(self._pieces):
                if scope["method"] != "HEAD":
                    await self._send(receive, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.open -= 1

    async def _send(self, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            nursery.cancel_scope.cancel()


async def _until_gone(receive: Any, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def sent_event(data: bytes, id: str | None = None) -> bytes:
    """One event, whose data is one line."""
    return (b"" if id is None else b"id: %b\n" % id.encode()) + b"data: %b\n\n" % data


STILL_HERE: Final = b": still here\n\n"
LOST: Final = b"event: lost\ndata: {}\n\n"  # what happened between is not kept any more
