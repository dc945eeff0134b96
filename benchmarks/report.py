"""A result as tables in Markdown: `python -m benchmarks.report RESULTS.json`. Pure but for reading the file."""

import argparse
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.bars import BARS, Condition, Found, Judged, growths, judge, of
from benchmarks.results import Figure, Measured, Quantity, Result, advantage, load
from benchmarks.systems.catalogue import OURS

_PLACE: Final = re.compile(r"(?<![\w.])/(?:[^\s/]+/)+")  # the directory of an absolute path


def number(value: float) -> str:
    """Three figures that mean something, thousands set off."""
    if not math.isfinite(value):
        return "∞"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 or value == 0 else 4
    return f"{value:,.{digits}f}"


def report(result: Result) -> str:
    """The whole: the machine, a summary, a table for each quantity, and who could not be had."""
    taken = [quantity for quantity in result.quantities if _has_figures(result, quantity)]
    compared = [_quantity(result, quantity) for quantity in taken if not quantity.ours_only]
    parts = [_heading(result), _bars(result), _summary(result), *compared, *_of_ours(result), _missing(result)]
    return _joined(parts)


def publication(result: Result) -> str:
    """What a reader wants of it: without a table for each quantity, which the plots show."""
    return _joined([_machine(result), _bars(result), _summary(result), *_of_ours(result), _missing(result)])


def _joined(parts: Iterable[Iterator[str]]) -> str:
    return "\n\n".join(text for part in parts if (text := "\n".join(part))) + "\n"


def _heading(result: Result) -> Iterator[str]:
    yield f"# Benchmark of {result.when}"
    yield ""
    yield from _machine(result)


def _machine(result: Result) -> Iterator[str]:
    yield f"Taken {result.when}: " + ", ".join(f"{name} {value}" for name, value in result.machine.items()) + "."
    yield (
        f"Medians of up to {result.repeats} rounds; a round takes every system once. A ratio says how many times "
        "better Jobyard is: above 1 it is ahead. Durable: synced before it is acknowledged."
    )


# --- the bars ----------------------------------------------------------------------------------------------------


def _bars(result: Result) -> Iterator[str]:
    yield "## Bars\n"
    yield "What this project must reach in one run, and where it is heading. In bold what was found.\n"
    yield "| measure | Jobyard | first bar | reached | heading | reached |"
    yield "|---|---:|---|---|---|---|"
    for bar in BARS:
        ours = of(result, bar.key)
        first, heading = judge(result, bar.first), judge(result, bar.heading)
        value = number(ours[1].median) if ours else "—"
        yield _row([bar.title, value, _goal(first), first.reached, _goal(heading), heading.reached])


def _goal(judged: Judged) -> str:
    return "; ".join(_condition(condition, found) for condition, found in judged.found)


def _condition(condition: Condition, found: Found | None) -> str:
    if found is None:
        return f"{condition.text}: —"
    whom = f" ({found.with_whom})" if found.with_whom else ""
    return f"{condition.text}: **{number(found.value)}**{whom}"


# --- the summary -------------------------------------------------------------------------------------------------


def _summary(result: Result) -> Iterator[str]:
    rows = [row for quantity in result.quantities if (row := _summary_row(result, quantity)) is not None]
    if rows:
        yield "## Summary\n"
        yield "| measure | Jobyard | best durable peer | ratio | best peer | ratio | yardstick | ratio |"
        yield "|---|---:|---|---:|---|---:|---|---:|"
        yield from rows


def _summary_row(result: Result, quantity: Quantity) -> str | None:
    ours = result.figure(quantity, OURS)
    if ours is None or quantity.ours_only:
        return None
    peers = [system for system in result.systems if system.name != OURS and not system.yardstick]
    cells = [f"{quantity.title}, {quantity.unit}", number(ours.median)]
    cells += _best(result, quantity, ours, [system for system in peers if system.durable])
    cells += _best(result, quantity, ours, peers)
    cells += _best(result, quantity, ours, [system for system in result.systems if system.yardstick])
    return _row(cells)


