"""How figures are taken: the benchmark's arithmetic and its questions, without a peer and without a process."""

import resource
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks import idlers, watching
from benchmarks.asking import FULL, MIB, SMALL, Asked, backlog, bodies, end_to_end, idle_connections, sized
from benchmarks.driver import answer
from benchmarks.loads import LONGEST_SHARE, least_makespan_s, skewed
from benchmarks.measures import measures, quantities, selected, takes
from benchmarks.remote import NoAnswer, Remote
from benchmarks.report import number
from benchmarks.results import advantage, quantile
from benchmarks.systems.beanstalkd import TALKS
from benchmarks.systems.catalogue import CATALOGUE, OURS, chosen
from benchmarks.systems.jobyard import DIALECT
from benchmarks.systems.system import System, Unsupported, slope
from benchmarks.wire import Dialect
from tests.bench.examples import DELAY, RATE

# --- arithmetic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 2.0, 3.0], 0.5, 2.0),
        ([7.0], 0.99, 7.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 501)], 0.99, 495.0),
    ],
)
def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], fraction: float, expected: float
) -> None:
    assert quantile(values, fraction) == expected


def test_an_advantage_above_one_means_better_whichever_way_is_better() -> None:
    assert advantage(RATE, ours=300.0, theirs=100.0) == 3.0
    assert advantage(DELAY, ours=2.0, theirs=6.0) == 3.0
    assert advantage(DELAY, ours=6.0, theirs=2.0) == pytest.approx(1 / 3)


def test_an_advantage_over_nothing_is_infinite_and_can_be_shown() -> None:
    assert number(advantage(RATE, ours=1.0, theirs=0.0)) == "∞"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_234_567.8, "1,234,568"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.0123"), (0.0, "0.00")],
)
def test_a_number_shows_about_three_figures(value: float, text: str) -> None:
    assert number(value) == text


def test_skewed_durations_are_the_same_in_every_run_and_sum_up_to_the_work() -> None:
    durations = skewed(400, 12.0)
    assert durations == skewed(400, 12.0)
    assert sum(durations) == pytest.approx(12.0)
    assert max(durations) > 10 * sorted(durations)[200]
    assert max(durations) <= 12.0 * max(0.5, LONGEST_SHARE)


def test_no_schedule_beats_the_longest_job_nor_the_work_divided_by_the_slots() -> None:
    assert least_makespan_s([1.0, 1.0, 1.0, 1.0], slots=2) == 2.0
    assert least_makespan_s([5.0, 1.0], slots=2) == 5.0


def test_a_take_grows_until_it_lasts_and_then_takes_once() -> None:
    taken: list[int] = []

    def take(count: int) -> float:
        taken.append(count)
        return count / 1000

    assert sized(take, 100, take_s=4.0, jobs_max=20_000) == (4000, 4.0)
    assert taken == [100, 1000, 4000]
    taken.clear()
    assert sized(take, 4000, take_s=4.0, jobs_max=20_000) == (4000, 4.0)
    assert taken == [4000]


def test_a_take_never_has_more_jobs_than_allowed() -> None:
    assert sized(lambda count: count / 1e6, 100, take_s=4.0, jobs_max=20_000) == (20_000, 0.02)
    assert sized(lambda count: 0.0, 100, take_s=4.0, jobs_max=50) == (50, 0.0)


def test_a_queue_shrinks_by_what_is_seen_between_its_first_end_and_its_last_but_one() -> None:
    looks = [(0.0, 0), (0.5, 100), (0.6, 300), (0.7, 500), (0.9, 900), (1.5, 1000)]
    assert slope(looks) == {"seen": 800.0, "seconds": pytest.approx(0.4)}
    assert slope(looks[:3]) == {"seen": 300.0, "seconds": 0.6}


class Answers(Remote):
    """A driver that is none: what it is asked, and what it says."""

    def __init__(self, **answers: Any) -> None:
        self.asked: list[str] = []
        self._answers = answers

    def call(self, name: str, within_s: float = 0.0, **arguments: Any) -> Any:
        self.asked.append(name)
        answer = self._answers.get(name)
        answer = answer.pop(0) if isinstance(answer, list) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer


def asked(answers: Answers) -> Asked:
    return Asked(answers, SMALL, Path("/somewhere"), {})


