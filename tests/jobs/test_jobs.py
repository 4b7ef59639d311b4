"""Jobs over HTTP: a real service with a ledger and a worker."""

from __future__ import annotations

import time

import pytest

from tests.http import originals as draw
from tests.jobs.patience import ended
from tests.jobs.posting import until
from transforms import pipeline
from transforms.cost import Cost
from transforms.libvips import Image

TARGET = {"transform": {"w": 80, "h": 40, "fit": "cover", "fm": "jpeg"}, "target": "out/1.jpg"}


@pytest.fixture
def shop(serve, tmp_path):
    """A service with jobs, and two originals."""
    draw.put(tmp_path / "originals", "b.jpg", draw.jpeg())
    draw.put(tmp_path / "originals", "ring.png", draw.png(draw.ring()))

    def start(**options):
        return serve(database=f"sqlite:///{tmp_path / 'jobs.db'}", **options)

    return start


def post(served, body, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.client.post("/jobs", json=body, headers=sent)


def test_a_result_becomes_an_original_like_any_other(shop):
    served = shop()
    answer = post(served, {"source": "b.jpg", "outputs": [TARGET]})
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["links"]["self"]
    job = ended(served, answer.json()["id"])
    assert job["state"] == "succeeded"
    (result,) = job["results"]
    kept = served.get("/images/out/1.jpg")
    assert kept.headers["content-type"] == "image/jpeg"
    assert (result["width"], result["height"], result["format"]) == (80, 40, "jpeg")
    assert result["bytes"] == len(kept.content)
    assert result["url"] == "/images/out/1.jpg"
    picture = Image.new_from_buffer(kept.content, "")
    assert (picture.width, picture.height) == (80, 40)
    assert served.get("/thumb/out/1.jpg?w=20").status_code == 200


@pytest.mark.parametrize("target", ["b.jpg", "{id}"])
def test_a_result_over_its_source_is_refused_at_once(shop, target):
    output = {"transform": "w=20&fm=jpeg", "target": target}
    problem = post(shop(), {"source": "b.jpg", "outputs": [output]}).json()
    assert (problem["code"], problem["param"]) == ("invalid_parameter", "outputs[0].target")


@pytest.mark.parametrize("what", ["watermark", "merge"])
def test_no_result_goes_over_what_is_laid_or_merged(shop, tmp_path, what):
    served = shop()
    before = (tmp_path / "originals/ring.png").read_bytes()
    output = {"transform": {"w": 20, "fm": "png", what: "ring.png"}, "target": "ring.png"}
    job = ended(served, post(served, {"source": "b.jpg", "outputs": [output]}).json()["id"])
    assert (job["state"], job["error"]["param"]) == ("failed", "outputs[0].target")
    assert (tmp_path / "originals/ring.png").read_bytes() == before


def test_a_result_without_target_warms_what_a_page_will_ask_for(shop, tmp_path):
    served = shop()
    body = {
        "source": "b.jpg",
        "outputs": [{"transform": "w=90", "formats": ["webp"]}, {"transform": "w=91"}],
    }
    job = ended(served, post(served, body).json()["id"])
    renders = served.metric("pixelmill_renders_total")
    as_browser = served.get("/thumb/b.jpg?w=90", headers={"accept": "image/webp,*/*"})
    as_curl = served.get("/thumb/b.jpg?w=91")
    assert as_browser.headers["content-type"] == "image/webp"
    assert served.metric("pixelmill_renders_total") == renders
    assert [result["key"] for result in job["results"]] == [
        answer.headers["etag"].strip('"') for answer in (as_browser, as_curl)
    ]
    for result, expected in zip(job["results"], (as_browser, as_curl), strict=True):
        assert served.get(result["url"]).content == expected.content


def test_all_outputs_of_a_job_are_made_from_one_download_and_one_decode(shop, monkeypatch):
    served = shop()
    groups = []
    run_all = pipeline.run_all
    monkeypatch.setattr(
        pipeline,
        "run_all",
        lambda data, works, stop=None: (groups.append(len(works)), run_all(data, works, stop))[1],
    )
    body = {"source": "b.jpg", "outputs": [{"widths": [10, 20, 30, 40], "target": "o/{w}.jpg"}]}
    assert ended(served, post(served, body).json()["id"])["state"] == "succeeded"
    assert groups == [4]
    assert served.metric("pixelmill_downloads_total", source="id") == 1


def test_tiles_are_cut_and_merged_again(shop):
    served = shop()
    cut = {
        "source": "b.jpg",
        "outputs": [{"transform": {"tile": "2x2", "fm": "png"}, "target": "t/{column}-{row}"}],
    }
    job = ended(served, post(served, cut).json()["id"])
    ids = [result["target"] for result in job["results"]]
    assert ids == ["t/0-0", "t/1-0", "t/0-1", "t/1-1"]
    merge = {"source": ids, "outputs": [{"transform": "across=2", "target": "t/whole.png"}]}
    assert ended(served, post(served, merge).json()["id"])["state"] == "succeeded"
    whole = Image.new_from_buffer(served.get("/images/t/whole.png").content, "")
    first = Image.new_from_buffer(draw.jpeg(), "")
    assert (whole.width, whole.height) == (first.width, first.height)
    assert (whole - first).abs().max() == 0


def test_waiting_answers_with_the_end(shop):
    served = shop()
    answer = post(served, {"source": "b.jpg", "outputs": [TARGET]}, prefer="respond-async, wait=20")
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert answer.headers["preference-applied"] == "wait=20"


def test_what_can_never_succeed_fails_at_once_with_the_problem(shop):
    served = shop()
    job = ended(served, post(served, {"source": "none.jpg", "outputs": [TARGET]}).json()["id"])
    assert (job["state"], job["attempt"]) == ("failed", 1)
    assert (job["error"]["code"], job["error"]["status"]) == ("original_missing", 404)
    assert "results" not in job


def test_two_results_for_one_place_are_an_error_and_not_a_race(shop):
    served = shop()
    outputs = [
        {"transform": "w=10", "target": "same.jpg"},
        {"transform": "w=20", "target": "{stem}.jpg"},
    ]
    job = ended(served, post(served, {"source": "same/same.jpg", "outputs": outputs}).json()["id"])
    assert job["error"]["code"] == "original_missing"
    served.client.put("/images/same.png", content=draw.png())
    job = ended(served, post(served, {"source": "same.png", "outputs": outputs}).json()["id"])
    assert job["error"]["param"] == "outputs[1].target"


def test_a_key_that_is_sent_again_has_one_job(shop):
    served = shop()
    body = {"source": "b.jpg", "outputs": [TARGET]}
    first = post(served, body, idempotency_key="k1")
    again = post(served, body, idempotency_key="k1")
    assert first.json()["id"] == again.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(served.get("/jobs").json()["items"]) == 1
    other = post(served, {**body, "priority": 2}, idempotency_key="k1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert post(served, body, idempotency_key="k2").json()["id"] != first.json()["id"]
    assert post(served, body, idempotency_key="x" * 300).status_code == 400


def test_a_refused_request_leaves_its_key_free(shop):
    served = shop()
    assert post(served, {"source": "b.jpg"}, idempotency_key="k").status_code == 400
    body = {"source": "b.jpg", "outputs": [TARGET]}
    assert post(served, body, idempotency_key="k").status_code == 202


def test_jobs_are_listed_page_by_page(shop):
    served = shop(run_jobs=False)
    ids = [
        post(served, {"source": "b.jpg", "outputs": [{}], "label": label}).json()["id"]
        for label in "ababab"
    ]
    found, path, pages = [], "/jobs?limit=4", 0
    while path:
        page = served.get(path).json()
        found += [job["id"] for job in page["items"]]
        path, pages = page.get("next"), pages + 1
    assert (found, pages) == (ids[::-1], 2)
    labelled = served.get("/jobs?label=a&state=queued").json()["items"]
    assert [job["id"] for job in labelled] == ids[4::-2]
    assert served.get("/jobs?state=running").json() == {"items": []}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("state=lost", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=7", "cursor"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_a_wrong_parameter_of_a_list_is_told_by_name(shop, query, param):
    answer = shop(run_jobs=False).get(f"/jobs?{query}")
    assert (answer.status_code, answer.json()["param"]) == (400, param)


def test_cancel_and_retry(shop):
    served = shop(run_jobs=False)
    job = post(served, {"source": "b.jpg", "outputs": [TARGET]}).json()
    cancelled = served.client.post(job["links"]["cancel"])
    assert cancelled.json()["state"] == "cancelled"
    assert served.client.post(f"/jobs/{job['id']}/cancel").status_code == 200
    again = served.client.post(cancelled.json()["links"]["retry"])
    assert again.json()["state"] == "queued"
    refused = served.client.post(f"/jobs/{job['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "record_conflict")


def test_cancelling_stops_a_job_that_runs(shop, monkeypatch):
    served = shop()
    begun = []

    def held(data, works, stop=None):
        begun.append(works)
        while True:
            stop.check()
            time.sleep(0.005)

    monkeypatch.setattr(pipeline, "run_all", held)
    job = post(served, {"source": "b.jpg", "outputs": [TARGET]}).json()
    deadline = time.monotonic() + 20
    while not begun and time.monotonic() < deadline:
        time.sleep(0.01)
    assert served.client.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    monkeypatch.undo()
    other = post(served, {"source": "b.jpg", "outputs": [TARGET]}).json()
    assert ended(served, other["id"])["state"] == "succeeded"
    assert served.get(f"/jobs/{job['id']}").json()["state"] == "cancelled"


def test_a_job_that_has_ended_is_not_cancelled(shop):
    served = shop()
    job = ended(served, post(served, {"source": "b.jpg", "outputs": [TARGET]}).json()["id"])
    assert served.client.post(f"/jobs/{job['id']}/cancel").status_code == 409


def test_a_job_that_takes_too_long_is_stopped_and_told_so(shop, monkeypatch):
    served = shop()

    def held(data, works, stop=None):
        while True:
            stop.check()
            time.sleep(0.005)

    monkeypatch.setattr(pipeline, "run_all", held)
    body = {"source": "b.jpg", "outputs": [TARGET], "timeout": 1, "retries": 0}
    job = ended(served, post(served, body).json()["id"])
    assert job["state"] == "failed"
    assert job["error"]["code"] in ("job_timeout", "render_timeout")


def test_a_job_that_has_expired_is_not_begun(shop, tmp_path):
    served = shop(run_jobs=False)
    body = {"source": "b.jpg", "outputs": [TARGET], "expires": 0.01}
    job = post(served, body).json()
    time.sleep(0.05)
    other = shop()
    assert ended(other, job["id"])["error"]["code"] == "job_expired"
    assert not (tmp_path / "originals" / "out").exists()


def test_there_are_no_jobs_without_a_ledger(serve):
    answer = serve().get("/jobs")
    assert (answer.status_code, answer.json()["code"]) == (404, "jobs_off")


def test_a_body_that_is_too_large_or_no_json_is_refused(shop):
    served = shop(run_jobs=False)
    for content, status in (
        (b"x" * (1 << 20) + b"x", 413),
        (b"{", 400),
        (b'{"source": NaN}', 400),
        (b"[" * 99_999, 400),
        (b"[]", 400),
    ):
        assert served.client.post("/jobs", content=content).status_code == status


def test_tokens_have_scopes(shop):
    tokens = ",".join(
        f"{name}-of-16-letters{scope}"
        for name, scope in (
            ("all", ""),
            ("look", "@jobs:read"),
            ("both", "@jobs:write"),
            ("other", "@events"),
        )
    )
    served = shop(api_tokens=tokens, run_jobs=False)

    def status(method, path, token):
        headers = {"authorization": f"Bearer {token}-of-16-letters"} if token else {}
        body = {"source": "b.jpg", "outputs": [TARGET]} if method == "POST" else None
        return served.client.request(method, path, headers=headers, json=body).status_code

    assert [status("POST", "/jobs", t) for t in ("all", "both", "look", "other", "no", "")] == [
        202,
        202,
        403,
        403,
        401,
        401,
    ]
    assert [status("GET", "/jobs", t) for t in ("all", "both", "look", "other", "no", "")] == [
        200,
        200,
        200,
        403,
        401,
        401,
    ]
    assert status("DELETE", "/images/x", "both") == 403
    assert status("DELETE", "/images/x", "all") == 204


def test_a_job_waits_for_a_folder_of_originals_that_is_not_there(serve, tmp_path):
    folder = tmp_path / "mounted"
    served = serve(originals=f"file:{folder}", database=f"sqlite:///{tmp_path / 'jobs.db'}")
    job = post(served, {"source": "b.jpg", "outputs": [{"transform": "w=20"}]}).json()

    def has_failed_for_a_time():
        found = served.get(f"/jobs/{job['id']}").json()
        assert found["state"] in ("queued", "running")
        return found.get("error", {}).get("code") == "store_misconfigured"

    until(has_failed_for_a_time)
    draw.put(folder, "b.jpg", draw.jpeg())
    assert ended(served, job["id"])["state"] == "succeeded"


def test_a_job_whose_time_is_too_short_for_its_picture_is_told_so(shop, monkeypatch):
    served = shop()
    slow = Cost(seconds=90.0, memory=1, kind=("jpeg", "avif"), parts={"effort": 80.0})
    monkeypatch.setattr("app.executor.estimate_all", lambda works: slow)
    body = {"source": "b.jpg", "outputs": [{"transform": "fm=avif&effort=9"}], "timeout": 7}
    job = ended(served, post(served, body).json()["id"])
    assert (job["state"], job["attempt"]) == ("failed", 1)
    assert job["error"]["param"] == "timeout"
    assert "about 90 s, of which 80 s" in job["error"]["detail"]
    assert "and timeout is 7 s: give it more" in job["error"]["detail"]
    answer = served.get("/thumb/b.jpg?fm=avif&effort=9")
    assert (answer.status_code, answer.json()["param"]) == (400, "effort")
