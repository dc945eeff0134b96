"""How much memory processes of ours take while something is done. Standard library only."""

import threading
from collections.abc import Mapping, Sequence
from typing import Final, Self

from benchmarks.processes import memory_bytes

PERIOD_S: Final = 0.02


class Memory:
    """Looks at some processes until the context is left; `growth` then says by how many bytes of its own memory, at
    the most, each group's worst process had grown."""

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = groups
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._before = {pid: memory_bytes(pid)[0] for pids in self._groups.values() for pid in pids}
        self._highest = dict(self._before)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def growth(self) -> dict[str, int]:
        grown = {pid: self._highest[pid] - before for pid, before in self._before.items()}
        return {name: max((grown[pid] for pid in pids), default=0) for name, pids in self._groups.items()}

    def _watch(self) -> None:
        while True:
            over = self._ended.wait(PERIOD_S)
            for pid, highest in self._highest.items():
                self._highest[pid] = max(highest, memory_bytes(pid)[0])
            if over:
                return
