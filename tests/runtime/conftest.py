"""What tests of clients share: either client, no settings from outside, and an address at which nobody listens."""

import socket
from collections.abc import Iterator

import pytest

from jobyard import Client
from tests.runtime.both_clients import Connect, InTrio


@pytest.fixture(params=[Client, InTrio], ids=["blocking", "trio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Makes a client: the blocking one and, in another run of the same test, the one for trio."""
    connect: Connect = request.param
    return connect


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOBYARD_URL", "JOBYARD_CLIENT_TOKEN", "JOBYARD_CLIENT_TOKEN_FILE", "JOBYARD_TLS_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """An address at which nobody listens, and nobody will while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{bound.getsockname()[1]}"
