"""The settings of both programs: every name that an operator can set, its default, its unit and what it means.

Rules
- Each setting is one field, and the field is all there is to add: help, start-up log line, the check of names and
  the messages are made from it. Values are in base units, which the field's name ends with.
- Every problem is told at once, one line each, naming the variable, its value and what is allowed. Nothing that
  looks like ours is ignored (`common/environment.py`).
- Secrets never appear in a message or a log.
- Safe by default: who listens beyond loopback has a secret, or a waiver in plain words.

Pure apart from the files of secrets and certificates that it is told to read, and from the defaults that describe this
machine.
"""

import os
import platform
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from common import certificates, directories, environment, values
from common.certificates import TlsSettings
from common.environment import setting, settings_of
from common.errors import shown
from common.kind_names import KINDS
from common.limits import BODY_BYTES_MAX, GIB, MIB, PYTHON_OUTPUT_BYTES_MAX
from common.placements import PLACEMENTS

KEY_CHARACTERS_MIN: Final = 16  # 64 bits even of plain hexadecimal digits
NODE_TIMEOUT_S_MIN: Final = 0.1  # below it, a node that is only busy would be presumed gone
STORE_BYTES_MIN: Final = 1 * MIB
FILES_LEAST: Final = 8  # with fewer hardly a program can start
LIMIT_COUNT_MAX: Final = 1_000_000  # of files and of processes; more than a kernel gives
LIMIT_BYTES_MAX: Final = 1024 * 1024 * GIB
STORE_BYTES_MAX: Final = 16 * 1024 * GIB  # an address space has 128 TiB, and other things live there

# Names of clients, jobs and tests: no settings of the two programs, yet rightly in an environment.
NAMES_OF_OTHERS: Final = frozenset(
    f"JOBYARD_{name}"
    for name in ("URL", "TICKET", "ATTEMPT", "NODE", "INDEX", "BOOT", "OWNER", "SCRATCH", "TEST_DOCKER", "SOAK")
)


