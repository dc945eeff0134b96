"""The settings of both programs: what they are by default, what is refused, and what is never shown."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from common.limits import GIB, MIB
from common.settings import (
    KEY_CHARACTERS_MIN,
    BalancerSettings,
    NodeSettings,
    SettingsError,
    describe,
    help_table,
    load_balancer,
    load_node,
)

SECRET = "correct-horse-battery"
COMMON_DEFAULTS: Mapping[str, object] = {
    "node_timeout_s": 15.0,
    "store_max_bytes": 16 * GIB,
    "retention_s": 86_400.0,
    "cluster_key": None,
    "client_token": None,
    "tls_cert": None,
    "tls_key": None,
    "tls_ca": None,
    "insecure": "",
    "log_format": None,
    "log_level": "info",
}
BALANCER_DEFAULTS: Mapping[str, object] = {
    **COMMON_DEFAULTS,
    "dispatch_period_s": 5.0,
    "jobs_per_round_max": 30,
    "result_period_s": 3.0,
    "nodes_max": 10,
    "dispatch_mode": "eager",
    "info_period_s": 1.0,
    "placement": "level",
    "backlog_max": 1000,
    "listen": ("127.0.0.1", 8080),
    "http_listen": ("127.0.0.1", 8081),
    "data_dir": Path("data/balancer"),
}
NODE_DEFAULTS: Mapping[str, object] = {
    **COMMON_DEFAULTS,
    "balancer": ("balancer", 8080),
    "local_fallback_s": 10.0,
    "listen": ("127.0.0.1", 9000),
    "http_listen": None,
    "data_dir": Path("data/node"),
    "node_name": platform.node(),
    "slots": os.cpu_count(),
    "kinds": frozenset({"sh", "exec", "argv", "py", "call", "sleep"}),
    "python": sys.executable,
    "pythonpath": "",
    "body_bytes_max": 64 * MIB,
    "output_bytes_max": 1 * MIB,
    "printed_bytes_max": GIB,
    "cpu_s_max": None,
    "memory_bytes_max": None,
    "processes_max": 512,
    "files_max": 1024,
    "timeout_s_max": None,
    "connections_max": 1024,
    "drain_grace_s": 10.0,
}


def node(**environ: str) -> NodeSettings:
    return load_node(environ, "balancer", 8080)


def balancer(**environ: str) -> BalancerSettings:
    return load_balancer(environ)


def problems_of_node(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as error:
        node(**environ)
    return error.value.problems


def problems_of_balancer(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as error:
        balancer(**environ)
    return error.value.problems


# --- what holds when nothing is said ---------------------------------------------------------------------------


def test_every_setting_of_the_balancer_has_its_documented_default() -> None:
    assert attrs.asdict(balancer(), recurse=False) == BALANCER_DEFAULTS


def test_every_setting_of_a_node_has_its_documented_default() -> None:
    assert attrs.asdict(node(), recurse=False) == NODE_DEFAULTS


def test_what_is_not_ours_is_none_of_our_business() -> None:
    assert node(HOME="/", LANG="C", MAX_JOBS="many") == node()


# --- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"), [("250", 0.25), ("250ms", 0.25), ("1.5s", 1.5), ("1h30m", 5400.0), ("1", 0.001)]
)
def test_a_plain_duration_is_milliseconds_and_suffixes_work(written: str, seconds: float) -> None:
    assert balancer(DISPATCH_PERIOD=written).dispatch_period_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "size"), [("16GiB", 16 * GIB), ("16 GiB", 16 * GIB), ("512MiB", 512 * MIB), ("1048576", MIB)]
)
def test_a_plain_size_is_bytes_and_binary_units_work(written: str, size: int) -> None:
    assert node(JOBYARD_STORE_MAX=written).store_max_bytes == size


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9000", ("::1", 9000)),
        ("127.8.9.10:65535", ("127.8.9.10", 65535)),
    ],
)
def test_loopback_addresses_need_no_secret(written: str, address: tuple[str, int]) -> None:
    assert node(JOBYARD_LISTEN=written).listen == address
    assert balancer(JOBYARD_LISTEN=written, JOBYARD_HTTP_LISTEN=written).http_listen == address


@pytest.mark.parametrize("name", ["DISPATCH_PERIOD", "MAX_NUM_JOBS_DISPATCH", "REQUEST_RESULT_PERIOD", "MAX_NUM_NODES"])
def test_the_names_without_prefix_also_work_with_it(name: str) -> None:
    plain = balancer(**{name: "7"})
    assert plain != balancer()
    assert balancer(**{f"JOBYARD_{name}": "7"}) == plain
    assert balancer(**{name: "7", f"JOBYARD_{name}": "7"}) == plain


def test_both_names_with_different_values_are_a_problem() -> None:
    (problem,) = problems_of_balancer(MAX_NUM_NODES="7", JOBYARD_MAX_NUM_NODES="8")
    assert problem.startswith("MAX_NUM_NODES='7' and JOBYARD_MAX_NUM_NODES='8': ")


def test_off_turns_a_setting_off() -> None:
    assert node(JOBYARD_LOCAL_FALLBACK="off").local_fallback_s is None
    assert balancer(JOBYARD_HTTP_LISTEN="off").http_listen is None
    assert node(JOBYARD_PROCESSES_MAX="off", JOBYARD_PRINTED_MAX="off", JOBYARD_FILES_MAX="off") == attrs.evolve(
        node(), processes_max=None, printed_bytes_max=None, files_max=None
    )


def test_what_an_attempt_may_use_is_read_in_the_units_of_settings() -> None:
    settings = node(JOBYARD_CPU_MAX="1h", JOBYARD_MEMORY_MAX="512MiB", JOBYARD_TIMEOUT_MAX="1500")
    assert (settings.cpu_s_max, settings.memory_bytes_max, settings.timeout_s_max) == (3600.0, 512 * MIB, 1.5)


def test_words_and_lists_are_read() -> None:
    settings = node(JOBYARD_JOB_KINDS="sh, sleep", JOBYARD_LOG_LEVEL="DEBUG", JOBYARD_SLOTS="0")
    assert settings.kinds == {"sh", "sleep"}
    assert settings.log_level == "debug"
    assert settings.slots == 0


def test_the_port_on_the_command_line_replaces_the_port_only() -> None:
    assert load_balancer({"JOBYARD_LISTEN": "[::1]:1"}, 8090).listen == ("::1", 8090)


# --- problems --------------------------------------------------------------------------------------------------

BAD_FOR_THE_BALANCER = [
    ("DISPATCH_PERIOD", "soon", "milliseconds"),
    ("DISPATCH_PERIOD", "0", "from 1ms"),
    ("DISPATCH_PERIOD", "-5", "from 1ms"),
    ("DISPATCH_PERIOD", "", "from 1ms"),
    ("JOBYARD_DISPATCH_PERIOD", "soon", "milliseconds"),
    ("MAX_NUM_JOBS_DISPATCH", "0", "from 1 "),
    ("MAX_NUM_JOBS_DISPATCH", "3.5", "whole number"),
    ("MAX_NUM_JOBS_DISPATCH", "9" * 5000, "whole number"),
    ("REQUEST_RESULT_PERIOD", "11y", "10 years"),
    ("MAX_NUM_NODES", "٣", "whole number"),
    ("JOBYARD_INFO_PERIOD", "0ms", "from 1ms"),
    ("JOBYARD_NODE_TIMEOUT", "99", "from 100ms"),
    ("JOBYARD_BACKLOG_MAX", "-1", "from 0 "),
    ("JOBYARD_DISPATCH_MODE", "lazy", "eager or periodic"),
    ("JOBYARD_PLACEMENT", "fairest", "allowed is level, random, round-robin, least-loaded or shortest-wait"),
    ("JOBYARD_STORE_MAX", "16GB", "GiB"),
    ("JOBYARD_STORE_MAX", "1KiB", "from 1MiB"),
    ("JOBYARD_RETENTION", "forever", "1h30m"),
    ("JOBYARD_LISTEN", "8080", "host:port"),
    ("JOBYARD_LISTEN", "127.0.0.1:65536", "65535"),
    ("JOBYARD_LISTEN", ":8080", "0.0.0.0:9000"),
    ("JOBYARD_LISTEN", "[localhost]:80", "[::1]:9000"),
    ("JOBYARD_LISTEN", "::1:80", "[::1]:9000"),
    ("JOBYARD_HTTP_LISTEN", "on", "or off"),
    ("JOBYARD_DATA_DIR", "", "not empty"),
    ("JOBYARD_INSECURE", "yes", "client or all"),
    ("JOBYARD_LOG_FORMAT", "xml", "text or json"),
    ("JOBYARD_LOG_LEVEL", "loud", "debug, info, warning or error"),
    ("JOBYARD_TLS_CA", "", "not empty"),
]
BAD_FOR_A_NODE = [
    ("JOBYARD_SLOTS", "10001", "to 10000"),
    ("JOBYARD_JOB_KINDS", "sh,bash", "sh,exec,argv,py,call,sleep"),
    ("JOBYARD_JOB_KINDS", "", "sh,exec,argv,py,call,sleep"),
    ("JOBYARD_LOCAL_FALLBACK", "never", "or off"),
    ("JOBYARD_NODE_NAME", "two words", "without blanks"),
    ("JOBYARD_NODE_NAME", "n" * 201, "200 bytes"),
    ("JOBYARD_PYTHON", "", "not empty"),
    ("JOBYARD_BODY_MAX", "65MiB", "to 64MiB"),
    ("JOBYARD_OUTPUT_MAX", "1TiB", "to 64MiB"),
    ("JOBYARD_PRINTED_MAX", "1GB", "GiB"),
    ("JOBYARD_CPU_MAX", "0", "from 1ms"),
    ("JOBYARD_MEMORY_MAX", "1000", "from 1MiB"),
    ("JOBYARD_PROCESSES_MAX", "0", "from 1 "),
    ("JOBYARD_FILES_MAX", "7", "from 8 "),
    ("JOBYARD_TIMEOUT_MAX", "never", "or off"),
    ("JOBYARD_CONNECTIONS_MAX", "0", "from 1 "),
    ("JOBYARD_DRAIN_GRACE", "-1", "from 0s"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD_FOR_THE_BALANCER)
def test_a_bad_value_stops_the_balancer_and_says_what_is_allowed(name: str, value: str, allowed: str) -> None:
    (problem,) = problems_of_balancer(**{name: value})
    assert problem.startswith(f"{name}='{value[:60]}")
    assert allowed in problem
    assert len(problem) < 300


@pytest.mark.parametrize(("name", "value", "allowed"), BAD_FOR_A_NODE)
def test_a_bad_value_stops_a_node_and_says_what_is_allowed(name: str, value: str, allowed: str) -> None:
    (problem,) = problems_of_node(**{name: value})
    assert problem.startswith(f"{name}='{value[:60]}")
    assert allowed in problem


def test_every_problem_is_told_at_once_in_a_line_of_its_own() -> None:
    with pytest.raises(SettingsError) as error:
        load_node(
            {
                "JOBYARD_SLOTS": "many",
                "JOBYARD_NODE_TIMEOUT": "soon\x1b[2J\nJOBYARD_SLOTS: fine",
                "JOBYARD_LISTEN": "0.0.0.0:9000",
                "JOBYARD_TLS_CA": "ca.pem",
                "JOBYARD_SLOTZ": "4",
                "JOBYARD_CLUSTER_KEY_FILE": "/nowhere/at/all",
            },
            "",
            0,
        )
    starts = (
        "BALANCER_HOST=''",
        "BALANCER_PORT=0",
        "JOBYARD_CLUSTER_KEY_FILE='/nowhere/at/all'",
        "JOBYARD_LISTEN='0.0.0.0:9000'",
        "JOBYARD_NODE_TIMEOUT='soon\\x1b[2J\\nJOBYARD_SLOTS: fine'",
        "JOBYARD_SLOTS='many'",
        "'JOBYARD_SLOTZ'",
        "JOBYARD_TLS_CA='ca.pem'",
    )
    assert len(error.value.problems) == len(starts)
    assert all(any(problem.startswith(start) for problem in error.value.problems) for start in starts)
    assert str(error.value).split("\n") == list(error.value.problems)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_on_the_command_line_that_is_none_is_a_problem(port: int) -> None:
    with pytest.raises(SettingsError, match=f"^PORT={port}: .* from 0 to 65535$"):
        load_balancer({}, port)


# --- names -----------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_a_problem_with_a_suggestion_and_its_value_is_not_repeated() -> None:
    (problem,) = problems_of_node(JOBYARD_CLUSTERKEY=SECRET)
    assert problem == "'JOBYARD_CLUSTERKEY': no Jobyard program knows this name; did you mean JOBYARD_CLUSTER_KEY?"


def test_a_misspelt_name_of_the_reference_system_is_recognised_without_its_prefix() -> None:
    (problem,) = problems_of_node(JOBYARD_DISPATCH_PEROID="5")
    assert problem.endswith("did you mean JOBYARD_DISPATCH_PERIOD?")


def test_a_name_that_resembles_nothing_gets_no_suggestion() -> None:
    (problem,) = problems_of_node(JOBYARD_QQQQ="5")
    assert problem.endswith("--help lists the names that are allowed")


def test_names_of_the_other_program_and_of_clients_and_jobs_are_accepted() -> None:
    assert node(DISPATCH_PERIOD="not read here", JOBYARD_BACKLOG_MAX="nor this") == node()
    assert balancer(JOBYARD_SLOTS="not read here", JOBYARD_NODE_NAME="nor this") == balancer()
    others = ("URL", "TICKET", "ATTEMPT", "NODE", "INDEX", "BOOT", "OWNER", "TEST_DOCKER", "SOAK")
    assert node(**{f"JOBYARD_{name}": "x" for name in others}) == node()


# --- secrets ---------------------------------------------------------------------------------------------------


def test_a_secret_comes_from_the_environment_or_from_a_file_without_its_line_feed(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    for settings in (
        node(JOBYARD_CLUSTER_KEY=SECRET, JOBYARD_CLIENT_TOKEN=SECRET),
        node(JOBYARD_CLUSTER_KEY_FILE=str(file), JOBYARD_CLIENT_TOKEN_FILE=str(file)),
    ):
        assert settings.cluster_key == SECRET.encode()
        assert settings.client_token == SECRET


def test_a_secret_from_both_places_is_a_problem(tmp_path: Path) -> None:
    (problem,) = problems_of_balancer(JOBYARD_CLUSTER_KEY=SECRET, JOBYARD_CLUSTER_KEY_FILE=str(tmp_path))
    assert problem.startswith("JOBYARD_CLUSTER_KEY=(hidden) and JOBYARD_CLUSTER_KEY_FILE=")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b" \n", "it is empty"), (b"x" * 5000, "more than 4096 bytes"), (b"short", f"{KEY_CHARACTERS_MIN} characters")],
)
def test_a_file_that_holds_no_usable_secret_is_a_problem(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    (problem,) = problems_of_balancer(JOBYARD_CLUSTER_KEY_FILE=str(file))
    assert problem.startswith("JOBYARD_CLUSTER_KEY_FILE='")
    assert why in problem


def test_a_file_that_cannot_be_read_is_a_problem_with_the_reason(tmp_path: Path) -> None:
    (problem,) = problems_of_balancer(JOBYARD_CLUSTER_KEY_FILE=str(tmp_path))
    assert "Is a directory" in problem


def test_a_bad_secret_is_told_of_without_showing_it() -> None:
    problems = problems_of_node(JOBYARD_CLUSTER_KEY="too short", JOBYARD_CLIENT_TOKEN="two words")
    assert [problem.partition(":")[0] for problem in problems] == [
        "JOBYARD_CLUSTER_KEY=(hidden)",
        "JOBYARD_CLIENT_TOKEN=(hidden)",
    ]
    assert not any("too short" in problem or "two words" in problem for problem in problems)


def test_no_secret_is_ever_shown() -> None:
    settings = node(JOBYARD_CLUSTER_KEY=SECRET, JOBYARD_CLIENT_TOKEN=SECRET)
    assert SECRET not in repr(settings)
    assert SECRET not in repr(describe(settings))
    assert describe(settings)["cluster_key"] == "(hidden)"
    assert describe(node())["cluster_key"] is None


# --- safe by default -------------------------------------------------------------------------------------------

BEYOND_LOOPBACK = ["0.0.0.0:9000", "[::]:9000", "10.0.0.7:0", "build-7.example:9000"]


@pytest.mark.parametrize("address", BEYOND_LOOPBACK)
@pytest.mark.parametrize("name", ["JOBYARD_LISTEN", "JOBYARD_HTTP_LISTEN"])
def test_beyond_loopback_a_node_needs_a_token_or_a_waiver(name: str, address: str) -> None:
    (problem,) = problems_of_node(**{name: address, "JOBYARD_CLUSTER_KEY": SECRET})
    assert problem.startswith(f"{name}='{address}': other machines can reach it, and JOBYARD_CLIENT_TOKEN is not set;")
    assert problem.endswith("JOBYARD_INSECURE=client")
    for way_on in ({"JOBYARD_CLIENT_TOKEN": SECRET}, {"JOBYARD_INSECURE": "client"}, {"JOBYARD_INSECURE": "all"}):
        assert node(**{name: address}, **way_on)


@pytest.mark.parametrize("address", BEYOND_LOOPBACK)
def test_beyond_loopback_the_balancer_needs_a_key_or_the_whole_waiver(address: str) -> None:
    for not_enough in ({}, {"JOBYARD_INSECURE": "client"}, {"JOBYARD_CLIENT_TOKEN": SECRET}):
        (problem,) = problems_of_balancer(JOBYARD_LISTEN=address, **not_enough)
        assert problem.endswith("JOBYARD_INSECURE=all")
    for way_on in ({"JOBYARD_CLUSTER_KEY": SECRET}, {"JOBYARD_INSECURE": "all"}):
        assert balancer(JOBYARD_LISTEN=address, **way_on)


@pytest.mark.parametrize("address", BEYOND_LOOPBACK)
def test_beyond_loopback_the_http_of_the_balancer_needs_a_token_or_a_waiver(address: str) -> None:
    (problem,) = problems_of_balancer(JOBYARD_HTTP_LISTEN=address, JOBYARD_CLUSTER_KEY=SECRET)
    assert problem.startswith(f"JOBYARD_HTTP_LISTEN='{address}': other machines can reach it, and JOBYARD_CLIENT_TOKEN")
    for way_on in ({"JOBYARD_CLIENT_TOKEN": SECRET}, {"JOBYARD_INSECURE": "client"}, {"JOBYARD_INSECURE": "all"}):
        assert balancer(JOBYARD_HTTP_LISTEN=address, **way_on)


def test_a_bad_secret_is_one_problem_and_not_also_a_missing_one() -> None:
    (problem,) = problems_of_balancer(JOBYARD_LISTEN="0.0.0.0:1", JOBYARD_CLUSTER_KEY="short")
    assert "16 characters" in problem


# --- for people ------------------------------------------------------------------------------------------------


def test_the_start_up_line_has_every_setting_as_a_plain_value() -> None:
    described = describe(balancer(JOBYARD_LISTEN="[::1]:7"))
    assert described == {
        **BALANCER_DEFAULTS,
        "listen": "[::1]:7",
        "http_listen": "127.0.0.1:8081",
        "data_dir": "data/balancer",
    }
    assert describe(node())["kinds"] == "argv,call,exec,py,sh,sleep"


def test_help_names_each_setting_with_default_and_unit() -> None:
    told = help_table(BalancerSettings)
    assert "DISPATCH_PERIOD, JOBYARD_DISPATCH_PERIOD (default 5000; unit ms)" in told
    assert "JOBYARD_CLUSTER_KEY, JOBYARD_CLUSTER_KEY_FILE (default none)" in told
    assert "JOBYARD_SLOTS (default number of CPUs; unit slots)" in help_table(NodeSettings)
    assert max(map(len, told.splitlines())) <= 79
