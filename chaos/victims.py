"""What can be done to a cluster, whatever it is made of. `containers` and `processes` do it.

All of it blocks, for a few seconds at most; the trial calls it from threads, for one victim one at a time.
"""

from pathlib import Path
from typing import Final, Protocol

from chaos.blows import Kind

BALANCER: Final = "balancer"


class Cluster(Protocol):
    """A balancer and some nodes that can be hit. `strike` begins a blow and `mend` undoes it; after `mend` the program
    runs and will find the others by itself."""

    @property
    def node_names(self) -> tuple[str, ...]: ...

    @property
    def journal(self) -> str:
        """The file, as a job sees it, to which each execution appends a line. It outlives the program."""

    def address(self, node: str) -> str:
        """Where its clients reach a node: `host:port`."""

    def strike(self, victim: str, kind: Kind) -> None: ...

    def mend(self, victim: str, kind: Kind) -> None: ...

    def executions(self) -> str:
        """The lines of all journals."""

    def misconduct(self) -> list[str]:
        """What programs did that nobody did to them: those that ended by themselves, or not properly when asked to."""

    def save_logs(self, directory: Path) -> None:
        """Leaves there what the programs have logged."""
