"""Draws a result: a PNG for each measure. `python -m benchmarks.plots RESULTS.json`, in the peers' environment.

It reads the JSON as it is, because the classes of `results.py` need libraries that are not there: matplotlib is
needed for this alone, so it is installed beside the peers, and never where we measure. Bars, or dots where they are far
apart, are medians, with lines from the lowest to the highest value; a dashed line is a yardstick of the machine itself.
"""

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as pyplot
from matplotlib.ticker import FuncFormatter, NullFormatter

OURS: Final = "jobyard"
OUR_COLOR: Final = "#c1440e"
DURABLE_COLOR: Final = "#35618f"
OTHER_COLOR: Final = "#b8c4d0"
LOG_FROM: Final = 20  # times between the smallest and the largest: a logarithmic axis then
SIZED: Final = re.compile(r"^(?P<name>.+)_(?P<size>\d+)$")  # quantities that are taken with growing numbers


def draw(result: dict[str, Any], directory: Path) -> list[Path]:
    """One picture for each measure that has figures; returns their paths."""
    paths = []
    figured = {figure["quantity"] for figure in result["figures"]}
    taken = [quantity for quantity in result["quantities"] if quantity["key"] in figured]
    for measure in dict.fromkeys(quantity["measure"] for quantity in taken):
        quantities = [quantity for quantity in taken if quantity["measure"] == measure]
        paths.append(directory / f"{measure}.png")
        _picture(result, quantities, paths[-1])
    return paths


def _picture(result: dict[str, Any], quantities: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars side by side; quantities that differ only by a number become one line for each system over that number."""
    single = [quantity for quantity in quantities if SIZED.match(quantity["key"]) is None]
    grown: dict[str, list[dict[str, Any]]] = {}
    for quantity in quantities:
        if (match := SIZED.match(quantity["key"])) is not None:
            grown.setdefault(match["name"], []).append(quantity)
    panels = len(single) + len(grown)
    rows = max((len(_figures(result, quantity)) for quantity in quantities), default=1)
    size = (12, panels * max(2.2, 0.32 * rows + 1.0))
    picture, axes = pyplot.subplots(panels, 1, figsize=size, squeeze=False, layout="constrained")
    for axis, quantity in zip(axes[:, 0], single, strict=False):
        _bars(axis, result, quantity)
    for axis, family in zip(axes[len(single) :, 0], grown.values(), strict=True):
        _lines(axis, result, family)
    picture.suptitle(f"{result['when']}, {result['machine'].get('processors', '?')} processors", fontsize=9)
    picture.savefig(path, dpi=110)
    pyplot.close(picture)


def _figures(result: dict[str, Any], quantity: dict[str, Any]) -> list[tuple[dict[str, Any], list[float]]]:
    """(system, values), best last, as bars are drawn from below. A figure of the quantity that stands in will do."""
    found = []
    for system in result["systems"]:
        known = {
            figure["quantity"]: figure["values"] for figure in result["figures"] if figure["system"] == system["name"]
        }
        values = known.get(quantity["key"]) or (None if system["yardstick"] else known.get(quantity["stands_in"]))
        if values:
            found.append((system, values))
    return sorted(found, key=lambda pair: statistics.median(pair[1]), reverse=quantity["better"] == "less")


def _bars(axis: Any, result: dict[str, Any], quantity: dict[str, Any]) -> None:
    figures = _figures(result, quantity)
    bars = [(system, values) for system, values in figures if not system["yardstick"]]
    medians = [statistics.median(values) for _, values in bars]
    below = [median - min(values) for median, (_, values) in zip(medians, bars, strict=True)]
    above = [max(values) - median for median, (_, values) in zip(medians, bars, strict=True)]
    colors = [_color(system) for system, _ in bars]
    rows = range(len(bars))
    axis.errorbar(medians, rows, xerr=[below, above], fmt="none", ecolor="#333333", capsize=3)
    if _far_apart(medians):
        axis.scatter(medians, rows, color=colors, s=60, zorder=3)  # a bar would begin nowhere
    else:
        axis.barh(rows, medians, color=colors)
    axis.set_yticks(rows, [system["title"] for system, _ in bars], fontsize=8)
    axis.set_ylim(-0.6, len(bars) - 0.4)
    axis.grid(axis="x", alpha=0.3)
    for row, median in zip(rows, medians, strict=True):
        axis.annotate(f"  {_number(median)}", (median, row), va="bottom", fontsize=7)
    for system, values in figures:
        if system["yardstick"]:
            axis.axvline(statistics.median(values), linestyle="--", color="#333333", linewidth=1, label=system["title"])
            axis.legend(fontsize=7)
    _scale(axis.xaxis, medians)
    axis.set_title(f"{quantity['title']}: {quantity['unit']}, {quantity['better']} is better", fontsize=10, loc="left")


def _lines(axis: Any, result: dict[str, Any], family: Sequence[dict[str, Any]]) -> None:
    """One line for each system over the numbers of these quantities."""
    lines: dict[str, tuple[dict[str, Any], list[tuple[int, float]]]] = {}
    for quantity in family:
        match = SIZED.match(quantity["key"])
        assert match is not None
        for system, values in _figures(result, quantity):
            lines.setdefault(system["name"], (system, []))[1].append((int(match["size"]), statistics.median(values)))
    places = {system["name"]: place for place, system in enumerate(result["systems"])}  # one colour in every panel
    for system, points in lines.values():
        width = 2.5 if system["name"] == OURS else 1.2
        color = OUR_COLOR if system["name"] == OURS else f"C{places[system['name']]}"
        axis.plot(*zip(*sorted(points), strict=True), marker="o", label=system["title"], linewidth=width, color=color)
    numbers = [point for _, points in lines.values() for point in points]
    _scale(axis.xaxis, [size for size, _ in numbers])
    _scale(axis.yaxis, [value for _, value in numbers])
    axis.set_xticks(sorted({size for size, _ in numbers}))
    axis.legend(fontsize=7)
    title = re.sub(r"\d[\d,]*", "N", family[0]["title"])
    axis.set_title(f"{title}: {family[0]['unit']}, {family[0]['better']} is better", fontsize=10, loc="left")


def _color(system: dict[str, Any]) -> str:
    if system["name"] == OURS:
        return OUR_COLOR
    return DURABLE_COLOR if system["durable"] else OTHER_COLOR


def _scale(axis: Any, values: Sequence[float]) -> None:
    """Logarithmic where the values are far apart; numbers as people write them."""
    if _far_apart(values):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _far_apart(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > LOG_FROM


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws a PNG for each measure beside the results.")
    parser.add_argument("results", type=Path)
    path = parser.parse_args().results
    for drawn in draw(json.loads(path.read_text(encoding="utf-8")), path.parent):
        print(drawn)


if __name__ == "__main__":
    main()