def _best(result: Result, quantity: Quantity, ours: Figure, systems: Sequence[Measured]) -> list[str]:
    found = [(figure.median, system) for system in systems if (figure := result.figure(quantity, system.name))]
    if not found:
        return ["", ""]
    median, system = (max if quantity.better == "more" else min)(found, key=lambda pair: pair[0])
    return [f"{number(median)} ({system.title})", f"{number(advantage(quantity, ours.median, median))} ×"]


# --- one quantity ------------------------------------------------------------------------------------------------


def _quantity(result: Result, quantity: Quantity) -> Iterator[str]:
    yield f"## {quantity.title}: {quantity.unit}, {quantity.better} is better\n"
    yield "| system | durable | median | lowest | highest | rounds | Jobyard is |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    ours = result.figure(quantity, OURS)
    ranked = [(figure, system) for system in result.systems if (figure := result.figure(quantity, system.name))]
    ranked.sort(key=lambda pair: pair[0].median, reverse=quantity.better == "more")
    for figure, system in ranked:
        yield _row(_cells(quantity, figure, system, ours))
    for system in result.systems:
        reason = result.reason(quantity, system.name)
        if reason is not None and result.figure(quantity, system.name) is None:
            yield _row([system.title, "", "—", "", "", "", _plain(reason)])


def _cells(quantity: Quantity, figure: Figure, system: Measured, ours: Figure | None) -> list[str]:
    durable = "yardstick" if system.yardstick else "yes" if system.durable else f"no: {system.durability}"
    name = f"**{system.title}**" if system.name == OURS else system.title
    spread = _spread(figure)
    ratio = "" if ours is None or ours is figure else f"{number(advantage(quantity, ours.median, figure.median))} ×"
    return [name, durable, *spread, ratio]


def _spread(figure: Figure) -> list[str]:
    return [number(figure.median), number(min(figure.values)), number(max(figure.values)), str(len(figure.values))]


# --- Jobyard alone -----------------------------------------------------------------------------------------------


def _of_ours(result: Result) -> tuple[Iterator[str], Iterator[str]]:
    return _ours(result), _growth(result)


def _ours(result: Result) -> Iterator[str]:
    """What only Jobyard is asked; what could not be taken, with the reason."""
    rows = [
        row for quantity in result.quantities if quantity.ours_only and (row := _our_row(result, quantity)) is not None
    ]
    if rows:
        yield "## Jobyard alone\n"
        yield "| measure | unit | median | lowest | highest | rounds |"
        yield "|---|---|---:|---:|---:|---:|"
        yield from rows


def _our_row(result: Result, quantity: Quantity) -> str | None:
    if (figure := result.figure(quantity, OURS)) is not None:
        return _row([quantity.title, quantity.unit, *_spread(figure)])
    reason = result.reason(quantity, OURS)
    return None if reason is None else _row([quantity.title, quantity.unit, f"— {_plain(reason)}", "", "", ""])


def _growth(result: Result) -> Iterator[str]:
    grown = list(growths(result))
    if grown:
        yield "## How it grows\n"
        yield "Jobyard's figures with few and with many: of nodes, connections, queued jobs, or KiB of a body.\n"
        yield "| measure | unit | from | to | with few | with many | many / few |"
        yield "|---|---|---:|---:|---:|---:|---:|"
        for one in grown:
            ratio = number(one.with_many / one.with_few) if one.with_few else "—"
            sizes = [f"{one.few:,}", f"{one.many:,}"]
            yield _row([one.title, one.unit, *sizes, number(one.with_few), number(one.with_many), ratio])


def _has_figures(result: Result, quantity: Quantity) -> bool:
    return any(figure.quantity == quantity.key for figure in result.figures)


# --- who could not be had ----------------------------------------------------------------------------------------


def _missing(result: Result) -> Iterator[str]:
    titles = {system.name: system.title for system in result.systems}
    gone = [absent for absent in result.absent if not absent.quantity]
    if gone:
        yield "## Not measured\n"
        yield "| system | why |"
        yield "|---|---|"
        for absent in gone:
            yield _row([titles.get(absent.system, absent.system), _plain(absent.reason)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """One line without what a table would take for its own, and without the places of somebody's machine."""
    return " ".join(_PLACE.sub("…/", text).split()).replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the tables of a result in Markdown.")
    parser.add_argument("results", type=Path)
    print(report(load(parser.parse_args().results)), end="")


if __name__ == "__main__":
    main()
