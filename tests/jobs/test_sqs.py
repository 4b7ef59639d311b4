"""A queue of events is read: what asks for something is deleted when that is written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.errors import LedgerUnavailable
from app.jobs import sqs
from app.jobs.sqs import QueueReader
from tests.jobs import told
from tests.jobs.queue_server import QueueServer, queue_serving
from tests.jobs.shops import Shop, open_shop


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueServer]:
    monkeypatch.setattr(sqs, "_FIRST_REST", 0.05)
    with queue_serving() as running:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL_SQS", running.endpoint),
            ("AWS_MAX_ATTEMPTS", "1"),
        ):
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        await opened.rule()
        yield opened


@asynccontextmanager
async def reading(queue: QueueServer, shop: Shop) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(QueueReader(queue.url, shop.intake).run(stop))
    yield
    stop.set()
    async with asyncio.timeout(5):
        await task


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, "it does not happen"
        await asyncio.sleep(0.02)


def everything_is_done(queue: QueueServer) -> Callable[[], bool]:
    return lambda: not queue.waiting and not queue.in_hand


async def test_messages_make_jobs_once_and_are_deleted(queue, shop):
    for number in range(25):
        queue.send(told.sns(told.s3(f"shop/in/{number}+x.jpg")))
    queue.send(told.s3("shop/in/0+x.jpg"))
    queue.send({"Service": "Amazon S3", "Event": "s3:TestEvent"})
    async with reading(queue, shop):
        await until(everything_is_done(queue))
    found = {job.refs[0].name for job in await shop.jobs()}
    assert found == {f"in/{number} x.jpg" for number in range(25)}
    assert len(await shop.jobs()) == 25


async def test_what_cannot_be_read_stays_for_the_queue_to_set_aside(queue, shop):
    queue.send("nonsense")
    queue.send(told.s3("shop/in/cat.jpg"))
    async with reading(queue, shop):
        await until(lambda: len(queue.in_hand) == 1 and not queue.waiting)
        await until(lambda: queue.calls > 2)
    assert [body for _, body in queue.in_hand.values()] == ["nonsense"]
    assert len(await shop.jobs()) == 1


async def test_what_cannot_be_written_down_comes_again(queue, shop, monkeypatch):
    take, away = shop.intake.take, True

    async def failing(events):
        if away:
            raise LedgerUnavailable("away")
        return await take(events)

    monkeypatch.setattr(shop.intake, "take", failing)
    queue.send(told.s3("shop/in/cat.jpg"))
    async with reading(queue, shop):
        await until(lambda: queue.in_hand)
        calls = queue.calls
        await until(lambda: queue.calls > calls + 1)
        assert queue.in_hand
        away = False
        queue.hand_out_again()
        await until(everything_is_done(queue))
    assert len(await shop.jobs()) == 1


async def test_a_queue_that_was_away_is_read_again(queue, shop):
    queue.away = True
    queue.send(told.s3("shop/in/cat.jpg"))
    async with reading(queue, shop):
        await asyncio.sleep(0.3)
        assert await shop.jobs() == []
        queue.away = False
        await until(everything_is_done(queue))
    assert len(await shop.jobs()) == 1
