"""HTTP of real processes: what an operator's tools see, and that jobs never wait for it."""

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from common.runtime.web import STILL_HERE
from examples.local_cluster import LocalCluster
from tests.system.client import ask, submit, until
from tests.system.conftest import StartCluster
from tests.system.programs import data_dir, terminate

pytestmark = pytest.mark.system

SOON_S = 5.0


def http_address(cluster: LocalCluster, name: str) -> str:
    path: Path = data_dir(cluster, name) / "http-address"
    until(f"{path} is written", path.exists)
    return path.read_text().strip()


def get(address: str, path: str) -> tuple[int, Any]:
    """Status and JSON, or text where it is none."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=SOON_S) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    return status, json.loads(body) if body.startswith(b"{") else body.decode()


def follow(address: str, path: str) -> socket.socket:
    host, _, port = address.partition(":")
    stream = socket.create_connection((host, int(port)), timeout=SOON_S)
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    return stream


def test_a_cluster_can_be_watched_and_jobs_go_on_whatever_watchers_do(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, env={"JOBYARD_HTTP_LISTEN": "127.0.0.1:0"})
    balancer, node = http_address(cluster, "balancer"), http_address(cluster, "node1")
    until("the node is seen", lambda: get(balancer, "/api/v1/overview")[1]["slots"]["free"] == 2)
    for address in (balancer, node):
        assert get(address, "/healthz") == (200, {"healthy": True, "why": "makes progress"})
        assert get(address, "/readyz")[0] == 200
        assert "jobyard_commit_seconds_bucket" in get(address, "/metrics")[1]
    deaf = [follow(balancer, "/api/v1/stream") for _ in range(8)]  # they never read
    reading = follow(balancer, "/api/v1/events?follow=1")
    heard = b""
    while STILL_HERE not in heard:  # what it says first: from here on it misses nothing
        heard += reading.recv(65536)
    ticket = submit(cluster.address("node1"), "sh echo out; echo err >&2; exit 3")
    until("it has failed", lambda: get(balancer, f"/api/v1/jobs/{ticket}")[1].get("state") == "failed")
    status, output = get(balancer, f"/api/v1/jobs/{ticket}/output")
    assert (status, output["stdout"]["text"], output["stderr"]["text"]) == (200, "out\n", "err\n")
    while b'"event":"job.failed"' not in heard:
        heard += reading.recv(65536)
    assert ticket.encode() in heard
    began = time.monotonic()
    assert terminate(cluster, "balancer", within_s=SOON_S)
    assert time.monotonic() - began < SOON_S
    assert get(node, "/readyz")[0] == 200, "a node takes jobs without a balancer"
    for stream in (*deaf, reading):
        stream.close()


def test_two_balancers_with_one_http_address_both_serve_jobs(start_cluster: StartCluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cluster = start_cluster(1, env={"JOBYARD_HTTP_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}"})
        assert ask(cluster.address("node1"), "run sh true").ok
        log = cluster.log_path("balancer").read_text()
        until("it says so", lambda: "http.unavailable" in cluster.log_path("balancer").read_text())
        assert "address.unusable" not in log
