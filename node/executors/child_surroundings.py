"""What a call finds around it in a warm worker, and how it is put back after each call.

Rules: those of `child.py`, of which this is the other half: the standard library only, Python 3.8 or newer. A call may
have done anything to its process, and the next must find nothing of it. So everything is set anew, or looked at and
found as it should be; what one look can tell is not looked at twice:

    directory     the time of its last change says that it is still empty; asked for as `.`, also that it was not left
    environment   where it is as it was last set, only what differs from call to call is set
    standard input, output and error, the alarm, the umask    it costs less to set them than to look at them
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # its getsignal makes no enum of what it finds
import _thread
import io
import os
import select
import signal
import stat
import sys
import time
from typing import Any

PRINTS_FD = 5
PIPE_BYTES = 64 * 1024
READS_MAX = 32  # more than a pipe can be made to hold; not endless, should somebody go on printing
ENCODING = sys.getfilesystemencoding(), "surrogateescape"
TICK_NS = 3_000_000_000  # no file system has a coarser clock
FINE_TICK_NS = 100_000_000  # nor one that counts in less than FINE_NS: it moves with the kernel, every 10 ms at least
FINE_NS = 10_000_000


class Surroundings:
    """`enter` before a call, `put_back_prints` when it has ended, then `leave`."""

    def __init__(self, paths: list[str], env: dict[str, str]) -> None:
        self._paths = paths
        self._own_path = list(sys.path)
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self._modules: list[str] = []  # that were there at the end of the last call
        self._own = "/"
        self._path_of_own: list[str] = []
        self._is_in_own = False
        self._stamp_of_empty: tuple[int, ...] | None = None
        self._environ, self._environb = os.environ, os.environb
        self._base = _in_bytes(env)
        self._more: dict[str, str] = {}  # what the environment was last given beside that,
        self._expected: dict[bytes, bytes] = {}  # and what it was in all
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._prints = os.dup(2)
        self._are_prints = select.poll()
        self._are_prints.register(PRINTS_FD, select.POLLIN)
        self._printer = _writer()
        self._no_input = _reader()

    def enter(self, call: dict[str, Any], stdin: bytes) -> None:
        """As the call asks for it."""
        if "dir" in call:
            directory = call["dir"]
            os.chdir(directory)
            sys.path[:] = [*self._paths, directory, *self._own_path]
            self._is_in_own = False
        else:
            self._enter_own(call)
        self._set_environment(call["env"])
        if self._printer.closed:
            self._printer = _writer()
        sys.stdout = sys.stderr = self._printer
        sys.stdin = self.input(stdin)

    def _enter_own(self, call: dict[str, Any]) -> None:
        if "own" in call:
            self._own = call["own"]
            self._path_of_own = [*self._paths, self._own, *self._own_path]
            self._is_in_own = False
        if not self._is_in_own:
            os.chdir(self._own)
        if sys.path != self._path_of_own:
            sys.path[:] = self._path_of_own

    def _set_environment(self, more: dict[str, str]) -> None:
        """Whatever a call has made of it: what every call finds, and `more`."""
        os.environ = self._environ  # noqa: B003  the same object, should a call have put another in its place
        present = vars(self._environ).get("_data")  # its own table saves a look at each name
        if present is None or present != self._expected or more.keys() != self._more.keys():
            self._set_whole_environment(dict(self._environb) if present is None else present, more)
            self._expected = dict(self._environb)
        else:
            for name, value in more.items():
                if self._more[name] != value:
                    key, data = name.encode(*ENCODING), value.encode(*ENCODING)
                    self._environb[key] = self._expected[key] = data
        self._more = more

    def _set_whole_environment(self, present: dict[bytes, bytes], more: dict[str, str]) -> None:
        wanted = {**self._base, **_in_bytes(more)}
        for name in present.keys() - wanted.keys():
            del self._environb[name]
        for name, value in wanted.items():
            if present.get(name) != value:
                self._environb[name] = value

    def input(self, stdin: bytes | memoryview) -> io.TextIOWrapper:
        """The standard input that has these bytes, as descriptor 0 too."""
        if stdin:
            fd = os.memfd_create("body")
            with open(fd, "wb", closefd=False) as file:
                file.write(stdin)
            os.lseek(fd, 0, os.SEEK_SET)
            os.dup2(fd, 0)
            os.close(fd)
            return _reader()
        os.dup2(self._null, 0)
        if self._no_input.closed:
            self._no_input = _reader()
        return self._no_input

    def put_back_prints(self) -> None:
        """What is printed from now on is ours."""
        untouched = sys.stdout is self._printer and sys.stderr is self._printer
        for stream in (self._printer,) if untouched else (sys.stdout, sys.stderr, self._printer):
            try:
                stream.flush()
            except Exception:  # noqa: BLE001, S110  a stream of the job's own, or one that it has closed
                pass
        os.dup2(self._prints, 1)
        os.dup2(self._prints, 2)
        if self._printer.closed:
            self._printer = _writer()
        sys.stdout = sys.stderr = self._printer

    def leave(self, call: dict[str, Any]) -> bool:
        """Whether the call has left something in our own directory, so that we need another."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.umask(self._umask)
        if "dir" in call:
            os.chdir("/")  # or a file system could not be unmounted for our sake
            self._forget(call["dir"])
            return False
        self._forget(self._own)
        self._is_in_own = self._own_is_here_and_empty()
        return not self._is_in_own and not self._own_is_empty()

    def _forget(self, directory: str) -> None:
        if list(sys.modules) != self._modules:
            _forget_modules(directory + "/")
            for name in sys.modules.keys() - self._modules:
                if any(_is_below(path.rstrip("/") + "/", sys.modules[name]) for path in self._paths):
                    self._stamps.setdefault(name, _stamp(name))
            self._modules = list(sys.modules)
        sys.path_importer_cache.pop(directory, None)

    def _own_is_here_and_empty(self) -> bool:
        """Whether that can be seen at one look."""
        if self._stamp_of_empty is None:
            return False
        try:
            return _stamp_of_directory(os.stat(".")) == self._stamp_of_empty
        except OSError:
            return False

    def _own_is_empty(self) -> bool:
        """Whether the directory still is as it was given to us. Where nothing has changed since it was found empty,
        long after its last change, there is nothing to look for."""
        try:
            found = os.lstat(self._own)
            stamp = _stamp_of_directory(found)
            if stamp == self._stamp_of_empty:
                return True
            if found.st_mode != stat.S_IFDIR | 0o700 or os.listdir(self._own):
                return False
        except OSError:
            return False
        if found.st_ctime_ns < time.time_ns() - (FINE_TICK_NS if found.st_ctime_ns % FINE_NS else TICK_NS):
            self._stamp_of_empty = stamp
        return True

    # --- modules --------------------------------------------------------------------------------------------------

    def note_module(self, name: str) -> None:
        """This one has been loaded."""
        if name not in self._stamps:
            self._stamps[name] = _stamp(name)

    def have_changed(self, module: str | None) -> bool:
        """Whether the file of this module (None: of any) is another by now than when it was loaded."""
        for name in list(self._stamps) if module is None else (module,):
            if name not in sys.modules:
                self._stamps.pop(name, None)
            elif name in self._stamps and self._stamps[name] != _stamp(name):
                return True
        return False

    # --- what a call leaves -----------------------------------------------------------------------------------------

    def printed(self) -> bytes:
        """What is in the pipe now."""
        prints = b""
        if self._are_prints.poll(0):
            try:
                for _ in range(READS_MAX):
                    prints += os.read(PRINTS_FD, PIPE_BYTES)
            except OSError:  # there is nothing more; or the call has closed it
                pass
        return prints


