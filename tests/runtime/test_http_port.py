"""The HTTP port on real sockets: bounds that protect the program, ends that wait for nobody, and nothing where off."""

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trio
import trio.testing

from balancer.app import tell_no_token
from common import certificates
from common.certificates import TlsSettings
from common.runtime import http
from common.runtime.http import Server
from common.runtime.http_side import FILE, Site, run_http_side
from common.runtime.ports import listen
from common.runtime.tally import Tally
from common.runtime.web import Refused, Streams, application, sent_event
from common.runtime.web import json as as_json
from common.settings import load_balancer
from tests.certified import certified

SOON_S = 10.0  # real time; no test waits for it unless it fails


async def hello(request: Any) -> Any:
    return as_json({"hello": "you"})


async def much(request: Any) -> Any:
    return as_json("x" * 50_000_000)


def follow(streams: Streams) -> Callable[[Any], Awaitable[Any]]:
    async def pieces() -> Any:
        for number in range(1_000_000):
            yield sent_event(b'{"n": %d}' % number, f"c.{number}")
            await trio.sleep(0.01)

    async def endpoint(request: Any) -> Any:
        return streams.response(pieces())

    return endpoint


def make_app(streams: Streams | None = None, token: str | None = None) -> Any:
    routes = {"/hello": hello, "/much": much, "/stream": follow(streams or Streams())}
    return application(routes, token=token, listens_on="127.0.0.1")


@asynccontextmanager
async def served(app: Any = None, **bounds: Any) -> AsyncIterator[int]:
    """The port; when the `with` is left the server must end at once."""
    ports = await listen(("127.0.0.1", 0), bounds.pop("context", None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(Server(app or make_app(), **bounds).run, ports))
        with trio.fail_after(SOON_S):
            yield ports[0].listener.socket.getsockname()[1]
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < SOON_S / 2, "the end took too long"
    hang_up()


_dialled: list[trio.SocketStream] = []


def hang_up() -> None:
    """Closes what a test has dialled."""
    while _dialled:
        _dialled.pop().socket.close()


async def dial(port: int) -> trio.SocketStream:
    _dialled.append(await trio.open_tcp_stream("127.0.0.1", port))
    return _dialled[-1]


async def until(what: Callable[[], object]) -> None:
    """For what other threads and the other ends of sockets do, there is no event."""
    for _ in iter(what, True):
        await trio.sleep(0.01)


async def read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        while data := await stream.receive_some(65536):
            received += data
    except trio.BrokenResourceError:
        pass
    return received


def tls_of(directory: Path) -> TlsSettings:
    files = certified(directory / "files")
    return TlsSettings(tls_cert=files.cert, tls_key=files.key)


GET = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def test_a_client_is_answered_and_may_ask_again_on_its_connection() -> None:
    async with served() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            response = await client.get("/hello")
            assert response.json() == {"hello": "you"}
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers


async def test_connections_beyond_the_limit_are_told_so_and_there_is_room_again() -> None:
    async with served(connections_max=2) as port:
        held = [await dial(port) for _ in range(2)]
        for stream in held:
            await stream.send_all(GET % b"/stream")
            await stream.receive_some(1)
        assert b"503" in (await read_all(await dial(port))).partition(b"\r\n")[0]
        for stream in held:
            await stream.aclose()
        while True:
            stream = await dial(port)
            await stream.send_all(GET % b"/hello")
            if b"200" in await stream.receive_some(65536):
                break
            await trio.sleep(0.01)
        await stream.aclose()


async def test_no_more_are_turned_away_at_once_than_are_allowed_and_others_end_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HTTP_REFUSALS_MAX", 2)
    monkeypatch.setattr(http, "GONE_S", 3600.0)
    ended: list[bytes] = []

    async def keep_silent(port: int) -> None:
        ended.append(await read_all(await dial(port)))

    context = certificates.port_context(tls_of(tmp_path), demanding=False)
    async with served(connections_max=0, context=context) as port, trio.open_nursery() as strangers:
        for _ in range(3):
            strangers.start_soon(keep_silent, port)
        await until(lambda: len(ended) > 0)
        assert ended == [b""]
        strangers.cancel_scope.cancel()


async def test_who_speaks_plainly_to_a_busy_port_of_tls_is_told_of_tls(tmp_path: Path) -> None:
    context = certificates.port_context(tls_of(tmp_path), demanding=False)
    with structlog.testing.capture_logs() as logs:
        async with served(connections_max=0, context=context) as port:
            plain = await dial(port)
            await plain.send_all(GET % b"/hello")
            assert b"https://" in await read_all(plain)
    assert logs == []


async def test_who_never_finishes_his_request_is_cut() -> None:
    async with served(idle_s=0.2) as port:
        stream = await dial(port)
        await stream.send_all(b"GET /hello HTTP/1.1\r\n")
        assert await read_all(stream) == b""


async def test_an_endless_head_is_refused() -> None:
    async with served() as port:
        stream = await dial(port)
        await stream.send_all(b"GET /hello HTTP/1.1\r\nx: " + b"y" * 40_000)
        assert b" 431 " in (await read_all(stream)).partition(b"\r\n")[0] + b" "


async def test_who_does_not_read_is_cut_and_others_are_served_meanwhile() -> None:
    async with served(send_s=0.3) as port:
        slow = await dial(port)
        await slow.send_all(GET % b"/much")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/hello")).status_code == 200
        await trio.sleep(0.5)
        assert len(await read_all(slow)) < 50_000_000


async def test_the_end_waits_for_nobody_who_does_not_read() -> None:
    async with served(send_s=3600.0) as port:
        slow, following = await dial(port), await dial(port)
        await slow.send_all(GET % b"/much")
        await following.send_all(GET % b"/stream")
        await following.receive_some(1)
        await trio.sleep(0.1)


async def test_events_come_as_they_are_made_and_a_client_that_goes_makes_room() -> None:
    streams = Streams(most=1)
    async with served(make_app(streams)) as port:
        stream = await dial(port)
        await stream.send_all(GET % b"/stream")
        received = b""
        while received.count(b"\n\n") < 3:
            received += await stream.receive_some(65536)
        assert b"content-type: text/event-stream" in received
        assert b'id: c.0\ndata: {"n": 0}\n\n' in received
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/stream")).status_code == 503
            await stream.aclose()
            await until(lambda: streams.open == 0)
            assert (await client.head("/stream")).status_code == 200


async def test_what_is_no_http_harms_nobody() -> None:
    async with served() as port:
        for garbage in (
            b"submit sleep 1\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0" * 99,
        ):
            stream = await dial(port)
            await stream.send_all(garbage)
            await stream.send_eof()
            await read_all(stream)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/hello")).status_code == 200


async def test_a_websocket_is_refused() -> None:
    async with served() as port:
        stream = await dial(port)
        upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += b"Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
        await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % upgrade)
        assert b" 403" in (await read_all(stream)).partition(b"\r\n")[0]


