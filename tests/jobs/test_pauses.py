"""Pauses: what waits, what runs on, and that nothing stays behind; and how much waits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.errors import SourceFailed
from app.jobs import attempts, backlog, ledger
from app.jobs.backlog import BacklogMeter
from app.jobs.database import Connection, Database, insert_once
from app.jobs.pauses import Pauses
from app.jobs.records import Job, State
from app.jobs.schema import jobs as jobs_table
from app.jobs.schema import pauses as pauses_table
from app.telemetry import Metrics
from tests.jobs.ledgers import add_jobs, begin, end_badly, find, open_ledger
from tests.serving import serving


class Queue:
    """Notes what it is told to bring, and what not."""

    def __init__(self) -> None:
        self.brought: list[str] = []
        self.cancelled: list[str] = []

    def submit(self, tx: Connection, jobs: Sequence[Job]) -> None:
        assert not any(job.paused for job in jobs)
        self.brought += [job.id for job in jobs]

    def cancel(self, tx: Connection, ids: Sequence[str]) -> None:
        self.cancelled += ids

    def wake(self) -> None:
        return None


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'pixelmill.db'}"


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_ledger(ledger_url) as opened:
        yield opened


def claim(database: Database) -> list[str]:
    """What an embedded queue would bring now."""
    now = time.time() + 1
    return database.write_now(lambda tx: attempts.claim(tx, limit=5000, until=now + 9, now=now))


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


async def test_paused_jobs_wait_and_the_others_do_not(database):
    queue = Queue()
    stopped = add_jobs(database, count=1203, label="nightly")
    others = add_jobs(database, count=2) + add_jobs(database, label="daily")
    assert await Pauses(database, queue).pause("nightly") == 1203
    assert sorted(queue.cancelled) == sorted(ids(stopped))
    assert sorted(claim(database)) == sorted(ids(others))
    assert find(database, stopped[0]).as_json()["state"] == "paused"
    assert begin(database, stopped[0]) is None


async def test_resumed_jobs_are_brought_again_each_once(database):
    queue = Queue()
    stopped = add_jobs(database, count=1203, label="nightly")
    pauses = Pauses(database, queue)
    await pauses.pause("nightly")
    assert await pauses.resume("nightly") == 1203
    assert sorted(queue.brought) == sorted(ids(stopped))
    assert len(claim(database)) == 1203
    assert await pauses.find_all() == []


async def test_a_job_that_runs_is_left_to_end(database):
    (job,) = add_jobs(database, label="nightly")
    begun = begin(database, job)
    assert begun is not None
    await Pauses(database, Queue()).pause("nightly")
    assert find(database, job).state is State.RUNNING
    assert database.write_now(lambda tx: attempts.finish(tx, begun, [], now=time.time()))


async def test_jobs_that_come_in_during_a_pause_wait_too(database):
    pauses = Pauses(database, Queue())
    await pauses.pause("nightly")
    (job,) = add_jobs(database, label="nightly")
    assert claim(database) == []
    await pauses.resume("nightly")
    assert claim(database) == [job.id]


@pytest.mark.parametrize("way", ["retried", "handed back", "orphaned"])
async def test_a_job_that_ran_when_its_label_was_paused_does_not_begin_again(database, way):
    (job,) = add_jobs(database, label="nightly")
    pauses = Pauses(database, Queue())
    if way == "retried":
        end_badly(database, job, SourceFailed("away"), again_at=time.time() - 1)
        await pauses.pause("nightly")
    else:
        begin(database, job)
        await pauses.pause("nightly")
        later = time.time() + 100
        if way == "handed back":
            database.write_now(lambda tx: attempts.hand_back(tx, [job.id], worker="worker", now=1))
        else:
            database.write_now(lambda tx: attempts.reap(tx, now=later))
    for job_id in claim(database):
        assert job_id == job.id
    assert begin(database, job) is None
    assert find(database, job).as_json()["state"] == "paused"
    await pauses.resume("nightly")
    assert begin(database, job) is not None


async def test_a_failed_job_that_is_tried_again_by_hand_waits_too(database):
    (job,) = add_jobs(database, label="nightly")
    end_badly(database, job, SourceFailed("away"))
    await Pauses(database, Queue()).pause("nightly")
    database.write_now(lambda tx: ledger.queue_again(tx, job.id, now=time.time()))
    assert begin(database, job) is None


async def test_each_pause_is_ended_by_itself(database):
    pauses = Pauses(database, Queue())
    (named,) = add_jobs(database, label="nightly")
    (nameless,) = add_jobs(database)
    await pauses.pause("*")
    await pauses.pause("nightly")
    assert claim(database) == []
    await pauses.resume("nightly")
    assert claim(database) == []
    await pauses.pause("nightly")
    await pauses.resume("*")
    assert claim(database) == [nameless.id]
    await pauses.resume("nightly")
    assert claim(database) == [named.id]


async def test_a_job_that_was_accepted_while_its_label_was_resumed_is_found(database):
    """Its transaction has seen the pause, and ends after the resumption has looked for it."""
    queue = Queue()
    (job,) = add_jobs(database, label="nightly")
    database.write_now(
        lambda tx: tx.execute(
            jobs_table.update().where(jobs_table.c.id == job.id).values(paused=True)
        )
    )
    assert claim(database) == []
    assert await Pauses(database, queue).release() == 1
    assert queue.brought == [job.id]
    assert claim(database) == [job.id]


async def test_a_job_that_was_accepted_while_its_label_was_paused_does_not_begin(database):
    """Its transaction has not seen the pause, and ends after the others have been marked."""
    (job,) = add_jobs(database, label="nightly")
    database.write_now(lambda tx: insert_once(tx, pauses_table, label="nightly", since=1))
    assert claim(database) == [job.id]
    assert begin(database, job) is None
    assert find(database, job).paused


async def test_to_pause_twice_is_no_error(database):
    pauses = Pauses(database, Queue())
    add_jobs(database, label="nightly")
    assert [await pauses.pause("nightly"), await pauses.pause("nightly")] == [1, 0]
    assert [await pauses.resume("nightly"), await pauses.resume("nightly")] == [1, 0]


# --- how much waits -----------------------------------------------------------------------------


async def test_a_backlog_is_the_jobs_that_wait_times_how_long_they_take(database):
    now = time.time()
    for job in add_jobs(database, count=4):
        begun = database.write_now(
            lambda tx, job=job: attempts.begin(tx, job.id, worker="w", until=now + 60, now=now)
        )
        database.write_now(lambda tx, begun=begun: attempts.finish(tx, begun, [], now=now + 3))
    add_jobs(database, count=10)
    add_jobs(database, run_after=now + 9000)
    add_jobs(database, count=5, label="nightly")
    await Pauses(database, Queue()).pause("nightly")
    found = database.write_now(lambda tx: backlog.measure(tx, concurrency=2, now=now + 60))
    assert (found.due.depth, found.paused) == (10, 5)
    assert found.counts["queued"] == 16
    assert found.counts["succeeded"] == 4
    assert found.due.age == pytest.approx(60, abs=5)
    assert found.due.seconds == pytest.approx(10 * 3 / 2)


async def test_nothing_waits_in_an_empty_ledger(database):
    metrics = Metrics()
    await BacklogMeter(database, metrics=metrics, concurrency=4).show()
    read = metrics.registry.get_sample_value
    assert read("pixelmill_job_queue_depth") == 0
    assert read("pixelmill_job_queue_age_seconds") == 0
    assert read("pixelmill_job_backlog_seconds") == 0
    assert read("pixelmill_jobs", {"state": "queued"}) == 0


def test_the_queue_is_paused_looked_at_and_resumed_over_http(tmp_path):
    (tmp_path / "originals").mkdir()
    with serving(
        originals=f"file:{tmp_path / 'originals'}",
        results=f"file:{tmp_path / 'results'}",
        database=f"sqlite:///{tmp_path / 'pixelmill.db'}",
    ) as served:
        paused = served.client.post("/queue/pause", json={"label": "nightly"}).json()
        assert [pause["label"] for pause in paused["pauses"]] == ["nightly"]
        body = {"source": "missing.jpg", "outputs": [{}], "label": "nightly"}
        job = served.client.post("/jobs", json=body).json()
        assert job["state"] == "paused"
        refused = served.get("/jobs?state=paused")
        assert (refused.status_code, refused.json()["param"]) == (400, "state")
        assert "queued, running, succeeded, failed, cancelled" in refused.json()["detail"]
        assert "what a pause holds is queued" in refused.json()["detail"]
        (held,) = served.get("/jobs?state=queued").json()["items"]
        assert held["id"] == job["id"]
        seen = served.get("/queue").json()
        assert seen["jobs"]["queued"] == seen["jobs"]["paused"] == 1
        assert seen["depth"] == 0
        assert served.client.post("/queue/resume", json={}).json()["jobs"]["paused"] == 1
        assert served.client.post("/queue/resume", json={"label": "nightly"}).json()["pauses"] == []
        deadline = time.monotonic() + 20
        while served.get(f"/jobs/{job['id']}").json()["state"] != "failed":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        refused = served.client.post("/queue/pause", json={"label": "*"})
        assert (refused.status_code, refused.json()["param"]) == (400, "label")
