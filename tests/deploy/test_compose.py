"""deploy/compose.yaml: against the schema of the Compose specification, and against itself."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
import yaml

from app.settings import Settings
from app.settings import _seconds as seconds
from tests.deploy.backends import DEPLOY

COMPOSE = DEPLOY / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def example() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def services(compose) -> dict[str, dict[str, Any]]:
    return compose["services"]


def interpolate(text: str) -> str:
    """As Compose does with the example's variables."""
    known = example()

    def value(match: re.Match[str]) -> str:
        name, kind, word = match.groups()
        if kind == ":-":
            return known.get(name) or word
        return known[name]

    return _VARIABLE.sub(value, text)


def test_it_is_what_the_specification_says(compose):
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("check_jsonschema")
    folder = files("check_jsonschema").joinpath("builtin_schemas", "vendor")
    schema = json.loads(folder.joinpath("compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    filled = yaml.safe_load(interpolate(COMPOSE.read_text()))
    assert [error.message for error in validator.iter_errors(filled)] == []
    filled["services"]["api"]["retsart"] = "always"
    assert [*validator.iter_errors(filled)]


def test_the_example_names_every_variable_and_no_other(compose):
    used = {match[1] for match in _VARIABLE.finditer(COMPOSE.read_text())}
    assert used == set(example())


def test_what_a_service_refers_to_is_there(compose, services):
    for name, service in services.items():
        assert set(service.get("networks", ())) <= set(compose["networks"]), name
        assert set(service.get("depends_on", ())) <= set(services), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), (name, source)
            else:
                assert source in compose["volumes"], (name, source)


def test_every_service_is_bounded_and_watched(services):
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "memory" in service["deploy"]["resources"]["limits"], name
        assert "healthcheck" in service, name
        assert "build" in service or re.search(r":\w*[\d.]+", service["image"]), name


def test_the_numbers_are_those_of_one_machine(services):
    assert services["api"]["scale"] == 3
    assert services["worker"]["scale"] == 2
    assert services["api"]["image"] == services["worker"]["image"]
    assert services["api"]["environment"] == services["worker"]["environment"]
    assert services["worker"]["command"] == ["pixelmill", "work"]
    # A worker answers nobody, so what the image asks would find it unwell for ever.
    assert services["worker"]["healthcheck"] == {"disable": True}


def test_only_balancer_and_grafana_are_reached_from_outside(services):
    published = {name for name, service in services.items() if "ports" in service}
    assert published == {"balancer", "grafana"}
    for name in ("s3", "postgres"):
        assert services[name]["networks"] == ["inside"]


def test_the_balancer_finds_the_replicas(services):
    assert services["balancer"]["environment"]["REPLICAS"] == "api"
    assert (
        "./haproxy/haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"
        in (services["balancer"]["volumes"])
    )


def test_who_is_stopped_has_the_time_that_it_takes(services):
    environment = services["api"]["environment"]
    delay = seconds(environment["PIXELMILL_DRAIN_DELAY"])
    timeout = seconds(environment["PIXELMILL_DRAIN_TIMEOUT"])
    handing_back = 6
    assert seconds(services["api"]["stop_grace_period"]) > delay + timeout + handing_back
    assert seconds(services["worker"]["stop_grace_period"]) > timeout + handing_back


def test_what_is_set_is_what_the_service_takes(services, monkeypatch):
    for name, value in services["api"]["environment"].items():
        monkeypatch.setenv(name, interpolate(value))
    settings = Settings(_env_file=None)
    assert settings.originals == "s3://originals"
    assert settings.run_jobs is False
    assert settings.require_signature == "off"
    assert settings.allowed_sources == ()


def test_the_stores_are_the_buckets_that_the_server_makes(services):
    environment = services["api"]["environment"]
    made = next(word for word in services["s3"]["command"] if word.startswith("-bucket="))
    wanted = [environment[f"PIXELMILL_{name}"] for name in ("ORIGINALS", "RESULTS")]
    assert made.removeprefix("-bucket=").split(",") == [
        place.removeprefix("s3://") for place in wanted
    ]
    assert environment["AWS_ENDPOINT_URL_S3"] == "http://s3:8333"
    assert "-s3.port=8333" in services["s3"]["command"]
