"""The jobs that are submitted, and what each must come to. Pure.

Each job has a number. An execution first appends `<ticket> <attempt> <number>` to the journal, in one write, so that it
is counted although its node may be killed the next moment; and it prints the number, its attempt and something that
follows from the number, so that no other job's outcome, and no other attempt's, can pass for it.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

from chaos.replies import Reply

KEYED: Final = 0.5  # of all jobs; a client in doubt can submit these again
SLOW: Final = 0.1  # of all jobs: about as long as the node timeout, so that some end after they were given to another
FAILING: Final = 0.1
EXIT: Final = 3  # of those that fail by design


@dataclass(frozen=True)
class Job:
    number: int
    key: str  # empty: none
    line: str  # what follows SUBMIT
    body: bytes | None  # its standard input
    prints: bytes  # after number and attempt
    exit: int

    def problem(self, end: Reply) -> str:
        """What is wrong with an end that was told of this job; empty where it is as it should be."""
        state = "failed" if self.exit else "succeeded"
        if (end.field("state"), end.field("exit")) != (state, str(self.exit)):
            return f"should have {state} with exit={self.exit}"
        stdout = b"%d %s %s\n" % (self.number, end.field("attempt").encode(), self.prints)
        return "" if end.stdout == stdout else f"should have printed {stdout!r}, not {end.stdout!r}"


def draw(chance: Random, number: int, *, run: str, journal: str, node_timeout_s: float) -> Job:
    """A job of this run. `crash_limit=off`, because here no job is to blame for the death of its node."""
    key = f"{run}-{number}" if chance.random() < KEYED else ""
    exit_code = EXIT if chance.random() < FAILING else 0
    told = f'echo "$JOBYARD_TICKET $JOBYARD_ATTEMPT {number}" >>{journal}'
    answer, prints, body = f"$(({number} * 7 + 1))", b"%d" % (number * 7 + 1), None
    if chance.random() < 0.25:
        body = b"input of job %d" % number
        answer, prints = "$(tr a-z A-Z)", body.upper()
    script = f'{told}; {_nap(chance, node_timeout_s)}echo "{number} $JOBYARD_ATTEMPT {answer}"; exit {exit_code}'
    options = [f"group={run}", "crash_limit=off"]
    options += [f"key={key}"] if key else []
    options += [f"bytes={len(body)}"] if body is not None else []
    return Job(number, key, " ".join([*options, "sh", script]), body, prints, exit_code)


def _nap(chance: Random, node_timeout_s: float) -> str:
    if chance.random() < SLOW:
        return f"sleep {node_timeout_s * chance.uniform(0.5, 1.5):.2f}; "
    return f"sleep {chance.uniform(0.05, 0.6):.2f}; " if chance.random() < 0.3 else ""
