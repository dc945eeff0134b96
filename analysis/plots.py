"""Draws a result: `python -m analysis.plots DIRECTORY`, in an environment that has matplotlib and nothing of ours.

Colours are those of Okabe and Ito, which people tell apart who see fewer colours; what is told by colour alone has its
name beside it.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as pyplot

from analysis.intervals import SEEDS_MIN, median_interval, paired
from analysis.results import DEFAULT, OF_YACS, VIRTUAL, Result, load

COLORS: Final = {
    "level": "#D55E00",
    "random": "#0072B2",
    "round-robin": "#009E73",
    "least-loaded": "#56B4E9",
    "shortest-wait": "#CC79A7",
}
NODE_COLORS: Final = ("#0072B2", "#D55E00", "#009E73")
GREY: Final = "#777777"
WITHIN_PERCENT: Final = 2.0
MAKESPAN_MOST: Final = 1.15
MEASURES: Final = {"mean_s": "mean", "median_s": "median", "p99_s": "99th percentile", "makespan_s": "makespan"}
DPI: Final = 110
_QUANTILES: Final = (5, 25, 75, 95)  # places in a curve of 100 steps


def draw(result: Result, directory: Path) -> list[Path]:
    pictures = {
        "completion.png": completion,
        "difference.png": difference,
        "nodes.png": nodes,
        "spread.png": spread,
        "makespan.png": makespan,
    }
    paths = []
    for name, picture in pictures.items():
        if (figure := picture(result)) is not None:
            paths.append(directory / name)
            figure.savefig(paths[-1], dpi=DPI, facecolor="white")
            pyplot.close(figure)
    return paths


# --- completion times --------------------------------------------------------------------------------------------


def completion(result: Result) -> Any:
    """For each load a panel, for each policy a box: where the middle half of all requests lies."""
    names = result.names(VIRTUAL)
    figure, axes = pyplot.subplots(len(names), 1, figsize=(10, 1.75 * len(names) + 0.9), squeeze=False,
                                   layout="constrained")  # fmt: skip
    for axis, name in zip(axes[:, 0], names, strict=True):
        policies = result.policies(VIRTUAL, name)
        for row, policy in enumerate(policies):
            median_s = statistics.median(result.values(VIRTUAL, name, policy, "median_s"))
            _box(axis, len(policies) - 1 - row, result.quantiles[name][policy], median_s, COLORS[policy])
        axis.set_yticks(range(len(policies)), reversed(policies), fontsize=9)
        axis.set_xlim(left=0)
        axis.set_title(f"{name}: {result.title(name)}", fontsize=10, loc="left")
        _tidy(axis, "x")
    axes[-1, 0].set_xlabel("seconds from arrival to finish")
    figure.suptitle(
        "Completion times of requests, waiting included\n"
        "box: the middle half; black: the median, which is the number on the right; line: from 5 % to 95 %",
        fontsize=11,
    )
    return figure


def _box(axis: Any, row: int, curve: Sequence[float], median_s: float, color: str) -> None:
    low, lower, upper, high = (curve[place] for place in _QUANTILES)
    axis.plot([low, high], [row, row], color=color, linewidth=1.5, zorder=1)
    axis.barh(row, upper - lower, left=lower, height=0.6, color=color, zorder=2)
    axis.plot([median_s] * 2, [row - 0.3, row + 0.3], color="black", linewidth=2, zorder=3)
    axis.annotate(f" {median_s:.3g}", (high, row), va="center", fontsize=8, color="#333333")


# --- the default beside the best of the three ------------------------------------------------------------------------


def difference(result: Result) -> Any:
    """Seed by seed by how much the default is slower or faster, with the interval of the median."""
    names = result.names(VIRTUAL)
    rows = [(name, measure) for name in names for measure in MEASURES]
    figure, axis = pyplot.subplots(figsize=(10, 0.3 * len(rows) + 1.8), layout="constrained")
    axis.axvspan(-WITHIN_PERCENT, WITHIN_PERCENT, color="#EEEEEE", zorder=0)
    axis.axvline(0, color="black", linewidth=1)
    for row, (name, measure) in enumerate(rows):
        ours = result.values(VIRTUAL, name, DEFAULT, measure)
        best = min(OF_YACS, key=lambda policy: statistics.median(result.values(VIRTUAL, name, policy, measure)))
        median, low, high = (100 * value for value in paired(ours, result.values(VIRTUAL, name, best, measure)))
        color = "#009E73" if high < 0 else "#D55E00" if low > 0 else GREY
        color = color if len(ours) >= SEEDS_MIN else GREY
        axis.plot([low, high], [row, row], color=color, linewidth=2)
        axis.plot([median], [row], "o", color=color, markersize=6)
    axis.set_yticks(range(len(rows)), [f"{name}: {MEASURES[measure]}" for name, measure in rows], fontsize=9)
    for row in range(len(MEASURES), len(rows), len(MEASURES)):
        axis.axhline(row - 0.5, color="#CCCCCC", linewidth=0.8)
    axis.invert_yaxis()
    axis.set_xlabel("← level is faster          difference in %          level is slower →")
    axis.set_title(
        "level beside the best of random, round-robin and least-loaded, seed by seed\n"
        "dot: median; line: its 95 % interval; grey band: within 2 %; orange: slower, green: faster (95 % confidence)",
        fontsize=10,
        loc="left",
    )
    _tidy(axis, "x")
    return figure


# --- over time -----------------------------------------------------------------------------------------------------


def nodes(result: Result, name: str = "bursts") -> Any:
    """Tasks on each node, begun or waiting, as one run went."""
    shown = result.series.get(name)
    if not shown:
        return None
    figure, axes = pyplot.subplots(len(shown), 1, figsize=(10, 1.7 * len(shown) + 1.2), sharex=True, sharey=True,
                                   squeeze=False, layout="constrained")  # fmt: skip
    for axis, (policy, series) in zip(axes[:, 0], shown.items(), strict=True):
        for place, (slots, counts) in enumerate(zip(series["slots"], series["counts"], strict=True)):
            color = NODE_COLORS[place]
            axis.step(series["at_s"], counts, where="post", color=color, linewidth=1.4,
                      label=f"node{place + 1}, {slots} slots")  # fmt: skip
            axis.axhline(slots, color=color, linewidth=0.8, linestyle=":")
        axis.set_ylabel("tasks")
        axis.set_title(policy, fontsize=10, loc="left")
        _tidy(axis, "y")
    axes[-1, 0].set_xlabel("seconds since the first arrival")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncols=len(labels))
    figure.suptitle(
        f"Tasks on each node (begun or waiting) over time: {name}, seed 1\n"
        "dotted: the node's slots; what is above them waits on the node, as under level; else it waits at the balancer",
        fontsize=11,
    )
    return figure


def spread(result: Result, name: str = "pareto") -> Any:
    """What recall does: the same run with and without it."""
    shown = result.series.get(name)
    if not shown or len(shown) < 2:
        return None
    figure, axes = pyplot.subplots(2, 1, figsize=(10, 6.2), layout="constrained")
    colors = {DEFAULT: COLORS[DEFAULT]}
    for policy, series in shown.items():
        label = "level, with recall" if policy == DEFAULT else policy
        axes[0].step(series["at_s"], series["spread"], where="post", color=colors.get(policy, "#0072B2"), label=label)
    axes[0].axhline(1, color="black", linewidth=1, linestyle="--")
    axes[0].annotate("one job per slot", (0, 1), xytext=(3, 3), textcoords="offset points", fontsize=8)
    axes[0].set_ylabel("jobs per slot")
    axes[0].set_title("Spread: what the busiest node has more than the idlest", fontsize=10, loc="left")
    axes[0].legend(fontsize=9, loc="upper left")
    for policy, series in shown.items():
        color = colors.get(policy, "#0072B2")
        for slots, counts in zip(series["slots"], series["counts"], strict=True):
            per_slot = [count / slots for count in counts]
            axes[1].step(series["at_s"], per_slot, where="post", color=color, linewidth=1)
    axes[1].set_ylabel("tasks per slot")
    axes[1].set_xlabel("seconds since the first arrival")
    axes[1].set_title("Tasks per slot, a line for each node: with recall the three lines are one", fontsize=10,
                      loc="left")  # fmt: skip
    for axis in axes:
        _tidy(axis, "y")
    figure.suptitle(f"Recall at work: {result.title(name)}, seed 1", fontsize=11)
    return figure


# --- makespan ------------------------------------------------------------------------------------------------------


def makespan(result: Result) -> Any:
    """How close each comes to what no scheduler can beat."""
    names = result.names(VIRTUAL)
    figure, axis = pyplot.subplots(figsize=(10, 0.85 * len(names) + 1.6), layout="constrained")
    policies = list(COLORS)
    for row, name in enumerate(names):
        for place, policy in enumerate(policies):
            values = result.values(VIRTUAL, name, policy, "over_bound")
            if not values:
                continue
            median, low, high = median_interval(values)
            at = row + (place - 2) * 0.14
            axis.plot([low, high], [at, at], color=COLORS[policy], linewidth=2)
            axis.plot([median], [at], "o", color=COLORS[policy], markersize=5, label=policy if row == 0 else None)
    axis.axvline(1, color="black", linewidth=1)
    axis.annotate("lower bound", (1, len(names) - 0.55), xytext=(4, 0), textcoords="offset points", fontsize=8)
    axis.axvline(MAKESPAN_MOST, color="black", linewidth=1, linestyle="--")
    axis.annotate("promised for pareto", (MAKESPAN_MOST, len(names) - 0.55), xytext=(-4, 0), ha="right",
                  textcoords="offset points", fontsize=8)  # fmt: skip
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(left=0.99)
    axis.set_xlabel("makespan / lower bound: less is better")
    axis.set_title("Makespan against the lower bound (dot: median of the seeds; line: its 95 % interval)", fontsize=10,
                   loc="left")  # fmt: skip
    axis.legend(fontsize=9, loc="upper center")
    _tidy(axis, "x")
    return figure


def _tidy(axis: Any, along: str) -> None:
    axis.grid(axis=along, alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws a result beside its figures.")
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    for path in draw(load(directory), directory):
        print(path)


if __name__ == "__main__":
    main()
