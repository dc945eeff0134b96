"""What is measured, in which order, and what the figures are called.

A Take is one thing that is done with one system, and brings figures for its quantities (`asking.py` says how). Takes of
one kind of session share a start of the system: `working` with two workers, `taking_in` with none, so that nothing but
the acceptance of jobs costs; `own` takes start it themselves, as often as they like.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import attrs

from benchmarks import asking
from benchmarks.asking import CLIENTS, FULL, Asked, Figures, Scale
from benchmarks.results import Quantity

Session: TypeAlias = Literal["working", "taking_in", "own"]


@attrs.frozen
class Take:
    """`rounds_max`: what takes long is not taken in every round."""

    measure: str
    session: Session
    quantities: tuple[Quantity, ...]
    run: Callable[[Asked], Figures]
    rounds_max: int = 1000
    ours_only: bool = False


def takes(scale: Scale) -> tuple[Take, ...]:
    """In the order in which they are taken."""
    return (
        *_trips(),
        *_working(),
        *_submissions(),
        *(_idle_nodes(nodes, nodes >= scale.light_nodes_from) for nodes in scale.idle_nodes),
        *(_cost(nodes) for nodes in scale.cost_nodes),
        *(_connections(count) for count in scale.connections),
        *(_bodies(kib) for kib in scale.bodies_kib),
        *(_backlog(size) for size in scale.backlogs),
    )


def _trips() -> list[Take]:
    """Before anything else in a session, so that nothing is left to do."""
    names = {"sleep": "`sleep 0`", "py": "a Python call", "exec": "`exec true`"}
    return [_trip(work, name) for work, name in names.items()]


def _trip(work: str, name: str) -> Take:
    p50, p99 = (
        Quantity(
            key=f"trip_{work}_{p}",
            measure="trip",
            title=f"Idle round trip of {name}, {p}",
            unit="ms",
            better="less",
            stands_in=f"trip_py_{p}" if work == "sleep" else "",
        )
        for p in ("p50", "p99")
    )
    return Take("trip", "working", (p50, p99), partial(asking.round_trip, prefix=f"trip_{work}", work=work))


def _working() -> list[Take]:
    idling = Quantity("idle", "idle", "Idle, the whole system with two workers", "% of a core", "less")
    command = Quantity("exec_true", "exec", "`exec true`, end to end", "jobs/s", "more")
    skew = Quantity("makespan", "makespan", "Makespan of skewed durations / the least possible", "×", "less")
    return [
        Take("idle", "working", (idling,), asking.idle, rounds_max=2),
        _noop("sleep", "`sleep 0`", stands_in="py"),
        _noop("py", "a Python call"),
        Take("exec", "working", (command,), partial(asking.end_to_end, key=command.key, work="exec")),
        Take("makespan", "working", (skew,), asking.makespan, rounds_max=3),
    ]


def _noop(work: str, name: str, stands_in: str = "") -> Take:
    rate = Quantity(
        f"noop_{work}", "noop", f"No-op end to end, {name}", "jobs/s", "more", stands_in and f"noop_{stands_in}"
    )
    cost = Quantity(
        f"processor_{work}",
        "noop",
        f"Processor time of all processes for {name}",
        "µs",
        "less",
        stands_in and f"processor_{stands_in}",
    )
    return Take(
        "noop", "working", (rate, cost), partial(asking.end_to_end, key=rate.key, work=work, processor=cost.key)
    )


def _submissions() -> list[Take]:
    each = Quantity("submit_each_p50", "submit", "Durable submit, one at a time, p50", "ms", "less")
    one = Quantity("submit_one", "submit", "Durable submit, one connection, pipelined if it can be", "jobs/s", "more")
    many = Quantity("submit_many", "submit", f"Durable submit, {CLIENTS} clients", "jobs/s", "more")
    bulk = Quantity("submit_bulk", "submit", "Durable submit, its call for many jobs", "jobs/s", "more")
    return [
        Take("submit", "taking_in", (each,), asking.submit_each),
        Take("submit", "taking_in", (one,), partial(asking.submit, key=one.key, clients=1)),
        Take("submit", "taking_in", (many,), partial(asking.submit, key=many.key, clients=CLIENTS)),
        Take("submit", "taking_in", (bulk,), asking.submit_bulk),
    ]


def _idle_nodes(nodes: int, light: bool) -> Take:
    among = f"{nodes} node{'s' if nodes > 1 else ''}"
    parts = {"balancer": f"Idle, the balancer with {among}"}
    if not light:
        parts["node"] = f"Idle, one of {among}"
    told = tuple(_of_ours(f"idle_{part}_{nodes}", "nodes-idle", title, "% of a core") for part, title in parts.items())
    return Take("nodes-idle", "own", told, partial(asking.idle_nodes, nodes=nodes), rounds_max=2, ours_only=True)


def _cost(nodes: int) -> Take:
    rate = _of_ours(f"nodes_rate_{nodes}", "nodes", f"`sleep 0` with {nodes} light nodes", "jobs/s", "more")
    cost = _of_ours(f"nodes_balancer_us_{nodes}", "nodes", f"Balancer's time for each, {nodes} light nodes", "µs")
    return Take(
        "nodes", "own", (rate, cost), partial(asking.cost_with_nodes, nodes=nodes), rounds_max=3, ours_only=True
    )


def _connections(count: int) -> Take:
    told = f"{count:,} idle connections"
    memory = Quantity(
        f"connections_memory_{count}", "connections", f"{told}: the server's own memory for each", "KiB", "less"
    )
    idling = Quantity(f"connections_idle_{count}", "connections", f"{told}: the server", "% of a core", "less")
    run = partial(asking.idle_connections, count=count)
    return Take("connections", "own", (memory, idling), run, rounds_max=2)


def _bodies(kib: int) -> Take:
    """In and out: a job's standard input, which is its output."""
    told = f"{kib:,} KiB in and out"
    rate = _of_ours(f"bodies_rate_{kib}", "bodies", f"{told}: bodies", "MiB/s", "more")
    parts = {"balancer": "the balancer", "node": "a node", "spawner": "a spawner"}
    grown = [
        _of_ours(f"bodies_growth_{part}_{kib}", "bodies", f"{told}: growth of {name}", "MiB")
        for part, name in parts.items()
    ]
    return Take("bodies", "own", (rate, *grown), partial(asking.bodies, kib=kib), rounds_max=3, ours_only=True)


