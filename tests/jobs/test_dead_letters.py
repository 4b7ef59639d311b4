"""Dead letters: found by what they have in common, tried again, forgotten; and the quarantine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.errors import InvalidRequest, OriginalMissing, RecordMissing, SourceFailed
from app.jobs import attempts, dead_letters
from app.jobs.bodies import validate
from app.jobs.database import Database
from app.jobs.dead_letters import Choice, ChoiceBody, DeadLetters
from app.jobs.embedded import EmbeddedQueue
from app.jobs.records import State
from app.jobs.schema import attempts as attempt_rows
from app.jobs.schema import jobs
from tests.http import originals as draw
from tests.jobs.ledgers import add_jobs, begin, end_badly, end_well, find, open_ledger
from tests.serving import serving

ALL = Choice()


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'pixelmill.db'}"


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_ledger(ledger_url) as opened:
        yield opened


@pytest.fixture
def letters(database: Database) -> DeadLetters:
    return DeadLetters(database, EmbeddedQueue(database, lease=10))


def add_dead(database, *, count=1, error=None, **fields):
    made = add_jobs(database, count=count, **fields)
    for job in made:
        end_badly(database, job, error or SourceFailed("away"))
    return made


async def find_ids(letters, **choice):
    return [job.id for job in await letters.find_page(Choice(**choice), limit=100)]


async def test_those_are_listed_that_have_failed_the_newest_first(database, letters):
    dead = add_dead(database, count=3)
    end_well(database, *add_jobs(database))
    add_jobs(database)
    assert await find_ids(letters) == [job.id for job in dead[::-1]]
    page = await letters.find_page(ALL, limit=1, before=dead[1].id)
    assert [job.id for job in page] == [dead[0].id]


async def test_they_are_found_by_label_batch_and_code(database, letters):
    add_dead(database)
    (labelled,) = add_dead(database, label="nightly")
    (missing,) = add_dead(database, error=OriginalMissing('no "code": "poison" here'))
    assert await find_ids(letters, label="nightly") == [labelled.id]
    assert await find_ids(letters, code="original_missing") == [missing.id]
    assert await find_ids(letters, code="original_missing", label="nightly") == []
    assert await find_ids(letters, code="poison") == []
    assert await find_ids(letters, code="original") == []
    assert await find_ids(letters, code="source_failed", batch_id="none") == []


async def test_one_is_looked_at_with_its_attempts(database, letters):
    (job,) = add_jobs(database)
    end_badly(database, job, SourceFailed("first"), again_at=time.time())
    end_badly(database, job, OriginalMissing("second"))
    letter = await letters.find(job.id)
    assert [attempt["error"]["detail"] for attempt in letter.attempts] == ["first", "second"]
    assert {attempt["worker"] for attempt in letter.attempts} == {"worker"}
    assert all(attempt["started_at"] and attempt["ended_at"] for attempt in letter.attempts)
    (open_job,) = add_jobs(database)
    with pytest.raises(RecordMissing):
        await letters.find(open_job.id)


async def test_what_is_redriven_has_all_its_attempts_again(database, letters, monkeypatch):
    monkeypatch.setattr(dead_letters, "_PAGE", 20)
    dead = add_dead(database, count=45, label="nightly")
    (other,) = add_dead(database)
    assert await letters.redrive(Choice(label="nightly")) == (45, False)
    again = find(database, dead[0])
    assert (again.state, again.failures, again.error) == (State.QUEUED, 0, None)
    assert begin(database, dead[-1]) is not None
    assert find(database, other).state is State.FAILED


async def test_what_is_named_by_its_id_is_redriven_only_if_it_has_failed(database, letters):
    (dead,) = add_dead(database)
    (done,) = add_jobs(database)
    end_well(database, done)
    assert await letters.redrive(Choice(ids=(dead.id, done.id, "none"))) == (1, False)
    assert find(database, done).state is State.SUCCEEDED


async def test_a_request_takes_so_many_and_says_that_there_are_more(database, letters, monkeypatch):
    monkeypatch.setattr(dead_letters, "_PAGE", 10)
    monkeypatch.setattr(dead_letters, "MOST_AT_ONCE", 20)
    add_dead(database, count=25)
    assert await letters.redrive(ALL) == (20, True)
    assert await letters.redrive(ALL) == (5, False)


async def test_what_is_purged_is_gone_with_its_attempts(database, letters):
    add_dead(database, count=3)
    (kept,) = add_jobs(database)
    end_well(database, kept)
    assert await letters.purge(ALL) == (3, False)
    assert await find_ids(letters) == []
    assert find(database, kept).state is State.SUCCEEDED
    count = sa.select(sa.func.count()).select_from(attempt_rows)
    assert database.write_now(lambda tx: tx.execute(count).scalar_one()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"all": False},
        {"all": True, "label": "nightly"},
        {"ids": ["a"], "code": "poison"},
        {"ids": []},
        {"code": "%"},
        {"everything": True},
    ],
)
def test_a_choice_that_is_none_is_refused(body):
    with pytest.raises(InvalidRequest):
        validate(ChoiceBody, body).choice()


async def test_what_ends_its_workers_is_in_quarantine_until_it_is_let_out(database):
    (job,) = add_jobs(database)
    now = time.time()
    for death in range(attempts.MAX_DEATHS):
        begun = begin(database, job)
        database.write_now(lambda tx, begun=begun: attempts.note_digest(tx, begun, "d" * 64))
        later = now + 1000 * (death + 1)
        database.write_now(lambda tx, later=later: attempts.reap(tx, now=later))
    assert json.loads(find(database, job).error)["code"] == "poison"

    def look():
        return database.write_now(lambda tx: dead_letters.find_quarantined(tx, limit=9))

    (entry,) = look()
    assert (entry.job_id, entry.as_json()["source"]) == (job.id, "cat.jpg")
    database.write_now(lambda tx: dead_letters.release(tx, entry.digest))
    assert look() == []
    with pytest.raises(RecordMissing):
        database.write_now(lambda tx: dead_letters.release(tx, entry.digest))


def test_all_of_it_over_http(tmp_path):
    url = f"sqlite:///{tmp_path / 'pixelmill.db'}"
    (tmp_path / "originals").mkdir()
    with serving(
        originals=f"file:{tmp_path / 'originals'}",
        results=f"file:{tmp_path / 'results'}",
        database=url,
    ) as served:
        body = {"source": "late.jpg", "outputs": [{"transform": "w=20"}]}
        job = served.client.post("/jobs", json=body, headers={"prefer": "wait=10"}).json()
        assert job["state"] == "failed"
        (letter,) = served.get("/dead-letters?code=original_missing").json()["items"]
        assert letter["id"] == job["id"]
        whole = served.get(letter["links"]["self"]).json()
        assert whole["attempts"][0]["error"]["code"] == "original_missing"

        served.client.put("/images/late.jpg", content=draw.jpeg(draw.quarters(60, 30)))
        answered = served.client.post("/dead-letters/redrive", json={"ids": [job["id"]]})
        assert answered.json() == {"redriven": 1, "more": False}
        deadline = time.monotonic() + 20
        while served.get(f"/jobs/{job['id']}").json()["state"] != "succeeded":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert served.get(letter["links"]["self"]).status_code == 404
        purged = served.client.post("/dead-letters/purge", json={"all": True})
        assert purged.json() == {"purged": 0, "more": False}
        assert served.client.post("/dead-letters/purge", json={}).status_code == 400
        assert served.get("/quarantine").json() == {"items": []}
        assert served.client.delete("/quarantine/none").status_code == 404


def test_a_version_in_quarantine_is_not_rendered_by_other_jobs_either(tmp_path):
    url = f"sqlite:///{tmp_path / 'pixelmill.db'}"
    (tmp_path / "originals").mkdir()
    with serving(
        originals=f"file:{tmp_path / 'originals'}",
        results=f"file:{tmp_path / 'results'}",
        database=url,
    ) as served:
        served.client.put("/images/cat.jpg", content=draw.jpeg(draw.quarters(60, 30)))
        body = {"source": "cat.jpg", "outputs": [{"transform": "w=20"}]}
        # The job is made to look as if its last attempts had ended their workers.
        served.client.post("/queue/pause", json={})
        suspect = served.client.post("/jobs", json=body).json()["id"]
        database = Database(url)
        try:
            marked = jobs.update().where(jobs.c.id == suspect).values(deaths=1)
            database.write_now(lambda tx: tx.execute(marked))
            served.client.post("/queue/resume", json={})
            deadline = time.monotonic() + 20
            found = sa.select(jobs.c.digest).where(
                jobs.c.id == suspect, jobs.c.state == State.SUCCEEDED
            )
            while not (digest := database.write_now(lambda tx: tx.execute(found).scalar())):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            database.write_now(
                lambda tx: tx.execute(
                    dead_letters.quarantine.insert().values(
                        digest=digest, source="[]", job_id=suspect, since=1
                    )
                )
            )
        finally:
            database.close()
        wait = {"prefer": "wait=10"}
        assert served.get("/quarantine").json()["items"][0]["digest"] == digest
        while True:  # a worker looks again after a few seconds
            job = served.client.post("/jobs", json=body, headers=wait).json()
            if job["state"] == "failed":
                break
            assert time.monotonic() < deadline
        assert job["error"]["code"] == "poison"
        assert served.client.delete(f"/quarantine/{digest}").status_code == 204
        again = served.client.post("/dead-letters/redrive", json={"code": "poison"}).json()
        assert again["redriven"] == 1
        while served.get(f"/jobs/{job['id']}").json()["state"] != "succeeded":
            assert time.monotonic() < deadline
            time.sleep(0.02)
