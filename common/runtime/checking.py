"""`--check DIR` and `--copy DIR TARGET`: looking at a data directory without changing it, and copying it whole.

Exit statuses of a check: 0 sound, 1 problems, 2 no directory of ours, or none that can be opened; of a copy 0 and 2.

What is read may be damaged in its very pages, and LMDB trusts those: a reader can be killed by what it reads. So a
check is made in a child process, and its death is a finding like any other.
"""

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from common.effects import Table
from common.inspection import Count, Finding, Rules, inspect
from common.limits import KIB, MIB
from common.migrations import FORMAT
from common.runtime.owning import Damaged, StoreError
from common.runtime.stored import Snapshot
from common.runtime.tables import copy_to, snapshot_of

SOUND: Final = 0
PROBLEMS: Final = 1
NOT_OURS: Final = 2
FINDINGS_SHOWN_MAX: Final = 1000


def look_at_directory(given: argparse.Namespace, program: str, rules: Rules) -> int:
    """Does what these words ask for; returns the exit status."""
    return check(given.check, program, rules) if given.check else copy(*given.copy)


def check(directory: Path, program: str, rules: Rules) -> int:
    """Inspects a directory of this program (`node` or `balancer`), tells on standard output what it found, and
    returns the exit status."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = NOT_OURS
        try:
            status = _check(directory, program, rules)
            sys.stdout.flush()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        name = signal.Signals(os.WTERMSIG(ended)).name
        print(f"{directory}: reading it ended with {name}: its pages are damaged. NOT SOUND")
        return PROBLEMS
    return os.WEXITSTATUS(ended)


def copy(directory: Path, target: Path) -> int:
    """Copies a directory, which may be in use, and says so; returns the exit status."""
    try:
        copy_to(directory, target)
    except StoreError as error:
        print(error, file=sys.stderr)
        return NOT_OURS
    print(f"{target}: a whole copy of {directory} as it was at this moment")
    return 0


def _check(directory: Path, program: str, rules: Rules) -> int:
    try:
        with snapshot_of(directory) as snapshot:
            return _inspect(directory, snapshot, program, rules)
    except Damaged as error:
        print(f"{error}. NOT SOUND")
        return PROBLEMS
    except StoreError as error:
        print(error, file=sys.stderr)
        return NOT_OURS


def _inspect(directory: Path, snapshot: Snapshot, program: str, rules: Rules) -> int:
    owner = owner_of(snapshot)
    if owner not in (None, program):
        print(f"{directory} is the directory of a {owner}: jobyard-{owner} --check {directory}", file=sys.stderr)
        return NOT_OURS
    older = "" if snapshot.format == FORMAT else f" (brought up to {FORMAT} when it is next started)"
    in_use = "; in use, and shown as it was at this moment" if snapshot.in_use else ""
    print(f"{directory}: {program if owner else 'nobody yet'}, format {snapshot.format}{older}{in_use}")
    counts: dict[str, Count] = {}
    findings: list[Finding] = []
    problems = remarks = 0
    for found in inspect(snapshot, rules):
        if isinstance(found, Finding):
            problems, remarks = problems + found.is_problem, remarks + (not found.is_problem)
            if len(findings) < FINDINGS_SHOWN_MAX:
                findings.append(found)
        else:
            counts[found[0]] = found[1]
    _tell_counts(counts)
    _tell_findings(findings, problems, remarks)
    return PROBLEMS if problems else SOUND


def owner_of(snapshot: Snapshot) -> str | None:
    """Which program a directory belongs to; None where none has used it yet. Only nodes issue tickets."""
    if snapshot.holds(Table.META, b"prefix"):
        return "node"
    begun = snapshot.holds(Table.META, b"tag") or snapshot.holds(Table.META, b"last_end")
    return "balancer" if begun else None


def _tell_counts(counts: Mapping[str, Count]) -> None:
    print(f"  {'table':<16}{'records':>12}{'values':>12}")
    for table, count in counts.items():
        if count.records:
            print(f"  {table:<16}{count.records:>12,}{_size(count.value_bytes):>12}")


def _size(size_bytes: int) -> str:
    if size_bytes < 10 * KIB:
        return f"{size_bytes} B"
    return f"{size_bytes // KIB} KiB" if size_bytes < 10 * MIB else f"{size_bytes // MIB} MiB"


def _tell_findings(findings: list[Finding], problems: int, remarks: int) -> None:
    for found in sorted(findings, key=lambda found: not found.is_problem):
        place = f"{found.table} {found.where}".rstrip()
        print(f"{'PROBLEM' if found.is_problem else 'remark'} {place}: {found.what}")
    if problems + remarks > len(findings):
        print(f"… and {problems + remarks - len(findings)} more")
    told = f"{problems} problem{'s' * (problems != 1)}, {remarks} remark{'s' * (remarks != 1)}"
    print(f"NOT SOUND: {told}" if problems else f"sound: {told}")
