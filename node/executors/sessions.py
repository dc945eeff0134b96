"""Ending whoever is in a session, also in process groups of their own.

Rules: `end_session` is for the session of a leader that is still unreaped: only so long is the number surely ours.
Both block, for milliseconds; nothing here waits for the end of those who were killed.
"""

import contextlib
import os
import time
from collections.abc import Collection
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals
from typing import Final

from node.executors.table import Seen, everybody

GIVE_UP_S: Final = 1.0  # on somebody who may not be killed, or makes groups faster than they are found


def kill_sessions(sessions: Collection[int]) -> None:
    """Kill whoever is in one of these sessions."""
    if sessions:
        for seen in everybody():
            if seen.session in sessions:
                _signal(seen.pid, SIGKILL)


def hold_group(group: int) -> None:
    """Stop a process group, until it is let go or killed."""
    _signal_group(group, SIGSTOP)


def let_go(group: int) -> None:
    _signal_group(group, SIGCONT)


def end_session(session: int) -> None:
    """Kill everybody in a session, however fast they multiply.

    A signal to a group reaches all of it at once: the kernel lets no process fork that has one pending. So each group
    is stopped first, until a look finds no other; those who are stopped neither fork nor make up for who is killed.
    """
    deadline = time.monotonic() + GIVE_UP_S
    stopped: set[int] = set()
    with contextlib.suppress(OSError):  # no descriptor is left to look with
        _stop_groups(session, stopped, deadline)
    for group in stopped:
        _signal_group(group, SIGKILL)
    with contextlib.suppress(OSError):
        _kill_stragglers(session, deadline)


def _stop_groups(session: int, stopped: set[int], deadline: float) -> None:
    found = {session}
    while found and time.monotonic() < deadline:
        for group in found:
            _signal_group(group, SIGSTOP)
        stopped |= found
        found = {seen.group for seen in _members(session)} - stopped


def _kill_stragglers(session: int, deadline: float) -> None:
    """Those who were just changing from one group to another: by number, until a look finds nobody new."""
    killed: set[int] = set()
    while (found := {seen.pid for seen in _members(session)} - killed) and time.monotonic() < deadline:
        for pid in found:
            _signal(pid, SIGKILL)
        killed |= found


def _members(session: int) -> list[Seen]:
    return [seen for seen in everybody() if seen.session == session and seen.lives]


def _signal(pid: int, number: Signals) -> None:
    with contextlib.suppress(OSError):  # it has just ended, or runs as somebody else
        os.kill(pid, number)


def _signal_group(group: int, number: Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)
