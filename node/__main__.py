"""`node BALANCER_HOST BALANCER_PORT`: the command line of a node.

What not every answer needs is imported in the function that needs it: see `common/runtime/command_line.py`.
"""

import argparse
import os
import sys

from common.runtime.command_line import CommandLine, is_well, tell_health, tell_problems


def main(arguments: list[str] | None = None) -> int:
    """Runs a node, or answers about one; returns the exit status."""
    line = CommandLine("node", "A node of a Jobyard cluster: takes jobs in from clients and runs the jobs it is given.")
    line.add_argument("host", nargs="?", default="127.0.0.1", metavar="BALANCER_HOST")
    line.add_argument("port", nargs="?", type=int, default=8080, metavar="BALANCER_PORT")
    given = line.parse_args(arguments)
    if given.health and is_well("node"):
        return 0
    return _look(given) if given.check or given.copy else _start(given)


def _look(given: argparse.Namespace) -> int:
    from common.runtime.checking import look_at_directory
    from node.inspection import NODE

    return look_at_directory(given, "node", NODE)


def _start(given: argparse.Namespace) -> int:
    from common.settings import SettingsError, load_node

    try:
        settings = load_node(os.environ, given.host, given.port)
    except SettingsError as error:
        return tell_problems(error.problems)
    if given.health:
        return tell_health(settings.data_dir)
    from node.app import start

    return start(settings)


if __name__ == "__main__":
    sys.exit(main())
