"""Targets: which are allowed, however they are written; and results that are put there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from botocore.config import Config
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest, TargetRefused
from app.jobs import targets
from app.jobs.targets import Fields
from app.settings import Settings
from app.sources.base import Ref
from tests.http import originals as draw
from tests.s3server import REGION, S3Server, s3_server
from tests.serving import Served, serving
from tests.sources.origin import Origin, answer, in_turn, redirect, running_origin, tls_context

__all__ = ["s3_server"]

SECRET = "X-Amz-Signature=secret"


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", tls_context)


@pytest.fixture
def receiver() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


# --- what is allowed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "glob"),
    [
        ("s3://out/a/b.jpg", "s3://out/*"),
        ("s3://out/a/b.jpg", "s3://out"),
        ("s3://out/a/b.jpg", "s3://out/a/*.jpg"),
        ("s3://out-7/b.jpg", "s3://out-?/*"),
        ("https://host.example/a?X=1", "https://host.example/*"),
        ("https://HOST.example./a", "https://host.example/*"),
        ("https://host.example:443/a", "https://host.example/*"),
        ("https://host.example:8443/a", "https://host.example:8443/*"),
        ("https://host.example:8443/a", "https://host.example:*/*"),
        ("https://bucket.s3.example/a%20b/c..d", "https://*.s3.example/*"),
        ("http://[::1]:8080/a", "http://[::1]:8080/*"),
    ],
)
def test_what_a_glob_names_is_allowed(place, glob):
    assert targets.check_place(place, allowed=["s3://other/*", glob]) == place


@pytest.mark.parametrize(
    ("place", "glob"),
    [
        ("s3://out-evil/a.jpg", "s3://out/*"),
        ("s3://out-evil/a.jpg", "s3://out"),
        ("s3://evil/public/a.jpg", "s3://out*/*"),
        ("s3://evil/x/public/a.jpg", "s3://*/public/*"),
        ("s3://OUT/a.jpg", "s3://out/*"),
        ("s3://out/private/a.jpg", "s3://out/public/*"),
        ("s3://out/public/../private/a.jpg", "s3://out/public/*"),
        ("s3://out//a.jpg", "s3://out/*"),
        ("s3://out/", "s3://out/*"),
        ("s3://out", "s3://out/*"),
        ("https://host.evil/", "https://host/*"),
        ("https://evil/?https://host/", "https://host/*"),
        ("https://hostevil/a", "https://host"),
        ("https://host@evil/a", "https://host/*"),
        ("https://host:x@evil/a", "https://host*/*"),
        ("https://user@host/a", "https://host/*"),
        ("https://host:8443/a", "https://host/*"),
        ("https://host:0/a", "https://host/*"),
        ("http://host/a", "https://host/*"),
        ("https://evil/x.s3.example/a", "https://*.s3.example/*"),
        ("https://evil#.s3.example/a", "https://*.s3.example/*"),
        ("https://evil\\.s3.example/a", "https://*.s3.example/*"),
        ("https://host/public/../private", "https://host/public/*"),
        ("https://host/public/%2e%2e/private", "https://host/public/*"),
        ("https://host/public/..%2fprivate", "https://host/public/*"),
        ("https://host/public/..\\private", "https://host/public/*"),
        ("https://host/public/%2E./private", "https://host/public/*"),
        ("https://host/private?/public/", "https://host/public/*"),
        ("https://host/a b", "https://host/*"),
        ("https://host/a\n", "https://host/*"),
        ("https://hóst/a", "https://*/*"),
        ("https:///a", "https://*/*"),
        ("https://host:/a", "https://host/*"),
        ("https://host:99999/a", "https://host:*/*"),
        ("https://[::1/a", "https://*/*"),
        ("HTTPS://host/a", "https://host/*"),
    ],
)
def test_what_only_looks_like_it_is_refused(place, glob):
    with pytest.raises((TargetRefused, InvalidRequest)) as refused:
        targets.check_place(place, allowed=[glob])
    assert refused.value.param == "target"


HOSTS = st.sampled_from(
    ["host", "evil", "host.evil", "host:1", "host@evil", "evil:x@host", "[::1]"]
)
PATHS = st.text("ab/.%2eEfF\\?#@: ", max_size=12)


@given(HOSTS, PATHS)
def test_what_is_allowed_is_what_the_client_would_ask(host, path):
    url = f"https://{host}/public/{path}"
    try:
        targets.check_place(url, allowed=["https://host/public/*"])
    except (TargetRefused, InvalidRequest):
        return
    asked = httpx.URL(url)
    assert (asked.host, asked.port, asked.userinfo) == ("host", None, b"")
    assert asked.path.startswith("/public/")
    assert ".." not in asked.path.split("/")


@pytest.mark.parametrize(
    ("template", "glob", "error"),
    [
        ("s3://out/{id}", "s3://out/products/*", None),
        ("s3://out/products/{stem}.{ext}", "s3://out/products/*", None),
        ("s3://out/pro{id}", "s3://out/products/*", None),
        ("s3://out/private/{id}", "s3://out/products/*", TargetRefused),
        ("s3://other/{id}", "s3://out/*", TargetRefused),
        ("s3://{stem}/x", "s3://*/*", InvalidRequest),
        ("s3://out{w}/x", "s3://*/*", InvalidRequest),
        ("s3://out/../x", "s3://out/*", InvalidRequest),
        ("out/{id", "", InvalidRequest),
        ("out/{name}", "", InvalidRequest),
        ("/out", "", InvalidRequest),
    ],
)
def test_a_template_is_refused_at_once_where_no_place_of_it_is_allowed(template, glob, error):
    if error is None:
        targets.check_template(template, param="target", allowed=[glob])
        return
    with pytest.raises(error):
        targets.check_template(template, param="target", allowed=[glob])


@pytest.mark.parametrize("originals", ["s3://photos/in", "s3://photos/in/"])
def test_the_store_of_originals_is_no_bucket_to_write_to(originals):
    for template in ("s3://photos/in/{id}", "s3://photos/in/thumbs/{stem}.{ext}"):
        with pytest.raises(TargetRefused, match="give the key alone"):
            targets.check_template(
                template, param="target", allowed=["s3://photos/*"], originals=originals
            )
    for template in ("s3://photos/in-small/{id}", "s3://photos/{id}", "in/{id}"):
        targets.check_template(
            template, param="target", allowed=["s3://photos/*"], originals=originals
        )


def test_the_name_of_a_source_makes_no_other_kind_of_target():
    ref = Ref("url", "https://cdn.example/s3://out/cat.jpg")
    fields = Fields(ref=ref, width=1, height=1, extension="jpg", digest="0" * 64)
    with pytest.raises(InvalidRequest):
        targets.fill("{id}", fields)


def test_an_error_does_not_tell_what_is_secret_in_a_url():
    with pytest.raises(TargetRefused) as refused:
        targets.check_place(f"https://host/key?{SECRET}", allowed=[])
    assert "https://host/key " in refused.value.detail
    assert "secret" not in refused.value.detail


@pytest.mark.parametrize("glob", ["*", "host/*", "s3://", "file:///*"])
def test_a_setting_that_names_no_target_stops_the_service(glob):
    with pytest.raises(ValueError, match="https://HOST"):
        Settings(_env_file=None, targets=glob)


# --- what is put there --------------------------------------------------------------------------


@contextmanager
def served_with(folder: Path, **options: Any) -> Iterator[Served]:
    (folder / "originals").mkdir()
    with serving(
        originals=f"file:{folder / 'originals'}",
        results=f"file:{folder / 'results'}",
        database=f"sqlite:///{folder / 'pixelmill.db'}",
        **options,
    ) as served:
        served.client.put("/images/folder/cat.jpg", content=draw.jpeg(draw.quarters(60, 30)))
        yield served


def run(served: Served, *outputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Submit a job and wait for its end."""
    body = {"source": "folder/cat.jpg", "outputs": list(outputs), **fields}
    answered = served.client.post("/jobs", json=body, headers={"prefer": "wait=20"})
    assert answered.status_code == 200, answered.text
    job: dict[str, Any] = answered.json()
    return job


