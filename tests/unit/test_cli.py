"""The command line: what it makes, what it says, and how it fails."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from app import __version__
from app.cli import cli
from app.client import default_server
from app.jobs.database import Database
from app.jobs.migrations import known_revisions, upgrade
from app.settings import Settings
from app.signing import Signer
from tests.http import originals as draw

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """A working directory of its own, with a picture in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jpg").write_bytes(draw.jpeg())
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def failure(*arguments):
    """The one line that a command says when it cannot do what it should."""
    found = run(*arguments)
    assert found.exit_code == 2, found.output
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    lines = found.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("pixelmill: ")
    return lines[0]


def test_help_names_every_command():
    found = run("--help")
    assert found.exit_code == 0
    for command in ("serve", "transform", "sign", "doctor", "config", "health", "samples"):
        assert re.search(rf"\b{command}\b", found.output)
        assert run(command, "--help").exit_code == 0


def test_help_loads_nothing_that_is_slow():
    code = (
        "import sys; from app.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "slow = {'pyvips', 'fastapi', 'uvicorn', 'aiobotocore', 'httpx'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_it_runs_as_a_program():
    found = subprocess.run(
        [sys.executable, "-m", "app.cli", "transform", "nowhere.jpg", "out.jpg", "--w", "9"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert "nowhere.jpg" in found.stderr


@pytest.mark.parametrize(
    ("target", "options", "size", "fm"),
    [
        ("out.jpg", ["--w", "200", "--h", "200"], (200, 200), "jpeg"),
        ("out.JPEG", ["--w=100"], (100, 50), "jpeg"),
        ("out.webp", ["--width", "60", "--height=60", "--fit", "cover"], (60, 60), "webp"),
        ("out.png", ["--w", "800", "--enlarge"], (800, 400), "png"),
        ("out.png", ["--enlarge", "--w", "800"], (800, 400), "png"),
        ("out.png", ["--w", "50", "--padding", "5,10", "--bg", "red"], (70, 35), "png"),
        ("out.tif", ["--rotate", "-90", "--h", "40"], (20, 40), "tiff"),
        ("out.avif", ["--w", "40", "--effort", "0"], (40, 20), "avif"),
        ("out.bin", ["--w", "40", "--fm", "gif"], (40, 20), "gif"),
        ("out", ["--w", "40", "--format", "png"], (40, 20), "png"),
        ("out.gif", [], (400, 200), "gif"),
    ],
)
def test_transform_writes_a_picture_of_the_right_size(here, target, options, size, fm):
    found = run("transform", "in.jpg", target, *options)
    assert found.exit_code == 0, found.output
    data = (here / target).read_bytes()
    image = draw.opened(data)
    assert (image.width, image.height) == size
    assert draw.format_of(data) == fm
    assert f"{size[0]}x{size[1]}" in found.stdout
    assert f"{len(data)} bytes" in found.stdout


def test_transform_makes_what_the_service_makes(here, serve, folder):
    served = serve(results="off")
    run("transform", "in.jpg", "out.jpg", "--w", "90", "--h", "90", "--fit", "cover")
    answer = served.get("/thumb/cat.jpg?w=90&h=90&fit=cover&fm=jpeg")
    assert (here / "out.jpg").read_bytes() == answer.content


@pytest.fixture
def folder(tmp_path):
    draw.put(tmp_path / "originals", "cat.jpg", draw.jpeg())
    return tmp_path / "originals"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["missing.jpg", "out.jpg"], "missing.jpg"),
        (["letter.txt", "out.jpg"], "not an image"),
        (["cut.jpg", "out.jpg"], "cannot be decoded"),
        (["empty.jpg", "out.jpg"], "empty"),
        (["bomb.png", "out.jpg"], "60000x60000"),
        ([".", "out.jpg"], "irectory"),
        (["in.jpg", "nowhere/out.jpg"], "nowhere"),
        (["in.jpg", "out"], "--fm"),
        (["in.jpg", "out.svg"], "--fm"),
        (["in.jpg", "out.jpg", "--w", "0"], "w must be 1 to 8192"),
        (["in.jpg", "out.jpg", "--w", "9", "--w", "9"], "w is given twice"),
        (["in.jpg", "out.jpg", "--widht", "9"], "did you mean width?"),
        (["in.jpg", "out.jpg", "--fit", "covr"], "did you mean cover?"),
        (["in.jpg", "out.jpg", "more.jpg"], "more.jpg is not an option"),
        (["in.jpg", "out.jpg", "--page", "3"], "page"),
    ],
)
def test_transform_says_in_one_line_why_it_does_not(here, arguments, word):
    draw.put(here, "letter.txt", draw.TEXT)
    draw.put(here, "cut.jpg", draw.jpeg()[:900])
    draw.put(here, "empty.jpg", b"")
    draw.put(here, "bomb.png", draw.png_of(60_000, 60_000, b""))
    before = sorted(path.name for path in here.iterdir())
    assert word in failure("transform", *arguments)
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_wrong_setting_is_named_by_every_command(monkeypatch):
    monkeypatch.setenv("PIXELMILL_PORT", "http")
    for command in (
        ["config"],
        ["doctor"],
        ["serve"],
        ["health"],
        ["samples"],
        ["sign", "/a"],
        ["transform", "in.jpg", "out.jpg"],
    ):
        assert "PIXELMILL_PORT: " in failure(*command)


def test_a_wrong_token_is_told_in_one_line_without_its_secret(monkeypatch):
    monkeypatch.setenv("PIXELMILL_API_TOKENS", "hush-token-of-16-letters@jobs:everything")
    told = failure("serve")
    assert told.startswith("pixelmill: PIXELMILL_API_TOKENS: must have scopes of images:write")
    assert "hush" not in told
    assert "everything" not in told


def test_a_wrong_number_is_told_in_plain_words(monkeypatch):
    monkeypatch.setenv("PIXELMILL_ALLOWED_WIDTHS", "100,wide")
    told = failure("config")
    assert told == "pixelmill: PIXELMILL_ALLOWED_WIDTHS: must be an integer"


def test_an_unknown_setting_is_named_with_a_suggestion(monkeypatch):
    monkeypatch.setenv("PIXELMILL_WORKRES", "3")
    assert "did you mean PIXELMILL_WORKERS?" in failure("config")


def test_config_prints_every_setting_and_no_secret(monkeypatch):
    monkeypatch.setenv("PIXELMILL_KEYS", "k1:hush-secret-of-16,k2:hush-another-one")
    monkeypatch.setenv("PIXELMILL_API_TOKENS", "hush-token-of-16-letters")
    monkeypatch.setenv("PIXELMILL_FRESHNESS", "5m")
    found = run("config")
    assert found.exit_code == 0
    assert "hush" not in found.output
    lines = dict(line.split("=", 1) for line in found.stdout.splitlines())
    assert list(lines) == [f"PIXELMILL_{name.upper()}" for name in Settings.model_fields]
    assert lines["PIXELMILL_FRESHNESS"] == "300.0"
    assert lines["PIXELMILL_FORMATS"] == "jpeg,png,webp,avif,gif,tiff"
    assert lines["PIXELMILL_ALLOW_PRIVATE_NETWORKS"] == "false"
    assert set(lines["PIXELMILL_API_TOKENS"]) == {"*"}


def test_what_config_prints_can_be_set_again(monkeypatch, tmp_path):
    monkeypatch.setenv("PIXELMILL_ALLOWED_SOURCES", "*.example.com,cdn.example.com")
    monkeypatch.setenv("PIXELMILL_MEMORY_CACHE", "1.5GiB")
    first = run("config").stdout
    for name in ("PIXELMILL_ALLOWED_SOURCES", "PIXELMILL_MEMORY_CACHE"):
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(first)
    assert run("config").stdout == first


def test_sign_adds_a_signature_that_verifies(monkeypatch):
    monkeypatch.setenv("PIXELMILL_KEYS", "k1:a-secret-of-many-letters")
    found = run("sign", "/thumb/cat.jpg?w=200")
    signed = Signer({"k1": b"a-secret-of-many-letters"}).sign("/thumb/cat.jpg?w=200")
    assert found.stdout == f"{signed}\n"
    assert "exp=" in run("sign", "/thumb/cat.jpg?w=200", "--ttl", "60").stdout


def test_sign_needs_a_key():
    assert "PIXELMILL_KEYS" in failure("sign", "/thumb/cat.jpg")


def test_doctor_tells_what_runs_and_that_all_is_well(tmp_path):
    found = run("doctor")
    assert found.exit_code == 0, found.output
    for word in (__version__, "libvips", "8.", "jpeg, png", "renders at once", "MiB"):
        assert word in found.stdout
    assert re.search(r"store of originals\s+ok", found.stdout)
    assert re.search(r"store of results\s+ok", found.stdout)
    assert re.search(r"conditional writes\s+yes", found.stdout)


def test_doctor_tells_what_is_wrong(monkeypatch, tmp_path):
    (tmp_path / "a-file").write_text("no folder")
    monkeypatch.setenv("PIXELMILL_ORIGINALS", f"file:{tmp_path / 'a-file'}")
    monkeypatch.setenv("PIXELMILL_RESULTS", "off")
    found = run("doctor")
    assert found.exit_code == 1
    assert re.search(r"store of originals\s+The folder \S+/a-file cannot be used", found.stdout)
    assert re.search(r"store of results\s+off", found.stdout)


def test_doctor_makes_no_folder_of_originals_but_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("PIXELMILL_ORIGINALS", f"file:{tmp_path / 'nowhere'}")
    found = run("doctor")
    assert found.exit_code == 1
    assert re.search(r"store of originals\s+The folder \S+/nowhere cannot be used", found.stdout)
    assert not (tmp_path / "nowhere").exists()


def state_of_database(database):
    """What the doctor says of a database, and its exit code."""
    found = run("doctor")
    assert re.search(rf"database\s+{re.escape(database)}\n", found.stdout)
    return re.search(r"state of database\s+(.*)", found.stdout)[1], found.exit_code


def test_doctor_tells_of_the_database_and_changes_nothing_in_it(monkeypatch, tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger' / 'jobs.db'}"
    monkeypatch.setenv("PIXELMILL_DATABASE", url)
    assert state_of_database(url) == ("not there yet: it is made at the start", 0)
    assert not (tmp_path / "ledger").exists()
    database = Database(url)
    try:
        upgrade(database)
        newest = known_revisions()[0]
        assert state_of_database(url) == (f"reached, at revision {newest}, which is current", 0)
        renamed = sa.text("UPDATE alembic_version SET version_num = 'of_later'")
        database.write_now(lambda tx: tx.execute(renamed))
        told, code = state_of_database(url)
        assert (told, code) == (
            "reached, at revision of_later, which this version does not know",
            1,
        )
        database.write_now(lambda tx: tx.execute(sa.text("DELETE FROM alembic_version")))
        told, code = state_of_database(url)
        assert (told, code) == ("reached, without tables: they are made at the start", 0)
    finally:
        database.close()


def test_doctor_tells_of_a_database_that_is_none(monkeypatch, tmp_path):
    (tmp_path / "jobs.db").write_bytes(b"no database" * 1000)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    monkeypatch.setenv("PIXELMILL_DATABASE", url)
    told, code = state_of_database(url)
    assert (code, told.startswith("cannot be used: ")) == (1, True)
    monkeypatch.setenv("PIXELMILL_DATABASE", "off")
    assert state_of_database("off") == ("off", 0)


@pytest.mark.skipif(find_spec("pgqueuer") is None, reason="an extra brings PostgreSQL")
def test_doctor_tells_of_a_server_that_is_away_without_its_password(monkeypatch):
    url = "postgresql://me:hush@127.0.0.1:1/jobs"
    monkeypatch.setenv("PIXELMILL_DATABASE", url)
    told, code = state_of_database(url.replace("hush", "**********"))
    assert (code, told.startswith("cannot be used: ")) == (1, True)
    assert "hush" not in run("doctor").output


# --- commands that speak to a service -----------------------------------------------------------


def test_commands_of_jobs_speak_to_the_service_of_the_settings(serve, monkeypatch, tmp_path):
    served = serve(database=f"sqlite:///{tmp_path / 'jobs.db'}", run_jobs=False)
    port = served.url.rpartition(":")[2]
    monkeypatch.setenv("PIXELMILL_PORT", port)
    monkeypatch.setenv("PIXELMILL_HOST", "0.0.0.0")
    found = run("jobs", "submit", "cat.jpg", "w=20")
    assert found.exit_code == 0, found.output
    assert "cat.jpg" in run("jobs", "ls").stdout
    monkeypatch.delenv("PIXELMILL_PORT")
    (tmp_path / ".env").write_text(f"PIXELMILL_PORT={port}\n")
    assert "cat.jpg" in run("jobs", "ls").stdout
    # What is named goes before the settings.
    assert "127.0.0.1:1 does not answer" in failure("jobs", "ls", "--server", "http://127.0.0.1:1")
    monkeypatch.setenv("PIXELMILL_SERVER", "http://127.0.0.1:2")
    assert "127.0.0.1:2 does not answer" in failure("jobs", "ls")


@pytest.mark.parametrize(
    ("settings", "server"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"PORT": "9001"}, "http://127.0.0.1:9001"),
        ({"PORT": "9001", "HOST": "10.1.2.3"}, "http://10.1.2.3:9001"),
        ({"HOST": "::1"}, "http://[::1]:8000"),
        ({"HOST": "::"}, "http://[::1]:8000"),
        ({"HOST": "0.0.0.0"}, "http://127.0.0.1:8000"),
        ({"HOST": "some-name"}, "http://127.0.0.1:8000"),
    ],
)
def test_the_service_of_the_settings_is_at_its_address_and_port(monkeypatch, settings, server):
    for name, value in settings.items():
        monkeypatch.setenv(f"PIXELMILL_{name}", value)
    assert default_server() == server


