"""The settings of both programs: every name that an operator can set, its default, its unit and what it means.

Rules
- Each setting is one field, and the field is all there is to add: help, start-up log line, the check of names and
  the messages are made from it. Values are in base units, which the field's name ends with.
- Every problem is told at once, one line each. Nothing is ignored: a name that starts with JOBYARD_ and that no
  Jobyard program knows is a problem, and so is an empty value.
- Secrets never appear in a message or a log.
- Safe by default: who listens beyond loopback has a secret, or a waiver in plain words.

Pure apart from the files of secrets that it is told to read, and from the defaults that describe this machine.
"""

import difflib
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from common import values
from common.errors import shown
from common.limits import BODY_BYTES_MAX, GIB, MIB, PYTHON_OUTPUT_BYTES_MAX
from common.model import KINDS

PREFIX: Final = "JOBYARD_"
KEY_CHARACTERS_LEAST: Final = 16  # 64 bits even of plain hexadecimal digits
SECRET_FILE_BYTES_MAX: Final = 4096  # a longer one is no secret but a mistaken path
NODE_TIMEOUT_S_LEAST: Final = 0.1  # below it, a node that is only busy would be presumed gone
STORE_BYTES_LEAST: Final = 1 * MIB
STORE_BYTES_MOST: Final = 16 * 1024 * GIB  # address space is 128 TiB, and other things live there

# Names that are no settings of the two programs, yet rightly stand in an environment.
_NAMES_OF_OTHERS: Final = frozenset(
    PREFIX + name
    for name in ("URL", "TICKET", "ATTEMPT", "NODE", "INDEX", "BOOT", "OWNER", "TEST_DOCKER")  # client, jobs, tests
)
_TLS_NAMES: Final = (f"{PREFIX}TLS_CERT", f"{PREFIX}TLS_KEY", f"{PREFIX}TLS_CA")


