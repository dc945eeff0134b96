"""A relay of TCP connections that can be cut, as a cable can: what a process on this machine has for a network.

While it is cut, nothing comes through in either direction and nobody is told; when it is mended, what was on its way
goes on. It runs in threads of its own, and knows bytes only.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

PIECE_BYTES: Final = 65536
DIAL_S_MAX: Final = 5.0


class Relay:
    """Listens on a free port of loopback. `target` says, for each connection, where it leads: `host:port`."""

    def __init__(self, target: Callable[[], str]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._whole = threading.Event()
        self._whole.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept_all, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            ends = [self._listener, *self._open]
        for end in ends:
            _shut(end)
        self._listener.close()
        self._whole.set()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def _accept_all(self) -> None:
        while True:
            try:
                dialled, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(dialled,), daemon=True).start()

    def _serve(self, dialled: socket.socket) -> None:
        """One connection, from its first byte to its last."""
        self._whole.wait()
        with dialled:
            try:
                host, _, port = self._target().rpartition(":")
                leading = socket.create_connection((host, int(port)), timeout=DIAL_S_MAX)
            except OSError:
                return
            with leading:
                leading.settimeout(None)
                with self._kept(dialled), self._kept(leading):
                    back = threading.Thread(target=self._pump, args=(leading, dialled), daemon=True)
                    back.start()
                    self._pump(dialled, leading)
                    back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Until one of the two has ended; then neither is of use."""
        try:
            while data := source.recv(PIECE_BYTES):
                self._whole.wait()
                sink.sendall(data)
        except OSError:
            pass
        self._whole.wait()
        _shut(source)
        _shut(sink)

    @contextmanager
    def _kept(self, end: socket.socket) -> Iterator[None]:
        """Shut at the end of the relay, if it is still open then."""
        with self._lock:
            self._open.add(end)
            if self._closed:
                _shut(end)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(end)


def _shut(end: socket.socket) -> None:
    """Ends it in both directions, and whoever waits for it in another thread."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already
