"""A cluster for tests of the command line: a thread for each connection, jobs run by a function of the test.

It knows of the client protocol what the verbs of the command need, and keeps every request line that it heard. Jobs
begin when they are submitted, or when those that they wait for have ended, whose outputs follow in `body` if they are
in `input=`; an array's elements are run one after another. One for which the function returns None goes on until `end`
is called or it is cancelled. What is asked for and not known here fails the test.
"""

import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote

PATIENCE_S = 10.0
_OPTION = re.compile(r"([a-z_]+(?:\.\w+)?)=(\S*)")


@dataclass(frozen=True)
class End:
    """How a job ends."""

    exit: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    state: str = ""
    reason: str | None = None

    @property
    def told(self) -> tuple[str, str | None]:
        state = self.state or ("failed" if self.exit else "succeeded")
        return state, self.reason or ("exit" if state == "failed" else None)


@dataclass
class FakeJob:
    number: int
    kind: str
    line: str
    options: Mapping[str, str]
    body: bytes
    end: End | None = None
    place: int = 0  # among those that have ended, from 1
    index: int | None = None  # of an element

    @property
    def ticket(self) -> str:
        return f"k-{self.number}" if self.index is None else f"k-{self.number}_{self.index}"

    @property
    def needs(self) -> list[str]:
        named = (self.options.get(name, "") for name in ("after", "input"))
        return [ticket for tickets in named for ticket in tickets.split(",") if ticket]

    def status(self) -> str:
        told = ((name, self.options[name]) for name in ("group", "key") if name in self.options)
        group = "".join(f" {name}={quote(value)}" for name, value in told)
        if self.end is None:
            return f"{self.ticket} state=running attempt=1 node=n1 reason=running{group}"
        return f"{self.ticket} {self._how()} attempt=1 node=n1{group}"

    def result(self) -> bytes:
        if self.end is None:
            return f"PENDING {self.ticket} state=running\n".encode()
        out, err = self.end.stdout, self.end.stderr
        sizes = f"stdout={len(out)} stderr={len(err)} bytes={len(out) + len(err)}"
        return f"OK {self.ticket} {self._how()} attempt=1 node=n1 seconds=0.5 {sizes}\n".encode() + out + err + b"\n"

    def _how(self) -> str:
        assert self.end is not None
        state, reason = self.end.told
        return f"state={state}{f' reason={reason}' if reason else ''} exit={self.end.exit}"


Runs = Callable[[FakeJob], End | None]