class SettingsError(Exception):
    """The environment is bad; a line for each problem, made for people."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


@attrs.frozen
class Setting:
    """What a field says of itself: where its text comes from, how it is read, and what people are told of it."""

    names: tuple[str, ...]  # of the variables, any of which will do; messages use the first
    default: str
    unit: str  # of a plain number; empty where there is none
    help: str
    read: values.Reader[Any]
    secret: bool

    @property
    def file_name(self) -> str:
        """The variable that holds the path of a file with the secret."""
        return f"{self.names[0]}_FILE"

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.names, self.file_name) if self.secret else self.names


def _setting(
    names: str,
    read: values.Reader[Any],
    default: str,
    help: str,
    *,
    unit: str = "",
    secret: bool = False,
    make: Callable[[], object] | None = None,
) -> Any:
    """A field whose default is what `default` reads as; or, where that is only a description, what `make` makes."""
    told = Setting(tuple(names.split()), default, unit, help, read, secret)
    value = attrs.Factory(make) if make else read(default)
    return attrs.field(default=value, metadata={Setting: told}, repr=not secret)


def _none() -> None:
    return None


@attrs.frozen(kw_only=True)
class CommonSettings:
    """What both programs can be told. Where they listen by default differs, so each says it below."""

    listen: values.Address
    http_listen: values.Address | None
    data_dir: Path
    store_max_bytes: int = _setting(
        "JOBYARD_STORE_MAX",
        values.size_bytes(STORE_BYTES_LEAST, STORE_BYTES_MOST),
        "16GiB",
        "room for the store; from 60 % on ended jobs expire early, from 75 % on SUBMIT gets FULL",
        unit="bytes",
    )
    retention_s: float = _setting(
        "JOBYARD_RETENTION",
        values.duration_s(least_s=0.001),
        "24h",
        "how long ended jobs can be read",
        unit="ms",
    )
    node_timeout_s: float = _setting(
        "JOBYARD_NODE_TIMEOUT",
        values.duration_s(least_s=NODE_TIMEOUT_S_LEAST),
        "15000",
        "a node unheard for longer is presumed gone",
        unit="ms",
    )
    cluster_key: bytes | None = _setting(
        "JOBYARD_CLUSTER_KEY",
        values.key(KEY_CHARACTERS_LEAST),
        "none",
        "shared secret of the balancer and its nodes; or the path of a file that holds it",
        secret=True,
        make=_none,
    )
    insecure: str = _setting(
        "JOBYARD_INSECURE",
        values.one_of("", "client", "all"),
        "",
        "listen beyond loopback all the same: client waives the client token, all waives token and cluster key",
    )
    log_format: str | None = _setting(
        "JOBYARD_LOG_FORMAT",
        values.one_of("text", "json"),
        "text on a terminal, else json",
        "how log lines look; they go to standard error",
        make=_none,
    )
    log_level: str = _setting(
        "JOBYARD_LOG_LEVEL",
        values.one_of("debug", "info", "warning", "error"),
        "info",
        "the least important log lines that are written",
    )


_LISTEN_HELP: Final = "where it listens, host:port; port 0 takes a free one"
_HTTP_HELP: Final = "metrics, health and dashboard, host:port; or off"
_DATA_HELP: Final = "the directory of the store"


@attrs.frozen(kw_only=True)
class BalancerSettings(CommonSettings):
    listen: values.Address = _setting("JOBYARD_LISTEN", values.address, "127.0.0.1:8080", _LISTEN_HELP)
    http_listen: values.Address | None = _setting(
        "JOBYARD_HTTP_LISTEN", values.or_off(values.address), "127.0.0.1:8081", _HTTP_HELP
    )
    data_dir: Path = _setting("JOBYARD_DATA_DIR", lambda text: Path(values.text(text)), "./data/balancer", _DATA_HELP)
    dispatch_period_s: float = _setting(
        "DISPATCH_PERIOD JOBYARD_DISPATCH_PERIOD",
        values.duration_s(least_s=0.001),
        "5000",
        "longest time between two dispatch rounds",
        unit="ms",
    )
    jobs_per_round_max: int = _setting(
        "MAX_NUM_JOBS_DISPATCH JOBYARD_MAX_NUM_JOBS_DISPATCH",
        values.integer(1, 1_000_000),
        "30",
        "most jobs handed out in one round",
        unit="jobs",
    )
    result_period_s: float = _setting(
        "REQUEST_RESULT_PERIOD JOBYARD_REQUEST_RESULT_PERIOD",
        values.duration_s(least_s=0.001),
        "3000",
        "longest time between two RES_REQ exchanges with a node",
        unit="ms",
    )
    nodes_max: int = _setting(
        "MAX_NUM_NODES JOBYARD_MAX_NUM_NODES",
        values.integer(1, 10_000),
        "10",
        "nodes connected at once; one more is refused",
        unit="nodes",
    )
    dispatch_mode: str = _setting(
        "JOBYARD_DISPATCH_MODE",
        values.one_of("eager", "periodic"),
        "eager",
        "eager: rounds and results do not wait for their timers when there is something to do; "
        "periodic: strictly on the timers",
    )
    info_period_s: float = _setting(
        "JOBYARD_INFO_PERIOD",
        values.duration_s(least_s=0.001),
        "1000",
        "how often the nodes are asked for their counts",
        unit="ms",
    )
    placement: str = _setting(
        "JOBYARD_PLACEMENT",
        values.one_of("level"),
        "level",
        "placement policy; level: the counts of the nodes stay as equal as possible",
    )
    backlog_max: int = _setting(
        "JOBYARD_BACKLOG_MAX",
        values.integer(0, 1_000_000),
        "1000",
        "most jobs waiting on one node; the rest stays at the balancer",
        unit="jobs",
    )


@attrs.frozen(kw_only=True)
class NodeSettings(CommonSettings):
    balancer: values.Address = ("127.0.0.1", 8080)  # from the command line, so no variable sets it
    listen: values.Address = _setting("JOBYARD_LISTEN", values.address, "127.0.0.1:9000", _LISTEN_HELP)
    http_listen: values.Address | None = _setting(
        "JOBYARD_HTTP_LISTEN", values.or_off(values.address), values.OFF, _HTTP_HELP
    )
    data_dir: Path = _setting(
        "JOBYARD_DATA_DIR",
        lambda text: Path(values.text(text)),
        "./data/node",
        f"{_DATA_HELP}; DIRECTORY/* takes the first directory in it that no other node uses",
    )
    local_fallback_s: float | None = _setting(
        "JOBYARD_LOCAL_FALLBACK",
        values.or_off(values.duration_s()),
        "10000",
        "without a balancer for that long, a node with room runs its own clients' jobs; or off",
        unit="ms",
    )
    node_name: str = _setting("JOBYARD_NODE_NAME", values.word, "host name", "shown to people", make=platform.node)
    slots: int = _setting(
        "JOBYARD_SLOTS",
        values.integer(0, 10_000),
        "number of CPUs",
        "attempts run at once; 0 takes jobs in and runs none",
        unit="slots",
        make=lambda: os.cpu_count() or 1,
    )
    kinds: frozenset[str] = _setting(
        "JOBYARD_JOB_KINDS",
        values.some_of(*KINDS),
        ",".join(KINDS),
        "what clients may submit here and what this node runs",
    )
    python: str = _setting(
        "JOBYARD_PYTHON",
        values.text,
        "the node's own",
        "the interpreter that runs jobs of the kinds py and call",
        make=lambda: sys.executable,
    )
    pythonpath: str = _setting(
        "JOBYARD_PYTHONPATH", str, "", "directories, separated by colons, where py jobs find their modules"
    )
    body_bytes_max: int = _setting(
        "JOBYARD_BODY_MAX",
        values.size_bytes(0, BODY_BYTES_MAX),
        "64MiB",
        "largest standard input of a job",
        unit="bytes",
    )
    output_bytes_max: int = _setting(
        "JOBYARD_OUTPUT_MAX",
        values.size_bytes(0, PYTHON_OUTPUT_BYTES_MAX),
        "1MiB",
        "what is kept of a command's standard output, and of its standard error; the rest is cut",
        unit="bytes",
    )
    connections_max: int = _setting(
        "JOBYARD_CONNECTIONS_MAX",
        values.integer(1, 100_000),
        "1024",
        "clients connected at once",
        unit="connections",
    )
    drain_grace_s: float = _setting(
        "JOBYARD_DRAIN_GRACE",
        values.duration_s(),
        "10000",
        "how long a node that is told to stop waits for what runs",
        unit="ms",
    )
    client_token: str | None = _setting(
        "JOBYARD_CLIENT_TOKEN",
        values.word,
        "none",
        "what clients must send with AUTH; or the path of a file that holds it",
        secret=True,
        make=_none,
    )


S = TypeVar("S", bound=CommonSettings)

# --- from the environment --------------------------------------------------------------------------------------


def load_balancer(environ: Mapping[str, str], port: int | None = None) -> BalancerSettings:
    """The balancer's settings; `port` replaces the one in JOBYARD_LISTEN. Raises SettingsError."""
    settings, problems = _read(BalancerSettings, environ)
    if port is not None:
        problems += _port_problems("PORT", port, 0)
        settings = attrs.evolve(settings, listen=(settings.listen[0], port))
    problems += _exposure(settings, environ, secret="cluster_key", waivers=("all",))
    return _sound(settings, problems)