def local(served_globs: str) -> dict[str, Any]:
    return {"targets": served_globs, "allow_private_networks": True}


def test_a_result_is_put_to_a_url_which_is_told_to_nobody(tmp_path, receiver):
    url = receiver.serve(f"/key.png?{SECRET}", answer(b""))
    with served_with(tmp_path, **local(f"{receiver.url}/*")) as served:
        job = run(served, {"transform": {"w": 20}, "target": url})
        assert job["state"] == "succeeded"
        (asked,) = receiver.asked
        assert asked.method == "PUT"
        assert asked.headers["content-type"] == "image/png"  # as the ending of the path says
        assert asked.body.startswith(b"\x89PNG")
        assert job["outputs"][0]["target"] == f"{receiver.url}/key.png"
        assert job["results"][0]["target"] == f"{receiver.url}/key.png"
        assert "url" not in job["results"][0]
        for path in (f"/jobs/{job['id']}", "/jobs", "/dead-letters"):
            assert "secret" not in served.get(path).text


def test_a_target_that_fails_for_a_time_is_tried_again(tmp_path, receiver, monkeypatch):
    monkeypatch.setattr("app.jobs.worker.backoff", lambda failures: 0.0)
    url = receiver.serve("/key", in_turn(answer(b"", status=503), answer(b"")))
    with served_with(tmp_path, **local(f"{receiver.url}/*")) as served:
        job = run(served, {"target": url})
        assert (job["state"], job["attempt"]) == ("succeeded", 2)


