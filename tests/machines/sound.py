"""Inspections of the disks of tests, which are dictionaries."""

from collections.abc import Iterator, Mapping

from balancer.inspection import balancer_rules
from common.effects import Table
from common.inspection import Finding, inspect
from node.inspection import NODE
from tests.machines.cluster import Cluster, Disk

Tables = dict[str, dict[bytes, bytes | None]]


class InMemory:
    """Records in dictionaries; None stands for one that does not match its checksum."""

    def __init__(self, tables: Mapping[str, Mapping[bytes, bytes | None]]) -> None:
        self.tables = tables

    def names(self) -> list[str]:
        return sorted(self.tables)

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        yield from sorted(self.tables.get(table, {}).items())

    def keys(self, table: str, prefix: bytes) -> Iterator[bytes]:
        return (key for key in sorted(self.tables.get(table, {})) if key.startswith(prefix))

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.tables.get(table, {}).get(key)

    def holds(self, table: str, key: bytes) -> bool:
        set_aside = f"{table}/".encode() + key
        return key in self.tables.get(table, {}) or set_aside in self.tables.get("quarantine", {})


def tables_of(disk: Disk, prefix: str | None = None) -> Tables:
    """A copy of a disk that can be damaged; with the prefix that the program itself would have written."""
    tables: Tables = {str(table): dict(records) for table, records in disk.tables.items()}
    if prefix is not None:
        tables[Table.META].setdefault(b"prefix", prefix.encode())
    return tables


def findings(tables: Tables, program: str) -> list[Finding]:
    rules = NODE if program == "node" else balancer_rules()
    return [found for found in inspect(InMemory(tables), rules) if isinstance(found, Finding)]


def assert_all_sound(cluster: Cluster) -> None:
    """What lies on every disk, also of those that are down, is what the documents say."""
    for node in [*cluster.nodes.values(), *getattr(cluster, "_down", {}).values()]:
        _assert_sound(tables_of(node.disk, node.who.prefix), "node", node.who.name)
    disk = cluster.balancer.disk if cluster.balancer is not None else getattr(cluster, "_kept", (None,))[0]
    if disk is not None:
        _assert_sound(tables_of(disk), "balancer", "balancer")


def _assert_sound(tables: Tables, program: str, name: str) -> None:
    problems = [found for found in findings(tables, program) if found.is_problem]
    assert not problems, f"on the disk of {name}: {problems}"
