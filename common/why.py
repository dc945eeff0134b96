"""Why a job is where it is: one list of codes, for EXPLAIN, STATUS, events, logs and metrics alike. Pure."""

import enum


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
