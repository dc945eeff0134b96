"""Jobyard's client: hand a job to any node of a cluster, get a ticket, fetch the result from any node.

    from jobyard import Client

    with Client() as yard:                                  # JOBYARD_URL, or tcp://127.0.0.1:9000
        ticket = yard.submit("sh", "sha256sum /etc/hostname")
        print(yard.wait(ticket).stdout.decode())

Standard library only, blocking, and it speaks nothing but the documented client protocol:

    model.py       what travels, as frozen values      pure
    errors.py      what can go wrong, by code          pure
    protocol.py    bytes ↔ requests and replies        pure
    batch.py       many submissions in flight          pure
    connection.py  one socket to one node
    client.py      Client: fail-over, and a method for each verb
    cli.py         the command `jobyard`
"""

from jobyard.client import Client
from jobyard.errors import (
    BadRequest,
    Conflict,
    Draining,
    Expired,
    Forbidden,
    Full,
    Internal,
    JobyardError,
    NotAllSubmitted,
    NotEnded,
    ProtocolError,
    TooLarge,
    TooManyConnections,
    Unauthorized,
    Unavailable,
    Unconfirmed,
    UnknownCommand,
    UnknownTicket,
    Unreachable,
)
from jobyard.model import Job, JobOptions, Node, Outcome, Status, Ticket
from jobyard.version import __version__

__all__ = [
    "BadRequest",
    "Client",
    "Conflict",
    "Draining",
    "Expired",
    "Forbidden",
    "Full",
    "Internal",
    "Job",
    "JobOptions",
    "JobyardError",
    "Node",
    "NotAllSubmitted",
    "NotEnded",
    "Outcome",
    "ProtocolError",
    "Status",
    "Ticket",
    "TooLarge",
    "TooManyConnections",
    "Unauthorized",
    "Unavailable",
    "Unconfirmed",
    "UnknownCommand",
    "UnknownTicket",
    "Unreachable",
    "__version__",
]