async def test_http_2_is_not_spoken_to_who_begins_with_it() -> None:
    async with served() as port:
        stream = await dial(port)
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")  # and its settings
        assert await read_all(stream) == b""


async def test_who_wishes_for_http_2_is_answered_as_if_he_did_not() -> None:
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    async with served() as port:
        for _ in range(2):
            stream = await dial(port)
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % wish)
            assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200 ")


# --- beside the program ------------------------------------------------------------------------------------------


@asynccontextmanager
async def beside(
    directory: Path, address: tuple[str, int] = ("127.0.0.1", 0), tls: TlsSettings | None = None, **more: Any
) -> AsyncIterator[None]:
    make = more.pop("make", lambda: Site(make_app()))
    async with trio.open_nursery() as nursery:
        run = partial(
            run_http_side, address, tls or TlsSettings(), directory, Tally(lambda: 0.0), make, try_again_s=0.05
        )
        nursery.start_soon(run)
        with trio.fail_after(SOON_S):
            yield
        nursery.cancel_scope.cancel()
    hang_up()


async def address_in(directory: Path) -> str:
    await until((directory / FILE).exists)
    return (directory / FILE).read_text().strip()


async def test_the_address_in_use_is_written(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("127.0.0.1:1\n")  # of the former process
    async with beside(tmp_path):
        await until(lambda: (tmp_path / FILE).exists() and (tmp_path / FILE).read_text() != "127.0.0.1:1\n")
        address = await address_in(tmp_path)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://{address}/hello")).status_code == 200


async def test_an_address_that_is_taken_is_logged_once_and_had_when_it_is_free(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with beside(tmp_path, taken.getsockname()):
            await trio.sleep(0.3)
            assert [line["event"] for line in logs] == ["http.unavailable"]
            assert "address" in logs[0]["problem"].lower()
            taken.close()
            assert await address_in(tmp_path)


async def test_an_error_while_it_is_made_is_logged_and_it_is_tried_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def make() -> Site:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("not yet")
        return Site(make_app())

    with structlog.testing.capture_logs() as logs:
        async with beside(tmp_path, make=make):
            assert await address_in(tmp_path)
    assert [line["event"] for line in logs] == ["http.failed", "http.failed", "http.started"]


async def test_an_error_of_what_runs_beside_does_not_get_out(tmp_path: Path) -> None:
    async def fail() -> None:
        await trio.sleep(0.05)
        raise RuntimeError("broken")

    with structlog.testing.capture_logs() as logs:
        async with beside(tmp_path, make=lambda: Site(make_app(), [fail])):
            await until(lambda: any(line["event"] == "http.failed" for line in logs))


async def test_with_a_certificate_it_speaks_tls_and_says_so_to_who_does_not(tmp_path: Path) -> None:
    files = certified(tmp_path / "files")
    async with beside(tmp_path, tls=TlsSettings(tls_cert=files.cert, tls_key=files.key)):
        address = await address_in(tmp_path)
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=files.ca)) as client:
            assert (await client.get(f"https://{address}/hello")).status_code == 200
        plain = await dial(int(address.rpartition(":")[2]))
        await plain.send_all(GET % b"/hello")
        assert b"https://" in await read_all(plain)


def test_a_balancer_that_serves_http_without_a_token_says_so() -> None:
    with structlog.testing.capture_logs() as logs:
        tell_no_token(load_balancer({"JOBYARD_CLIENT_TOKEN": "s" * 20}))
        assert logs == []
        tell_no_token(load_balancer({}))
    assert [(line["event"], line["log_level"]) for line in logs] == [("http.no_token", "info")]


def test_where_it_is_off_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, json, balancer.app, node.app; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"starlette", "hypercorn", "prometheus_client", "h11", "anyio"} & set(json.loads(told.stdout))


def test_an_error_says_its_status() -> None:
    assert (Refused("FULL", "x").status, Refused("EXPIRED", "x").status) == (500, 410)
