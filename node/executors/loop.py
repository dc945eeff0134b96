"""The spawner's event loop: epoll, timers, and sockets that never block.

One thread, no trio: a job costs the spawner a few calls and no task. Events are level-triggered, and a handler may
be called for an event that an earlier handler of the same turn has already dealt with (its descriptor may even have
been closed and its number given to something new): so a handler tries, and is content with finding nothing.
"""

import heapq
import itertools
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

READ_BYTES: Final = 64 * 1024  # one read of a socket; from 128 KiB on the C library maps fresh memory each time


class Loop:
    """Calls the handler of every descriptor that is ready, and what is due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `fd` can be read, has ended or has failed."""
        self._epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def want_write(self, fd: int, wanted: bool) -> None:
        """Call the handler of `fd` also when it can be written to, or no longer."""
        self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """To be called before `fd` is closed."""
        self._epoll.unregister(fd)
        del self._handlers[fd]

    def close(self, fd: int) -> None:
        """Forget and close a descriptor that nobody else holds: with it the kernel forgets it as well. No child may
        have it, either: all of them are made by posix_spawn, and it closes itself at their exec."""
        del self._handlers[fd]
        os.close(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, `seconds` from now. Timers cannot be taken back: `call` must know when it comes too late."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def turn(self, *, wait: bool = True) -> None:
        """Wait for the next event (or only look, without `wait`), and handle all that has come."""
        for fd, _ in self._epoll.poll(self._timeout_s() if wait else 0):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _timeout_s(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None


class Channel:
    """A stream socket in the loop. What it cannot take at once waits in a queue, so nobody is waited for."""

    def __init__(self, loop: Loop, sock: socket.socket, on_data: Callable[[bytes], None], on_end: Callable[[], None]):
        sock.setblocking(False)
        self._loop, self._sock, self._on_data, self._on_end = loop, sock, on_data, on_end
        self._unsent: deque[memoryview] = deque()
        self.closed = False
        loop.watch(sock.fileno(), self._ready)

    def send(self, data: bytes) -> None:
        """A peer that has gone is noticed by reading, not here: what is meant for it is dropped."""
        self._unsent.append(memoryview(data))
        if len(self._unsent) == 1:
            self._flush()
            if self._unsent:
                self._loop.want_write(self._sock.fileno(), True)

    def read(self) -> bool:
        """Hand on what has arrived; False when there is nothing (yet, or any more)."""
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if data:
            self._on_data(data)
        else:
            self._on_end()
        return bool(data)

    def close(self) -> None:
        self.closed = True
        self._loop.forget(self._sock.fileno())
        self._sock.close()

    def _ready(self) -> None:
        if self._unsent:
            self._flush()
            if not self._unsent:
                self._loop.want_write(self._sock.fileno(), False)
        if not self.closed:
            self.read()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent[0])
                if sent == len(self._unsent[0]):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = self._unsent[0][sent:]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._unsent.clear()