@pytest.mark.parametrize("port", ["0", "http", "65536"])
def test_a_port_that_cannot_be_asked_at_is_told(monkeypatch, port):
    monkeypatch.setenv("PIXELMILL_PORT", port)
    told = failure("jobs", "ls")
    assert "PIXELMILL_PORT" in told
    assert "--server" in told


def test_warm_says_what_it_wants():
    for wrong in ("abc", "320,", "3.5", "320 640"):
        told = failure("warm", "--widths", wrong)
        assert told.endswith(f"such as 320,640: got {wrong}")
    told = failure("warm", "--prefix", "products/")
    for word in ("--widths", "--preset", "--query"):
        assert word in told


def test_warm_renders_widths_ahead(serve, monkeypatch, tmp_path):
    draw.put(tmp_path / "originals", "in/cat.jpg", draw.jpeg())
    served = serve(database=f"sqlite:///{tmp_path / 'jobs.db'}", run_jobs=False)
    monkeypatch.setenv("PIXELMILL_PORT", served.url.rpartition(":")[2])
    found = run("warm", "--prefix", "in/", "--widths", "20, 40", "--dry-run")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["jobs"] == 1


def health(monkeypatch, tmp_path, **settings):
    """Run as a container's health check does; its status and what it complains of."""
    for name, value in settings.items():
        monkeypatch.setenv(f"PIXELMILL_{name.upper()}", str(value))
    found = subprocess.run(
        [sys.executable, "-m", "app.cli", "health"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    return found.returncode, found.stderr


def test_health_is_that_of_the_service(serve, monkeypatch, tmp_path):
    served = serve()
    port = served.url.rpartition(":")[2]
    assert health(monkeypatch, tmp_path, port=port) == (0, "")
    # What listens on every address is asked on this one.
    assert health(monkeypatch, tmp_path, port=port, host="0.0.0.0") == (0, "")
    served.app.api.state.service.draining = True
    for refusing in (port, 1):
        status, complaint = health(monkeypatch, tmp_path, port=refusing)
        assert status == 1
        assert complaint.startswith("not ready: ")
    assert health(monkeypatch, tmp_path, port=port) == (1, "not ready: draining\n")


def test_health_waits_for_no_service_that_hangs_and_asks_no_proxy(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        status, complaint = health(monkeypatch, tmp_path, port=silent.getsockname()[1])
    assert (status, complaint) == (1, "not ready: timed out\n")


def test_samples_are_drawn_and_can_be_rendered(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELMILL_ORIGINALS", f"file:{tmp_path / 'originals'}")
    found = run("samples")
    assert found.exit_code == 0, found.output
    served = serve(results="off")
    urls = re.findall(r"http://127\.0\.0\.1:8000(/\S+)", found.stdout)
    assert len(urls) >= 5
    for url in urls:
        assert served.get(url).status_code == 200, url
    monkeypatch.setenv("PIXELMILL_ORIGINALS", "s3://bucket")
    assert "PIXELMILL_ORIGINALS" in failure("samples")


def test_serve_runs_until_it_is_told_to_stop_and_turns_readiness_first(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = {
        "PIXELMILL_ORIGINALS": f"file:{folder}",
        "PIXELMILL_RESULTS": "off",
        "PIXELMILL_LOG_FORMAT": "json",
        "PIXELMILL_DRAIN_DELAY": "1s",
        "PYTHONPATH": str(ROOT),
    }
    with (
        subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port)],
            cwd=tmp_path,
            env={**os.environ, **settings},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        try:
            while process.poll() is None:
                with suppress(httpx.ConnectError):
                    assert client.get("/readyz").status_code == 200
                    break
                time.sleep(0.05)
            for _ in range(2):
                answer = client.get("/thumb/cat.jpg?w=60", headers={"x-request-id": "mine"})
                assert answer.status_code == 200
                assert "server" not in answer.headers
            assert answer.headers["cache-status"] == "pixelmill-memory; hit"

            process.send_signal(signal.SIGTERM)
            while (turned := client.get("/readyz")).status_code == 200:
                time.sleep(0.01)
            assert turned.status_code == 503
            assert turned.headers["connection"] == "close"
            assert client.get("/thumb/cat.jpg?w=60").status_code == 200
            _, log = process.communicate(timeout=30)
        finally:
            process.kill()
    records = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any(record.get("request_id") == "mine" for record in records)
    assert any(record["event"] == "draining" for record in records)
    assert "Traceback" not in log
