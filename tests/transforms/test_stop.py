"""A render can be stopped from another thread, and no render leaves anything behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest

from tests.transforms import pictures
from tests.transforms.pictures import FORMATS, flat, quadrants, render, saved, stored_as
from transforms import libvips, pipeline
from transforms.errors import Stopped, TransformError
from transforms.limits import Limits
from transforms.pipeline import Stop
from transforms.transform import Transform


@pytest.fixture(scope="module")
def big() -> dict[str, bytes]:
    """Pictures that keep a decoder busy for some tenths of a second."""
    grain = pictures.noise(4000, 4000)
    return {
        "jpeg": saved(grain, "jpeg", Q=92),
        "png": saved(grain, "png"),
        "tiff": saved(grain, "tiff"),
    }


def stopped_after(seconds: float, data: bytes, query: str) -> tuple[BaseException | None, float]:
    """How a render ends that is stopped after a while, and how much later it does."""
    work = pipeline.prepare(data, Transform.from_query(query), Limits())
    stop = Stop()
    ends: list[BaseException | None] = []
    begun = threading.Event()

    def go() -> None:
        begun.set()
        try:
            pipeline.run(data, work, stop)
        except BaseException as error:  # noqa: BLE001 - whatever ends it is looked at
            ends.append(error)
        else:
            ends.append(None)

    thread = threading.Thread(target=go)
    thread.start()
    begun.wait()
    time.sleep(seconds)
    asked = time.perf_counter()
    stop.request()
    thread.join(timeout=30)
    return ends[0], time.perf_counter() - asked


def test_a_render_that_was_stopped_before_it_began_does_not_begin(big: dict[str, bytes]) -> None:
    for data in big.values():
        stop = Stop()
        stop.request()
        work = pipeline.prepare(data, Transform.from_query("fm=png"), Limits())
        begun = time.perf_counter()
        with pytest.raises(Stopped, match=r"^The render was stopped$"):
            pipeline.run(data, work, stop)
        assert time.perf_counter() - begun < 0.1


@pytest.mark.parametrize("fm", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize(
    "query",
    [
        "w=3000&fm=jpeg",
        "w=3000&fm=jpeg&rotate=90",
        "w=3000&h=2000&fit=cover&gravity=attention&fm=jpeg",
        "w=3000&fm=png&flip=h&padding=10&bg=red",
    ],
)
def test_a_render_that_is_stopped_while_it_decodes_ends_soon(
    big: dict[str, bytes], fm: str, query: str
) -> None:
    error, seconds = stopped_after(0.03, big[fm], query)
    assert isinstance(error, Stopped)
    assert seconds < 0.5


@pytest.mark.parametrize("query", ["fm=png&effort=9", "fm=webp&effort=6"])
def test_a_render_that_is_stopped_while_it_encodes_ends_soon(query: str) -> None:
    # The original is decoded at once: all the time is the encoder's.
    data = saved(pictures.noise(1500, 1500), "tiff", compression="none")
    error, seconds = stopped_after(0.1, data, query)
    assert isinstance(error, Stopped)
    assert seconds < 0.5


def test_a_stop_that_comes_too_late_is_harmless() -> None:
    data = saved(quadrants(), "png")
    stop = Stop()
    work = pipeline.prepare(data, Transform.from_query("fm=png"), Limits())
    assert pipeline.run(data, work, stop).data
    stop.request()
    assert stop.requested


def test_one_stop_does_not_end_another_render(big: dict[str, bytes]) -> None:
    transform = Transform.from_query("w=500&fm=jpeg")
    expected = pipeline.run(big["jpeg"], pipeline.prepare(big["jpeg"], transform, Limits())).data
    results: list[bytes] = []

    def other() -> None:
        work = pipeline.prepare(big["jpeg"], transform, Limits())
        results.append(pipeline.run(big["jpeg"], work, Stop()).data)

    thread = threading.Thread(target=other)
    thread.start()
    error, _ = stopped_after(0.03, big["png"], "w=3000&fm=jpeg")
    thread.join()
    assert isinstance(error, Stopped)
    assert results == [expected]


def test_a_picture_can_be_rendered_after_it_was_stopped(big: dict[str, bytes]) -> None:
    for _ in range(3):
        error, _ = stopped_after(0.02, big["png"], "w=3000&fm=jpeg")
        assert isinstance(error, Stopped)
    assert render(big["png"], "w=300", fm="jpeg").width == 300


QUERIES = (
    "w=20&h=20",
    "w=30&rotate=90&flip=h",
    "w=20&h=30&fit=cover&gravity=attention",
    "w=20&h=30&fit=cover&gravity=entropy&bg=ff000080",
    "crop=0.1,0.1,0.5,0.5&padding=3&bg=none",
    "extent=30x30&meta=keep&w=16",
    "page=1",
    "crop=5000,0,1,1",
    "w=50&progressive&q=30&effort=7",
)


def renders() -> list[Callable[[], object]]:
    """A few hundred renders of all kinds, of which many fail."""
    grain = pictures.photo(90, 70)
    originals = [saved(grain, fm) for fm in FORMATS]
    originals += [
        saved(pictures.with_metadata(stored_as(grain, 5)), "jpeg"),
        saved(grain.icc_transform("p3", input_profile="srgb"), "png"),
        saved(flat(9, 9, 9, 9, interpretation="cmyk"), "jpeg"),
        saved(flat(1, 2, 3, 4), "png"),
        pictures.png_that_claims(30_000, 30_000),
        pictures.png_that_claims(30, 30),
        b"",
        b"<svg/>",
    ]
    originals += [data[: len(data) // 2] for data in originals[:7]]

    def one(data: bytes, query: str, fm: str) -> Callable[[], object]:
        return lambda: render(data, query, fm=fm)

    def stopped(data: bytes) -> Callable[[], object]:
        def run() -> None:
            stop = Stop()
            stop.request()
            work = pipeline.prepare(data, Transform.from_query("w=9&fm=png"), Limits())
            pipeline.run(data, work, stop)

        return run

    made = [
        one(data, query, FORMATS[(n + m) % len(FORMATS)] if (n + m) % 7 else "auto")
        for n, data in enumerate(originals)
        for m, query in enumerate(QUERIES)
    ]
    return made + [stopped(data) for data in originals]


def test_nothing_is_left_behind_by_hundreds_of_renders() -> None:
    work = renders()

    def all_of_them() -> int:
        failed = 0
        for one in work:
            try:
                one()
            except TransformError:
                failed += 1
        gc.collect()
        return failed

    all_of_them()  # what is made once and kept, such as colour tables, is made now
    before = libvips.tracked()
    failed = all_of_them()
    after = libvips.tracked()
    assert 50 < failed < len(work) - 50
    assert (after.allocations, after.files) == (before.allocations, before.files)
    assert after.memory == before.memory


def test_nothing_is_left_behind_by_renders_that_are_stopped(big: dict[str, bytes]) -> None:
    gc.collect()
    before = libvips.tracked()
    for data in big.values():
        for seconds in (0.0, 0.01, 0.05):
            stopped_after(seconds, data, "w=2000&rotate=90&fm=jpeg")
    gc.collect()
    after = libvips.tracked()
    assert (after.allocations, after.files) == (before.allocations, before.files)
    assert after.memory == before.memory
