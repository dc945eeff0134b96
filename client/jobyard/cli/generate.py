"""`generate`: a workload from a seed, as JSON lines; and `--submit`, which plays it against the cluster."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from jobyard import workload
from jobyard.cli import exits, records, terminal, words
from jobyard.cli.verb import Session, verb
from jobyard.workload import Arrivals, Distribution, Recipe, Request

_TRACE = "trace:"


def _maps(text: str) -> tuple[int, int]:
    return workload.range_of(text, least=1)


def _reduces(text: str) -> tuple[int, int]:
    return workload.range_of(text, least=0)


@verb(
    "generate",
    records.GENERATED,
    quiet="With --submit print tickets only, and no summary.",
    examples="""
    jobyard generate 200 --yacs --seed 7 > yacs.jsonl
    jobyard generate 2000 --durations pareto:1.5:0.1:6 --output pareto.jsonl
    jobyard generate 300 --arrivals poisson:3 --durations exponential:4 --submit
    jobyard generate --arrivals trace:yacs.jsonl --submit
    """,
)
@click.argument("count", type=click.IntRange(1), required=False, metavar="[N]")
@click.option("--seed", type=int, default=0, metavar="S", help="The same seed makes the same workload.  [0]")
@click.option(
    "--arrivals",
    default=None,
    metavar="WHEN",
    help="at-once, poisson:PER_SECOND, bursts:SIZE:EVERY_SECONDS, or trace:FILE: the requests of a workload, or "
    "moments in seconds, one on a line.  [at-once]",
)
@click.option(
    "--durations",
    type=words.option(workload.distribution_of),
    metavar="HOW",
    help="Of a task, in seconds: constant:D, exponential:MEAN, pareto:SHAPE:LEAST, pareto:SHAPE:LEAST:MOST, or "
    "whole:A-B.  [constant:1]",
)
@click.option("--maps", type=words.option(_maps), metavar="A-B", help="Map tasks of a request.  [1]")
@click.option("--reduces", type=words.option(_reduces), metavar="A-B", help="Reduce tasks of a request.  [0]")
@click.option("--yacs", is_flag=True, help="--arrivals poisson:1 --durations whole:1-4 --maps 1-4 --reduces 1-2, where "
              "these are not given.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where it is written.")
@click.option("--submit", is_flag=True, help="Play it against the cluster in real time instead, and print tickets.")
def generate(
    session: Session,
    count: int | None,
    seed: int,
    arrivals: str | None,
    durations: Distribution | None,
    maps: tuple[int, int] | None,
    reduces: tuple[int, int] | None,
    yacs: bool,
    output: Path | None,
    submit: bool,
) -> int:
    """Make a workload of N requests from a seed.

    A request has map tasks, and reduce tasks that begin when all of its maps have succeeded. It is one line of JSON:
    {"at_s": 0.53, "maps_s": [1.2, 0.4], "reduces_s": [2.0]}. The same words make the same bytes everywhere. With
    trace:FILE, N is at most how many are taken.

    --submit makes a job sleep of each task, when its moment has come; the jobs of a request have a group of their own.
    """
    preset = workload.YACS if yacs else Recipe(workload.at_once, workload.constant(1.0))
    requests = _requests(count, seed, arrivals, preset, durations, maps, reduces)
    if submit:
        if output is not None:
            raise ValueError("--output writes a workload and --submit plays it; give one of them")
        return _play(session, list(requests))
    text = workload.write(requests)
    if output is not None:
        output.write_text("".join(text), encoding="ascii")
    else:
        sys.stdout.writelines(text)
    return exits.SUCCESS


def _requests(
    count: int | None,
    seed: int,
    arrivals: str | None,
    preset: Recipe,
    durations: Distribution | None,
    maps: tuple[int, int] | None,
    reduces: tuple[int, int] | None,
) -> Iterator[Request]:
    shaped = any(given is not None for given in (durations, maps, reduces))
    process: Arrivals = preset.arrivals
    if arrivals is not None and arrivals.startswith(_TRACE):
        with Path(arrivals.removeprefix(_TRACE)).open(encoding="utf-8") as file:
            requests, moments = workload.read(file)
        if requests:
            if shaped:
                raise ValueError("this trace has requests with their tasks; --durations, --maps and --reduces are for"
                                 " one of moments alone")  # fmt: skip
            return iter(requests[:count])
        process, count = workload.at_moments(moments), min(len(moments), count or len(moments))
    elif arrivals is not None:
        process = workload.arrivals_of(arrivals)
    if count is None:
        raise ValueError("how many requests? jobyard generate N; only trace:FILE says it itself")
    return workload.generate(
        count, seed, Recipe(process, durations or preset.durations, maps or preset.maps, reduces or preset.reduces)
    )


def _play(session: Session, requests: list[Request]) -> int:
    from jobyard.playing import play

    name = f"load-{os.urandom(4).hex()}"
    tasks, late_s = 0, 0.0
    for played in play(session.client, requests, name):
        tasks += played.request.tasks
        late_s = max(late_s, played.late_s)
        if session.json:
            at_s = played.request.at_s
            session.print(records.of_played(played.group, at_s, played.late_s, played.maps, played.reduces))
        elif session.quiet:
            terminal.lines((*played.maps, *played.reduces))
        else:
            terminal.line(" ".join((played.group, *played.maps, *played.reduces)))
    session.note(f"{tasks} jobs of {len(requests)} requests, groups {name}-1 to {name}-{len(requests)}; the latest"
                 f" came {late_s:.3f} s after its moment")  # fmt: skip
    return exits.SUCCESS