def _of_ours(key: str, measure: str, title: str, unit: str, better: Literal["more", "less"] = "less") -> Quantity:
    return Quantity(key, measure, title, unit, better, ours_only=True)


def _backlog(size: int) -> Take:
    """A queue of a million is taken once, of a hundred thousand twice: they take minutes for each system."""
    told = f"{size:,} queued"
    quantities = (
        Quantity(f"backlog_rate_{size}", "backlog", f"{told}: no-ops run", "jobs/s", "more"),
        Quantity(f"backlog_us_{size}", "backlog", f"{told}: processor time for each", "µs", "less"),
        Quantity(f"backlog_memory_{size}", "backlog", f"{told}: largest process, its own memory", "MiB", "less"),
        Quantity(f"backlog_resident_{size}", "backlog", f"{told}: largest process, with mapped files", "MiB", "less"),
        Quantity(f"backlog_restart_{size}", "backlog", f"{told}: from SIGKILL to the next end", "s", "less"),
    )
    rounds_max = 5 if size <= 10_000 else 2 if size <= 100_000 else 1
    return Take("backlog", "own", quantities, partial(asking.backlog, size=size), rounds_max)


def measures() -> tuple[str, ...]:
    """The words for ONLY=."""
    return tuple(dict.fromkeys(take.measure for take in takes(FULL)))


def selected(scale: Scale, only: str) -> tuple[Take, ...]:
    """The takes of these measures (all, or names by commas). Raises ValueError."""
    if only == "all":
        return takes(scale)
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if word not in measures():
            raise ValueError(f"ONLY={word} is no measure; there are {', '.join(measures())}, and all")
    return tuple(take for take in takes(scale) if take.measure in words)


def quantities(chosen: Sequence[Take]) -> tuple[Quantity, ...]:
    """Without repetition, in order."""
    return tuple(dict.fromkeys(itertools.chain.from_iterable(take.quantities for take in chosen)))
