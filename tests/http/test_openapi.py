"""The OpenAPI document is true: whatever fits it, or does not, gets an answer that it declares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from app.settings import Settings
from tests.http import originals as draw
from transforms.options import OPTIONS

DOCUMENT = create_app(Settings(_env_file=None)).api.openapi()
OPERATIONS = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if method in ("get", "head", "put", "post", "delete")
]


def takes_json(method, path):
    body = DOCUMENT["paths"][path][method.lower()].get("requestBody", {})
    return "application/json" in body.get("content", {})


def of_jobs(method, path):
    return "jobs" in DOCUMENT["paths"][path][method.lower()]["tags"]


GENERATED = [
    (method, path, mode)
    for method, path in OPERATIONS
    for mode in GenerationMode
    # Where there are no parameters to the query, nothing can be wrong with them.
    if mode.is_positive
    or DOCUMENT["paths"][path][method.lower()].get("parameters", [])[1:]
    or takes_json(method, path)
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
GENEROUS = settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
IDS = ["cat.jpg", "ring.png", "folder/cat.jpg", "letter.txt", "missing.jpg"]
PICTURES = {"jpeg": draw.jpeg(draw.quarters(60, 30)), "png": draw.png(draw.ring(30))}


def test_the_document_names_every_path(standing):
    served = standing.get("/openapi.json").json()
    assert served == DOCUMENT
    assert set(OPERATIONS) == {
        ("GET", "/thumb/{id}"),
        ("GET", "/thumb"),
        ("GET", "/images/{id}"),
        ("PUT", "/images/{id}"),
        ("DELETE", "/images/{id}"),
        ("POST", "/images"),
        ("POST", "/transform"),
        ("POST", "/jobs"),
        ("GET", "/jobs"),
        ("GET", "/jobs/{id}"),
        ("POST", "/jobs/{id}/cancel"),
        ("POST", "/jobs/{id}/retry"),
        ("GET", "/jobs/{id}/events"),
        ("POST", "/batches"),
        ("GET", "/batches"),
        ("GET", "/batches/{id}"),
        ("GET", "/batches/{id}/results"),
        ("GET", "/batches/{id}/events"),
        ("POST", "/batches/{id}/cancel"),
        ("POST", "/batches/{id}/retry"),
        ("GET", "/webhooks/deliveries"),
        ("GET", "/webhooks/deliveries/{id}"),
        ("POST", "/webhooks/deliveries/{id}/replay"),
        ("GET", "/dead-letters"),
        ("GET", "/dead-letters/{id}"),
        ("POST", "/dead-letters/redrive"),
        ("POST", "/dead-letters/purge"),
        ("POST", "/purge"),
        ("GET", "/quarantine"),
        ("DELETE", "/quarantine/{digest}"),
        ("GET", "/queue"),
        ("POST", "/queue/pause"),
        ("POST", "/queue/resume"),
        ("POST", "/events/s3"),
        ("GET", "/rules"),
        ("POST", "/rules"),
        ("GET", "/rules/{id}"),
        ("PUT", "/rules/{id}"),
        ("DELETE", "/rules/{id}"),
        ("GET", "/livez"),
        ("GET", "/presets"),
        ("GET", "/info/{id}"),
        ("GET", "/info"),
        ("GET", "/kit/{id}"),
        ("GET", "/kit"),
        ("GET", "/readyz"),
        ("GET", "/schedules"),
        ("POST", "/schedules"),
        ("GET", "/schedules/{id}"),
        ("PUT", "/schedules/{id}"),
        ("DELETE", "/schedules/{id}"),
        ("POST", "/schedules/{id}/pause"),
        ("POST", "/schedules/{id}/resume"),
        ("POST", "/schedules/{id}/run"),
        ("GET", "/metrics"),
        ("GET", "/autoscale"),
        ("GET", "/schema"),
        ("GET", "/"),
    }


def test_the_document_has_every_option_as_a_parameter():
    for method, path in (("get", "/thumb/{id}"), ("get", "/thumb"), ("post", "/transform")):
        rows = {row["name"]: row for row in DOCUMENT["paths"][path][method]["parameters"]}
        assert {option.name for option in OPTIONS} <= rows.keys()
        for option in OPTIONS:
            assert rows[option.name]["description"] == option.help


def test_the_document_is_the_same_every_time():
    """Whatever order Python's sets have today."""
    code = (
        "import json; from app.main import create_app; from app.settings import Settings;"
        "print(json.dumps(create_app(Settings(_env_file=None)).api.openapi()))"
    )
    # This process has an order of its own.
    found = {json.dumps(create_app(Settings(_env_file=None)).api.openapi()) + "\n"}
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        found.add(run.stdout)
    assert len(found) == 1


def test_every_operation_has_a_name_of_its_own():
    names = [
        operation["operationId"]
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
    ]
    assert len(names) == len(set(names)) == len(OPERATIONS)


@pytest.mark.parametrize("operation", GENERATED, ids=" ".join)
def test_no_request_gets_an_answer_that_is_not_declared(serve, folder, origin, operation, tmp_path):
    method, path, mode = operation
    folder.put("folder/cat.jpg", draw.jpeg(draw.quarters(90, 60)))
    folder.put("letter.txt", draw.TEXT)
    served = serve(
        results="off",
        allowed_sources="127.0.0.1:*",
        allow_private_networks=True,
        # Small results, so that no example takes long.
        max_result_pixels=60_000,
        queue_interactive="1h",
        queue_api="1h",
        **({"database": f"sqlite:///{tmp_path / 'pixelmill.db'}"} if of_jobs(method, path) else {}),
    )
    described = schemathesis.openapi.from_dict(DOCUMENT)[path][method]

    fixed = {}
    if "{id}" in path:
        fixed["path_parameters"] = st.sampled_from(IDS).map(lambda key: {"id": key})
    if path == "/thumb":
        urls = st.sampled_from([f"{origin.url}/cat.jpg", f"{origin.url}/missing.jpg"])
        fixed["query"] = urls.map(lambda url: {"url": url})
    if method in ("PUT", "POST") and path != "/purge" and not of_jobs(method, path):
        fixed["body"] = st.sampled_from(list(PICTURES.values()))
        fixed["media_type"] = st.just("application/octet-stream")

    strategies = [described.as_strategy(generation_mode=mode)]
    if fixed:
        strategies.append(
            st.fixed_dictionaries(fixed).flatmap(
                lambda values: described.as_strategy(generation_mode=mode, **values)
            )
        )
    with requests.Session() as session:
        session.trust_env = False

        def check(case):
            answer = case.call(base_url=served.url, session=session)
            if answer.content != b"Invalid HTTP request received.":  # said before it came here
                case.validate_response(answer, checks=CHECKS)

        for strategy in strategies:
            GENEROUS(given(case=strategy)(check))()
    assert served.metric("pixelmill_requests_total", status="500") == 0
