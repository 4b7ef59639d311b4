"""What only a bucket has: prefixes, credentials, a pool of connections."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings

from app.errors import (
    InvalidRequest,
    OriginalMissing,
    SourceFailed,
    SourceTimeout,
    StoreMisconfigured,
)
from app.stores.base import MAX_KEY, check_key
from app.stores.s3 import S3Options, S3Store
from tests.s3server import HOST
from tests.stores.test_contract import read_all, write
from tests.stores.test_files import KEYS, is_taken

pytestmark = pytest.mark.s3

LARGE = 6 << 20

USES = {
    "stat": lambda store: store.stat("one"),
    "read": lambda store: read_all(store, "one"),
    "read a range": lambda store: read_all(store, "one", start=1, stop=2),
    "write": lambda store: write(store, "one", b"1"),
    "delete prefix": lambda store: store.delete_prefix("one"),
    "probe": lambda store: store.probe(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_a_missing_bucket_is_for_the_operator(open_s3, use):
    with pytest.raises(StoreMisconfigured, match="bucket does not exist"):
        await use(open_s3(bucket="no-such-bucket"))


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_a_wrong_secret_is_for_the_operator(open_s3, monkeypatch, use):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-of-this-key")
    with pytest.raises(StoreMisconfigured, match="refuses the credentials"):
        await use(open_s3())


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_an_unknown_access_key_is_for_the_operator(open_s3, monkeypatch, use):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    with pytest.raises(StoreMisconfigured, match="refuses the credentials"):
        await use(open_s3())


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_credentials_that_are_not_there_are_for_the_operator(open_s3, monkeypatch, use):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreMisconfigured, match="no credentials"):
        await use(open_s3())


async def test_half_of_the_credentials_is_for_the_operator(open_s3, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreMisconfigured, match="no credentials"):
        await open_s3().probe()


def test_neither_region_nor_endpoint_is_for_the_operator(open_s3, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(StoreMisconfigured, match="AWS_REGION"):
        open_s3()._connect()  # this alone connects to nothing


@pytest.mark.parametrize("endpoint", ["not a url", "127.0.0.1:9000"])
async def test_an_endpoint_that_is_no_url_is_for_the_operator(open_s3, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(StoreMisconfigured):
        await open_s3().probe()


@pytest.mark.parametrize("name", ["Two Words", "x", "a" * 300])
async def test_a_bucket_that_can_have_no_such_name_is_for_the_operator(open_s3, name):
    with pytest.raises(StoreMisconfigured):
        await open_s3(bucket=name).probe()


async def test_a_region_is_not_needed_where_an_endpoint_is_given(open_s3, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    await open_s3().probe()


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_a_refused_connection_fails_within_seconds(open_s3, monkeypatch, use):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{HOST}:{port}")
    began = time.monotonic()
    with pytest.raises(SourceFailed, match="cannot be reached"):
        await use(open_s3(attempts=1))
    assert time.monotonic() - began < 5


async def test_a_connection_that_is_never_accepted_times_out(open_s3, monkeypatch):
    # The queue of one listener is filled, so that further connections hang in the handshake.
    with socket.create_server((HOST, 0), backlog=0) as full:
        address = full.getsockname()
        filling = [socket.socket() for _ in range(4)]
        try:
            for each in filling:
                each.setblocking(False)
                each.connect_ex(address)
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{HOST}:{address[1]}")
            began = time.monotonic()
            with pytest.raises(SourceTimeout):
                await open_s3(attempts=1, connect_timeout=0.4, read_timeout=0.4).stat("one")
            assert time.monotonic() - began < 3
        finally:
            for each in filling:
                each.close()


async def test_objects_lie_under_the_prefix_with_their_media_type(open_s3, bucket, prefix):
    store = open_s3()
    await store.write("a folder/one.webp", b"bytes", content_type="image/webp")
    assert bucket.keys(prefix) == [f"{prefix}/a folder/one.webp"]
    assert bucket.get(f"{prefix}/a folder/one.webp") == (b"bytes", "image/webp")


async def test_a_store_sees_nothing_outside_its_prefix(open_s3, bucket, prefix):
    bucket.put(f"{prefix}-other/one", b"1")
    bucket.put(f"{prefix}one", b"1")
    store = open_s3()
    with pytest.raises(OriginalMissing):
        await store.stat("one")
    await store.delete("one")
    assert await store.delete_prefix("one") == 0
    assert bucket.keys(prefix) == [f"{prefix}-other/one", f"{prefix}one"]


async def test_a_store_without_a_prefix_is_the_whole_bucket(open_s3, bucket, prefix):
    bucket.put(f"{prefix}/one", b"whole")
    store = open_s3(beneath="")
    assert await read_all(store, f"{prefix}/one") == b"whole"
    await write(store, f"{prefix}/two", b"2")
    assert await store.delete_prefix(prefix) == 2


async def test_a_key_and_keys_beneath_it_live_side_by_side(open_s3):
    store = open_s3()
    await write(store, "a", b"1")
    await write(store, "a/b", b"2")
    assert await read_all(store, "a") == b"1"
    assert await read_all(store, "a/b") == b"2"
    assert await store.delete_prefix("a") == 1
    assert await read_all(store, "a") == b"1"


async def test_keys_are_found_as_another_client_wrote_them(open_s3, bucket, prefix):
    keys = ["a b+c%2F&?#'\".jpg", "cafe\u0301/\U0001f600"]
    for key in keys:
        bucket.put(f"{prefix}/{key}", key.encode())
    store = open_s3()
    for key in keys:
        assert await read_all(store, key) == key.encode()


async def test_whatever_check_key_takes_goes_through_the_bucket(s3_environment, prefix):
    store = S3Store(s3_environment.bucket, prefix, options=S3Options())

    async def round_trip(key: str) -> None:
        written = await write(store, key, key.encode())
        assert (await store.stat(key)).version == written.version
        assert await read_all(store, key) == key.encode()
        await store.delete(key)

    loop = asyncio.get_running_loop()

    @settings(max_examples=60, deadline=None)
    @given(KEYS.filter(is_taken))
    def every(key: str) -> None:
        asyncio.run_coroutine_threadsafe(round_trip(key), loop).result(20)

    try:
        await asyncio.to_thread(every)
    finally:
        await store.close()


async def test_a_key_of_the_greatest_length_can_be_kept(open_s3, prefix):
    key = prefix + "k" * (204 - len(prefix)) + "/" + "/".join(["k" * 204] * 4)
    assert len(check_key(key)) == MAX_KEY
    store = open_s3(beneath="")
    await write(store, key, b"1")
    assert await read_all(store, key) == b"1"


async def test_a_key_too_long_beneath_the_prefix_is_the_callers_fault_and_not_the_operators(
    open_s3,
):
    key = check_key("/".join(["k" * 204] * 5))
    store = open_s3(beneath="/".join(["p" * 200] * 3))
    with pytest.raises(InvalidRequest):
        await write(store, key, b"1")
    with pytest.raises((InvalidRequest, OriginalMissing)):
        await store.stat(key)
    with pytest.raises((InvalidRequest, OriginalMissing)):
        await read_all(store, key)


async def _break_out(store: S3Store) -> None:
    async with store.read("large") as reading:
        async for _ in reading.chunks:
            break


async def _raise(store: S3Store) -> None:
    with suppress(LookupError):
        async with store.read("large") as reading:
            async for _ in reading.chunks:
                raise LookupError


async def _never_begin(store: S3Store) -> None:
    async with store.read("large"):
        pass


async def _cancel_while_reading(store: S3Store) -> None:
    reached = asyncio.Event()

    async def work() -> None:
        async with store.read("large") as reading:
            async for _ in reading.chunks:
                reached.set()
                await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def _cancel_at_some_moment(store: S3Store) -> None:
    task = asyncio.create_task(read_all(store, "large"))
    await asyncio.sleep(int.from_bytes(os.urandom(1)) / 255 * 0.03)
    task.cancel()
    await asyncio.wait([task])


async def _time_out(store: S3Store) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05), store.read("large") as reading:
            async for _ in reading.chunks:
                await asyncio.sleep(30)


async def _keep_the_iterator(store: S3Store) -> None:
    async with store.read("large") as reading:
        _KEPT.append(reading.chunks)
        await anext(reading.chunks)


_KEPT: list[object] = []


@pytest.mark.parametrize(
    "abandon",
    [
        _break_out,
        _raise,
        _never_begin,
        _cancel_while_reading,
        _cancel_at_some_moment,
        _time_out,
        _keep_the_iterator,
    ],
)
async def test_abandoned_reads_give_their_connections_back(open_s3, abandon):
    store = open_s3(connections=4)
    data = os.urandom(LARGE)
    await write(store, "large", data)
    for _ in range(12):
        await abandon(store)
    async with asyncio.timeout(10):
        assert await read_all(store, "large") == data
        # All four are usable, not just one of them.
        assert set(await asyncio.gather(*(read_all(store, "large") for _ in range(4)))) == {data}
    _KEPT.clear()


async def test_reads_abandoned_all_at_once_give_their_connections_back(open_s3):
    store = open_s3(connections=4)
    data = os.urandom(LARGE)
    await write(store, "large", data)
    tasks = [asyncio.create_task(_break_out(store)) for _ in range(12)]
    await asyncio.sleep(0.02)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.wait(tasks)
    async with asyncio.timeout(10):
        assert await read_all(store, "large") == data


async def test_more_readers_than_connections_take_turns(open_s3):
    store = open_s3(connections=2)
    data = os.urandom(1 << 20)
    await write(store, "one", data)
    found = await asyncio.gather(*(read_all(store, "one") for _ in range(12)))
    assert set(found) == {data}


async def test_a_client_is_opened_once_however_many_begin_at_once(open_s3, monkeypatch):
    opened = []
    connect = S3Store._connect

    def counting(self):
        opened.append(self)
        return connect(self)

    monkeypatch.setattr(S3Store, "_connect", counting)
    store = open_s3()
    await asyncio.gather(*(store.delete(f"{number}") for number in range(8)))
    assert len(opened) == 1


async def test_nothing_is_connected_to_before_the_first_use(open_s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    await open_s3().close()


async def test_the_bucket_is_asked_for_once_for_many_missing_keys(open_s3, monkeypatch):
    store = open_s3()
    calls = []
    call = S3Store._call

    async def counting(self, operation, *args, **options):
        calls.append(operation)
        return await call(self, operation, *args, **options)

    monkeypatch.setattr(S3Store, "_call", counting)
    for number in range(5):
        with pytest.raises(OriginalMissing):
            await store.stat(f"missing-{number}")
    assert calls.count("head_bucket") == 1


async def test_credentials_never_show_in_errors(open_s3, s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-nobody")
    with pytest.raises(StoreMisconfigured) as caught:
        await open_s3().probe()
    text = repr(caught.value) + caught.value.detail
    assert "a-secret-of-nobody" not in text
    assert s3_environment.access_key not in text
    assert urlsplit(s3_environment.endpoint).netloc not in text
