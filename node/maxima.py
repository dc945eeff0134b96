"""What a node allows any attempt. Pure."""

from typing import Final

import attrs

from common.model import Job
from node.executors import NO_LIMITS, Limits


@attrs.frozen
class Maxima:
    """An attempt of a job that asks for less gets less."""

    limits: Limits = NO_LIMITS
    timeout_s: float | None = None

    def limits_of(self, job: Job) -> Limits:
        return Limits(job.cpu_s, job.memory_bytes, job.files, job.processes, job.output_bytes).within(self.limits)

    def timeout_of(self, job: Job) -> float | None:
        asked, most = job.timeout_s, self.timeout_s
        if asked is None or most is None:
            return most if asked is None else asked
        return min(asked, most)


NO_MAXIMA: Final = Maxima()