@dataclass
class FakeCluster:
    runs: Runs = lambda job: End()
    full_at: int | None = None  # takes so many live jobs, and is full then
    hangs_up_after: int | None = None  # the first connection, after so many requests
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._closed = False
        self._by_key: dict[str, FakeJob] = {}
        self._blocked: list[FakeJob] = []
        self._elements: dict[str, FakeJob] = {}
        self._ended = 0

    def __enter__(self) -> Self:
        self._threads.append(threading.Thread(target=self._accept))
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        if error is None and self._failures:
            raise self._failures[0]

    # --- for tests -----------------------------------------------------------------------------------------------

    def end(self, ticket: str, end: End) -> None:
        with self.changed:
            self._end(self.jobs[ticket], end)

    def until(self, true: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(true, PATIENCE_S), "it did not happen"

    @property
    def live(self) -> list[FakeJob]:
        return [job for job in self.jobs.values() if job.end is None]

    # --- connections ---------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as requests:
                connection.settimeout(PATIENCE_S)
                for line in requests:
                    if self.hangs_up_after is not None and len(self.heard) >= self.hangs_up_after:
                        self.hangs_up_after = None
                        return
                    size = re.search(rb" bytes=(\d+)", line)
                    body = requests.read(int(size[1]) + 1)[:-1] if size else b""
                    connection.sendall(self._answer(line.decode().rstrip("\n"), body))
        except (ConnectionError, TimeoutError):
            pass  # the client went away
        except BaseException as failure:  # noqa: BLE001  (it is raised where the test can see it)
            self._failures.append(failure)

    def _answer(self, line: str, body: bytes) -> bytes:
        verb, _, rest = line.partition(" ")
        options = {}
        while match := _OPTION.match(rest):
            options[match[1]] = unquote(match[2])
            rest = rest[match.end() :].lstrip(" ")
        with self.changed:
            self.heard.append(line)
            self.changed.notify_all()
            answer: bytes = getattr(self, f"_on_{verb.lower()}")(options, rest, body)
            return answer

    # --- verbs ---------------------------------------------------------------------------------------------------

    def _on_submit(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        if self.full_at is not None and len(self.live) >= self.full_at:
            return b"ERR FULL no room\n"
        job = self._by_key.get(options.get("key", ""))
        if job is None:
            job = FakeJob(len(self.jobs) + 1, *rest.partition(" ")[::2], options, body)
            self.jobs[job.ticket] = job
            if "key" in options:
                self._by_key[options["key"]] = job
            self._blocked.append(job)
            self._begin()
        elif (job.kind, job.line) != (*rest.partition(" ")[::2],) or job.options != options:
            return b"ERR CONFLICT the key belongs to another job\n"
        return f"OK {job.ticket}\n".encode()

    def _begin(self) -> None:
        """Who need not wait any more."""
        for job in list(self._blocked):
            needs = [self.jobs[ticket] for ticket in job.needs]
            if job not in self._blocked or any(need.end is None for need in needs):
                continue
            self._blocked.remove(job)
            if any(need.end is not None and need.end.told[0] != "succeeded" for need in needs):
                self._end(job, End(state="cancelled", reason="dependency"))
                continue
            job.body += b"".join(map(self._output, filter(None, job.options.get("input", "").split(","))))
            end = self._run_array(job) if "array" in job.options else self.runs(job)
            if end is not None:
                self._end(job, end)

    def _output(self, ticket: str) -> bytes:
        end = self.jobs[ticket].end
        assert end is not None
        return end.stdout

    def _run_array(self, job: FakeJob) -> End:
        first, last = map(int, job.options["array"].split("-"))
        for index in range(first, last + 1):
            line = job.line.replace("{}", str(index))
            element = FakeJob(job.number, job.kind, line, job.options, job.body, index=index)
            element.end = self.runs(element)
            self._elements[element.ticket] = element
        ends = [element.end for element in self._elements.values() if element.number == job.number and element.end]
        return next((End(state="failed") for end in ends if end.exit), End())

    def _end(self, job: FakeJob, end: End) -> None:
        job.end = end
        self._ended += 1
        job.place = self._ended
        self._blocked = [blocked for blocked in self._blocked if blocked is not job]
        self._begin()
        self.changed.notify_all()

    def _on_status(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        return self._of(rest, lambda job: f"OK {job.status()}\n".encode())

    def _on_result(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        return self._of(rest, FakeJob.result)

    def _on_wait(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        def answer(job: FakeJob) -> bytes:
            self.changed.wait_for(lambda: job.end is not None or self._closed, float(options["timeout"]))
            return job.result()

        return self._of(rest, answer)

    def _on_cancel(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        live = [job for job in self.live if job.options.get("group") == options.get("group", "")]
        if "group" in options:
            for job in live:
                self._end(job, End(143, state="cancelled", reason="user"))
            return f"OK group={options['group']} state=cancelled count={len(live)}\n".encode()
        job = self.jobs[rest]
        if job.end is None:
            self._end(job, End(143, b"half", state="cancelled", reason="user"))
        assert job.end is not None
        return f"OK {rest} state={job.end.told[0]}\n".encode()

    def _on_watch(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        since = int(options.get("since", "0"))
        if "group" in options:
            meant = [job for job in self.jobs.values() if job.options.get("group") == options["group"]]
        else:
            meant = [self.jobs[ticket] for ticket in rest.split(",") if ticket in self.jobs]
        unknown = [ticket for ticket in rest.split(",") if ticket and ticket not in self.jobs]

        def told() -> bool:
            over = not any(job.end is None for job in meant) and "group" not in options
            return over or self._closed or any(job.place > since for job in meant)

        self.changed.wait_for(told, float(options["timeout"]))
        ended = sorted((job for job in meant if job.place > since), key=lambda job: job.place)
        cursor = max([since, *(job.place for job in ended)])
        lines = [f"{job.status()}\n" for job in ended] + [f"{ticket} error=UNKNOWN_TICKET\n" for ticket in unknown]
        live = sum(job.end is None for job in meant)
        return _with_body(f"OK count={len(ended)} live={live} cursor={cursor}", "".join(lines))

    def _on_list(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        found = [
            job
            for job in sorted(self.jobs.values(), key=lambda job: (job.end is not None, -job.number))  # live ones first
            if options.get("group") in (None, job.options.get("group"))
            and f"state={options.get('state', '')}" in job.status()
        ]
        found = found[: int(options.get("limit", "100"))]
        return _with_body(f"OK count={len(found)}", "".join(f"{job.status()}\n" for job in found))

    def _on_explain(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        return self._of(rest, lambda job: _with_body(f"OK {job.status()}", f"this is why of {job.ticket}\n"))

    def _of(self, ticket: str, answer: Callable[[FakeJob], bytes]) -> bytes:
        job = self.jobs.get(ticket) or self._elements.get(ticket)
        if job is None:
            return f"ERR UNKNOWN_TICKET no job has the ticket '{ticket}'\n".encode()
        return answer(job)


def _with_body(line: str, body: str) -> bytes:
    return f"{line} bytes={len(body)}\n{body}\n".encode()