class SettingsError(Exception):
    """The environment is bad; a line for each problem, made for people."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


def _path(text: str) -> Path:
    return Path(values.text(text))


@attrs.frozen(kw_only=True)
class CommonSettings(TlsSettings):
    """What both programs can be told. Where they listen by default differs, so each says it below."""

    listen: tuple[str, int]
    http_listen: tuple[str, int] | None
    data_dir: Path
    store_max_bytes: int = setting(
        "JOBYARD_STORE_MAX",
        values.size_bytes(STORE_BYTES_MIN, STORE_BYTES_MAX),
        "16GiB",
        "room for the store; from 60 % on ended jobs expire early, from 75 % on SUBMIT gets FULL",
        unit="bytes",
    )
    retention_s: float = setting(
        "JOBYARD_RETENTION", values.duration_s(least_s=0.001), "24h", "how long ended jobs can be read", unit="ms"
    )
    node_timeout_s: float = setting(
        "JOBYARD_NODE_TIMEOUT",
        values.duration_s(least_s=NODE_TIMEOUT_S_MIN),
        "15000",
        "a node unheard for longer is presumed gone",
        unit="ms",
    )
    cluster_key: bytes | None = setting(
        "JOBYARD_CLUSTER_KEY",
        values.key(KEY_CHARACTERS_MIN),
        "none",
        "shared secret of the balancer and its nodes; or the path of a file that holds it",
        secret=True,
        make=lambda: None,
    )
    client_token: str | None = setting(
        "JOBYARD_CLIENT_TOKEN",
        values.word,
        "none",
        "what clients must send: to a node with AUTH, over HTTP as bearer token; or the path of a file that holds it",
        secret=True,
        make=lambda: None,
    )
    insecure: str = setting(
        "JOBYARD_INSECURE",
        values.one_of("", "client", "all"),
        "",
        "listen beyond loopback all the same: client waives the client token, all waives token and cluster key",
    )
    log_format: str | None = setting(
        "JOBYARD_LOG_FORMAT",
        values.one_of("text", "json"),
        "text on a terminal, else json",
        "how log lines look; they go to standard error",
        make=lambda: None,
    )
    log_level: str = setting(
        "JOBYARD_LOG_LEVEL",
        values.one_of("debug", "info", "warning", "error"),
        "info",
        "the least important log lines that are written",
    )


_LISTEN_HELP: Final = "where it listens, host:port; port 0 takes a free one"
_HTTP_HELP: Final = "metrics, health and JSON API over HTTP, host:port, or off"
_DATA_HELP: Final = "the directory of the store"


@attrs.frozen(kw_only=True)
class BalancerSettings(CommonSettings):
    listen: tuple[str, int] = setting("JOBYARD_LISTEN", values.address, "127.0.0.1:8080", _LISTEN_HELP)
    http_listen: tuple[str, int] | None = setting(
        "JOBYARD_HTTP_LISTEN", values.or_off(values.address), "127.0.0.1:8081", _HTTP_HELP
    )
    data_dir: Path = setting(  # noqa: RUF009 (a Path is as immutable as a str)
        directories.VARIABLE, _path, directories.DEFAULTS["balancer"], _DATA_HELP
    )
    dispatch_period_s: float = setting(
        "DISPATCH_PERIOD JOBYARD_DISPATCH_PERIOD",
        values.duration_s(least_s=0.001),
        "5000",
        "longest time between two dispatch rounds",
        unit="ms",
    )
    jobs_per_round_max: int = setting(
        "MAX_NUM_JOBS_DISPATCH JOBYARD_MAX_NUM_JOBS_DISPATCH",
        values.integer(1, 1_000_000),
        "30",
        "most jobs handed out in one round",
        unit="jobs",
    )
    result_period_s: float = setting(
        "REQUEST_RESULT_PERIOD JOBYARD_REQUEST_RESULT_PERIOD",
        values.duration_s(least_s=0.001),
        "3000",
        "longest time between two RES_REQ exchanges with a node",
        unit="ms",
    )
    nodes_max: int = setting(
        "MAX_NUM_NODES JOBYARD_MAX_NUM_NODES",
        values.integer(1, 10_000),
        "10",
        "nodes connected at once; one more is refused",
        unit="nodes",
    )
    dispatch_mode: str = setting(
        "JOBYARD_DISPATCH_MODE",
        values.one_of("eager", "periodic"),
        "eager",
        "eager: rounds and results do not wait for their timers when there is something to do; "
        "periodic: strictly on the timers",
    )
    info_period_s: float = setting(
        "JOBYARD_INFO_PERIOD",
        values.duration_s(least_s=0.001),
        "1000",
        "how often the nodes are asked for their counts",
        unit="ms",
    )
    placement: str = setting(
        "JOBYARD_PLACEMENT",
        values.one_of(*PLACEMENTS),
        "level",
        "who gets the next job; level: the counts of the nodes stay as equal as possible; the others give jobs to "
        "free slots: random, round-robin, least-loaded (the most free slots), shortest-wait (it begins the soonest)",
    )
    backlog_max: int = setting(
        "JOBYARD_BACKLOG_MAX",
        values.integer(0, 1_000_000),
        "1000",
        "most jobs waiting on one node; the rest stays at the balancer",
        unit="jobs",
    )


@attrs.frozen(kw_only=True)
class NodeSettings(CommonSettings):
    balancer: tuple[str, int] = ("127.0.0.1", 8080)  # from the command line, so no variable sets it
    listen: tuple[str, int] = setting("JOBYARD_LISTEN", values.address, "127.0.0.1:9000", _LISTEN_HELP)
    http_listen: tuple[str, int] | None = setting(
        "JOBYARD_HTTP_LISTEN", values.or_off(values.address), values.OFF, _HTTP_HELP
    )
    data_dir: Path = setting(  # noqa: RUF009 (a Path is as immutable as a str)
        directories.VARIABLE,
        _path,
        directories.DEFAULTS["node"],
        f"{_DATA_HELP}; DIRECTORY/* takes the first directory in it that no other node uses",
    )
    local_fallback_s: float | None = setting(
        "JOBYARD_LOCAL_FALLBACK",
        values.or_off(values.duration_s()),
        "10000",
        "without a balancer for that long, a node with room runs jobs that it has never sent; or off",
        unit="ms",
    )
    node_name: str = setting("JOBYARD_NODE_NAME", values.word, "host name", "shown to people", make=platform.node)
    slots: int = setting(
        "JOBYARD_SLOTS",
        values.integer(0, 10_000),
        "number of CPUs",
        "attempts run at once; 0 takes jobs in and runs none",
        unit="slots",
        make=lambda: os.cpu_count() or 1,
    )
    kinds: frozenset[str] = setting(
        "JOBYARD_JOB_KINDS",
        values.some_of(*KINDS),
        ",".join(KINDS),
        "what clients may submit here and what this node runs",
    )
    python: str = setting(
        "JOBYARD_PYTHON",
        values.text,
        "the node's own",
        "the interpreter that runs jobs of the kinds py and call",
        make=lambda: sys.executable,
    )
    pythonpath: str = setting(
        "JOBYARD_PYTHONPATH", str, "", "directories, separated by colons, where py jobs find their modules"
    )
    body_bytes_max: int = setting(
        "JOBYARD_BODY_MAX",
        values.size_bytes(0, BODY_BYTES_MAX),
        "64MiB",
        "largest standard input of a job",
        unit="bytes",
    )
    output_bytes_max: int = setting(
        "JOBYARD_OUTPUT_MAX",
        values.size_bytes(0, PYTHON_OUTPUT_BYTES_MAX),
        "1MiB",
        "what is kept of a command's standard output, and of its standard error; the rest is cut",
        unit="bytes",
    )
    printed_bytes_max: int | None = setting(
        "JOBYARD_PRINTED_MAX",
        values.or_off(values.size_bytes(0, LIMIT_BYTES_MAX)),
        "1GiB",
        "what one attempt may print in all, kept or not, or off; one that prints more is ended",
        unit="bytes",
    )
    cpu_s_max: float | None = setting(
        "JOBYARD_CPU_MAX",
        values.or_off(values.duration_s(least_s=0.001)),
        values.OFF,
        "processor time of one attempt with all of its processes, or off; one that uses more is ended",
        unit="ms",
    )
    memory_bytes_max: int | None = setting(
        "JOBYARD_MEMORY_MAX",
        values.or_off(values.size_bytes(MIB, LIMIT_BYTES_MAX)),
        values.OFF,
        "resident memory of one attempt with all of its processes, or off; one that uses more is ended",
        unit="bytes",
    )
    processes_max: int | None = setting(
        "JOBYARD_PROCESSES_MAX",
        values.or_off(values.integer(1, LIMIT_COUNT_MAX)),
        "512",
        "processes that one attempt may have at once, or off; one that has more is ended",
        unit="processes",
    )
    files_max: int | None = setting(
        "JOBYARD_FILES_MAX",
        values.or_off(values.integer(FILES_LEAST, LIMIT_COUNT_MAX)),
        "1024",
        "files that one process of a job may have open, or off; more are refused to it",
        unit="files",
    )
    timeout_s_max: float | None = setting(
        "JOBYARD_TIMEOUT_MAX",
        values.or_off(values.duration_s(least_s=0.001)),
        values.OFF,
        "how long one attempt may run, or off; one that runs longer is killed, and fails with timeout",
        unit="ms",
    )
    connections_max: int = setting(
        "JOBYARD_CONNECTIONS_MAX", values.integer(1, 100_000), "1024", "clients connected at once", unit="connections"
    )
    drain_grace_s: float = setting(
        "JOBYARD_DRAIN_GRACE",
        values.duration_s(),
        "10000",
        "how long a node that is told to stop waits for what runs",
        unit="ms",
    )


S = TypeVar("S", bound=CommonSettings)

PROGRAMS: Final[dict[str, type[CommonSettings]]] = {"balancer": BalancerSettings, "node": NodeSettings}
KNOWN_NAMES: Final = NAMES_OF_OTHERS.union(
    *(told.variables for cls in PROGRAMS.values() for told in settings_of(cls).values())
)

# --- from the environment --------------------------------------------------------------------------------------


def load_balancer(environ: Mapping[str, str], port: int | None = None) -> BalancerSettings:
    """The balancer's settings; `port` replaces the one in JOBYARD_LISTEN. Raises SettingsError."""
    settings, problems = _read(BalancerSettings, environ)
    if port is not None:
        problems += _port_problems("PORT", port, 0)
        settings = attrs.evolve(settings, listen=(settings.listen[0], port))
    link, http = _addresses(settings)
    problems += _exposure(settings, environ, [link], secret="cluster_key", waivers=("all",))
    problems += _exposure(settings, environ, [http], secret="client_token", waivers=("client", "all"))
    problems += certificates.problems(settings, dials=False)
    return _sound(settings, problems)


