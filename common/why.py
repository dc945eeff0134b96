"""Why a job is where it is: one list of codes, for EXPLAIN, STATUS, events, logs and metrics alike, and in one table
what each means to people and what would change it.

A live job has a `Why`; an ended one its `Reason`, or `done` when it succeeded. The words are the same wherever they
are said: by the ledger, or by a job's origin while the ledger cannot be reached. Pure.
"""

import enum
import textwrap
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import attrs

from common.model import Reason, State

PAGE_CHARACTERS: Final = 80  # the width of a terminal
_LABEL_CHARACTERS: Final = 17


class Why(enum.StrEnum):
    """What a job waits for, or what it is doing. An ended job has a `Reason` instead, or none when it succeeded."""

    NO_FREE_SLOT = "no_free_slot"  # every node that may run it is busy
    NODE_BACKLOG = "node_backlog"  # given to a node, whose slots are taken
    NEXT_ROUND = "next_round"  # there is room, and the next round will hand it out
    NO_NODE = "no_node"  # no node is connected
    KIND_NOT_ALLOWED = "kind_not_allowed"  # no node that is connected allows its kind
    TOO_WIDE = "too_wide"  # no node that is connected has so many slots
    DRAINING = "draining"  # the nodes that might run it take no jobs at present
    ARRAY_LIMIT = "array_limit"  # as many elements of its array are under way as may be at once
    BLOCKED = "blocked"  # waits for other jobs
    DELAYED = "delayed"  # its delay is not over
    RETRY = "retry"  # failed, and waits before it is tried again
    BALANCER_UNREACHABLE = "balancer_unreachable"  # its origin has no link to the balancer
    ON_ITS_WAY = "on_its_way"  # its origin has not yet heard that the ledger has it
    RUNNING = "running"
    ENDING = "ending"  # cancelled, and its processes are not gone yet
    DONE = "done"  # succeeded


# What the state alone says. Of a queued job it says nothing: only the ledger knows what keeps it from a node.
BY_STATE: Final[Mapping[State, Why]] = {
    State.SCHEDULED: Why.DELAYED,
    State.BLOCKED: Why.BLOCKED,
    State.DISPATCHED: Why.NODE_BACKLOG,
    State.RUNNING: Why.RUNNING,
    State.RETRYING: Why.RETRY,
    State.CANCELLED: Why.ENDING,
}


@attrs.frozen
class Meaning:
    """What a code means: `text` goes on behind the job's state and a colon, `change` says what would help."""

    text: str
    change: str


