"""`balancer [PORT]`: the command line of the balancer."""

import argparse
import os
import sys
from functools import partial

from balancer.app import run
from balancer.inspection import balancer_rules
from common import __version__
from common.runtime import logs
from common.runtime.checking import add_directory_words, look_at_directory
from common.runtime.program import run_program, tell_health, tell_problems
from common.settings import BalancerSettings, SettingsError, help_table, load_balancer


def main(arguments: list[str] | None = None) -> int:
    """Runs the balancer; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="jobyard-balancer",
        description="The central balancer of a Jobyard cluster: keeps every job's record and gives the jobs to nodes.",
        epilog=help_table(BalancerSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("port", nargs="?", type=int, metavar="PORT", help="replaces the port in JOBYARD_LISTEN")
    parser.add_argument("--health", action="store_true", help="say whether the balancer of this directory is well")
    add_directory_words(parser)
    parser.add_argument("--version", action="version", version=f"jobyard-balancer {__version__}")
    given = parser.parse_args(arguments)
    if given.check or given.copy:
        return look_at_directory(given, "balancer", balancer_rules())
    try:
        settings = load_balancer(os.environ, given.port)
    except SettingsError as error:
        return tell_problems(error)
    if given.health:
        return tell_health(settings.data_dir)
    logs.configure(settings.log_format, settings.log_level, program="balancer")
    return run_program(partial(run, settings))


if __name__ == "__main__":
    sys.exit(main())
