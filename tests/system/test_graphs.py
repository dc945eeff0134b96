"""`mapreduce` and `dag` of the command, and `map_reduce` of the library, on a real cluster: what only that can show."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import REPOSITORY, LocalCluster
from jobyard import Client, JobFailed
from tests.system.client import until
from tests.system.conftest import StartCluster
from tests.system.jobyard import PATIENCE_S, Jobyard

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(2, slots=2)


@pytest.fixture
def jobyard(cluster: LocalCluster, tmp_path: Path) -> Iterator[Jobyard]:
    with Jobyard(cluster, tmp_path) as jobyard:
        yield jobyard


@pytest.fixture
def yard(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster.url("node1")) as yard:
        yield yard


def test_each_reducer_reads_all_and_takes_its_part(jobyard: Jobyard) -> None:
    words = ("--map", "seq {}", "--reduce", "awk '$1 % 3 == {}' | wc -l; echo $JOBYARD_INDEX", "--reducers", "3")
    done = jobyard("mapreduce", *words, "3", "5", "1")
    assert (done.code, done.lines, done.err) == (0, ["2", "0", "4", "1", "3", "2"], b"")


def test_thousands_of_maps_are_reduced_in_order(jobyard: Jobyard) -> None:
    done = jobyard("mapreduce", "--scratch", "--map", "echo", "--reduce", "cat", ":::", *map(str, range(1200)))
    assert (done.code, done.lines) == (0, [str(number) for number in range(1200)])


def test_a_map_that_fails_ends_the_whole(jobyard: Jobyard, yard: Client) -> None:
    command = "test {} != 2 || { echo bad >&2; exit 3; }; sleep 60"
    done = jobyard("mapreduce", "--key", "bad", "--map", command, "--reduce", "cat", "1", "2", "3")
    assert done.code == 1
    assert done.err.startswith(b"bad\njobyard: ")
    assert sorted(job.state for job in yard.list(group="mapreduce-bad")) == ["cancelled"] * 3 + ["failed"]


def test_a_graph_is_run_and_what_failed_is_run_again(jobyard: Jobyard) -> None:
    (jobyard.directory / "tasks.toml").write_text("""
        [tasks]
        one = { sh = "echo 1" }
        two = { sh = "test -e there && echo 2" }
        sum = { sh = "paste -sd+ | bc", input = ["two", "one"] }
        told = { argv = ["sh", "-c", "cat; echo said"], input = ["sum"], stdin = "it is\\n" }
    """)
    done = jobyard("dag", "--key", "sums", "tasks.toml")
    assert done.code == 1
    assert done.err == b"jobyard: 1 failed: two\njobyard: 2 cancelled: sum, told\n"
    (jobyard.directory / "there").touch()
    assert jobyard("retry", "group:dag-sums").code == 0
    done = jobyard("dag", "--json", "--key", "sums", "tasks.toml")
    assert done.code == 0, done
    told = {each["task"]: each for each in map(json.loads, done.lines)}
    assert jobyard("result", told["told"]["ticket"]).out == b"it is\n3\nsaid\n"
    assert (told["one"]["attempt"], told["two"]["attempt"]) == (1, 2)


PROGRAM = """
import sys, time
from jobyard import Client

class Colour:  # pickled by value, and never twice the same
    names = {"red", "green", "blue", "yellow", "white", "black"}

def count(number):
    time.sleep(0.2)
    return number if len(Colour.names) == 6 else 0

with Client(sys.argv[1]) as yard:
    print(yard.map_reduce(count, sum, range(20), chunk_size=1, key="kept", group="kept"))
"""


def test_a_client_that_died_is_followed_by_another_which_does_nothing_twice(
    cluster: LocalCluster, yard: Client, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), cluster.url("node2")]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY / "client")}
    with subprocess.Popen(command, env=env | {"PYTHONHASHSEED": "1"}, stdout=subprocess.PIPE) as first:
        until("some jobs have ended", lambda: any(job.ended for job in yard.list(group="kept")))
        first.kill()
        assert first.communicate()[0] == b"", "it was to die in the middle"
    done = subprocess.run(
        command, env=env | {"PYTHONHASHSEED": "2"}, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert (done.stdout, done.stderr) == (b"190\n", b"")
    jobs = yard.list(group="kept")
    assert [(job.state, job.attempt) for job in jobs] == [("succeeded", 1)] * 21


def test_what_is_too_long_to_be_read_is_told_and_never_cut(yard: Client) -> None:
    def much(number: int) -> bytes:
        return bytes(12 << 20)

    with pytest.raises(JobFailed, match=r"its input comes to [0-9]+ bytes; 67108864 are allowed"):
        yard.map_reduce(much, len, range(6))
