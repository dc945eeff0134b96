"""What a warm Python worker runs: one call after another, each as if it were alone.

    python child.py '{"paths": [...], "env": {...}, "value_bytes_max": N}'

    descriptor 3    control: a stream socket, for answers and for long calls
    descriptor 4    calls: a socket that keeps packets apart, each a call. Whoever reads one has it: the spawner holds
                    this end, too, and so can take back what has not begun
    descriptor 5    the other end of the pipe that 1 and 2 write to

Rules: the standard library only, nothing of ours, Python 3.8 or newer: JOBYARD_PYTHON may be any interpreter. Pickles
are opened and made here alone, with cloudpickle, which is imported when the first comes. A frame is its length and the
length of its head (4 bytes each, big-endian; the first counts all that follows it), the head in JSON, then bytes. The
spawner sends one of

    {"module", "function", "arguments"}     and the job's standard input (the kind `py`)
    {}                                      and the cloudpickle of (function, args, kwargs) (`call`); what follows it is
                                            the call's standard input

each with "env", what the environment has beside what every call finds, and with "dir", the directory that the job has
named; without it the call gets the worker's own one, which is empty. "own" says where that is from now on. A frame that
is too long for a packet is sent over control, and the packet holds its header only. The header of a call has its number
after the two lengths, which its answer repeats.

The worker first says {"status": "ready"}, and answers each call with one status of

    value      the bytes are the returned value: compact JSON and a line feed; or, of a pickled call, its cloudpickle
    exit       sys.exit was called; "exit" is the code
    exception  the traceback is the last thing printed; the bytes are, of a pickled call, the cloudpickle of the
               exception, or nothing if it has none
    output     the value is longer than allowed
    missing    this interpreter has no cloudpickle; "why" says so
    stale      nothing was called: a module has changed since this worker loaded it, so another worker must

and with what there is to say of these:

    seconds    how long it took
    prints     how many of the bytes, the last ones, are what it has printed and nobody had read
    left       its own directory is not empty any more, so that the worker needs another
    dirty      something else is left (a process, a thread, a signal handler), so that nobody may use the worker again

After "stale", "left" and "dirty" it takes no call before a byte comes over control. What a call prints, by whatever
way, goes to standard error.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # its getsignal makes no enum of what it finds
import _thread
import importlib
import io
import json
import os
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any

CONTROL_FD, CALLS_FD, PRINTS_FD = 3, 4, 5
HEADER_BYTES = 12
PACKET_BYTES_MAX = 32 * 1024
PIPE_BYTES = 64 * 1024
READS_MAX = 32  # more than a pipe can be made to hold; not endless, should somebody go on printing
ENCODING = sys.getfilesystemencoding(), "surrogateescape"
TICK_NS = 3_000_000_000  # no file system has a coarser clock
FINE_TICK_NS = 100_000_000  # nor one that counts in less than FINE_NS: it moves with the kernel, every 10 ms at least
FINE_NS = 10_000_000
PR_SET_CHILD_SUBREAPER = 36

_compact = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_parse = json.JSONDecoder().decode


class Missing(Exception):
    """This interpreter cannot make the call."""


class Worker:
    """The surroundings of calls, put back after each."""

    def __init__(self, paths: list[str], env: dict[str, str], value_bytes_max: int) -> None:
        self._value_bytes_max = value_bytes_max
        self._pid = os.getpid()
        self._own_path = list(sys.path)
        self._paths = paths
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self._modules: list[str] = []  # that were there at the end of the last call
        self._own = "/"
        self._stamp_of_empty: tuple[int, int, int] | None = None
        self._environ, self._base = os.environ, _in_bytes(env)
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._prints = os.dup(2)
        self._printer = _writer()
        self._no_input = _reader()

    def answer(self, call: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Make one call."""
        began_at = time.monotonic()
        self._own = call.get("own", self._own)
        is_pickled = "module" not in call
        if self._is_stale(self._stamps if is_pickled else (call["module"],)):
            return {"status": "stale"}, b""
        self._enter(call, b"" if is_pickled else body)
        head, value = self._call(call, body if is_pickled else None)
        if os.getpid() != self._pid:
            os._exit(head.get("exit", 0))  # the call has forked, and this is the other process
        self._leave(call)
        if "dir" not in call and not self._own_is_empty():
            head["left"] = True
        if _is_dirty():
            head["dirty"] = True
        if prints := _printed():
            head["prints"] = len(prints)
        head["seconds"] = round(time.monotonic() - began_at, 6)
        return head, value + prints

    # --- around a call ------------------------------------------------------------------------------------------

    def _enter(self, call: dict[str, Any], stdin: bytes) -> None:
        directory = call.get("dir", self._own)
        os.chdir(directory)
        self._set_environment(call["env"])
        sys.path[:] = [*self._paths, directory, *self._own_path]
        if self._printer.closed:
            self._printer = _writer()
        sys.stdout = sys.stderr = self._printer
        sys.stdin = self._input(stdin)

    def _set_environment(self, more: dict[str, str]) -> None:
        """Whatever a call has made of it: what every call finds, and `more`."""
        os.environ = self._environ  # noqa: B003  the same object, should a call have put another in its place
        wanted = {**self._base, **_in_bytes(more)}
        present = vars(os.environ).get("_data") or dict(os.environb)  # its own table saves a look at each name
        if present == wanted:
            return
        for name in present.keys() - wanted.keys():
            del os.environb[name]
        for name, value in wanted.items():
            if present.get(name) != value:
                os.environb[name] = value

    def _input(self, stdin: bytes | memoryview) -> io.TextIOWrapper:
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

    def _put_back_prints(self) -> None:
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

    def _leave(self, call: dict[str, Any]) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.umask(self._umask)
        directory = call.get("dir", self._own)
        if "dir" in call:
            os.chdir("/")  # or a file system could not be unmounted for our sake
        if list(sys.modules) != self._modules:
            _forget_modules(directory + "/")
            for name in sys.modules.keys() - self._modules:
                if any(_is_below(path.rstrip("/") + "/", sys.modules[name]) for path in self._paths):
                    self._stamps.setdefault(name, _stamp(name))
            self._modules = list(sys.modules)
        sys.path_importer_cache.pop(directory, None)

    def _own_is_empty(self) -> bool:
        """Whether the directory still is as it was given to us. Where nothing has changed since it was found empty,
        long after its last change, there is nothing to look for."""
        try:
            found = os.lstat(self._own)
            stamp = found.st_ino, found.st_mode, found.st_ctime_ns
            if stamp == self._stamp_of_empty:
                return True
            if found.st_mode != stat.S_IFDIR | 0o700 or os.listdir(self._own):
                return False
        except OSError:
            return False
        if found.st_ctime_ns < time.time_ns() - (FINE_TICK_NS if found.st_ctime_ns % FINE_NS else TICK_NS):
            self._stamp_of_empty = stamp
        return True

    # --- the call ------------------------------------------------------------------------------------------------

    def _call(self, call: dict[str, Any], pickled: bytes | None) -> tuple[dict[str, Any], bytes]:
        data = b""
        try:
            data = self._named(call) if pickled is None else self._unpickled(pickled)
        except SystemExit as leaving:
            self._put_back_prints()
            return {"status": "exit", "exit": _exit_code(leaving)}, b""
        except Missing as missing:
            self._put_back_prints()
            return {"status": "missing", "why": str(missing)}, b""
        except BaseException as error:  # noqa: BLE001  whatever it is, it ends this call and not the worker
            if pickled is not None:
                data = _pickled_exception(error, self._value_bytes_max)
            self._put_back_prints()
            _print_traceback(error)
            return {"status": "exception", "exit": 1}, data
        self._put_back_prints()
        if len(data) > self._value_bytes_max:
            return {"status": "output", "exit": 1}, b""
        return {"status": "value"}, data

    def _named(self, call: dict[str, Any]) -> bytes:
        function = self._load(call["module"], call["function"])
        arguments = _parse(call["arguments"] or "[]")
        value = function(**arguments) if isinstance(arguments, dict) else function(*arguments)
        return _compact(value).encode() + b"\n"

    def _unpickled(self, pickled: bytes) -> bytes:
        """The cloudpickle of what a pickled call returns. It reads what follows its own pickle."""
        import pickle

        try:
            import cloudpickle
        except ImportError as error:
            raise Missing(f"the kind call needs cloudpickle in {sys.executable}, and there: {error}") from None
        importlib.invalidate_caches()
        stream = io.BytesIO(pickled)  # shares the bytes, as a view does
        opened = pickle.load(stream)
        if stream.tell() < len(pickled):
            sys.stdin = self._input(memoryview(pickled)[stream.tell() :])
        try:
            function, args, kwargs = opened
        except (TypeError, ValueError):
            raise TypeError("the body of a call must be the cloudpickle of (function, args, kwargs)") from None
        value = function(*args, **kwargs)
        try:
            data: bytes = cloudpickle.dumps(value)
        except Exception as error:  # noqa: BLE001  its own text does not tell what was to be pickled
            raise TypeError(f"the returned value, of type {type(value).__name__}, has no pickle: {error}") from None
        return data

    def _load(self, module: str, function: str) -> Any:
        if module not in sys.modules:
            importlib.invalidate_caches()
            __import__(module)
        if module not in self._stamps:
            self._stamps[module] = _stamp(module)
        found: Any = sys.modules[module]
        for name in function.split("."):
            found = getattr(found, name)
        return found

    def _is_stale(self, modules: Iterable[str]) -> bool:
        for module in list(modules):
            if module not in sys.modules:
                self._stamps.pop(module, None)
            elif module in self._stamps and self._stamps[module] != _stamp(module):
                return True
        return False


