"""For those who run the service: health, metrics, and what it understands."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families

from app import __version__
from app.admission import Lane
from app.jobs.records import State
from app.settings import Settings
from app.telemetry import Metrics
from docs.tables import problem_codes
from tests.http import originals as draw
from tests.serving import serving
from transforms import foreign, libvips
from transforms.options import OPTIONS, OUTPUTS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for floor in ("app", "routers") for path in sorted((ROOT / floor).rglob("*.py"))]


def test_livez_answers_whatever_happens(serve):
    served = serve()
    served.app.api.state.service.draining = True
    assert served.get("/livez").json() == {"status": "alive"}


def test_readyz_turns_when_the_replica_drains(serve, folder):
    served = serve()
    ready = served.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "version": __version__,
        "libvips": "{}.{}.{}".format(*libvips.VERSION),
        "renders_running": 0,
        "renders_queued": 0,
    }
    served.app.api.state.service.draining = True
    turned = served.get("/readyz")
    assert turned.status_code == 503
    assert turned.json()["status"] == "draining"
    assert served.get("/thumb/cat.jpg?w=20").status_code == 200


def test_a_folder_of_originals_that_is_not_there_is_a_fault_of_the_store(serve, tmp_path):
    folder = tmp_path / "mounted" / "originals"
    served = serve(originals=f"file:{folder}")
    turned = served.get("/readyz")
    assert turned.status_code == 503
    assert turned.json()["status"] == "misconfigured"
    assert turned.json()["detail"].startswith("The folder of originals cannot be used")
    assert str(folder) not in turned.text
    assert served.get("/livez").status_code == 200
    for path in ("/thumb/cat.jpg?w=20", "/info/cat.jpg", "/images/cat.jpg"):
        answer = served.get(path)
        assert (answer.status_code, answer.json()["code"]) == (502, "store_misconfigured")
        assert str(folder) not in answer.text
    assert not folder.exists()
    draw.put(folder, "cat.jpg", draw.jpeg())
    assert served.get("/readyz").status_code == 200
    assert served.get("/thumb/cat.jpg?w=20").status_code == 200


def test_the_default_folder_of_originals_is_made_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving(results="off") as served:
        assert served.get("/readyz").status_code == 200
        assert served.get("/thumb/cat.jpg?w=20").status_code == 404
    assert (tmp_path / "data" / "originals").is_dir()


def test_a_replica_that_drains_has_its_clients_leave(serve, folder):
    served = serve()
    for _ in range(2):
        assert "close" not in served.get("/thumb/cat.jpg?w=20").headers.get("connection", "")
    served.app.drain()
    for path in ("/thumb/cat.jpg?w=20", "/thumb/cat.jpg?w=20", "/livez", "/nowhere"):
        assert served.get(path).headers["connection"] == "close"
    assert served.get("/readyz").status_code == 503


def declared():
    """The names of every metric that the service has of its own."""
    return {
        family.name
        for family in Metrics().registry.collect()
        if family.name.startswith("pixelmill_")
    }


def test_metrics_are_what_prometheus_reads_and_all_are_there(serve, folder, until):
    served = serve()
    for _ in range(2):
        served.get("/thumb/cat.jpg?w=20")
    served.get("/thumb/missing.jpg")
    until(lambda: served.metric("pixelmill_requests_total") == 3)
    answer = served.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert declared() <= families.keys()
    assert {"process_resident_memory_bytes", "process_open_fds"} <= families.keys()
    for name in declared():
        assert families[name].documentation, name
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    asked = ("method", "GET"), ("route", "/thumb/{id}")
    assert values["pixelmill_requests_total", *asked, ("status", "200")] == 2
    assert values["pixelmill_requests_total", *asked, ("status", "404")] == 1
    assert values["pixelmill_results_total", ("tier", "render")] == 1
    assert values["pixelmill_results_total", ("tier", "memory")] == 1
    assert values["pixelmill_renders_total", ("original", "jpeg"), ("result", "jpeg")] == 1
    assert values["pixelmill_downloads_total", ("outcome", "complete"), ("source", "id")] == 1
    size = len((folder.path / "cat.jpg").read_bytes())
    assert values[("pixelmill_rendered_original_bytes_total",)] == size
    assert values["pixelmill_received_bytes_total", ("source", "id")] == size
    fetched = "pixelmill_fetch_seconds_count", ("outcome", "complete"), ("source", "id")
    assert values[fetched] == 1
    saved = values[("pixelmill_saved_bytes_total",)]
    assert saved == size - len(served.get("/thumb/cat.jpg?w=20").content) > 0
    tiers = {
        (dict(key[1:])["tier"], dict(key[1:])["outcome"]): value
        for key, value in values.items()
        if key[0] == "pixelmill_tier_requests_total"
    }
    assert tiers == {("memory", "hit"): 1, ("memory", "miss"): 1, ("stored", "miss"): 1}
    assert values[("pixelmill_memory_tier_bytes",)] > 0


def test_the_bytes_that_are_sent_are_counted_hits_and_misses_alike(serve, folder, until):
    served = serve()
    sizes = [len(served.get("/thumb/cat.jpg?w=20").content) for _ in range(3)]
    until(lambda: served.metric("pixelmill_sent_bytes_total") == sum(sizes))
    served.client.head("/thumb/cat.jpg?w=20")
    served.client.head("/thumb/cat.jpg?w=20", headers={"authorization": "Bearer x"})
    served.client.head("/thumb/missing.jpg")
    until(lambda: served.metric("pixelmill_requests_total") == 6)
    assert served.metric("pixelmill_sent_bytes_total") == sum(sizes)


def test_the_labels_of_metrics_are_bounded_whatever_is_asked_for(serve, folder):
    served = serve()
    for n in range(5):
        served.get(f"/nowhere/{n}")
        served.get(f"/thumb/missing-{n}.jpg?w={n}")
        served.get(f"/images/missing-{n}.jpg")
        served.get(f"/thumb?url=https://host-{n}.example/a.jpg")
        served.client.request(f"METHOD{n}", "/thumb/cat.jpg")
        served.client.post(f"/transform?w={n + 1}", content=draw.TEXT)
    text = served.get("/metrics").text
    routes = set(re.findall(r'route="([^"]*)"', text))
    assert routes <= {
        "/thumb/{id}",
        "/thumb",
        "/images/{id}",
        "/images",
        "/transform",
        "/livez",
        "/readyz",
        "/metrics",
        "/schema",
        "/",
        "unmatched",
    }
    assert "missing-1" not in text
    assert "host-1" not in text
    assert set(re.findall(r'method="([^"]*)"', text)) <= {"GET", "POST", "other"}


LABELS = {
    "cause": {"timeout", "crash", "fork", "start"},
    "code": {code for _, code in re.findall(r"\| (\d+) \| `(\w+)` \|", problem_codes())},
    "lane": {lane.name.lower() for lane in Lane},
    "method": {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "other"},
    "origin": {"here", "elsewhere"},
    "original": {*OUTPUTS, *foreign.NAMES},
    "reason": {"queue", "memory", "deadline", "documents"},
    "result": {*OUTPUTS},
    "source": {"id", "url", "upload"},
    "stage": {"fetch", "look", "claim", "queue", "draw", "decode", "encode"},
    "state": {*State},
    "subject": {"id", "url", "prefix", "preset"},
    "tier": {"memory", "stored", "render", "stale"},
}
"""Every label that is not a route, a status, an outcome, or of the build, and what it may be."""


def test_every_label_has_few_values_and_they_are_known(serve, folder, until):
    served = serve()
    folder.put("drawing.svg", draw.SVG)
    for path in ("cat.jpg?w=20", "cat.jpg?w=20", "ring.png?fm=webp", "drawing.svg", "no.jpg"):
        served.get(f"/thumb/{path}")
    served.client.post("/transform?w=9", content=draw.jpeg())
    served.client.post("/transform?w=9", content=draw.TEXT)
    served.client.put("/images/new.jpg", content=draw.jpeg())
    until(lambda: served.metric("pixelmill_requests_total") == 8)
    uploaded = 2 * len(draw.jpeg()) + len(draw.TEXT)
    assert served.metric("pixelmill_received_bytes_total", source="upload") == uploaded
    assert served.metric("pixelmill_child_starts_total") == 1
    served.get("/metrics")
    samples = [
        sample
        for family in served.app.api.state.service.metrics.registry.collect()
        if family.name.startswith("pixelmill_")
        for sample in family.samples
    ]
    outcomes = {"hit", "miss", "complete", "stored", "failed", "dropped"}
    outcomes |= {"succeeded", "delivered", "retried"} | LABELS["code"]
    codes = {"status": r"[1-5]\d\d", "route": r"/[a-z_/.{}]*|unmatched", "le": r"[\d.]+|\+Inf"}
    codes |= dict.fromkeys(("version", "libvips", "python"), r"[\d.]+")
    for sample in samples:
        for label, value in sample.labels.items():
            if label in codes:
                assert re.fullmatch(codes[label], value), sample
            else:
                assert value in {"outcome": outcomes, **LABELS}[label], sample


def test_metrics_keep_the_conventions_of_prometheus_and_openmetrics(standing):
    standing.get("/thumb/cat.jpg?w=20")
    served = standing.app.api.state.service.metrics.registry
    strict = parser.text_string_to_metric_families
    families = list(strict(exposition.generate_latest(served).decode()))
    for family in families:
        if not family.name.startswith("pixelmill_"):
            continue
        # Counters end in _total where they are exposed, and nothing else does.
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert not re.search(r"_(ms|milliseconds|kb|mb)(_|$)", family.name)
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=standing.get("/metrics").text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_schema_has_a_row_for_every_option(standing):
    schema = standing.get("/schema").json()
    rows = {row["name"]: row for row in schema["parameters"]}
    assert list(rows) == [option.name for option in OPTIONS]
    for option in OPTIONS:
        row = rows[option.name]
        assert {option.name, *row["aliases"]} == set(option.spellings)
        assert row["help"]
        assert row["expects"]
        # Its own example and default are values that it takes.
        option.kind.read(row["example"])
        if row["default"] is not None:
            assert option.kind.read(row["default"]) == option.default
    assert set(schema["formats"]) == {"jpeg", "png", "webp", "avif", "gif", "tiff"}


def test_the_schema_lists_what_requests_say_beside_the_transform(standing):
    document = standing.get("/openapi.json").json()
    rows = {row["name"]: row for row in standing.get("/schema").json()["requests"]}
    options = {name for option in OPTIONS for name in option.spellings}
    for route in ("/thumb", "/kit", "/info"):
        known = {each["name"] for each in document["paths"][route]["get"]["parameters"]}
        listed = {name for name, row in rows.items() if route in row["routes"]}
        assert listed == known - options
        assert all(rows[name]["help"] and rows[name]["schema"] for name in listed)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/schema", "/", "/openapi.json"])
def test_head_is_answered_wherever_get_is(standing, path):
    head = standing.client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == standing.get(path).headers["content-type"]


def test_the_front_page_names_paths_that_there_are(standing):
    page = standing.get("/").json()
    assert page["service"] == "pixelmill"
    assert standing.get(page["parameters"]).status_code == 200
    assert standing.get(page["openapi"]).status_code == 200


def attributes_read(paths):
    """Every name that stands after a dot somewhere in these files."""
    return {
        node.attr
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_metric_is_counted_somewhere():
    elsewhere = attributes_read([path for path in SOURCES if path.parent.name != "telemetry"])
    public = {name for name in vars(Metrics()) if not name.startswith("_")}
    assert public - elsewhere - {"registry"} == set()


def test_every_setting_is_read_somewhere():
    """Outside settings.py, or there by a property that is read outside."""
    settings_file = ROOT / "app" / "settings.py"
    elsewhere = attributes_read([path for path in SOURCES if path != settings_file])
    (settings_class,) = (
        node
        for node in ast.parse(settings_file.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    by_property = {
        node.attr
        for method in settings_class.body
        if isinstance(method, ast.FunctionDef) and method.name in elsewhere
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
    }
    assert set(Settings.model_fields) - elsewhere - by_property == set()


def test_every_setting_says_what_it_is_for():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
