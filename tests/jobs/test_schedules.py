"""Ticks of schedules: one run for each, whoever looks and whatever the clock does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.errors import (
    InvalidRequest,
    RecordConflict,
    RecordMissing,
    SourceTimeout,
    TargetRefused,
)
from app.jobs import attempts, ledger
from app.jobs.database import Database
from app.jobs.embedded import EmbeddedQueue
from app.jobs.migrations import upgrade
from app.jobs.records import Job, State
from app.jobs.scheduler import Scheduler
from app.jobs.schedules import Outcome
from app.jobs.schema import jobs, schedules
from app.jobs.spec import SpecReader
from app.jobs.starters import JobStarter
from app.presets import Presets
from app.settings import Settings
from tests.template import lay_ledger

JOB = {"source": "b.jpg", "outputs": [{"transform": {"w": 200}, "target": "out/1.jpg"}]}
NOON = datetime.fromisoformat("2026-02-01T12:00:00+00:00").timestamp()
HOUR = 3600.0
DAY = 86_400.0


@dataclass
class Clock:
    """A clock that goes where a test wants it."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


class Woken(EmbeddedQueue):
    """A queue that remembers what was submitted to it, and how often it was woken."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, lease=30)
        self.submitted: list[str] = []
        self.woken = 0

    def submit(self, tx, jobs):
        super().submit(tx, jobs)
        self.submitted += [job.id for job in jobs]

    def wake(self) -> None:
        super().wake()
        self.woken += 1


@dataclass
class Replica:
    """One process of several that share a ledger."""

    database: Database
    clock: Clock = field(default_factory=Clock)
    settings: Settings = field(default_factory=lambda: Settings(_env_file=None))

    def __post_init__(self) -> None:
        self.queue = Woken(self.database)
        reader = SpecReader(self.settings, Presets())
        starters = {"job": JobStarter(reader, self.queue)}
        self.scheduler = Scheduler(self.database, self.queue, starters, clock=self.clock)

    async def put(self, schedule_id: str = "s", **fields):
        schedule, _ = await self.scheduler.put({"job": JOB, **fields}, schedule_id)
        return schedule

    async def tick_at(self, now: float) -> list[Outcome]:
        self.clock.now = now
        return await self.scheduler.tick()

    async def jobs(self, schedule_id: str = "s") -> list[Job]:
        """The jobs that a schedule has made, the oldest first."""
        found = await self.database.read(lambda tx: ledger.find_page(tx, limit=1000))
        return [job for job in reversed(found) if job.origin == f"schedule:{schedule_id}"]

    async def end(self, job_id: str) -> None:
        await self.database.write(lambda tx: attempts.cancel(tx, job_id, now=self.clock.now))


@pytest.fixture
def replicate(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Open replicas on one ledger in a file: `replicate(clock=clock)`."""
    with ExitStack() as stack:
        yield partial(_open_replica, stack, f"sqlite:///{tmp_path}/pixelmill.db")


@pytest.fixture
def replicate_on_either(ledger_url: str) -> Iterator[Callable[..., Replica]]:
    """The same on a ledger of either kind."""
    with ExitStack() as stack:
        yield partial(_open_replica, stack, ledger_url)


def _open_replica(stack: ExitStack, url: str, **options) -> Replica:
    lay_ledger(url)
    database = Database(url)
    stack.callback(database.close)
    upgrade(database)
    return Replica(database, **options)


@pytest.fixture
def replica(replicate) -> Replica:
    return replicate()


async def test_a_tick_makes_one_job_and_shows_when_the_next_is(replica):
    made = await replica.put(cron="0 3 * * *", timezone="Europe/Berlin")
    three = NOON + 14 * HOUR  # at 02:00 of the next day in UTC
    assert (made.next_at, made.last_at, made.last_id, made.runs) == (three, None, None, 0)
    assert await replica.tick_at(three - 1) == []
    assert await replica.tick_at(three + 0.4) == [Outcome.RAN]
    (job,) = await replica.jobs()
    assert job.state is State.QUEUED
    assert job.source == '[["id", "b.jpg"]]'
    found = await replica.scheduler.find("s")
    assert (found.next_at, found.last_at, found.last_id, found.runs) == (
        three + DAY,
        three + 0.4,
        job.id,
        1,
    )
    assert replica.queue.submitted == [job.id]
    assert replica.queue.woken == 1
    assert await replica.tick_at(three + 1) == []


