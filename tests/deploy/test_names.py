"""What the files of deploy/ and the Dockerfile name is there: settings, times, ports, commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import PREFIX, Settings
from app.settings import _seconds as seconds
from routers.jobs import _LONGEST_WAIT
from tests.deploy.backends import DEPLOY, ROOT

FILES = sorted(
    path
    for path in (*DEPLOY.rglob("*"), ROOT / "Dockerfile")
    if path.is_file() and path.suffix in {"", ".md", ".yaml", ".yml", ".cfg", ".conf", ".env",
                                          ".example", ".vcl", ".js", ".mjs"}
)  # fmt: skip


def default(name: str) -> float:
    return float(Settings.model_fields[name].get_default())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(path):
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(r"\bPIXELMILL_[A-Z0-9_]*[A-Z0-9]", path.read_text()))
    # A variable of Kubernetes that must not be there.
    assert named - {"PIXELMILL_API_PORT"} <= known


def balancer_time(name: str) -> float:
    found = re.search(rf"^\s+.*\b{name} (\d+m?s)\b", haproxy(), re.MULTILINE)
    assert found, name
    return float(seconds(found[1]))


def haproxy() -> str:
    return (DEPLOY / "haproxy" / "haproxy.cfg").read_text()


def test_idle_connections_live_longer_the_further_in_they_are():
    assert balancer_time("pool-purge-delay") < default("keep_alive")
    nginx = (DEPLOY / "nginx" / "nginx.conf").read_text()
    kept = [float(each) for each in re.findall(r"keepalive_timeout (\d+)s;", nginx)]
    assert kept == [65, 30, 30]
    assert kept[1] < default("keep_alive")


def test_balancers_wait_longer_than_the_longest_answer():
    longest = max(_LONGEST_WAIT, default("upload_timeout"))
    nginx = (DEPLOY / "nginx" / "nginx.conf").read_text()
    varnish = (DEPLOY / "cdn" / "varnish.vcl").read_text()
    waits = [
        balancer_time("timeout server"),
        *(float(each) for each in re.findall(r"proxy_read_timeout (\d+)s;", nginx)),
        *(float(each) for each in re.findall(r"first_byte_timeout = (\d+)s;", varnish)),
    ]
    assert len(waits) == 3
    assert min(waits) > longest
    assert balancer_time("hard-stop-after") > longest


def test_a_balancer_notices_a_drain_within_the_delay():
    checks = int(re.search(r"\bfall (\d+)", haproxy())[1])
    noticed = balancer_time("inter") + (checks - 1) * balancer_time("fastinter")
    noticed += balancer_time("timeout check")
    for file in ("compose.yaml", "kubernetes/base/settings.env"):
        text = (DEPLOY / file).read_text()
        delay = seconds(re.search(r"PIXELMILL_DRAIN_DELAY[:=]\s*(\w+)", text)[1])
        assert delay > noticed


def test_the_dockerfile_passes_its_linter():
    beside = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint", path=beside) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    run = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_image_runs_as_the_user_that_pods_run_as():
    text = (ROOT / "Dockerfile").read_text()
    user = re.search(r"^USER (\d+)$", text, re.MULTILINE)[1]
    assert f"useradd --uid {user} " in text
    for name in ("api", "worker"):
        manifest = (DEPLOY / "kubernetes" / "base" / f"{name}.yaml").read_text()
        assert f"runAsUser: {user}\n" in manifest


def test_the_image_holds_what_it_needs_and_nothing_that_is_secret():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".env", "**/.env", "data"} <= set(ignored)
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for names in copied:
        for name in names.split():
            assert (ROOT / name).exists()
            assert name not in ignored
