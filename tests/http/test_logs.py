"""Logs: one event for each request, all in one form, and nothing secret in any of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from app.signing import Signer
from tests.http import originals as draw

ROOT = Path(__file__).resolve().parents[2]
HUSH = "hush-hush-and-never-tell"
KEY = f"k1:{HUSH}-key"
TOKEN = f"{HUSH}-token"
PRESIGNED = f"X-Amz-Credential={HUSH}%2Fus-east-1&X-Amz-Signature={HUSH}"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = PARENT.split("-")[1]


class Process:
    """`pixelmill serve` in a process of its own, and what it has logged."""

    def __init__(self, folder: Path, **options: str) -> None:
        draw.put(folder / "originals", "cat.jpg", draw.jpeg())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "log"
        settings = {"port": str(port), "log_level": "debug", "log_format": "json", **options}
        settings |= {name: f"file:{folder / name}" for name in ("originals", "results")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve"],
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    **{f"PIXELMILL_{name.upper()}": value for name, value in settings.items()},
                },
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 45
        while True:
            try:
                httpx.get(f"{self.url}/livez", trust_env=False)
            except httpx.TransportError:
                assert self._process.poll() is None, self.text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def text(self) -> str:
        return self._log.read_text()

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.text().splitlines()]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def process(tmp_path):
    started = Process(
        tmp_path,
        keys=KEY,
        api_tokens=TOKEN,
        database=f"sqlite:///{tmp_path / 'jobs.db'}",
        allowed_sources="127.0.0.1:*",
        targets="http://127.0.0.1:*/*",
        allow_private_networks="1",
        fetch_timeout="2s",
    )
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def ask_secretly(client, process, origin):
    """Ask for what works and for what fails, with secrets in all the places there are."""
    bearer = {"authorization": f"Bearer {TOKEN}"}
    signed = Signer({"k1": KEY.removeprefix("k1:").encode()}).sign("/thumb/cat.jpg?w=20")
    traced = {"traceparent": PARENT, "x-request-id": "asked-for-1"}
    assert client.get(signed, headers=traced).status_code == 200
    assert client.get(signed, headers=traced).headers["cache-status"] == "pixelmill-memory; hit"
    assert client.get(f"/thumb/cat.jpg?w=20&sig=k1.{HUSH}").status_code == 403
    found = quote(f"{origin.url}/cat.jpg?{PRESIGNED}")
    assert client.get(f"/thumb?url={found}&w=20").status_code == 200
    for url in (
        f"{origin.url}/missing.jpg?{PRESIGNED}",
        f"http://127.0.0.1:1/cat.jpg?{PRESIGNED}",
        f"http://somebody:{HUSH}@127.0.0.1:1/cat.jpg",
        f"http://elsewhere.example/cat.jpg?{PRESIGNED}",
    ):
        assert client.get("/thumb", params={"url": url, "w": "20"}).status_code >= 400
    put = client.put("/images/a.jpg", content=draw.jpeg(), headers=bearer)
    assert put.status_code == 201
    wrong = {"authorization": f"Bearer wrong-{HUSH}"}
    assert client.put("/images/b.jpg", content=draw.jpeg(), headers=wrong).status_code == 401
    job = {
        "source": "cat.jpg",
        "outputs": [{"transform": {"w": 9}, "target": f"http://127.0.0.1:1/x?{PRESIGNED}"}],
        "retries": 0,
    }
    sent = client.post("/jobs", json=job, headers={**bearer, "prefer": "wait=10"})
    assert sent.json()["state"] == "failed", sent.text
    with socket.create_connection(("127.0.0.1", int(process.url.rsplit(":", 1)[1]))) as raw:
        raw.sendall(b"this is no HTTP\r\n\r\n")
        raw.recv(1000)


def test_every_line_is_an_event_and_none_tells_a_secret(process, origin):
    with httpx.Client(base_url=process.url, trust_env=False) as client:
        ask_secretly(client, process, origin)
    process.stop()

    assert HUSH not in process.text()
    events = process.events()
    assert all({"event", "level", "timestamp"} <= event.keys() for event in events)
    library = [event for event in events if event.get("logger") == "uvicorn.error"]
    assert "Invalid HTTP request received." in {event["event"] for event in library}
    assert any(event["event"] == "job_failed" for event in events)

    requests = [event for event in events if event["event"] == "request"]
    rendered, hit, refused = [e for e in requests if e["route"] == "/thumb/{id}"]
    told = {"method": "GET", "path": "/thumb/cat.jpg", "status": 200, "format": "jpeg"}
    told |= {"request_id": "asked-for-1", "trace_id": TRACE}
    assert told.items() <= rendered.items()
    assert {"tier": "render", "lane": "interactive", "bytes_in": 0}.items() <= rendered.items()
    assert rendered["original_bytes"] == len(draw.jpeg())
    assert rendered["bytes_out"] > 0
    assert rendered["ms"] > 0
    assert rendered["queue_ms"] >= 0
    assert told.items() <= hit.items()
    assert (hit["tier"], hit["level"]) == ("memory", "debug")
    assert (refused["status"], refused["level"]) == (403, "info")
    (kept,) = (e for e in requests if e["status"] == 201)
    assert kept["bytes_in"] == len(draw.jpeg())
    assert len([e for e in requests if e["route"] == "/thumb"]) == 5


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_libraries_log_comes_in_the_same_form_and_without_secrets(form):
    code = f"""
import logging, warnings
import structlog
from app.settings import Settings
from app.telemetry import configure_logs

configure_logs(Settings(_env_file=None, log_format="{form}", api_tokens=("{TOKEN}@events",)))
logging.getLogger("botocore").warning("retrying %s", "https://b.example/a?{PRESIGNED}")
logging.getLogger("botocore").info("nobody asked for this")
logging.getLogger("pyvips").warning("VIPS: the profile is broken")
warnings.warn("old use of {TOKEN}")
structlog.contextvars.bind_contextvars(request_id="r-1")
try:
    raise ValueError("https://me:{HUSH}@b.example/a?X-Amz-Signature={HUSH}")
except ValueError:
    logging.getLogger("asyncio").exception("it failed")
    structlog.get_logger().exception("defect")
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "unused-here"},
    )
    assert HUSH not in run.stderr
    assert "nobody asked" not in run.stderr
    for told in ("retrying https://b.example/a?", "VIPS: the profile is broken", "ValueError"):
        assert told in run.stderr
    if form == "json":
        events = [json.loads(line) for line in run.stderr.splitlines()]
        named = [event.get("logger") for event in events]
        assert named == ["botocore", "pyvips", "py.warnings", "asyncio", None]
        assert [event["level"] for event in events[3:]] == ["error", "error"]
        assert all(event["request_id"] == "r-1" and event["exception"] for event in events[3:])