def load_node(environ: Mapping[str, str], balancer_host: str, balancer_port: int) -> NodeSettings:
    """The settings of a node that dials this balancer. Raises SettingsError."""
    settings, problems = _read(NodeSettings, environ)
    if balancer_host.split() != [balancer_host]:
        problems.append(f"BALANCER_HOST={shown(balancer_host)}: allowed is a host name or an address")
    problems += _port_problems("BALANCER_PORT", balancer_port, 1)
    problems += _exposure(settings, environ, _addresses(settings), secret="client_token", waivers=("client", "all"))
    problems += certificates.problems(settings, dials=True)
    return _sound(attrs.evolve(settings, balancer=(balancer_host.strip("[]"), balancer_port)), problems)


def _read(cls: type[S], environ: Mapping[str, str]) -> tuple[S, list[str]]:
    settings, problems = environment.read(cls, environ)
    return settings, [*environment.unknown_names(environ, KNOWN_NAMES), *problems]


def _sound(settings: S, problems: list[str]) -> S:
    if problems:
        raise SettingsError(tuple(problems))
    return settings


def _port_problems(name: str, port: int, least: int) -> list[str]:
    if least <= port <= values.PORT_MAX:
        return []
    return [f"{name}={port}: allowed is a whole number from {least} to {values.PORT_MAX}"]


