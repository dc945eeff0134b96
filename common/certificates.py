"""The settings of TLS, and what their files make: one context for a port, and one for dialling.

Which port demands what is decided here, and nowhere else:
- Who has a certificate and its key serves TLS on its port, and nothing besides.
- Who has a CA dials by TLS, and talks only to a certificate that the CA has signed for the name that was dialled. It
  shows its own certificate, where it has one.
- A balancer that has a CA demands a certificate of it from every node. A node demands none of its clients: these
  prove themselves by their token.

Files that are missing, no PEM, or do not belong together stop the program at its start, with a line for each: checked
by loading them. Pure apart from reading these files.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from common import values
from common.environment import setting
from common.errors import shown

CERT: Final = "JOBYARD_TLS_CERT"
KEY: Final = "JOBYARD_TLS_KEY"
CA: Final = "JOBYARD_TLS_CA"
OTHERS_MAY_READ: Final = 0o004


class Unusable(Exception):
    """A file of TLS cannot be used; the text is a line for people."""


def _path(text: str) -> Path:
    return Path(values.text(text))


@attrs.frozen(kw_only=True)
class TlsSettings:
    """Of both programs."""

    tls_cert: Path | None = setting(  # noqa: RUF009 (a Path is as immutable as a str)
        CERT, _path, "none", "TLS on the port: PEM file of its certificate, with the chain", make=lambda: None
    )
    tls_key: Path | None = setting(  # noqa: RUF009
        KEY, _path, "none", "PEM file of the key of that certificate", make=lambda: None
    )
    tls_ca: Path | None = setting(  # noqa: RUF009
        CA, _path, "none", "TLS on the link: PEM file of the CA that has certified both ends", make=lambda: None
    )

    @property
    def serves_tls(self) -> bool:
        return self.tls_cert is not None and self.tls_key is not None

    @property
    def dials_by_tls(self) -> bool:
        return self.tls_ca is not None


def port_context(settings: TlsSettings, *, demanding: bool) -> ssl.SSLContext | None:
    """For the port that we listen on; None where it speaks no TLS. `demanding`: with a CA, it wants to see who dials
    certified. Raises Unusable."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = _modern(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # nothing is resumed: connections are few and long, and each shows its certificate
    _load_own(context, settings.tls_cert, settings.tls_key)
    if demanding and settings.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_trusted(context, CA, settings.tls_ca)
    return context


def dialling_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """For a node that dials its balancer; None where it does so in plain. Raises Unusable."""
    if settings.tls_ca is None:
        return None
    context = _modern(ssl.PROTOCOL_TLS_CLIENT)
    _load_trusted(context, CA, settings.tls_ca)
    if settings.tls_cert is not None and settings.tls_key is not None:
        _load_own(context, settings.tls_cert, settings.tls_key)
    return context


def problems(settings: TlsSettings, *, dials: bool) -> Iterator[str]:
    """A line for each thing that is wrong. `dials`: a node, whose port may be plain while its link is not."""
    for here, there, path in ((CERT, KEY, settings.tls_cert), (KEY, CERT, settings.tls_key)):
        if path is not None and not settings.serves_tls:
            yield f"{here}={shown(str(path))}: {there} is not set; allowed are both, or neither"
    if settings.tls_ca is not None and not dials and settings.tls_cert is None and settings.tls_key is None:
        yield (
            f"{CA}={shown(str(settings.tls_ca))}: {CERT} and {KEY} are not set, and the cluster port would listen "
            "without TLS; allowed are all three, or none"
        )
    for check in (_load_all_own, _load_all_trusted):
        try:
            check(settings)
        except Unusable as error:
            yield str(error)


def readable_by_others(settings: TlsSettings) -> Path | None:
    """The key, where every user of this machine may read it."""
    path = settings.tls_key
    return path if path is not None and path.stat().st_mode & OTHERS_MAY_READ else None


def _load_all_own(settings: TlsSettings) -> None:
    port_context(settings, demanding=False)


def _load_all_trusted(settings: TlsSettings) -> None:
    if settings.tls_ca is not None:
        _load_trusted(_modern(ssl.PROTOCOL_TLS_CLIENT), CA, settings.tls_ca)


def _modern(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    return context


def _load_own(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Loads certificate and key, and finds out which of the two is wrong, where one is."""
    _load_trusted(_modern(ssl.PROTOCOL_TLS_CLIENT), CERT, cert)
    try:
        key.open("rb").close()
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        mismatch = "MISMATCH" in (error.reason or "")
        raise _unusable(KEY, key, f"it does not belong to {CERT}" if mismatch else "it holds no PEM key") from error
    except (OSError, ValueError) as error:
        raise _unusable(KEY, key, getattr(error, "strerror", None) or str(error)) from error


def _load_trusted(context: ssl.SSLContext, name: str, path: Path) -> None:
    try:
        path.open("rb").close()
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise _unusable(name, path, "it holds no PEM certificate") from error
    except OSError as error:
        raise _unusable(name, path, error.strerror or str(error)) from error


def _no_password() -> str:
    """OpenSSL would ask at the terminal, where nobody may be."""
    raise ValueError("it is encrypted")


def _unusable(name: str, path: Path, why: str) -> Unusable:
    kind = "an unencrypted private key" if name == KEY else "one certificate or more"
    return Unusable(f"{name}={shown(str(path))}: {why}; allowed is the path of a PEM file with {kind}")
