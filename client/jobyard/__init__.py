"""Jobyard's client: hand a job to any node of a cluster, get a ticket, fetch the result from any node.

    from jobyard import Client

    with Client() as yard:                                  # JOBYARD_URL, or tcp://127.0.0.1:9000
        ticket = yard.submit("sh", "sha256sum /etc/hostname")
        print(yard.wait(ticket).stdout.decode())

It speaks nothing but the documented client protocol. What decides is shared and pure; a shell around it waits.

    model.py       what travels, as frozen values                   pure
    errors.py      what can go wrong, by code                       pure
    addresses.py   where nodes are, and which is in use             pure
    protocol.py    bytes ↔ requests and replies                     pure
    decoding.py    replies as values                                pure
    verbs.py       a request for each verb, and how it is answered  pure
    batch.py       many submissions in flight                       pure
    watching.py    waiting for many jobs                            pure
    following.py   output and events as they come                   pure
    graphs.py      jobs that wait for jobs, and their order         pure
    mapreduce.py   which jobs a map_reduce comes to, step by step
    travelling.py  what it runs in the cluster
    settings.py    what the environment says
    connection.py  one socket to one node
    client.py      Client: fail-over, and a method for each verb
    reducing.py    its map_reduce
    aio/           its twin for trio
    futures/       JobyardExecutor: Python functions on a cluster, as concurrent.futures has them
    joblib.py      a backend for joblib, and so for scikit-learn
    cli/           the command `jobyard`
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
    JobFailed,
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
from jobyard.model import (
    Drained,
    Event,
    Events,
    Explanation,
    Job,
    JobOptions,
    Listing,
    Logs,
    Node,
    Outcome,
    Status,
    Ticket,
    Watched,
)
from jobyard.version import __version__

__all__ = [
    "BadRequest",
    "Client",
    "Conflict",
    "Drained",
    "Draining",
    "Event",
    "Events",
    "Expired",
    "Explanation",
    "Forbidden",
    "Full",
    "Internal",
    "Job",
    "JobFailed",
    "JobOptions",
    "JobyardError",
    "Listing",
    "Logs",
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
    "Watched",
    "__version__",
]
