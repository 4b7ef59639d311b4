"""/schedules: created, replaced, looked at, paused, run and deleted, by whoever may."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.http import originals as draw
from tests.serving import serving

JOB = {"source": "b.jpg", "outputs": [{"transform": {"w": 20}, "target": "out/1.jpg"}]}
BODY = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "job": JOB}
ADMIN = {"authorization": "Bearer admins-very-own-token"}
READER = {"authorization": "Bearer readers-very-own-token"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A service that runs no jobs, which all tests share that do not mind each other."""
    folder = tmp_path_factory.mktemp("schedules")
    draw.put(folder / "originals", "b.jpg", draw.jpeg())
    with serving(
        originals=f"file:{folder}/originals",
        results=f"file:{folder}/results",
        database=f"sqlite:///{folder}/pixelmill.db",
        run_jobs=False,
    ) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_schedules_of_others(request):
    """Each test begins without schedules."""
    if "served" in request.fixturenames:
        served = request.getfixturevalue("served")
        for item in served.get("/schedules?limit=1000").json()["items"]:
            served.client.delete(f"/schedules/{item['id']}")


def test_a_schedule_is_created_replaced_and_deleted(served):
    made = served.client.put("/schedules/nightly", json=BODY)
    assert made.status_code == 201
    told = made.json()
    assert BODY.items() <= told.items()
    assert (told["id"], told["state"], told["runs"]) == ("nightly", "active", 0)
    assert told["next_at"][13:] == ":00:00.000Z"
    assert served.client.put("/schedules/nightly", json=BODY).status_code == 200

    other = served.client.put("/schedules/nightly", json={"run_every": "1d", "job": JOB})
    assert other.status_code == 200
    assert "cron" not in other.json()

    assert served.client.delete("/schedules/nightly").status_code == 204
    for answer in (
        served.get("/schedules/nightly"),
        served.client.delete("/schedules/nightly"),
        served.client.post("/schedules/nightly/pause"),
        served.client.post("/schedules/nightly/resume"),
        served.client.post("/schedules/nightly/run"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "record_missing")


def test_the_service_makes_an_id_where_none_is_given(served):
    made = served.client.post("/schedules", json=BODY)
    assert made.status_code == 201
    assert made.headers["location"] == f"/schedules/{made.json()['id']}"
    assert served.get(made.headers["location"]).json()["id"] == made.json()["id"]


def test_a_schedule_tells_when_it_runs_next(served):
    served.client.put("/schedules/nightly", json=BODY)
    told = served.get("/schedules/nightly").json()
    times = [datetime.fromisoformat(text) for text in told["upcoming"]]
    assert len(times) == 5
    assert told["upcoming"][0] == told["next_at"]
    assert times == sorted(times)
    assert datetime.now(UTC) < times[0] <= datetime.now(UTC) + timedelta(hours=26)


def test_schedules_are_listed_in_pages_by_id(served):
    for name in ("b", "c", "A", "d"):
        served.client.put(f"/schedules/{name}", json=BODY)
    seen, url = [], "/schedules?limit=3"
    while url:
        page = served.get(url).json()
        seen.append([item["id"] for item in page["items"]])
        url = page.get("next")
    assert seen == [["A", "b", "c"], ["d"]]


def test_a_run_by_hand_is_a_job_like_any_other(served):
    served.client.put("/schedules/nightly", json=BODY)
    run = served.client.post("/schedules/nightly/run")
    assert run.status_code == 202
    job = served.get(run.headers["location"]).json()
    assert (job["id"], job["origin"]) == (run.json()["last_id"], "schedule:nightly")
    assert job["state"] == "queued"
    assert run.json()["links"]["last"] == run.headers["location"]
    again = served.client.post("/schedules/nightly/run")
    assert (again.status_code, again.json()["code"]) == (409, "record_conflict")


def test_a_schedule_is_paused_and_resumed(served):
    served.client.put("/schedules/nightly", json=BODY)
    paused = served.client.post("/schedules/nightly/pause").json()
    assert paused["state"] == "paused"
    assert "next_at" not in paused
    assert served.get("/schedules/nightly").json()["upcoming"] == []
    resumed = served.client.post(paused["links"]["resume"]).json()
    assert resumed["state"] == "active"
    assert "next_at" in resumed


def test_schedules_run_by_themselves_and_once_where_there_are_two_services(serve, tmp_path):
    draw.put(tmp_path / "originals", "b.jpg", draw.jpeg())
    one, two = (serve(database=f"sqlite:///{tmp_path}/pixelmill.db") for _ in range(2))
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    names = [f"once-{number}" for number in range(6)]
    for name in names:
        job = {"source": "b.jpg", "outputs": [{"target": f"out/{name}.jpg"}]}
        body = {"start_at": soon, "job": job}
        assert one.client.put(f"/schedules/{name}", json=body).status_code == 201
    deadline = time.monotonic() + 20
    while not all(two.get(f"/images/out/{name}.jpg").status_code == 200 for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    told = two.get("/schedules").json()["items"]
    assert [(item["state"], item["runs"]) for item in told] == [("ended", 1)] * len(names)
    assert len(one.get("/jobs").json()["items"]) == len(names)


@pytest.fixture
def working(serve, tmp_path):
    """A service that runs jobs."""
    for name in ("in/a.jpg", "in/b.jpg", "other/c.jpg"):
        draw.put(tmp_path / "originals", name, draw.jpeg())
    return serve(database=f"sqlite:///{tmp_path}/pixelmill.db")


def run_to_its_end(served, name):
    """The batch that a schedule runs now, when it has ended."""
    run = served.client.post(f"/schedules/{name}/run")
    assert run.status_code == 202, run.text
    deadline = time.monotonic() + 20
    while True:
        batch = served.get(run.headers["location"]).json()
        if "finished_at" in batch:
            return batch
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_selection_is_made_anew_by_each_run(working, tmp_path):
    batch = {
        "select": {"prefix": "in/", "missing_only": True},
        "outputs": [{"transform": {"w": 20}, "target": "out/{stem}.jpg"}],
    }
    body = {"cron": "0 3 * * *", "batch": batch}
    assert working.client.put("/schedules/nightly", json=body).status_code == 201
    first = run_to_its_end(working, "nightly")
    assert (first["state"], first["total"], first["origin"]) == (
        "succeeded",
        2,
        "schedule:nightly",
    )
    draw.put(tmp_path / "originals", "in/new.jpg", draw.jpeg())
    second = run_to_its_end(working, "nightly")
    assert (second["total"], second["skipped"]) == (1, 2)
    assert working.get("/images/out/new.jpg").status_code == 200
    assert working.get("/images/out/c.jpg").status_code == 404


def test_a_list_and_a_manifest_may_be_scheduled_too(working, tmp_path):
    outputs = [{"transform": {"w": 20}, "target": "out/{id}"}]
    for name, batch in (
        ("sources", {"sources": ["in/a.jpg", "other/c.jpg"], "outputs": outputs}),
        ("jobs", {"jobs": [{"source": "in/a.jpg", "outputs": outputs}]}),
        ("manifest", {"manifest": "list.ndjson", "outputs": outputs}),
    ):
        body = {"cron": "0 3 * * *", "batch": batch}
        assert working.client.put(f"/schedules/{name}", json=body).status_code == 201
    missing = working.client.post("/schedules/manifest/run")
    assert (missing.status_code, missing.json()["param"]) == (400, "manifest")
    draw.put(tmp_path / "originals", "list.ndjson", b'{"source": "in/b.jpg"}\n')
    for name, total in (("sources", 2), ("jobs", 1), ("manifest", 1)):
        batch = run_to_its_end(working, name)
        assert (batch["state"], batch["total"]) == ("succeeded", total)
    assert working.get("/images/out/in/b.jpg").status_code == 200


@pytest.mark.parametrize(
    ("batch", "param"),
    [
        ({"sources": ["b.jpg"] * 1001, "outputs": [{}]}, "batch.sources"),
        ({"sources": ["b.jpg", "/b"], "outputs": [{}]}, "batch.sources[1]"),
        ({"jobs": [{"source": "b.jpg"}]}, "batch.jobs[0]"),
        ({"sources": ["b.jpg"], "outputs": [{}], "dry_run": True}, "batch.dry_run"),
    ],
)
def test_a_batch_that_could_not_be_run_is_refused_at_once(served, batch, param):
    body = {"cron": "0 3 * * *", "batch": batch}
    answer = served.client.put("/schedules/a", json=body)
    assert (answer.status_code, answer.json()["param"]) == (400, param)


def test_to_change_a_schedule_takes_another_scope_than_to_look(serve, tmp_path):
    served = serve(
        database=f"sqlite:///{tmp_path}/pixelmill.db",
        run_jobs=False,
        api_tokens="admins-very-own-token,readers-very-own-token@jobs:read,writers-very-own-token@jobs:write",
    )
    client = served.client
    assert client.put("/schedules/a", json=BODY, headers=ADMIN).status_code == 201
    for headers in (READER, {"authorization": "Bearer writers-very-own-token"}):
        assert served.get("/schedules", headers=headers).status_code == 200
        assert served.get("/schedules/a", headers=headers).status_code == 200
        for method, path in (
            ("POST", "/schedules"),
            ("PUT", "/schedules/a"),
            ("DELETE", "/schedules/a"),
            ("POST", "/schedules/a/pause"),
            ("POST", "/schedules/a/resume"),
            ("POST", "/schedules/a/run"),
        ):
            answer = client.request(method, path, json=BODY, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert served.get("/schedules").status_code == 401


def test_without_a_ledger_there_are_no_schedules(serve):
    answer = serve().get("/schedules")
    assert (answer.status_code, answer.json()["code"]) == (404, "jobs_off")


@pytest.mark.parametrize("name", [".hidden", "-", "a b", "ä", "a" * 49, "a%00", "a%0A"])
def test_an_id_that_is_none_is_told(served, name):
    answer = served.client.put(f"/schedules/{name}", json=BODY)
    assert (answer.status_code, answer.json()["param"]) == (400, "id")
    assert served.get(f"/schedules/{name}").status_code == 404
    assert served.client.delete(f"/schedules/{name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"cron": "0 3 * * *", "cron": "0 4 * * *"}', "cron"),
        (b'{"cron": "0 3 * * *", "job": {"source": "b.jpg"}}', "job.outputs"),
        (b'{"run_every": 60, "timezone": "\\ud800"}', "timezone"),
        (b'{"cron": "\\u0000 3 * * *"}', "cron"),
        (b'{"cron": "0 3 * * *", "batch": {"select": {}}}', "batch.outputs"),
        (b'{"cron": "0 3 * * *", "batch": {"select": {"prefix": 1}}}', "batch.select.prefix"),
        (b'{"cron": "0 3 * * *", "batch": {"outputs": []}}', "batch.outputs"),
        (b'{"cron": "0 3 * * *", "batch": {"manifest": "list.txt"}}', "batch.manifest"),
    ],
)
def test_a_body_that_is_wrong_is_told_by_the_name_of_what_is_wrong(served, body, param):
    answer = served.client.put("/schedules/a", content=body)
    assert answer.status_code == 400
    assert answer.json().get("param") == param
    assert served.get("/schedules").json() == {"items": []}


@pytest.mark.parametrize("depth", [50, 60, 400, 950, 1000, 5000])
def test_what_is_kept_can_be_shown_however_deep_it_is(served, depth):
    body = json.dumps({"run_every": 60, "job": {**JOB, "metadata": {"a": "deep"}}})
    deep = "[" * depth + "]" * depth
    answer = served.client.put("/schedules/a", content=body.replace('"deep"', deep))
    assert answer.status_code == (201 if depth < 64 else 400)
    assert len(served.get("/schedules").json()["items"]) == (depth < 64)


def test_a_body_that_is_too_large_is_refused(served):
    answer = served.client.put("/schedules/a", content=b" " * (1 << 20) + b"{}")
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
