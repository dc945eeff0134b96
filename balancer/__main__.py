"""`balancer [PORT]`: the command line of the balancer.

What not every answer needs is imported in the function that needs it: see `common/runtime/command_line.py`.
"""

import argparse
import os
import sys

from common.runtime.command_line import CommandLine, is_well, tell_health, tell_problems


def main(arguments: list[str] | None = None) -> int:
    """Runs the balancer, or answers about one; returns the exit status."""
    line = CommandLine(
        "balancer", "The central balancer of a Jobyard cluster: keeps every job's record and gives the jobs to nodes."
    )
    line.add_argument("port", nargs="?", type=int, metavar="PORT", help="replaces the port in JOBYARD_LISTEN")
    given = line.parse_args(arguments)
    if given.health and is_well("balancer"):
        return 0
    return _look(given) if given.check or given.copy else _start(given)


def _look(given: argparse.Namespace) -> int:
    from balancer.inspection import balancer_rules
    from common.runtime.checking import look_at_directory

    return look_at_directory(given, "balancer", balancer_rules())


def _start(given: argparse.Namespace) -> int:
    from common.settings import SettingsError, load_balancer

    try:
        settings = load_balancer(os.environ, given.port)
    except SettingsError as error:
        return tell_problems(error.problems)
    if given.health:
        return tell_health(settings.data_dir)
    from balancer.app import start

    return start(settings)


if __name__ == "__main__":
    sys.exit(main())
