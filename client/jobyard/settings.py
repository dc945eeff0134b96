"""What the environment says to a client: where nodes are, the token that they want to see, and whom to believe that
he is one.

Whatever is given in code comes first.
"""

import os
import ssl
from pathlib import Path
from typing import TypeAlias

from jobyard.addresses import URL_DEFAULT, Route, parse_url

FilePath: TypeAlias = str | os.PathLike[str]


def route_of(url: str | None) -> Route:
    """By JOBYARD_URL, where no URL is given. Raises ValueError."""
    return Route(parse_url(url or os.environ.get("JOBYARD_URL") or URL_DEFAULT))


def token_of(token: str | None) -> str | None:
    """By JOBYARD_CLIENT_TOKEN or the file JOBYARD_CLIENT_TOKEN_FILE, where no token is given. Raises OSError."""
    if token:
        return token
    path = os.environ.get("JOBYARD_CLIENT_TOKEN_FILE")
    token = os.environ.get("JOBYARD_CLIENT_TOKEN")
    if token is None and path:
        token = Path(path).read_text(encoding="utf-8").strip()
    return token or None


def trust_of(ca: FilePath | None) -> ssl.SSLContext:
    """What is demanded of the nodes at `tls://`: a certificate for the name that is dialled, of the CA in the PEM file
    JOBYARD_TLS_CA, where none is given; without either, of those that this machine trusts. Raises OSError."""
    path = ca or os.environ.get("JOBYARD_TLS_CA") or None
    try:
        context = ssl.create_default_context(cafile=path)
    except OSError as error:
        why = "holds no PEM certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise OSError(f"the CA file {str(path)!r} (JOBYARD_TLS_CA) {why}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
