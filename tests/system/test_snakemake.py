"""A real Snakemake runs workflows on a real cluster, with the profile in `examples/snakemake/` and nothing else."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import REPOSITORY
from tests.system.client import missing, until
from tests.system.conftest import StartCluster
from tests.system.jobyard import Jobyard

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

PROFILE: Final = REPOSITORY / "examples" / "snakemake"
PATIENCE_S: Final = 200.0

WORDS: Final = """
SAMPLES = ["a", "b"]

rule all:
    input: "report.txt"

rule write:
    output: "raw/{sample}.txt"
    shell: "seq 1 100 | sed 's/^/{wildcards.sample} /' > {output}"

rule count:
    input: "raw/{sample}.txt"
    output: "counted/{sample}.txt"
    threads: 2
    shell: "wc -l < {input} > {output}"

rule where:
    input: "raw/{sample}.txt"
    output: "where/{sample}.txt"
    shell: "echo $JOBYARD_NODE $JOBYARD_TICKET > {output}"

rule report:
    input: expand("counted/{sample}.txt", sample=SAMPLES), expand("where/{sample}.txt", sample=SAMPLES)
    output: "report.txt"
    shell: "cat {input} > {output}"
"""
FAILS: Final = """
rule fails:
    output: "never.txt"
    shell: "echo it cannot be done >&2; exit 3"
"""
NAPS: Final = """
rule naps:
    output: "never.txt"
    shell: "touch begun; sleep 3600; touch {output}"
"""
TELLS_WHEN_ASKED: Final = f"""#!/bin/sh
echo $$ >> asked
exec {PROFILE}/jobyard-status "$@"
"""


@pytest.fixture
def jobyard(start_cluster: StartCluster, tmp_path: Path) -> Jobyard:
    for name in ("snakemake", "snakemake_executor_plugin_cluster_generic"):
        if importlib.util.find_spec(name) is None:
            missing(f"{name} is not installed")
    jobyard = Jobyard(start_cluster(2, slots=2), tmp_path)
    shim = jobyard.shim(tmp_path / "bin")
    jobyard.env["PATH"] = f"{shim.parent}:{PROFILE}:{os.environ['PATH']}"
    jobyard.env["HOME"] = str(tmp_path)  # where Snakemake keeps its cache
    return jobyard


def snakemake(
    jobyard: Jobyard, workflow: str, *, profile: Path = PROFILE, asks_every_s: int = 1
) -> "subprocess.Popen[str]":
    (jobyard.directory / "Snakefile").write_text(workflow)
    words = ["--profile", str(profile), "--seconds-between-status-checks", str(asks_every_s)]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *words], cwd=jobyard.directory, env=jobyard.env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def output_of(process: "subprocess.Popen[str]") -> str:
    return process.communicate(timeout=PATIENCE_S)[0]


def names(jobyard: Jobyard, state: str) -> list[str]:
    jobs = [json.loads(line) for line in jobyard("list", "--json", "--state", state).lines]
    return sorted(job["name"] for job in jobs)


def test_every_job_of_a_workflow_runs_on_the_cluster(jobyard: Jobyard) -> None:
    process = snakemake(jobyard, WORDS)
    said = output_of(process)
    assert process.returncode == 0, said
    assert names(jobyard, "succeeded") == ["count"] * 2 + ["report"] + ["where"] * 2 + ["write"] * 2
    report = (jobyard.directory / "report.txt").read_text().split()
    assert report[:2] == ["100"] * 2
    assert set(report[2::2]) <= {"node1", "node2"}
    assert set(report[3::2]) <= set(jobyard("list", "--quiet").lines)


def test_a_job_that_fails_ends_its_workflow(jobyard: Jobyard) -> None:
    process = snakemake(jobyard, FAILS)
    said = output_of(process)
    assert process.returncode == 1
    assert "Error in rule fails" in said
    assert names(jobyard, "failed") == ["fails"]


def test_ctrl_c_cancels_the_jobs_of_a_workflow(jobyard: Jobyard) -> None:
    """Snakemake cancels the jobs whose state it asks for, unless it is just asking: then it knows of none."""
    profile = shutil.copytree(PROFILE, jobyard.directory / "profile")  # whose own programs are found before PATH's
    (profile / "jobyard-status").write_text(TELLS_WHEN_ASKED)
    process = snakemake(jobyard, NAPS, profile=profile, asks_every_s=5)
    until("the job runs", (jobyard.directory / "begun").exists, within_s=60.0)
    until("snakemake has asked for its state, and has the answer", lambda: answered(jobyard), within_s=60.0)
    process.send_signal(signal.SIGINT)
    said = output_of(process)
    assert process.returncode != 0
    assert names(jobyard, "cancelled") == ["naps"], said


def answered(jobyard: Jobyard) -> bool:
    """Whether whoever was asked last has been reaped by who asked."""
    asked = jobyard.directory / "asked"
    pids = asked.read_text().split() if asked.exists() else []
    return bool(pids) and not Path("/proc", pids[-1]).exists()


ASKED_TWICE: Final = """#!/bin/sh
if [ -e asked ]; then echo success; else touch asked; echo 'jobyard: UNREACHABLE' >&2; exit 3; fi
"""


def test_a_cluster_that_does_not_answer_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "jobyard").write_text(ASKED_TWICE)
    (tmp_path / "jobyard").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    asked = subprocess.run([PROFILE / "jobyard-status", "k-1"], cwd=tmp_path, env=env, capture_output=True, check=True)
    assert asked.stdout == b"success\n"