async def test_replicas_that_look_at_once_make_one_job_for_each_tick(replicate_on_either):
    clock = Clock()
    replicas = [replicate_on_either(clock=clock) for _ in range(3)]
    names = [f"s{number}" for number in range(4)]
    for name in names:
        await replicas[0].put(name, run_every="1m", overlap="allow")
    for minute in range(1, 16):
        clock.now = NOON + 60 * minute
        rounds = await asyncio.gather(*(r.scheduler.tick() for r in replicas))
        outcomes = [outcome for outcomes in rounds for outcome in outcomes]
        assert outcomes.count(Outcome.RAN) == len(names)
    for name in names:
        made = await replicas[0].jobs(name)
        assert [job.created_at for job in made] == [NOON + 60 * m for m in range(1, 16)]
        assert (await replicas[0].scheduler.find(name)).runs == 15


async def test_replicas_whose_clocks_differ_make_one_job_for_each_tick(replicate_on_either):
    early, late = replicate_on_either(), replicate_on_either()
    await early.put(run_every="1h", overlap="allow")
    for hour in range(1, 6):
        now = NOON + hour * HOUR
        await late.tick_at(now - 1800)
        await early.tick_at(now + 1)
        await late.tick_at(now - 1200)
        await late.tick_at(now)
    assert len(await early.jobs()) == 5


async def test_a_clock_that_leaps_forward_brings_one_run(replica):
    await replica.put(run_every="1m", overlap="allow")
    assert await replica.tick_at(NOON + 1000 * DAY + 7) == [Outcome.RAN]
    assert await replica.tick_at(NOON + 1000 * DAY + 8) == []
    assert len(await replica.jobs()) == 1
    # The grid is that of before.
    assert (await replica.scheduler.find("s")).next_at == NOON + 1000 * DAY + 60


async def test_a_clock_that_falls_back_runs_no_tick_twice(replica):
    await replica.put(run_every="1h", overlap="allow")
    for hour in range(1, 4):
        await replica.tick_at(NOON + hour * HOUR)
    for now in (NOON + 2 * HOUR, NOON + HOUR + 5, NOON - DAY, NOON + 3.5 * HOUR):
        assert await replica.tick_at(now) == []
    assert await replica.tick_at(NOON + 4 * HOUR) == [Outcome.RAN]
    assert len(await replica.jobs()) == 4


@pytest.mark.parametrize(
    ("catch_up", "grace", "late", "outcome"),
    [
        ("one", 60, 10 * HOUR, Outcome.RAN),
        ("none", 60, 10 * HOUR, Outcome.MISSED),
        ("none", 60, 61, Outcome.MISSED),
        ("none", 60, 59, Outcome.RAN),
        ("none", 7200, HOUR, Outcome.RAN),
    ],
)
async def test_ticks_that_were_missed_are_one_run_or_none(replica, catch_up, grace, late, outcome):
    await replica.put(cron="0 0 * * *", catch_up=catch_up, grace=grace)
    # Three of them passed while nobody was there.
    assert await replica.tick_at(NOON + 12 * HOUR + 2 * DAY + late) == [outcome]
    assert len(await replica.jobs()) == (outcome is Outcome.RAN)
    found = await replica.scheduler.find("s")
    assert found.next_at == NOON + 12 * HOUR + 3 * DAY
    assert found.skipped == (outcome is Outcome.MISSED)


async def test_a_run_that_has_not_ended_has_the_next_skipped(replica):
    await replica.put(run_every="1h")
    await replica.tick_at(NOON + HOUR)
    assert await replica.tick_at(NOON + 2 * HOUR) == [Outcome.OVERLAPPED]
    (job,) = await replica.jobs()
    found = await replica.scheduler.find("s")
    assert (found.runs, found.skipped, found.last_id) == (1, 1, job.id)
    await replica.end(job.id)
    assert await replica.tick_at(NOON + 3 * HOUR) == [Outcome.RAN]


async def test_a_run_may_overlap_where_that_is_allowed(replica):
    await replica.put(run_every="1h", overlap="allow")
    assert await replica.tick_at(NOON + HOUR) == [Outcome.RAN]
    assert await replica.tick_at(NOON + 2 * HOUR) == [Outcome.RAN]


async def test_a_schedule_ends_with_its_last_tick_or_its_last_run(replica):
    await replica.put("till", run_every="1h", end_at="2026-02-01T14:30:00Z", overlap="allow")
    await replica.put("twice", run_every="1h", run_times=2, overlap="allow")
    await replica.put("once", start_at="2026-02-01T14:00:00Z")
    assert (await replica.scheduler.find("till")).upcoming() == [NOON + HOUR, NOON + 2 * HOUR]
    assert (await replica.scheduler.find("twice")).upcoming() == [NOON + HOUR, NOON + 2 * HOUR]
    assert (await replica.scheduler.find("once")).upcoming() == [NOON + 2 * HOUR]
    for hour in range(1, 6):
        await replica.tick_at(NOON + hour * HOUR)
    for name, runs in (("till", 2), ("twice", 2), ("once", 1)):
        found = await replica.scheduler.find(name)
        assert (found.runs, found.next_at, found.as_json()["state"]) == (runs, None, "ended")
        assert found.upcoming() == []
        assert len(await replica.jobs(name)) == runs


