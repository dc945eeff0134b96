"""Workloads: requests with tasks and durations, made from a seed or read, so that every run and policy sees the same.

    {"at_s": 0.53, "maps_s": [1.2, 0.4], "reduces_s": [2.0]}

A request comes `at_s` seconds after the beginning; its maps may run at once, its reduces when all of its maps have
succeeded. Independent tasks are requests with one map and no reduces. A workload is written as JSON lines.

Pure. The same seed gives the same bytes with every version of Python: all chance is `random.Random(seed).random()`,
whose stream is guaranteed (other methods' are not), and moments and durations are whole microseconds. Arrivals and
shapes draw from streams of their own: another arrival process does not change a duration.
"""

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Draw: TypeAlias = Callable[[], float]  # the next number of a stream, from 0 up to but not 1
Distribution: TypeAlias = Callable[[Draw], float]
Arrivals: TypeAlias = Callable[[Draw], Iterator[float]]

_DIGITS: Final = 6  # of seconds: durations are whole microseconds
_ALWAYS_S: Final = 1.0  # between two requests of a trace that does not say when they came
TASKS_MAX: Final = 1000  # maps of a request, because `after=` names no more


@dataclass(frozen=True, slots=True)
class Request:
    """What one client asks for at one moment."""

    at_s: float
    maps_s: tuple[float, ...]
    reduces_s: tuple[float, ...] = ()

    @property
    def tasks(self) -> int:
        return len(self.maps_s) + len(self.reduces_s)

    @property
    def work_s(self) -> float:
        return sum(self.maps_s) + sum(self.reduces_s)

    @property
    def shortest_s(self) -> float:
        """How long it takes at least, however many slots there are."""
        return max(self.maps_s) + max(self.reduces_s, default=0.0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How requests are made."""

    arrivals: Arrivals
    durations: Distribution
    maps: tuple[int, int] = (1, 1)  # at least and at most
    reduces: tuple[int, int] = (0, 0)


def generate(count: int, seed: int, recipe: Recipe) -> Iterator[Request]:
    """So many requests, or as many as there are arrivals."""
    moments, shapes = random.Random(2 * seed).random, random.Random(2 * seed + 1).random
    arrivals = recipe.arrivals(moments)
    for _ in range(count):
        at_s = next(arrivals, None)
        if at_s is None:
            return
        maps = _several(shapes, recipe.maps, recipe.durations)
        yield Request(round(at_s, _DIGITS), maps, _several(shapes, recipe.reduces, recipe.durations))


def _several(draw: Draw, range_: tuple[int, int], durations: Distribution) -> tuple[float, ...]:
    return tuple(round(durations(draw), _DIGITS) for _ in range(_whole(draw, *range_)))


def _whole(draw: Draw, least: int, most: int) -> int:
    """A whole number, each of the range as likely as the others."""
    return least + int(draw() * (most - least + 1))


# --- when requests come ------------------------------------------------------------------------------------------


def at_once(draw: Draw) -> Iterator[float]:
    while True:
        yield 0.0


def poisson(rate: float) -> Arrivals:
    """So many in a second on average, independent of each other: exponential waits between them."""

    def arrivals(draw: Draw) -> Iterator[float]:
        now = 0.0
        while True:
            now += exponential(1 / rate)(draw)
            yield now

    return arrivals


def bursts(size: int, every_s: float) -> Arrivals:
    """So many at one moment, and the next as many so much later."""

    def arrivals(draw: Draw) -> Iterator[float]:
        number = 0
        while True:
            yield number // size * every_s
            number += 1

    return arrivals


def at_moments(moments: Iterable[float]) -> Arrivals:
    return lambda draw: iter(sorted(moments))


# --- how long tasks take -----------------------------------------------------------------------------------------


def constant(seconds: float) -> Distribution:
    return lambda draw: seconds


def exponential(mean_s: float) -> Distribution:
    return lambda draw: -mean_s * math.log(1.0 - draw())


def pareto(shape: float, least_s: float, most_s: float = math.inf) -> Distribution:
    """Most are short, few are long: P(longer than x) = (least / x) ** shape; what would be longer than `most_s` is
    as long as that."""
    return lambda draw: min(most_s, least_s * float((1.0 - draw()) ** (-1.0 / shape)))


def whole_seconds(least: int, most: int) -> Distribution:
    return lambda draw: float(_whole(draw, least, most))


# What the generator of YACS makes: arrivals with exponential waits of a second on average, 1 to 4 maps, 1 or 2 reduces,
# 1 to 4 s each.
YACS: Final = Recipe(poisson(1.0), whole_seconds(1, 4), maps=(1, 4), reduces=(1, 2))

# --- as words of a command line ----------------------------------------------------------------------------------


def distribution_of(text: str) -> Distribution:
    """The distribution of `constant:2`, `exponential:4`, `pareto:1.5:1:20` or `whole:1-4`."""
    name, _, rest = text.partition(":")
    numbers = rest.split(":")
    match name, len(numbers):
        case "constant", 1:
            return constant(_positive(numbers[0], text))
        case "exponential", 1:
            return exponential(_positive(numbers[0], text))
        case "pareto", 2 | 3:
            shape, least_s, *most = (_positive(number, text) for number in numbers)
            if most and most[0] < least_s:
                raise ValueError(f"{text!r}: the most, {most[0]:g} s, is less than the least, {least_s:g} s")
            return pareto(shape, least_s, *most)
        case "whole", 1:
            return whole_seconds(*range_of(rest, least=1))
    raise ValueError(f"{text!r} is no distribution; {_DURATIONS}")


def arrivals_of(text: str) -> Arrivals:
    """The arrival process of `at-once`, `poisson:3` or `bursts:40:10`."""
    name, _, rest = text.partition(":")
    numbers = rest.split(":")
    if text == "at-once":
        return at_once
    if name == "poisson" and len(numbers) == 1:
        return poisson(_positive(numbers[0], text))
    if name == "bursts" and len(numbers) == 2 and numbers[0].isdecimal() and int(numbers[0]):
        return bursts(int(numbers[0]), _positive(numbers[1], text))
    raise ValueError(f"{text!r} is no arrival process; {_ARRIVALS}")


_DURATIONS: Final = "write constant:SECONDS, exponential:MEAN, pareto:SHAPE:LEAST, pareto:SHAPE:LEAST:MOST or whole:A-B"
_ARRIVALS: Final = "write at-once, poisson:PER_SECOND, bursts:SIZE:EVERY_SECONDS or trace:FILE"


def range_of(text: str, *, least: int) -> tuple[int, int]:
    """The two numbers of `1-4`; `3` is `3-3`."""
    first, dash, last = text.partition("-")
    numbers = (first, last if dash else first)
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{text!r} is no range; write it like 1-4, or 3")
    low, high = int(numbers[0]), int(numbers[1])
    if not least <= low <= high <= TASKS_MAX:
        raise ValueError(f"{text!r}: a range goes from {least} or more up to {TASKS_MAX} at most, and does not go down")
    return low, high


def _positive(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r}: {number!r} is no number above 0")
    return value


# --- as JSON lines -----------------------------------------------------------------------------------------------


def write(requests: Iterable[Request]) -> Iterator[str]:
    """A line for each, with its line end."""
    for request in requests:
        line: dict[str, Any] = {"at_s": request.at_s, "maps_s": request.maps_s}
        if request.reduces_s:
            line["reduces_s"] = request.reduces_s
        yield f"{json.dumps(line)}\n"


def read(lines: Iterable[str]) -> tuple[list[Request], list[float]]:
    """What a trace has: requests, or moments of arrival alone; one of the two is empty.

    A line is a request as `write` writes it, one as YACS's master takes it (`map_tasks` and `reduce_tasks` with
    `duration`; without a moment, so they come a second apart, as its analysis sends them), or a number: a moment.
    Raises ValueError, with the number of the line, for any other, and for a trace of both.
    """
    requests: list[Request] = []
    moments: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if isinstance(found, dict):
                requests.append(_request(found, len(requests) * _ALWAYS_S))
            else:
                moments.append(_seconds(found))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} of the trace is no request and no moment: {_reason(error)}") from None
    if requests and moments:
        raise ValueError("a trace has requests or moments, and this one has both")
    return sorted(requests, key=lambda request: request.at_s), moments


def _request(found: Mapping[str, Any], at_s: float) -> Request:
    if "map_tasks" in found:
        maps = [task["duration"] for task in found["map_tasks"]]
        reduces = [task["duration"] for task in found.get("reduce_tasks", ())]
    else:
        maps, reduces = found["maps_s"], found.get("reduces_s", ())
    if not 1 <= len(maps) <= TASKS_MAX:
        raise ValueError(f"a request has 1 to {TASKS_MAX} maps, and this one {len(maps)}")
    return Request(_seconds(found.get("at_s", at_s)), tuple(map(_seconds, maps)), tuple(map(_seconds, reduces)))


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no number of seconds")
    return round(float(value), _DIGITS)


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