def load_node(environ: Mapping[str, str], balancer_host: str, balancer_port: int) -> NodeSettings:
    """The settings of a node that dials this balancer. Raises SettingsError."""
    settings, problems = _read(NodeSettings, environ)
    problems += _port_problems("BALANCER_PORT", balancer_port, 1)
    if not balancer_host or balancer_host.split() != [balancer_host]:
        problems.append(f"BALANCER_HOST={shown(balancer_host)}: allowed is a host name or an address")
    problems += _exposure(settings, environ, secret="client_token", waivers=("client", "all"))
    return _sound(attrs.evolve(settings, balancer=(balancer_host.strip("[]"), balancer_port)), problems)


def _sound(settings: S, problems: list[str]) -> S:
    if problems:
        raise SettingsError(tuple(problems))
    return settings


def _read(cls: type[S], environ: Mapping[str, str]) -> tuple[S, list[str]]:
    """The settings, with the default where a value is bad, and all problems of single variables."""
    problems = [*_name_problems(environ)]
    texts: dict[str, str] = {}
    for field, setting in _settings_of(cls).items():
        text = _secret_text(setting, environ, problems) if setting.secret else _text(setting, environ, problems)
        if text is not None:
            texts[field] = text
    try:
        return _converter.structure(texts, cls), problems
    except cattrs.ClassValidationError as group:
        bad = {note.name: str(error) for error, note in group.group_exceptions()[0]}
    problems += [_problem(cls, field, texts[field], why) for field, why in bad.items()]
    return _converter.structure({field: text for field, text in texts.items() if field not in bad}, cls), problems


def _problem(cls: type[CommonSettings], field: str, text: str, why: str) -> str:
    setting = _settings_of(cls)[field]
    return f"{setting.names[0]}{' (hidden)' if setting.secret else '=' + shown(text)}: {why}"


def _text(setting: Setting, environ: Mapping[str, str], problems: list[str]) -> str | None:
    given = {name: environ[name] for name in setting.names if name in environ}
    if len(set(given.values())) > 1:
        both = " and ".join(f"{name}={shown(text)}" for name, text in given.items())
        problems.append(f"{both}: allowed is one of these names, or the same value for both")
    return next(iter(given.values()), None)


def _secret_text(setting: Setting, environ: Mapping[str, str], problems: list[str]) -> str | None:
    text, path = environ.get(setting.names[0]), environ.get(setting.file_name)
    if path is None:
        return text
    if text is not None:
        problems.append(f"{setting.names[0]} (hidden) and {setting.file_name}={shown(path)}: allowed is one of the two")
        return None
    try:
        return _first_word_of(Path(path))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        problems.append(f"{setting.file_name}={shown(path)}: {why}; allowed is a readable file that holds the secret")
        return None


