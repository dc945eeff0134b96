"""What the environment says to a client: where nodes are, and the token that they want to see.

Whatever is given in code comes first.
"""

import os
from pathlib import Path

from jobyard.addresses import URL_DEFAULT, Route, parse_url


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
