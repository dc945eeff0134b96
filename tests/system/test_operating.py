"""The commands of docs/operating.md by symptom, typed at a cluster that has it; and those of Upgrade and Restore.

The language of the checks is in rows.py. A section is one story: its rows are typed in their order, at a cluster that
was brought into the state that the section is about. Of the machine that the document speaks of there is a likeness
here: `systemctl` and `journalctl` act on the processes of the cluster and show their logs, and paths and addresses are
theirs.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import REPOSITORY, LocalCluster
from jobyard import Client, Full, Ticket
from tests.system.client import until
from tests.system.conftest import StartCluster
from tests.system.rows import Row, RowError
from tests.system.shells import Done, Shell

pytestmark = pytest.mark.system

DOCUMENT: Final = REPOSITORY / "docs" / "operating.md"
TITLE: Final = "| to see or do | command | what it tells |"
UNITS: Final = {"jobyard-node": "node2", "jobyard-balancer": "balancer"}
NODE2: Final = "tcp://node2:9000"
ENV: Final = {
    "JOBYARD_NODE_TIMEOUT": "1s",
    "JOBYARD_INFO_PERIOD": "200ms",
    "JOBYARD_HTTP_LISTEN": "127.0.0.1:0",
    "JOBYARD_LOCAL_FALLBACK": "off",
}
SLOTS: Final = 2
SOON_S: Final = 20.0


def tables(text: str) -> dict[str, list[Row]]:
    """The rows by the heading above them."""
    found: dict[str, list[Row]] = {}
    heading, inside = "", False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        inside = line.startswith("|") and (inside or line == TITLE)
        if inside and line != TITLE and not line.startswith("|---"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) != 3:
                raise RowError(f"line {number}: {len(cells)} cells, where there are 3 columns")
            found.setdefault(heading, []).append(Row(number, *cells))
    return found


TABLES: Final = tables(DOCUMENT.read_text())


class Machine:
    """A cluster of which node2 and the balancer are as the document has them."""

    def __init__(self, cluster: LocalCluster, home: Path) -> None:
        self.cluster = cluster
        self.yard = Client(cluster.url("node1"))
        self.ticket = Ticket("none")
        self._shell = Shell(cluster, home)
        self._home = home
        (home / "backups").mkdir()

    def bash(self, script: str) -> Done:
        return self._shell.bash(self._here(script), cwd=self._home, T=self.ticket)

    def run(self, row: Row) -> None:
        check = row.check
        for line in row.code.splitlines():
            if line.startswith("systemctl "):
                self._systemctl(*line.split()[1:])
                continue
            done = self.bash(line)
            assert done.code == check.exits, f"line {row.line}: `{line}` ended with {done}"
            for wanted, told in ((check.prints, done.stdout), (check.says, done.stderr)):
                if wanted is not None:
                    assert re.search(wanted, told, re.MULTILINE), f"line {row.line}: no {wanted!r} in {told!r}"
        if check.then is not None:
            then = check.then
            until(f"`{then}` goes well, after `{row.code}`", lambda: self.bash(then).code == 0, within_s=SOON_S)

    def _systemctl(self, verb: str, unit: str) -> None:
        assert verb in ("start", "stop", "restart")
        if verb != "start":
            assert self.cluster.terminate(UNITS[unit]) in (0, None)
        if verb != "stop":
            self.cluster.start(UNITS[unit])

    def _here(self, script: str) -> str:
        """The document's machine → the processes of this one."""
        root = self.cluster.log_path("node2").parent
        for unit, name in UNITS.items():
            script = script.replace(f"journalctl -u {unit} -o cat", f"cat {self.cluster.log_path(name)}")
            script = script.replace(f"/var/lib/{unit}", str(root / name))
        script = script.replace("/var/backups", str(self._home / "backups")).replace(NODE2, self.cluster.url("node2"))
        http = root / "balancer" / "http-address"
        return script.replace("127.0.0.1:8081", http.read_text().strip() if http.exists() else "127.0.0.1:1")

    def shows(self, name: str, state: str) -> bool:
        return {node.name: node.state for node in self.yard.nodes()}.get(name) == state


