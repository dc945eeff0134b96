"""Results as tables in Markdown. Pure but for its own `main`: `python -m analysis.report DIRECTORY`."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from analysis.intervals import SEEDS_MIN, Interval, median_interval, paired
from analysis.measures import MEASURES
from analysis.results import DEFAULT, FORETOLD, OF_YACS, REAL, VIRTUAL, Result, load

WITHIN: Final = 0.02  # of the best of the three, the default has to be
MAKESPAN_MOST: Final = 1.15  # times the lower bound, on the Pareto load
PARETO: Final = "pareto"
JUDGED: Final = ("mean_s", "median_s", "p99_s", "slowdown", "makespan_s")
SHOWN: Final = (*JUDGED, "over_bound", "spread", "idle", "moved", "messages")


class Verdict(NamedTuple):
    """The default beside the best of the three of YACS, by one measure of one load."""

    load: str
    measure: str
    ours: float
    best: str
    theirs: float
    difference: float  # of the two medians
    by_seed: Interval  # of the differences seed by seed

    seeds: int

    @property
    def passed(self) -> bool:
        return self.difference <= WITHIN

    @property
    def is_certain(self) -> bool:
        """Whether the seeds agree that the default is behind."""
        return self.by_seed.low > 0 and self.seeds >= SEEDS_MIN


def verdicts(result: Result, where: str = VIRTUAL) -> list[Verdict]:
    return [
        verdict
        for name in result.names(where)
        for measure in JUDGED
        if (verdict := _verdict(result, where, name, measure)) is not None
    ]


def _verdict(result: Result, where: str, name: str, measure: str) -> Verdict | None:
    medians = {}
    for policy in (DEFAULT, *OF_YACS):
        values = result.values(where, name, policy, measure)
        if not values:
            return None
        medians[policy] = median_interval(values).median
    best = min(OF_YACS, key=lambda policy: medians[policy])
    ours, theirs = (result.values(where, name, policy, measure) for policy in (DEFAULT, best))
    difference = medians[DEFAULT] / medians[best] - 1
    return Verdict(name, measure, medians[DEFAULT], best, medians[best], difference, paired(ours, theirs), len(ours))


def number(value: float) -> str:
    """Three figures that mean something."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("+0.0", "0.0").replace("-0.0", "0.0").replace("-", "−")


def report(result: Result) -> str:
    parts = [_summary(result), _losses(result), *(_load(result, name) for name in result.names(VIRTUAL)), _real(result)]
    return "\n\n".join(text for part in parts if (text := "\n".join(part))) + "\n"


# --- the default, judged -----------------------------------------------------------------------------------------


def _summary(result: Result) -> Iterator[str]:
    yield f"## `{DEFAULT}` beside the best of `{'`, `'.join(OF_YACS)}`\n"
    heads = ["load", "seeds", "measure", "`level`", "best of the three", "difference of medians", "seed by seed, 95 %"]
    yield _row([*heads, "within 2 %"])
    yield "|---|---:|---|---:|---|---:|---|---|"
    for one in verdicts(result):
        title, unit = MEASURES[one.measure]
        median, low, high = one.by_seed
        yield _row(
            [one.load, str(one.seeds), f"{title}, {unit}", number(one.ours), f"{number(one.theirs)} (`{one.best}`)",
             percent(one.difference), f"{percent(median)} ({percent(low)} to {percent(high)})",
             "yes" if one.passed else "**no**"]
        )  # fmt: skip
    ratios = result.values(VIRTUAL, PARETO, DEFAULT, "over_bound")
    if ratios:
        median, low, high = median_interval(ratios)
        held = "within" if max(ratios) <= MAKESPAN_MOST else "**not within**"
        yield (
            f"\nMakespan of `{PARETO}`: {median:.3f} times the lower bound ({low:.3f} to {high:.3f};"
            f" {max(ratios):.3f} at most), {held} {MAKESPAN_MOST}."
        )


def _losses(result: Result) -> Iterator[str]:
    """Every one: also what is within 2 %, as long as the seeds agree that it is a loss."""
    yield "## Losses\n"
    lost = [one for one in verdicts(result) if one.difference > 0 and (not one.passed or one.is_certain)]
    if not lost:
        yield "None: nowhere is `level` more than 2 % behind, nor behind at all with 95 % confidence."
    for one in sorted(lost, key=lambda one: -one.difference):
        median, low, high = one.by_seed
        yield (
            f"- `{one.load}`, {MEASURES[one.measure][0]}: `{one.best}` is ahead by {percent(one.difference)}"
            f" (seed by seed {percent(median)}, {percent(low)} to {percent(high)})"
            f"{'' if one.passed else ': **more than 2 %**'}."
        )


# --- one load ----------------------------------------------------------------------------------------------------


def _load(result: Result, name: str) -> Iterator[str]:
    about = next(one for one in result.loads if one["name"] == name)
    yield f"## {name}: {result.title(name)}\n"
    seeds = len(result.values(VIRTUAL, name, DEFAULT, "mean_s"))
    yield f"{about['requests']:,} requests, {seeds} seeds. Medians, with the 95 % interval of the median.\n"
    yield from _table(result, VIRTUAL, name, SHOWN)


def _table(result: Result, where: str, name: str, measures: Sequence[str]) -> Iterator[str]:
    policies = result.policies(where, name)
    yield _row(["", *(f"`{policy}`" for policy in policies)])
    yield _row(["---", *("---:" for _ in policies)])
    for measure in measures:
        values = [result.values(where, name, policy, measure) for policy in policies]
        if all(values):
            title, unit = MEASURES[measure]
            yield _row([f"{title}, {unit}" if unit else title, *map(_cell, values)])


def _cell(values: Sequence[float]) -> str:
    median, low, high = median_interval(values)
    return number(median) if low == high else f"{number(median)} ({number(low)}–{number(high)})"


# --- real processes ----------------------------------------------------------------------------------------------


def _real(result: Result) -> Iterator[str]:
    names = result.names(REAL)
    if not names:
        return
    yield "## On processes of this machine\n"
    yield "The same workloads, shorter and faster, on a balancer and three nodes, beside what virtual time foretells.\n"
    heads = ["load", "policy", "seeds", "mean, s", "foretold", "makespan / bound", "foretold", "idle while jobs wait"]
    yield _row([*heads, "foretold"])
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in names:
        for policy in result.policies(REAL, name):
            seeds = len(result.values(REAL, name, policy, "mean_s"))
            cells = [
                number(median_interval(result.values(where, name, policy, measure)).median)
                for measure in ("mean_s", "over_bound", "idle")
                for where in (REAL, FORETOLD)
            ]
            yield _row([name, f"`{policy}`", str(seeds), *cells])
    behind = [one for one in verdicts(result, REAL) if one.measure == "mean_s" and one.difference > 0]
    yield f"\nSo few seeds tell no certain difference. By the mean `{DEFAULT}` is behind the best of the three in:"
    told = [f"`{one.load}` by {percent(one.difference)} (`{one.best}`)" for one in behind]
    yield f"{', '.join(told) if told else 'none'}."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the tables of a result.")
    parser.add_argument("directory", type=Path)
    print(report(load(parser.parse_args().directory)), end="")


if __name__ == "__main__":
    main()
