"""Results: figures of every run as CSV, curves for the plots as JSON; both are what tables and plots are made from.

It needs the standard library alone, because what draws reads it in an environment that has nothing else of ours.
"""

import csv
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RUNS: Final = "runs.csv"
CURVES: Final = "curves.json"
VIRTUAL: Final = "virtual"  # the pure machines in virtual time
REAL: Final = "real"  # processes of this machine
FORETOLD: Final = "foretold"  # in virtual time, what is run on the real cluster: its scaled workloads
DEFAULT: Final = "level"
OF_YACS: Final = ("random", "round-robin", "least-loaded")
_DIGITS: Final = 6


@dataclass(frozen=True)
class Run:
    """The figures of one run; None where one was not taken."""

    where: str
    load: str
    policy: str
    seed: int
    figures: Mapping[str, float | None]


@dataclass
class Result:
    when: str
    loads: list[dict[str, Any]]  # name, title, requests, tasks, slots of the nodes
    runs: list[Run] = field(default_factory=list)
    quantiles: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # load → policy → completion times
    series: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # load → policy → how it went over time

    def names(self, where: str) -> list[str]:
        return [load["name"] for load in self.loads if any((run.where, run.load) == (where, load["name"])
                                                           for run in self.runs)]  # fmt: skip

    def title(self, load: str) -> str:
        return str(next(one["title"] for one in self.loads if one["name"] == load))

    def policies(self, where: str, load: str) -> list[str]:
        return list(dict.fromkeys(run.policy for run in self.runs if (run.where, run.load) == (where, load)))

    def values(self, where: str, load: str, policy: str, measure: str) -> list[float]:
        """Of each seed, in their order."""
        chosen = [run for run in self.runs if (run.where, run.load, run.policy) == (where, load, policy)]
        taken = [run.figures[measure] for run in sorted(chosen, key=lambda run: run.seed)]
        return [value for value in taken if value is not None]


def save(result: Result, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    measures = list(result.runs[0].figures)
    with (directory / RUNS).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["where", "load", "policy", "seed", *measures])
        for run in result.runs:
            rows.writerow([run.where, run.load, run.policy, run.seed, *(_cell(run.figures[name]) for name in measures)])
    curves = {"when": result.when, "loads": result.loads, "quantiles": result.quantiles, "series": result.series}
    (directory / CURVES).write_text(json.dumps(curves) + "\n", encoding="utf-8")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS}g}"


def load(directory: Path) -> Result:
    curves = json.loads((directory / CURVES).read_text(encoding="utf-8"))
    with (directory / RUNS).open(encoding="utf-8", newline="") as file:
        return Result(runs=list(map(_run, csv.DictReader(file))), **curves)


def _run(row: dict[str, str]) -> Run:
    where, name, policy, seed = (row.pop(key) for key in ("where", "load", "policy", "seed"))
    return Run(where, name, policy, int(seed), {key: float(text) if text else None for key, text in row.items()})


def rounded(values: Iterable[float], digits: int = 3) -> list[float]:
    return [round(value, digits) for value in values]


def median_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """At each step the median over the seeds."""
    return rounded(statistics.median(step) for step in zip(*curves, strict=True))
