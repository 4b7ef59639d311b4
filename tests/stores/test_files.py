"""What only a folder has: links, FIFOs, conflicts of names, disks that are full."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import (
    InvalidRequest,
    KeyConflict,
    OriginalMissing,
    SourceFailed,
    StoreMisconfigured,
)
from app.stores.base import CHUNK, MAX_KEY, MAX_SEGMENT, check_key
from app.stores.files import FileStore
from tests.stores.test_contract import create, read_all, write

REFUSED = {
    "nothing": "",
    "only a slash": "/",
    "a leading slash": "/etc/passwd",
    "a trailing slash": "folder/",
    "an empty segment": "a//b",
    "one dot": ".",
    "two dots": "..",
    "a way out": "../secret",
    "a way out in the middle": "a/../../secret",
    "a way out at the end": "a/..",
    "a dot in the middle": "a/./b",
    "a dot at the end": "a/.",
    "a backslash": "..\\secret",
    "a backslash in a segment": "a\\b/c",
    "NUL": "a\0.jpg",
    "a line feed": "a\nb",
    "a carriage return": "a\rb",
    "a tab": "a\tb",
    "escape": "\x1b[31m",
    "unit separator": "a\x1fb",
    "delete": "a\x7fb",
    "a segment that is too long": "x" * 256,
    "a segment that is too long in bytes": "\u00e9" * 128,
    "a key that is too long": "/".join(["k" * 204] * 5) + "k",
    "a key that is too long in bytes": "/".join(["\u00e9" * 102] * 5) + "k",
    "a high surrogate alone": "a\ud800b",
    "a low surrogate alone": "a\udcffb",
    "surrogates the wrong way round": "\udc00\ud800",
}

_NASTY = st.sampled_from(
    [
        *("", ".", "..", "...", " ", "~", "-", "%", "%2e%2e", "%2F", "%00", "..%2f", "\\", "..\\"),
        *("\0", "\n", "\r", "\x7f", "\x80", "\x9f", "\u2028", "\ud800", "\udfff", "\ufeff"),
        *("\u00e9", "e\u0301", "\u0130", "\u202e", "\u2025", "\u2024", "\uff0f", "\u2215"),
        *("CON", "nul.txt", ".git", ".pixelmill-0", "a:b", "C:", "*?|<>", "\U0001f600", "x" * 255),
        *("x" * 256, "\u00e9" * 127, "\u00e9" * 128),
    ]
)
_SEGMENT = st.one_of(_NASTY, st.text(max_size=12), st.lists(_NASTY, max_size=3).map("".join))
KEYS = st.one_of(
    st.lists(_SEGMENT, min_size=1, max_size=6).map("/".join),
    st.text(max_size=40),
    st.text(st.characters(codec=None), max_size=8),
)


def is_taken(key: str) -> bool:
    try:
        check_key(key)
    except InvalidRequest:
        return False
    return True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def files(root: Path) -> FileStore:
    return FileStore(root)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of the store's business, with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("key", REFUSED.values(), ids=REFUSED.keys())
def test_a_key_that_some_store_would_misread_is_refused(key):
    with pytest.raises(InvalidRequest) as caught:
        check_key(key, param="source")
    assert caught.value.param == "source"
    assert caught.value.detail.startswith("source ")
    caught.value.detail.encode()


@given(KEYS)
@settings(max_examples=400, deadline=None)
@example("/".join(["k" * 204] * 5))
@example("\u0130" * 127)
def test_a_key_is_taken_exactly_when_every_rule_holds(key):
    try:
        size = len(key.encode())
        longest = max(len(segment.encode()) for segment in key.split("/"))
    except UnicodeEncodeError:
        assert not is_taken(key)
        return
    holds = (
        0 < size <= MAX_KEY
        and longest <= MAX_SEGMENT
        and not {"", ".", ".."} & set(key.split("/"))
        and not any(char < " " or char in "\x7f\\" for char in key)
    )
    assert is_taken(key) == holds


@given(KEYS.filter(is_taken), st.binary(max_size=64))
@settings(max_examples=100, deadline=None)
@example(".pixelmill-", b"1")
@example("/".join(["k" * 204] * 5), b"1")
def test_whatever_check_key_takes_is_kept_beneath_the_root_and_read_again(key, data):
    async def round_trip(outer: Path) -> None:
        store = FileStore(outer / "root")
        written = await write(store, key, data)
        assert (await store.stat(key)).version == written.version
        assert await read_all(store, key) == data
        found = [name for name in everything(outer) if not (outer / name).is_dir()]
        assert found == [f"root/{key}"]
        await store.delete(key)
        with pytest.raises(OriginalMissing):
            await store.stat(key)

    with tempfile.TemporaryDirectory() as outer:
        asyncio.run(round_trip(Path(outer)))


@pytest.mark.parametrize("key", ["link", "folder/link"])
async def test_a_link_in_the_place_of_a_file_is_not_followed(files, root, outside, key):
    await write(files, "folder/one", b"1")
    (root / key).symlink_to(outside / "secret")
    with pytest.raises(OriginalMissing):
        await files.stat(key)
    with pytest.raises(OriginalMissing):
        await read_all(files, key)


@pytest.mark.parametrize("key", ["link/secret", "a/link/secret", "a/link/deep/secret"])
async def test_a_link_in_the_place_of_a_folder_is_not_followed(files, root, outside, key):
    await write(files, "a/one", b"1")
    (outside / "deep").mkdir()
    (outside / "deep" / "secret").write_bytes(b"secret")
    (root / key.partition("link")[0] / "link").symlink_to(outside, target_is_directory=True)
    before = everything(outside)
    with pytest.raises(OriginalMissing):
        await files.stat(key)
    with pytest.raises(OriginalMissing):
        await read_all(files, key)
    with pytest.raises(KeyConflict):
        await write(files, key, b"overwritten")
    with pytest.raises(KeyConflict):
        await write(files, key.replace("secret", "new/file"), b"new")
    await files.delete(key)
    assert await files.delete_prefix(key.rpartition("/")[0]) == 0
    assert everything(outside) == before
    assert (outside / "secret").read_bytes() == b"secret"


async def test_a_link_that_stays_within_the_root_is_not_followed_either(files, root):
    await write(files, "a/one", b"1")
    (root / "b").symlink_to(root / "a", target_is_directory=True)
    (root / "two").symlink_to("a/one")
    for key in ("b/one", "two"):
        with pytest.raises(OriginalMissing):
            await read_all(files, key)


async def test_writing_over_a_link_replaces_the_link_and_not_what_it_points_to(
    files, root, outside
):
    root.mkdir()
    (root / "link").symlink_to(outside / "secret")
    await write(files, "link", b"new")
    assert (outside / "secret").read_bytes() == b"secret"
    assert not (root / "link").is_symlink()
    assert await read_all(files, "link") == b"new"


async def test_deleting_a_link_removes_the_link_alone(files, root, outside):
    root.mkdir()
    (root / "link").symlink_to(outside / "secret")
    await files.delete("link")
    assert not (root / "link").is_symlink()
    assert (outside / "secret").exists()


async def test_deleting_a_prefix_follows_no_link(files, root, outside):
    await write(files, "a/one", b"1")
    (root / "a" / "link").symlink_to(outside, target_is_directory=True)
    (root / "b").symlink_to(outside, target_is_directory=True)
    await files.delete_prefix("a")
    assert await files.delete_prefix("b") == 0
    assert await files.delete_prefix("b/deep") == 0
    assert (outside / "secret").exists()
    assert not (root / "a").exists()


async def test_a_root_that_is_itself_a_link_may_be_configured(tmp_path, outside):
    (tmp_path / "store").symlink_to(outside, target_is_directory=True)
    store = FileStore(tmp_path / "store")
    await write(store, "one", b"1")
    assert (outside / "one").read_bytes() == b"1"


async def test_a_key_of_very_many_folders_is_kept_and_deleted_quickly(files, root):
    key = "/".join("k" * 512)
    began = time.monotonic()
    await write(files, key, b"1")
    assert await read_all(files, key) == b"1"
    await files.delete(key)
    assert time.monotonic() - began < 5
    with pytest.raises(OriginalMissing):
        await files.stat(key)


@pytest.fixture
async def fifo(root: Path) -> AsyncIterator[Path]:
    await asyncio.to_thread(root.mkdir)
    path = root / "fifo"
    os.mkfifo(path)
    yield path
    # Whoever waits for a writer in spite of all finds one, so that the run can end.
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


async def test_a_fifo_is_no_original_and_does_not_block(files, fifo):
    async with asyncio.timeout(3):
        with pytest.raises(OriginalMissing):
            await files.stat("fifo")
        with pytest.raises(OriginalMissing):
            await read_all(files, "fifo")
        with pytest.raises(OriginalMissing):
            await files.stat("fifo/inner")


async def test_a_fifo_with_a_writer_is_no_original_either(files, fifo):
    both = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(both, b"some bytes")
        with pytest.raises(OriginalMissing):
            await read_all(files, "fifo")
    finally:
        os.close(both)


async def test_a_write_takes_the_place_of_a_fifo(files, fifo):
    async with asyncio.timeout(3):
        await write(files, "fifo", b"bytes")
    assert await read_all(files, "fifo") == b"bytes"


async def test_a_socket_is_no_original(files, root, monkeypatch):
    root.mkdir()
    monkeypatch.chdir(root)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(OriginalMissing):
            await files.stat("socket")


async def test_what_is_no_object_is_not_created_over(files, root, outside, fifo):
    (root / "link.jpg").symlink_to(outside / "secret.jpg")
    (root / "folder").mkdir()
    for key in ("link.jpg", "folder", fifo.name):
        with pytest.raises(KeyConflict):
            await create(files, key, b"1")
    assert [path.name for path in root.rglob(".pixelmill-*")] == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
async def test_a_file_system_without_links_creates_whole_files_once(files, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    assert await create(files, "folder/one", b"first") is not None
    assert await create(files, "folder/one", b"second") is None
    assert await read_all(files, "folder/one") == b"first"
    assert [each.key for each in await files.list_page()] == ["folder/one"]


async def test_a_folder_asked_for_as_a_key_is_missing(files, root):
    (root / "folder" / "inner").mkdir(parents=True)
    for key in ("folder", "folder/inner"):
        with pytest.raises(OriginalMissing):
            await files.stat(key)
        with pytest.raises(OriginalMissing):
            await read_all(files, key)


async def test_a_key_beneath_an_object_conflicts(files, root):
    await write(files, "a", b"1")
    for key in ("a/b", "a/b/c"):
        with pytest.raises(KeyConflict):
            await write(files, key, b"2")
    assert await read_all(files, "a") == b"1"
    assert everything(root) == ["a"]


async def test_a_key_that_others_lie_beneath_conflicts(files, root):
    await write(files, "a/b", b"1")
    with pytest.raises(KeyConflict):
        await write(files, "a", b"2")
    assert await read_all(files, "a/b") == b"1"
    assert everything(root) == ["a", "a/b"]


async def test_a_folder_that_somebody_made_and_left_empty_is_no_conflict_for_keys_beneath(
    files, root
):
    (root / "a").mkdir(parents=True)
    await write(files, "a/b", b"1")
    assert await read_all(files, "a/b") == b"1"


FAILING = {
    "the rename": "replace",
    "flushing": "fsync",
    "opening the temporary": "fdopen",
}


@pytest.mark.parametrize("name", FAILING.values(), ids=FAILING.keys())
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
async def test_a_failed_write_leaves_neither_target_nor_temporary(
    files, root, monkeypatch, name, number
):
    await write(files, "folder/other", b"1")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"app.stores.files.os.{name}", fail)
    with pytest.raises(SourceFailed):
        await write(files, "folder/one", b"new")
    monkeypatch.undo()
    assert everything(root) == ["folder", "folder/other"]


async def test_a_full_disk_leaves_the_old_object_as_it_was(files, root, monkeypatch):
    before = await write(files, "one", b"old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(f"app.stores.files.os.{name}", full)
            with pytest.raises(SourceFailed, match="No space left"):
                await write(files, "one", b"new")
    assert (await files.stat("one")).version == before.version
    assert await read_all(files, "one") == b"old"
    assert everything(root) == ["one"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
async def test_a_device_that_is_full_fails_the_write(files, root, monkeypatch):
    fdopen = os.fdopen

    def to_a_full_device(descriptor, mode):
        os.close(descriptor)
        return fdopen(os.open("/dev/full", os.O_WRONLY), mode)

    monkeypatch.setattr("app.stores.files.os.fdopen", to_a_full_device)
    with pytest.raises(SourceFailed, match="No space left"):
        await write(files, "one", b"x" * 100_000)
    assert everything(root) == []


async def test_a_temporary_file_of_a_process_that_died_is_in_nobodys_way(files, root):
    await write(files, "folder/one", b"1")
    (root / "folder" / ".pixelmill-0123456789abcdef").write_bytes(b"half")
    await write(files, "folder/one", b"2")
    assert await read_all(files, "folder/one") == b"2"
    await files.delete_prefix("folder")
    assert everything(root) == []


async def test_writes_leave_no_temporaries(files, root):
    await asyncio.gather(*(write(files, "one", bytes([n]) * 200_000) for n in range(12)))
    assert everything(root) == ["one"]


async def test_a_write_is_never_seen_half_done(files, root, monkeypatch):
    await write(files, "one", b"old")
    replace = os.replace
    looked: list[bytes] = []

    def look_before(source, target, **options):
        looked.append((root / "one").read_bytes())
        replace(source, target, **options)

    monkeypatch.setattr("app.stores.files.os.replace", look_before)
    await write(files, "one", b"new")
    assert looked == [b"old"]
    assert await read_all(files, "one") == b"new"


async def test_a_version_is_of_the_bytes_that_were_written_even_when_another_write_follows(
    files, monkeypatch
):
    stats = await asyncio.gather(*(write(files, "one", b"%d" % n) for n in range(10)))
    assert len({stat.version for stat in stats}) == len(stats)


async def test_a_file_that_shrinks_while_it_is_read_fails_the_read(files, root):
    await write(files, "one", os.urandom(20 * CHUNK))
    async with files.read("one") as reading:
        received = len(await anext(reading.chunks))
        os.truncate(root / "one", received)
        with pytest.raises(SourceFailed, match="shorter"):
            await anext(reading.chunks)
    assert 0 < received < 20 * CHUNK


async def test_a_disk_that_fails_in_the_middle_of_a_read_is_a_failed_source(files, monkeypatch):
    await write(files, "one", b"bytes")

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("app.stores.files.os.pread", fail)
    with pytest.raises(SourceFailed):
        await read_all(files, "one")


async def test_an_open_reading_survives_the_deletion_of_its_object(files):
    data = os.urandom(12 * CHUNK)
    await write(files, "one", data)
    async with files.read("one") as reading:
        await files.delete("one")
        assert b"".join([chunk async for chunk in reading.chunks]) == data


async def test_a_prefix_that_cannot_be_removed_is_an_error_and_not_nothing(files, monkeypatch):
    await write(files, "results/one", b"1")

    def refuse(*_, **__):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    # Somebody goes on writing into the folder while it is removed.
    monkeypatch.setattr("app.stores.files.shutil.rmtree", refuse)
    with pytest.raises(SourceFailed):
        await files.delete_prefix("results")


async def test_a_prefix_that_is_written_to_while_it_is_removed_is_removed_all_the_same(
    files, root, monkeypatch
):
    await write(files, "results/one", b"1")
    rmdir = os.rmdir
    late: list[Path] = []

    def write_before(name, **options):
        if not late:
            late.append(root / "results" / "late")
            late[0].write_bytes(b"1")
        rmdir(name, **options)

    monkeypatch.setattr("app.stores.files.os.rmdir", write_before)
    await files.delete_prefix("results")
    assert late
    assert everything(root) == []


async def test_writing_beside_a_prefix_that_is_being_deleted_succeeds(files):
    async def write_on(number: int) -> None:
        for turn in range(25):
            await write(files, f"a/b/c{number}/{turn}", b"1")

    async def delete_on() -> None:
        for _ in range(40):
            await files.delete_prefix("a/b")

    await asyncio.gather(*(write_on(number) for number in range(3)), delete_on())


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are not listed here")
async def test_abandoned_reads_close_their_files(files):
    await write(files, "one", os.urandom(12 * CHUNK))
    await read_all(files, "one")
    before = _descriptors()
    for _ in range(12):
        async with files.read("one") as reading:
            async for _ in reading.chunks:
                break
        with pytest.raises(LookupError):
            async with files.read("one"):
                raise LookupError
        with pytest.raises(OriginalMissing):
            await read_all(files, "one/inner")
    assert _descriptors() == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are not listed here")
async def test_a_read_that_is_cancelled_while_it_opens_closes_its_file(files, monkeypatch):
    await write(files, "one", b"bytes")
    await files.stat("one")
    before = _descriptors()
    reached, go_on = threading.Event(), threading.Event()
    opening = FileStore._open

    def held_up(self, key):
        reached.set()
        go_on.wait(10)
        return opening(self, key)

    monkeypatch.setattr(FileStore, "_open", held_up)
    task = asyncio.create_task(read_all(files, "one"))
    await asyncio.to_thread(reached.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.1, go_on.set)
    await asyncio.wait([task])
    await asyncio.sleep(0.3)
    assert task.cancelled()
    assert _descriptors() == before


async def test_the_root_is_made_by_the_first_write(tmp_path):
    store = FileStore(tmp_path / "a" / "b" / "c")
    await write(store, "one", b"1")
    assert (tmp_path / "a" / "b" / "c" / "one").read_bytes() == b"1"


async def test_the_root_is_made_by_the_probe(tmp_path):
    await FileStore(tmp_path / "a" / "b").probe()
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("beneath", ["nowhere", "nowhere/inner", "file", "file/inner", "loop"])
async def test_a_required_root_that_is_not_there_is_no_empty_store(tmp_path, beneath):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "loop").symlink_to("loop")
    root = tmp_path / beneath
    store = FileStore(root, required=True)
    for use in (
        store.stat("one"),
        read_all(store, "one"),
        store.list_page(),
        store.list_page("one/"),
        store.delete("one"),
        store.delete_prefix("one"),
        write(store, "one", b"1"),
    ):
        with pytest.raises(StoreMisconfigured, match="folder") as caught:
            await use
        assert str(tmp_path) not in caught.value.detail
    for look in (store.check(), store.probe()):
        with pytest.raises(StoreMisconfigured, match=re.escape(str(root))):
            await look
    assert not (tmp_path / "nowhere").exists()


async def test_a_required_root_may_come_later(tmp_path):
    store = FileStore(tmp_path / "store", required=True)
    (tmp_path / "store").mkdir()
    await store.probe()
    await write(store, "one", b"1")
    assert await read_all(store, "one") == b"1"
    with pytest.raises(OriginalMissing):
        await store.stat("two")


@pytest.mark.parametrize("beneath", ["file", "file/inner"])
async def test_a_root_that_cannot_be_a_folder_is_for_the_operator(tmp_path, beneath):
    (tmp_path / "file").write_bytes(b"1")
    store = FileStore(tmp_path / beneath)
    with pytest.raises(StoreMisconfigured):
        await store.probe()
    with pytest.raises(StoreMisconfigured):
        await write(store, "one", b"1")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
async def test_a_root_that_may_not_be_written_to_is_for_the_operator(files, root):
    await write(files, "one", b"1")
    root.chmod(0o500)
    try:
        with pytest.raises(StoreMisconfigured):
            await files.probe()
        with pytest.raises(StoreMisconfigured):
            await write(files, "two", b"2")
    finally:
        root.chmod(0o700)


async def test_what_the_system_forbids_is_for_the_operator(files, monkeypatch):
    await write(files, "one", b"1")

    def forbid(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr("app.stores.files.os.open", forbid)
        for use in (
            files.stat("one"),
            read_all(files, "one"),
            write(files, "one", b"2"),
            files.delete("one"),
            files.delete_prefix("one"),
        ):
            with pytest.raises(StoreMisconfigured):
                await use
    with monkeypatch.context() as patched:
        patched.setattr("app.stores.files.os.access", lambda *_: False)
        with pytest.raises(StoreMisconfigured):
            await files.probe()
    assert await read_all(files, "one") == b"1"


async def test_a_relative_root_stays_where_it_was_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FileStore(Path("store"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await write(store, "one", b"1")
    assert (tmp_path / "store" / "one").read_bytes() == b"1"
