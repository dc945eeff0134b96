"""Metrics in Prometheus' text format: what a program's machine, its tally and its store say at the moment of a scrape.

Nothing is kept here. Values are read when somebody scrapes, so a scrape costs the number of its lines, however many
jobs there are. Labels come from closed lists of the code and, one for each, from the nodes that were met; never from
a ticket or a command. `docs/monitoring/README.md` says what each means, and a test holds it to this file.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from common import __version__
from common.runtime.tally import Histogram, Tally

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def exposition(families: Iterable[Metric]) -> bytes:
    """The families as text, with those of the process."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Given(list(families)))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


# --- families ----------------------------------------------------------------------------------------------------


def gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text)
    family.add_metric([], value)
    return family


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """One gauge for each value of a label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def counters(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def histogram(name: str, text: str, values: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text)
    family.add_metric([], buckets=values.cumulative(), sum_value=values.sum)
    return family


# --- of both programs --------------------------------------------------------------------------------------------


def common_families(program: str, figures: Mapping[str, Any], tally: Tally, store_bytes_max: int) -> Iterator[Metric]:
    """What balancer and node tell alike of themselves."""
    info = GaugeMetricFamily(
        "jobyard_build_info", "Always 1; which program and version this is.", labels=["program", "version"]
    )
    info.add_metric([program, __version__], 1)
    yield info
    yield histogram(
        "jobyard_commit_seconds", "Time that a commit to the store took, with its sync to disk.", tally.commit
    )
    yield counter("jobyard_steps", "Steps that the program's machine has taken.", tally.steps)
    yield gauge("jobyard_store_bytes", "Bytes of the store in use.", round(figures["store_fraction"] * store_bytes_max))
    yield gauge("jobyard_store_max_bytes", "Bytes that the store may use (JOBYARD_STORE_MAX).", store_bytes_max)
    yield gauge(
        "jobyard_event_loop_lag_seconds",
        "The longest that a task which was due had to wait in the last 15 s.",
        tally.lag_s,
    )


# --- of the balancer ---------------------------------------------------------------------------------------------


def balancer_families(figures: Mapping[str, Any], tally: Tally, store_bytes_max: int) -> Iterator[Metric]:
    """Every metric of the balancer. `figures` is what its machine says (`balancer/views.py`)."""
    statistics = figures["statistics"]
    yield from common_families("balancer", figures, tally, store_bytes_max)
    yield gauges("jobyard_jobs", "Jobs that have not ended; elements of arrays one by one.", "state", figures["jobs"])
    yield counter("jobyard_jobs_submitted", "Jobs that the ledger has taken in; an array is one.", tally.submitted)
    yield counters(
        "jobyard_jobs_ended", "Jobs that have ended; elements of arrays, too.", ("state", "reason"), tally.ended
    )
    yield counters(
        "jobyard_attempts", "Attempts that are over.", ("outcome",), {(name,): n for name, n in tally.outcomes.items()}
    )
    yield counters(
        "jobyard_redispatched",
        "Jobs that were queued again after an attempt.",
        ("reason",),
        {(name,): count for name, count in tally.redispatched.items()},
    )
    yield counter(
        "jobyard_stale_outcomes",
        "Outcomes of attempts that were no longer current: acknowledged, and not recorded.",
        statistics["outcomes_stale_total"],
    )
    yield counter("jobyard_leases", "Attempts that were given to nodes.", statistics["attempts_leased_total"])
    yield histogram(
        "jobyard_queue_wait_seconds",
        "From a job's submission, or the end of its delay, until it was first given to a node.",
        tally.queue_wait,
    )
    yield histogram("jobyard_run_seconds", "Run time of attempts, as their nodes measured it.", tally.run)
    yield gauge(
        "jobyard_oldest_queued_seconds",
        "Since the queued job that has waited longest was submitted; 0 where none is queued.",
        figures["oldest_queued_s"],
    )
    yield gauges("jobyard_nodes", "Nodes that were ever met.", "state", figures["nodes"])
    yield gauges(
        "jobyard_node_slots",
        "Slots of all nodes: leased, free, or of nodes that are given no jobs now.",
        "state",
        figures["slots"],
    )
    yield gauges(
        "jobyard_node_last_seen_seconds",
        "Since a node was heard; of the 1,000 nodes heard last.",
        "node",
        figures["last_seen_s"],
    )


# --- of a node ---------------------------------------------------------------------------------------------------


def node_families(
    figures: Mapping[str, Any], tally: Tally, store_bytes_max: int, clients: Mapping[str, float]
) -> Iterator[Metric]:
    """Every metric of a node. What the ledger counts for the whole cluster has another name here: `jobyard_local_…`."""
    statistics = figures["statistics"]
    yield from common_families("node", figures, tally, store_bytes_max)
    yield counter("jobyard_local_jobs_submitted", "Jobs that this node took in.", statistics["jobs_submitted_total"])
    yield gauge("jobyard_local_jobs", "Jobs of this node's clients that have not ended.", statistics["jobs_live"])
    yield counter("jobyard_local_attempts_begun", "Attempts begun in this boot.", statistics["attempts_begun_total"])
    yield gauges(
        "jobyard_local_attempts",
        "Attempts that this node has.",
        "state",
        {"running": statistics["attempts_running"], "waiting": statistics["attempts_waiting"]},
    )
    yield counter(
        "jobyard_local_fallback_leases",
        "Attempts that this node gave itself while it had no balancer.",
        statistics["attempts_leased_here_total"],
    )
    yield gauge(
        "jobyard_local_outcomes_unacknowledged",
        "Outcomes that the ledger has not acknowledged yet.",
        statistics["outcomes_unacknowledged"],
    )
    yield gauge("jobyard_local_slots", "Slots of this node (JOBYARD_SLOTS).", statistics["slots"])
    yield gauge("jobyard_local_linked", "1 while this node has a balancer, else 0.", statistics["linked"])
    yield gauge("jobyard_local_draining", "1 while this node takes no new jobs, else 0.", statistics["draining"])
    yield gauge("jobyard_local_clients", "Clients that are connected.", clients["connections"])
    yield counter("jobyard_local_requests", "Requests of clients.", clients["queries_total"])
    yield counter(
        "jobyard_local_clients_refused",
        "Clients that were refused, because too many were connected (JOBYARD_CONNECTIONS_MAX).",
        clients["connections_refused_total"],
    )