async def test_runs_that_were_skipped_are_not_among_run_times(replica):
    await replica.put(run_every="1h", run_times=2)
    for hour in (1, 2, 3):
        await replica.tick_at(NOON + hour * HOUR)
    (job,) = await replica.jobs()
    await replica.end(job.id)
    await replica.tick_at(NOON + 4 * HOUR)
    assert len(await replica.jobs()) == 2
    assert (await replica.scheduler.find("s")).next_at is None


async def test_what_passes_while_a_schedule_is_paused_is_not_made_up_for(replica):
    await replica.put(run_every="1h")
    paused = await replica.scheduler.pause("s")
    assert (paused.next_at, paused.as_json()["state"]) == (None, "paused")
    assert await replica.tick_at(NOON + 5 * HOUR) == []
    resumed = await replica.scheduler.resume("s")
    assert resumed.next_at == NOON + 6 * HOUR
    assert await replica.scheduler.resume("s") == resumed
    assert await replica.jobs() == []


async def test_a_schedule_that_waits_for_a_wrong_clock_goes_on_once_it_is_resumed(replica):
    await replica.put(run_every="1h", overlap="allow")
    await replica.tick_at(NOON + 1000 * DAY)
    assert await replica.tick_at(NOON + 2 * HOUR) == []
    await replica.scheduler.pause("s")
    assert (await replica.scheduler.resume("s")).next_at == NOON + 3 * HOUR


async def test_the_same_body_again_changes_nothing_and_another_begins_anew(replicate_on_either):
    replica = replicate_on_either()
    body = {"run_every": "1h", "run_times": 3, "overlap": "allow", "job": JOB}
    _, created = await replica.scheduler.put(body, "s")
    assert created
    await replica.tick_at(NOON + HOUR)
    before = await replica.scheduler.find("s")
    replica.clock.now += 1
    assert await replica.scheduler.put(dict(reversed(body.items())), "s") == (before, False)
    after, created = await replica.scheduler.put({**body, "run_every": "2h"}, "s")
    assert not created
    assert (after.runs, after.created_at, after.next_at) == (0, NOON, NOON + 2 * HOUR)
    assert after.last_id == before.last_id
    await replica.scheduler.pause("s")
    after, _ = await replica.scheduler.put(body, "s")
    assert (after.paused, after.next_at) == (True, None)


async def test_a_run_by_hand_is_beside_the_times_of_the_schedule(replica):
    made = await replica.put(run_every="1h", run_times=1)
    run = await replica.scheduler.run("s")
    (job,) = await replica.jobs()
    assert (run.last_id, run.last_at, run.runs, run.next_at) == (job.id, NOON, 0, made.next_at)
    assert replica.queue.submitted == [job.id]
    with pytest.raises(RecordConflict, match=job.id):
        await replica.scheduler.run("s")
    await replica.end(job.id)
    await replica.scheduler.pause("s")
    await replica.scheduler.run("s")
    assert len(await replica.jobs()) == 2


async def test_a_tick_that_cannot_be_run_is_noted_and_the_next_comes(replicate_on_either):
    first = replicate_on_either(settings=Settings(_env_file=None, targets="s3://out/*"))
    body = {"source": "b.jpg", "outputs": [{"target": "s3://out/{stem}.jpg"}]}
    await first.scheduler.put({"run_every": "1h", "job": body}, "s")
    await first.put("other", run_every="1h")
    later = replicate_on_either()  # the setting has gone
    assert sorted(await later.tick_at(NOON + HOUR)) == [Outcome.RAN, Outcome.REFUSED]
    found = await later.scheduler.find("s")
    assert (found.runs, found.skipped, found.next_at) == (0, 1, NOON + 2 * HOUR)
    assert json.loads(found.error)["code"] == "target_refused"
    assert await later.jobs() == []
    assert Outcome.RAN in await first.tick_at(NOON + 2 * HOUR)
    assert (await first.scheduler.find("s")).error is None


async def test_a_store_that_is_away_delays_a_tick_and_does_not_lose_it(replica):
    class Looking(JobStarter):
        away = True

        async def prepare(self, body, *, now):
            if self.away:
                raise SourceTimeout("The store does not answer")
            return await super().prepare(body, now=now)

    starter = Looking(SpecReader(replica.settings, Presets()), replica.queue)
    scheduler = Scheduler(replica.database, replica.queue, {"job": starter}, clock=replica.clock)
    made = await replica.put(run_every="1h")
    replica.clock.now = NOON + HOUR
    assert await scheduler.tick() == [Outcome.LEFT]
    found = await scheduler.find("s")
    assert (found.next_at, found.skipped) == (made.next_at, 0)
    assert json.loads(found.error)["code"] == "source_timeout"
    replica.clock.now += 300
    starter.away = False
    assert await scheduler.tick() == [Outcome.RAN]
    assert (await scheduler.find("s")).error is None