@pytest.mark.parametrize("status", [403, 302])
def test_a_target_that_refuses_is_not_tried_again(tmp_path, receiver, status):
    refusal = b"<Error><Code>AccessDenied</Code><StringToSign>secret</StringToSign></Error>"
    script = answer(refusal, status=status) if status == 403 else redirect("/elsewhere")
    url = receiver.serve(f"/key?{SECRET}", script)
    with served_with(tmp_path, **local(f"{receiver.url}/*")) as served:
        job = run(served, {"target": url})
        assert (job["state"], job["attempt"]) == ("failed", 1)
        assert job["error"]["code"] == "target_rejected"
        assert f"{receiver.url}/key answered {status}" in job["error"]["detail"]
        assert ("AccessDenied" in job["error"]["detail"]) == (status == 403)
        assert len(receiver.asked) == 1
        letter = served.get(f"/dead-letters/{job['id']}").text
        assert "secret" not in letter


def test_a_url_that_leads_to_a_private_address_is_not_put_to(tmp_path, receiver):
    with served_with(tmp_path, targets=f"{receiver.url}/*") as served:
        job = run(served, {"target": receiver.serve(f"/key?{SECRET}", answer(b""))})
        assert (job["state"], job["attempt"]) == ("failed", 1)
        assert job["error"]["code"] == "target_refused"
        assert "secret" not in json.dumps(job)
        assert receiver.asked == []


def test_a_target_that_is_not_allowed_is_refused_when_it_is_submitted(tmp_path, receiver):
    with served_with(tmp_path, **local("https://host/*")) as served:
        for target in (f"{receiver.url}/key?{SECRET}", "s3://bucket/key"):
            body = {"source": "folder/cat.jpg", "outputs": [{"target": target}]}
            refused = served.client.post("/jobs", json=body)
            assert refused.status_code == 403
            assert refused.json()["param"] == "outputs[0].target"
            assert "secret" not in refused.text


# --- S3 -----------------------------------------------------------------------------------------


