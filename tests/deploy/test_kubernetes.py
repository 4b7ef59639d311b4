"""deploy/kubernetes: what kustomize makes of it, against the schemas of three versions."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from app.settings import Settings
from app.settings import _seconds as seconds
from app.telemetry import Metrics
from tests.deploy.backends import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("base", "keda", "adapter")
SCALING = KUBERNETES / "keda" / "scaling.yaml"
VERSIONS = ("1.35", "1.36", "1.37")
KUBECTL = shutil.which("kubectl") or shutil.which("kustomize")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")


@functools.cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """What would be applied. Without kubectl, the files as they stand."""
    if KUBECTL is None:
        return [each for file in manifests(overlay) for each in documents(file)]
    verb = "kustomize" if KUBECTL.endswith("kubectl") else "build"
    run = subprocess.run(
        [KUBECTL, verb, KUBERNETES / overlay],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "deprecated" not in run.stderr
    return list(yaml.safe_load_all(run.stdout))


def documents(file: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def manifests(overlay: str) -> list[Path]:
    folder = KUBERNETES / overlay
    listed = documents(folder / "kustomization.yaml")[0]["resources"]
    found = []
    for name in listed:
        path = folder / name
        assert path.exists(), f"{overlay} lists {name}, which is not there"
        if path.is_file():
            found.append(path)
        elif path.name in OVERLAYS:
            found += manifests(path.name)
    return found


def of_kind(kind: str, overlay: str = "base") -> dict[str, dict[str, Any]]:
    found = [each for each in rendered(overlay) if each["kind"] == kind]
    return {each["metadata"]["name"]: each for each in found}


def pod_of(name: str) -> dict[str, Any]:
    return of_kind("Deployment")[name]["spec"]["template"]["spec"]


def settings_of_pods() -> dict[str, str]:
    lines = (KUBERNETES / "base" / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def validator() -> Iterator[ModuleType]:
    """What validates, made to read each schema once."""
    module = pytest.importorskip("kubernetes_validate")
    utils = import_module("kubernetes_validate.utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield module


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_to_the_letter(validator, version):
    example = documents(KUBERNETES / "base" / "secret.example.yaml")
    found = [*rendered("base"), *of_kind("HorizontalPodAutoscaler", "adapter").values(), *example]
    assert len(found) >= 20
    for manifest in found:
        validator.validate(manifest, version, strict=True)


def test_the_validator_would_notice_a_slip(validator):
    slip = documents(KUBERNETES / "base" / "disruption.yaml")[0]
    slip["spec"]["maxUnavailible"] = 1
    with pytest.raises(validator.ValidationError):
        validator.validate(slip, VERSIONS[-1], strict=True)


def test_every_file_is_listed_and_every_one_listed_is_there():
    for overlay in OVERLAYS:
        folder = KUBERNETES / overlay
        apart = {"kustomization.yaml", "secret.example.yaml", "rules.yaml"}
        present = {file for file in folder.glob("*.yaml") if file.name not in apart}
        assert {file for file in manifests(overlay) if file.parent == folder} == present


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_renders(overlay):
    found = rendered(overlay)
    assert {each["metadata"].get("namespace") for each in found} <= {"pixelmill", None}
    images = [
        container["image"]
        for deployment in of_kind("Deployment", overlay).values()
        for container in deployment["spec"]["template"]["spec"]["containers"]
    ]
    assert len(images) == 3
    assert "pixelmill" not in images, "a registry must be named"
    assert all(re.search(r":[\w.-]+$", image) for image in images)


@needs_kubectl
def test_there_is_one_autoscaler_for_each_deployment():
    scaled = [
        each["spec"]["scaleTargetRef"]["name"] for each in of_kind("ScaledObject", "keda").values()
    ]
    assert sorted(scaled) == ["pixelmill-api", "pixelmill-worker"]
    assert not of_kind("HorizontalPodAutoscaler", "keda")
    adapted = of_kind("HorizontalPodAutoscaler", "adapter")["pixelmill-api"]
    assert [each["type"] for each in adapted["spec"]["metrics"]] == ["Pods"]


def test_api_and_workers_are_one_image_with_one_set_of_settings():
    api, worker = (pod_of(f"pixelmill-{name}")["containers"][0] for name in ("api", "worker"))
    assert api["image"] == worker["image"]
    assert api["envFrom"] == worker["envFrom"]
    assert (api["args"], worker["args"]) == (["pixelmill", "serve"], ["pixelmill", "work"])


@pytest.mark.parametrize("name", ["pixelmill-api", "pixelmill-worker", "pixelmill-balancer"])
def test_pods_have_no_rights(name):
    pod = pod_of(name)
    assert pod["automountServiceAccountToken"] is False
    # A service called pixelmill-api would set PIXELMILL_API_PORT, and stop the service's start.
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_a_pod_that_goes_has_the_time_that_its_drain_takes():
    settings = settings_of_pods()
    delay = seconds(settings["PIXELMILL_DRAIN_DELAY"])
    timeout = seconds(settings["PIXELMILL_DRAIN_TIMEOUT"])
    api, worker = pod_of("pixelmill-api"), pod_of("pixelmill-worker")
    sleep = api["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    handing_back = 6
    assert api["terminationGracePeriodSeconds"] > sleep + delay + timeout + handing_back
    assert worker["terminationGracePeriodSeconds"] > timeout + handing_back
    probe = api["containers"][0]["readinessProbe"]
    assert delay > probe["periodSeconds"] * probe["failureThreshold"]


def test_selectors_find_their_pods():
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"]
        for name, each in of_kind("Deployment").items()
    }

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, own in labels.items() if selector.items() <= own.items()}

    for name, each in of_kind("Deployment").items():
        assert found(each["spec"]["selector"]["matchLabels"]) == {name}
        spread = each["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert all(found(one["labelSelector"]["matchLabels"]) == {name} for one in spread)
    for name, each in of_kind("PodDisruptionBudget").items():
        assert found(each["spec"]["selector"]["matchLabels"]) == {name}
    services = {name: found(each["spec"]["selector"]) for name, each in of_kind("Service").items()}
    assert services == {
        "pixelmill": {"pixelmill-balancer"},
        "pixelmill-api": {"pixelmill-api"},
        "pixelmill-replicas": {"pixelmill-api"},
    }
    ports = {"pixelmill-balancer": 8080, "pixelmill-api": 8000}
    for name, port in ports.items():
        (container,) = pod_of(name)["containers"]
        assert {each["name"]: each["containerPort"] for each in container["ports"]} == {
            "http": port
        }


def test_the_balancer_asks_for_the_service_that_lists_replicas():
    (container,) = pod_of("pixelmill-balancer")["containers"]
    names = {each["name"]: each["value"] for each in container["env"]}
    service = of_kind("Service")["pixelmill-replicas"]
    assert names["REPLICAS"] == "pixelmill-replicas.pixelmill.svc.cluster.local"
    assert service["spec"]["clusterIP"] == "None"
    assert [port["port"] for port in service["spec"]["ports"]] == [8000]
    assert ":8000 resolvers" in (DEPLOY / "haproxy" / "haproxy.cfg").read_text()


def test_nothing_is_let_in_or_out_but_by_name():
    policies = of_kind("NetworkPolicy")
    nothing = policies["pixelmill-nothing"]["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    public = policies["pixelmill-outbound"]["spec"]["egress"][0]["to"]
    refused = {net for each in public for net in each["ipBlock"]["except"]}
    assert {"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= refused
    assert {"fc00::/7", "fe80::/10"} <= refused


# KEDA's own kinds are in no schema that comes with the validator: these are the fields that
# ScaledObject has (keda.sh/v1alpha1), and those of the two triggers that are used here.
_SCALED = {
    "scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount",
    "fallback", "advanced", "triggers",
}  # fmt: skip
_TRIGGERS = {
    "prometheus": {"serverAddress", "query", "threshold", "ignoreNullValues"},
    "metrics-api": {"url", "format", "valueLocation", "targetValue"},
}


def scaled_objects() -> list[dict[str, Any]]:
    return documents(SCALING)


def test_scaled_objects_say_only_what_keda_knows():
    for each in scaled_objects():
        assert (each["apiVersion"], each["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
        assert each["spec"].keys() <= _SCALED
        assert 1 <= each["spec"]["minReplicaCount"] < each["spec"]["maxReplicaCount"]
        for trigger in each["spec"]["triggers"]:
            assert trigger.keys() <= {"type", "name", "metricType", "metadata"}
            assert trigger["metricType"] in ("AverageValue", "Value")
            assert trigger["metadata"].keys() == _TRIGGERS[trigger["type"]]
            assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_demand_is_of_replicas_alone_and_counts_refusals_where_nothing_is_rendered(tmp_path):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    api, worker = (f'namespace="pixelmill",pod="pixelmill-{name}-1"' for name in ("api", "worker"))
    series = {
        f"pixelmill_workers_busy_seconds_total{{{api}}}": "0+60x10",
        f"pixelmill_workers_busy_seconds_total{{{worker}}}": "0+240x10",
        f"pixelmill_workers{{{api}}}": "2x10",
        f"pixelmill_workers{{{worker}}}": "4x10",
        f'pixelmill_sheds_total{{{api},lane="interactive",reason="queue"}}': "0+60x10",
        f'pixelmill_renders_total{{{worker},original="jpeg",result="webp"}}': "0+600x10",
    }
    # One busy replica, and nothing but refusals: twenty times as much is the most that is believed.
    (query,) = re.findall(r"query: >-\n(.*?)\n +threshold:", SCALING.read_text(), re.DOTALL)
    case = {
        "interval": "30s",
        "input_series": [{"series": name, "values": told} for name, told in series.items()],
        "promql_expr_test": [
            {
                "expr": " ".join(query.split()),
                "eval_time": "4m",
                "exp_samples": [{"labels": "{}", "value": 20.0}],
            }
        ],
    }
    (tmp_path / "demand.yaml").write_text(yaml.safe_dump({"tests": [case]}))
    run = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "demand.yaml"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_behaviour_of_scaled_objects_is_one_that_autoscalers_know(validator):
    base = of_kind("HorizontalPodAutoscaler")
    for each in scaled_objects():
        autoscaler = dict(base[each["metadata"]["name"]])
        advanced = each["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
        assert advanced.keys() == {"behavior"}
        autoscaler["spec"] = {**autoscaler["spec"], **advanced}
        validator.validate(autoscaler, VERSIONS[-1], strict=True)


def test_scalers_ask_a_service_that_there_is():
    services = of_kind("Service")
    urls = re.findall(r"^\W*url: (\S+)$", SCALING.read_text(), re.MULTILINE)
    assert len(urls) == 2
    for url in map(urlsplit, urls):
        name, namespace, *rest = str(url.hostname).split(".")
        assert (namespace, rest) == ("pixelmill", ["svc", "cluster", "local"])
        assert (url.port or 80) in [port["port"] for port in services[name]["spec"]["ports"]]


def test_scalers_find_their_numbers_in_what_the_service_answers(serve, tmp_path):
    answer = serve(database=f"sqlite:///{tmp_path / 'jobs.db'}").get("/autoscale")
    text = SCALING.read_text()
    for place in re.findall(r"^\W*valueLocation: (\S+)$", text, re.MULTILINE):
        value = functools.reduce(lambda found, name: found[name], place.split("."), answer.json())
        assert isinstance(value, int | float), place


def test_every_metric_of_scalers_exists():
    # A counter's family is named without `_total`, and has no samples before it has labels.
    families = [family.name for family in Metrics().registry.collect()]
    names = {*families, *(f"{name}_total" for name in families)}
    for file in (SCALING, KUBERNETES / "adapter" / "rules.yaml"):
        text = file.read_text()
        found = set(re.findall(r"\bpixelmill_\w+", text)) - {"pixelmill_utilisation"}
        assert found
        assert found <= names
    adapted = (KUBERNETES / "adapter" / "kustomization.yaml").read_text()
    assert "name: pixelmill_utilisation" in adapted


def test_what_pods_are_told_is_a_setting_that_the_service_takes(monkeypatch):
    for name, value in settings_of_pods().items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.originals == "s3://pixelmill-originals"
    assert settings.run_jobs is False
    secret = documents(KUBERNETES / "base" / "secret.example.yaml")[0]["stringData"]
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    assert len(Settings(_env_file=None).signing_keys) == 1