async def test_a_schedule_that_can_no_longer_be_read_ends_and_holds_up_nobody(replica):
    await replica.put(cron="0 * * * *", timezone="Europe/Berlin")
    await replica.put("other", run_every="1h")
    spec = json.dumps({"cron": "0 * * * *", "timezone": "Europe/Atlantis", "job": JOB})
    await replica.database.write(
        lambda tx: tx.execute(schedules.update().where(schedules.c.id == "s").values(spec=spec))
    )
    assert sorted(await replica.tick_at(NOON + HOUR)) == [Outcome.RAN, Outcome.REFUSED]
    found = await replica.scheduler.find("s")
    assert found.next_at is None
    assert json.loads(found.error)["param"] == "timezone"


async def test_a_job_and_the_step_to_the_next_tick_are_written_together_or_not_at_all(
    replicate_on_either,
):
    replica = replicate_on_either()
    await replica.put(run_every="1h")

    def fail(tx, jobs):
        raise ValueError("the queue does not take it")

    whole, replica.queue.submit = replica.queue.submit, fail
    assert await replica.tick_at(NOON + HOUR) == [Outcome.REFUSED]
    assert await replica.jobs() == []
    found = await replica.scheduler.find("s")
    assert (found.runs, found.last_id) == (0, None)
    assert json.loads(found.error)["code"] == "internal"
    replica.queue.submit = whole
    assert await replica.tick_at(NOON + 2 * HOUR) == [Outcome.RAN]


async def test_a_deleted_schedule_leaves_what_it_has_started(replica):
    await replica.put(run_every="1h")
    await replica.tick_at(NOON + HOUR)
    await replica.scheduler.delete("s")
    assert len(await replica.jobs()) == 1
    assert await replica.tick_at(NOON + 2 * HOUR) == []
    for call in (
        replica.scheduler.find,
        replica.scheduler.delete,
        replica.scheduler.pause,
        replica.scheduler.resume,
        replica.scheduler.run,
    ):
        with pytest.raises(RecordMissing):
            await call("s")


async def test_many_that_are_due_at_once_all_run(replica):
    for number in range(130):
        await replica.put(f"s{number}", run_every="1h")
    outcomes = await replica.tick_at(NOON + HOUR) + await replica.tick_at(NOON + HOUR + 1)
    assert outcomes == [Outcome.RAN] * 130
    count = sa.select(sa.func.count()).select_from(jobs)
    assert await replica.database.read(lambda tx: tx.execute(count).scalar()) == 130


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"run_every": "1h"}, "job"),
        ({"run_every": "1h", "job": JOB, "batch": {"sources": ["b.jpg"]}}, "job"),
        ({"run_every": "1h", "job": {"source": "b.jpg"}}, "job.outputs"),
        ({"run_every": "1h", "job": {**JOB, "source": "/b"}}, "job.source"),
        ({"run_every": "1h", "job": {**JOB, "when": 1}}, "job.when"),
        (
            {"run_every": "1h", "job": {**JOB, "outputs": [{"transform": "w=0"}]}},
            "job.outputs[0].transform.w",
        ),
        ({"run_every": "1h", "job": []}, "job"),
        ({"job": JOB}, "cron"),
        ({"run_every": "1h", "job": JOB, "catch_up": "all"}, "catch_up"),
        ({"run_every": "1h", "job": JOB, "overlap": None}, "overlap"),
        ({"run_every": "1h", "job": JOB, "grace": 1}, "grace"),
        ({"start_at": "2026-02-01T11:59:59Z", "job": JOB}, "start_at"),
        ({"run_every": "1h", "end_at": "2026-02-01T12:30:00Z", "job": JOB}, "end_at"),
    ],
)
async def test_a_schedule_that_is_wrong_or_would_never_run_is_refused(replica, body, param):
    with pytest.raises(InvalidRequest) as caught:
        await replica.scheduler.put(body, "s")
    assert caught.value.param == param
    assert await replica.scheduler.find_page(limit=9) == []


async def test_a_target_that_is_not_allowed_is_refused_at_once(replica):
    job = {"source": "b.jpg", "outputs": [{"target": "s3://elsewhere/1.jpg"}]}
    with pytest.raises(TargetRefused) as caught:
        await replica.put(run_every="1h", job=job)
    assert caught.value.param == "job.outputs[0].target"