def _first_word_of(path: Path) -> str:
    with path.open("rb") as file:
        secret = file.read(SECRET_FILE_BYTES_MAX + 1)
    if len(secret) > SECRET_FILE_BYTES_MAX:
        raise ValueError(f"it is longer than {SECRET_FILE_BYTES_MAX} bytes")
    if not secret.strip():
        raise ValueError("it is empty")
    return os.fsdecode(secret.strip())  # the line feed that editors add is no part of the secret


def _name_problems(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        if name in _TLS_NAMES:
            yield f"{name}={shown(environ[name])}: TLS is not served by this version; allowed is to leave it unset"
        elif name.startswith(PREFIX) and name not in _KNOWN_NAMES:
            # Its value is not repeated: it may be a secret under a misspelt name.
            yield f"{shown(name)[1:-1]}: no Jobyard program knows this name; {_suggestion(name)}"


def _suggestion(name: str) -> str:
    tails = [known.removeprefix(PREFIX) for known in _KNOWN_NAMES if known.startswith(PREFIX)]
    close = difflib.get_close_matches(name.removeprefix(PREFIX), sorted(tails), n=1)
    return f"did you mean {PREFIX}{close[0]}?" if close else "--help lists the names that are allowed"


def _port_problems(name: str, port: int, least: int) -> list[str]:
    if least <= port <= values.PORT_MAX:
        return []
    return [f"{name}={port}: allowed is a whole number from {least} to {values.PORT_MAX}"]


def _exposure(
    settings: CommonSettings, environ: Mapping[str, str], *, secret: str, waivers: tuple[str, ...]
) -> list[str]:
    """Who can be reached from other machines asks for a secret, or was told in plain words that it need not."""
    told = _settings_of(type(settings))[secret]
    if settings.insecure in waivers or any(name in environ for name in told.variables):
        return []  # a secret that is set but bad has its own line
    return [
        f"{name}={shown(values.format_address(address))}: other machines can reach it, and {told.names[0]} is not set; "
        f"set that or {told.file_name}, or listen on 127.0.0.1, or accept the risk with JOBYARD_INSECURE={waivers[0]}"
        for name, address in (("JOBYARD_LISTEN", settings.listen), ("JOBYARD_HTTP_LISTEN", settings.http_listen))
        if address is not None and not values.is_loopback(address[0])
    ]


# --- for people ------------------------------------------------------------------------------------------------


def describe(settings: CommonSettings) -> dict[str, object]:
    """The settings in force, for the log line at the start: plain values by field, secrets masked."""
    return {
        field: _plain(getattr(settings, field), secret=setting.secret)
        for field, setting in _settings_of(type(settings)).items()
    }


def _plain(value: Any, *, secret: bool) -> object:
    match value:
        case None:
            return None
        case _ if secret:
            return "(hidden)"
        case (str() as host, int() as port):
            return values.format_address((host, port))
        case frozenset():
            return ",".join(sorted(value))
        case Path():
            return str(value)
        case _:
            return value


def help_table(cls: type[CommonSettings]) -> str:
    """The end of --help: each setting with its default, its unit and its meaning."""
    lines = ["settings, from the environment (durations: 250ms, 1.5s, 1h30m; sizes: 512MiB, 16GiB):"]
    for setting in _settings_of(cls).values():
        unit = f", unit {setting.unit}" if setting.unit else ""
        lines.append(f"  {', '.join(setting.variables)} (default {setting.default or 'empty'}{unit})")
        lines += textwrap.wrap(setting.help, width=78, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


# --- made from the fields --------------------------------------------------------------------------------------


def _settings_of(cls: type[CommonSettings]) -> dict[str, Setting]:
    return {field.name: field.metadata[Setting] for field in attrs.fields(cls) if Setting in field.metadata}


def _make_converter() -> cattrs.Converter:
    """Reads each field as its setting says, and gathers what goes wrong in all of them."""
    converter = cattrs.Converter(detailed_validation=True)

    def structure_fn(cls: type[CommonSettings]) -> Callable[[Mapping[str, Any], Any], CommonSettings]:
        settings = _settings_of(cls)
        overrides = {
            field.name: override(struct_hook=_hook(settings[field.name]))
            if field.name in settings
            else override(omit=True)
            for field in attrs.fields(cls)
        }
        return make_dict_structure_fn(cls, converter, **overrides)

    for cls in (BalancerSettings, NodeSettings):
        converter.register_structure_hook(cls, structure_fn(cls))
    return converter


def _hook(setting: Setting) -> Callable[[str, Any], Any]:
    return lambda text, _: setting.read(text)


_converter: Final = _make_converter()
_KNOWN_NAMES: Final = _NAMES_OF_OTHERS.union(
    _TLS_NAMES,
    *(setting.variables for cls in (BalancerSettings, NodeSettings) for setting in _settings_of(cls).values()),
)
