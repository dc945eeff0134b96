"""The settings of both programs: what they are by default, what is refused, and what is never shown."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.limits import GIB, KIB, MIB
from common.settings import (
    KEY_CHARACTERS_MIN,
    BalancerSettings,
    CommonSettings,
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
    "connections_max": 1024,
    "drain_grace_s": 10.0,
    "client_token": None,
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


def values_of(settings: CommonSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in type(settings).__attrs_attrs__.__class__._fields or ()} or {}