def test_a_short_queue_is_filled_and_drained_until_there_is_something_to_measure() -> None:
    drained = {"done": 1000.0, "seen": 800.0, "seconds": SMALL.drain_s / 8}
    remote = Answers(
        fill=1000, largest_bytes=(MIB, 2 * MIB), processor_s=[1.0, 1.1, 5.0, 5.3], drain=drained, restart=2.5
    )
    figures = backlog(asked(remote), 1000)
    assert figures == {
        "backlog_memory_1000": 1.0,
        "backlog_resident_1000": 2.0,
        "backlog_rate_1000": pytest.approx(1600 / (SMALL.drain_s / 4)),
        "backlog_us_1000": pytest.approx(0.4 / 2000 * 1e6),
        "backlog_restart_1000": 2.5,
    }
    assert remote.asked.count("hold") == remote.asked.count("drain") == 2


def test_a_queue_that_cannot_be_filled_in_time_has_no_figures_but_a_reason() -> None:
    with pytest.raises(NoAnswer, match="only 300 could be queued in 5 s"):
        backlog(asked(Answers(fill=300)), 1000)


def test_the_processor_time_is_that_of_the_jobs_whose_rate_is_told() -> None:
    remote = Answers(end_to_end=[0.01, 1.0], processor_s=[1.0, 1.5, 2.0, 2.2])
    figures = end_to_end(asked(remote), "noop_py", "py", "processor_py")
    assert figures == {"noop_py": 1000.0, "processor_py": pytest.approx(200.0)}


def test_a_system_without_a_process_that_stays_has_a_rate_all_the_same() -> None:
    remote = Answers(end_to_end=[1.0], processor_s=Unsupported("it has none"))
    assert end_to_end(asked(remote), "exec_true", "exec", "processor_exec") == {"exec_true": 100.0}


def test_what_connections_and_bodies_cost_is_told_for_each() -> None:
    remote = Answers(
        idle_connections={"bytes": 2048.0, "share": 0.5},
        bodies={"seconds": 4.0, "growth": {"balancer": MIB, "node": 3 * MIB, "spawner": 0}},
    )
    assert idle_connections(asked(remote), 10) == {"connections_memory_10": 2.0, "connections_idle_10": 0.5}
    assert bodies(asked(remote), 1024) == {
        "bodies_rate_1024": SMALL.bodies_jobs / 4,
        "bodies_growth_balancer_1024": 1.0,
        "bodies_growth_node_1024": 3.0,
        "bodies_growth_spawner_1024": 0.0,
    }


def test_every_take_brings_figures_for_its_quantities_and_no_others() -> None:
    """Those whose keys carry a number, of which a typing error would cost a night's run."""
    remote = Answers(
        idle_connections={"bytes": 1.0, "share": 1.0},
        bodies={"seconds": 1.0, "growth": {"balancer": 1, "node": 1, "spawner": 1}},
        cost_with_nodes={"rate": 1.0, "balancer_us": 1.0},
        fill=10**9,
        largest_bytes=(1, 1),
        processor_s=1.0,
        drain={"done": 1.0, "seen": 1.0, "seconds": 100.0},
        restart=1.0,
    )
    checked = [take for take in takes(FULL) if take.measure in ("connections", "bodies", "nodes", "backlog")]
    assert len(checked) > 10
    for take in checked:
        assert set(take.run(asked(remote))) == {quantity.key for quantity in take.quantities}


# --- connections and memory --------------------------------------------------------------------------------------


def test_more_connections_than_this_machine_has_files_for_are_refused_in_plain_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    with pytest.raises(Unsupported, match=r"lets a process open 4,096 files .* 10,000 connections need 10,0\d\d"):
        idlers.make_room(10_000)
    assert raised == []
    idlers.make_room(2_000)
    ((soft, hard),) = raised
    assert 2_000 < soft < 2_200
    assert hard == 4096


