"""Ways to see what a cluster does with its jobs: what clients are told, and a journal that the jobs write themselves.

A journal is a file that gets a line from each attempt that begins, so that an execution too many is seen even if nobody
hears of its outcome.
"""

from collections import Counter
from pathlib import Path

from examples.local_cluster import LocalCluster
from tests.system.client import ask, until


def told(journal: Path) -> str:
    """A command for jobs: a line for the journal."""
    return f'echo "$JOBYARD_TICKET $JOBYARD_ATTEMPT" >>{journal}'


def begun(journal: Path) -> Counter[str]:
    """How often each job has begun."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(line.split()[0] for line in lines)


def where(cluster: LocalCluster, ticket: str, *, asked: str) -> str:
    """The node on which a job runs, as soon as it does."""

    def running_on() -> str | None:
        status = ask(cluster.address(asked), f"status {ticket}")
        return status.field("node") if status.field("state") == "running" else None

    return until(f"{ticket} runs", running_on)


def other(cluster: LocalCluster, name: str) -> str:
    return next(node for node in cluster.node_names if node != name)


def statistic(address: str, name: str, *, local: bool = False) -> float:
    rows = dict(row.split() for row in ask(address, "stats local=1" if local else "stats").body.decode().splitlines())
    return float(rows[name])
