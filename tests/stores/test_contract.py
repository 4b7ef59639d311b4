"""What every object store keeps to, asked of a folder and of a real S3 server alike."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

import app.stores.s3
from app.errors import OriginalChanged, OriginalMissing, SourceFailed
from app.stores.base import CHUNK, ObjectStore, check_key
from app.stores.files import FileStore

LARGE = 8 << 20
LARGEST_CHUNK = 4 * CHUNK

ODD_KEYS = {
    "spaces": "a folder/my  picture .jpg",
    "leading and trailing spaces": " a / b ",
    "composed": "caf\u00e9.jpg",
    "decomposed": "cafe\u0301.jpg",
    "another script": "\u6f22\u5b57/\u0434\u043e\u043c/\u05d1\u05d9\u05ea.png",
    "beyond the basic plane": "\U0001f600\U0001f1e8\U0001f1ed/\U00020000.webp",
    "plus": "a+b+c.jpg",
    "percent": "100%.jpg",
    "an escape that is none": "a%2Fb.jpg",
    "escapes of many kinds": "%41%zz%%25%00.jpg",
    "quotes": 'it\'s "quoted" `here`.jpg',
    "marks of URLs": "a?b#c&d=e;f:g@h,i!j$k*l(m)[n]{o}|p^q~r.jpg",
    "marks of XML": "<a>&amp;&lt;]]>.jpg",
    "tilde and dots": "~/..a/b../.../.hidden",
    "dashes": "-rf/--help",
    "longest segment": "x" * 255,
    "longest segment, not ASCII": "\u00e9" * 127 + "x",
    "several long segments": "/".join(["y" * 255] * 3),
    "other spaces": "a\u00a0b\u2003c\u3000d",
    "a letter that changes its length with case": "\u0130stanbul/\u00df\ufb03",
    "upper and lower case": "Photo.JPG",
    "words of web servers": "..well-known/index.html/favicon.ico",
}


async def read_all(store: ObjectStore, key: str, **options) -> bytes:
    async with store.read(key, **options) as reading:
        return b"".join([chunk async for chunk in reading.chunks])


async def write(store: ObjectStore, key: str, data: bytes):
    return await store.write(key, data, content_type="application/octet-stream")


async def exists(store: ObjectStore, key: str) -> bool:
    try:
        await store.stat(key)
    except OriginalMissing:
        return False
    return True


async def test_what_is_written_is_read_with_the_version_that_writing_returned(store):
    written = await write(store, "pictures/one.bin", b"some bytes")
    found = await store.stat("pictures/one.bin")
    async with store.read("pictures/one.bin") as reading:
        assert b"".join([chunk async for chunk in reading.chunks]) == b"some bytes"
        assert reading.stat.version == found.version == written.version
        assert reading.stat.size == found.size == written.size == len(b"some bytes")
        assert reading.stat.key == found.key == written.key == "pictures/one.bin"


async def test_the_time_of_the_last_change_is_an_aware_moment_of_now(store):
    await write(store, "one", b"1")
    modified = (await store.stat("one")).modified
    assert abs(datetime.now(UTC) - modified) < timedelta(minutes=2)


async def test_asking_twice_gives_the_same_version(store):
    await write(store, "one", b"1")
    assert (await store.stat("one")).version == (await store.stat("one")).version


async def test_a_replaced_object_has_another_version_and_only_the_new_bytes(store):
    first = await write(store, "one", b"the first, which is longer")
    second = await write(store, "one", b"second")
    assert first.version != second.version
    assert (await store.stat("one")).version == second.version
    assert await read_all(store, "one") == b"second"


async def test_a_version_tells_bytes_of_equal_length_apart(store):
    versions = [(await write(store, "one", b"%04d" % number)).version for number in range(20)]
    assert len(set(versions)) == len(versions)


async def test_an_empty_object_is_an_object(store):
    await write(store, "empty", b"")
    assert (await store.stat("empty")).size == 0
    assert await read_all(store, "empty") == b""


async def test_the_first_bytes_of_an_empty_object_are_none(store):
    await write(store, "empty", b"")
    assert await read_all(store, "empty", start=0, stop=32) == b""


async def test_a_large_object_arrives_whole_in_several_small_chunks(store):
    data = os.urandom(LARGE)
    await write(store, "large", data)
    sizes = []
    received = bytearray()
    async with store.read("large") as reading:
        async for chunk in reading.chunks:
            sizes.append(len(chunk))
            received += chunk
    assert received == data
    assert len(sizes) >= LARGE // LARGEST_CHUNK
    assert max(sizes) <= LARGEST_CHUNK
    assert min(sizes) > 0


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, None, b"0123456789"),
        (4, None, b"456789"),
        (0, 4, b"0123"),
        (3, 7, b"3456"),
        (9, 10, b"9"),
        (9, None, b"9"),
        (5, 4096, b"56789"),
        (0, 10, b"0123456789"),
    ],
)
async def test_a_range_holds_the_bytes_from_start_up_to_but_without_stop(
    store, start, stop, expected
):
    await write(store, "digits", b"0123456789")
    assert await read_all(store, "digits", start=start, stop=stop) == expected


async def test_a_range_is_told_the_size_of_the_whole(store):
    written = await write(store, "digits", b"0123456789")
    async with store.read("digits", start=2, stop=5) as reading:
        assert reading.stat.size == 10
        assert reading.stat.version == written.version
        assert b"".join([chunk async for chunk in reading.chunks]) == b"234"


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (10, None), (10, 12), (4096, 5000)])
async def test_a_range_without_bytes_is_empty_and_never_the_whole(store, start, stop):
    await write(store, "digits", b"0123456789")
    assert await read_all(store, "digits", start=start, stop=stop) == b""


async def test_a_range_across_chunks_of_a_large_object_is_exact(store):
    data = os.urandom(LARGE)
    await write(store, "large", data)
    start, stop = CHUNK - 1, LARGE - CHUNK - 3
    assert await read_all(store, "large", start=start, stop=stop) == data[start:stop]


async def test_reading_a_version_that_is_still_there_gives_it(store):
    written = await write(store, "one", b"bytes")
    assert await read_all(store, "one", version=written.version) == b"bytes"
    assert await read_all(store, "one", version=written.version, start=1, stop=3) == b"yt"


@pytest.mark.parametrize("part", [{}, {"start": 1, "stop": 3}])
async def test_reading_a_version_that_was_replaced_is_refused(store, part):
    first = await write(store, "one", b"first")
    await write(store, "one", b"other")
    with pytest.raises(OriginalChanged):
        await read_all(store, "one", version=first.version, **part)


async def test_replacing_an_object_while_it_is_read_never_mixes_two_versions(store):
    old, new = b"o" * LARGE, b"n" * LARGE
    await write(store, "one", old)
    received = bytearray()
    # A store may give up what was replaced; it may not go on with something else.
    with suppress(SourceFailed):
        async with store.read("one") as reading:
            async for chunk in reading.chunks:
                if not received:
                    await write(store, "one", new)
                received += chunk
        assert received == old
    assert received == old[: len(received)]
    assert await read_all(store, "one") == new


@pytest.mark.parametrize("key", ["missing", "folder/missing", "a/b/c/d/missing"])
async def test_a_missing_object_is_missing_to_stat_and_to_read(store, key):
    await write(store, "folder/other", b"1")
    with pytest.raises(OriginalMissing):
        await store.stat(key)
    with pytest.raises(OriginalMissing):
        await read_all(store, key)
    with pytest.raises(OriginalMissing):
        await read_all(store, key, start=0, stop=4)


async def test_a_missing_object_is_missing_even_where_a_version_is_asked_for(store):
    written = await write(store, "one", b"1")
    await store.delete("one")
    with pytest.raises(OriginalMissing):
        await read_all(store, "one", version=written.version)


async def test_everything_is_missing_in_a_store_that_was_never_written_to(store):
    with pytest.raises(OriginalMissing):
        await store.stat("one")
    with pytest.raises(OriginalMissing):
        await read_all(store, "one")
    await store.delete("one")
    assert await store.delete_prefix("folder") == 0


async def test_a_folder_is_not_an_object(store):
    await write(store, "folder/inner/one", b"1")
    for key in ("folder", "folder/inner"):
        with pytest.raises(OriginalMissing):
            await store.stat(key)
        with pytest.raises(OriginalMissing):
            await read_all(store, key)


async def test_an_object_is_not_a_folder(store):
    await write(store, "one", b"1")
    with pytest.raises(OriginalMissing):
        await store.stat("one/inner")
    with pytest.raises(OriginalMissing):
        await read_all(store, "one/inner")


async def test_deleting_is_done_once_and_may_be_asked_again(store):
    await write(store, "folder/one", b"1")
    await store.delete("folder/one")
    with pytest.raises(OriginalMissing):
        await store.stat("folder/one")
    await store.delete("folder/one")
    await store.delete("never/there")


async def test_deleting_one_object_leaves_its_neighbours(store):
    for key in ("folder/one", "folder/one.jpg", "folder/two", "folder/oneself/x"):
        await write(store, key, b"1")
    await store.delete("folder/one")
    assert not await exists(store, "folder/one")
    for key in ("folder/one.jpg", "folder/two", "folder/oneself/x"):
        assert await exists(store, key)


async def test_deleting_what_is_a_folder_leaves_what_is_in_it(store):
    await write(store, "folder/one", b"1")
    await store.delete("folder")
    assert await exists(store, "folder/one")


async def test_an_id_is_free_again_once_what_was_beneath_it_is_deleted(store):
    await write(store, "album/cover", b"1")
    await store.delete("album/cover")
    await write(store, "album", b"2")
    assert await read_all(store, "album") == b"2"


async def test_deleting_a_prefix_removes_what_is_under_it_and_nothing_else(store):
    inside = [f"all/it/{name}" for name in ("a", "b", "c/d", "c/e/f", "with space", "\u00e9")]
    outside = ["all/item", "all/it.jpg", "all/its/a", "al", "other/it/a", "all.jpg"]
    for key in (*inside, *outside):
        await write(store, key, b"1")
    assert await store.delete_prefix("all/it") == len(inside)
    assert [key for key in inside if await exists(store, key)] == []
    assert [key for key in outside if not await exists(store, key)] == []
    assert await store.delete_prefix("all/it") == 0


async def test_a_deleted_prefix_can_be_written_to_again(store):
    await write(store, "a/b/one", b"1")
    await store.delete_prefix("a/b")
    await write(store, "a/b/two", b"2")
    assert await read_all(store, "a/b/two") == b"2"
    assert not await exists(store, "a/b/one")


async def test_deleting_a_prefix_takes_as_many_pages_as_it_needs(store, monkeypatch):
    monkeypatch.setattr(app.stores.s3, "_BATCH", 3)
    keys = [f"many/{number:02d}/x{number % 3}" for number in range(17)]
    for key in (*keys, "many.bin", "manyfold/x"):
        await write(store, key, b"1")
    assert await store.delete_prefix("many") == len(keys)
    assert [key for key in keys if await exists(store, key)] == []
    assert await exists(store, "many.bin")
    assert await exists(store, "manyfold/x")


async def test_deleting_the_same_prefix_twice_at_once_leaves_nothing(store):
    keys = [f"many/{number % 7}/{number:03d}" for number in range(60)]
    await asyncio.gather(*(write(store, key, b"1") for key in keys))
    await asyncio.gather(*(store.delete_prefix("many") for _ in range(4)))
    assert [key for key in keys if await exists(store, key)] == []


@pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS.keys())
async def test_an_odd_key_names_its_object_and_no_other(store, key):
    assert check_key(key) == key
    written = await write(store, key, key.encode())
    assert (await store.stat(key)).version == written.version
    assert await read_all(store, key) == key.encode()
    await store.delete(key)
    assert not await exists(store, key)


async def test_odd_keys_live_beside_each_other(store):
    keys = [f"{number}/{key}" for number, key in enumerate(ODD_KEYS.values())]
    for key in keys:
        await write(store, f"odd/{key}", key.encode())
    for key in keys:
        assert await read_all(store, f"odd/{key}") == key.encode()
    assert await store.delete_prefix("odd") == len(keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("a b", "a+b"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a", "a "),
        ("photo.jpg", "photo.JPG"),
        ("a?b", "a%3Fb"),
        ("&", "&amp;"),
    ],
)
async def test_keys_that_look_alike_are_different_objects(store, one, other):
    await write(store, one, b"one")
    assert not await exists(store, other)
    await write(store, other, b"other")
    assert await read_all(store, one) == b"one"
    await store.delete(one)
    assert await read_all(store, other) == b"other"


async def test_a_long_key_can_be_kept(store):
    key = check_key("/".join(["k" * 200] * 5))
    await write(store, key, b"1")
    assert await read_all(store, key) == b"1"


async def test_concurrent_writes_of_one_key_leave_one_of_them_whole(store):
    candidates = [bytes([65 + number]) * (1 << 20) for number in range(8)]
    written = await asyncio.gather(*(write(store, "one", data) for data in candidates))
    found = await store.stat("one")
    assert await read_all(store, "one") in candidates
    assert found.version in {stat.version for stat in written}


async def create(store: ObjectStore, key: str, data: bytes):
    return await store.create(key, data, content_type="application/octet-stream")


async def test_an_object_is_created_once_and_nothing_is_overwritten(store):
    created = await create(store, "pictures/one.bin", b"first")
    assert created.key == "pictures/one.bin"
    assert created.size == len(b"first")
    assert created.version == (await store.stat("pictures/one.bin")).version
    assert await create(store, "pictures/one.bin", b"second") is None
    assert await read_all(store, "pictures/one.bin") == b"first"
    assert await create(store, "pictures/two.bin", b"second") is not None


async def test_what_was_deleted_can_be_created_again_and_what_was_created_be_replaced(store):
    await create(store, "one", b"first")
    await store.delete("one")
    assert await create(store, "one", b"second") is not None
    await write(store, "one", b"third")
    assert await read_all(store, "one") == b"third"
    assert await create(store, "one", b"fourth") is None


async def test_of_concurrent_creations_of_one_key_one_has_its_way(store):
    # SeaweedFS has those who race wait for whole seconds: fewer show the same there.
    racing = 8 if isinstance(store, FileStore) else 3
    candidates = [bytes([65 + number]) * 300_000 for number in range(racing)]
    created = await asyncio.gather(*(create(store, "one", data) for data in candidates))
    winners = [at for at, stat in enumerate(created) if stat is not None]
    assert len(winners) == 1
    found = await store.stat("one")
    assert found.version == created[winners[0]].version
    assert await read_all(store, "one") == candidates[winners[0]]


async def test_creating_leaves_nothing_else_behind(store):
    for data in (b"1", b"2"):
        await create(store, "folder/one", data)
    assert [each.key for each in await store.list_page()] == ["folder/one"]


async def test_creating_is_one_step_to_the_store(store):
    assert await store.conditional()


async def test_readers_see_whole_versions_while_one_is_replaced_again_and_again(store):
    candidates = {bytes([65 + number]) * 300_000 for number in range(6)}
    await write(store, "one", min(candidates))
    done = asyncio.Event()

    async def replace() -> None:
        for _ in range(3):
            for data in candidates:
                await write(store, "one", data)
        done.set()

    async def look() -> int:
        seen = 0
        while not done.is_set():
            with suppress(SourceFailed):  # what was replaced may be given up, never mixed
                assert await read_all(store, "one") in candidates
                seen += 1
        return seen

    _, *seen = await asyncio.gather(replace(), look(), look())
    assert sum(seen) > 0


async def test_many_objects_are_written_and_read_at_once(store):
    contents = {f"many/{number}": os.urandom(1000 + number) for number in range(40)}
    await asyncio.gather(*(write(store, key, data) for key, data in contents.items()))
    found = await asyncio.gather(*(read_all(store, key) for key in contents))
    assert found == list(contents.values())


async def list_all(store: ObjectStore, prefix: str = "", *, limit: int = 1000):
    """Every object, page after page."""
    found, after = [], ""
    while True:
        page = await store.list_page(prefix, after=after, limit=limit)
        assert len(page) <= limit
        found += page
        if len(page) < limit:
            return found
        after = page[-1].key


def keys_of(found):
    return [each.key for each in found]


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
async def test_pages_hold_every_object_once_however_long_they_are(store, limit):
    keys = ["a", "a-b/c", "b/x", "b/y/z", "b-x", "b.x", "b0", "b\u00e9", "\U0001f600", "\uffee"]
    for key in keys:
        await write(store, key, b"1")
    found = keys_of(await list_all(store, limit=limit))
    assert len(found) == len(keys)
    assert set(found) == set(keys)


async def test_odd_keys_are_listed_as_they_were_written(store):
    keys = {f"{number}/{key}" for number, key in enumerate(ODD_KEYS.values())}
    for key in keys:
        await write(store, key, b"1")
    assert set(keys_of(await list_all(store, limit=4))) == keys


async def test_objects_are_listed_in_the_order_of_the_bytes_of_their_keys(store):
    # No folder's name begins another one here: there implementations of S3 differ.
    keys = ["A", "a-", "a.", "a0/1", "a0/10", "a0/2", "a\u00e9", "b-/x", "b./x", "e\u0301"]
    keys = [*keys, "c/\uffee", "c/\U0001f600", "c/x/y", "\u00e9"]
    for key in reversed(keys):
        await write(store, key, b"1")
    assert keys_of(await store.list_page()) == sorted(keys, key=str.encode)


async def test_a_listing_says_of_objects_what_stat_says(store):
    for key in ("one", "folder/two", "folder/three/empty"):
        await write(store, key, b"" if key.endswith("empty") else key.encode())
    for each in await store.list_page():
        assert each == await store.stat(each.key)


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        ("", ["al", "all/a", "all/b/c", "all/b/d", "alll", "b"]),
        ("al", ["al", "all/a", "all/b/c", "all/b/d", "alll"]),
        ("all", ["all/a", "all/b/c", "all/b/d", "alll"]),
        ("all/", ["all/a", "all/b/c", "all/b/d"]),
        ("all/b", ["all/b/c", "all/b/d"]),
        ("all/b/", ["all/b/c", "all/b/d"]),
        ("all/b/d", ["all/b/d"]),
        ("all/b/d/", []),
        ("all/b/dd", []),
        ("al/", []),
        ("/", []),
        ("all//", []),
        ("all/../", []),
        (".", []),
        ("../", []),
        ("all/./b", []),
        ("c\0", []),
        ("\ud800", []),
        ("x" * 300, []),
        ("x/" * 600, []),
    ],
)
async def test_a_prefix_is_text_that_may_end_anywhere(store, beginning, expected):
    for key in ("al", "all/a", "all/b/c", "all/b/d", "alll", "b"):
        await write(store, key, b"1")
    assert keys_of(await store.list_page(beginning)) == expected
    assert keys_of(await list_all(store, beginning, limit=1)) == expected


@pytest.mark.parametrize(
    ("beginning", "after", "expected"),
    [
        ("", "a", ["b/c", "b/d/e", "b/f", "c"]),
        ("", "b/c", ["b/d/e", "b/f", "c"]),
        ("", "b/d/e", ["b/f", "c"]),
        ("", "b/f", ["c"]),
        ("", "c", []),
        ("b/", "a", ["b/c", "b/d/e", "b/f"]),
        ("b/", "b/c", ["b/d/e", "b/f"]),
        ("b/d", "b/c", ["b/d/e"]),
        ("b/d", "b/d/e", []),
        ("b", "c", []),
    ],
)
async def test_a_page_begins_strictly_after_a_key(store, beginning, after, expected):
    for key in ("a", "b/c", "b/d/e", "b/f", "c"):
        await write(store, key, b"1")
    assert keys_of(await store.list_page(beginning, after=after)) == expected
    assert keys_of(await store.list_page(beginning, after=after, limit=2)) == expected[:2]


async def test_what_is_deleted_between_two_pages_neither_comes_nor_stops_the_rest(store):
    keys = [f"many/{number}/{name}" for number in range(3) for name in ("a", "b")]
    for key in keys:
        await write(store, key, b"1")
    first = keys_of(await store.list_page("many/", limit=3))
    assert first == keys[:3]
    await store.delete(keys[2])
    await store.delete(keys[3])
    assert keys_of(await store.list_page("many/", after=keys[2])) == keys[4:]


async def test_nothing_is_listed_in_a_store_that_was_never_written_to(store):
    assert await store.list_page() == []
    assert await store.list_page("folder/", after="folder/one", limit=1) == []


async def test_a_probe_of_a_usable_store_is_silent(store):
    await store.probe()
    await write(store, "one", b"1")
    await store.probe()
    assert await read_all(store, "one") == b"1"


async def test_a_store_can_be_closed_twice_and_opens_again_when_it_is_used(store):
    await write(store, "one", b"1")
    await store.close()
    await store.close()
    assert await read_all(store, "one") == b"1"
