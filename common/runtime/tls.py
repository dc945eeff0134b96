"""TLS on a stream: the handshake with words for what goes wrong, and an end at which nothing is lost.

Either side may meet one that speaks plainly. Who answers looks at the first byte before it begins, and so can say in
plain words what is wanted (`NotTls`); who dials hears that no TLS came back. Nobody waits for bytes that never come.

Whoever is given a stream calls `handshake` first, which does nothing where there is no TLS.
"""

import socket
import ssl
from typing import Any, Final

import structlog
import trio

from common.certificates import TlsSettings, readable_by_others
from common.runtime.sockets import Settling, socket_of

FIRST_BYTE: Final = b"\x16"  # of every TLS connection: a handshake record. No request and no frame begins with it
FIRST_BYTES: Final = b"\x16\x03"
LAST_WORD_S: Final = 1.0  # whoever is refused gets this long to read why

_log = structlog.get_logger()


class HandshakeFailed(Exception):
    """It came to no TLS connection; the text says why."""


class NotTls(HandshakeFailed):
    """The other side speaks plainly."""

    def __init__(self, plain: trio.abc.Stream) -> None:
        super().__init__("it does not speak TLS, and this port does")
        self._plain = plain

    async def answer(self, data: bytes) -> None:
        """Tells it so, in a way that it understands, and closes the connection."""
        try:
            with trio.move_on_after(LAST_WORD_S):
                await self._plain.send_all(data)
                await self._plain.aclose()
        except trio.BrokenResourceError:
            pass  # it has gone


async def handshake(stream: trio.abc.Stream) -> None:
    """Before anything is read or written by whoever was dialled. Raises HandshakeFailed."""
    if not isinstance(stream, trio.SSLStream):
        return
    try:
        if not await _begins_with_tls(stream):
            raise NotTls(stream.transport_stream)
        await stream.do_handshake()
    except (trio.BrokenResourceError, OSError) as error:
        await _say_why_and_close(stream)
        raise HandshakeFailed(f"the TLS handshake failed: {why_broken(error)}") from error


async def dial(host: str, port: int, context: ssl.SSLContext | None) -> trio.abc.Stream:
    """A connection to whoever has a certificate for this name; without a context, a plain one. Raises OSError."""
    stream = await trio.open_tcp_stream(host, port)
    if context is None:
        return stream
    secured = trio.SSLStream(Settling(stream), context, server_hostname=host)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await _say_why_and_close(secured)
        hint = ": does it serve TLS?" if _is_end(error.__cause__) else ""
        raise ConnectionError(f"no TLS connection to {host}:{port}: {why_broken(error)}{hint}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def tell_readable_key(settings: TlsSettings) -> None:
    """A warning, where every user of this machine can read the key. Not more: in containers that is usual."""
    path = readable_by_others(settings)
    if path is not None:
        _log.warning("key.readable", file=str(path), advice="every user of this machine can read it: chmod o= it")


def why_broken(error: BaseException) -> str:
    """What broke a stream, in words for people."""
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    match cause:
        case ssl.SSLCertVerificationError():
            return f"the certificate of the other side is refused: {cause.verify_message}"
        case _ if _is_end(cause):
            return "the other side closed the connection"
        case ssl.SSLError(reason=str(reason)) if reason in _REASONS:
            return _REASONS[reason]
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case OSError(strerror=str(text)):
            return text.lower()
        case _:
            return "the connection broke"


_REASONS: Final = {
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
    "RECORD_LAYER_FAILURE": "the other side does not speak TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other side wants to see a certificate (JOBYARD_TLS_CERT)",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other side showed no certificate, and must (JOBYARD_TLS_CERT)",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not know the CA of our certificate (JOBYARD_TLS_CA)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other side refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the other side refuses our certificate: it has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the other side refuses our certificate",
}  # fmt: skip


async def _say_why_and_close(stream: "trio.SSLStream[Any]") -> None:
    """After a handshake that failed. OpenSSL has an alert for the other side then, which trio does not send."""
    alert = getattr(stream, "_outgoing", ssl.MemoryBIO()).read()
    try:
        with trio.move_on_after(LAST_WORD_S):
            await stream.transport_stream.send_all(alert)
            await stream.transport_stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it has gone
    finally:
        await trio.aclose_forcefully(stream.transport_stream)


def _is_end(cause: BaseException | None) -> bool:
    """OpenSSL 3 has two names for it."""
    ends = ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    return isinstance(cause, ends) or getattr(cause, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"


async def _begins_with_tls(stream: "trio.SSLStream[trio.abc.Stream]") -> bool:
    """Looks at the first byte without taking it. True where there is none to look at: the handshake will tell."""
    plain = socket_of(stream)
    if plain is None:
        return True
    first = await plain.socket.recv(1, socket.MSG_PEEK)
    return not first or first == FIRST_BYTE
