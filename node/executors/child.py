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

import importlib
import io
import json
import os
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node.executors.child_surroundings import PRINTS_FD, Surroundings, is_dirty
else:
    from child_surroundings import PRINTS_FD, Surroundings, is_dirty  # it is beside this file

CONTROL_FD, CALLS_FD = 3, 4
HEADER_BYTES = 12
PACKET_BYTES_MAX = 32 * 1024
PR_SET_CHILD_SUBREAPER = 36

_compact = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_parse = json.JSONDecoder().raw_decode  # a value and where it ends; what comes from the spawner ends there


class Missing(Exception):
    """This interpreter cannot make the call."""


class Worker:
    """Makes calls, and answers them."""

    def __init__(self, paths: list[str], env: dict[str, str], value_bytes_max: int) -> None:
        self._value_bytes_max = value_bytes_max
        self._pid = os.getpid()
        self.surroundings = Surroundings(paths, env)

    def answer(self, call: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Make one call."""
        began_at = time.monotonic()
        around = self.surroundings
        module = call.get("module")
        if around.have_changed(module):
            return {"status": "stale"}, b""
        around.enter(call, body if module is not None else b"")
        head, value = self._call(call, body if module is None else None)
        if os.getpid() != self._pid:
            os._exit(head.get("exit", 0))  # the call has forked, and this is the other process
        if around.leave(call):
            head["left"] = True
        if is_dirty():
            head["dirty"] = True
        if prints := around.printed():
            head["prints"] = len(prints)
        head["seconds"] = round(time.monotonic() - began_at, 6)
        return head, value + prints

    # --- the call ------------------------------------------------------------------------------------------------

    def _call(self, call: dict[str, Any], pickled: bytes | None) -> tuple[dict[str, Any], bytes]:
        data = b""
        try:
            data = self._named(call) if pickled is None else self._unpickled(pickled)
        except SystemExit as leaving:
            self.surroundings.put_back_prints()
            return {"status": "exit", "exit": _exit_code(leaving)}, b""
        except Missing as missing:
            self.surroundings.put_back_prints()
            return {"status": "missing", "why": str(missing)}, b""
        except BaseException as error:  # noqa: BLE001  whatever it is, it ends this call and not the worker
            if pickled is not None:
                data = _pickled_exception(error, self._value_bytes_max)
            self.surroundings.put_back_prints()
            _print_traceback(error)
            return {"status": "exception", "exit": 1}, data
        self.surroundings.put_back_prints()
        if len(data) > self._value_bytes_max:
            return {"status": "output", "exit": 1}, b""
        return {"status": "value"}, data

    def _named(self, call: dict[str, Any]) -> bytes:
        function = self._load(call["module"], call["function"])
        arguments, _ = _parse(call["arguments"] or "[]")
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
            sys.stdin = self.surroundings.input(memoryview(pickled)[stream.tell() :])
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
        self.surroundings.note_module(module)
        found: Any = sys.modules[module]
        for name in function.split("."):
            found = getattr(found, name)
        return found


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
    room = memoryview(bytearray(PACKET_BYTES_MAX))  # to make it for each call costs more than to copy out of it
    with control.makefile("rb") as stream:
        while count := calls.recv_into(room):
            packet = bytes(room[:count])
            if count == HEADER_BYTES:
                packet += stream.read(int.from_bytes(packet[:4], "big") - 8)
            end = HEADER_BYTES + int.from_bytes(packet[4:8], "big")
            call, _ = _parse(packet[HEADER_BYTES:end].decode())
            head, value = worker.answer(call, packet[end:])
            head["number"] = int.from_bytes(packet[8:HEADER_BYTES], "big")
            _send(control, head, value)
            if head["status"] == "stale" or "dirty" in head or "left" in head:
                stream.read(1)  # until the spawner has taken back what it gave us


def _send(control: socket.socket, head: dict[str, Any], data: bytes) -> None:
    if len(head) == 3 and head["status"] == "value":  # as nearly all of them
        text = b'{"status":"value","seconds":%.6f,"number":%d}' % (head["seconds"], head["number"])
    else:
        text = _compact(head).encode()
    lengths = (4 + len(text) + len(data)).to_bytes(4, "big") + len(text).to_bytes(4, "big")
    control.sendall(lengths + text + data)


def main() -> None:
    setup = json.loads(sys.argv[1])
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    del sys.modules[Surroundings.__module__]  # a job may have a module of that name
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
