"""The chronicle: what happened to every job and node, in order, as JSON lines; what EVENTS answers.

Pure; what is told in a step becomes durable with it, as one record.
"""

from common.memory import Memory


class Chronicle:
    """Told by the ledger and the dispatcher; read by the clerk."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def tell(self, event: str, ticket: str | None = None, **fields: object) -> None:
        """One thing that happened. Fields that are None are left out."""
