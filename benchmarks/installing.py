"""Getting the peers: libraries from PyPI into an environment of their own, programs from Debian's packages.

Nothing of the machine is changed. The packages are downloaded by apt-get and unpacked beneath `.debian`, never
installed: no service starts, nothing has to be removed afterwards, and nobody has to be root as long as the lists of
packages are there. What cannot be had is said; the run goes on without it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.systems.catalogue import OURS, Entry

HERE: Final = Path(__file__).resolve().parent
PEERS_ENVIRONMENT: Final = HERE / ".venv-peers"
DEBIAN: Final = HERE / ".debian"
DRAWING: Final = ("matplotlib>=3.8",)
INSTALL_S_MAX: Final = 900.0
_REASON_CHARACTERS: Final = 300


class CannotHave(Exception):
    """Something could not be installed; the text says why."""


@attrs.frozen
class Site:
    """Where a system's driver runs: which interpreter, and what is added to its environment."""

    python: str
    env: dict[str, str]


def site_of(entry: Entry) -> Site:
    """Installs what a system needs; raises CannotHave."""
    if entry.name == OURS:
        return Site(sys.executable, {})
    python = peers_python()
    if entry.pypi:
        install(entry.pypi)
    return Site(python, programs(entry.debian, entry.programs))


# --- PyPI --------------------------------------------------------------------------------------------------------


def peers_python() -> str:
    """The interpreter of the peers' environment, which is made when it is first needed."""
    python = PEERS_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(PEERS_ENVIRONMENT)])
    return str(python)


def install(requirements: Sequence[str]) -> None:
    """Into the peers' environment, once for each list of requirements."""
    done = PEERS_ENVIRONMENT / "installed"
    wanted = " ".join(requirements)
    if done.exists() and wanted in done.read_text().splitlines():
        return
    pip = [peers_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *requirements])
    with done.open("a") as log:
        log.write(f"{wanted}\n")


# --- Debian ------------------------------------------------------------------------------------------------------


def programs(packages: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """An environment in which these programs are found: the machine's own, else from Debian's packages."""
    if _missing(wanted, os.environ["PATH"]):
        if packages and _missing(wanted, _path()):
            _unpack(packages)
        if missing := _missing(wanted, _path()):
            raise CannotHave(f"there is no program {', '.join(missing)} here")
        return {"PATH": _path(), "LD_LIBRARY_PATH": _library_path(), "PERL5LIB": str(DEBIAN / "usr/share/perl5")}
    return {}


def _missing(wanted: Iterable[str], path: str) -> list[str]:
    return [name for name in wanted if shutil.which(name, path=path) is None]


def _path() -> str:
    return os.pathsep.join([str(DEBIAN / "usr/bin"), os.environ["PATH"]])


def _library_path() -> str:
    return os.pathsep.join(map(str, sorted((DEBIAN / "usr/lib").glob("*-linux-gnu"))))


def _unpack(packages: Sequence[str]) -> None:
    """Downloads these packages, and what they depend on that is not installed, and unpacks them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise CannotHave(f"install {', '.join(packages)} by hand: there is no apt-get here")
    DEBIAN.mkdir(exist_ok=True)
    try:
        needed = _with_dependencies(packages)
    except CannotHave:
        if os.geteuid() != 0:
            raise CannotHave(f"apt-get does not know {', '.join(packages)}; let root call apt-get update") from None
        _run(["apt-get", "update", "--quiet"])
        needed = _with_dependencies(packages)
    _run(["apt-get", "download", "--quiet", *needed], DEBIAN)
    for archive in sorted(DEBIAN.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(archive), str(DEBIAN)])
        archive.unlink()


def _with_dependencies(packages: Sequence[str]) -> list[str]:
    plan = _run(["apt-get", "install", "--simulate", "--no-install-recommends", "--quiet", *packages])
    return [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    """What it prints; CannotHave with the end of its errors where it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S_MAX
        )
    except subprocess.TimeoutExpired:
        raise CannotHave(f"`{' '.join(command[:4])} …` took longer than {INSTALL_S_MAX:g} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise CannotHave(f"`{' '.join(command[:4])} …` failed: {' '.join(errors)[-_REASON_CHARACTERS:]}")
    return done.stdout
