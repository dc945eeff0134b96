"""The units in docs/systemd: what they name exists, what they allow is enough, and systemd itself takes them."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from balancer.__main__ import main as balancer_main
from common.environment import settings_of
from common.limits import LINKS_UNPROVEN_MAX
from common.runtime.command_line import EX_CONFIG
from common.runtime.ports import FILES_RESERVED
from common.settings import BalancerSettings, NodeSettings, load_balancer, load_node
from node import drain
from node.__main__ import main as node_main
from node.executors.handle import DOWN_WITHIN_S
from tests.test_documents import DOCS, ROOT, rows

UNITS: Final = sorted((DOCS / "systemd").rglob("*.service"))
GUIDE: Final = DOCS / "systemd/README.md"
PROGRAMS: Final = {"jobyard-balancer": BalancerSettings, "jobyard-node": NodeSettings}
MAINS: Final = {"jobyard-balancer": balancer_main, "jobyard-node": node_main}
ARGPARSE: Final = 2  # wrong arguments
of_each = pytest.mark.parametrize("unit", UNITS, ids=lambda path: str(path.relative_to(DOCS)))


def read(unit: Path) -> dict[str, dict[str, str]]:
    """Sections of a unit, none of whose keys stands twice."""
    parser = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}


def service(unit: Path) -> dict[str, str]:
    return read(unit)["Service"]


def environment(unit: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(service(unit)["Environment"]))


def words(unit: Path, given: Mapping[str, str]) -> list[str]:
    """The command as systemd expands it."""
    command = (given[word[1:]] if word.startswith("$") else word for word in service(unit)["ExecStart"].split())
    return list(command)


def names_of(program: str) -> set[str]:
    told = settings_of(PROGRAMS[program]).values()
    return {name for setting in told for name in setting.variables}


def seconds(text: str) -> float:
    assert text.isdigit(), "a plain number of seconds is meant"
    return float(text)


# --- the units -------------------------------------------------------------------------------------------------------


def test_there_is_a_unit_of_each_program_for_a_machine_and_for_a_user() -> None:
    found = {(unit.parent.name, unit.stem) for unit in UNITS}
    assert found == {(scope, program) for scope in ("system", "user") for program in PROGRAMS}


@of_each
def test_its_command_is_a_program_of_ours_with_arguments_that_it_takes(
    unit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, *arguments = words(unit, environment(unit))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Path(path).name == unit.stem
    assert unit.stem in project["scripts"]
    with pytest.raises(SystemExit) as ended:
        MAINS[unit.stem]([*arguments, "--version"])
    assert ended.value.code == 0
    assert unit.stem in capsys.readouterr().out
    installed = {"system": "/usr/local/lib/jobyard/bin", "user": "%h/.local/share/jobyard/bin"}[unit.parent.name]
    assert str(Path(path).parent) == installed
    assert f"python3 -m venv {installed.replace('%h', '~').removesuffix('/bin')}\n" in GUIDE.read_text()


@of_each
def test_its_settings_exist_and_the_program_takes_their_values(unit: Path) -> None:
    given = {name: value.replace("%S", "/state") for name, value in environment(unit).items()}
    ours = {name for name in given if not name.startswith("BALANCER_")}
    assert ours <= names_of(unit.stem)
    if unit.stem == "jobyard-balancer":
        assert load_balancer(given, None).data_dir == Path("/state/jobyard-balancer")
    else:
        settings = load_node(given, given["BALANCER_HOST"], int(given["BALANCER_PORT"]))
        assert settings.data_dir == Path("/state/jobyard-node")
        assert settings.balancer == ("127.0.0.1", 8080)


@of_each
def test_its_data_directory_is_one_that_systemd_makes_for_it_alone(unit: Path) -> None:
    told = service(unit)
    assert environment(unit)["JOBYARD_DATA_DIR"] in {f"%S/{name}" for name in told["StateDirectory"].split()}
    assert told["StateDirectoryMode"] == "0700"


@of_each
def test_it_starts_again_but_for_what_only_somebody_can_mend(unit: Path) -> None:
    told = service(unit)
    never = {int(status) for status in told["RestartPreventExitStatus"].split()}
    assert never == {ARGPARSE, EX_CONFIG}
    documented = {int(cells[0]) for cells in rows(DOCS / "operating.md", "### Exit statuses") if cells[0].isdigit()}
    assert never < documented
    assert told["Restart"] == "on-failure"
    limits = read(unit)["Unit"]
    tries_s = seconds(told["RestartSec"]) * int(limits["StartLimitBurst"])
    assert 30 <= tries_s < seconds(limits["StartLimitIntervalSec"]), "the limit would never be met, or too soon"


@of_each
def test_a_node_has_the_time_to_drain_and_its_jobs_are_told_nothing_before(unit: Path) -> None:
    told = service(unit)
    if unit.stem == "jobyard-node":
        grace_s = NodeSettings(data_dir=Path("unused")).drain_grace_s
        assert told["KillMode"] == "mixed", "SIGTERM to all would end the jobs that the node waits for"
        needed_s = grace_s + drain._INTERRUPT_GRACE_S + drain._HAND_BACK_S + DOWN_WITHIN_S
        assert needed_s < seconds(told["TimeoutStopSec"])
    assert told.get("SendSIGKILL", "yes") == "yes", "a job would live on beside its next attempt"


@of_each
def test_the_files_that_it_may_open_are_enough_for_its_settings(unit: Path) -> None:
    _, hard = service(unit)["LimitNOFILE"].split(":")
    most = NodeSettings(data_dir=Path("unused")).connections_max
    if unit.stem == "jobyard-balancer":
        most = BalancerSettings(data_dir=Path("unused")).nodes_max + LINKS_UNPROVEN_MAX
    assert int(hard) >= 10 * (most + FILES_RESERVED), "settings may be raised without another unit"


@of_each
def test_it_asks_for_no_word_that_the_program_does_not_say(unit: Path) -> None:
    told = service(unit)
    assert told["Type"] == "exec"
    assert "WatchdogSec" not in told
    assert not any("NOTIFY_SOCKET" in path.read_text() for path in (ROOT / "common").rglob("*.py"))


@pytest.mark.parametrize("scope", ["system", "user"])
def test_what_is_the_same_for_a_machine_and_a_user_is_written_the_same(scope: str) -> None:
    other = {"system": "user", "user": "system"}[scope]
    for program in PROGRAMS:
        ours, theirs = (service(DOCS / "systemd" / one / f"{program}.service") for one in (scope, other))
        differ = {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
        assert differ <= {"EnvironmentFile", "ExecStart", "StateDirectory"}


def test_jobs_of_a_node_notice_nothing_but_that_they_cannot_become_another_user() -> None:
    hides = {
        "PrivateTmp", "PrivateDevices", "PrivateNetwork", "PrivateUsers", "ProtectHome", "ProtectProc", "ProcSubset",
        "RestrictAddressFamilies", "RestrictNamespaces", "MemoryDenyWriteExecute", "SystemCallFilter",
        "SystemCallArchitectures", "ProtectClock", "DynamicUser",
    }  # fmt: skip
    for unit in UNITS:
        if unit.stem == "jobyard-node":
            told = service(unit)
            assert not hides & told.keys()
            assert told["NoNewPrivileges"] == "yes"
            assert told["OOMPolicy"] == "continue", "one job that the kernel takes would stop the node and all others"


@pytest.mark.parametrize("scope", ["system", "user"])
def test_systemd_itself_takes_them(scope: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze on this machine")
    for unit in UNITS:
        if unit.parent.name == scope:
            there = f"ExecStart={Path(sys.executable).parent}/"
            (tmp_path / unit.name).write_text(re.sub(r"^ExecStart=\S*/", there, unit.read_text(), flags=re.MULTILINE))
    done = subprocess.run(
        [analyze, "verify", f"--{scope}", "--man=no", "--recursive-errors=one", *map(str, tmp_path.glob("*.service"))],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "jobyard" in line]
    assert (done.returncode, said) == (0, []), done.stderr


# --- the guide -------------------------------------------------------------------------------------------------------


def test_the_guide_names_files_settings_and_units_that_there_are() -> None:
    text = GUIDE.read_text()
    for path in re.findall(r"docs/systemd/\S+", text):
        assert list(ROOT.glob(path)), f"{path} is not there"
    known = names_of("jobyard-balancer") | names_of("jobyard-node") | {"JOBYARD_TLS_CERT", "JOBYARD_TLS_KEY"}
    assert set(re.findall(r"JOBYARD_\w+", text)) <= known
    for name in ("balancer.env", "node.env"):
        (system,) = {service(unit)["EnvironmentFile"] for unit in UNITS if unit.parent.name == "system" and
                     name.startswith(unit.stem.removeprefix("jobyard-"))}  # fmt: skip
        assert system == f"-/etc/jobyard/{name}"
        assert f"# /etc/jobyard/{name}\n" in text
        assert f"~/.config/jobyard/{name}" in text
    assert set(re.findall(r"\bjobyard-\w+", text)) <= PROGRAMS.keys()


def test_the_example_settings_of_the_guide_are_taken() -> None:
    (block,) = (part for part in re.findall(r"^```ini\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
                if "balancer.env" in part)  # fmt: skip
    balancer, node = ({name: value for name, _, value in (line.partition("=") for line in part.splitlines()) if value}
                      for part in block.split("# /etc/jobyard/node.env\n"))  # fmt: skip
    assert load_balancer(balancer, None).listen == ("0.0.0.0", 8080)
    assert load_node(node, node["BALANCER_HOST"], 8080).client_token == "what-clients-send"


def test_the_user_of_the_nodes_is_the_one_that_is_made_and_its_home_exists() -> None:
    (line,) = (line for line in (DOCS / "systemd/jobyard.conf").read_text().splitlines() if not line.startswith("#"))
    kind, user, _, _, home = shlex.split(line)
    told = service(DOCS / "systemd/system/jobyard-node.service")
    assert (kind, user) == ("u", told["User"])
    assert Path(home).name in told["StateDirectory"].split()
