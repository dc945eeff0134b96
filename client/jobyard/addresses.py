"""Where nodes are: addresses out of a URL, and which of several is in use.

Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

URL_DEFAULT: Final = "tcp://127.0.0.1:9000"
PORT_DEFAULT: Final = 9000


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(text: str) -> tuple[Address, ...]:
    """The addresses of `tcp://host:port` or `tls://host:port`, or of several with commas between. Raises ValueError."""
    addresses = tuple(_parse_one(part.strip()) for part in text.split(",") if part.strip())
    if not addresses:
        raise ValueError("JOBYARD_URL names no node; write it like tcp://127.0.0.1:9000")
    return addresses


def _parse_one(text: str) -> Address:
    wrong = ValueError(f"{text!r} is not the address of a node; write it like tcp://127.0.0.1:9000 or tls://host:9000")
    try:
        url = urlsplit(text if "://" in text else f"tcp://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        raise wrong from None
    if (
        url.scheme not in ("tcp", "tls")
        or not host
        or "@" in url.netloc
        or url.path.strip("/")
        or url.query
        or url.fragment
    ):
        raise wrong
    return Address(host, PORT_DEFAULT if port is None else port, url.scheme == "tls")


class Route:
    """The addresses of a cluster's nodes, and the one that is in use or will be dialled next."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._at = 0

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def addresses(self) -> Sequence[Address]:
        return self._addresses

    @property
    def has_tls(self) -> bool:
        """Of any of them."""
        return any(address.tls for address in self._addresses)

    @property
    def address(self) -> Address:
        return self._addresses[self._at]

    def pass_over(self, address: Address) -> None:
        """Looks to the next address, if this one is in use: another connection may have passed over it already."""
        if address == self.address:
            self._at = (self._at + 1) % len(self._addresses)
