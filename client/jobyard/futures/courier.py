"""The thread that carries the calls of one executor over one connection, and tells their futures.

Rules
- It runs while a call is under way and ends with the last; the next call starts another. So an interpreter that exits
  waits for what is under way, as it does for the executors of the standard library, and for nothing else.
- Whatever is asked may be asked twice. When a connection is lost, everything goes on at the next node; when no node
  has answered for UNREACHABLE_S, every call fails, and no more are taken.
- `_lock` guards the calls and the thread. No future is told of anything while it is held: its callbacks may call us.
"""

import select
import socket
import threading
import time
from typing import Final, Protocol

from jobyard.connection import Connection, Dialler
from jobyard.errors import JobyardError, Unreachable
from jobyard.futures.calls import Begun, Calls, Elsewhere, Settled, Taken, Told
from jobyard.model import Outcome, Ticket
from jobyard.settings import FilePath

TIMEOUT_S: Final = 30.0  # of silence: a WATCH is answered within a second, everything else within five
UNREACHABLE_S: Final = 60.0  # without an answer from any node: longer than one needs to start anew
PAUSE_S_MIN: Final = 0.05  # before dialling again; doubles
PAUSE_S_MAX: Final = 1.0


class Recipient(Protocol):
    """Who waits for a call."""

    def taken(self, ticket: Ticket) -> None: ...

    def begin(self) -> None: ...

    def settle(self, how: Outcome | BaseException) -> None: ...

    def cancel(self) -> bool: ...

    def kill(self) -> bool: ...


class Courier:
    """`submit` and `cancel` may be called by any thread."""

    def __init__(self, url: str | None, token: str | None, tls_ca: FilePath | None, group: str) -> None:
        self._dialler = Dialler(url, token, tls_ca, TIMEOUT_S)
        self._calls = Calls(group, len(self._dialler.route))
        self._recipients: dict[int, Recipient] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None  # a byte into it wakes the thread
        self._connection: Connection | None = None
        self._closed = False
        self._failing_since: float | None = None
        self._pause_s = PAUSE_S_MIN
        self.broken: JobyardError | None = None  # why no more calls are taken

    def submit(self, number: int, key: str, request: bytes, recipient: Recipient) -> None:
        with self._lock:
            broken = self.broken
            if broken is None:
                self._recipients[number] = recipient
                self._calls.submit(number, key, request)
                if self._thread is None:
                    self._start()
                self._notify()
        if broken is not None:
            recipient.settle(broken)

    def cancel(self, number: int) -> None:
        with self._lock:
            self._recipients.pop(number, None)
            self._calls.cancel(number)
            self._notify()

    def join(self) -> None:
        """Returns when nothing is under way."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Hangs up, as soon as nothing is under way."""
        with self._lock:
            self._closed = True
            if self._thread is None:
                self._hang_up()

    def recipients(self) -> list[Recipient]:
        """Who waits."""
        with self._lock:
            return list(self._recipients.values())

    # --- the thread ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._wake, woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, args=(woken,), name="jobyard-courier")
        self._thread.start()

    def _notify(self) -> None:
        if self._wake is not None:
            try:
                self._wake.send(b"\0", socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass  # it has not even read what woke it before

    def _run(self, woken: socket.socket) -> None:
        with woken:
            while not self._ended():
                try:
                    self._converse(self._connected(), woken)
                except (OSError, Elsewhere, Unreachable) as error:
                    self._lost(error)
                except JobyardError as error:
                    self._break(error)
                except BaseException as error:
                    self._break(JobyardError(f"the courier of this executor stopped: {error!r}"))
                    raise

    def _ended(self) -> bool:
        """Whether nothing is under way; then nobody may count on this thread any more."""
        with self._lock:
            if len(self._calls):
                return False
            assert self._wake is not None, "the thread runs"
            self._wake.close()
            self._thread = self._wake = None
            if self._closed:
                self._hang_up()
            return True

    def _converse(self, connection: Connection, woken: socket.socket) -> None:
        """Sends and receives until nothing is under way. Raises whatever ends the connection."""
        poller = select.poll()
        poller.register(woken, select.POLLIN)
        unsent = memoryview(b"")
        silent_since = time.monotonic()
        while True:
            if not unsent:
                with self._lock:
                    unsent = memoryview(self._calls.requests(time.monotonic()))
                    if not len(self._calls):
                        return
            sent_bytes = connection.send_now(unsent) if unsent else 0
            unsent = unsent[sent_bytes:]
            if unsent and sent_bytes:
                silent_since = time.monotonic()  # it reads: what it has to answer is not all there yet
            poller.register(connection, select.POLLIN | (select.POLLOUT if unsent else 0))
            left_s = silent_since + TIMEOUT_S - time.monotonic()
            ready = dict(poller.poll(1000 * left_s)) if left_s > 0 else {}
            if not ready:
                raise TimeoutError(f"it was silent for {TIMEOUT_S:g} s")
            if woken.fileno() in ready:
                woken.recv(1 << 16)
            if ready.get(connection.fileno(), 0) & ~select.POLLOUT:
                self._receive(connection)
                silent_since = time.monotonic()

    def _receive(self, connection: Connection) -> None:
        for reply in connection.replies_now():
            with self._lock:
                told = self._calls.take(reply, time.monotonic())
            self._failing_since, self._pause_s = None, PAUSE_S_MIN
            for each in told:
                self._tell(each)

    def _tell(self, told: Told) -> None:
        with self._lock:
            number = told.number
            recipient = (
                self._recipients.pop(number, None) if isinstance(told, Settled) else self._recipients.get(number)
            )
        if recipient is None:
            return  # cancelled just now
        match told:
            case Taken(ticket=ticket):
                recipient.taken(ticket)
            case Begun():
                recipient.begin()
            case Settled(how=how):
                recipient.settle(how)

    # --- the connection ----------------------------------------------------------------------------------------------

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._dialler.dial()
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _lost(self, error: Exception) -> None:
        """Another node will be asked, after a pause; or none, when that has gone on for too long."""
        now = time.monotonic()
        if self._connection is not None:
            self._dialler.route.pass_over(self._connection.address)
        self._hang_up()
        with self._lock:
            self._calls.lost()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since >= UNREACHABLE_S:
            self._break(Unreachable(f"no node has answered for {UNREACHABLE_S:g} s; the last error: {error}"))
            return
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)

    def _break(self, error: JobyardError) -> None:
        """Nothing more can be done: every call fails so, and no more are taken."""
        self._hang_up()
        with self._lock:
            self.broken = error
            told = self._calls.fail(error)
        for each in told:
            self._tell(each)
