"""What happened in a story, for people: a line for each thing that one would tell, with its moment in virtual time."""

from collections import deque
from collections.abc import Sequence

import trio

from common.effects import Note, Put, Table, Write
from common.machine import Machine
from common.model import Outcome, attempt_name, ticket_of
from common.runtime.driver import Step

_TOLD = {Table.JOBS, Table.LIVE, Table.ENDED, Table.OUTCOMES, Table.ALIASES, Table.TOMBSTONES, Table.NOTICES}


class Journal:
    """A watcher of the world. It keeps the last `lines_max`, and formats nothing before it is read."""

    def __init__(self, lines_max: int | None = 60) -> None:
        self._entries: deque[tuple[float, str, object]] = deque(maxlen=lines_max)

    def say(self, text: str) -> None:
        self._entries.append((trio.current_time(), text, None))

    def lines(self) -> list[str]:
        return [f"{moment:9.4f}  {line}" for moment, text, rest in self._entries for line in _formatted(text, rest)]

    # --- the world tells ---------------------------------------------------------------------------------------------

    def committed(self, process: str, writes: Sequence[Write]) -> None:
        self._entries.append((trio.current_time(), process, writes))

    def stepped(self, process: str, step: Step, machine: Machine) -> None:
        for action in step.effects.actions:
            if isinstance(action, Note):
                self._entries.append((trio.current_time(), process, action))

    def began(self, process: str, boot_id: str, ticket: str, attempt: int, stdin: bytes) -> None:
        self.say(f"{process}: {attempt_name(ticket, attempt)} begins")

    def over(self, process: str, ticket: str, attempt: int, outcome: Outcome, output: bytes) -> None:
        self.say(f"{process}: {attempt_name(ticket, attempt)} is over: {outcome.verdict} exit={outcome.exit}")

    def booted(self, process: str, boot_id: str) -> None:
        self.say(f"{process}: is up, boot {boot_id[:6]}")

    def died(self, process: str, how: str) -> None:
        self.say(f"{process}: dies, {how}")


def _formatted(text: str, rest: object) -> list[str]:
    if rest is None:
        return [text]
    if isinstance(rest, Note):
        return [f"{text}: {rest.event} {rest.fields}"]
    assert isinstance(rest, Sequence)
    shown = [_written(write) for write in rest if write.table in _TOLD]
    return [f"{text}: on disk: {', '.join(shown)}"] if shown else []


def _written(write: Write) -> str:
    key = write.key[:-4] if write.table is Table.OUTCOMES else write.key
    return f"{'' if isinstance(write, Put) else '-'}{write.table}/{ticket_of(key)}"
