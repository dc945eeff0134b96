"""Certificates for tests of TLS: a CA, what it signs, and what a stranger would show."""

import datetime
import functools
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

NAMES: Final = ("127.0.0.1", "localhost")
YEAR: Final = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Certified:
    """The files of one certificate, and of the CA that its owner trusts."""

    cert: Path
    key: Path
    ca: Path

    @property
    def env(self) -> dict[str, str]:
        """As settings of a program."""
        return {"JOBYARD_TLS_CERT": str(self.cert), "JOBYARD_TLS_KEY": str(self.key), "JOBYARD_TLS_CA": str(self.ca)}

    def served(self) -> ssl.SSLContext:
        """As a server uses it that demands nothing of its clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


@functools.cache
def authority(name: str = "ours") -> trustme.CA:
    """Making keys takes time, so each CA is made once."""
    return trustme.CA(organization_name=name)


def certified(directory: Path, *names: str, by: str = "ours", expired: bool = False) -> Certified:
    """Writes the files of a new certificate for these names (by default, for this machine)."""
    ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    times = {"not_before": ended - YEAR, "not_after": ended} if expired else {}
    issued = authority(by).issue_cert(*(names or NAMES), **times)
    directory.mkdir(parents=True, exist_ok=True)
    files = Certified(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    files.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(files.key)
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(files.cert, append=number > 0)
    authority(by).cert_pem.write_to_path(files.ca)
    return files