MEANINGS: Final[Mapping[Why | Reason, Meaning]] = {
    Why.NO_FREE_SLOT: Meaning(
        "every node that may run it is busy.",
        "a slot that falls free there; one more node, or more slots (JOBYARD_SLOTS); by PLACEMENT level, a longer "
        "backlog on each node (JOBYARD_BACKLOG_MAX) gives it to one sooner; submitted with a higher priority=N it goes "
        "first",
    ),
    Why.NODE_BACKLOG: Meaning(
        "it was given to a node, and waits there for a free slot.",
        "a slot that falls free on this node, or on another, which then takes it over; one more node, or more slots "
        "(JOBYARD_SLOTS); submitted with a higher priority=N it begins sooner",
    ),
    Why.NEXT_ROUND: Meaning(
        "there is room for it, and the next round hands it out.",
        "shorter or larger rounds (DISPATCH_PERIOD, MAX_NUM_JOBS_DISPATCH), or rounds at once "
        "(JOBYARD_DISPATCH_MODE=eager)",
    ),
    Why.NO_NODE: Meaning(
        "no node is connected.",
        "a node that connects; MAX_NUM_NODES says how many may be connected at once, and one that is refused logs why",
    ),
    Why.KIND_NOT_ALLOWED: Meaning(
        "no node that is connected allows its kind.",
        "a node whose JOBYARD_JOB_KINDS has the kind",
    ),
    Why.TOO_WIDE: Meaning(
        "no node that is connected has as many slots as it needs.",
        "a node with that many slots (JOBYARD_SLOTS); submitted with a smaller slots=N it fits",
    ),
    Why.DRAINING: Meaning(
        "the nodes that may run it are draining and take no new jobs.",
        "UNDRAIN on one of them, or another node",
    ),
    Why.ARRAY_LIMIT: Meaning(
        "as many elements of its array are under way as may be at once.",
        "an element that ends; submitted with a higher number behind the % of array=, or without it, more run at once",
    ),
    Why.BLOCKED: Meaning(
        "it waits for other jobs to succeed.",
        "the success of each of them; it is cancelled when one fails, is cancelled, is unknown or has expired",
    ),
    Why.DELAYED: Meaning("its delay is not over.", "time; CANCEL ends the wait, and the job with it"),
    Why.RETRY: Meaning(
        "it failed, and waits before it is tried again.",
        "time: each wait is twice as long as the one before (backoff=D is the first, 5 minutes the longest); "
        "retries=N says how often",
    ),
    Why.BALANCER_UNREACHABLE: Meaning(
        "the node that took it in has no link to the balancer.",
        "the balancer: nothing is lost meanwhile, and the node connects to it as soon as it can be reached",
    ),
    Why.ON_ITS_WAY: Meaning(
        "the node that took it in has not heard yet that the ledger has it.",
        "nothing has to be done, unless it lasts: then the balancer's store is full, which NODES and the logs say",
    ),
    Why.RUNNING: Meaning("an attempt of it runs.", "its own end, its timeout=D, or CANCEL"),
    Why.ENDING: Meaning(
        "its processes are being ended.",
        "the end of its processes: those that resist SIGTERM get SIGKILL 5 s later; while their node is away, its "
        "return, or the end of JOBYARD_NODE_TIMEOUT",
    ),
    Why.DONE: Meaning("its command ended with exit code 0, or its function returned.", "nothing: a success is final"),
    Reason.EXIT: Meaning(
        "it ended with an exit code that is not 0.",
        "RETRY queues it again; submitted with retries=N it tries again by itself",
    ),
    Reason.SIGNAL: Meaning(
        "a signal ended it.",
        "RETRY queues it again; exit=128+N names the signal N, and 137 is often a machine that ran out of memory",
    ),
    Reason.EXCEPTION: Meaning(
        "its function raised an exception.",
        "RETRY queues it again; the traceback is in its standard error",
    ),
    Reason.TIMEOUT: Meaning(
        "it ran longer than its timeout.",
        "submitted with a longer timeout=D it has more time; RETRY does not change it",
    ),
    Reason.CANNOT_START: Meaning(
        "it could not be started.",
        "RETRY queues it again, once what it needs is there; its standard error says what is missing",
    ),
    Reason.NO_DIRECTORY: Meaning(
        "its working directory is missing on the node that was to run it.",
        "the directory of dir= on each node, then RETRY; without dir= it gets an empty one",
    ),
    Reason.CPU: Meaning("it used more CPU time than it may.", "a larger cpu=D, as far as the node's maximum goes"),
    Reason.MEMORY: Meaning(
        "it used more memory than it may.", "a larger memory=SIZE, as far as the node's maximum goes"
    ),
    Reason.PROCESSES: Meaning(
        "it had more processes than it may.", "a larger processes=N, as far as the node's maximum goes"
    ),
    Reason.OUTPUT: Meaning(
        "it printed more than it may, or returned more than can be kept.",
        "a larger output=SIZE, as far as the node's maximum goes; a file for what is large",
    ),
    Reason.CRASH_LIMIT: Meaning(
        "as many of its attempts were lost with their node as its crash limit allows.",
        "RETRY queues it again; look first whether it brings its nodes down; crash_limit=N allows more",
    ),
    Reason.USER: Meaning("somebody cancelled it.", "RETRY queues it again"),
    Reason.DEPENDENCY: Meaning(
        "a job that it waited for did not succeed, or left no output that can be its input.",
        "RETRY of that job, then RETRY of this one; an input that is whole, and not too long",
    ),
}

Row: TypeAlias = tuple[str, str | Iterable[str]]  # a label, and one paragraph or several


def page(ticket: str, state: State, code: Why | Reason, rows: Iterable[Row] = ()) -> str:
    """The body of EXPLAIN: a sentence, then lines with a label each, for 80 columns. Rows without text are left out;
    what would change it comes last."""
    lines = _wrapped("", f"{ticket} {_STANDING.get(state, f'is {state}')}: {MEANINGS[code].text}", 0)
    for label, paragraphs in (*rows, ("would change it", MEANINGS[code].change)):
        for paragraph in (paragraphs,) if isinstance(paragraphs, str) else paragraphs:
            lines += _wrapped(label, paragraph, _LABEL_CHARACTERS)
            label = ""
    return "\n".join(lines) + "\n"


_STANDING: Final = {State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.CANCELLED: "was cancelled"}


def _wrapped(label: str, paragraph: str, indent: int) -> list[str]:
    return textwrap.wrap(
        paragraph,
        PAGE_CHARACTERS,
        initial_indent=label.ljust(indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
