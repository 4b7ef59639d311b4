"""A folder that is looked through for rules, by services that make what they ask for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.http import originals as draw
from tests.serving import serving
from transforms.libvips import Image


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    """Wait for what happens behind the answers."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.03)


class Folder:
    """The folder of originals, as others see and change it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, width: int = 90) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".pixelmill-{os.urandom(8).hex()}")  # as the store itself does
        beside.write_bytes(draw.jpeg(draw.quarters(width, 60)))
        beside.rename(path)

    def names(self, within: str) -> set[str]:
        folder = self.path / within
        return {p.name for p in folder.iterdir()} if folder.is_dir() else set()

    def height(self, name: str) -> int:
        return Image.new_from_buffer((self.path / name).read_bytes(), "").height


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "originals")


@pytest.fixture
def options(tmp_path: Path, folder: Folder) -> dict[str, str]:
    folder.path.mkdir()
    return {
        "database": f"sqlite:///{tmp_path}/ledger.db",
        "originals": f"file:{folder.path}",
        "results": f"file:{tmp_path}/results",
    }


def test_what_is_new_in_a_folder_is_rendered_once_and_results_are_not(options, folder):
    rule = {
        "outputs": [{"transform": "w=32", "target": "made/{stem}-x.jpg"}],
        "poll": 1,
        "backfill": True,
    }
    folder.put("cat.jpg")
    with serving(**options) as served, serving(**options):  # whichever of both looks
        assert served.client.put("/rules/all", json=rule).status_code == 201
        until(lambda: folder.names("made") == {"cat-x.jpg"})
        folder.put("dog.jpg")
        folder.put("made/cat-x.jpg", width=200)  # it is somebody's own picture now
        until(lambda: folder.names("made") == {"cat-x.jpg", "dog-x.jpg", "cat-x-x.jpg"})
        assert folder.height("made/cat-x-x.jpg") == round(60 * 32 / 200)
    with serving(**options) as served:  # what was seen is remembered
        folder.put("emu.jpg")
        until(lambda: "emu-x.jpg" in folder.names("made"))
        assert len(folder.names("made")) == 4
        assert len(served.get("/jobs?limit=1000").json()["items"]) == 4
