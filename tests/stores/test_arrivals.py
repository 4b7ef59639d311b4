"""A real bucket in which originals arrive: it tells of them, or is looked through."""

from __future__ import annotations

import json
import secrets
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import told
from tests.jobs.queue_server import queue_serving
from tests.s3server import S3Server, find_program, s3_serving
from tests.serving import Served, serving
from tests.stores.conftest import Bucket
from tests.stores.test_end_to_end import picture, until

pytestmark = pytest.mark.s3

TOKEN = "s3cret-of-the-store"
NOTIFICATION = """
[notification.webhook]
enabled = true
endpoint = "{url}"
bearer_token = "{token}"
event_types = ["create", "update", "delete", "rename"]
path_prefixes = ["/buckets/"]
"""


@dataclass
class Relay:
    """Stands where the store tells, before the service is there, and hands on what it tells."""

    url: str = ""
    to: str | None = None
    answers: list[tuple[int, dict[str, int]]] = field(default_factory=list)


@contextmanager
def relaying() -> Iterator[Relay]:
    relay = Relay()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if relay.to is not None:
                headers = {"authorization": self.headers["authorization"]}
                asked = urllib.request.Request(relay.to, data=body, headers=headers)
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(asked, timeout=20) as answer:
                    relay.answers.append((answer.status, json.loads(answer.read())))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    relay.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Server, Relay]]:
    """A server of its own, which tells of all that changes in it."""
    program = find_program()
    with relaying() as relay:
        notification = NOTIFICATION.format(url=relay.url, token=TOKEN)
        with s3_serving(program, notification=notification) as server:
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            yield server, relay


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"database": f"sqlite:///{tmp_path}/ledger.db"}


def rule(**body: Any) -> dict[str, Any]:
    return {"outputs": [{"transform": "w=40", "target": "made/{stem}.webp"}], **body}


def jobs_of(served: Served) -> list[dict[str, Any]]:
    return served.get("/jobs?limit=1000").json()["items"]


def results(bucket):
    """The results in the bucket, without what replicas note for each other."""
    return [key for key in bucket.keys("results/") if not key.startswith("results/.pixelmill/")]


def test_a_bucket_that_tells_has_results_of_all_that_arrives(telling, options):
    server, relay = telling
    bucket = Bucket(server)
    with serving(
        originals=f"s3://{bucket.name}/shop",
        results=f"s3://{bucket.name}/results",
        api_tokens=TOKEN,
        **options,
    ) as served:
        served.client.headers["authorization"] = f"Bearer {TOKEN}"
        relay.to = f"{served.url}/events/s3"
        assert served.client.put("/rules/all", json=rule()).status_code == 201
        bucket.put("shop/in/red flower+é.jpg", picture(1))
        bucket.put("elsewhere/cat.jpg", picture(2))
        until(lambda: bucket.keys("shop/made/") == ["shop/made/red flower+é.webp"])
        served.get("/thumb/in/red flower+é.jpg?w=30&fm=webp")
        until(lambda: results(bucket))
        # It has told of the result too, by now or soon, and nothing comes of that.
        until(lambda: (200, {"accepted": 1, "ignored": 0, "jobs": 0}) in relay.answers)
        bucket.delete("shop/in/red flower+é.jpg")
        until(lambda: not results(bucket))
        bucket.put("shop/in/dog.jpg", picture(3))
        until(lambda: len(bucket.keys("shop/made/")) == 2)
        assert {job["source"] for job in jobs_of(served)} == {"in/red flower+é.jpg", "in/dog.jpg"}
        assert len(jobs_of(served)) == 2
        assert {status for status, _ in relay.answers} == {200}
    bucket.close()


def test_a_bucket_is_looked_through_and_tells_by_a_queue(bucket, prefix, options, monkeypatch):
    with queue_serving() as queue:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", queue.endpoint)
        bucket.put(f"{prefix}/in/0.jpg", picture(0))
        with serving(
            originals=f"s3://{bucket.name}/{prefix}",
            results="off",
            event_queue=queue.url,
            **options,
        ) as served:
            polled = rule(bucket=bucket.name, prefix="in/", poll=1, backfill=True)
            assert served.client.put("/rules/polled", json=polled).status_code == 201
            until(lambda: bucket.keys(f"{prefix}/made/") == [f"{prefix}/made/0.webp"])
            bucket.put(f"{prefix}/in/1.jpg", picture(1))
            until(lambda: len(bucket.keys(f"{prefix}/made/")) == 2)
            assert served.client.put("/rules/told", json=rule(prefix="new/")).status_code == 201
            bucket.put(f"{prefix}/new/2.jpg", picture(2))
            version = served.client.head("/images/new/2.jpg").headers["etag"].strip('"')
            event = told.s3(f"{prefix}/new/2.jpg", bucket=bucket.name, etag=version)
            for _ in range(3):
                queue.send(event)
            until(lambda: len(bucket.keys(f"{prefix}/made/")) == 3)
            until(lambda: not queue.waiting and not queue.in_hand)
            origins = sorted(job["origin"] for job in jobs_of(served))
            assert origins == ["rule:polled", "rule:polled", "rule:told"]


def test_a_rule_for_another_bucket_is_refused(bucket, prefix, options):
    with serving(
        originals=f"s3://{bucket.name}/{prefix}", results="off", run_jobs=False, **options
    ) as served:
        other = f"other-{secrets.token_hex(4)}"
        answer = served.client.post("/rules", json=rule(bucket=other))
        assert (answer.status_code, answer.json()["param"]) == (400, "bucket")
        assert bucket.name in answer.json()["detail"]
