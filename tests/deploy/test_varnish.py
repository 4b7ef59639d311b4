"""deploy/cdn/varnish.vcl, with a real Varnish and a balancer that a test can make fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.deploy.accepts import ACCEPTS
from tests.deploy.backends import DEPLOY, Replica, await_answer, free_port, substitute

RECIPE = DEPLOY / "cdn" / "varnish.vcl"
VARNISH = shutil.which("varnishd") or shutil.which("varnishd", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(VARNISH is None, reason="varnish is not installed")


@dataclass
class Cached:
    client: httpx.Client
    balancer: Replica

    def asked(self, path: str) -> int:
        return sum(line.endswith(path) for line in self.balancer.asked if "balancer" not in line)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Cached]:
    """Varnish with the recipe, in which the balancer's port is changed."""
    folder = tmp_path_factory.mktemp("varnish")
    balancer = Replica("balancer")
    balancer.start()
    port = free_port()
    text = substitute(RECIPE.read_text(), r'\.port = "8080";', f'.port = "{balancer.port}";')
    # A balancer that is well, whatever a test has it answer.
    text = substitute(text, r'\.url = "/balancer";', '.url = "/readyz";')
    (folder / "varnish.vcl").write_text(text)
    command = [
        *(VARNISH, "-F", "-a", f"127.0.0.1:{port}", "-f", folder / "varnish.vcl"),
        *("-n", folder / "work", "-p", f"vcl_path={RECIPE.parent}", "-s", "malloc,32m"),
        *("-T", "none", *(("-j", "none") if os.geteuid() == 0 else ())),
    ]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
                await_answer(client, "/schema", seconds=20)
                yield Cached(client, balancer)
        finally:
            process.terminate()
            balancer.stop()


@pytest.fixture
def cached(running) -> Iterator[Cached]:
    running.balancer.headers["Cache-Control"] = "public, max-age=60"
    yield running
    running.balancer.reset()


def test_accept_comes_in_classes_and_each_is_kept_once(cached):
    cached.balancer.headers["Vary"] = "Accept"
    for sent, received in ACCEPTS.items():
        answer = cached.client.get("/thumb/classes.jpg?w=200", headers={"accept": sent})
        assert answer.json()["headers"]["accept"] == received, sent
    assert cached.asked("/thumb/classes.jpg?w=200") == 4


def test_a_purge_by_tags_removes_what_bears_one_of_them(cached):
    tags = {"a": "id-a.jpg prefix-cats%2F", "b": "id-b.jpg", "c": "id-a.jpgx"}
    for name, keys in tags.items():
        cached.balancer.headers["Surrogate-Key"] = keys
        assert "surrogate-key" not in cached.client.get(f"/thumb/{name}.png").headers
    purge = {"surrogate-key": "id-a.jpg preset-none"}
    assert cached.client.request("PURGE", "/", headers=purge).status_code == 200
    found = {name: cached.client.get(f"/thumb/{name}.png").headers["x-cache"] for name in tags}
    assert found == {"a": "MISS", "b": "HIT", "c": "HIT"}


def test_a_purge_without_plain_tags_is_refused(cached):
    for keys in ("", ".* || req.url ~ .*", 'a"b'):
        headers = {"surrogate-key": keys}
        assert cached.client.request("PURGE", "/", headers=headers).status_code == 400


def test_what_is_stale_goes_out_where_the_balancer_fails(cached):
    lasting = "public, max-age=1, stale-while-revalidate=60, stale-if-error=600"
    cached.balancer.headers["Cache-Control"] = lasting
    cached.client.get("/thumb/stale.jpg")
    cached.balancer.status = 503
    cached.balancer.headers["Cache-Control"] = "no-store"
    time.sleep(1.1)
    for _ in range(3):  # also after it has been asked for again, in vain
        answer = cached.client.get("/thumb/stale.jpg")
        assert answer.status_code == 200
        assert int(answer.headers["age"]) >= 1
        time.sleep(0.05)
    assert cached.asked("/thumb/stale.jpg") >= 2
    assert cached.client.get("/thumb/other.jpg").status_code == 503


def test_what_may_be_stale_in_errors_alone_is_asked_for_before_it_goes_out(cached):
    cached.balancer.headers["Cache-Control"] = "public, max-age=1, stale-if-error=600"
    for name in ("fails", "refused"):
        cached.client.get(f"/thumb/{name}.jpg")
    time.sleep(1.1)
    cached.balancer.status = 503
    answer = cached.client.get("/thumb/fails.jpg")
    assert (answer.status_code, int(answer.headers["age"]) >= 1) == (200, True)
    cached.balancer.status = 403
    cached.balancer.headers["Cache-Control"] = "no-store"
    assert cached.client.get("/thumb/refused.jpg").status_code == 403


def test_what_a_token_lets_see_and_what_changes_something_is_not_kept(cached):
    for _ in range(2):
        cached.client.get("/info/secret.jpg", headers={"authorization": "Bearer x"})
        cached.client.post("/jobs")
    assert cached.asked("GET /info/secret.jpg") == 2
    assert cached.asked("POST /jobs") == 2


def test_a_request_is_marked_as_from_elsewhere(cached):
    sent = {"x-forwarded-for": "6.6.6.6", "forwarded": "for=6.6.6.6"}
    headers = cached.client.get("/thumb/marked.jpg", headers=sent).json()["headers"]
    assert "6.6.6.6" not in str(headers)
    assert "127.0.0.1" in headers["x-forwarded-for"]
