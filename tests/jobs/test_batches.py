"""Batches over HTTP: what is accepted, what is refused, and what becomes of it."""

from __future__ import annotations

import json
import os
import socket
import time
from urllib.parse import urlsplit

import pytest

from app.jobs import batches, ledger
from app.jobs.batches import BatchDraft
from tests.http import originals as draw
from tests.jobs.posting import NDJSON, ended, lines_of, post, results, until
from tests.serving import serving

SMALL = {"transform": {"w": 8}}
ONE_PLACE = {"transform": {"w": 8, "fm": "png"}, "target": "same/{w}.png"}
COUNTS = {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}


@pytest.fixture
def pictures(tmp_path):
    """Originals `in/0.jpg` to `in/3.jpg`."""
    picture = draw.jpeg(draw.quarters(40, 20))
    for number in range(4):
        draw.put(tmp_path / "originals", f"in/{number}.jpg", picture)


@pytest.fixture
def start(serve, tmp_path):
    """Start a service with jobs."""

    def begin(**options):
        return serve(database=f"sqlite:///{tmp_path}/pixelmill.db", **options)

    return begin


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A service whose jobs nobody runs, for all tests that are content with that."""
    folder = tmp_path_factory.mktemp("idle")
    for number in range(4):
        draw.put(folder / "originals", f"in/{number}.jpg", draw.jpeg(draw.quarters(40, 20)))
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith("PIXELMILL_"):
                patch.delenv(name)
        with serving(
            originals=f"file:{folder}/originals",
            results=f"file:{folder}/results",
            database=f"sqlite:///{folder}/pixelmill.db",
            run_jobs=False,
        ) as served:
            yield served


def newest(served):
    """The id of the newest batch, if there is one."""
    items = served.get("/batches?limit=1").json()["items"]
    return items[0]["id"] if items else None


def refused(served, body, status=400, path="/batches", **headers):
    answer = served.client.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


def test_a_list_of_jobs_is_run_and_a_bad_entry_does_not_stop_the_others(start, pictures):
    served = start()
    batch = post(
        served,
        [
            {"source": "in/0.jpg", "outputs": [SMALL]},
            {"source": "in/1.jpg", "outputs": [{"transform": {"w": 0}}]},
            "in/2.jpg",
            {"source": "in/3.jpg", "outputs": [{**SMALL, "target": "out/{stem}.png"}]},
        ],
        path="/batches?label=mixed&priority=2&metadata=%7B%22for%22%3A1%7D",
    )
    assert (batch["total"], batch["rejected"]) == (2, 2)
    told = [(error["line"], error["problem"]["status"]) for error in batch["errors"]]
    assert told == [(2, 400), (3, 400)]
    assert batch["errors"][0]["problem"]["param"] == "outputs[0].transform.w"
    assert batch["errors"][1]["problem"]["detail"] == "The job must be a JSON object"
    batch = ended(served, batch)
    assert batch["state"] == "succeeded"
    assert batch["counts"] == {**COUNTS, "succeeded": 2}
    assert batch["metadata"] == {"for": 1}
    first, last = results(served, batch)
    assert (first["line"], last["line"]) == (1, 4)
    assert {first["label"], last["label"]} == {"mixed"}
    assert {first["priority"], last["priority"]} == {2}
    assert last["results"][0]["target"] == "out/3.png"
    assert served.get("/images/out/3.png").headers["content-type"] == "image/png"


def test_every_source_gets_all_outputs(start, pictures):
    served = start()
    batch = post(
        served,
        {
            "sources": ["in/0.jpg", ["in/1.jpg", "in/2.jpg"], "nowhere.jpg"],
            "outputs": [{"widths": [4, 8]}],
            "retries": 0,
        },
    )
    batch = ended(served, batch)
    assert (batch["state"], batch["counts"]["failed"]) == ("failed", 1)
    one, merged, missing = results(served, batch)
    assert [result["width"] for result in one["results"]] == [4, 8]
    assert merged["source"] == ["in/1.jpg", "in/2.jpg"]
    assert missing["error"]["code"] == "original_missing"
    assert [job["source"] for job in results(served, batch, state="failed")] == ["nowhere.jpg"]


def test_a_jobs_own_options_go_before_those_of_the_batch(idle):
    body = {
        "jobs": [{"source": "a"}, {"source": "b", "priority": 2, "outputs": [{"widths": [1, 2]}]}],
        "outputs": [SMALL],
        "priority": 0,
        "retries": 7,
    }
    usual, own = results(idle, post(idle, body))
    assert (usual["priority"], usual["retries"], len(usual["outputs"])) == (0, 7, 1)
    assert (own["priority"], own["retries"], len(own["outputs"])) == (2, 7, 2)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], "jobs"),
        ({"jobs": []}, "jobs"),
        ({"sources": ["a"]}, "outputs"),
        ({"select": {}}, "outputs"),
        ({"sources": ["a"], "outputs": []}, "outputs"),
        ({"sources": ["a"], "outputs": [{"transform": {"w": -1}}]}, "outputs[0].transform.w"),
        ({"select": {"prefix": "/a"}, "outputs": [SMALL]}, "select.prefix"),
        ({"select": {"modified_since": "noon"}, "outputs": [SMALL]}, "select.modified_since"),
        (
            {"select": {"modified_since": "2026-01-01T00:00:00"}, "outputs": [SMALL]},
            "select.modified_since",
        ),
        (
            {"select": {"missing_only": True}, "outputs": [{**SMALL, "target": "{stem}-{w}.jpg"}]},
            "select.missing_only",
        ),
        (
            {"select": {"missing_only": True}, "outputs": [{**SMALL, "target": "{stem}.{ext}"}]},
            "select.missing_only",
        ),
        ({"manifest": "list.txt"}, "manifest"),
        ({"manifest": "nowhere.csv"}, "manifest"),
        ({"sources": ["a"], "outputs": [SMALL], "max_failures": -1}, "max_failures"),
        (
            {"sources": ["a"], "outputs": [SMALL], "max_failures": 3, "on_error": "stop"},
            "max_failures",
        ),
        ({"sources": ["a"], "outputs": [SMALL], "report": {"target": "{id}"}}, "report.target"),
        ({"sources": ["a"], "outputs": [SMALL], "report": {"target": "a.jpg"}}, "report.target"),
        ({"sources": ["a", "b"], "outputs": [ONE_PLACE]}, "outputs[0].target"),
        ({"select": {"prefix": "a"}, "outputs": [SMALL, ONE_PLACE]}, "outputs[1].target"),
        ({"sources": ["a"], "outputs": [SMALL], "colour": 1}, "colour"),
    ],
)
def test_a_batch_that_means_nothing_is_refused_by_name(idle, body, param):
    before = newest(idle)
    assert refused(idle, body)["param"] == param
    assert newest(idle) == before


def test_a_batch_is_of_one_kind(idle):
    for body in ({"label": "x"}, {"sources": ["a"], "jobs": [{}], "outputs": [SMALL]}, 7):
        refused(idle, body)


def test_where_no_entry_is_a_job_the_first_one_is_named(idle):
    before = newest(idle)
    problem = refused(idle, [{"source": "a", "outputs": [{"transform": {"w": "wide"}}]}, {}])
    assert problem["param"] == "outputs[0].transform.w"
    answer = idle.client.post("/batches", content=b"{}\nnonsense\n", headers=NDJSON)
    assert (answer.status_code, answer.json()["param"]) == (400, "source")
    assert idle.client.post("/batches", content=b"\n", headers=NDJSON).status_code == 400
    assert newest(idle) == before


def test_options_beside_the_body_are_read_like_those_in_it(idle):
    for query, param in (
        ("priority=3", "priority"),
        ("priority=high", "priority"),
        ("metadata=nonsense", None),
        ("report_only=failed", "report_only"),
        ("priorty=1", "priorty"),
        ("label=a&label=b", "label"),
        ("dry_run=perhaps", "dry_run"),
    ):
        body = {"sources": ["a"], "outputs": [SMALL]}
        assert refused(idle, body, path=f"/batches?{query}").get("param") == param


def test_a_body_of_json_has_a_bound(idle):
    answer = idle.client.post("/batches", content=b" " * (16 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_five_thousand_lines_are_taken_in_by_the_page(idle, monkeypatch):
    pages = []
    insert = ledger.insert

    def watched(tx, drafts, *, now):
        pages.append(len(drafts))
        return insert(tx, drafts, now=now)

    monkeypatch.setattr(ledger, "insert", watched)

    def stream():
        for start in range(0, 5000, 50):
            yield lines_of(
                {"source": f"in/{n}.jpg", "outputs": [{**SMALL, "target": f"out/{n}.jpg"}]}
                if n % 1000
                else {"source": ""}
                for n in range(start, start + 50)
            )

    answer = idle.client.post("/batches?label=many", content=stream(), headers=NDJSON)
    batch = answer.json()
    assert answer.status_code == 202
    assert (batch["total"], batch["rejected"], batch["counts"]["queued"]) == (4995, 5, 4995)
    assert [error["line"] for error in batch["errors"]] == [1, 1001, 2001, 3001, 4001]
    # No more than a page is ever held, and each is one transaction.
    assert max(pages) <= 500
    assert sum(pages) == 4995
    found = results(idle, batch)
    assert [job["line"] for job in found] == [n + 1 for n in range(5000) if n % 1000]
    assert all(job["outputs"][0]["target"] == f"out/{job['line'] - 1}.jpg" for job in found)


def test_only_the_first_hundred_errors_are_kept(idle):
    body = b"nonsense\n" * 150 + lines_of([{"source": "a", "outputs": [SMALL]}])
    batch = idle.client.post("/batches", content=body, headers=NDJSON).json()
    assert (batch["total"], batch["rejected"], len(batch["errors"])) == (1, 150, 100)


def test_a_line_that_is_too_long_is_refused_and_the_next_is_not(idle):
    good = lines_of([{"source": "a", "outputs": [SMALL]}])
    body = b'{"source": "' + b"x" * 70_000 + b'"}\n' + good + b"\n" + good
    batch = idle.client.post("/batches", content=body, headers=NDJSON).json()
    assert (batch["total"], batch["rejected"]) == (2, 1)
    assert "65536" in batch["errors"][0]["problem"]["detail"]
    assert [job["line"] for job in results(idle, batch)] == [2, 4]


def begun(served):
    """A connection on which a stream has been begun."""
    parts = urlsplit(served.url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    head = "POST /batches HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n"
    connection.sendall(f"{head}content-length: 1000000\r\n\r\n".encode())
    return connection


def test_a_stream_that_is_cut_cancels_what_it_has_brought(idle):
    before = newest(idle)
    with begun(idle) as cut:
        cut.sendall(lines_of({"source": f"{n}.jpg", "outputs": [SMALL]} for n in range(600)))
        until(lambda: newest(idle) != before)
    batch = ended(idle, {"id": newest(idle)})
    assert batch["state"] == "cancelled"
    assert "cut" in batch["error"]["detail"]
    assert batch["counts"]["cancelled"] == batch["total"] == 500


def test_a_stream_that_brings_nothing_is_not_waited_for(idle, monkeypatch):
    monkeypatch.setattr("app.jobs.batching._SILENCE", 0.2)
    monkeypatch.setattr("app.jobs.batch_intake._AT_LATEST", 0.0)
    lines = [lines_of([{"source": name, "outputs": [SMALL]}]) for name in "ab"]
    with begun(idle) as stalled:
        for line in lines:
            stalled.sendall(line)
        assert stalled.recv(100).startswith(b"HTTP/1.1 408")
    batch = ended(idle, {"id": newest(idle)})
    assert (batch["state"], batch["total"]) == ("cancelled", 2)
    assert "brought nothing" in batch["error"]["detail"]


def test_a_batch_whose_process_has_died_while_it_came_is_cancelled(idle):
    database = idle.app.api.state.service.jobs.database
    dead = BatchDraft(cursor=json.dumps({"until": 1.0}))
    batch = database.write_now(lambda tx: batches.create(tx, dead, now=1.0))
    held = BatchDraft(cursor=json.dumps({"until": time.time() + 60}))
    other = database.write_now(lambda tx: batches.create(tx, held, now=1.0))
    batch = ended(idle, {"id": batch.id})
    assert (batch["state"], "not read to its end" in batch["error"]["detail"]) == (
        "cancelled",
        True,
    )
    assert idle.get(f"/batches/{other.id}").json()["state"] == "filling"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_batch_that_is_sent_twice_is_accepted_once(idle, streamed):
    bodies = [{"source": f"{n}.jpg", "outputs": [SMALL]} for n in range(3)]
    headers = {"idempotency-key": f"one {streamed}", **(NDJSON if streamed else {})}

    def send(bodies, path="/batches"):
        data = lines_of(bodies) if streamed else json.dumps(bodies).encode()
        return idle.client.post(path, content=data, headers=headers)

    first, again = send(bodies), send(bodies)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = send(bodies[:2])
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert send(bodies, "/batches?priority=2").status_code == 422
    assert newest(idle) == first.json()["id"]
    assert len(results(idle, first.json())) == 3


def test_a_key_whose_request_was_refused_may_be_sent_again(idle):
    key = {"idempotency-key": "again"}
    assert refused(idle, [{}], **key)
    assert refused(idle, {"manifest": "nowhere.csv"}, **key)
    assert post(idle, [{"source": "a", "outputs": [SMALL]}], **key)["total"] == 1


def test_a_batch_is_cancelled_with_its_jobs_and_tried_again(start, pictures):
    idle = start(run_jobs=False)
    batch = post(idle, {"sources": [f"in/{n}.jpg" for n in range(4)], "outputs": [SMALL]})
    here = f"/batches/{batch['id']}"
    stopped = idle.client.post(f"{here}/cancel").json()
    assert (stopped["state"], stopped["counts"]["cancelled"]) == ("cancelled", 4)
    assert idle.client.post(f"{here}/cancel").status_code == 200
    nothing = idle.client.post(f"{here}/retry")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "record_conflict")
    assert idle.client.post(f"{here}/retry?only=some").json()["param"] == "only"
    again = idle.client.post(f"{here}/retry?only=cancelled").json()
    assert (again["retried"], again["state"], again["counts"]["queued"]) == (4, "running", 4)
    working = start()
    assert ended(working, batch)["state"] == "succeeded"
    late = working.client.post(f"{here}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "record_conflict")


def test_failed_jobs_are_tried_again_by_themselves(start, pictures, tmp_path):
    served = start()
    batch = post(served, {"sources": ["in/0.jpg", "late.jpg"], "outputs": [SMALL], "retries": 0})
    assert ended(served, batch)["counts"] == {**COUNTS, "succeeded": 1, "failed": 1}
    draw.put(tmp_path / "originals", "late.jpg", draw.jpeg(draw.quarters(40, 20)))
    again = served.client.post(f"/batches/{batch['id']}/retry").json()
    assert again["retried"] == 1
    batch = ended(served, batch)
    assert (batch["state"], batch["counts"]) == ("succeeded", {**COUNTS, "succeeded": 2})


def test_too_many_failures_stop_the_rest(start, pictures):
    served = start(job_concurrency=1)
    sources = [*(f"no/{n}.jpg" for n in range(3)), "in/0.jpg", *(f"no/{n}" for n in range(20))]
    body = {"sources": sources, "outputs": [SMALL], "retries": 0}
    batch = ended(served, post(served, {**body, "max_failures": 2}))
    assert batch["state"] == "cancelled"
    assert "max_failures" in batch["error"]["detail"]
    assert batch["counts"]["failed"] == 3
    assert batch["counts"]["cancelled"] == 21
    stopped = ended(served, post(served, {**body, "on_error": "stop"}))
    assert (stopped["max_failures"], stopped["counts"]["failed"]) == (0, 1)


def test_a_report_is_written_when_the_batch_has_ended(start, pictures):
    served = start()
    body = {"sources": ["in/0.jpg", "no.jpg"], "outputs": [SMALL], "retries": 0}
    made = {
        only: post(served, {**body, "report": {"target": f"reports/{only}.ndjson", "only": only}})
        for only in ("all", "failed")
    }
    for (only, batch), lines in zip(made.items(), (2, 1), strict=True):
        places = until(
            lambda batch=batch: served.get(f"/batches/{batch['id']}").json()["report"].get("places")
        )
        assert places == [f"reports/{only}.ndjson"]
        told = served.get(f"/images/{places[0]}").text.splitlines()
        assert len(told) == lines
        assert json.loads(told[-1])["error"]["code"] == "original_missing"
    # What a job has written is no original.
    selected = post(served, {"select": {"prefix": "reports/"}, "outputs": [SMALL]})
    assert ended(served, selected)["total"] == 0


def test_a_long_report_has_parts(start, pictures, monkeypatch):
    monkeypatch.setattr("app.jobs.reports._PART", 10)
    monkeypatch.setattr("app.jobs.reports._PAGE", 1)
    served = start()
    batch = post(
        served,
        {
            "sources": ["in/0.jpg", "in/1.jpg"],
            "outputs": [SMALL],
            "report": {"target": "a.b/r.ndjson"},
        },
    )
    report = until(
        lambda: (
            (found := served.get(f"/batches/{batch['id']}").json()["report"]).get("places")
            and found
        )
    )
    assert (report["places"], report["lines"]) == (["a.b/r.ndjson", "a.b/r-2.ndjson"], 2)
    for place in report["places"]:
        assert json.loads(served.get(f"/images/{place}").text)["state"] == "succeeded"


def test_a_dry_run_accepts_nothing_and_says_how_much_it_is(idle):
    before = newest(idle), idle.get("/jobs?limit=1").json()["items"]
    size = len(idle.get("/images/in/0.jpg").content)
    body = {"sources": [f"in/{n % 4}.jpg" for n in range(200)], "outputs": [{"widths": [4, 8]}]}
    answer = idle.client.post("/batches", json={**body, "dry_run": True})
    told = answer.json()
    assert answer.status_code == 200
    assert (told["jobs"], told["results"], told["sampled"]) == (200, 400, 50)
    assert told["bytes"] == 200 * size
    assert told["scaled"] == ["bytes", "cpu_seconds"]
    assert told["cpu_seconds"] > 0
    lines = lines_of({"source": f"in/{n}.jpg", "outputs": [SMALL]} for n in range(5)) + b"x\n"
    told = idle.client.post("/batches?dry_run=1", content=lines, headers=NDJSON).json()
    assert (told["jobs"], told["rejected"], told["unreadable"], told["scaled"]) == (
        5,
        1,
        1,
        ["bytes", "cpu_seconds"],
    )
    selected = {"select": {"prefix": "in/"}, "outputs": [SMALL], "dry_run": True}
    told = idle.client.post("/batches", json=selected).json()
    assert (told["jobs"], told["bytes"], told["scaled"]) == (4, 4 * size, [])
    assert (newest(idle), idle.get("/jobs?limit=1").json()["items"]) == before


def test_batches_are_listed_by_the_page(idle):
    made = [post(idle, [{"source": "a", "outputs": [SMALL]}])["id"] for _ in range(3)]
    first = idle.get("/batches?limit=2").json()
    assert [batch["id"] for batch in first["items"]] == made[:0:-1]
    rest = idle.get(first["next"]).json()
    assert rest["items"][0]["id"] == made[0]
    assert "next" not in idle.get("/batches?limit=1000").json()


def test_batches_are_found_by_their_state_and_label(idle):
    made = post(idle, {"sources": ["a"], "outputs": [SMALL], "label": "found"})["id"]

    def listed(query):
        return [batch["id"] for batch in idle.get(f"/batches?{query}").json()["items"]]

    assert listed("label=found") == [made]
    assert listed("label=found&state=running") == [made]
    assert listed("label=found&state=succeeded") == []
    problem = idle.get("/batches?state=queued").json()
    assert (problem["code"], problem["param"]) == ("invalid_parameter", "state")


def test_what_is_asked_of_no_batch_is_missing(idle):
    assert idle.get("/batches/nothing").status_code == 404
    assert idle.get("/batches/nothing/results").status_code == 404
    assert idle.client.post("/batches/nothing/cancel").status_code == 404
    assert idle.client.post("/batches/nothing/retry").status_code == 404


def test_results_come_by_the_page_and_by_state(idle, monkeypatch):
    monkeypatch.setattr("app.jobs.batching._PAGE", 2)
    batch = post(idle, {"sources": list("abcde"), "outputs": [SMALL]})
    found = results(idle, batch)
    assert [job["source"] for job in found] == list("abcde")
    idle.client.post(f"/jobs/{found[1]['id']}/cancel")
    assert [job["source"] for job in results(idle, batch, state="cancelled")] == ["b"]
    assert len(results(idle, batch, state="queued")) == 4
    assert idle.get(f"/batches/{batch['id']}/results?state=odd").json()["param"] == "state"
    assert idle.client.head(f"/batches/{batch['id']}/results").status_code == 200


def test_without_a_database_there_are_no_batches(serve):
    served = serve()
    assert served.client.post("/batches", json=[{}]).json()["code"] == "jobs_off"
    assert served.get("/batches").status_code == 404


def test_tokens_have_scopes(start):
    served = start(api_tokens="reader-secret-123@jobs:read", run_jobs=False)
    reader = {"authorization": "Bearer reader-secret-123"}
    assert served.get("/batches").status_code == 401
    assert served.get("/batches", headers=reader).status_code == 200
    assert served.client.post("/batches", json=[{}], headers=reader).status_code == 403
