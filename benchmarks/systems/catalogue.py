"""Which systems there are, where their code is, and what has to be installed for them.

Read in both environments, before anything is installed: standard library only.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from benchmarks.systems.system import System


@dataclass(frozen=True)
class Entry:
    """One system. `module:Class` is its adapter; the rest is what that needs."""

    name: str
    title: str
    adapter: str
    durability: str
    durable: bool  # synced before it is acknowledged
    debian: tuple[str, ...] = ()  # packages
    programs: tuple[str, ...] = ()  # what must then be on the PATH
    pypi: tuple[str, ...] = ()
    group: str = ""  # PEERS= may name several by one word

    def load(self) -> System:
        """Its adapter; ImportError where what it needs is missing."""
        module, _, name = self.adapter.partition(":")
        made = getattr(import_module(f"benchmarks.systems.{module}"), name)()
        assert isinstance(made, System)
        return made


OURS: Final = "jobyard"
_REDIS: Final = ("redis-server",)  # its package, and its program
_SYNCED: Final = "every write synced"

CATALOGUE: Final = {
    entry.name: entry
    for entry in (
        Entry(
            OURS,
            "Jobyard, 2 nodes × 1 slot",
            "jobyard:Jobyard",
            "jobs and outcomes synced, at the origin and in the ledger",
            True,
        ),
        Entry(
            "beanstalkd-f0",
            "beanstalkd -f0, Python workers",
            "beanstalkd:Synced",
            _SYNCED,
            True,
            debian=("beanstalkd",),
            programs=("beanstalkd",),
            group="beanstalkd",
        ),
        Entry(
            "beanstalkd-f50",
            "beanstalkd -f50, Python workers",
            "beanstalkd:Periodic",
            "synced every 50 ms, its default",
            False,
            debian=("beanstalkd",),
            programs=("beanstalkd",),
            group="beanstalkd",
        ),
        Entry(
            "huey-sqlite", "Huey, SQLite with fsync", "huey:Sqlite", _SYNCED, True, pypi=("huey>=2.5",), group="huey"
        ),
        Entry(
            "huey-redis",
            "Huey, Redis always",
            "huey:Redis",
            _SYNCED,
            True,
            pypi=("huey>=2.5", "redis>=5"),
            group="huey",
            debian=_REDIS,
            programs=_REDIS,
        ),
        Entry(
            "rq", "RQ, Redis always", "rq:Rq", _SYNCED, True, pypi=("rq>=2", "redis>=5"), debian=_REDIS, programs=_REDIS
        ),
        Entry(
            "celery",
            "Celery, Redis always, acks_late",
            "celery:Celery",
            _SYNCED,
            True,
            pypi=("celery[redis]>=5.4",),
            debian=_REDIS,
            programs=_REDIS,
        ),
        Entry(
            "dramatiq",
            "Dramatiq, Redis always",
            "dramatiq:Dramatiq",
            _SYNCED,
            True,
            pypi=("dramatiq[redis]>=1.17",),
            debian=_REDIS,
            programs=_REDIS,
        ),
        Entry("dask", "Dask.distributed", "dask:Dask", "in memory", False, pypi=("distributed>=2024.1",)),
        Entry(
            "hyperqueue",
            "HyperQueue, without its journal",
            "hyperqueue:HyperQueue",
            "in memory",
            False,
            pypi=("hyperqueue>=0.19",),
        ),
        Entry(
            "hypershell",
            "HyperShell, SQLite, start included",
            "hypershell:Database",
            "SQLite, its defaults",
            False,
            pypi=("hypershell>=2.6",),
            group="hypershell",
        ),
        Entry(
            "hypershell-memory",
            "HyperShell, no database, start included",
            "hypershell:Memory",
            "in memory",
            False,
            pypi=("hypershell>=2.6",),
            group="hypershell",
        ),
        Entry(
            "task-spooler",
            "task-spooler, 2 slots",
            "shells:TaskSpooler",
            "in memory",
            False,
            debian=("task-spooler",),
            programs=("tsp",),
        ),
        Entry(
            "parallel",
            "GNU parallel -j2, start included",
            "shells:Parallel",
            "none",
            False,
            debian=("parallel",),
            programs=("parallel",),
        ),
        Entry("xargs", "xargs -P2, output not captured", "shells:Xargs", "none", False, programs=("xargs",)),
    )
}


def chosen(words: str) -> tuple[str, ...]:
    """The names that PEERS= means: names or groups, by commas; `all`; or `none`. Raises ValueError."""
    peers = [name for name in CATALOGUE if name != OURS]
    if words in ("all", "none"):
        return tuple(peers) if words == "all" else ()
    found: list[str] = []
    for word in filter(None, (word.strip() for word in words.split(","))):
        meant = [name for name in peers if word in (name, CATALOGUE[name].group)]
        if not meant:
            groups = {entry.group for entry in CATALOGUE.values() if entry.group}
            raise ValueError(f"PEERS={word} is no peer; there are {', '.join(sorted({*peers, *groups}))}, all and none")
        found += [name for name in meant if name not in found]
    return tuple(found)
