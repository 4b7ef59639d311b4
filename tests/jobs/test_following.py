"""Following jobs and batches by Server-Sent Events."""

from __future__ import annotations

import json
import threading

import pytest

from app.jobs import following
from app.jobs.following import Place
from tests.http import originals as draw
from tests.jobs.posting import ended, post, until

SMALL = {"transform": {"w": 8}}


@pytest.fixture
def start(serve, tmp_path):
    for number in range(9):
        draw.put(tmp_path / "originals", f"in/{number}.jpg", draw.jpeg(draw.quarters(40, 20)))

    def begin(**options):
        return serve(database=f"sqlite:///{tmp_path}/pixelmill.db", **options)

    return begin


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(following, "_PAUSES", (0.02, 0.05))
    monkeypatch.setattr(following, "_LAG", 0.05)
    monkeypatch.setattr(following, "_BETWEEN", 0.05)


def follow(served, path, *, last=None, most=None):
    """The events of a stream, until it ends or there have been so many ends of jobs."""
    headers = {"last-event-id": last} if last else {}
    events, event, jobs = [], {}, 0
    with served.client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        for line in answer.iter_lines():
            if not line and "event" in event:
                events.append((event["event"], event.get("id"), json.loads(event["data"])))
                jobs += event["event"] == "job"
                event = {}
                if jobs == most:
                    break
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value
    return events


def test_every_end_is_told_once_however_often_the_client_is_cut_off(start):
    served = start()
    sources = [*(f"in/{n}.jpg" for n in range(8)), "no.jpg"]
    batch = post(served, {"sources": sources, "outputs": [SMALL], "retries": 0})
    path = f"/batches/{batch['id']}/events"
    last, told, final = None, [], None
    while final is None:
        for name, place, data in follow(served, path, last=last, most=2):
            last = place or last
            if name == "job":
                told.append(data)
            elif name == "end":
                final = data
            else:
                assert name == "progress"
                assert set(data["counts"]) == set(final["counts"] if final else data["counts"])
    assert sorted(job["source"] for job in told) == sorted(sources)
    assert [job["finished_at"] for job in told] == sorted(job["finished_at"] for job in told)
    assert {job["state"] for job in told} == {"succeeded", "failed"}
    assert (final["state"], final["counts"]["succeeded"]) == ("failed", 8)
    # Whoever knows the end is told not to come again.
    assert served.get(path, headers={"last-event-id": last}).status_code == 204
    # Unless the batch was tried again since.
    served.client.post(f"/batches/{batch['id']}/retry")
    ended(served, batch)
    again = follow(served, path, last=last)
    assert [(name, data.get("source")) for name, _, data in again if name != "progress"] == [
        ("job", "no.jpg"),
        ("end", None),
    ]


def test_the_counts_alone_are_told_where_no_more_is_wanted(start):
    served = start()
    batch = post(served, {"sources": ["in/0.jpg", "in/1.jpg"], "outputs": [SMALL]})
    events = follow(served, f"/batches/{batch['id']}/events?jobs=0")
    assert {name for name, _, _ in events} <= {"progress", "end"}
    assert events[-1][2]["counts"]["succeeded"] == 2


def test_a_job_is_followed_to_its_end(start):
    served = start()
    job = served.client.post("/jobs", json={"source": "in/0.jpg", "outputs": [SMALL]}).json()
    path = f"/jobs/{job['id']}/events"
    events = follow(served, path)
    assert [name for name, _, _ in events if name != "progress"] == ["job", "end"]
    assert events[-1][2]["state"] == "succeeded"
    assert [name for name, _, _ in follow(served, path, last=events[-2][1])] == ["end"]
    assert served.get(path, headers={"last-event-id": events[-1][1]}).status_code == 204


def test_a_place_that_no_event_had_is_refused(start):
    served = start(run_jobs=False)
    batch = post(served, [{"source": "a", "outputs": [SMALL]}])
    for path in (f"/batches/{batch['id']}/events", "/jobs/nothing/events"):
        answer = served.get(path, headers={"last-event-id": "somewhere"})
        assert (answer.status_code, answer.json()["param"]) == (400, "Last-Event-ID")
    assert served.get("/batches/nothing/events").status_code == 404
    assert served.get("/jobs/nothing/events").status_code == 404


def test_those_who_follow_are_bounded_and_make_room_when_they_leave(start, monkeypatch):
    monkeypatch.setattr(following, "_MOST", 1)
    monkeypatch.setattr(following, "HEARTBEAT", 0.1)
    served = start(run_jobs=False)
    batch = post(served, [{"source": "a", "outputs": [SMALL]}])
    path = f"/batches/{batch['id']}/events"
    with served.client.stream("GET", path) as first:
        lines = first.iter_lines()
        until(lambda: next(lines) == ": alive")  # nothing happens, and the line is kept open
        full = served.get(path)
        assert (full.status_code, full.json()["code"]) == (503, "overloaded")
        assert int(full.headers["retry-after"]) > 0

    def room():
        with served.client.stream("GET", path) as answer:
            return answer.status_code == 200

    until(room)


def test_streams_end_when_the_service_drains(start):
    served = start(run_jobs=False)
    batch = post(served, [{"source": "a", "outputs": [SMALL]}])
    begun, over = threading.Event(), threading.Event()

    def listen():
        with served.client.stream("GET", f"/batches/{batch['id']}/events") as answer:
            for _ in answer.iter_lines():
                begun.set()
        over.set()

    listening = threading.Thread(target=listen)
    listening.start()
    assert begun.wait(10)
    served.app.api.state.service.stop_jobs.set()
    assert over.wait(10)
    listening.join()


def test_a_place_is_read_as_it_is_written():
    for place in (Place(1795530972.133611, "0" * 26), Place(12.0, "end")):
        assert Place.read(str(place)) == place
    for text in ("", "1", "1-", "-1-end", "1e5-end", "1-" + "A" * 26, "nan-end"):
        assert Place.read(text) is None
