"""What a warm Python worker runs: one call after another, each as if it were alone.

    python child.py '{"paths": [...], "value_bytes_max": N}'          descriptor 3 is the control socket

Rules: the standard library only, nothing of ours, Python 3.8 or newer: JOBYARD_PYTHON may be any interpreter. Pickles
are opened and made here alone, with cloudpickle, which is imported when the first comes. A frame is its length and the
length of its head (4 bytes each, big-endian; the first counts all that follows it), the head in JSON, then bytes. The
spawner sends one of

    {"module", "function", "arguments", "dir", "env"}   and the job's standard input (the kind `py`)
    {"dir", "env"}                                      and the cloudpickle of (function, args, kwargs) (`call`)

The worker first says {"status": "ready"}, and answers each call with one status of

    value      the bytes are the returned value: compact JSON and a line feed; or, of a pickled call, its cloudpickle
    exit       sys.exit was called; "exit" is the code
    exception  the traceback is the last thing on standard error; the bytes are, of a pickled call, the cloudpickle of
               the exception, or nothing if it has none
    output     the value is longer than allowed
    missing    this interpreter has no cloudpickle; "why" says so
    stale      nothing was called: a module has changed since this worker loaded it, so another worker must

and with "dirty", which says that the call left something behind (a process, a thread, a signal handler), so that
this worker must not be used again. What a call prints, by whatever way, goes to standard error.
"""

from __future__ import annotations

import _thread
import importlib
import io
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from typing import Any

CONTROL_FD = 3
PR_SET_CHILD_SUBREAPER = 36


class Missing(Exception):
    """This interpreter cannot make the call."""


class Worker:
    """The surroundings of calls, put back after each."""

    def __init__(self, paths: list[str], value_bytes_max: int) -> None:
        self._value_bytes_max = value_bytes_max
        self._pid = os.getpid()
        self._own_path = list(sys.path)
        self._paths = paths
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._prints = os.dup(2)
        self._printer = _writer()
        self._no_input = _reader()

    def answer(self, call: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Make one call."""
        is_pickled = "module" not in call
        if self._is_stale(self._stamps if is_pickled else [call["module"]]):
            return {"status": "stale"}, b""
        modules = list(sys.modules)
        self._enter(call["dir"], call["env"], b"" if is_pickled else body)
        head, value = self._call(call, body if is_pickled else None)
        if os.getpid() != self._pid:
            os._exit(head.get("exit", 0))  # the call has forked, and this is the other process
        self._leave(call["dir"], modules)
        head["dirty"] = _is_dirty()
        return head, value

    # --- around a call ------------------------------------------------------------------------------------------

    def _enter(self, directory: str, env: dict[str, str], stdin: bytes) -> None:
        os.chdir(directory)
        _set_environment(env)
        sys.path[:] = [*self._paths, directory, *self._own_path]
        if self._printer.closed:
            self._printer = _writer()
        sys.stdout = sys.stderr = self._printer
        sys.stdin = self._input(stdin)

    def _input(self, stdin: bytes) -> io.TextIOWrapper:
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
        for stream in (sys.stdout, sys.stderr, self._printer):
            try:
                stream.flush()
            except Exception:  # noqa: BLE001, S110  a stream of the job's own, or one that it has closed
                pass
        os.dup2(self._prints, 1)
        os.dup2(self._prints, 2)
        if self._printer.closed:
            self._printer = _writer()
        sys.stdout = sys.stderr = self._printer

    def _leave(self, directory: str, modules: list[str]) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.umask(self._umask)
        os.chdir("/")
        if list(sys.modules) != modules:
            _forget_modules(directory + "/")
            for name in sys.modules.keys() - modules:
                if any(_is_below(path.rstrip("/") + "/", sys.modules[name]) for path in self._paths):
                    self._stamps.setdefault(name, _stamp(name))
        sys.path_importer_cache.pop(directory, None)

    # --- the call ------------------------------------------------------------------------------------------------

    def _call(self, call: dict[str, Any], pickled: bytes | None) -> tuple[dict[str, Any], bytes]:
        data = b""
        try:
            data = self._named(call) if pickled is None else _unpickled(pickled)
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
        arguments = json.loads(call["arguments"] or "[]")
        value = function(**arguments) if isinstance(arguments, dict) else function(*arguments)
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

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


def _unpickled(pickled: bytes) -> bytes:
    """The cloudpickle of what a pickled call returns."""
    import pickle

    try:
        import cloudpickle
    except ImportError as error:
        raise Missing(f"the kind call needs cloudpickle in {sys.executable}, and there: {error}") from None
    importlib.invalidate_caches()
    opened = pickle.loads(pickled)
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


def _set_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


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
    if _thread._count() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
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
    os.dup2(null, CONTROL_FD, inheritable=False)
    os.close(null)


def _serve(control: socket.socket, worker: Worker) -> None:
    """Until the spawner closes its end."""
    with control.makefile("rb") as requests:
        while True:
            lengths = requests.read(8)
            if len(lengths) < 8:
                return
            frame_bytes, head_bytes = int.from_bytes(lengths[:4], "big"), int.from_bytes(lengths[4:], "big")
            head = json.loads(requests.read(head_bytes))
            _send(control, *worker.answer(head, requests.read(frame_bytes - 4 - head_bytes)))


def _send(control: socket.socket, head: dict[str, Any], data: bytes) -> None:
    text = json.dumps(head).encode()
    lengths = (4 + len(text) + len(data)).to_bytes(4, "big") + len(text).to_bytes(4, "big")
    control.sendall(lengths + text + data)


def main() -> None:
    setup = json.loads(sys.argv[1])
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    sys.argv = ["jobyard-worker"]
    os.set_inheritable(CONTROL_FD, False)
    control = socket.socket(fileno=CONTROL_FD)
    os.register_at_fork(after_in_child=_let_go_of_control)
    _adopt_orphans()
    _send(control, {"status": "ready"}, b"")
    _serve(control, Worker(setup["paths"], setup["value_bytes_max"]))
    os._exit(0)  # the spawner has gone: nobody waits for what libraries would still do


if __name__ == "__main__":
    main()