def test_the_server_that_takes_fewer_connections_is_told_of_with_its_own_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        clients: list[socket.socket] = []
        answers = (b"OK pong\n", b"ERR TOO_MANY_CONNECTIONS this node serves 1\n")

        def serve() -> None:
            for _ in answers:
                clients.append(listener.accept()[0])
            for client, answer in zip(clients, answers, strict=True):
                client.recv(100)
                client.sendall(answer)
                client.close()

        server = threading.Thread(target=serve)
        server.start()
        port = listener.getsockname()[1]
        with (
            pytest.raises(Unsupported, match="took about 0 of 2 connections: ERR TOO_MANY_CONNECTIONS this node"),
            idlers.idle_connections(port, b"PING\n", b"OK pong", 2),
        ):
            raise AssertionError("it held them")
        server.join()


def test_growth_is_the_highest_that_was_seen_of_the_worst_of_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {1: [10, 70, 20], 2: [10, 30, 30], 3: [5, 5, 4]}

    def look(pid: int) -> tuple[int, int]:
        return (own[pid].pop(0) if len(own[pid]) > 1 else own[pid][0]), 0

    monkeypatch.setattr(watching, "memory_bytes", look)
    with watching.Memory({"nodes": [1, 2], "balancer": [3], "none": []}) as memory:
        while len(own[1]) > 1:
            pass
    assert memory.growth == {"nodes": 60, "balancer": 0, "none": 0}


# --- what is chosen ----------------------------------------------------------------------------------------------


def test_peers_are_chosen_by_name_or_by_group_without_repetition() -> None:
    assert chosen("huey,beanstalkd-f0,huey-redis") == ("huey-sqlite", "huey-redis", "beanstalkd-f0")
    assert chosen("none") == ()
    assert OURS not in chosen("all")
    assert len(chosen("all")) == len(CATALOGUE) - 1


def test_an_unknown_peer_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"PEERS=slurm is no peer; there are .*beanstalkd.*xargs, all and none"):
        chosen("huey,slurm")


def test_measures_are_chosen_by_name() -> None:
    assert {take.measure for take in selected(FULL, "noop,trip")} == {"noop", "trip"}
    assert quantities(selected(FULL, "all")) == quantities(takes(FULL))
    with pytest.raises(ValueError, match=r"ONLY=speed is no measure; there are trip, .*backlog, and all"):
        selected(FULL, "speed")


def test_every_quantity_has_a_key_of_its_own_and_stands_in_for_one_that_exists() -> None:
    for scale in (FULL, SMALL):
        every = quantities(takes(scale))
        keys = [quantity.key for quantity in every]
        assert len(set(keys)) == len(keys)
        assert {quantity.stands_in for quantity in every} - {""} <= set(keys)
        assert {quantity.measure for quantity in every} == set(measures())


# --- a system and its driver --------------------------------------------------------------------------------------


class Pretended(System):
    """Takes a second for each submission; its second queue breaks."""

    def submit(self, count: int, clients: int) -> float:
        return float(count)

    def done(self) -> int:
        raise KeyError("queue")


def test_a_driver_answers_with_a_value_a_reason_or_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    system = Pretended()
    assert answer(system, {"call": "submit", "with": {"count": 3, "clients": 1}}) == {"value": 3.0}
    assert answer(system, {"call": "submit_bulk", "with": {"count": 3}}) == {
        "unsupported": "it has no call for many jobs"
    }
    assert answer(system, {"call": "done", "with": {}}) == {"failed": "KeyError: 'queue'"}
    assert "KeyError" in capsys.readouterr().err


def test_a_driver_is_not_asked_for_what_is_not_a_measure() -> None:
    assert answer(Pretended(), {"call": "__init__", "with": {}}) == {"unsupported": "it is not asked this"}
    assert answer(Pretended(), {"call": "idle_nodes", "with": {}}) == {"unsupported": "it is not asked this"}


def test_what_has_no_process_uses_no_processor() -> None:
    told = {"unsupported": "it has no process of its own that stays"}
    assert answer(Pretended(), {"call": "processor_s", "with": {}}) == told


# --- the wire ----------------------------------------------------------------------------------------------------


def test_the_length_of_a_body_is_read_from_the_reply_of_either_server() -> None:
    def size(dialect: Dialect, line: bytes) -> int:
        return dialect.body_bytes(line)

    assert size(DIALECT, b"OK k3f7qa-1 state=succeeded bytes=3\n") == 4
    assert size(DIALECT, b"OK k3f7qa-1\n") == 0
    assert size(TALKS, b"RESERVED 12 5\r\n") == 7
    assert size(TALKS, b"INSERTED 12\r\n") == 0
