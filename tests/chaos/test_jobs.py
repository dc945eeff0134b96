"""The jobs: what they come to under a real shell is what is expected of them, and of no other job or attempt."""

import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from chaos import jobs
from chaos.jobs import Job
from chaos.replies import Reply

TIMEOUT_S: Final = 3.0


def drawn(journal: Path) -> list[Job]:
    chance = Random(1)
    return [
        jobs.draw(chance, number, run="r", journal=str(journal), node_timeout_s=TIMEOUT_S) for number in range(1, 200)
    ]


def run(job: Job, attempt: int) -> Reply:
    """As a node would run it, but for the waiting."""
    options, _, script = job.line.partition(" sh ")
    assert "crash_limit=off" in options
    done = subprocess.run(
        ["/bin/sh", "-c", script.replace("sleep ", ": ")], input=job.body or b"", capture_output=True, check=False,
        env={"PATH": os.environ["PATH"], "JOBYARD_TICKET": f"aaaaaa-{job.number}", "JOBYARD_ATTEMPT": str(attempt)},
    )  # fmt: skip
    state = "failed" if done.returncode else "succeeded"
    size = len(done.stdout)
    line = f"OK aaaaaa-{job.number} state={state} exit={done.returncode} attempt={attempt} stdout={size} bytes={size}"
    return Reply(line, done.stdout)


def test_every_kind_of_job_comes_to_what_is_expected_and_leaves_its_line(tmp_path: Path) -> None:
    some = drawn(tmp_path / "journal")[:40]
    for different in ({bool(job.key) for job in some}, {job.body is None for job in some}, {job.exit for job in some}):
        assert len(different) == 2
    assert [job.problem(run(job, 1 + job.number % 3)) for job in some] == [""] * len(some)
    lines = (tmp_path / "journal").read_text().splitlines()
    assert lines == [f"aaaaaa-{job.number} {1 + job.number % 3} {job.number}" for job in some]


def test_the_end_of_another_job_or_attempt_is_noticed(tmp_path: Path) -> None:
    some = drawn(tmp_path / "journal")[:10]
    for job, other in pairwise(some):
        end = run(job, 2)
        assert other.problem(end)
        assert job.problem(Reply(end.line.replace("attempt=2", "attempt=3"), end.body))
        assert job.problem(Reply(end.line, end.body[:-1]))


def test_some_jobs_take_longer_than_the_node_timeout_and_most_do_not(tmp_path: Path) -> None:
    naps = [float(nap) for job in drawn(tmp_path / "journal") for nap in re.findall(r"sleep ([\d.]+);", job.line)]
    assert 3 <= sum(nap > TIMEOUT_S for nap in naps) < len(naps) / 3
