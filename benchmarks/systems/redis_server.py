"""A Redis of our own on loopback, every write synced (`appendfsync always`), for the peers that need one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.processes import HOST, Child, free_port, wait_until

LOAD_S_MAX: Final = 120.0  # reading back its file after a restart


class RedisServer:
    """The server and a connection to it. Database 0 is for queues, database 1 for results."""

    def __init__(self, directory: Path, children: list[Child]) -> None:
        """Ready when it returns; it belongs to `children` from the moment it is started."""
        self.port = port = free_port()
        data = directory / "redis"
        data.mkdir(exist_ok=True)
        command = ["redis-server", "--bind", HOST, "--port", str(port), "--dir", str(data), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"]
        self.child = Child(command, directory / "redis.log")
        self.queues: Any = redis.Redis(HOST, port, db=0)
        self.results: Any = redis.Redis(HOST, port, db=1)
        children.append(self.child)
        wait_until(self._answers, LOAD_S_MAX, "starting redis-server")

    def url(self, database: int) -> str:
        return f"redis://{HOST}:{self.port}/{database}"

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        """While it lasts, writes are not synced: for filling a queue before a measure, never within one."""
        self.queues.config_set("appendfsync", "no")
        try:
            yield
        finally:
            self.queues.config_set("appendfsync", "always")

    def _answers(self) -> bool:
        self.child.check()
        try:
            return bool(self.queues.ping())
        except redis.RedisError:
            return False  # not there yet, or still reading its file


def version_with_redis(package: str) -> str:
    """Of a library and of the server behind it."""
    told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    server = next(word.removeprefix("v=") for word in told.split() if word.startswith("v="))
    return f"{version(package)}, Redis {server}"
