"""What tests of clients share: no settings from outside, and an address at which nobody listens."""

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOBYARD_URL", "JOBYARD_CLIENT_TOKEN", "JOBYARD_CLIENT_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """An address at which nobody listens, and nobody will while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{bound.getsockname()[1]}"
