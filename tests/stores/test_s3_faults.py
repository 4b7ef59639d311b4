"""What a store on its bad days does to a read, and to the download of an original."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest

from app.cache import Rendered
from app.downloads import Downloads
from app.errors import (
    InvalidRequest,
    OriginalChanged,
    OriginalMissing,
    OriginalTooLarge,
    ServiceError,
    SourceFailed,
    SourceTimeout,
    StoreMisconfigured,
)
from app.results import StoredTier
from app.sources.base import Identity, Ref
from app.sources.stored import KIND, StoredSource
from app.stores.base import Reading
from app.stores.s3 import S3Store
from app.telemetry import Metrics
from tests.stores import faulty
from tests.stores.faulty import ETAG
from tests.stores.test_contract import read_all, write
from transforms.errors import BrokenImage, SourceTooLarge, UnsupportedFormat
from transforms.formats import FORMATS
from transforms.libvips import Image
from transforms.limits import Limits

DATA = bytes(range(256)) * 1200
HUGE = 48 << 20
FEW = 16 << 20
"""More than what sockets and buffers on both sides hold, and far less than HUGE."""


async def collect(store: S3Store, key: str = "one", **options) -> tuple[bytes, Exception | None]:
    """What arrives of an object, and how it ends."""
    received = bytearray()
    try:
        async with store.read(key, **options) as reading:
            async for chunk in reading.chunks:
                received += chunk
    except ServiceError as error:
        return bytes(received), error
    return bytes(received), None


async def test_an_object_arrives_as_the_server_sent_it(against):
    store, server = await against(faulty.whole(DATA))
    async with store.read("a folder/one") as reading:
        assert b"".join([chunk async for chunk in reading.chunks]) == DATA
        assert reading.stat.version == ETAG
        assert reading.stat.size == len(DATA)
    assert server.asked[0].target == "/bucket/a%20folder/one"


@pytest.mark.parametrize("sent", [0, 1, 1000, len(DATA) - 1])
@pytest.mark.parametrize("fault", [faulty.cut_after, faulty.reset_after])
async def test_a_body_that_ends_early_fails_after_the_bytes_that_came(against, fault, sent):
    store, server = await against(fault(DATA, sent))
    received, error = await collect(store)
    assert isinstance(error, SourceFailed)
    assert received == DATA[: len(received)]
    assert len(received) <= sent
    assert server.methods == ["GET"]


@pytest.mark.parametrize("sent", [1000, len(DATA) - 1])
async def test_the_bytes_before_a_cut_are_handed_out(against, sent):
    store, _ = await against(faulty.cut_after(DATA, sent))
    received, error = await collect(store)
    assert received == DATA[:sent]
    assert "cut short" in error.detail


async def test_a_range_that_ends_early_fails_too(against):
    async def behave(exchange):
        await exchange.begin(100, status="206 Partial", Content_Range="bytes 50-149/1000")
        await exchange.body(DATA[50:90])
        exchange.writer.close()

    store, _ = await against(behave)
    received, error = await collect(store, start=50, stop=150)
    assert isinstance(error, SourceFailed)
    assert received == DATA[50:90]


async def test_a_server_that_ignores_ranges_never_passes_other_bytes_for_the_range(against):
    store, server = await against(faulty.whole(DATA))
    received, error = await collect(store, start=100, stop=300)
    assert server.asked[0].headers["range"] == "bytes=100-299"
    assert received == DATA[100:300] or isinstance(error, SourceFailed)


async def test_a_body_without_a_length_is_read_to_its_end_or_refused(against):
    store, _ = await against(faulty.chunked([DATA[:5000], DATA[5000:]]))
    received, error = await collect(store)
    assert (received, error) == (DATA, None) or isinstance(error, SourceFailed)


async def test_a_body_without_a_length_that_is_cut_fails(against):
    store, _ = await against(faulty.chunked([DATA[:5000]], finish=False))
    _, error = await collect(store)
    assert isinstance(error, SourceFailed)


async def test_an_object_without_a_version_is_a_failed_source(against):
    store, _ = await against(faulty.whole(DATA, ETag=""))
    with pytest.raises(SourceFailed):
        await store.stat("one")
    with pytest.raises(SourceFailed):
        await read_all(store, "one")
    with pytest.raises(SourceFailed):
        await write(store, "one", b"1")


async def test_a_page_in_the_place_of_a_listing_is_a_failed_source(against):
    page = b"<html><p>Welcome to the hotel's network<br></html>"
    store, _ = await against(faulty.whole(page, Content_Type="text/html"))
    with pytest.raises(SourceFailed):
        await store.delete_prefix("results")


async def test_a_date_that_is_none_is_a_failed_source_or_no_date(against):
    store, _ = await against(faulty.whole(DATA, Last_Modified="yesterday"))
    with suppress(SourceFailed):
        assert (await store.stat("one")).modified is None


@pytest.mark.parametrize("use", ["stat", "read", "write", "probe", "delete", "delete_prefix"])
async def test_a_server_that_never_answers_times_out(against, use):
    store, server = await against(faulty.stall)
    began = time.monotonic()
    with pytest.raises(SourceTimeout):
        await _uses(store)[use]()
    assert time.monotonic() - began < 2
    assert len(server.asked) == 1


async def test_a_deadline_ends_all_attempts_together(against):
    store, server = await against(faulty.stall, attempts=10, deadline=1.0)
    began = time.monotonic()
    with pytest.raises(SourceTimeout):
        await store.stat("one")
    assert 0.8 < time.monotonic() - began < 2
    assert len(server.asked) >= 1


async def test_a_body_that_stops_coming_times_out_after_the_bytes_that_came(against):
    store, server = await against(faulty.stall_after(DATA, 5000))
    began = time.monotonic()
    received, error = await collect(store)
    assert isinstance(error, SourceTimeout)
    assert received == DATA[:5000]
    assert time.monotonic() - began < 2
    assert server.methods == ["GET"]


async def test_a_slow_body_that_never_pauses_for_long_arrives(against):
    store, _ = await against(faulty.slowly(DATA[:40], pause=0.02))
    assert await read_all(store, "one") == DATA[:40]


async def test_a_server_that_never_says_continue_does_not_hold_a_write(against):
    store, server = await against(faulty.whole(b""))
    assert (await write(store, "one", DATA)).version == ETAG
    assert "expect" not in server.asked[0].headers
    assert server.asked[0].headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (faulty.error(500, "InternalError"), SourceFailed),
        (faulty.status(500), SourceFailed),
        (faulty.status(502, b"<html><p>Bad gateway<br>", content_type="text/html"), SourceFailed),
        (faulty.error(503, "SlowDown"), SourceFailed),
        (faulty.status(503, b"busy", content_type="text/plain"), SourceFailed),
        (faulty.error(429, "TooManyRequests"), SourceFailed),
        (faulty.status(429), SourceFailed),
        (faulty.error(403, "AccessDenied"), StoreMisconfigured),
        (faulty.error(403, "SignatureDoesNotMatch"), StoreMisconfigured),
        (faulty.status(403, b"<html><p>No<br>", content_type="text/html"), StoreMisconfigured),
        (faulty.status(401), StoreMisconfigured),
        (faulty.error(400, "ExpiredToken"), StoreMisconfigured),
        (faulty.error(404, "NoSuchBucket"), StoreMisconfigured),
        (faulty.error(404, "NoSuchKey"), OriginalMissing),
        (faulty.status(404, b"<html><p>Gone<br>", content_type="text/html"), OriginalMissing),
        (faulty.status(404), OriginalMissing),
        (faulty.hang_up, SourceFailed),
        (faulty.babble, SourceFailed),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_every_answer_of_a_read_has_its_error(against, answer, expected):
    store, _ = await against(answer)
    with pytest.raises(expected) as caught:
        await read_all(store, "one")
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (500, SourceFailed),
        (503, SourceFailed),
        (429, SourceFailed),
        (403, StoreMisconfigured),
        (400, StoreMisconfigured),
    ],
)
async def test_every_status_of_a_stat_has_its_error(against, code, expected):
    store, _ = await against(faulty.status(code))
    with pytest.raises(expected):
        await store.stat("one")


async def test_a_stat_of_a_missing_key_asks_whether_the_bucket_is_there(against):
    store, server = await against(faulty.status(404), faulty.status(200))
    with pytest.raises(OriginalMissing):
        await store.stat("one")
    assert [asked.target for asked in server.asked] == ["/bucket/one", "/bucket"]


async def test_a_stat_in_a_missing_bucket_is_for_the_operator(against):
    store, _ = await against(faulty.status(404))
    with pytest.raises(StoreMisconfigured):
        await store.stat("one")


async def test_a_version_that_is_gone_was_changed(against):
    store, server = await against(faulty.error(412, "PreconditionFailed"))
    with pytest.raises(OriginalChanged):
        await read_all(store, "one", version="abc")
    assert server.asked[0].headers["if-match"] == '"abc"'
    assert len(server.asked) == 1


async def test_deleting_what_a_store_says_is_not_there_is_no_error(against):
    # Not every implementation answers 204 for it as Amazon's does.
    store, _ = await against(faulty.error(404, "NoSuchKey"))
    await store.delete("one")


async def test_deleting_in_a_missing_bucket_is_for_the_operator(against):
    store, _ = await against(faulty.error(404, "NoSuchBucket"))
    with pytest.raises(StoreMisconfigured):
        await store.delete("one")


async def test_objects_that_were_not_deleted_are_not_passed_over_in_silence(against):
    listing = faulty.whole(
        b"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount>"
        b"<Contents><Key>one/a</Key><Size>1</Size></Contents></ListBucketResult>",
        Content_Type="application/xml",
    )
    refusal = faulty.whole(
        b"<DeleteResult><Error><Key>one/a</Key><Code>InternalError</Code></Error></DeleteResult>",
        Content_Type="application/xml",
    )
    store, _ = await against(faulty.by_method(GET=listing, POST=refusal))
    with pytest.raises(SourceFailed, match="did not delete"):
        await store.delete_prefix("one")


@pytest.mark.parametrize(
    "passing",
    [
        faulty.error(500, "InternalError"),
        faulty.error(503, "SlowDown"),
        faulty.hang_up,
        faulty.stall,
    ],
    ids=["500", "503", "hanging up", "silence"],
)
async def test_a_fault_that_passes_is_not_noticed(against, passing):
    store, server = await against(passing, faulty.whole(DATA), attempts=3)
    assert await read_all(store, "one") == DATA
    assert len(server.asked) == 2


async def test_a_refusal_is_not_asked_for_again(against):
    store, server = await against(faulty.error(403, "AccessDenied"), attempts=3)
    with pytest.raises(StoreMisconfigured):
        await read_all(store, "one")
    assert len(server.asked) == 1


async def test_a_connection_is_used_again_after_an_object_was_read_whole(against):
    store, server = await against(faulty.whole(DATA), connections=1)
    for _ in range(3):
        assert await read_all(store, "one") == DATA
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "fault",
    [
        faulty.cut_after(DATA, 1000),
        faulty.reset_after(DATA, 1000),
        faulty.stall_after(DATA, 1000),
        faulty.stall,
        faulty.error(404, "NoSuchKey"),
        faulty.error(500, "InternalError"),
        faulty.hang_up,
    ],
    ids=["cut", "reset", "stalled body", "stalled answer", "404", "500", "hung up"],
)
async def test_faults_give_their_connections_back(against, fault):
    store, server = await against(fault, connections=2, read_timeout=0.2)
    for _ in range(5):
        with pytest.raises(ServiceError):
            await read_all(store, "one")
    server.behaviours = [faulty.whole(DATA)]
    async with asyncio.timeout(5):
        assert await read_all(store, "one") == DATA


@pytest.mark.parametrize(
    "fault", [faulty.stall_after(DATA, 1000), faulty.stall], ids=["in the body", "before it"]
)
async def test_readers_that_leave_a_stalled_server_give_their_connections_back(against, fault):
    store, server = await against(fault, connections=4, read_timeout=30)
    for number in range(12):
        task = asyncio.create_task(read_all(store, "one"))
        await server.was_asked(number + 1)
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
    server.behaviours = [faulty.whole(DATA)]
    async with asyncio.timeout(5):
        assert await read_all(store, "one") == DATA
    assert len(server.asked) == 13


async def test_readers_that_wait_for_a_connection_may_leave(against):
    store, server = await against(faulty.stall_after(DATA, 1000), connections=2, read_timeout=30)
    tasks = [asyncio.create_task(read_all(store, "one")) for _ in range(12)]
    await server.was_asked(2)
    await asyncio.sleep(0.05)
    assert len(server.asked) == 2
    for task in reversed(tasks):
        task.cancel()
    await asyncio.wait(tasks)
    server.behaviours = [faulty.whole(DATA)]
    async with asyncio.timeout(5):
        assert await read_all(store, "one") == DATA


async def test_what_is_not_read_is_not_downloaded(against):
    store, server = await against(faulty.whole(bytes(HUGE)))
    async with store.read("one") as reading:
        await anext(reading.chunks)
        await asyncio.sleep(0.3)
        assert server.sent < FEW
    await asyncio.sleep(0.1)
    assert server.sent < FEW


def _uses(store: S3Store):
    return {
        "stat": lambda: store.stat("one"),
        "read": lambda: read_all(store, "one"),
        "write": lambda: write(store, "one", DATA),
        "probe": store.probe,
        "delete": lambda: store.delete("one"),
        "delete_prefix": lambda: store.delete_prefix("one"),
    }


# The download of an original: StoredSource over such a store.


def picture(width: int, height: int, extension: str = ".png") -> bytes:
    noise = Image.gaussnoise(width, height, mean=128, sigma=40).cast("uchar")
    return noise.write_to_buffer(extension)


PICTURE = picture(200, 150)


def source_of(store, **options) -> StoredSource:
    metrics = Metrics()
    return StoredSource(
        store,
        downloads=Downloads(slots=4, memory=1 << 30, metrics=metrics),
        **{"cap": 60_000_000, "limits": Limits(), "timeout": 5.0, **options},
    )


def identity_of(data: bytes) -> Identity:
    return Identity(ref=Ref(KIND, "one"), version=ETAG, size=len(data))


async def test_an_original_is_identified_and_fetched(against):
    store, server = await against(faulty.whole(PICTURE))
    source = source_of(store)
    identity = await source.identify("one", None)
    assert identity == Identity(
        ref=Ref(KIND, "one"), version=ETAG, size=len(PICTURE), modified=identity.modified
    )
    assert await source.fetch(identity) == PICTURE
    assert server.methods == ["HEAD", "GET"]
    assert server.asked[1].headers["if-match"] == f'"{ETAG}"'


@pytest.mark.parametrize("name", ["../one", "/one", "one/", "", "a//b", "a\0"])
async def test_an_id_that_is_no_key_reaches_no_store(against, name):
    store, server = await against(faulty.whole(PICTURE))
    with pytest.raises(InvalidRequest):
        await source_of(store).identify(name, None)
    assert server.asked == []


@pytest.mark.parametrize("fault", [faulty.cut_after, faulty.reset_after])
async def test_a_cut_original_is_fetched_once_more(against, fault):
    store, server = await against(fault(PICTURE, 5000), faulty.whole(PICTURE))
    assert await source_of(store).fetch(identity_of(PICTURE)) == PICTURE
    assert server.methods == ["GET", "GET"]
    assert "range" not in server.asked[1].headers


async def test_an_original_that_is_cut_twice_is_given_up(against):
    store, server = await against(faulty.cut_after(PICTURE, 5000))
    with pytest.raises(SourceFailed, match="cut short"):
        await source_of(store).fetch(identity_of(PICTURE))
    assert server.methods == ["GET", "GET"]


async def test_an_original_replaced_between_the_two_tries_was_changed(against):
    store, _ = await against(
        faulty.cut_after(PICTURE, 5000), faulty.error(412, "PreconditionFailed")
    )
    with pytest.raises(OriginalChanged):
        await source_of(store).fetch(identity_of(PICTURE))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (faulty.error(404, "NoSuchKey"), OriginalMissing),
        (faulty.error(403, "AccessDenied"), StoreMisconfigured),
        (faulty.error(412, "PreconditionFailed"), OriginalChanged),
        (faulty.stall_after(PICTURE, 5000), SourceTimeout),
        (faulty.stall, SourceTimeout),
    ],
    ids=["404", "403", "412", "stalled body", "stalled answer"],
)
async def test_what_another_try_would_not_mend_is_asked_for_once(against, answer, expected):
    store, server = await against(answer)
    with pytest.raises(expected):
        await source_of(store).fetch(identity_of(PICTURE))
    assert server.methods == ["GET"]


async def test_an_original_that_is_too_large_is_refused_before_it_is_downloaded(against):
    store, server = await against(faulty.whole(PICTURE))
    source = source_of(store, cap=len(PICTURE) - 1)
    identity = await source.identify("one", None)
    with pytest.raises(OriginalTooLarge):
        await source.fetch(identity)
    assert server.methods == ["HEAD"]
    assert server.sent == 0


async def test_an_original_of_exactly_the_cap_is_fetched(against):
    store, _ = await against(faulty.whole(PICTURE))
    source = source_of(store, cap=len(PICTURE))
    assert await source.fetch(identity_of(PICTURE)) == PICTURE


async def test_an_original_that_is_larger_than_it_said_is_stopped_at_the_cap(against):
    data = PICTURE + bytes(HUGE)
    store, server = await against(faulty.whole(data))
    with pytest.raises(OriginalTooLarge):
        await source_of(store, cap=100_000).fetch(identity_of(PICTURE))
    assert server.sent < FEW


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"8BPS\0\1", UnsupportedFormat),
        (b"<!doctype html><html>", UnsupportedFormat),
        (b"\0" * 64, UnsupportedFormat),
        (b"PK\x03\x04", UnsupportedFormat),
    ],
    ids=["PSD", "HTML", "zeros", "ZIP"],
)
async def test_the_download_stops_at_the_first_bytes_of_what_is_no_picture(against, head, expected):
    data = head + bytes(HUGE)
    store, server = await against(faulty.whole(data))
    with pytest.raises(expected):
        await source_of(store).fetch(identity_of(data))
    await asyncio.sleep(0.1)
    assert server.sent < FEW
    assert server.methods == ["GET"]


async def test_the_download_stops_where_the_header_promises_too_many_pixels(against):
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + (30_000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    data = bomb + bytes(HUGE)
    store, server = await against(faulty.whole(data))
    with pytest.raises(SourceTooLarge, match="30000x30000"):
        await source_of(store).fetch(identity_of(data))
    await asyncio.sleep(0.1)
    assert server.sent < FEW


async def test_what_is_no_picture_is_told_from_the_first_chunk_alone():
    served = 0

    class Counting:
        @asynccontextmanager
        async def read(self, key, **_):
            async def chunks():
                nonlocal served
                for _ in range(100):
                    served += 1
                    yield b"not a picture at all, but long enough to tell " * 100

            yield Reading(stat=None, chunks=chunks())

    with pytest.raises(UnsupportedFormat):
        await source_of(Counting()).fetch(identity_of(PICTURE))
    assert served == 1


async def test_the_first_bytes_tell_even_where_they_come_one_by_one(against):
    data = b"8BPS" + bytes(4000)
    store, server = await against(faulty.slowly(data, pause=0.001))
    with pytest.raises(UnsupportedFormat):
        await source_of(store).fetch(identity_of(data))
    assert server.sent < 200


@pytest.mark.parametrize("data", [PICTURE, picture(40, 30, ".jpg"), picture(64, 48, ".webp")])
async def test_a_picture_that_comes_byte_by_byte_is_whole(against, data):
    data = data[:1500]
    store, _ = await against(faulty.slowly(data, pause=0))
    assert await source_of(store).fetch(identity_of(data)) == data


async def test_an_empty_original_is_broken(against):
    store, _ = await against(faulty.whole(b""))
    with pytest.raises(BrokenImage):
        await source_of(store).fetch(identity_of(b""))


async def test_a_download_has_a_deadline_however_busy_its_connection_is(against):
    store, _ = await against(faulty.slowly(PICTURE, pause=0.01))
    began = time.monotonic()
    with pytest.raises(SourceTimeout, match=r"0\.6 s"):
        await source_of(store, timeout=0.6).fetch(identity_of(PICTURE))
    assert time.monotonic() - began < 2


async def test_the_deadline_holds_for_both_tries_together(against):
    store, server = await against(
        faulty.cut_after(PICTURE, 5000), faulty.slowly(PICTURE, pause=0.01)
    )
    began = time.monotonic()
    with pytest.raises(SourceTimeout):
        await source_of(store, timeout=0.6).fetch(identity_of(PICTURE))
    assert time.monotonic() - began < 2
    assert server.methods == ["GET", "GET"]


async def test_waiting_for_a_slot_counts_towards_the_deadline(against):
    store, server = await against(faulty.stall, read_timeout=30)
    downloads = Downloads(slots=1, memory=1 << 30, metrics=Metrics())
    source = StoredSource(store, downloads=downloads, cap=60_000_000, limits=Limits(), timeout=0.5)
    began = time.monotonic()
    found = await asyncio.gather(
        *(source.fetch(identity_of(PICTURE)) for _ in range(3)), return_exceptions=True
    )
    assert [type(error) for error in found] == [SourceTimeout] * 3
    assert time.monotonic() - began < 2
    assert len(server.asked) <= 2


async def test_a_download_that_failed_gives_its_slot_back(against):
    store, _ = await against(faulty.stall, faulty.whole(PICTURE))
    downloads = Downloads(slots=1, memory=1 << 20, metrics=Metrics())
    source = StoredSource(store, downloads=downloads, cap=60_000_000, limits=Limits(), timeout=5.0)
    with pytest.raises(SourceTimeout):
        await source.fetch(identity_of(PICTURE))
    async with asyncio.timeout(3):
        assert await source.fetch(identity_of(PICTURE)) == PICTURE


# The stored tier over such a store: it answers, or it is passed over.


@pytest.mark.parametrize(
    "fault",
    [
        faulty.stall,
        faulty.stall_after(PICTURE, 5000),
        faulty.slowly(PICTURE, pause=0.01),
        faulty.cut_after(PICTURE, 5000),
        faulty.reset_after(PICTURE, 5000),
        faulty.error(404, "NoSuchKey"),
        faulty.error(404, "NoSuchBucket"),
        faulty.error(403, "AccessDenied"),
        faulty.error(503, "SlowDown"),
        faulty.whole(b""),
        faulty.whole(b"no picture"),
        faulty.whole(PICTURE, ETag=""),
        faulty.babble,
    ],
    ids=[
        *("silence", "a stalled body", "a slow body", "a cut body", "a reset", "no key"),
        *("no bucket", "no access", "too busy", "nothing", "no picture", "no version", "no HTTP"),
    ],
)
async def test_a_stored_result_that_does_not_come_at_once_is_none(against, monkeypatch, fault):
    monkeypatch.setattr("app.results._READ_TIMEOUT", 0.4)
    store, _ = await against(fault, read_timeout=30)
    tier = StoredTier(store, on_write=lambda _: None)
    began = time.monotonic()
    assert await tier.get("key", identity_of(PICTURE), "png") is None
    assert time.monotonic() - began < 2


async def test_a_stored_result_that_comes_is_what_was_stored(against):
    store, server = await against(faulty.whole(PICTURE))
    tier = StoredTier(store, on_write=lambda _: None)
    found = await tier.get("key", identity_of(PICTURE), "png")
    assert (found.data, found.format.name, found.key) == (PICTURE, "png", "key")
    assert server.asked[0].target.endswith("/key.png")


@pytest.mark.parametrize(
    "fault", [faulty.stall, faulty.error(503, "SlowDown"), faulty.error(403, "AccessDenied")]
)
async def test_a_result_that_cannot_be_written_is_counted_and_let_go(against, fault):
    store, _ = await against(fault)
    counted: list[str] = []
    tier = StoredTier(store, on_write=counted.append)
    rendered = Rendered(
        key="key", ref=Ref(KIND, "one"), data=PICTURE, format=FORMATS["png"], modified=None
    )
    tier.put_later(rendered, "png")
    await tier.settle()
    assert counted == ["failed"]
    assert tier._pending == 0