def _pickled_exception(error: BaseException, bytes_max: int) -> bytes:
    """Nothing where whoever reads it could not open it."""
    try:
        import pickle

        import cloudpickle

        data: bytes = cloudpickle.dumps(error)
        pickle.loads(data)
    except BaseException:  # noqa: BLE001  whatever it does, it is the first error that counts
        return b""
    return data if len(data) <= bytes_max else b""


def _writer() -> io.TextIOWrapper:
    return open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _reader() -> io.TextIOWrapper:
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False)


def _in_bytes(env: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(*ENCODING): value.encode(*ENCODING) for name, value in env.items()}


def _printed() -> bytes:
    """What is in the pipe now."""
    prints = b""
    try:
        for _ in range(READS_MAX):
            prints += os.read(PRINTS_FD, PIPE_BYTES)
    except OSError:  # there is nothing more; or the call has closed it
        pass
    return prints


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


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    print(leaving.code, file=sys.stderr, flush=True)
    return 1


def _print_traceback(error: BaseException) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace, file=sys.stderr)
    sys.stderr.flush()


def _is_dirty() -> bool:
    if _thread._count() or _signal.getsignal(signal.SIGTERM) is not _signal.SIG_DFL:
        return True
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _adopt_orphans() -> None:
    """Become the parent of what a job's children leave, so that it is noticed. Without it only children are."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def _let_go_of_control() -> None:
    """In a process that a call has forked."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (CONTROL_FD, CALLS_FD, PRINTS_FD):
        os.dup2(null, fd, inheritable=False)
    os.close(null)


