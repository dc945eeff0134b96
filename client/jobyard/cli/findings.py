"""What `doctor` makes of what it saw: findings, each with a severity, what was found, and what to do.

    Exam (one address) ... ──┐
    Ward (the whole cluster) ─┴──► findings()      worst first; `ok` lines say what is as it should be

Pure: whoever asked the nodes hands over their answers and the moments at which they came.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from jobyard.cli.picture import STORE_EARLY, STORE_FULL
from jobyard.cli.texts import clock
from jobyard.errors import Forbidden, JobyardError, Unauthorized
from jobyard.model import Node, Status
from jobyard.version import PROTOCOL, __version__

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"
SEVERITIES: Final = (OK, WARNING, ERROR)  # their places are exit codes

SKEW_S_MAX: Final = 2.0  # clocks farther apart are told of
SILENT_S_MAX: Final = 30.0  # far above JOBYARD_INFO_PERIOD, which may be long: an idle node is heard no more often
TRIAL_SLOW_S: Final = 5.0  # a job that does nothing ends sooner, wherever a slot is free


@dataclass(frozen=True)
class Finding:
    severity: str
    check: str
    about: str
    text: str
    advice: str = ""


@dataclass
class Trial:
    """A job that did nothing, as it was submitted at an address and as it ended; or why it did not."""

    took_s: float = 0.0
    ended: bool = False
    began_wall: float = 0.0  # when it was submitted, by our clock,
    taken_wall: float = 0.0  # when its ticket came,
    ended_wall: float = 0.0  # and when all of it was over
    submitted: str = ""  # when it was taken in, by the node's clock,
    recorded: str = ""  # and when the ledger heard of it, by the balancer's
    node: str = ""  # that ran it
    problem: JobyardError | None = None
    why: str = ""  # it has not ended


@dataclass
class Exam:
    """What one address said."""

    address: str
    problem: Exception | None = None  # it did not get so far
    version: str = ""  # `jobyard 0.1.0 protocol=1`
    local: Mapping[str, str] = field(default_factory=dict)  # STATS local=1
    trial: Trial | None = None

    def number(self, name: str) -> float:
        return _number(self.local, name)


@dataclass
class Ward:
    """What was said of the whole cluster, by the first node that could."""

    address: str = ""
    problem: Exception | None = None  # nobody could
    stats: Mapping[str, str] = field(default_factory=dict)
    stats_later: Mapping[str, str] = field(default_factory=dict)  # the same, when all else had been asked
    nodes: Sequence[Node] = ()
    jobs: Sequence[Status] = ()  # the newest, live ones first
    at_wall: float = 0.0  # when, by our clock


def findings(exams: Sequence[Exam], ward: Ward) -> list[Finding]:
    """The worst first; among equals in the order in which things were looked at."""
    found = [finding for exam in exams for finding in _of_address(exam)]
    found += _of_versions(exams, ward.nodes)
    if any(exam.problem is None for exam in exams):
        found += _of_cluster(ward)
    found += _of_clocks(exams, ward)
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))


def exit_code(found: Iterable[Finding]) -> int:
    return max((SEVERITIES.index(finding.severity) for finding in found), default=0)


# --- one address -------------------------------------------------------------------------------------------------


def _of_address(exam: Exam) -> Iterator[Finding]:
    if exam.problem is not None:
        yield _unreached(exam.address, exam.problem)
        return
    yield Finding(OK, "reach", exam.address, f"answers: {exam.version}")
    if exam.local.get("linked") == "0":
        yield Finding(
            ERROR, "link", exam.address, "has no link to the balancer",
            "start the balancer; if it runs, look for link.refused and balancer.unreachable in the node's log",
        )  # fmt: skip
    elif exam.number("outcomes_unacknowledged") > UNACKNOWLEDGED_MAX:
        yield Finding(
            WARNING, "link", exam.address,
            f"keeps {exam.local['outcomes_unacknowledged']} outcomes that the balancer has not acknowledged",
            "look at the balancer: its disk and its log",
        )  # fmt: skip
    if exam.local.get("draining") == "1":
        yield Finding(
            WARNING, "drain", exam.address, "drains: it takes no jobs",
            "`jobyard undrain` with its --url, or nothing while it is being stopped",
        )  # fmt: skip
    yield from _of_store(exam.address, "node", exam.local)
    if exam.trial is not None:
        yield _of_trial(exam.address, exam.trial)


UNACKNOWLEDGED_MAX: Final = 1000  # as many may be on their way under load


def _unreached(address: str, problem: Exception) -> Finding:
    text = " ".join(str(problem).split())
    if isinstance(problem, Unauthorized):
        return Finding(
            ERROR, "token", address, f"does not accept the token: {text}",
            "set JOBYARD_CLIENT_TOKEN or JOBYARD_CLIENT_TOKEN_FILE to what the node has under the same name",
        )  # fmt: skip
    if isinstance(problem, JobyardError) and problem.code == "PROTOCOL":
        return Finding(
            ERROR, "version", address, f"speaks another protocol: {text}",
            "the address of a node is its JOBYARD_LISTEN (9000), not the balancer's; upgrade the older side",
        )  # fmt: skip
    if isinstance(problem, JobyardError) and problem.code not in ("UNREACHABLE", "ERROR"):
        return Finding(WARNING, "reach", address, f"answers {problem.code}: {text}", "see docs/operating.md, Errors")
    text = text.removeprefix(f"no node can be reached: {address} ").partition(". JOBYARD_URL")[0]
    return Finding(
        ERROR, "reach", address, f"cannot be reached {text}",
        "start the node, open its port to this machine, or take the address out of JOBYARD_URL",
    )  # fmt: skip


def _of_store(about: str, whose: str, stats: Mapping[str, str]) -> Iterator[Finding]:
    if "store_fraction" not in stats:
        return
    fraction = _number(stats, "store_fraction")
    advice = f"make room on its disk, raise JOBYARD_STORE_MAX of the {whose}, or lower JOBYARD_RETENTION"
    if fraction >= STORE_FULL:
        left = "SUBMIT is refused with FULL" if whose == "node" else "new jobs stay with the nodes that took them"
        yield Finding(ERROR, "store", about, f"the {whose}'s store is {fraction:.0%} full: {left}", advice)
    elif fraction >= STORE_EARLY:
        text = f"the {whose}'s store is {fraction:.0%} full: ended jobs go before their time"
        yield Finding(WARNING, "store", about, text, advice)
    else:
        yield Finding(OK, "store", about, f"the {whose}'s store is {fraction:.0%} full")


def _of_trial(address: str, trial: Trial) -> Finding:
    if isinstance(trial.problem, Forbidden):
        text = f"cannot be tried: {trial.problem}"
        return Finding(WARNING, "run", address, text, "add sleep to JOBYARD_JOB_KINDS, or leave --run out")
    if trial.problem is not None:
        text = f"takes no job: {trial.problem.code}: {trial.problem}"
        return Finding(ERROR, "run", address, text, "see docs/operating.md, Errors")
    if not trial.ended:
        text = f"a job that does nothing has not ended after {clock(trial.took_s)}: {trial.why}"
        return Finding(WARNING, "run", address, text, "see `jobyard top`: it waits like any other job of its priority")
    text = f"a job submitted here ran on {trial.node} and ended after {trial.took_s * 1000:.0f} ms"
    if trial.took_s > TRIAL_SLOW_S:
        advice = "look at `jobyard top`: are slots free, and what waits"
        return Finding(WARNING, "run", address, text, advice)
    return Finding(OK, "run", address, text)


# --- versions ----------------------------------------------------------------------------------------------------


def _of_versions(exams: Sequence[Exam], nodes: Sequence[Node]) -> Iterator[Finding]:
    """Of the nodes, asked or not, and of this command. Nodes and balancer compare their protocol at every handshake."""
    told = {exam.address: _version(exam.version) for exam in exams if exam.problem is None}
    for address, (version, protocol) in told.items():
        if protocol != str(PROTOCOL):
            text = f"speaks version {protocol or '?'} of the client protocol, and this command version {PROTOCOL}"
            yield Finding(ERROR, "version", address, text, "upgrade the older of the two")
        elif version != __version__:
            text = f"is of version {version}, and this command of {__version__}"
            yield Finding(WARNING, "version", address, text, "upgrade the older: it does not know what is new")
    versions = sorted({*(version for version, _ in told.values()), *(node.version for node in nodes if node.version)})
    if len(versions) > 1:
        text = f"nodes are of different versions: {', '.join(versions)}"
        yield Finding(WARNING, "version", "cluster", text, "finish the upgrade: one node after the other")


def _version(said: str) -> tuple[str, str]:
    words = said.split()
    numbers = dict(word.partition("=")[::2] for word in words if "=" in word)
    return (words[1] if len(words) > 1 else said), numbers.get("protocol", "")


# --- the cluster -------------------------------------------------------------------------------------------------


def _of_cluster(ward: Ward) -> Iterator[Finding]:
    if ward.problem is not None:
        text = f"the balancer cannot be asked: {' '.join(str(ward.problem).split())}"
        yield Finding(
            ERROR, "balancer", "cluster", text,
            "start it, and look at its log; nodes go on meanwhile, and nothing that was taken in is lost",
        )  # fmt: skip
        return
    yield Finding(OK, "balancer", "cluster", f"the balancer answers, through {ward.address}")
    yield from _of_store("balancer", "balancer", ward.stats)
    yield from _of_nodes(ward)
    yield from _of_jobs(ward)


def _of_nodes(ward: Ward) -> Iterator[Finding]:
    alive = [node for node in ward.nodes if node.state == "alive"]
    if not alive:
        text = "no node takes jobs" if ward.nodes else "no node has ever been connected"
        yield Finding(ERROR, "nodes", "cluster", text, "start one, or UNDRAIN one")
    elif not sum(node.slots for node in alive):
        text = "no node that takes jobs has a slot"
        yield Finding(ERROR, "nodes", "cluster", text, "give one of them slots (JOBYARD_SLOTS)")
    else:
        yield Finding(OK, "nodes", "cluster", f"{len(alive)} of {len(ward.nodes)} nodes take jobs")
    for node in ward.nodes:
        seen = f"was last heard {clock(node.last_seen_s)} ago"
        if node.state == "lost":
            advice = (
                "start it again, or leave it: only jobs that the balancer never got wait for it; where it is gone for"
                " good, let a check look at errors alone (exit code 2), since it stays on the list"
            )
            yield Finding(WARNING, "nodes", node.name, f"is lost: it {seen}", advice)
        elif node.state == "draining":
            text = f"drains: {node.running} running, {node.waiting} waiting"
            yield Finding(WARNING, "nodes", node.name, text, "`jobyard undrain` with its --url, when it is to go on")
        elif node.last_seen_s > SILENT_S_MAX:
            text = f"{seen}, and is not lost yet"
            yield Finding(WARNING, "nodes", node.name, text, "look at the node and at the network between the two")
    names = Counter(node.name for node in ward.nodes if node.state != "lost")
    for name, count in names.items():
        if count > 1:
            text = f"{count} nodes have this name, so nobody can tell them apart"
            yield Finding(WARNING, "nodes", name, text, "give each a name of its own (JOBYARD_NODE_NAME)")
    yield from _of_crashes(ward)


def _of_crashes(ward: Ward) -> Iterator[Finding]:
    """Those that were lost long ago are no reason to worry; those that are being lost are."""
    before = int(_number(ward.stats, "attempts_crashed_total"))
    crashes = max(before, int(_number(ward.stats_later, "attempts_crashed_total")))
    lost = "1 attempt was lost with its node" if crashes == 1 else f"{crashes} attempts were lost with their node"
    text = f"{lost} since the balancer's start"
    if crashes > before:
        advice = "look in the balancer's log for node.lost: do nodes die, or does a job take them down?"
        yield Finding(WARNING, "nodes", "cluster", f"{text}, {crashes - before} of them while we looked", advice)
    elif crashes:
        yield Finding(OK, "nodes", "cluster", f"{text}, and none while we looked")


# Why a job waits (the codes of EXPLAIN) → what would change it; where waiting is nothing to worry about, no entry.
_STUCK: Final[Mapping[str, tuple[str, str, str]]] = {
    "no_node": (ERROR, "no node is connected", "start a node; MAX_NUM_NODES says how many may be connected"),
    "kind_not_allowed": (
        ERROR, "no connected node allows their kind", "start a node whose JOBYARD_JOB_KINDS has it, or cancel them"
    ),
    "too_wide": (
        ERROR, "no connected node has as many slots as they need", "a node with more JOBYARD_SLOTS, or cancel them"
    ),
    "draining": (WARNING, "the nodes that may run them drain", "UNDRAIN one of them, or start another"),
    "balancer_unreachable": (WARNING, "the node that took them in has no link to the balancer", "see to that link"),
    "on_its_way": (
        WARNING, "the ledger does not have them yet", "nothing, unless it lasts: then the balancer's store is full"
    ),
}  # fmt: skip
_WAITING: Final = frozenset(
    {"no_free_slot", "node_backlog", "next_round", "blocked", "delayed", "retry", "array_limit"}
)


def _of_jobs(ward: Ward) -> Iterator[Finding]:
    live = [job for job in ward.jobs if not job.ended]
    reasons = Counter(job.reason for job in live if job.reason)
    for reason, (severity, text, advice) in _STUCK.items():
        if reasons[reason]:
            first = next(job.ticket for job in live if job.reason == reason)
            how_many = f"{reasons[reason]} {'jobs wait' if reasons[reason] > 1 else 'job waits'}"
            text = f"{how_many}, reason {reason}: {text}"
            yield Finding(severity, "jobs", first, text, f"{advice}; `jobyard explain {first}`")
    total = max(len(live), int(_number(ward.stats, "jobs_live")))
    waiting = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common() if reason in _WAITING)
    counted = f" (of the newest {len(live)}: {waiting})" if total > len(live) else f" ({waiting})"
    yield Finding(OK, "jobs", "cluster", f"{total} live {'job' if total == 1 else 'jobs'}{counted if waiting else ''}")


# --- clocks ------------------------------------------------------------------------------------------------------


def _of_clocks(exams: Sequence[Exam], ward: Ward) -> Iterator[Finding]:
    """A moment that lies in our future is one of a clock that is ahead of ours. One in our past may just be old, but
    for a job that we have submitted ourselves."""
    found = [*_of_trials_clocks(exams)] or [*_of_moments(ward)]
    yield from found
    tried = [exam for exam in exams if exam.trial is not None and exam.trial.submitted]
    if tried and not found:
        yield Finding(OK, "clock", "cluster", f"clocks agree with this machine's to {SKEW_S_MAX:g} s")


def _of_trials_clocks(exams: Sequence[Exam]) -> Iterator[Finding]:
    told_of_balancer = False
    for exam in exams:
        if (trial := exam.trial) is None:
            continue
        if (ahead_s := _ahead_s(trial.submitted, trial.began_wall, trial.taken_wall)) is not None:
            yield _skewed(exam.address, ahead_s)
        ahead_s = _ahead_s(trial.recorded, trial.began_wall, trial.ended_wall)
        if ahead_s is not None and not told_of_balancer:
            told_of_balancer = True
            yield _skewed("balancer", ahead_s)


def _ahead_s(moment: str, from_wall: float, to_wall: float) -> float | None:
    """How far another clock was ahead (behind: less than 0) when it showed this moment, between two of ours."""
    at = _wall(moment)
    if at is None:
        return None
    ahead_s = max(0.0, at - to_wall) or min(0.0, at - from_wall)
    return ahead_s if abs(ahead_s) > SKEW_S_MAX else None


def _of_moments(ward: Ward) -> Iterator[Finding]:
    submitted = [at for job in ward.jobs if (at := _wall(job.submitted or "")) is not None]
    ahead_s = max(submitted, default=0.0) - ward.at_wall
    if ahead_s > SKEW_S_MAX:
        yield _skewed("a node", ahead_s)


def _skewed(about: str, ahead_s: float) -> Finding:
    text = f"its clock is {clock(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    advice = "run NTP on both; jobs are not harmed, but times that are shown and retention differ"
    return Finding(WARNING, "clock", about, text, advice)


def _wall(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def _number(stats: Mapping[str, str], name: str) -> float:
    try:
        return float(stats.get(name, "0"))
    except ValueError:
        return 0.0
