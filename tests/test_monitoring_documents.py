"""docs/monitoring: what it names exists, what exists it explains, and each alert says what to do."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import Metric

from common.runtime.metrics import balancer_families, node_families
from common.runtime.tally import ENDS, OUTCOMES, REDISPATCHES, Tally

ROOT: Final = Path(__file__).parents[1]
MONITORING: Final = ROOT / "docs/monitoring"
NUMBERS: Final[dict[str, float]] = dict.fromkeys(
    (
        "outcomes_stale_total", "attempts_leased_total", "jobs_submitted_total", "jobs_live", "attempts_begun_total",
        "attempts_running", "attempts_waiting", "attempts_leased_here_total", "outcomes_unacknowledged", "slots",
        "linked", "draining", "connections", "queries_total", "connections_refused_total",
    ),
    0.0,
)  # fmt: skip
FIGURES: Final[dict[str, Any]] = {
    "statistics": NUMBERS,
    "jobs": {"queued": 1, "running": 1},
    "nodes": {"alive": 1, "lost": 0},
    "slots": {"free": 1},
    "last_seen_s": {"n1": 1.0},
    "oldest_queued_s": 0.0,
    "store_fraction": 0.0,
}


def families() -> dict[str, Metric]:
    tally = Tally(lambda: 0.0)
    both = [*balancer_families(FIGURES, tally, 1), *node_families(FIGURES, tally, 1, NUMBERS)]
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in both}


def series() -> dict[str, set[str]]:
    """The names that can be asked for, and their labels."""
    return {sample.name: set(sample.labels) for family in families().values() for sample in family.samples}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return list(group["rules"])


def dashboard() -> dict[str, Any]:
    return dict(json.loads((MONITORING / "grafana-dashboard.json").read_text()))


def expressions() -> list[str]:
    targets = [target for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return [rule["expr"] for rule in rules()] + [target["expr"] for target in targets]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_that_is_asked_for_exists(expression: str) -> None:
    known = series()
    asked = re.findall(r"\b(jobyard_\w+)(?:\{([^}]*)\})?", expression)
    assert asked or "up{" in expression or "process_" in expression
    for name, chosen in asked:
        assert name in known, f"{name} does not exist"
        labels = dict(re.findall(r"(\w+)=~?\"([^\"]*)\"", chosen))
        assert set(labels) <= known[name] | {"job", "instance"}, f"{name} has no such label: {chosen}"
    of_all = set().union({"instance", "job"}, *(known[name] for name, _ in asked))
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in grouping.split(",")} <= of_all, expression
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_values_that_are_chosen_are_such_as_there_are() -> None:
    states = {state for state, _ in ENDS} | {"queued", "running", "alive", "draining", "lost", "busy", "free", "away"}
    words = {"state": states, "outcome": set(OUTCOMES), "reason": {reason for _, reason in ENDS} | set(REDISPATCHES)}
    for expression in expressions():
        for label, value in re.findall(r"(\w+)=\"([^\"]*)\"", expression):
            assert value in words[label], f"{label}={value} in {expression}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_what_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Jobyard[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    told = rule["annotations"]
    assert told["summary"]
    assert told["action"].endswith(".")
    path, _, anchor = told["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, f"{path} has no {anchor}"


def test_the_tables_of_metrics_have_each_of_them_with_its_type_and_labels() -> None:
    told: dict[str, tuple[str, set[str]]] = {}
    for line in (MONITORING / "README.md").read_text().splitlines():
        match = re.match(r"\| `(jobyard_\w+)(?:\{([^}]*)\})?` \| (\w+) \|", line)
        if match is not None:
            told[match[1]] = (match[3], set(filter(None, (match[2] or "").split(","))))
    assert told == {
        name: (family.type, set().union(*(sample.labels for sample in family.samples)) - {"le"})
        for name, family in families().items()
    }


def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_scrape_configuration_names_the_alert_rules() -> None:
    told = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    assert [(MONITORING / name).exists() for name in told["rule_files"]] == [True]
    assert {job["job_name"] for job in told["scrape_configs"]} == {"jobyard-balancer", "jobyard-nodes"}
