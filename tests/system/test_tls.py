"""A cluster all of whose ports speak TLS, with certificates made as `docs/operating.md` says."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import REPOSITORY, LocalCluster
from jobyard import Client
from jobyard.futures import JobyardExecutor
from tests.certified import Certified, certified
from tests.system.client import ask, missing, nc, parse, until
from tests.system.conftest import StartCluster
from tests.system.jobyard import Jobyard
from tests.system.programs import address_in, run_to_its_end, running

pytestmark = pytest.mark.system

KEY: Final = "the-key-of-this-cluster"
TOKEN: Final = "open-sesame-open-sesame"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    """Made by the commands of the document."""
    directory = tmp_path_factory.mktemp("pki")
    if shutil.which("openssl") is None:
        missing("there is no openssl here")
    text = (REPOSITORY / "docs" / "operating.md").read_text()
    (commands,) = (block for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) if "-x509 -newkey" in block)
    done = subprocess.run(["sh", "-euc", commands], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Certified(directory / "node1.pem", directory / "node1.key", directory / "ca.pem")


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster, files: Certified) -> LocalCluster:
    return start_cluster_of_module(
        1, env=files.env | {"JOBYARD_CLUSTER_KEY": KEY, "JOBYARD_CLIENT_TOKEN": TOKEN, "JOBYARD_LOG_FORMAT": "json"}
    )


@pytest.fixture
def url(cluster: LocalCluster) -> str:
    return f"tls://{cluster.address('node1')}"


def openssl(cluster: LocalCluster, files: Certified, typed: str) -> bytes:
    """What a person sees who types into `openssl s_client`, and ends with QUIT."""
    words = ["-quiet", "-verify_quiet", "-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile", str(files.ca)]
    done = subprocess.run(
        ["openssl", "s_client", *words, "-connect", cluster.address("node1")], input=typed.encode(),
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_person_with_openssl_has_the_whole_protocol(cluster: LocalCluster, files: Certified) -> None:
    said = openssl(cluster, files, f"auth {TOKEN}\nrun sh echo by TLS\nquit\n")
    welcome, result, bye = parse(said)
    assert (welcome.line, result.body, bye.line) == ("OK", b"by TLS\n", "OK bye")


def test_the_command_speaks_it_with_nothing_but_its_environment(
    cluster: LocalCluster, files: Certified, url: str, tmp_path: Path
) -> None:
    with Jobyard(cluster, tmp_path) as jobyard:
        env = {"JOBYARD_URL": url, "JOBYARD_CLIENT_TOKEN": TOKEN, "JOBYARD_TLS_CA": str(files.ca)}
        assert jobyard("run", "--scratch", "--", "echo", "hello", env=env).out == b"hello\n"
        untrusted = jobyard("nodes", env=env | {"JOBYARD_TLS_CA": ""})
        assert (untrusted.code, b"its certificate is refused" in untrusted.err) == (3, True)
        plain = jobyard("nodes", env=env | {"JOBYARD_URL": url.replace("tls://", "tcp://")})
        assert plain.code != 0
        assert b"this node speaks TLS; clients name it as tls://HOST:PORT" in plain.err


def test_library_and_futures_speak_it(files: Certified, url: str) -> None:
    with Client(url, TOKEN, tls_ca=files.ca) as yard:
        tickets = [yard.submit("sh", f"head -c 300000 /dev/zero | tr '\\0' {digit}") for digit in range(3)]
        assert [yard.wait(ticket).stdout for ticket in tickets] == [b"%d" % digit * 300_000 for digit in range(3)]
        assert [node.state for node in yard.nodes()] == ["alive"]
    with JobyardExecutor(url, TOKEN, tls_ca=files.ca) as executor:
        assert list(executor.map(pow, [2, 3], [10, 4])) == [1024, 81]


def test_a_plain_client_is_told_so_and_not_left_waiting(cluster: LocalCluster) -> None:
    said = nc(cluster.address("node1"), "ping\n", timeout_s=5)
    assert said == b"ERR BAD_REQUEST this node speaks TLS; clients name it as tls://HOST:PORT\n"
    assert nc(cluster.address("balancer"), "ping\n", timeout_s=5), "an answer, if not in words that it knows"


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({}, "this balancer speaks TLS"),
        ({"JOBYARD_TLS_CA": "ours"}, "the other side wants to see a certificate"),
        ({"JOBYARD_TLS_CA": "theirs"}, "the certificate of the other side is refused"),
    ],
    ids=["plain", "no certificate", "another CA"],
)
def test_a_node_that_has_the_key_and_not_the_certificates_stays_outside(
    cluster: LocalCluster, files: Certified, tmp_path: Path, own: dict[str, str], why: str
) -> None:
    cas = {"ours": files.ca, "theirs": certified(tmp_path / "theirs", by="another").ca}
    host, _, port = cluster.address("balancer").rpartition(":")
    env = {name: str(cas[value]) for name, value in own.items()} | {
        "JOBYARD_DATA_DIR": str(tmp_path / "stranger"),
        "JOBYARD_LISTEN": "127.0.0.1:0",
        "JOBYARD_NODE_NAME": "stranger",
        "JOBYARD_CLUSTER_KEY": KEY,
    }
    log = tmp_path / "stranger.log"
    with running("node", host, port, env=env, log=log):
        until("it says why", lambda: why in log.read_text())
        assert ask(address_in(tmp_path / "stranger"), "stats local=1").body.split(b"linked ")[1][:1] == b"0"
    assert "stranger" not in cluster.log_path("balancer").read_text()
    assert '"link.refused"' in cluster.log_path("balancer").read_text()


def test_secrets_and_paths_of_keys_are_where_they_belong(cluster: LocalCluster, files: Certified) -> None:
    log = cluster.log_path("node1").read_text()
    assert str(files.key) in log
    assert "PRIVATE KEY" not in log
    assert TOKEN not in log
    for name in ("JOBYARD_TLS_KEY", "JOBYARD_TLS_CERT", "JOBYARD_TLS_CA"):
        assert name.encode() not in openssl(cluster, files, f"auth {TOKEN}\nrun sh env\nquit\n")


def test_files_that_do_not_fit_stop_a_program_at_its_start(files: Certified, tmp_path: Path) -> None:
    other = certified(tmp_path / "other")
    for program in ("node", "balancer"):
        env = files.env | {"JOBYARD_TLS_KEY": str(other.key), "JOBYARD_DATA_DIR": str(tmp_path / "data")}
        refused = run_to_its_end(program, env=env)
        assert refused.status == 78
        assert refused.said.startswith("JOBYARD_TLS_KEY=")
        assert len(refused.said.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_a_key_that_all_may_read_is_warned_of(files: Certified, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(files.key.read_bytes())
    os.chmod(key, 0o644)
    env = files.env | {
        "JOBYARD_TLS_KEY": str(key), "JOBYARD_DATA_DIR": str(tmp_path / "data"), "JOBYARD_LISTEN": "127.0.0.1:0",
        "JOBYARD_HTTP_LISTEN": "off",
    }  # fmt: skip
    log = tmp_path / "log"
    with running("balancer", env=env, log=log):
        until("it warns", lambda: '"key.readable"' in log.read_text())
