"""What the machine itself gives, taken in the same run: what is slower than these is our doing, what is faster is not.

They stand in the tables as rows of their own.
"""

import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import lmdb

COMMITS: Final = 100
SPAWNS: Final = 800
CALLS: Final = 4000
WORKERS: Final = 2
SPAWN_SOURCE: Final = Path(__file__).resolve().with_name("spawn.c")

# What `spawn.c` does, for machines without a compiler: a tenth to a quarter slower.
SPAWNER: Final = """
import os, sys, time
sys.stdin.readline()
started = time.perf_counter()
for _ in range(int(sys.argv[1])):
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
print(time.perf_counter() - started)
"""


def commit_ms(directory: Path) -> float:
    """The median of commits of one record of 100 bytes, synced, in a store like ours."""
    with lmdb.open(str(directory / "yardstick"), map_size=1 << 26, lib_version=0) as env:
        return statistics.median(_commit_s(env, number) for number in range(COMMITS)) * 1000


def _commit_s(env: lmdb.Environment, number: int) -> float:
    started = time.perf_counter()
    with env.begin(write=True) as transaction:
        transaction.put(b"%08d" % number, b"x" * 100)
    return time.perf_counter() - started


def spawner_in_c(directory: Path) -> list[str] | None:
    """The command that is the limit, built in this directory; None without a compiler."""
    program = directory / "spawn"
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    built = subprocess.run([compiler, "-O1", "-o", str(program), str(SPAWN_SOURCE)], capture_output=True)
    return [str(program)] if built.returncode == 0 else None


def spawner_in_python() -> list[str]:
    return [sys.executable, "-I", "-S", "-c", SPAWNER]


def spawns_per_s(spawner: Sequence[str]) -> float:
    """posix_spawn and wait of /bin/true, one after the other, by as many processes as there are slots."""
    command = [*spawner, str(SPAWNS // WORKERS)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return SPAWNS / max(float(process.communicate()[0]) for process in running)


def pool_calls_per_s() -> float:
    """The same calls as `py`, through ProcessPoolExecutor.submit with two processes: nothing is written down."""
    with ProcessPoolExecutor(WORKERS) as pool:
        pool.submit(math.sqrt, 4).result()
        started = time.perf_counter()
        for future in [pool.submit(math.sqrt, 4) for _ in range(CALLS)]:
            future.result()
        return CALLS / (time.perf_counter() - started)
