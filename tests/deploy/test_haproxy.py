"""deploy/haproxy, with a real HAProxy and replicas that a test can make slow or full."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.deploy.accepts import ACCEPTS
from tests.deploy.backends import (
    DEPLOY,
    NameServer,
    Replica,
    await_answer,
    free_port,
    substitute,
    three_replicas,
)

RECIPE = DEPLOY / "haproxy" / "haproxy.cfg"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@dataclass
class Balanced:
    client: httpx.Client
    replicas: list[Replica]
    log: Path

    def replica_of(self, path: str, **options) -> str:
        answer = self.client.get(path, **options)
        assert answer.status_code == 200, (path, answer.text)
        return answer.headers["x-replica"]

    def named(self, name: str) -> Replica:
        return next(replica for replica in self.replicas if replica.name == name)


@contextmanager
def haproxy(folder: Path, text: str, **environment: str) -> Iterator[httpx.Client]:
    """A client of HAProxy, which runs with this recipe on a port of its own."""
    port = free_port()
    text = substitute(text, r"^  bind :8080$", f"  bind 127.0.0.1:{port}")
    # A test does not wait as long as balancers may.
    text = substitute(text, r"check inter 1s fastinter 500ms", "check inter 100ms")
    (folder / "haproxy.cfg").write_text(text)
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [HAPROXY, "-db", "-f", folder / "haproxy.cfg"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            limits = httpx.Limits(max_connections=100)
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=10, trust_env=False, limits=limits) as client:
                await_answer(client, "/balancer")
                yield client
        finally:
            process.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Balanced]:
    """HAProxy with the recipe, in which the list of replicas is written down."""
    with three_replicas() as replicas:
        servers = "\n  ".join(f"server {each.name} {each.address}" for each in replicas)
        text = substitute(RECIPE.read_text(), r"^  server-template .*$", f"  {servers}")
        folder = tmp_path_factory.mktemp("haproxy")
        with haproxy(folder, text) as client:
            yield Balanced(client, replicas, folder / "log")


@pytest.fixture
def balanced(running) -> Iterator[Balanced]:
    """The same, with all replicas as they were at first when the test is over."""
    yield running
    for replica in running.replicas:
        replica.reset()
        if not replica.up:
            replica.start()
    settle(running, {"r1", "r2", "r3"})
    for replica in running.replicas:
        replica.asked.clear()


def settle(balanced: Balanced, expected: set[str]) -> None:
    """Wait until these replicas, and no others, are sent requests."""
    deadline = time.monotonic() + 20
    while {balanced.replica_of("/schema") for _ in range(24)} != expected:
        assert time.monotonic() < deadline, "HAProxy has not noticed"


def test_haproxy_takes_the_recipe_as_it_is():
    run = subprocess.run(
        [HAPROXY, "-c", "-f", RECIPE],
        env={**os.environ, "REPLICAS": "replicas.example"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stderr, run.stderr


def test_whatever_is_made_of_an_original_goes_to_one_replica(balanced):
    places = {
        balanced.replica_of(path)
        for width in range(60)
        for path in (f"/thumb/products/42.jpg?w={width}", "/thumb/products%2F42.jpg")
    }
    places |= {balanced.replica_of(f"/{what}/products/42.jpg") for what in ("info", "kit")}
    places.add(balanced.client.put("/images/products/42.jpg", content=b"x").headers["x-replica"])
    assert len(places) == 1


def test_an_original_by_url_goes_to_one_replica_too(balanced):
    url = "https%3A%2F%2Fimages.example.com%2Fcat.jpg"
    places = {balanced.replica_of(f"/thumb?w={width}&url={url}") for width in range(30)}
    places.add(balanced.replica_of(f"/kit?url={url}"))
    assert len(places) == 1
    others = Counter(
        balanced.replica_of(f"/thumb?url=https%3A%2F%2Fimages.example.com%2F{number}.jpg")
        for number in range(60)
    )
    assert len(others) == 3


def test_originals_and_all_else_are_spread(balanced):
    originals = Counter(balanced.replica_of(f"/thumb/{number}.jpg") for number in range(150))
    assert min(originals.values()) >= 15
    rest = Counter(balanced.client.post("/transform").headers["x-replica"] for _ in range(90))
    assert min(rest.values()) >= 8


def test_an_original_that_all_want_spills_to_a_neighbour(balanced):
    home = balanced.replica_of("/thumb/hot.jpg")
    for replica in balanced.replicas:
        replica.delay = 0.3
    with ThreadPoolExecutor(12) as pool:
        places = Counter(pool.map(balanced.replica_of, ["/thumb/hot.jpg"] * 12))
    assert places[home] < 12
    assert places[home] >= 3


def test_a_lost_replica_moves_its_own_originals_alone(balanced):
    paths = [f"/thumb/{number}.jpg" for number in range(90)]
    before = {path: balanced.replica_of(path) for path in paths}
    balanced.named("r2").stop()
    # Not one of these fails, though nobody has told HAProxy yet.
    after = {path: balanced.replica_of(path) for path in paths}
    moved = {path for path in paths if before[path] != after[path]}
    assert moved == {path for path in paths if before[path] == "r2"}


def test_a_draining_replica_gets_no_more_and_nothing_is_lost(balanced):
    paths = [f"/thumb/{number}.jpg" for number in range(60)]
    before = {path: balanced.replica_of(path) for path in paths}
    drained = balanced.named("r1")
    drained.ready = False  # it still serves
    settle(balanced, {"r2", "r3"})
    after = {path: balanced.replica_of(path) for path in paths}
    assert "r1" not in after.values()
    assert all(after[path] == place for path, place in before.items() if place != "r1")


def test_a_full_replica_hands_reads_to_one_neighbour(balanced):
    path = "/thumb/full.jpg"
    full = balanced.named(balanced.replica_of(path))
    full.asked.clear()
    full.status = 503
    assert balanced.replica_of(path) != full.name
    assert balanced.client.head(path).headers["x-replica"] != full.name
    assert full.asked == [f"GET {path}", f"HEAD {path}"]


def test_nothing_that_changes_something_is_sent_twice(balanced):
    for replica in balanced.replicas:
        replica.status = 503
    for method, path in (("POST", "/jobs"), ("PUT", "/images/a.jpg"), ("DELETE", "/images/a.jpg")):
        assert balanced.client.request(method, path).status_code == 503
    assert sum(len(replica.asked) for replica in balanced.replicas) == 3


def test_where_all_are_full_the_refusal_goes_out_as_it_is_after_two_tries(balanced):
    for replica in balanced.replicas:
        replica.status = 503
        replica.headers["Retry-After"] = "2"
    answer = balanced.client.get("/thumb/cat.jpg")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert sorted(len(replica.asked) for replica in balanced.replicas) == [0, 1, 1]


def test_a_crowd_of_refusals_is_not_doubled(balanced):
    for replica in balanced.replicas:
        replica.status = 503
    with ThreadPoolExecutor(16) as pool:
        paths = [f"/thumb/{number}.jpg" for number in range(200)]
        answers = list(pool.map(balanced.client.get, paths))
    assert {answer.status_code for answer in answers} == {503}
    assert sum(len(replica.asked) for replica in balanced.replicas) < 280
    # The count of refusals is over a second.
    time.sleep(1.2)


@pytest.mark.parametrize(("sent", "received"), ACCEPTS.items())
def test_accept_comes_in_four_classes(balanced, sent, received):
    headers = {"accept": sent}
    seen = balanced.client.get("/thumb/cat.jpg", headers=headers).json()["headers"]["accept"]
    assert seen == received


def test_accept_of_other_routes_is_the_clients(balanced):
    seen = balanced.client.post("/jobs", headers={"accept": "text/event-stream"}).json()
    assert seen["headers"]["accept"] == "text/event-stream"


def test_a_request_is_marked_as_from_elsewhere_and_has_an_id(balanced):
    headers = balanced.client.get("/thumb/cat.jpg").json()["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert len(headers["x-request-id"]) == 36


def test_what_is_for_operators_is_not_public(balanced):
    for path in ("/metrics", "/autoscale", "/readyz", "/livez", "/%6detrics", "/li%76ez?a"):
        assert balanced.client.get(path).status_code == 404
    assert not any(replica.asked for replica in balanced.replicas)


def test_the_balancer_tells_when_there_is_nobody_left(balanced):
    for replica in balanced.replicas:
        replica.ready = False
    await_answer(balanced.client, "/balancer", status=503)
    answer = balanced.client.get("/thumb/cat.jpg")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["status"] == 503
    for replica in balanced.replicas:
        replica.ready = True
    await_answer(balanced.client, "/balancer")


def test_the_log_tells_paths_without_queries(balanced):
    balanced.replica_of("/thumb/logged.jpg?w=20&sig=secret")
    deadline = time.monotonic() + 10
    while "/thumb/logged.jpg" not in (text := balanced.log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)
    assert "secret" not in text


def test_replicas_are_found_by_a_name_and_come_and_go_with_it(tmp_path):
    port = free_port()
    replicas = [Replica(f"r{last}", f"127.0.0.{last}", port) for last in (2, 3, 4)]
    with ExitStack() as stack:
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        names = stack.enter_context(NameServer.running(["127.0.0.2"]))
        text = substitute(RECIPE.read_text(), r"parse-resolv-conf", f"nameserver n {names.address}")
        text = substitute(text, r'"\$\{REPLICAS\}":8000', f'"${{REPLICAS}}":{port}')
        text = substitute(text, r"timeout resolve 1s", "timeout resolve 200ms")
        client = stack.enter_context(haproxy(tmp_path, text, REPLICAS="replicas.example"))
        balanced = Balanced(client, replicas, tmp_path / "log")
        settle(balanced, {"r2"})
        names.addresses[:] = [replica.host for replica in replicas]
        settle(balanced, {"r2", "r3", "r4"})
        names.addresses.remove("127.0.0.3")
        settle(balanced, {"r2", "r4"})


def test_an_answer_of_sixty_addresses_is_read(tmp_path):
    replica = Replica("r1")
    with ExitStack() as stack:
        replica.start()
        stack.callback(replica.stop)
        names = stack.enter_context(NameServer.running([replica.host] * 60))
        text = substitute(RECIPE.read_text(), r"parse-resolv-conf", f"nameserver n {names.address}")
        text = substitute(text, r'"\$\{REPLICAS\}":8000', f'"${{REPLICAS}}":{replica.port}')
        client = stack.enter_context(haproxy(tmp_path, text, REPLICAS="replicas.example"))
        settle(Balanced(client, [replica], tmp_path / "log"), {"r1"})
