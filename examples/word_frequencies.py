"""Which words do the sources of Python's standard library have, and how often? Counted by `map_reduce_by_key` on a
balancer and three nodes, and checked against a direct count.

    python examples/word_frequencies.py            counts, and shows the ten most frequent
    python examples/word_frequencies.py --kill     the same, with the balancer and a node killed (SIGKILL) in the middle

The exit code is 0 only if every word has its right number.
"""

import argparse
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "client")]  # a checkout will do; nothing need be installed

from examples.demo import library_files  # noqa: E402
from examples.local_cluster import BALANCER, ClusterError, LocalCluster  # noqa: E402
from jobyard import Client, JobyardError  # noqa: E402

NODES: Final = 3
REDUCERS: Final = 4
GROUP: Final = "word-frequencies"
KILLED: Final = (BALANCER, "node2")
KILLED_AFTER: Final = 20  # jobs that have ended
AWAY_S: Final = 1.0
SHOWN: Final = 10


# --- what is counted, there and here -------------------------------------------------------------------------------


def words_of(path: str) -> Iterable[tuple[str, int]]:
    """Each word of a file and how often it is there: a map."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return Counter(re.findall(r"[a-z]+", text.lower())).items()


def total(word: str, counts: list[int]) -> int:
    """How often a word is in all files: a reduce."""
    return sum(counts)


def counted_directly(paths: Iterable[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for path in paths:
        counts.update(dict(words_of(path)))
    return dict(counts)


# --- the cluster ---------------------------------------------------------------------------------------------------


def counted_by_cluster(cluster: LocalCluster, paths: Sequence[str]) -> dict[str, int]:
    with Client(",".join(map(cluster.url, cluster.node_names))) as yard:
        return yard.map_reduce_by_key(words_of, total, paths, reducers=REDUCERS, group=GROUP, key=GROUP)


class Killer(threading.Thread):
    """Kills the balancer and a node when some jobs have ended, and starts them again. `said` is what it did."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self.said = "nobody was killed: all was over before"

    def run(self) -> None:
        with Client(self._cluster.url("node3")) as yard:
            while True:
                jobs = yard.list(group=GROUP, limit=10_000)
                ended = sum(job.ended for job in jobs)
                if ended >= KILLED_AFTER:
                    break
                time.sleep(0.05)
        if ended == len(jobs):
            return
        for name in KILLED:
            self._cluster.kill(name)
        time.sleep(AWAY_S)
        for name in KILLED:
            self._cluster.start(name)
        self.said = f"{' and '.join(KILLED)} were killed when {ended} of {len(jobs)} jobs had ended, and started again"


def main() -> int:
    parser = argparse.ArgumentParser(description="Word frequencies of the standard library, counted by a cluster.")
    parser.add_argument("--kill", action="store_true", help="kill the balancer and a node in the middle")
    kill = parser.parse_args().kill
    paths = sorted(map(str, library_files()))
    try:
        with LocalCluster(NODES, slots=2) as cluster:
            cluster.wait_until_joined()  # a client that changes nodes asks for jobs that another took in
            killer = Killer(cluster)
            if kill:
                killer.start()
            began_at = time.monotonic()
            counts = counted_by_cluster(cluster, paths)
            took_s = time.monotonic() - began_at
            if kill:
                killer.join()
                print(killer.said)
    except (ClusterError, JobyardError) as error:
        print(error)
        return 1
    for word, count in Counter(counts).most_common(SHOWN):
        print(f"{count:9,}  {word}")
    right = counts == counted_directly(paths)
    print(f"{len(counts):,} words in {len(paths):,} files in {took_s:.1f} s: {'right' if right else 'WRONG'}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
