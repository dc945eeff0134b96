"""File systems that are small, so that they can be filled: a tmpfs of some megabytes, mounted where a test wants it.

To mount one takes a right that root has, and anybody within a user namespace of their own. So a test that is marked
`where_one_may_mount` runs as it is, or once more by itself inside such a namespace, or is skipped with the reason.
"""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, ParamSpec

import pytest

from examples.local_cluster import REPOSITORY
from tests.system.client import missing

P = ParamSpec("P")
_NAMESPACE: Final = ["unshare", "--map-root-user", "--mount"]
_TIME_LIMIT_S: Final = 600


class SmallDisk:
    """A mounted tmpfs, and a ballast on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, but_bytes: int = 0) -> None:
        """Leaves this much room at most, until `make_room`."""
        with self._ballast.open("ab", buffering=0) as file:
            while (free := self.free_bytes() - but_bytes) > 0:
                try:
                    file.write(bytes(min(free, 1 << 20)))
                except OSError:
                    return  # somebody else took it

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A file system of this size at `path`, which is made."""
    path.mkdir(mode=0o700)
    _mount(path, size_bytes)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _mount(path: Path, size_bytes: int) -> None:
    options = f"size={size_bytes},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, capture_output=True)


def where_one_may_mount(test: Callable[P, None]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if _may_mount():
            test(*args, **kwargs)
        else:
            _run_in_a_namespace(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])

    return run


@functools.cache
def _may_mount() -> bool:
    try:
        with tempfile.TemporaryDirectory() as place, small_disk(Path(place) / "disk", 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _run_in_a_namespace(test: str) -> None:
    try:
        subprocess.run([*_NAMESPACE, "true"], check=True, capture_output=True, text=True)
    except OSError as error:
        missing(f"nothing may be mounted here, and there is no unshare to change that: {error}")
    except subprocess.CalledProcessError as error:
        missing(f"nothing may be mounted here, not even in a user namespace: {error.stderr.strip()}")
    command = [*_NAMESPACE, sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=_TIME_LIMIT_S, check=False)
    print(done.stdout)
    if done.returncode != 0:
        pytest.fail(f"{test} failed in a namespace of its own:\n{done.stdout}{done.stderr}", pytrace=False)
