"""Filling a batch from a manifest or a selection: every entry once, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter

import pytest

from app.errors import LedgerUnavailable
from app.jobs import origins
from app.jobs.filling import Filler
from app.jobs.schema import jobs
from tests.http import originals as draw
from tests.jobs.posting import ended, lines_of, post, results, until

SMALL = {"transform": {"w": 8}}
PICTURE = draw.jpeg(draw.quarters(40, 20))


@pytest.fixture
def put(tmp_path):
    """Put originals into the store."""

    def write(*names, data=PICTURE):
        for name in names:
            draw.put(tmp_path / "originals", name, data)

    return write


@pytest.fixture
def start(serve, tmp_path):
    def begin(**options):
        return serve(database=f"sqlite:///{tmp_path}/pixelmill.db", **options)

    return begin


@pytest.fixture
def short_pages(monkeypatch):
    monkeypatch.setattr(origins, "_OBJECTS", 3)
    monkeypatch.setattr(origins, "_ROWS", 3)


def sources(served, batch):
    return Counter(job["source"] for job in results(served, batch))


def names(count, folder="in"):
    return [f"{folder}/{number:02}.jpg" for number in range(count)]


class Interrupted(LedgerUnavailable):
    """The process has died here, as far as a test can tell."""


@pytest.fixture
def dying(monkeypatch):
    """Filling dies at every second page: just before it is written down, or just after."""
    write = Filler._write
    turns = {"count": 0}

    async def faulty(self, batch, page, job):
        turns["count"] += 1
        if turns["count"] % 4 == 2:
            raise Interrupted("before")
        found = await write(self, batch, page, job)
        if turns["count"] % 4 == 0:
            raise Interrupted("after")
        return found

    monkeypatch.setattr(Filler, "_write", faulty)
    monkeypatch.setattr("app.jobs.worker._FIRST_BACKOFF", 0.01)
    return turns


def test_a_selection_that_is_interrupted_goes_on_where_it_was(start, put, short_pages, dying):
    put(*names(20))
    served = start()
    batch = ended(served, post(served, {"select": {"prefix": "in/"}, "outputs": [SMALL]}))
    assert batch["state"] == "succeeded"
    assert batch["total"] == 20
    assert sources(served, batch) == Counter(names(20))
    assert dying["count"] > 7


@pytest.mark.parametrize("ending", ["csv", "ndjson"])
def test_a_manifest_that_is_interrupted_goes_on_where_it_was(
    start, put, short_pages, dying, ending, monkeypatch
):
    monkeypatch.setattr(origins, "_WINDOW", 64)
    put(*names(20))
    rows = "id,w\r\n" + "".join(f'"{name}",8\r\n' for name in names(20))
    listed = lines_of({"source": name, "outputs": [SMALL]} for name in names(20))
    put(f"today.{ending}", data=rows.encode() if ending == "csv" else listed)
    served = start()
    batch = ended(served, post(served, {"manifest": f"today.{ending}"}))
    assert (batch["state"], batch["total"]) == ("succeeded", 20)
    assert sources(served, batch) == Counter(names(20))
    first = 2 if ending == "csv" else 1
    assert [job["line"] for job in results(served, batch)] == list(range(first, first + 20))


def test_two_that_fill_one_batch_make_no_job_twice(start, put, short_pages):
    put(*names(12))
    served = start(run_jobs=False)
    batch = post(served, {"select": {"prefix": "in/"}, "outputs": [SMALL]})
    service = served.app.api.state.service.jobs
    job = served.get(f"/jobs?batch={batch['id']}").json()["items"][0]

    async def fill_twice():
        filler = Filler(
            database=service.database,
            queue=service.queue,
            reader=service.batches._reader,
            origins=service.batches._origins,
        )
        found = await service.find(job["id"])
        await asyncio.gather(filler.fill(found), filler.fill(found))

    asyncio.run(fill_twice())
    assert sources(served, batch) == Counter(names(12))


def test_a_selection_is_by_prefix_suffix_and_time(start, put):
    put("in/a.jpg", "in/b.png", "in/deep/c.jpg", "inner.jpg", "out/d.jpg")
    served = start(run_jobs=True)

    def selected(**select):
        return set(
            sources(served, ended(served, post(served, {"select": select, "outputs": [SMALL]})))
        )

    assert selected(prefix="in/", suffix=".jpg") == {"in/a.jpg", "in/deep/c.jpg"}
    assert len(selected()) == 5
    assert selected(prefix="in", modified_since="2100-01-01T00:00:00Z") == set()
    assert selected(prefix="inn", modified_since="2000-01-01T00:00:00+02:00") == {"inner.jpg"}
    assert selected(prefix="nothing/") == set()


def test_results_below_the_prefix_are_not_selected(start, put, short_pages):
    put(*names(6))
    served = start()
    body = {
        "select": {"prefix": "in/"},
        "outputs": [{**SMALL, "target": "in/{stem}-small.jpg"}, {**SMALL, "target": "in/0/{stem}"}],
    }
    for _ in range(2):
        batch = ended(served, post(served, body))
        assert sources(served, batch) == Counter(names(6))
    # Unless they are wanted: those that were there before.
    body = {"select": {"prefix": "in/0/", "results": True}, "outputs": [SMALL]}
    batch = ended(served, post(served, body))
    assert sources(served, batch) == Counter(f"in/0/{number:02}" for number in range(6))


@pytest.mark.parametrize("target", [None, "out/{stem}.{ext}"])
def test_only_those_are_selected_whose_outputs_are_missing(start, put, tmp_path, target):
    put(*names(4))
    served = start(freshness=0)
    output = {"transform": {"w": 8, "fm": "webp"}, **({"target": target} if target else {})}
    body = {"select": {"prefix": "in/", "missing_only": True}, "outputs": [output, {**output}]}
    first = ended(served, post(served, body))
    assert (first["total"], first["skipped"]) == (4, 0)
    again = ended(served, post(served, body))
    assert (again["total"], again["skipped"], again["state"]) == (0, 4, "succeeded")
    put("in/01.jpg", data=draw.jpeg(draw.quarters(60, 20)))
    put("in/09.jpg")
    told = served.client.post("/batches", json={**body, "dry_run": True}).json()
    assert (told["jobs"], told["skipped"]) == (2, 3)
    last = ended(served, post(served, body))
    assert sources(served, last) == Counter(["in/01.jpg", "in/09.jpg"])


def test_rows_vary_the_outputs(start, put):
    put("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    rows = [
        "source,target,width,fm",
        "a.jpg,out/a,8,",
        'b.jpg,"out/b,c",,png',
        "",
        "c.jpg",
        "d.jpg,,0,",
        "a,b,c,d,e",
        ",,,",
        "\xff",
    ]
    put("list.csv", data="\n".join(rows).encode("latin-1"))
    served = start()
    output = {"transform": {"w": 4, "fm": "webp"}}
    batch = ended(served, post(served, {"manifest": "list.csv", "outputs": [output]}))
    told = [
        (r["width"], r["format"], r.get("target"))
        for job in results(served, batch)
        for r in job["results"]
    ]
    assert told == [(8, "webp", "out/a"), (4, "png", "out/b,c"), (4, "webp", None)]
    assert [(error["line"], error["problem"]["status"]) for error in batch["errors"]] == [
        (6, 400),
        (7, 400),
        (9, 400),
    ]
    assert batch["errors"][0]["problem"]["param"] == "outputs[0].transform.w"


@pytest.mark.parametrize(
    "header", ["", "source,colour", "w,h", "id,source", "id,w,width", "id,target,target"]
)
def test_a_manifest_whose_header_means_nothing_is_refused_at_once(start, put, header):
    put("list.csv", data=header.encode())
    served = start(run_jobs=False)
    answer = served.client.post("/batches", json={"manifest": "list.csv"})
    assert (answer.status_code, answer.json()["param"]) == (400, "manifest")


def test_a_manifest_that_is_replaced_while_it_is_read_fails_the_batch(start, put, tmp_path):
    put("in/1.jpg")
    put("list.ndjson", data=lines_of([{"source": "in/1.jpg", "outputs": [SMALL]}]))
    idle = start(run_jobs=False)
    batch = post(idle, {"manifest": "list.ndjson"})
    put("list.ndjson", data=lines_of([{"source": "in/2.jpg", "outputs": [SMALL]}] * 2))
    served = start()
    batch = ended(served, batch)
    assert (batch["state"], batch["total"]) == ("failed", 0)
    assert "was replaced" in batch["error"]["detail"]
    # Put right, it is filled after all.
    put("list.ndjson", data=lines_of([{"source": "in/1.jpg", "outputs": [SMALL]}]))


def test_a_manifest_without_a_job_in_it_fails_the_batch(start, put):
    put("list.ndjson", data=b"nonsense\n{}\n")
    served = start()
    batch = ended(served, post(served, {"manifest": "list.ndjson"}))
    assert (batch["state"], batch["rejected"]) == ("failed", 2)
    assert json.loads(json.dumps(batch["errors"]))[1]["problem"]["param"] == "source"


def test_cancelling_stops_the_filling_and_trying_again_goes_on(
    start, put, short_pages, monkeypatch
):
    put(*names(12))
    gate = threading.Event()
    read_page = origins.Origins.read_page

    async def held(self, plan, read, *, cursor, since):
        if cursor is not None:
            await asyncio.to_thread(gate.wait, 10)
        return await read_page(self, plan, read, cursor=cursor, since=since)

    monkeypatch.setattr(origins.Origins, "read_page", held)
    served = start()
    batch = post(served, {"select": {"prefix": "in/"}, "outputs": [SMALL]})
    here = f"/batches/{batch['id']}"
    until(lambda: served.get(here).json()["counts"]["succeeded"] == 3)
    stopped = served.client.post(f"{here}/cancel").json()
    assert (stopped["state"], stopped["total"]) == ("cancelled", 3)
    gate.set()
    assert ended(served, batch)["total"] == 3
    again = served.client.post(f"{here}/retry?only=cancelled").json()
    assert (again["retried"], again["state"]) == (1, "filling")
    batch = ended(served, batch)
    assert (batch["state"], batch["total"]) == ("succeeded", 12)
    assert sources(served, batch) == Counter(names(12))


def test_while_a_batch_is_filled_others_have_their_turns(start, put, short_pages, monkeypatch):
    """Also those that must run alone, as a worker has died with them."""
    put(*names(6))
    gate = threading.Event()
    read_page = origins.Origins.read_page

    async def held(self, plan, read, *, cursor, since):
        await asyncio.to_thread(gate.wait, 10)
        return await read_page(self, plan, read, cursor=cursor, since=since)

    monkeypatch.setattr(origins.Origins, "read_page", held)
    served = start()
    batch = post(served, {"select": {"prefix": "in/"}, "outputs": [SMALL]})
    fill = served.get(f"/jobs?batch={batch['id']}").json()["items"][0]
    until(lambda: served.get(f"/jobs/{fill['id']}").json()["state"] == "running")
    database = served.app.api.state.service.jobs.database
    delayed = {"source": "in/00.jpg", "outputs": [SMALL], "delay": 0.5}
    job = served.client.post("/jobs", json=delayed).json()
    suspect = jobs.update().where(jobs.c.id == job["id"]).values(deaths=1)
    database.write_now(lambda tx: tx.execute(suspect))
    until(lambda: served.get(f"/jobs/{job['id']}").json()["state"] == "succeeded")
    gate.set()
    assert ended(served, batch)["total"] == 6
