"""`doctor`: looks at a cluster from outside, address by address and then as a whole, and says what to do."""

import time
from contextlib import suppress
from typing import Final

import click

from jobyard.cli import findings, records, terminal
from jobyard.cli.findings import Exam, Finding, Trial, Ward
from jobyard.cli.lookout import ANSWER_S_MAX, url_of
from jobyard.cli.texts import harmless
from jobyard.cli.verb import Session, verb
from jobyard.client import Client
from jobyard.errors import JobyardError, NotEnded
from jobyard.model import Ticket
from jobyard.settings import route_of

JOBS_MAX: Final = 1000  # so many are asked for their reasons
TRIAL_S_MAX: Final = 15.0
CANCELLED_S_MAX: Final = 2.0  # what a cancelled job may take to end, before it can be forgotten
_WORDS: Final = {findings.OK: "alive", findings.WARNING: "draining", findings.ERROR: "lost"}  # of that colour


@verb(
    "doctor",
    records.FINDING,
    quiet="Leave out what is as it should be.",
    examples="""
    jobyard doctor
    jobyard doctor --run --url tcp://node1:9000,tcp://node2:9000
    jobyard doctor --json | jq -r 'select(.severity == "error") | .advice'
    """,
)
@click.option("--run", "tries", is_flag=True, help="Also submit a job that does nothing at each address, and time it.")
def doctor(session: Session, tries: bool) -> int:
    """Check a cluster from outside, and say what to do.

    Every address is asked by itself: is it reached, is the token right, do versions fit, has it a link to the balancer,
    is its disk full. Then the cluster: lost and draining nodes, jobs that cannot run and why, clocks that are apart. A
    line for each finding, the worst first. Exit code 0 if all is well, 1 with warnings, 2 with errors.
    """
    exams = []
    ward = Ward(problem=None)
    for address in route_of(session.url).addresses:
        exam = Exam(str(address))
        exams.append(exam)
        try:
            with Client(url_of(address), timeout_s=ANSWER_S_MAX) as client:
                exam.version = client.version()
                exam.local = client.stats(local=True)
                if not ward.address:
                    ward = _visit(client, exam)
                if tries:
                    exam.trial = _try(client)
                if ward.address:
                    _look_again(client, ward)
        except (JobyardError, OSError) as error:
            exam.problem = error
    found = findings.findings(exams, ward)
    _show(session, found)
    return findings.exit_code(found)


def _visit(client: Client, exam: Exam) -> Ward:
    """The whole cluster, as this node's balancer tells it."""
    ward = Ward()
    try:
        ward.stats = client.stats()
        ward.nodes = client.nodes()
        ward.jobs = client.list(limit=JOBS_MAX)
        ward.address = exam.address
    except JobyardError as error:
        ward.problem = error
    ward.at_wall = time.time()
    return ward


def _look_again(client: Client, ward: Ward) -> None:
    """What has grown meanwhile is not just old."""
    with suppress(JobyardError):
        ward.stats_later = client.stats()


def _try(client: Client) -> Trial:
    """Submits a job that does nothing, waits for it, and removes every trace of it."""
    trial = Trial(began_wall=time.time())
    began_at = time.monotonic()
    try:
        cursor = client.events("now").cursor
        ticket = client.submit("sleep", "0", name="doctor")
    except JobyardError as error:
        trial.problem = error
        return trial
    try:
        _follow(client, ticket, cursor, trial, began_at)
    except JobyardError as error:
        trial.problem = None if trial.ended else error
    finally:
        _remove(client, ticket, trial.ended)
    return trial


def _follow(client: Client, ticket: Ticket, cursor: str, trial: Trial, began_at: float) -> None:
    trial.taken_wall = time.time()
    try:
        outcome = client.wait(ticket, TRIAL_S_MAX)
        trial.ended, trial.node = True, outcome.node or "?"
    except NotEnded:
        trial.why = client.explain(ticket).reason
    trial.took_s = time.monotonic() - began_at
    trial.submitted = client.status(ticket).submitted or ""
    told = (event for event in client.events(cursor).events if event.get("ticket") == ticket)
    trial.recorded, trial.ended_wall = str(next(told, {}).get("at", "")), time.time()


def _remove(client: Client, ticket: Ticket, ended: bool) -> None:
    """As far as it can be: that it cannot does not change how it went."""
    if not ended:
        with suppress(JobyardError):
            client.cancel(ticket)
            client.wait(ticket, CANCELLED_S_MAX)
    with suppress(JobyardError):
        client.forget(ticket)


def _show(session: Session, found: list[Finding]) -> None:
    for finding in found:
        if session.quiet and finding.severity == findings.OK:
            continue
        if session.json:
            session.print(records.of_finding(finding))
        else:
            severity = session.paint(f"{finding.severity:7}", _WORDS[finding.severity])
            advice = f". To do: {finding.advice}" if finding.advice else ""
            terminal.line(f"{severity}  {harmless(f'{finding.about}: {finding.text}{advice}')}")
