"""Playing a workload against a cluster, in real time: each request is submitted when its moment has come.

A map is a job `sleep`, and a reduce one with `after=` all maps of its request; both have the request's group, and the
names `map` and `reduce`. What is due at one moment is submitted in one batch. A player that cannot keep up submits
late, and says by how much; it never leaves anything out.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobyard.client import Client
from jobyard.model import Job, Ticket
from jobyard.protocol import duration
from jobyard.workload import Request


@dataclass(frozen=True, slots=True)
class Played:
    """A request that has been submitted."""

    group: str
    request: Request
    maps: tuple[Ticket, ...]
    reduces: tuple[Ticket, ...]
    late_s: float  # after its moment


def group_of(name: str, number: int) -> str:
    """The group of a request, by its place in the workload from 1."""
    return f"{name}-{number}"


def map_jobs(request: Request, group: str) -> list[Job]:
    return [Job("sleep", duration(seconds), name="map", group=group) for seconds in request.maps_s]


def reduce_jobs(request: Request, group: str, maps: Sequence[Ticket]) -> list[Job]:
    return [Job("sleep", duration(seconds), name="reduce", group=group, after=maps) for seconds in request.reduces_s]


def play(
    client: Client,
    requests: Sequence[Request],
    name: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Played]:
    """Submits the requests, which are in the order of their moments, and tells of each. `name` is what their groups
    begin with."""
    began_at = clock()
    at = 0
    while at < len(requests):
        sleep(max(0.0, requests[at].at_s - (clock() - began_at)))
        now_s = clock() - began_at
        due = [(number, request) for number, request in enumerate(requests[at:], at + 1) if request.at_s <= now_s]
        yield from _submit(client, name, due or [(at + 1, requests[at])], lambda: clock() - began_at)
        at += max(1, len(due))


def _submit(
    client: Client, name: str, due: list[tuple[int, Request]], elapsed_s: Callable[[], float]
) -> Iterator[Played]:
    groups = [group_of(name, number) for number, _ in due]
    tickets = iter(client.submit_many([job for group, (_, one) in zip(groups, due, strict=True)
                                       for job in map_jobs(one, group)]))  # fmt: skip
    maps = [tuple(next(tickets) for _ in one.maps_s) for _, one in due]
    late_s = elapsed_s()
    tickets = iter(client.submit_many([job for group, (_, one), done in zip(groups, due, maps, strict=True)
                                       for job in reduce_jobs(one, group, done)]))  # fmt: skip
    for group, (_, one), done in zip(groups, due, maps, strict=True):
        reduces = tuple(next(tickets) for _ in one.reduces_s)
        yield Played(group, one, done, reduces, max(0.0, late_s - one.at_s))