# --- the states ------------------------------------------------------------------------------------------------------


def jobs_wait(machine: Machine) -> None:
    machine.ticket = machine.yard.submit("sleep", "0", slots=SLOTS + 1)
    assert machine.bash(f"jobyard --url {NODE2} drain").code == 0


def node_lost(machine: Machine) -> None:
    """It has lost its balancer before, so that its log has more than its start."""
    machine.cluster.kill("balancer")
    until("node2 has lost its link", lambda: "link.closed" in machine.cluster.log_path("node2").read_text())
    machine.cluster.start("balancer")
    until("it is back", lambda: machine.bash('jobyard nodes | grep -q "^node2 *alive"').code == 0, within_s=SOON_S)
    machine.cluster.kill("node2")
    until("node2 is lost", lambda: machine.shows("node2", "lost"))


def no_balancer(machine: Machine) -> None:
    machine.cluster.kill("balancer")
    log = machine.cluster.log_path("node2")
    until("node2 has noticed", lambda: "balancer.unreachable" in log.read_text(), within_s=SOON_S)


def node_dead(machine: Machine) -> None:
    machine.cluster.kill("node2")
    well = "JOBYARD_DATA_DIR=/var/lib/jobyard-node jobyard-node --health"
    until("its health is old", lambda: machine.bash(well).code == 1, within_s=SOON_S)


def job_failed(machine: Machine) -> None:
    machine.ticket = machine.yard.submit("sh", "echo hello; exit 3", group="night")
    assert machine.yard.wait(machine.ticket, SOON_S).state == "failed"


def store_full(machine: Machine) -> None:
    """Jobs that live fill it, since those that have ended would make room by themselves."""

    def is_full() -> bool:
        try:
            machine.yard.submit("exec", "cat", body=b"x" * 65_536, slots=SLOTS + 1, group="night")
        except Full:
            return True
        return False

    until("the node refuses jobs", is_full, within_s=SOON_S)


def all_well(machine: Machine) -> None:
    until("both nodes are there", lambda: machine.shows("node1", "alive") and machine.shows("node2", "alive"))


def copied(machine: Machine) -> None:
    all_well(machine)
    assert machine.bash("jobyard-node --copy /var/lib/jobyard-node /var/backups/jobyard-node").code == 0


STATES: Final[Mapping[str, Callable[[Machine], None]]] = {
    "Jobs wait": jobs_wait,
    "A node is lost": node_lost,
    "A node has no balancer": no_balancer,
    "A program does not answer": node_dead,
    "Jobs fail": job_failed,
    "The store fills": store_full,
    "Upgrade": all_well,
    "Restore": copied,
}


@contextmanager
def machine_of(cluster: LocalCluster, home: Path) -> Iterator[Machine]:
    machine = Machine(cluster, home)
    try:
        yield machine
    finally:
        machine.yard.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("symptom", STATES)
def test_the_commands_of_a_symptom_tell_and_do_what_the_document_says(
    symptom: str, start_cluster: StartCluster, tmp_path: Path
) -> None:
    small = {"JOBYARD_STORE_MAX": "1MiB"} if symptom == "The store fills" else {}
    cluster = start_cluster(2, slots=SLOTS, env=ENV | small)
    with machine_of(cluster, tmp_path) as machine:
        all_well(machine)
        STATES[symptom](machine)
        for row in TABLES[symptom]:
            machine.run(row)


def test_every_table_of_commands_is_typed() -> None:
    assert set(TABLES) == set(STATES)
    assert all(row.check for rows in TABLES.values() for row in rows)
    assert DOCUMENT.read_text().count("<!-- check: ") == sum(map(len, TABLES.values())) > 25
