"""`node BALANCER_HOST BALANCER_PORT`: the command line of a node."""

import argparse
import os
import sys
from functools import partial

from common import __version__
from common.runtime import logs
from common.runtime.checking import add_directory_words, look_at_directory
from common.runtime.program import run_program, tell_health, tell_problems
from common.settings import NodeSettings, SettingsError, help_table, load_node
from node.app import run
from node.inspection import NODE


def main(arguments: list[str] | None = None) -> int:
    """Runs a node; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="jobyard-node",
        description="A node of a Jobyard cluster: takes jobs in from clients and runs the jobs it is given.",
        epilog=help_table(NodeSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("host", nargs="?", default="127.0.0.1", metavar="BALANCER_HOST")
    parser.add_argument("port", nargs="?", type=int, default=8080, metavar="BALANCER_PORT")
    parser.add_argument("--health", action="store_true", help="say whether the node of this directory is well")
    add_directory_words(parser)
    parser.add_argument("--version", action="version", version=f"jobyard-node {__version__}")
    given = parser.parse_args(arguments)
    if given.check or given.copy:
        return look_at_directory(given, "node", NODE)
    try:
        settings = load_node(os.environ, given.host, given.port)
    except SettingsError as error:
        return tell_problems(error)
    if given.health:
        return tell_health(settings.data_dir)
    logs.configure(settings.log_format, settings.log_level, program="node", node=settings.node_name)
    return run_program(partial(run, settings))


if __name__ == "__main__":
    sys.exit(main())