def _serve(control: socket.socket, worker: Worker) -> None:
    """Until the spawner closes its end."""
    calls = socket.socket(fileno=CALLS_FD)
    with control.makefile("rb") as stream:
        while packet := calls.recv(PACKET_BYTES_MAX):
            if len(packet) == HEADER_BYTES:
                packet += stream.read(int.from_bytes(packet[:4], "big") - 8)
            end = HEADER_BYTES + int.from_bytes(packet[4:8], "big")
            head, value = worker.answer(_parse(packet[HEADER_BYTES:end].decode()), packet[end:])
            head["number"] = int.from_bytes(packet[8:HEADER_BYTES], "big")
            _send(control, head, value)
            if head["status"] == "stale" or "dirty" in head or "left" in head:
                stream.read(1)  # until the spawner has taken back what it gave us


def _send(control: socket.socket, head: dict[str, Any], data: bytes) -> None:
    text = _compact(head).encode()
    lengths = (4 + len(text) + len(data)).to_bytes(4, "big") + len(text).to_bytes(4, "big")
    control.sendall(lengths + text + data)


def main() -> None:
    setup = json.loads(sys.argv[1])
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    sys.argv = ["jobyard-worker"]
    for fd in (CONTROL_FD, CALLS_FD, PRINTS_FD):
        os.set_inheritable(fd, False)
    control = socket.socket(fileno=CONTROL_FD)
    os.register_at_fork(after_in_child=_let_go_of_control)
    _adopt_orphans()
    _send(control, {"status": "ready"}, b"")
    _serve(control, Worker(**setup))
    os._exit(0)  # the spawner has gone: nobody waits for what libraries would still do


if __name__ == "__main__":
    main()
