"""deploy/nginx/nginx.conf, with a real nginx and replicas that a test can make slow or full."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.deploy.accepts import ACCEPTS
from tests.deploy.backends import (
    DEPLOY,
    Replica,
    await_answer,
    free_port,
    substitute,
    three_replicas,
)

RECIPE = DEPLOY / "nginx" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@dataclass
class Cached:
    client: httpx.Client
    replicas: list[Replica]
    log: Path

    def asked(self, path: str = "") -> int:
        """How many requests for a path have come to replicas."""
        return sum(line.endswith(path) for replica in self.replicas for line in replica.asked)

    def named(self, name: str) -> Replica:
        return next(replica for replica in self.replicas if replica.name == name)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Cached]:
    """nginx with the recipe, in which ports, servers and folders are changed."""
    folder = tmp_path_factory.mktemp("nginx")
    with three_replicas() as replicas:
        port = free_port()
        text = RECIPE.read_text()
        for number, replica in enumerate(replicas, 1):
            for fails in (0, 1):
                text = substitute(
                    text,
                    rf"127\.0\.0\.1:800{number} max_fails={fails}",
                    f"{replica.address} max_fails={fails}",
                )
        text = substitute(text, r"listen 8080;", f"listen 127.0.0.1:{port};")
        text = substitute(text, r"/tmp/nginx\.pid", f"{folder}/pid")
        text = substitute(text, r"/var/cache/nginx/pixelmill", f"{folder}/cache")
        text = substitute(text, r"worker_processes auto", "worker_processes 1")
        text = substitute(text, r"fail_timeout=10s", "fail_timeout=1s", times=3)
        text = substitute(text, r"/dev/stdout", f"{folder}/access.log")
        # Folders that the package's nginx would make below /var/lib.
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        text = substitute(text, r"^http \{$", f"http {{\n{temporary}")
        (folder / "nginx.conf").write_text(text)
        # Its workers would give up root's rights, and with them those to a test's folder.
        user = "user root;" if os.geteuid() == 0 else ""
        arguments = [NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]
        check = subprocess.run(
            [*arguments, "-t"], capture_output=True, text=True, timeout=20, check=False
        )
        assert check.returncode == 0, check.stderr
        assert "[warn]" not in check.stderr.replace('the "user" directive', ""), check.stderr
        with subprocess.Popen(
            [*arguments, "-g", f"daemon off; {user}"], stderr=subprocess.DEVNULL
        ) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
                    await_answer(client, "/schema")
                    yield Cached(client, replicas, folder / "access.log")
            finally:
                process.terminate()


@pytest.fixture
def cached(running) -> Iterator[Cached]:
    for replica in running.replicas:
        replica.asked.clear()
    yield running
    for replica in running.replicas:
        replica.reset()
        if not replica.up:
            replica.start()


def test_an_original_goes_to_one_replica_and_they_are_spread(cached):
    places = {
        path: cached.client.get(path).headers["x-replica"]
        for width in range(20)
        for path in (
            f"/thumb/a/1.jpg?w={width}",
            f"/thumb/a%2F1.jpg?w={width}",
            f"/info/a/1.jpg?w={width}",
        )
    }
    places["PUT"] = cached.client.put("/images/a/1.jpg", content=b"x").headers["x-replica"]
    assert len(set(places.values())) == 1, places
    by_url = {
        cached.client.get(f"/thumb?w={width}&url=https%3A%2F%2Fa.example%2F1").headers["x-replica"]
        for width in range(20)
    }
    assert len(by_url) == 1
    spread = Counter(
        cached.client.get(f"/thumb/{number}.png").headers["x-replica"] for number in range(90)
    )
    assert min(spread.values()) >= 8


def test_a_lost_replica_moves_its_own_originals_alone(cached):
    paths = [f"/images/{number}.jpg" for number in range(60)]
    before = {path: cached.client.get(path).headers["x-replica"] for path in paths}
    cached.named("r2").stop()
    after = {path: cached.client.get(path).headers["x-replica"] for path in paths}
    moved = {path for path in paths if before[path] != after[path]}
    assert moved == {path for path in paths if before[path] == "r2"}


def test_a_full_replica_hands_reads_to_one_neighbour_and_writes_to_none(cached):
    full = cached.named(cached.client.get("/images/full.jpg").headers["x-replica"])
    full.status = 503
    assert cached.client.get("/images/full.jpg").headers["x-replica"] != full.name
    for replica in cached.replicas:
        replica.status = 503
        replica.asked.clear()
    for method in ("POST", "PUT", "DELETE"):
        path = "/jobs" if method == "POST" else "/images/full.jpg"
        assert cached.client.request(method, path).status_code == 503
    asked = Counter(line.split()[0] for each in cached.replicas for line in each.asked)
    assert asked == {"POST": 1, "PUT": 1, "DELETE": 1}
    for replica in cached.replicas:
        replica.asked.clear()
    assert cached.client.get("/images/full.jpg").status_code == 503
    assert cached.asked() == 2


def test_a_lost_replica_costs_one_write(cached):
    path = "/images/written.jpg"
    lost = cached.named(cached.client.put(path, content=bytes(3_000_000)).headers["x-replica"])
    lost.stop()
    answers = [cached.client.put(path, content=b"x").status_code for _ in range(3)]
    lost.start()
    assert answers == [502, 200, 200]
    deadline = time.monotonic() + 10
    while cached.client.put(path, content=b"x").headers["x-replica"] != lost.name:
        assert time.monotonic() < deadline, "it is left out for ever"
        time.sleep(0.1)


def test_the_log_tells_paths_without_queries(cached):
    cached.client.get("/thumb/logged.jpg?w=20&sig=secret")
    deadline = time.monotonic() + 10
    while "/thumb/logged.jpg" not in (text := cached.log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)
    assert "secret" not in text


def test_accept_comes_in_classes_and_each_is_kept_once(cached):
    for replica in cached.replicas:
        replica.headers |= {"Cache-Control": "public, max-age=60", "Vary": "Accept"}
    for sent, received in ACCEPTS.items():
        answer = cached.client.get("/thumb/classes.jpg", headers={"accept": sent})
        assert answer.json()["headers"]["accept"] == received, sent
        assert answer.headers["vary"] == "Accept"
    assert cached.asked() == 4
    for sent in ACCEPTS:
        cached.client.get("/thumb/classes.jpg?fm=png", headers={"accept": sent})
    assert cached.asked() == 5


def test_many_equal_misses_are_one_request(cached):
    for replica in cached.replicas:
        replica.delay = 0.2
        replica.headers["Cache-Control"] = "public, max-age=60"
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(cached.client.get, ["/thumb/crowd.jpg"] * 10))
    assert {answer.status_code for answer in answers} == {200}
    assert cached.asked() == 1


def test_what_is_stale_goes_out_while_it_is_asked_for_and_where_that_fails(cached):
    for replica in cached.replicas:
        replica.headers["Cache-Control"] = "public, max-age=1, stale-while-revalidate=60"
    first = cached.client.get("/thumb/stale.jpg")
    assert first.headers["x-cache"] == "MISS"
    for replica in cached.replicas:
        replica.status = 503
        replica.headers["Cache-Control"] = "no-store"
    seen = set()
    for _ in range(30):
        answer = cached.client.get("/thumb/stale.jpg")
        assert answer.status_code == 200
        seen.add(answer.headers["x-cache"])
        if seen & {"STALE", "UPDATING"}:
            return
        time.sleep(0.1)
    pytest.fail(f"never stale: {seen}")


def test_what_is_stale_gives_way_to_a_refusal(cached):
    for replica in cached.replicas:
        replica.headers["Cache-Control"] = "public, max-age=1, stale-while-revalidate=1"
    assert cached.client.get("/thumb/signed.jpg?sig=1").status_code == 200
    for replica in cached.replicas:
        replica.status = 403
        replica.headers["Cache-Control"] = "no-store"
    deadline = time.monotonic() + 10
    while cached.client.get("/thumb/signed.jpg?sig=1").status_code != 403:
        assert time.monotonic() < deadline, "it is answered for ever"
        time.sleep(0.1)


def test_what_a_token_lets_see_is_not_kept(cached):
    for replica in cached.replicas:
        replica.headers["Cache-Control"] = "public, max-age=60"
    for _ in range(2):
        cached.client.get("/info/secret.jpg", headers={"authorization": "Bearer x"})
    assert cached.asked("/info/secret.jpg") == 2
    assert cached.client.get("/info/secret.jpg").headers["x-cache"] == "MISS"


@pytest.mark.parametrize("path", ["/images/a.jpg", "/thumb/marked.jpg"])
def test_a_request_is_marked_as_from_elsewhere_whatever_it_says(cached, path):
    sent = {"x-forwarded-for": "6.6.6.6", "forwarded": "for=6.6.6.6"}
    headers = cached.client.get(path, headers=sent).json()["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert "forwarded" not in headers
    assert re.fullmatch(r"[0-9a-f]{32}", headers["x-request-id"])
    assert "connection" not in headers


def test_what_is_for_operators_is_not_public(cached):
    for path in ("/metrics", "/autoscale", "/readyz", "/livez", "/%6detrics"):
        assert cached.client.get(path).status_code == 404
    assert cached.asked() == 0
