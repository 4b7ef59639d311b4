"""Listing a folder: the order of keys against that of folders, and what no listing shows."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.stores.base import can_begin_key, is_key
from app.stores.files import FileStore
from tests.stores.test_contract import keys_of, list_all, write

# Few letters, among them those on both sides of the slash, so that names begin each other.
_SEGMENT = st.text(st.sampled_from("a-./0\u00e9\uffee\U0001f600 !"), min_size=1, max_size=3)
_KEY = st.lists(_SEGMENT, min_size=1, max_size=4).map("/".join).filter(is_key)
_TEXT = st.text(st.sampled_from("a-./0\u00e9\uffee\U0001f600 !"), max_size=5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def files(root: Path) -> FileStore:
    return FileStore(root)


def in_order(keys) -> list[str]:
    return sorted(keys, key=str.encode)


def put(root: Path, keys) -> set[str]:
    """Keep files under those of the keys that do not run through a file or end at a folder."""
    kept = set()
    for key in keys:
        path = root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            continue
        if path.is_file():
            kept.add(key)
    return kept


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@given(
    st.lists(_KEY, max_size=14),
    st.one_of(st.just(""), _TEXT, _KEY),
    st.one_of(st.just(""), _KEY),
    st.integers(1, 5),
)
@settings(max_examples=300, deadline=None)
@example(["a/b", "a-b", "a.b", "a0", "a/b-/c"], "", "", 1)
@example(["a/b", "a-b", "a.b", "a0", "a/b-/c"], "a", "a/b", 2)
def test_pages_are_the_sorted_keys_that_begin_so_and_come_after(keys, prefix, after, limit):
    with tempfile.TemporaryDirectory() as folder:
        kept = put(Path(folder), keys)
        wanted = in_order(key for key in kept if key.startswith(prefix))
        store = FileStore(Path(folder))
        page = asyncio.run(store.list_page(prefix, after=after, limit=limit))
        rest = [key for key in wanted if key.encode() > after.encode()]
        assert keys_of(page) == rest[:limit]
        assert keys_of(asyncio.run(list_all(store, prefix, limit=limit))) == wanted


@given(st.one_of(_KEY, st.text(max_size=8), _TEXT), st.data())
@settings(deadline=None)
def test_what_begins_a_key_can_begin_one(text, data):
    if is_key(text):
        assert can_begin_key(text[: data.draw(st.integers(0, len(text)))])
    elif can_begin_key(text):
        assert is_key(f"{text}x")


async def test_links_temporary_files_and_what_has_no_key_are_not_listed(files, root, tmp_path):
    await write(files, "folder/one", b"1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "linked").symlink_to(outside)
    (root / "folder" / "linked").symlink_to(outside / "secret")
    (root / "folder" / "loop").symlink_to(root / "folder")
    (root / "folder" / ".pixelmill-0123456789abcdef").write_bytes(b"half")
    (root / "folder" / "back\\slash").write_bytes(b"1")
    (root / "line\nfeed").mkdir()
    (root / "line\nfeed" / "one").write_bytes(b"1")
    (root / "empty").mkdir()
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"\xff")).write_bytes(b"1")
    assert keys_of(await list_all(files)) == ["folder/one"]
    assert keys_of(await list_all(files, limit=1)) == ["folder/one"]
    assert await files.list_page("linked/") == []
    assert await files.list_page("folder/loop/") == []


async def test_a_key_that_only_looks_like_a_temporary_file_is_listed(files):
    for key in (".pixelmill-0", ".pixelmill-notes/one"):
        await write(files, key, b"1")
    assert keys_of(await files.list_page()) == [".pixelmill-0", ".pixelmill-notes/one"]


async def test_only_folders_in_which_the_page_may_lie_are_read(files, root, monkeypatch):
    for key in ("a/b/one", "a/c/one", "a/c/two", "a/d/one", "b/one"):
        await write(files, key, b"1")
    read: list[str] = []
    scandir = os.scandir

    def noted(folder):
        read.append(str(Path(f"/proc/self/fd/{folder}").readlink()).removeprefix(f"{root}"))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", noted)
    assert keys_of(await files.list_page(after="a/c/one", limit=1)) == ["a/c/two"]
    assert read == ["", "/a", "/a/c"]
    read.clear()
    assert keys_of(await files.list_page("a/d")) == ["a/d/one"]
    assert read == ["/a", "/a/d"]


async def test_folders_as_deep_as_a_key_may_be_are_listed(files):
    key = "/".join("d" * 512)
    await write(files, key, b"1")
    await write(files, "e", b"1")
    before = open_descriptors()
    assert keys_of(await files.list_page()) == [key, "e"]
    assert open_descriptors() == before


async def test_a_folder_that_goes_away_while_it_is_listed_is_passed_over(files, root, monkeypatch):
    for key in ("a/one", "b/one", "c"):
        await write(files, key, b"1")
    scandir = os.scandir

    def removing(folder):
        entries = scandir(folder)
        (root / "a" / "one").unlink(missing_ok=True)
        if (root / "a").exists():
            (root / "a").rmdir()
        return entries

    monkeypatch.setattr(os, "scandir", removing)
    assert keys_of(await files.list_page()) == ["b/one", "c"]


async def test_a_large_folder_is_listed_in_pages(files, root):
    folder = root / "many"
    folder.mkdir(parents=True)
    names = [f"{number:05d}" for number in range(5_000)]
    for name in names:
        (folder / name).touch()
    found = keys_of(await list_all(files, "many/", limit=999))
    assert found == [f"many/{name}" for name in names]


async def test_a_large_folder_is_read_once_for_many_pages(files, root, monkeypatch) -> None:
    kept = put(root, [f"{number:04}.jpg" for number in range(1500)])
    os.utime(root, (1e9, 1e9))
    read = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: read.append(folder) or scan(folder))
    found: list[str] = []
    while page := await files.list_page(after=found[-1] if found else "", limit=100):
        found += [stat.key for stat in page]
        if len(page) < 100:
            break
    assert found == in_order(kept)
    # The last page is empty, and at the end the names are let go of.
    assert len(read) == 1


async def test_a_large_folder_that_has_changed_is_read_again(files, root) -> None:
    put(root, [f"{number:04}.jpg" for number in range(1500)])
    os.utime(root, (1e9, 1e9))
    await files.list_page(limit=10)
    (root / "0010-new.jpg").touch()
    (root / "0011.jpg").unlink()
    found = await files.list_page(after="0010.jpg", limit=2)
    assert [stat.key for stat in found] == ["0012.jpg", "0013.jpg"]
    found = await files.list_page(after="0009.jpg", limit=2)
    assert [stat.key for stat in found] == ["0010-new.jpg", "0010.jpg"]
