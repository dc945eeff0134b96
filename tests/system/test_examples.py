"""Each recipe of the cookbook in `examples/` is run at a real cluster, as its first lines say, and does as they say."""

import gzip
import os
import re
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import REPOSITORY, LocalCluster
from jobyard import Client, JobOptions
from tests.system.client import missing, until
from tests.system.conftest import StartCluster
from tests.system.rows import TICKET
from tests.system.shells import Done, Shell

pytestmark = pytest.mark.system

EXAMPLES: Final = REPOSITORY / "examples"
SLOTS: Final = 3
CASE: Final = """import unittest

class Case(unittest.TestCase):
    def test_right(self):
        self.assertTrue("yes")
"""


class Kitchen:
    """A cluster, and a shell in which recipes are tried."""

    def __init__(self, cluster: LocalCluster, home: Path) -> None:
        self.cluster = cluster
        self.shell = Shell(cluster, home)
        self.yard = Client(cluster.url("node2"))

    def cook(self, recipe: str, *words: str, cwd: Path, stdin: str = "", **env: str) -> Done:
        return self.shell.run([*_how_to_run(recipe), *words], cwd=cwd, stdin=stdin, **env)


def _how_to_run(recipe: str) -> list[str]:
    path = EXAMPLES / recipe
    if path.suffix == ".mk":
        return ["make", "--no-print-directory", "-f", str(path)]
    assert os.access(path, os.X_OK), f"{path} cannot be run as it is"
    return [str(path)]


