"""Where other image servers' own tests state a size, Pixelmill's plan and pixels have it too.

`vectors` says those facts in our words. Each is compared with the plan, which needs no picture, and
where the picture it names is at hand also with a render. Where a trim ends, renders alone can tell.
What cannot be asked for here is counted by group, what differs on purpose is in `DIFFERENCES`, and
the last test prints the table.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.transforms.pictures import flat, opened, render, saved
from tests.transforms.vectors import GROUPS, TRIMMED, Case, Excluded, Vector, translate
from transforms import geometry, libvips, overlay, pipeline
from transforms.geometry import Plan
from transforms.limits import Limits
from transforms.shapes import Box, Turn
from transforms.transform import Transform

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
VECTORS, FIXTURES = SHARED / "vectors", SHARED / "fixtures"

if not VECTORS.is_dir():
    pytest.skip(
        "the vectors of other servers are not beside this checkout", allow_module_level=True
    )

_DPR = "imgproxy lowers dpr to what the original can give; here it multiplies all sizes alike."
_TRUNCATED = "thumbor cuts the fraction off; here a half is rounded up, and no side is less than 1."

DIFFERENCES = {
    "ip-rs-fill-26-100-g-no-5-dpr-2": _DPR,
    "ip-width-500-height-500-extend-1-no-0-5-dpr-2": _DPR,
    "ip-width-500-height-500-extend-1-ea-5-dpr-2": _DPR,
    "ip-width-500-height-500-extend-1-no-0-0.1-dpr-2": _DPR,
    "ia-0.1x0.2-0.89x0.72-dancing-banana.gif": "imagor rounds the far edge of a crop in fractions; "
    "here its length is rounded, as it is a length that is given.",
    "ia-30x20-100x150-dancing-banana.gif": "imagor loses the last row of a crop that reaches the "
    "edge; here a crop reaches it.",
    "thumbor-cover-040": _TRUNCATED,
    "thumbor-cover-041": _TRUNCATED,
    "thumbor-cover-062": _TRUNCATED,
    "thumbor-cover-089": "The box stated is square and the result 8:1: thumbor's test looks at the "
    "first of two cuts alone, and here both are in what is mapped back.",
    "ip-wm-pos-ce-0-0": "imgproxy's middle of a rest of 150 is 76, as it adds 1 before it "
    "halves; here it is 75.",
    "ia-filters-pixelate-20-gopher-front.png": "imagor's blocks change the size to a multiple of "
    "theirs; here no effect changes the size.",
    "weserv-trim-163": "weserv cuts 60 columns that are no border in all frames: the banana is at "
    "the right edge in the third and at the left one in the seventh.",
}
"""Vectors that can be asked for and come out otherwise, with the reason. Kept short and true."""

MOST_DIFFERENCES = 0.03

UNREADABLE = {"MultipleFormats.tif"}
"""Pictures at hand that libvips as it is packaged cannot decode: this one begins with JBIG."""


def _flag() -> libvips.Image:
    """The flag that sharp trims: its third stripe begins with a row that is half of the second."""
    stripes = [
        flat(0xAE, 0x1C, 0x28, width=900, height=200),
        flat(255, 255, 255, width=900, height=200),
        flat(0x90, 0xA2, 0xC5, width=900, height=1),
        flat(0x21, 0x46, 0x8B, width=900, height=199),
    ]
    flag = stripes[0]
    for stripe in stripes[1:]:
        flag = flag.join(stripe, "vertical")
    return flag.copy_memory()


def _flag_of_16_bits() -> libvips.Image:
    return (_flag() * 257).cast("ushort").copy(interpretation="rgb16")


DRAWN = {
    "Flag_of_the_Netherlands.png": saved(_flag(), "png"),
    "Flag_of_the_Netherlands-16bit.png": saved(_flag_of_16_bits(), "png"),
    "Flag_of_the_Netherlands-alpha.png": saved(_flag().bandjoin(128), "png"),
}
"""Pictures that are not at hand, drawn from what is said of them."""


def _load() -> tuple[list[Case], dict[str, list[str]]]:
    """The vectors that can be asked for, and the ids of the others by group."""
    vectors: list[Vector] = json.loads((VECTORS / "imgproxy_imagor.json").read_text())
    vectors += json.loads((VECTORS / "peers.json").read_text())["vectors"]
    cases, excluded = [], {group: [] for group in GROUPS}
    for vector in vectors:
        try:
            cases.append(translate(vector))
        except Excluded as reason:
            excluded[reason.group].append(vector["id"])
        except Exception as error:
            error.add_note(f"while translating {vector['id']}")
            raise
    return cases, excluded


def _pictures() -> dict[str, tuple[int, int, int]]:
    """Width, height and orientation of the real images at hand, by file name."""
    manifest = FIXTURES / "MANIFEST.tsv"
    if not manifest.is_file():
        return {}
    with manifest.open(newline="") as lines:
        return {
            row["file"]: (int(row["width"]), int(row["height"]), int(row["orientation"]))
            for row in csv.DictReader(lines, delimiter="\t")
            if row["width"].isdigit() and (FIXTURES / row["file"]).is_file()
        }


CASES, EXCLUDED = _load()
PICTURES = _pictures()


def _picture(case: Case) -> bytes:
    name = case.source.file or ""
    return DRAWN[name] if name in DRAWN else (FIXTURES / name).read_bytes()


def _has_picture(case: Case) -> bool:
    """Whether the very picture is at hand: some peers have another one of the same name."""
    source = case.source
    stated = (source.stored.width, source.stored.height, source.orientation)
    return PICTURES.get(source.file or "") == stated and source.file not in UNREADABLE


PLANNED = [case for case in CASES if not case.trims]
RENDERED = [case for case in PLANNED if _has_picture(case)]
TRIMS = [case for case in CASES if case.trims and (case.source.file in DRAWN or _has_picture(case))]


def _plan(case: Case) -> Plan:
    transform = Transform.from_query(case.query.items(), unknown="refuse")
    return geometry.plan(case.source.stored, transform, orientation=case.source.orientation)


Pixels = tuple[float, ...]
Comparison = tuple[str, Pixels, Pixels, int]
"""What is compared, theirs, ours, and by how much they may differ."""


def _comparisons(case: Case, plan: Plan) -> Iterator[Comparison]:
    expect = case.expect
    for name, ours in (("w", plan.result.width), ("h", plan.result.height)):
        if name in expect:
            yield name, (expect[name],), (ours,), 0
    for name in ("scaled_to", "resized_to"):
        if name in expect:
            yield name, (*expect[name],), (plan.scaled.width, plan.scaled.height), 0
    if "image_at" in expect:
        yield "image_at", (*expect["image_at"],), plan.offset, case.tolerance
    if "watermark_at" in expect:
        yield "watermark_at", (*expect["watermark_at"],), _mark_at(case, plan), case.tolerance
    yield from _crop_comparisons(case, plan)


def _crop_comparisons(case: Case, plan: Plan) -> Iterator[Comparison]:
    expect, window = case.expect, plan.window
    if "crop_rect_in_source" in expect:
        theirs = (*expect["crop_rect_in_source"],)
        yield "crop_rect_in_source", theirs, _corner_and_size(plan.region), case.tolerance
    if window is None:
        return  # the pixels decide the place
    if "crop_rect_in_scaled" in expect:
        theirs = (*expect["crop_rect_in_scaled"],)
        yield "crop_rect_in_scaled", theirs, _corner_and_size(window), case.tolerance
    if "crop_source_px" in expect:
        stored = case.source.stored
        whole = {"left": 0, "top": 0, "right": stored.width, "bottom": stored.height}
        box = expect["crop_source_px"] or whole
        theirs = tuple(box[edge] for edge in ("left", "top", "right", "bottom"))
        yield "crop_source_px", theirs, _edges_in_source(plan, window), 1
    for name, ours in (("cropOffsetLeft", window.left), ("cropOffsetTop", window.top)):
        if name in expect:
            yield name, (-expect[name],), (ours,), case.tolerance


def _mark_at(case: Case, plan: Plan) -> Pixels:
    (layer,) = Transform.from_query(case.query.items()).watermark or ()
    scale = Decimal(plan.scale.numerator) / plan.scale.denominator
    assert case.mark is not None
    return overlay.place(plan.result, case.mark, layer.gravity, x=layer.x, y=layer.y, scale=scale)


def _corner_and_size(box: Box) -> Pixels:
    return box.left, box.top, box.width, box.height


def _edges_in_source(plan: Plan, window: Box) -> Pixels:
    """Left, top, right and bottom of the window in the stored picture, which is not turned."""
    assert plan.turn == Turn()
    across = plan.region.width / plan.scaled.width
    down = plan.region.height / plan.scaled.height
    return (
        plan.region.left + window.left * across,
        plan.region.top + window.top * down,
        plan.region.left + (window.left + window.width) * across,
        plan.region.top + (window.top + window.height) * down,
    )


def _compare(case: Case, comparisons: Iterable[Comparison]) -> None:
    compared = list(comparisons)
    assert compared, f"{case.id} states nothing to compare"
    differences = [
        f"{name} is {theirs} in {case.peer} and {ours} here"
        for name, theirs, ours, tolerance in compared
        if max(abs(one - other) for one, other in zip(theirs, ours, strict=True)) > tolerance
    ]
    if case.id in DIFFERENCES:
        assert differences, f"{case.id} no longer differs: take it off the list"
    else:
        assert not differences, f"{case}: {'; '.join(differences)}"


@pytest.mark.parametrize("case", PLANNED, ids=lambda case: case.id)
def test_the_plan_is_what_the_peer_states(case: Case) -> None:
    _compare(case, _comparisons(case, _plan(case)))


@pytest.mark.parametrize("case", RENDERED, ids=lambda case: case.id)
def test_the_pixels_are_what_the_peer_states(case: Case) -> None:
    data = _picture(case)
    work = pipeline.prepare(data, _lossless(case), Limits())
    assert work.plan == _plan(case)

    result = pipeline.run(data, work)
    image = opened(result.data)
    assert (image.width, image.height) == (work.plan.result.width, work.plan.result.height)
    if case.id not in DIFFERENCES:
        assert image.width == case.expect.get("w", image.width), case
        assert image.height == case.expect.get("h", image.height), case
    if (alpha := _stated_alpha(case)) is not None:
        assert image.hasalpha() == alpha, case
    if case.frames:
        _assert_all_frames(case, data, result.data)


@pytest.mark.parametrize("case", TRIMS, ids=lambda case: case.id)
def test_a_trim_leaves_what_the_peer_states(case: Case) -> None:
    data = _picture(case)
    result = pipeline.run(data, pipeline.prepare(data, _lossless(case), Limits()))
    image = opened(result.data)
    _compare(
        case, [(side, (case.expect[side],), (getattr(image, name),), 0) for side, name in _SIDES]
    )
    if "trimOffsetLeft" in case.expect:
        left, top = -case.expect["trimOffsetLeft"], -case.expect["trimOffsetTop"]
        part = opened(render(data, f"crop={left},{top},{image.width},{image.height}").data)
        assert (image - part).abs().max() == 0
    if case.frames:
        _assert_all_frames(case, data, result.data)


_SIDES = (("w", "width"), ("h", "height"))


def _lossless(case: Case) -> Transform:
    """What the case asks for, in a format that keeps every pixel, and every frame if need be."""
    query = case.query | {"fm": "gif" if case.frames else "png", "effort": "0"}
    return Transform.from_query(query.items(), unknown="refuse")


def _assert_all_frames(case: Case, original: bytes, result: bytes) -> None:
    whole, made = (libvips.Image.new_from_buffer(data, "", n=-1) for data in (original, result))
    assert made.get("n-pages") == case.frames
    assert made.get("delay") == whole.get("delay")
    assert made.get("loop") == whole.get("loop")


def _stated_alpha(case: Case) -> bool | None:
    """Whether there is transparency, if that can be compared.

    A canvas or a background fills it here, and leaves it be in some peers. A number of bands says
    no more than this: grey stays grey here.
    """
    if _plan(case).frames or "background" in case.query:
        return None
    if "bands" in case.expect:
        return case.expect["bands"] in (2, 4)
    return case.expect.get("alpha")


def test_the_list_of_differences_is_short_and_names_vectors_that_run() -> None:
    assert set(DIFFERENCES) <= {case.id for case in CASES}
    assert len(DIFFERENCES) < MOST_DIFFERENCES * len(CASES)


@pytest.mark.usefixtures("real_images")
def test_every_picture_whose_border_is_known_is_trimmed() -> None:
    assert {case.source.file for case in TRIMS} == TRIMMED


def test_the_picture_in_an_alpha_channel_is_found(real_images: Path) -> None:
    # sharp's test of a trim whose picture is nowhere but there.
    data = (real_images / "image-in-alpha.png").read_bytes()
    image = opened(render(data, "trim=10").data)
    assert (image.width, image.height) == (916, 137)
    part = opened(render(data, "crop=6,20,916,137").data)
    assert (image - part).abs().max() == 0


def test_every_group_of_excluded_vectors_is_in_use() -> None:
    assert [group for group, ids in EXCLUDED.items() if not ids] == []


def test_every_vector_is_accounted_for(capsys: pytest.CaptureFixture[str], record_property) -> None:
    counts = {
        "ran against the plan": len(PLANNED),
        "ran against pixels too": len(RENDERED),
        "ran against pixels alone": len(TRIMS),
        "of these, of a picture drawn as described": sum(
            case.source.file in DRAWN for case in TRIMS
        ),
        "differ, with a reason": len(DIFFERENCES),
        "excluded, with a reason": sum(len(ids) for ids in EXCLUDED.values()),
    }
    for name, count in counts.items():
        record_property(name, count)
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *_table(counts), ""]))
    ids = [case.id for case in CASES] + [id_ for ids in EXCLUDED.values() for id_ in ids]
    assert len(ids) == len(set(ids))


def _table(counts: dict[str, int]) -> Iterator[str]:
    peers = Counter(case.peer for case in CASES)
    unread = Counter(name for case in CASES for name in case.expect.keys() - _compared(case))
    absent = sum(bool(case.source.file) for case in PLANNED) - len(RENDERED)
    yield "Vectors of other servers"
    for name, count in counts.items():
        yield f"{count:5}  {name}"
    yield f"By peer: {_listed(peers)}"
    yield f"Not rendered: {absent} whose picture is not at hand or cannot be read; others name none"
    yield f"Stated and not compared: {_listed(unread)}"
    yield "Excluded"
    for group, ids in EXCLUDED.items():
        yield f"{len(ids):5}  {group}: {GROUPS[group]}"
    yield "Different"
    for id_, reason in DIFFERENCES.items():
        yield f"       {id_}: {reason}"


def _compared(case: Case) -> set[str]:
    """The names in the expectation that are looked at."""
    if case.trims:
        return {"w", "h", "trimOffsetLeft", "trimOffsetTop"} & case.expect.keys()
    seen = {name for name, *_ in _comparisons(case, _plan(case))}
    renders = case in RENDERED and _stated_alpha(case) is not None
    return seen | {"alpha", "bands"} if renders else seen


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