def _addresses(settings: CommonSettings) -> list[tuple[str, tuple[str, int] | None]]:
    return [("JOBYARD_LISTEN", settings.listen), ("JOBYARD_HTTP_LISTEN", settings.http_listen)]


def _exposure(
    settings: CommonSettings,
    environ: Mapping[str, str],
    addresses: list[tuple[str, tuple[str, int] | None]],
    *,
    secret: str,
    waivers: tuple[str, ...],
) -> Iterator[str]:
    """Who can be reached from other machines has a secret, or was told in plain words that it needs none."""
    told = settings_of(type(settings))[secret]
    if settings.insecure in waivers or any(name in environ for name in told.variables):
        return  # a secret that is set but bad has its own line
    for name, address in addresses:
        if address is not None and not values.is_loopback(address[0]):
            yield (
                f"{name}={shown(values.format_address(address))}: other machines can reach it, and {told.names[0]} is "
                f"not set; set it or {told.file_name}, or listen on 127.0.0.1, or accept the risk with "
                f"JOBYARD_INSECURE={waivers[0]}"
            )


# --- for people ------------------------------------------------------------------------------------------------


def describe(settings: CommonSettings) -> dict[str, object]:
    """The settings in force, for the log line at the start: plain values by field, secrets masked."""
    return {
        field: _plain(getattr(settings, field), secret=told.secret)
        for field, told in settings_of(type(settings)).items()
    }


def _plain(value: Any, *, secret: bool) -> object:
    match value:
        case None:
            return None
        case _ if secret:
            return "(hidden)"
        case (str(), int()):
            return values.format_address(value)
        case frozenset():
            return ",".join(sorted(value))
        case Path():
            return str(value)
        case _:
            return value


def help_table(cls: type[CommonSettings]) -> str:
    """The end of --help: each setting with its default, its unit and its meaning."""
    lines = ["settings, from the environment (durations like 1h30m, sizes like 512MiB):"]
    for told in settings_of(cls).values():
        unit = f"; unit {told.unit}" if told.unit else ""
        lines.append(f"  {', '.join(told.variables)} (default {told.default or 'empty'}{unit})")
        lines += textwrap.wrap(told.help, width=78, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