@pytest.fixture(scope="module")
def kitchen(start_cluster_of_module: StartCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    kitchen = Kitchen(start_cluster_of_module(2, slots=SLOTS), tmp_path_factory.mktemp("home"))
    yield kitchen
    kitchen.yard.close()


def well(done: Done) -> str:
    """What a recipe printed that went well."""
    assert done.code == 0, done
    return done.stdout


def written(directory: Path, **texts: str) -> Path:
    """A directory with these files, `_` standing for a blank in their names."""
    directory.mkdir()
    for name, text in texts.items():
        (directory / f"{name.replace('_', ' ')}.txt").write_text(text)
    return directory


# --- shells ------------------------------------------------------------------------------------------------------


def test_a_nightly_batch_writes_a_list_for_each_directory(kitchen: Kitchen, tmp_path: Path) -> None:
    one = written(tmp_path / "one", first="1", second_half="2")
    two = written(tmp_path / "two", third="3")
    assert well(kitchen.cook("01_nightly_batch.sh", str(one), str(two), cwd=tmp_path)) == "2 lists written\n"
    lines = (one / "SHA256SUMS").read_text().splitlines()
    assert lines == [f"{sha256(b'1').hexdigest()}  ./first.txt", f"{sha256(b'2').hexdigest()}  ./second half.txt"]


def test_a_nightly_batch_tells_what_failed_and_how_to_run_it_again(kitchen: Kitchen, tmp_path: Path) -> None:
    good, empty = written(tmp_path / "good", first="1"), written(tmp_path / "empty")
    done = kitchen.cook("01_nightly_batch.sh", str(good), str(empty), cwd=tmp_path, BACKOFF="20ms")
    (failed,) = done.stdout.splitlines()[1:]
    assert (done.code, re.fullmatch(rf"{TICKET} +failed +3 +.* exit .* empty .*", failed) is None) == (1, False)
    (empty / "late.txt").write_text("here I am")
    assert well(kitchen.shell.bash(done.stderr.partition(": ")[2], cwd=tmp_path)).endswith(" 1 queued\n")
    until("the list is written", (empty / "SHA256SUMS").exists)


def test_files_are_compressed_once_and_whatever_they_are_called(kitchen: Kitchen, tmp_path: Path) -> None:
    logs = written(tmp_path / "logs", access="GET /\n" * 1000, it_s_here="moin\n")
    printed = well(kitchen.cook("02_compress_files.sh", str(logs), cwd=tmp_path))
    assert re.search(r"^\./access\.txt 6000 -> \d\d\n", printed, re.MULTILINE)
    assert {path.name: gzip.decompress(path.read_bytes()) for path in logs.glob("*.gz")} == {
        "access.txt.gz": b"GET /\n" * 1000,
        "it s here.txt.gz": b"moin\n",
    }
    assert well(kitchen.cook("02_compress_files.sh", str(logs), cwd=tmp_path)) == ""


def test_a_pipeline_counts_the_words_of_all_texts(kitchen: Kitchen, tmp_path: Path) -> None:
    texts = written(tmp_path / "texts", a="The cat, the dog.\n", b_c="A DOG and the cat and the hen\n")
    words = well(kitchen.cook("04_pipeline.sh", str(texts), cwd=tmp_path)).split()
    assert words == ["4", "the", "2", "and", "2", "cat", "2", "dog", "1", "a"]


@contextmanager
def flaky_server(refusals: int) -> Iterator[str]:
    """A server that is too busy for so many requests; its address."""
    left = iter(range(refusals))

    class Flaky(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if next(left, None) is None else 503)
            self.end_headers()
            self.wfile.write(b"data\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/data"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("refusals", "code", "says"),
    [(2, 0, "data.csv is here, after 3 attempts\n"), (99, 22, "")],
    ids=["at last", "never"],
)
def test_a_flaky_download_is_tried_again(kitchen: Kitchen, tmp_path: Path, refusals: int, code: int, says: str) -> None:
    if kitchen.shell.bash("command -v curl", cwd=tmp_path).code != 0:
        missing("there is no curl here")
    with flaky_server(refusals) as url:
        done = kitchen.cook("05_flaky_download.sh", url, "data.csv", cwd=tmp_path, BACKOFF="1ms")
    assert (done.code, done.stdout, "503" in done.stderr) == (code, says, code == 22)
    assert [path.read_text() for path in tmp_path.glob("*.csv")] == (["data\n"] if code == 0 else [])


def test_cron_gets_one_job_a_day_however_often_it_asks(kitchen: Kitchen, tmp_path: Path) -> None:
    days = ["2026-11-20", "2026-11-20", "2026-11-21"]
    command = ("report", "sh", "-c", "echo made >> reports")
    tickets = [well(kitchen.cook("06_cron_key.sh", *command, cwd=tmp_path, DAY=day)).split()[0] for day in days]
    assert tickets[0] == tickets[1] != tickets[2]
    assert all(kitchen.yard.wait(ticket, 20).succeeded for ticket in tickets)
    assert (tmp_path / "reports").read_text() == "made\n" * 2
    assert well(kitchen.cook("06_cron_key.sh", *command, cwd=tmp_path, DAY=days[0])) == f"{tickets[0]} succeeded\n"


def test_bash_and_nc_collect_every_result(kitchen: Kitchen, tmp_path: Path) -> None:
    if kitchen.shell.bash("nc -h 2>&1 | grep -q OpenBSD", cwd=tmp_path).code != 0:
        missing("there is no nc of OpenBSD here (Debian: netcat-openbsd)")
    assert well(kitchen.cook("07_collect_with_nc.sh", "150", cwd=tmp_path)) == "the squares up to 150 come to 1136275\n"


def test_a_test_suite_runs_in_shards_and_fails_with_its_tests(kitchen: Kitchen, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name in "abcde":
        case = (
            f"import unittest\nclass Test(unittest.TestCase):\n    def test_{name}(self): self.assertTrue({name!r})\n"
        )
        (tmp_path / "tests" / f"test_{name}.py").write_text(case)
    make = ("10_shard_tests.mk", "check", "PER_SHARD=2")
    assert well(kitchen.cook(*make, cwd=tmp_path)).count("\tOK\n") == 3
    assert len((tmp_path / "shards.tsv").read_text().splitlines()) == 1 + 3
    with (tmp_path / "tests" / "test_d.py").open("a") as file:
        file.write("\n    def test_wrong(self):\n        self.fail('as it should')\n")
    done = kitchen.cook(*make, cwd=tmp_path)
    assert done.code != 0
    assert "tests/test_c.py tests/test_d.py\tAssertionError: as it should\n" in done.stdout


def test_each_limit_ends_what_goes_beyond_it_and_nothing_else(kitchen: Kitchen, tmp_path: Path) -> None:
    verdicts = {
        "echo fine": "succeeded",
        "sleep 60": "timeout",
        "while :; do :; done": "cpu",
        """python3 -c 'x = b"x" * (200 << 20); import time; time.sleep(60)'""": "memory",
        "for i in $(seq 30); do sleep 60 & done; wait": "processes",
        "yes; sleep 60": "output",
    }
    commands = "".join(f"{command}\n" for command in verdicts)
    limits = {"TIMEOUT": "4s", "CPU": "500ms", "MEMORY": "128MiB"}
    told = well(kitchen.cook("11_limits.sh", cwd=tmp_path, stdin=commands, **limits)).splitlines()
    for command, verdict in verdicts.items():
        (line,) = (line for line in told if line.endswith(f"  {command}"))
        assert f"  {verdict}  " in line
    assert len(told) == len(verdicts)


def test_a_long_job_is_followed_to_its_exit_code(kitchen: Kitchen, tmp_path: Path) -> None:
    command = ("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done; echo so >&2; exit 4")
    done = kitchen.cook("12_follow_a_long_job.sh", *command, cwd=tmp_path)
    assert (done.code, done.stdout) == (4, "1\n2\n3\n")
    assert re.fullmatch(rf"it is {TICKET}\nso\n", done.stderr)


def test_ctrl_c_ends_the_watching_and_not_the_job(kitchen: Kitchen, tmp_path: Path) -> None:
    command = [*_how_to_run("12_follow_a_long_job.sh"), "sh", "-c", "echo begun; sleep 60"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**kitchen.shell.env, "PWD": str(tmp_path)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        assert watching.stdout.readline() == "begun\n"
        os.killpg(watching.pid, signal.SIGINT)
        _, said = watching.communicate(timeout=20)
    ticket = said.split()[2]
    assert (watching.returncode, said.splitlines()[-1]) == (130, f"it goes on: jobyard logs --follow {ticket}")
    assert kitchen.yard.status(ticket).state == "running"
    kitchen.yard.cancel(ticket)


def test_a_node_is_in_maintenance_only_when_nothing_runs_there(kitchen: Kitchen, tmp_path: Path) -> None:
    wide: JobOptions = {"slots": SLOTS, "dir": str(tmp_path)}  # as wide as a node, so that each node has one
    for _ in kitchen.cluster.node_names:
        kitchen.yard.submit("sh", "until [ -e go ]; do sleep 0.05; done; touch ended-on-$JOBYARD_NODE", **wide)
    until("both run", lambda: all(node.running == 1 for node in kitchen.yard.nodes()))
    recipe = [*_how_to_run("13_maintenance.sh"), kitchen.cluster.url("node2"), "sh", "-c", "ls; jobyard nodes"]
    with subprocess.Popen(
        recipe, cwd=tmp_path, env=kitchen.shell.env | {"PERIOD": "0.05"}, stdout=subprocess.PIPE, bufsize=0
    ) as maintenance:
        assert maintenance.stdout is not None
        assert maintenance.stdout.readline().startswith(b"draining: finishes 1 ")
        assert select.select([maintenance.stdout], [], [], 0.5)[0] == [], "it did not wait for what runs"
        (tmp_path / "go").touch()
        printed, _ = maintenance.communicate(timeout=20)
    assert maintenance.returncode == 0
    first, *command, last = printed.decode().splitlines()
    assert (first, last) == ("nothing runs there any more", "alive")
    assert "ended-on-node2" in command
    assert any(re.match(r"node2 +draining ", line) for line in command)


# --- Python ------------------------------------------------------------------------------------------------------


def test_a_sweep_gathers_a_result_for_each_value(kitchen: Kitchen, tmp_path: Path) -> None:
    lines = well(kitchen.cook("03_parameter_sweep.py", cwd=tmp_path)).splitlines()
    waited = {int(line.split()[1]) / 100: float(line.split()[3]) for line in lines}
    assert list(waited) == [load / 100 for load in range(10, 100, 10)]
    for load, mean in waited.items():
        assert mean == pytest.approx(load / (1 - load), rel=0.3)  # what the theory of queues says


def test_primes_are_counted_by_functions_of_the_script(kitchen: Kitchen, tmp_path: Path) -> None:
    assert well(kitchen.cook("08_executor_map.py", "100000", cwd=tmp_path)) == "9,592 primes below 100,000\n"


def test_a_grid_search_finds_what_it_finds_without_a_cluster(kitchen: Kitchen, tmp_path: Path) -> None:
    before = set(calls(kitchen))
    printed = well(kitchen.cook("09_grid_search.py", "2", cwd=tmp_path))
    assert re.fullmatch(r"best of 6: \{'C': 10, 'gamma': 0\.001\}, right in 9\d\.\d%\n", printed)
    assert set(calls(kitchen)) - before, "nothing of it ran on the cluster"


def calls(kitchen: Kitchen) -> list[str]:
    """The jobs of executors that have succeeded."""
    jobs = kitchen.yard.list(state="succeeded", limit=10_000)
    return [job.ticket for job in jobs if (job.group or "").startswith("executor-")]


def test_each_failure_is_told_once(kitchen: Kitchen, tmp_path: Path) -> None:
    def told() -> str:
        return well(kitchen.cook("14_tell_of_failures.py", str(tmp_path / "cursor"), cwd=tmp_path))

    told()  # of other tests
    tickets = [kitchen.yard.submit("sh", f"echo no {what} >&2; exit 1") for what in ("paper", "ink")]
    nodes = [kitchen.yard.wait(ticket, 20).node for ticket in tickets]
    kitchen.yard.wait(kitchen.yard.submit("sh", "true"), 20)
    assert sorted(told().splitlines()) == sorted(
        f"{ticket} failed on {node}: exit (no {what})"
        for ticket, node, what in zip(tickets, nodes, ("paper", "ink"), strict=True)
    )
    assert told() == ""


# --- the index ---------------------------------------------------------------------------------------------------


def test_each_recipe_is_in_the_index_and_is_run_here() -> None:
    recipes = {path.name for path in EXAMPLES.glob("[0-9]*")}
    assert len(recipes) >= 12
    index = (EXAMPLES / "README.md").read_text()
    assert re.findall(r"^\| \[(\w+\.\w+)\]\(\1\) \|", index, re.MULTILINE) == sorted(recipes)
    assert all((EXAMPLES / target).exists() for target in re.findall(r"\]\(([^)]+)\)", index))
    assert set(re.findall(r'"(\d\d_\w+\.\w+)"', Path(__file__).read_text())) == recipes


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[0-9]*")), ids=lambda path: path.name)
def test_each_recipe_says_what_it_does_and_how_it_is_run_and_stays_small(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert 10 <= len(lines) <= 60
    assert any("JOBYARD_URL=tcp://" in line or f"./{path.name} tcp://" in line for line in lines[:8])
    assert any(path.name in line for line in lines[:8])
