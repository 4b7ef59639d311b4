"""Dashboard and alerts name metrics that there are, and Prometheus' own tool accepts them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from app.main import create_app
from app.settings import Settings
from docs.tables import OPERATIONS, metric_rows
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "pixelmill.json"
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS = PROMETHEUS / "alerts.yaml"
OF_PROMETHEUS = {"up", "process_cpu_seconds_total", "process_open_fds"}
OF_PROMETHEUS |= {"process_resident_memory_bytes"}
WORDS = {
    *(
        "sum",
        "max",
        "count",
        "rate",
        "increase",
        "by",
        "and",
        "or",
        "on",
        "min_over_time",
        "absent",
    ),
    *("histogram_quantile", "label_values", "vector"),
}
TARGET_LABELS = {"job", "instance", "le"}


def promtool(*arguments: str | Path) -> str:
    """What the tool says of files that it must accept."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        ["promtool", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules(kind):
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def expressions():
    """Every expression of the dashboard and the rules, with where it stands."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for rule in (*rules("alert"), *rules("record")):
        yield rule.get("alert") or rule["record"], rule["expr"]


def named_in(expression):
    """The metrics that an expression names, and the labels."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    labels = set()
    for inside in re.findall(r"\{([^}]*)\}|\bby \(([^)]*)\)", bare):
        labels |= set(re.findall(r"[a-zA-Z_]\w*", "".join(inside)))
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)", "", bare)
    bare = re.sub(r"label_values\((.*),[^,]*\)", r"\1", bare)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare)) - WORDS, labels


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """The names of all series that a running service exposes."""
    folder = tmp_path_factory.mktemp("originals")
    with serving(originals=f"file:{folder}", results="off") as served:
        text = served.get("/metrics").text
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {name + end for end in ("_bucket", "_count", "_sum")} - {name}
        if kind != "histogram":
            names -= {name + end for end in ("_bucket", "_count", "_sum")}
            names.add(name)
    return names


def test_every_metric_that_is_named_is_exposed(exposed):
    recorded = {rule["record"] for rule in rules("record")}
    known = exposed | recorded | OF_PROMETHEUS
    assert OF_PROMETHEUS - {"up"} <= exposed
    for where, expression in expressions():
        metrics, _ = named_in(expression)
        assert metrics, where
        assert metrics <= known, where


def test_every_label_that_is_named_is_one_of_these_metrics():
    labels = {row.name: set(row.labels) for row in metric_rows()}
    for where, expression in expressions():
        metrics, named = named_in(expression)
        of = set().union(
            *(labels.get(re.sub(r"_(bucket|count|sum)$", "", name), set()) for name in metrics),
            *(labels.get(name, set()) for name in metrics),
        )
        assert named <= of | TARGET_LABELS, where


def test_every_metric_is_on_the_dashboard():
    shown = set()
    for _, expression in expressions():
        shown |= {re.sub(r"_bucket$", "", name) for name in named_in(expression)[0]}
    assert {row.name for row in metric_rows()} <= shown


def test_the_dashboard_can_be_provisioned_anywhere():
    board = dashboard()
    assert board["id"] is None
    assert board["uid"] == "pixelmill"
    source, *variables = board["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert [variable["name"] for variable in variables] == ["job", "instance"]
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all('job=~"$job"' in target["expr"] for target in panel["targets"])
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for path in (DASHBOARD.parent / "provisioning").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


def test_every_alert_has_a_severity_and_a_section_that_says_what_to_do():
    text = OPERATIONS.read_text()
    sections = set(re.findall(r"^### (Pixelmill\w+)$", text, re.MULTILINE))
    assert sections == {rule["alert"] for rule in rules("alert")}
    for rule in rules("alert"):
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{anchor}"
        section = text.split(f"### {rule['alert']}\n")[1].split("\n### ")[0]
        assert "**Look at**" in section
        assert re.search(r"\*\*Do[*:,]", section), rule["alert"]


def test_every_setting_and_route_of_the_sections_exists():
    text = OPERATIONS.read_text()
    names = set(re.findall(r"PIXELMILL_([A-Z_]+)", text))
    assert {name.lower() for name in names} <= set(Settings.model_fields)
    paths = set(re.findall(r"`(?:GET|POST) (/[^`]*)`", text))
    assert paths
    assert paths <= set(create_app(Settings(_env_file=None)).api.openapi()["paths"])


def test_prometheus_reads_the_rules_and_the_configuration():
    promtool("check", "rules", ALERTS)
    promtool("check", "config", PROMETHEUS / "prometheus.yaml")


def test_each_alert_fires_when_it_must_and_not_otherwise():
    tests = Path(__file__).with_name("alerts_test.yaml")
    cases = [
        case
        for test in yaml.safe_load(tests.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules("alert")}
    assert "SUCCESS" in promtool("test", "rules", tests)


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path):
    found = []
    for number, panel in enumerate(panels()):
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            found.append({"record": f"panel:{number}", "expr": expression})
    # Equal rules would be refused: each has its number.
    for number, rule in enumerate(found):
        rule["record"] += f":{number}"
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": found}]}))
    promtool("check", "rules", path)
