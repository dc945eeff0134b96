"""The same workloads on a real cluster: a balancer and nodes as processes of this machine, read from their event log.

The cluster is started anew for each policy, the workloads follow one another on it. What is measured is what EVENTS
tells between two cursors, as anybody could on a cluster of his own.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from analysis.story import Event, Story, read, slots_of
from examples.local_cluster import LocalCluster
from jobyard import Client
from jobyard.playing import play
from jobyard.workload import Request

PATIENCE_S: Final = 60.0  # for the last job to end, after it could have
JOIN_S_MAX: Final = 30.0


class RealCluster:
    """A cluster of nodes with these slots, under one policy, as long as the context lasts."""

    def __init__(self, slots: Sequence[int], policy: str, directory: Path | None = None) -> None:
        names = [f"node{number}" for number in range(1, len(slots) + 1)]
        env = {"JOBYARD_PLACEMENT": policy, "MAX_NUM_NODES": str(len(slots))}
        self._slots = len(slots)
        self._cluster = LocalCluster(len(slots), directory, env, dict(zip(names, slots, strict=True)))

    def __enter__(self) -> "RealCluster":
        self._cluster.__enter__()
        self._client = Client(",".join(self._cluster.url(name) for name in self._cluster.node_names))
        self.slots = self._joined()
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        self._cluster.__exit__(None, None, None)

    def _joined(self) -> dict[str, int]:
        ends_at = time.monotonic() + JOIN_S_MAX
        while len(slots := slots_of(self._events(None))) < self._slots:
            if time.monotonic() > ends_at:
                raise TimeoutError(f"after {JOIN_S_MAX:g} s the balancer has {len(slots)} of {self._slots} nodes")
            time.sleep(0.05)
        return dict(sorted(slots.items()))

    def run(self, requests: Sequence[Request]) -> Story:
        """Plays a workload and waits for its end; what the event log has of it."""
        name = f"load-{os.urandom(4).hex()}"
        cursor = self._client.events("now").cursor
        tickets = [
            ticket for played in play(self._client, requests, name) for ticket in (*played.maps, *played.reduces)
        ]
        patience_s = sum(request.work_s for request in requests) + PATIENCE_S
        for status in self._client.wait_all(tickets, patience_s):
            assert status.state == "succeeded", f"{status.ticket} of a workload {status.state}: {status.reason}"
        return read(self._events(cursor), self.slots, name)

    def _events(self, since: str | None) -> Iterator[Event]:
        while True:
            told = self._client.events(since)
            assert not told.lost, "the log no longer has all events of this run"
            yield from told.events
            if not told.events:
                return
            since = told.cursor