@pytest.fixture
def s3_client(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    client = Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=s3_server.endpoint,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    yield client
    client.close()


def presigned(client: Any, server: S3Server, key: str, *, seconds: int = 300) -> str:
    url: str = client.generate_presigned_url(
        "put_object",
        Params={"Bucket": server.bucket, "Key": key, "ContentType": "image/webp"},
        ExpiresIn=seconds,
    )
    return url


def test_s3_takes_what_is_put_to_a_presigned_url(tmp_path, s3_server, s3_client):
    key = f"{tmp_path.name}/ä +&%.webp"
    with served_with(tmp_path, **local(f"{s3_server.endpoint}/{s3_server.bucket}/*")) as served:
        url = presigned(s3_client, s3_server, key)
        job = run(served, {"transform": "w=20&fm=webp", "target": url})
        assert job["state"] == "succeeded", job["error"]
        shown = f"{s3_server.endpoint}/{s3_server.bucket}/{quote(key)}"
        assert job["results"][0]["target"].lower() == shown.lower()
        stored = s3_client.get_object(Bucket=s3_server.bucket, Key=key)
        assert stored["ContentType"] == "image/webp"
        assert len(stored["Body"].read()) == job["results"][0]["bytes"]


def test_a_presigned_url_that_has_expired_fails_at_once(
    tmp_path, s3_server, s3_client, monkeypatch
):
    with monkeypatch.context() as earlier:
        made = datetime.now(UTC) - timedelta(hours=1)
        earlier.setattr("botocore.auth.get_current_datetime", lambda *_, **__: made)
        url = presigned(s3_client, s3_server, f"{tmp_path.name}/late.webp", seconds=60)
    with served_with(tmp_path, **local(f"{s3_server.endpoint}/*")) as served:
        job = run(served, {"transform": "w=20&fm=webp", "target": url})
        assert (job["state"], job["attempt"]) == ("failed", 1)
        assert job["error"]["code"] == "target_rejected"
        assert "403" in job["error"]["detail"]
        assert "Signature" not in json.dumps(job)


def test_a_result_goes_to_another_bucket_where_that_is_allowed(tmp_path, s3_server, s3_client):
    bucket = s3_server.bucket
    with served_with(tmp_path, targets=f"s3://{bucket}/{tmp_path.name}/folder/*") as served:
        target = f"s3://{bucket}/{tmp_path.name}/{{id}}-{{w}}.{{ext}}"
        job = run(served, {"transform": "w=20&fm=webp", "target": target})
        assert job["state"] == "succeeded", job["error"]
        place = f"{tmp_path.name}/folder/cat.jpg-20.webp"
        assert job["results"][0]["target"] == f"s3://{bucket}/{place}"
        stored = s3_client.get_object(Bucket=bucket, Key=place)
        assert stored["ContentType"] == "image/webp"

        # What the fields come to shows later, and is held to the same.
        served.client.put("/images/other/cat.jpg", content=draw.jpeg(draw.quarters(60, 30)))
        refused = run(served, {"transform": "w=20", "target": target}, source="other/cat.jpg")
        assert (refused["state"], refused["error"]["code"]) == ("failed", "target_refused")
        listed = s3_client.list_objects_v2(Bucket=bucket, Prefix=f"{tmp_path.name}/other")
        assert listed["KeyCount"] == 0


def test_a_result_comes_to_no_place_among_the_originals_by_its_bucket(
    tmp_path, s3_server, s3_client
):
    place = f"s3://{s3_server.bucket}/{tmp_path.name}"
    with serving(
        originals=f"{place}/folder",
        results="off",
        database=f"sqlite:///{tmp_path / 'pixelmill.db'}",
        targets=f"{place}/*",
    ) as served:
        served.client.put("/images/folder/cat.jpg", content=draw.jpeg(draw.quarters(60, 30)))
        body = {"source": "folder/cat.jpg", "outputs": [{"target": f"{place}/folder/{{id}}"}]}
        assert served.client.post("/jobs", json=body).json()["code"] == "target_refused"

        job = run(served, {"target": f"{place}/{{id}}"})
        assert (job["state"], job["error"]["code"]) == ("failed", "target_refused")


def test_a_bucket_that_is_not_there_fails_the_job(tmp_path, s3_server, s3_client):
    with served_with(tmp_path, targets="s3://nowhere-*/*") as served:
        job = run(served, {"target": "s3://nowhere-7/{id}"}, retries=0)
        assert job["error"]["code"] == "target_failed"
