"""A system's own process: `python -m benchmarks.driver SYSTEM`, in the environment that has its libraries.

Answers one JSON line for each on standard input: {"call": NAME, "with": {…}} is answered by {"value": …}, by
{"unsupported": REASON}, or by {"failed": REASON}. When standard input ends, or on SIGTERM, everything it started is
stopped. What libraries print goes to standard error. Standard library only.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks.processes import largest_bytes, processor_s
from benchmarks.systems.catalogue import CATALOGUE
from benchmarks.systems.system import System, Unsupported

CALLS: Final = frozenset(
    {
        "version", "start", "stop", "kill", "submit", "submit_each", "submit_bulk", "end_to_end", "round_trips",
        "makespan", "restart", "hold", "release", "drain", "fill", "done", "idle_nodes", "cost_with_nodes",
        "idle_connections", "bodies"
    }
)  # fmt: skip
LOOKS: Final = {"processor_s": processor_s, "largest_bytes": largest_bytes}


def answer(system: System, question: dict[str, Any]) -> dict[str, Any]:
    call, arguments = question["call"], question["with"]
    try:
        if call in LOOKS:
            if not (roots := system.roots()):
                raise Unsupported("it has no process of its own that stays")
            return {"value": LOOKS[call](roots)}
        if "directory" in arguments:
            arguments["directory"] = Path(arguments["directory"])
        if call not in CALLS or not hasattr(system, call):
            raise Unsupported("it is not asked this")
        return {"value": getattr(system, call)(**arguments)}
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    except Exception as failure:  # noqa: BLE001  (whatever a library raises is a result that did not come)
        traceback.print_exc()
        return {"failed": f"{type(failure).__name__}: {failure}"}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # libraries may print
    signal.signal(signal.SIGTERM, _stop)
    try:
        system = CATALOGUE[sys.argv[1]].load()
    except ImportError as missing:
        print(json.dumps({"failed": f"cannot be imported: {missing}"}), file=replies)
        return
    print(json.dumps({"value": "ready"}), file=replies)
    try:
        for line in sys.stdin:
            print(json.dumps(answer(system, json.loads(line))), file=replies)
    finally:
        system.stop()


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