def is_dirty() -> bool:
    """Whether something is left that cannot be put back: a process, a thread, a signal handler."""
    if _thread._count() or _signal.getsignal(signal.SIGTERM) is not _signal.SIG_DFL:
        return True
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _writer() -> io.TextIOWrapper:
    return open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _reader() -> io.TextIOWrapper:
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False)


def _in_bytes(env: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(*ENCODING): value.encode(*ENCODING) for name, value in env.items()}


def _stamp_of_directory(found: os.stat_result) -> tuple[int, ...]:
    """Changes with whatever is done to it: nobody can set back the time of a last change."""
    return (*found[:3], found.st_ctime_ns)  # its mode, number and device


def _stamp(module: str) -> tuple[int, int, int] | None:
    """Changes when the file of a module does."""
    try:
        found = os.stat(sys.modules[module].__file__ or "")
    except (AttributeError, OSError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _forget_modules(directory: str) -> None:
    """Another job may have another module of the same name in its directory."""
    for name, module in list(sys.modules.items()):
        if _is_below(directory, module):
            del sys.modules[name]


def _is_below(directory: str, module: Any) -> bool:
    try:
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    except Exception:  # noqa: BLE001  some put objects of their own in the place of a module
        return False
    return any(isinstance(place, str) and place.startswith(directory) for place in places)
