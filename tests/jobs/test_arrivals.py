"""What is told of originals makes jobs once, and removes the results of before."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.admission import Lane
from app.errors import Overloaded
from app.jobs import intake as intakes
from app.jobs import retention, sightings, writers
from app.jobs.intake import Taken
from app.jobs.schema import seen, written
from app.sources import stored
from app.sources.base import Ref
from tests.jobs.ledgers import Clock
from tests.jobs.shops import CAT, GONE, Shop, open_shop
from transforms.transform import Transform


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


async def test_an_event_that_is_told_three_times_makes_one_job(shop):
    await shop.rule(priority=2, label="fresh")
    assert [await shop.tell(CAT) for _ in range(3)] == [1, 0, 0]
    assert await shop.tell(CAT, CAT, replace(CAT, sequencer="0A")) == 0
    (job,) = await shop.jobs()
    assert job.refs == (Ref(stored.KIND, "in/cat.jpg"),)
    assert (job.origin, job.priority, job.label) == ("rule:thumbs", 2, "fresh")


async def test_many_who_tell_at_once_make_one_job(shop):
    await shop.rule()
    made = await asyncio.gather(*(shop.tell(CAT) for _ in range(12)))
    assert sorted(made) == [0] * 11 + [1]


async def test_every_rule_that_matches_makes_its_own_job(shop):
    await shop.rule("all", prefix="")
    await shop.rule("jpeg", suffix=".jpg")
    await shop.rule("png", suffix=".png")
    await shop.rule("elsewhere", prefix="out/")
    assert await shop.tell(CAT) == 2
    assert {job.origin for job in await shop.jobs()} == {"rule:all", "rule:jpeg"}


async def test_a_version_that_comes_back_is_made_again(shop):
    await shop.rule()
    first = replace(CAT, sequencer="01")
    second = replace(CAT, version="v2", sequencer="02")
    third = replace(CAT, version="v1", sequencer="03")
    assert [await shop.tell(event) for event in (first, second, third)] == [1, 1, 1]
    assert [await shop.tell(event) for event in (second, first, third)] == [0, 0, 0]


async def test_an_original_that_was_removed_is_new_when_it_comes_again(shop):
    await shop.rule()
    first, gone, again = (
        replace(CAT, sequencer="1"),
        replace(GONE, sequencer="2"),
        replace(CAT, sequencer="0A"),
    )
    assert [await shop.tell(event) for event in (first, gone, again)] == [1, 0, 1]
    assert [await shop.tell(event) for event in (gone, first)] == [0, 0]


async def test_what_was_created_before_it_was_removed_comes_too_late(shop):
    await shop.rule()
    assert await shop.tell(replace(GONE, sequencer="2"), replace(CAT, sequencer="1")) == 0


@pytest.mark.parametrize(
    "event",
    [
        replace(CAT, bucket="elsewhere"),
        replace(CAT, key="shopping/in/cat.jpg"),
        replace(CAT, key="in/cat.jpg"),
        replace(CAT, key="shop/in//cat.jpg"),
        replace(CAT, key="shop/in/\ud800.jpg"),
        replace(CAT, key="shop/"),
    ],
)
async def test_what_is_about_no_original_is_ignored(shop, event):
    await shop.rule(prefix="")
    assert await shop.intake.take([event]) == Taken(accepted=0, ignored=1, jobs=0)


async def test_a_rule_that_is_changed_sees_all_for_the_first_time(shop):
    await shop.rule()
    assert await shop.tell(CAT) == 1
    await shop.rule(priority=0)
    assert [await shop.tell(CAT) for _ in range(2)] == [1, 0]


async def test_a_version_that_is_not_told_is_looked_up(shop):
    await shop.rule()
    shop.put("in/cat.jpg")
    unnamed = replace(CAT, version=None)
    assert [await shop.tell(unnamed) for _ in range(2)] == [1, 0]
    assert await shop.tell(replace(unnamed, key="shop/in/missing.jpg")) == 0


async def test_results_of_before_go_and_those_of_now_stay(shop):
    await shop.rule()
    service = shop.service
    shop.put("in/cat.jpg")
    small = Transform.from_query([("w", "20"), ("fm", "jpeg")])

    async def kept() -> bool:
        keyed = await service.renderer.identify(Ref(stored.KIND, "in/cat.jpg"), small)
        tier = (await service.renderer.answer(keyed, lane=Lane.API)).tier
        return tier != "render"

    assert [await kept(), await kept()] == [False, True]
    await shop.tell(CAT)
    assert [await kept(), await kept()] == [False, True]
    await shop.tell(CAT)
    assert await kept()
    await shop.tell(GONE)
    assert not await kept()


async def test_results_of_jobs_make_no_jobs_but_what_replaces_them_does(shop):
    await shop.rule(prefix="")
    result = replace(CAT, key="shop/thumbs/cat.jpg")
    first = await shop.write_result("thumbs/cat.jpg")
    second = await shop.write_result("thumbs/cat.jpg")
    assert first != second
    # The store may tell of the one when the other is there already.
    assert await shop.tell(*(replace(result, version=v) for v in (second, first))) == 0
    assert await shop.tell(replace(result, version="somebody's")) == 1


async def test_the_last_version_that_jobs_wrote_is_known_for_good(shop, monkeypatch):
    await shop.rule(prefix="")
    result = replace(CAT, key="shop/thumbs/cat.jpg")
    clock = Clock()
    monkeypatch.setattr(writers, "time", clock)
    first = await shop.write_result("thumbs/cat.jpg")
    clock.move(90 * 86_400)
    await shop.database.write(lambda tx: retention.sweep(tx, now=clock.now, keep=1.0))
    assert await shop.tell(replace(result, version=first)) == 0
    # One that has been replaced long ago is told of no more, and not kept.
    (shop.folder / "thumbs" / "cat.jpg").unlink()
    second = await shop.write_result("thumbs/cat.jpg")
    known = sa.select(written.c.version)
    assert await shop.database.read(lambda tx: tx.execute(known).scalars().all()) == [second]


@pytest.mark.parametrize(("whose", "jobs"), [("result", 0), ("somebody's", 1)])
async def test_what_is_told_while_a_result_is_written_waits_for_its_version(
    shop, monkeypatch, whose, jobs
):
    await shop.rule(prefix="")
    store, begun, gate = shop.service.originals, asyncio.Event(), asyncio.Event()
    write = store.write

    async def slow(key: str, data: bytes, *, content_type: str):
        stat = await write(key, data, content_type=content_type)
        begun.set()
        await gate.wait()
        return stat

    monkeypatch.setattr(store, "write", slow)
    writing = asyncio.create_task(shop.write_result("thumbs/cat.jpg"))
    await begun.wait()
    version = (await store.stat("thumbs/cat.jpg")).version if whose == "result" else whose
    event = replace(CAT, key="shop/thumbs/cat.jpg", version=version)
    telling = asyncio.create_task(shop.tell(event))
    await asyncio.sleep(0.3)
    assert not telling.done()
    gate.set()
    await writing
    assert await telling == jobs


async def test_what_cannot_be_judged_is_refused_and_nothing_is_lost(shop, monkeypatch):
    monkeypatch.setattr(intakes, "_PATIENCE", 0.2)
    await shop.rule(prefix="")
    row = {"key": "thumbs/cat.jpg", "version": "?lost", "at": time.time()}
    await shop.database.write(lambda tx: tx.execute(written.insert().values(**row)))
    event = replace(CAT, key="shop/thumbs/cat.jpg")
    with pytest.raises(Overloaded) as caught:
        await shop.tell(CAT, event)
    assert caught.value.retry_after
    assert len(await shop.jobs()) == 1
    # A write that ended without a word is not doubted for ever.
    past = written.update().values(at=time.time() - 10_000)
    await shop.database.write(lambda tx: tx.execute(past))
    assert await shop.tell(CAT, event) == 1


async def test_the_first_look_notes_what_was_there_and_takes_what_is_newer_than_the_rule(shop):
    shop.put("in/old.jpg")
    os.utime(shop.folder / "in/old.jpg", (1e9, 1e9))
    await shop.rule(poll=3600)
    shop.put("in/new.jpg")
    await shop.look()
    assert [job.refs[0].name for job in await shop.jobs()] == ["in/new.jpg"]


async def test_later_looks_take_what_is_new_whatever_its_date_and_what_has_changed(shop):
    await shop.rule(poll=3600)
    await shop.look()
    shop.put("in/moved.jpg")
    os.utime(shop.folder / "in/moved.jpg", (1e9, 1e9))
    await shop.look()
    await shop.look()
    assert len(await shop.jobs()) == 1
    shop.put("in/moved.jpg", width=80)
    await shop.look()
    await shop.look()
    assert len(await shop.jobs()) == 2


async def test_a_look_finds_results_of_jobs_and_makes_nothing_of_them(shop):
    await shop.rule(prefix="", poll=3600, backfill=True)
    await shop.write_result("thumbs/cat.jpg")
    await shop.look()
    await shop.write_result("thumbs/cat.jpg")
    await shop.look()
    assert await shop.jobs() == []
    shop.put("thumbs/cat.jpg")
    await shop.look()
    await shop.look()
    assert len(await shop.jobs()) == 1


async def test_a_look_goes_from_page_to_page_and_continues_where_it_was(shop, monkeypatch):
    monkeypatch.setattr("app.jobs.polling._PAGE", 4)
    for number in range(10):
        shop.put(f"in/{number}.jpg")
    store = shop.service.originals
    list_page, asked = store.list_page, []

    async def failing(prefix: str = "", *, after: str = "", limit: int = 1000):
        asked.append(after)
        if len(asked) == 3:
            raise ConnectionError
        return await list_page(prefix, after=after, limit=limit)

    monkeypatch.setattr(store, "list_page", failing)
    await shop.rule(backfill=True)
    with pytest.raises(ConnectionError):
        await shop.look()
    await shop.look()
    assert asked[:4] == ["", "in/3.jpg", "in/7.jpg", "in/7.jpg"]
    assert len({job.source for job in await shop.jobs()}) == len(await shop.jobs()) == 10


async def test_what_a_look_finds_again_is_never_forgotten(shop):
    await shop.rule(poll=3600)
    shop.put("in/cat.jpg")
    await shop.look()
    soon = time.time() + 60
    await shop.database.write(lambda tx: tx.execute(seen.update().values(until=soon)))
    await shop.look()
    noted = seen.select().where(seen.c.value.is_not(None))
    kept = await shop.database.read(lambda tx: tx.execute(noted).one())
    assert kept.until > soon + sightings.KEPT / 2


async def test_a_rule_that_is_no_longer_allowed_makes_nothing_and_holds_nobody_up(shop):
    refused = [{"transform": "w=32", "target": "s3://elsewhere/{id}"}]
    await shop.rule("refused", outputs=refused)
    await shop.rule()
    assert await shop.tell(CAT) == 1
