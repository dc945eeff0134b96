"""A cluster for tests of executors, as far as they speak with one: it takes calls, runs them in threads, and tells.

Several nodes share its jobs. A request takes effect when it is read, and replies go out in the order of the requests,
as with real nodes; so a SUBMIT behind a WATCH that waits is carried out at once and answered later.
"""

import pickle
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import attrs
import cloudpickle

from common import lines
from common.kind_names import KINDS
from common.model import State

PREFIX: Final = "fakeab"
Reply = Callable[[], bytes]  # makes the reply when its turn has come


@attrs.define(eq=False)
class FakeJob:
    ticket: str
    key: str | None
    group: str | None
    body: bytes = attrs.field(repr=False)
    state: State = State.QUEUED
    stdout: bytes = b""
    stderr: bytes = b""
    reason: str | None = None


class FakeYard:
    """`slots` calls run at once. `refuse` may answer a SUBMIT with an error instead of taking it."""

    def __init__(self, nodes: int = 1, slots: int = 2) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.by_key: dict[str, FakeJob] = {}
        self.ends: list[FakeJob] = []
        self.heard: list[str] = []  # verbs
        self.calls: list[str] = []  # the line of each job, in order
        self.refuse: Callable[[int], bytes | None] = lambda node: None
        self.changed = threading.Condition()
        self._slots = threading.Semaphore(slots)
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(nodes)]
        self._connections: list[set[socket.socket]] = [set() for _ in range(nodes)]
        ports = [listener.getsockname()[1] for listener in self._listeners]
        self.url = ",".join(f"tcp://127.0.0.1:{port}" for port in ports)

    def __enter__(self) -> Self:
        for node, listener in enumerate(self._listeners):
            self._start(self._accept, node, listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        for node in range(len(self._listeners)):
            self.stop(node)
        with self.changed:
            self.changed.notify_all()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def hang_up(self, node: int = 0) -> None:
        """Ends every connection to a node."""
        for connection in list(self._connections[node]):
            _shut(connection)

    def stop(self, node: int) -> None:
        """A node is gone."""
        _shut(self._listeners[node])
        self._listeners[node].close()
        self.hang_up(node)

    def connections(self, node: int = 0) -> int:
        return len(self._connections[node])

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    # --- conversations ---------------------------------------------------------------------------------------------

    def _accept(self, node: int, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections[node].add(connection)
            replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
            self._start(self._read, node, connection, replies)
            self._start(self._write, node, connection, replies)

    def _read(self, node: int, connection: socket.socket, replies: "queue.SimpleQueue[Reply | None]") -> None:
        parser = lines.Parser(body_bytes_max=1 << 26, kinds=KINDS, keep_bodies=True)
        try:
            while data := connection.recv(1 << 16):
                for request in parser.feed(data):
                    replies.put(self._take(node, request))
        except OSError:
            pass
        replies.put(None)

    def _write(self, node: int, connection: socket.socket, replies: "queue.SimpleQueue[Reply | None]") -> None:
        with connection:
            while (reply := replies.get()) is not None:
                try:
                    connection.sendall(reply())
                except OSError:
                    break
            _shut(connection)
        self._connections[node].discard(connection)

    def _take(self, node: int, request: lines.Request) -> Reply:
        self.heard.append(type(request).__name__.upper())
        match request:
            case lines.Submit():
                reply = self.refuse(node) or self._submit(request)
                return lambda: reply
            case lines.Cancel(ticket=str(ticket)):
                reply = self._cancel(ticket)
                return lambda: reply
            case lines.Watch():
                return lambda: self._watch(request)
            case lines.Result(ticket=ticket):
                return lambda: self._result(ticket)
            case lines.Status(ticket=ticket):
                return lambda: lines.ok(ticket, state=self.jobs[ticket].state, attempt=1)
            case lines.Nodes():
                line = "name=n1 state=alive slots=2 running=0 waiting=0 last_seen_s=0.1\n"
                return lambda: lines.ok(count=1, body=line.encode())
        raise AssertionError(f"{request} was not expected of an executor")

    def _submit(self, request: lines.Submit) -> bytes:
        job = request.job
        with self.changed:
            known = self.by_key.get(job.key or "")
            if known is None:
                known = FakeJob(f"{PREFIX}-{len(self.jobs) + 1}", job.key, job.group, request.body)
                self.jobs[known.ticket] = known
                self.calls.append(job.line)
                if job.key is not None:
                    self.by_key[job.key] = known
                self._start(self._run, known)
            return lines.ok(known.ticket)

    def _cancel(self, ticket: str) -> bytes:
        job = self.jobs[ticket]
        self._end(job, State.CANCELLED, reason="user")
        return lines.ok(ticket, state=job.state)

    def _watch(self, request: lines.Watch) -> bytes:
        since = int(request.since or "0")
        ends_at = time.monotonic() + (request.timeout_s or 0.0)
        with self.changed:
            while not (ended := self._ended_since(since, request.group)) and not self._stopping.is_set():
                left_s = ends_at - time.monotonic()
                if left_s <= 0:
                    break
                self.changed.wait(left_s)
            body = b"".join(lines.job_line(job.ticket, {"state": job.state, "attempt": 1}) for job in ended)
            return lines.ok(count=len(ended), live=0, cursor=len(self.ends), body=body)

    def _ended_since(self, since: int, group: str | None) -> list[FakeJob]:
        return [job for job in self.ends[since:] if job.group == group]

    def _result(self, ticket: str) -> bytes:
        job = self.jobs[ticket]
        if not job.state.ended:
            return lines.pending(ticket, state=job.state)
        return lines.ok(
            ticket, state=job.state, exit=0 if job.state is State.SUCCEEDED else 1, attempt=1, node="n", seconds=0.1,
            reason=job.reason, stdout=len(job.stdout), stderr=len(job.stderr), body=job.stdout + job.stderr,
        )  # fmt: skip

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _run(self, job: FakeJob) -> None:
        with self._slots:
            with self.changed:
                if job.state.ended or self._stopping.is_set():
                    return
                job.state = State.RUNNING
            try:
                function, args, kwargs = pickle.loads(job.body)
                value = cloudpickle.dumps(function(*args, **kwargs))
            except Exception as error:  # noqa: BLE001
                text = "".join(traceback.format_exception(error)).encode()
                self._end(job, State.FAILED, cloudpickle.dumps(error), text, "exception")
            else:
                self._end(job, State.SUCCEEDED, value)

    def _end(
        self, job: FakeJob, state: State, stdout: bytes = b"", stderr: bytes = b"", reason: str | None = None
    ) -> None:
        with self.changed:
            if not job.state.ended:
                job.state, job.stdout, job.stderr, job.reason = state, stdout, stderr, reason
                self.ends.append(job)
                self.changed.notify_all()


def _shut(of: socket.socket) -> None:
    try:
        of.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is gone already
