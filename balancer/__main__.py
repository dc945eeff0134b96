"""`balancer [PORT]`: the command line of the balancer."""

import argparse
import os
import sys
from functools import partial

from balancer.app import run
from common import __version__
from common.runtime import logs
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
    parser.add_argument("--version", action="version", version=f"jobyard-balancer {__version__}")
    given = parser.parse_args(arguments)
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
