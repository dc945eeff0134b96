"""The settings of TLS: what is served and demanded by which of them, and files that stop the program at its start."""

import ssl
import subprocess
from pathlib import Path

import pytest

from common import certificates
from common.certificates import Unusable
from common.settings import NodeSettings, SettingsError, describe, load_balancer, load_node
from tests.certified import Certified, certified

CERT, KEY, CA = "JOBYARD_TLS_CERT", "JOBYARD_TLS_KEY", "JOBYARD_TLS_CA"


@pytest.fixture
def ours(tmp_path: Path) -> Certified:
    return certified(tmp_path / "ours")


def node(**environ: str) -> NodeSettings:
    return load_node(environ, "balancer", 8080)


def problems(program: str, environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as error:
        node(**environ) if program == "node" else load_balancer(environ)
    return list(error.value.problems)


# --- what is served --------------------------------------------------------------------------------------------


def test_without_a_setting_nothing_is_encrypted() -> None:
    settings = node()
    assert certificates.port_context(settings, demanding=True) is None
    assert certificates.dialling_context(settings) is None


def test_a_certificate_makes_the_port_speak_tls_and_a_ca_the_link(ours: Certified) -> None:
    port_only = node(**{CERT: str(ours.cert), KEY: str(ours.key)})
    assert certificates.port_context(port_only, demanding=True).verify_mode is ssl.CERT_NONE  # type: ignore[union-attr]
    assert certificates.dialling_context(port_only) is None
    link_only = node(**{CA: str(ours.ca)})
    assert certificates.port_context(link_only, demanding=False) is None
    dialling = certificates.dialling_context(link_only)
    assert dialling is not None
    assert (dialling.verify_mode, dialling.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_only_a_port_that_demands_wants_to_see_a_certificate(ours: Certified) -> None:
    settings = load_balancer(ours.env)
    modes = [certificates.port_context(settings, demanding=demanding) for demanding in (True, False)]
    assert [context.verify_mode for context in modes if context] == [ssl.CERT_REQUIRED, ssl.CERT_NONE]


def test_nothing_older_than_tls_1_2_is_spoken(ours: Certified) -> None:
    settings = load_balancer(ours.env)
    for context in (certificates.port_context(settings, demanding=True), certificates.dialling_context(settings)):
        assert context is not None
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_paths_are_told_at_the_start_and_are_no_secret(ours: Certified) -> None:
    assert describe(node(**ours.env))["tls_key"] == str(ours.key)


def test_a_key_that_others_may_read_is_found(ours: Certified) -> None:
    settings = node(**ours.env)
    assert certificates.readable_by_others(settings) is None
    ours.key.chmod(0o644)
    assert certificates.readable_by_others(settings) == ours.key


# --- what is wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["node", "balancer"])
@pytest.mark.parametrize(("given", "missing"), [(CERT, KEY), (KEY, CERT)])
def test_half_of_a_pair_is_a_problem(ours: Certified, program: str, given: str, missing: str) -> None:
    (problem,) = problems(program, {given: ours.env[given]})
    assert problem.startswith(f"{given}='")
    assert problem.endswith(f": {missing} is not set; allowed are both, or neither")


def test_a_balancer_with_a_ca_alone_would_listen_without_tls_and_does_not_start(ours: Certified) -> None:
    (problem,) = problems("balancer", {CA: str(ours.ca)})
    assert problem.startswith(f"{CA}='")
    assert f"{CERT} and {KEY} are not set" in problem


@pytest.mark.parametrize("name", [CERT, KEY, CA])
@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"hello\n", "it holds no PEM"), (b"", "it holds no PEM")]
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    ours: Certified, tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)
    for program in ("node", "balancer"):
        (problem,) = problems(program, ours.env | {name: str(bad)})
        assert problem.startswith(f"{name}='")
        assert why in problem
        assert "allowed is the path of a PEM file with" in problem


def test_a_key_of_another_certificate_is_a_problem(ours: Certified, tmp_path: Path) -> None:
    other = certified(tmp_path / "other")
    (problem,) = problems("node", ours.env | {KEY: str(other.key)})
    assert problem.startswith(f"{KEY}='")
    assert f"it does not belong to {CERT}" in problem


def test_an_encrypted_key_is_a_problem_and_no_question_at_the_terminal(ours: Certified, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", ours.key, "-out", encrypted, "-passout", "pass:secret"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl here")
    (problem,) = problems("node", ours.env | {KEY: str(encrypted)})
    assert "it is encrypted; allowed is the path of a PEM file with an unencrypted private key" in problem


def test_all_problems_are_told_at_once(ours: Certified) -> None:
    told = problems("node", ours.env | {KEY: "/nowhere", CA: "/nowhere/else", "JOBYARD_SLOTS": "many"})
    assert [problem.partition("=")[0] for problem in told] == ["JOBYARD_SLOTS", KEY, CA]


def test_a_file_that_went_bad_after_the_start_is_said_so(ours: Certified) -> None:
    settings = load_balancer(ours.env)
    ours.ca.unlink()
    with pytest.raises(Unusable, match=f"^{CA}="):
        certificates.port_context(settings, demanding=True)
