"""Jobs that read what others have printed, at real nodes: maps and a reduce, also with processes killed meanwhile."""

import pickle
import re
from collections import Counter
from pathlib import Path

import cloudpickle
import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import Reply, ask, fields, nc, parse, submit, until, wait
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

TEXT = Path(__file__).with_name("test_kill.py").read_text() * 5
WORDS = Counter(re.findall(r"[A-Za-z]+", TEXT))
MAPS = 12
# Each map counts the words in the lines that are its own; the reduce adds the counts up.
MAP = f"sleep 1; awk 'NR % {MAPS} == {{}} % {MAPS}' | grep -oE '[A-Za-z]+' | sort | uniq -c"
REDUCE = "awk '{ count[$2] += $1 } END { for (word in count) print count[word], word }' | sort -k1,1nr -k2"


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(2, slots=4)


def type_in(address: str, line: str, body: bytes) -> Reply:
    (reply,) = parse(nc(address, f"{line}\n".encode() + body + b"\n"))
    return reply


def submit_with_body(address: str, options: str, what: str, body: bytes) -> str:
    reply = type_in(address, f"submit {options} bytes={len(body)} {what}", body)
    assert reply.ok, reply
    return reply.line.split()[1]


def counted(output: bytes) -> Counter[str]:
    pairs = (line.split() for line in output.decode().splitlines())
    return Counter({word: int(count) for count, word in pairs})


def test_maps_and_a_reduce_count_the_words_of_a_text_although_balancer_and_nodes_are_killed(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(3, slots=2, env={"JOBYARD_NODE_TIMEOUT": "2s"})
    first, last = cluster.address("node1"), cluster.address("node3")
    maps = submit_with_body(first, f"array=1-{MAPS} crash_limit=off", f"sh {MAP}", TEXT.encode())
    reduce = submit(last, f"input={maps} sh {REDUCE}")
    until("maps run everywhere", lambda: ask(first, f"status {maps}").field("running") == "6")
    cluster.kill("node2")
    cluster.kill("balancer")
    cluster.start("balancer")
    until("some of the maps have ended", lambda: int(ask(first, f"status {maps}").field("succeeded") or 0) >= 2)
    assert ask(last, f"status {reduce}").field("state") == "blocked", "they were over too soon, so nothing was tested"
    cluster.kill("balancer")
    cluster.start("balancer")
    cluster.start("node2")
    result = wait(last, reduce, timeout_s=60.0)
    assert result.field("state") == "succeeded"
    assert counted(result.body) == WORDS
    attempts = {ask(first, f"status {maps}_{index}").field("attempt") for index in range(1, MAPS + 1)}
    assert attempts > {"1"}, "nothing was run again, so nothing was tested"
    assert ask(first, f"forget {maps}").ok


def test_functions_read_the_same_as_commands_do(cluster: LocalCluster) -> None:
    node, other = cluster.address("node1"), cluster.address("node2")
    said = [submit(node, f"sh echo {word}; echo not this >&2") for word in ("one", "two")]
    squares = [submit_with_body(other, "", "call", pickled(lambda x=x: x * x)) for x in range(4)]
    tickets = ",".join(squares)
    assert wait(node, submit(other, f"input={said[1]},{said[0]} sh cat")).body == b"two\none\n"
    by_name = submit(other, f"input={','.join(said)} py builtins:input")
    assert wait(node, by_name).body == b'"one"\n'
    total = submit_with_body(node, f"input={tickets}", "call", pickled(add_up))
    assert pickle.loads(wait(node, total).body) == [0, 1, 4, 9]


def add_up() -> list[int]:
    import pickle
    import sys

    values = []
    while True:
        try:
            values.append(pickle.load(sys.stdin.buffer))
        except EOFError:
            return values


def pickled(function: object) -> bytes:
    import tests.system.test_inputs as here

    cloudpickle.register_pickle_by_value(here)
    try:
        return cloudpickle.dumps((function, (), {}))
    finally:
        cloudpickle.unregister_pickle_by_value(here)


def test_an_output_that_was_cut_is_not_read_and_explain_says_which(cluster: LocalCluster) -> None:
    node = cluster.address("node1")
    long = submit(node, "sh head -c 3000000 /dev/zero")
    reader = submit(cluster.address("node2"), f"input={long} sh wc -c")
    result = wait(node, reader)
    assert (result.field("state"), result.field("reason")) == ("cancelled", "dependency")
    told = ask(node, f"explain {reader}").body
    assert f"the output of {long} was cut (truncated=1)".encode() in told


def test_what_is_wanted_cannot_be_forgotten(cluster: LocalCluster) -> None:
    node = cluster.address("node1")
    first = submit(node, "sh echo kept")
    assert wait(node, first).ok
    reader = submit(node, f"input={first} delay=1h sh cat")
    until("the ledger has it", lambda: ask(node, f"status {reader}").field("state") == "scheduled")
    refused = ask(node, f"forget {first}")
    assert refused.code == "CONFLICT"
    assert reader in refused.line
    assert ask(node, f"cancel {reader}").ok
    assert ask(node, f"forget {first}").ok


def test_the_example_of_the_document_says_what_happens(cluster: LocalCluster) -> None:
    document = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
    *_, example = document.partition("### Inputs\n")[2].partition("### Keys\n")[0].split("```\n")[1:2]
    maps, _, reduce, told, *counts = example.splitlines()
    typed = ask(cluster.address("node1"), maps)
    result = ask(cluster.address("node2"), reduce.replace("k3f7qa-1", typed.ticket))
    assert result.body.decode().splitlines() == counts
    assert fields(told)["stdout"] == result.field("stdout")
    assert told.split()[2:5] == result.line.split()[2:5]
