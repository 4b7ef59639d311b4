"""What an autoscaler is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from app import demand as module
from app.admission import Admission, Lane
from app.demand import DemandMeter
from app.errors import LedgerUnavailable
from app.jobs.backlog import Due
from tests.http import originals as draw


def test_it_tells_how_busy_a_replica_is(serve, folder, call, until, gate):
    served = serve(workers=1, queue_interactive="1s", results="off")
    idle = served.get("/autoscale")
    assert idle.headers["cache-control"] == "no-store"
    assert idle.json() == {
        "workers": 1,
        "running": 0,
        "queued": 0,
        "utilisation": 0,
        "demand": 0,
        "queue_wait_seconds": 0,
        "queue_seconds": 0,
        "shed_share": 0,
        "draining": False,
        "jobs": None,
    }
    (declared,) = (
        served.get("/openapi.json")
        .json()["paths"]["/autoscale"]["get"]["responses"]["200"]["content"]
        .values()
    )
    assert idle.json().keys() == declared["schema"]["properties"].keys()
    callers = [call(served).send(f"/thumb/cat.jpg?w={width}") for width in (50, 60)]
    until(lambda: served.get("/autoscale").json()["queued"] == 1)
    until(lambda: served.get("/autoscale").json()["utilisation"] > 0)
    busy = served.get("/autoscale").json()
    assert busy["running"] == 1
    assert 0 < busy["queue_seconds"] < 1
    gate.set()
    for caller in callers:
        assert caller.read().status == 200
    until(lambda: served.get("/autoscale").json()["running"] == 0)
    assert served.get("/autoscale").json()["queue_wait_seconds"] > 0
    served.app.api.state.service.draining = True
    assert served.get("/autoscale").json()["draining"] is True


def test_it_tells_of_jobs_where_there_are_any(serve, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_KEPT", 0.0)
    monkeypatch.setattr(module, "_TIMES", 0)
    served = serve(database=f"sqlite:///{tmp_path}/jobs.db", run_jobs=False, results="off")
    assert served.get("/autoscale").json()["jobs"] == {
        "due": 0,
        "backlog_seconds": 0,
        "oldest_seconds": 0,
    }
    for width in (50, 60, 70):
        outputs = [{"transform": {"w": width}, "target": f"out/{width}.jpg"}]
        job = {"source": "cat.jpg", "outputs": outputs}
        assert served.client.post("/jobs", json=job).status_code == 202
    told = served.get("/autoscale").json()["jobs"]
    assert told["due"] == 3
    assert told["backlog_seconds"] > 0
    assert told["oldest_seconds"] >= 0


def test_what_is_refused_is_counted_by_lane_and_reason(serve, folder, call, until, gate):
    served = serve(workers=1, queue_interactive=0, render_timeout="1h", results="off")
    # An estimate of many seconds, so that it does not run out while the test looks.
    folder.put("wide.png", draw.png(draw.flat(draw.RED, 3000, 2000)))
    busy = call(served).send("/thumb/wide.png?w=3000&fm=avif&effort=9")
    until(lambda: served.get("/autoscale").json()["running"] == 1)
    refused = served.get("/thumb/cat.jpg?w=60")
    assert refused.status_code == 503
    assert served.metric("pixelmill_sheds_total", lane="interactive", reason="queue") == 1
    assert served.get("/autoscale").json()["shed_share"] == pytest.approx(0.5)
    busy.leave()


class Faulty:
    """A database that fails, or does not answer."""

    def __init__(self, fault):
        self.fault = fault
        self.asked = 0

    async def measure_due(self):
        self.asked += 1
        if self.fault is None:
            return Due(depth=3, age=1.0, seconds=2.0)
        if isinstance(self.fault, Exception):
            raise self.fault
        await asyncio.sleep(self.fault)
        raise AssertionError("nobody waits for this")


def meter_of(jobs):
    admission = Admission(
        processors=2,
        memory=1,
        budgets=dict.fromkeys(Lane, 1.0),
        on_wait=lambda lane, seconds: None,
        on_shed=lambda lane, reason: None,
        on_busy=lambda seconds: None,
    )
    return DemandMeter(admission, jobs)


@pytest.mark.parametrize("fault", [LedgerUnavailable("gone"), RuntimeError("closed"), 60.0])
async def test_a_database_that_fails_or_is_silent_is_left_out(monkeypatch, fault):
    monkeypatch.setattr(module, "_TIMEOUT", 0.05)
    jobs = Faulty(fault)
    meter = meter_of(jobs)
    began = time.monotonic()
    for _ in range(5):
        told = await meter.measure(draining=False)
        assert told.as_json()["jobs"] is None
        assert told.as_json()["workers"] == 2
    assert time.monotonic() - began < 10
    assert jobs.asked == 1  # one question at a time, and one a second
    await meter.close()


async def test_the_database_is_asked_once_for_all_who_ask_within_a_second():
    jobs = Faulty(None)
    meter = meter_of(jobs)
    told = await asyncio.gather(*(meter.measure(draining=False) for _ in range(20)))
    assert {one.due.depth for one in told} == {3}
    assert jobs.asked == 1
    await meter.close()
