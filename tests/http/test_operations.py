"""Every parameter over HTTP, and originals that name other originals or need another process."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from app.offline import Bench
from app.settings import Settings
from tests.http import originals as draw
from tests.http.originals import BLUE, GREEN, RED, looks_like
from tests.transforms import pictures
from transforms import pipeline
from transforms.limits import Limits
from transforms.options import OPTIONS
from transforms.transform import Transform

PHOTO = pictures.saved(pictures.photo(400, 300), "jpeg")
MOVING = pictures.pages([draw.flat(ink, 80, 60) for ink in (RED, GREEN, BLUE)], "gif")
EMBLEM = draw.png(draw.ring())
HELD = draw.jpeg(orientation=6)
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200">'
    b'<rect width="300" height="200" fill="#dc1e1e"/></svg>'
)
SLOW_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="500" height="500"><defs>'
    '<rect id="a0" width="9" height="9"/>'
    + "".join(
        f'<g id="a{n + 1}" opacity=".9"><use href="#a{n}"/><use href="#a{n}" x="1"/></g>'
        for n in range(18)
    )
    + '</defs><use href="#a18"/></svg>'
).encode()

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc tells of processes")


@pytest.fixture
def samples(folder):
    """The originals that the examples in the table name, and those that show what they do."""
    folder.put("photo.jpg", PHOTO)
    folder.put("moving.gif", MOVING)
    folder.put("samples/emblem.png", EMBLEM)
    folder.put("samples/portrait-rotated.jpg", HELD)
    folder.put("drawing.svg", SVG)
    return folder


def size_of(answer):
    image = draw.opened(answer.content)
    return image.width, image.height


def planned(data, pairs):
    transform = Transform.from_query(pairs)
    transform = transform if transform.fm else transform.with_output("auto")
    others = [HELD, EMBLEM] if transform.merge else []
    size = pipeline.prepare(data, transform, Limits(), others=others).plan.result
    return size.width, size.height


# The table.


def test_each_row_of_the_table_can_be_asked_for(serve, samples):
    served = serve(results="off")
    for option in OPTIONS:
        name, data = (
            ("moving.gif", MOVING) if option.name in ("page", "frames") else ("photo.jpg", PHOTO)
        )
        for box in ({}, {"w": "90", "h": "70"}):
            pairs = [(option.name, option.example), *box.items()]
            pairs = pairs[:1] + [pair for pair in pairs[1:] if pair[0] != option.name]
            answer = served.get(f"/thumb/{name}?{urlencode(pairs)}")
            assert answer.status_code == 200, (pairs, answer.text)
            assert size_of(answer) == planned(data, pairs), pairs


def test_each_row_of_the_table_has_an_effect_of_its_own(serve, samples):
    served = serve(results="off")
    plain = served.get("/thumb/photo.jpg").headers["etag"]
    tags = {
        option.name: served.get(
            f"/thumb/photo.jpg?{urlencode([(option.name, option.example)])}"
        ).headers["etag"]
        for option in OPTIONS
        if option.name not in ("across", "cell", "gap", "gravity", "page", "frames", "q", "enlarge")
    }
    same = {name for name, tag in tags.items() if tag == plain}
    # Their examples are their defaults, or there is nothing for them to act on.
    assert same <= {"dpr", "layer-dpr", "fit", "orient", "effort", "hdr", "meta", "auto"}


def test_what_moves_comes_as_a_gif_to_who_knows_no_better(serve, samples):
    served = serve(results="off")
    answer = served.get("/thumb/moving.gif?w=40", headers={"accept": "*/*"})
    assert answer.headers["content-type"] == "image/gif"
    assert draw.opened(answer.content).get("n-pages") == 3
    webp = served.get("/thumb/moving.gif?w=40", headers={"accept": "image/webp,*/*"})
    assert webp.headers["content-type"] == "image/webp"
    assert draw.opened(webp.content).get("n-pages") == 3
    still = served.get("/thumb/moving.gif?w=40&fm=jpeg")
    assert size_of(still) == (40, 30)


def test_too_many_frames_are_a_413(serve, samples):
    served = serve(results="off", max_frames=2)
    answer = served.get("/thumb/moving.gif?w=40")
    assert (answer.status_code, answer.json()["code"]) == (413, "source_too_large")
    assert "ask for fewer frames" in answer.json()["detail"]
    assert served.get("/thumb/moving.gif?w=40&frames=2").status_code == 200


# Originals that name others.


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("watermark", "missing.png"),
        ("watermark", "samples/emblem.png|missing.png,x=4"),
        ("merge", "missing.png"),
        ("merge", "cat.jpg|missing.png"),
    ],
)
def test_what_is_missing_is_a_404_that_names_the_parameter(serve, samples, param, value):
    answer = serve().get(f"/thumb/photo.jpg?{urlencode([(param, value)])}")
    assert answer.status_code == 404
    problem = answer.json()
    assert (problem["code"], problem["param"]) == ("original_missing", param)


@pytest.mark.parametrize("value", ["../secret.png", "/etc/passwd", "a//b", "a/../b", "."])
@pytest.mark.parametrize("param", ["watermark", "merge"])
def test_ids_in_parameters_obey_the_rules_of_ids(serve, samples, param, value):
    answer = serve().get(f"/thumb/photo.jpg?{urlencode([(param, value)])}")
    assert answer.status_code == 400
    assert answer.json()["param"] == param


@pytest.mark.parametrize(("param", "other"), [("watermark", 1), ("merge", 1), ("merge", 2)])
def test_the_etag_follows_every_original(serve, samples, param, other):
    served = serve(freshness=0)
    names = ["one.png", "two.png"][: 2 if param == "merge" else 1]
    for name in names:
        samples.put(name, draw.png(draw.flat(RED)))
    path = f"/thumb/photo.jpg?{urlencode([(param, '|'.join(names))])}&w=90"
    first = served.get(path)
    assert served.get(path).headers["etag"] == first.headers["etag"]
    samples.put(names[other - 1], draw.png(draw.flat(BLUE, 61, 41)))
    second = served.get(path, headers={"if-none-match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.headers["etag"] != first.headers["etag"]
    assert second.content != first.content


def test_merged_originals_stand_side_by_side(serve, samples):
    samples.put("red.png", draw.png(draw.flat(RED, 30, 20)))
    samples.put("blue.png", draw.png(draw.flat(BLUE, 20, 40)))
    answer = serve().get("/thumb/red.png?merge=blue.png&across=2&gap=5&fm=png")
    assert size_of(answer) == (55, 40)
    image = draw.opened(answer.content)
    for x, y, colour in ((29, 19, RED), (29, 21, draw.WHITE), (32, 5, draw.WHITE), (36, 39, BLUE)):
        assert looks_like(image, x, y, colour)


@pytest.mark.parametrize("path", ["photo.jpg?merge=drawing.svg", "drawing.svg?merge=photo.jpg"])
def test_a_document_that_cannot_be_merged_is_refused_by_the_name_of_the_parameter(
    serve, samples, path
):
    answer = serve().get(f"/thumb/{path}")
    assert answer.status_code == 415
    assert (answer.json()["code"], answer.json()["param"]) == ("unsupported_format", "merge")


def test_the_bitmap_of_a_watermark_is_decoded_once(serve, samples, monkeypatch):
    decoded = []
    make_bitmap = pipeline.make_bitmap

    def counting(data, works, stop):
        decoded.append(len(data))
        return make_bitmap(data, works, stop)

    monkeypatch.setattr(pipeline, "make_bitmap", counting)
    served = serve(results="off")
    for width in range(60, 68):
        path = f"/thumb/photo.jpg?w={width}&watermark=samples/emblem.png,scale=0.5"
        assert served.get(path).status_code == 200
    assert decoded == [len(EMBLEM)]


def test_a_watermark_of_any_format_is_laid_on(serve, samples):
    for name in ("drawing.svg", "moving.gif", "samples/portrait-rotated.jpg", "samples/emblem.png"):
        path = f"/thumb/photo.jpg?w=200&fm=png&watermark={name},gravity=center,scale=0.5"
        image = draw.opened(serve(results="off").get(path).content)
        plain = draw.opened(serve(results="off").get("/thumb/photo.jpg?w=200&fm=png").content)
        changed = (image - plain).abs()
        assert changed.max() > 40, name
        assert changed.crop(0, 0, 200, 30).max() == 0, name


DOT = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24">'
    b'<rect width="12" height="24" fill="#000"/>'
    b'<rect x="12" width="12" height="24" fill="#c00"/></svg>'
)


@pytest.fixture
def marked(samples, serve):
    """Lays a watermark on a white picture, by the service and by the command line's bench."""

    def lay(picture, name, mark, parts):
        samples.put("white.png", picture)
        samples.put(name, mark)
        query = f"fm=png&watermark={name},gravity=center{parts}"
        answer = serve(results="off").get(f"/thumb/white.png?{query}")
        assert answer.status_code == 200
        files = {"white.png": picture, name: mark}
        (local,) = asyncio.run(_on_the_bench(files, Transform.from_query(query)))
        return draw.opened(answer.content), draw.opened(local.data)

    return lay


async def _on_the_bench(files, transform):
    bench = Bench(Settings(_env_file=None), files.__getitem__)
    try:
        return await bench.run("white.png", [transform])
    finally:
        await bench.close()


def test_a_watermark_has_its_own_size_though_it_is_a_drawing_or_very_large(marked):
    white = pictures.saved(pictures.flat(255, 255, 255, width=600, height=300), "png")
    for image in marked(white, "dot.svg", DOT, ""):
        assert image.find_trim() == [288, 138, 24, 24]
    wide = pictures.saved(pictures.flat(255, 255, 255, width=3000, height=40), "png")
    line = pictures.saved(pictures.flat(9, 9, 9, width=2900, height=20), "png")
    for image in marked(wide, "line.png", line, ""):
        assert image.find_trim() == [50, 10, 2900, 20]


def test_a_drawing_that_is_laid_larger_than_it_is_stays_sharp(marked):
    white = pictures.saved(pictures.flat(255, 255, 255, width=600, height=300), "png")
    for image in marked(white, "dot.svg", DOT, ",scale=1"):
        assert image.find_trim() == [150, 0, 300, 300]
        for x, ink in ((297, (0, 0, 0)), (303, (204, 0, 0))):
            assert all(abs(a - b) <= 4 for a, b in zip(image(x, 150)[:3], ink, strict=True))


# Documents.


def test_a_drawing_is_as_sharp_as_it_is_large(serve, samples):
    answer = serve().get("/thumb/drawing.svg?w=600&fm=png")
    assert size_of(answer) == (600, 400)
    image = draw.opened(answer.content)
    assert image(0, 0)[:3] == image(599, 399)[:3] == list(RED)
    assert serve().get("/thumb/drawing.svg?auto=none").headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("file", "package", "size"),
    [
        ("winter_1440x960.heic", "pillow_heif", (90, 60)),
        ("jxl-isobmff.jxl", "pillow_jxl", (90, 59)),
        ("sizes.pdf", "pypdfium2", (90, 116)),
        ("logo.svgz", None, (90, 68)),
    ],
)
def test_documents_are_pictures_too(serve, samples, real_images, file, package, size):
    if package:
        pytest.importorskip(package)
    samples.put(file, (real_images / file).read_bytes())
    answer = serve().get(f"/thumb/{file}?w=90&fm=png")
    assert answer.status_code == 200, answer.text
    found = size_of(answer)
    assert found[0] == size[0]
    assert abs(found[1] - size[1]) <= 1


def test_documents_can_be_refused(serve, samples):
    samples.put("phone.heic", draw.HEIC)
    samples.put("paper.pdf", draw.PDF)
    served = serve(children=False)
    for name in ("drawing.svg", "phone.heic", "paper.pdf"):
        answer = served.get(f"/thumb/{name}?w=90")
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")
    assert served.get("/thumb/photo.jpg?w=90").status_code == 200
    marked = served.get("/thumb/photo.jpg?watermark=drawing.svg")
    assert marked.status_code == 415


@linux
def test_a_process_that_is_killed_takes_no_other_request_with_it(serve, samples, until):
    samples.put("slow.svg", SLOW_SVG)
    served = serve(children=True, child_timeout=30, workers=2, queue_interactive=30)
    assert served.get("/thumb/drawing.svg?w=30").status_code == 200
    zygote = served.app.api.state.service.renderer.executor._children._zygote._process.pid
    slow = []
    thread = threading.Thread(target=lambda: slow.append(served.get("/thumb/slow.svg?w=60")))
    thread.start()
    until(lambda: bool(started_by(zygote)))
    assert served.get("/thumb/photo.jpg?w=41").status_code == 200
    for process in started_by(zygote):
        os.kill(process, signal.SIGKILL)
    thread.join(20)
    (answer,) = slow
    assert (answer.status_code, answer.json()["code"]) == (422, "broken_image")
    assert served.get("/thumb/photo.jpg?w=42").status_code == 200
    assert served.get("/thumb/drawing.svg?w=43").status_code == 200


def started_by(process):
    """The processes that this one has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue  # it has just ended
        if int(above) == process and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("query", ["merge=ring.png&w=90", "watermark=ring.png&w=90"])
def test_what_is_deleted_is_gone_from_every_result_that_it_is_in(serve, folder, query):
    served = serve(freshness="1h")
    url = f"/thumb/cat.jpg?{query}"
    assert served.get(url).status_code == 200
    assert "pixelmill-memory; hit" in served.get(url).headers["cache-status"]
    assert served.client.delete("/images/ring.png").status_code == 204
    assert served.metric("pixelmill_memory_tier_bytes") == 0
    gone = served.get(url)
    assert (gone.status_code, gone.json()["code"]) == (404, "original_missing")


def test_what_is_merged_has_no_more_bytes_than_one_original_may(serve, folder):
    data = draw.jpeg(draw.grain(300, 200))
    folder.put("one.jpg", data)
    served = serve(max_source_bytes=3 * len(data))
    assert served.get("/thumb/one.jpg?merge=one.jpg|one.jpg&w=90").status_code == 200
    for explain in ("", "&explain=1"):
        answer = served.get(f"/thumb/one.jpg?merge=one.jpg|one.jpg|one.jpg&w=90{explain}")
        assert (answer.status_code, answer.json()["param"]) == (413, "merge")


def test_documents_that_take_all_their_time_leave_a_processor_for_pictures(serve, folder):
    levels = "".join(
        f'<g id="g{level}">' + f'<use href="#g{level - 1}"/>' * 10 + "</g>" for level in range(1, 9)
    )
    folder.put(
        "bomb.svg",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="500" height="500"><g id="g0">'
        b'<rect width="9" height="9"/></g>' + levels.encode() + b"</svg>",
    )
    served = serve(workers=2, child_timeout="3s", queue_interactive="1h")
    with ThreadPoolExecutor(2) as pool:
        bombs = [pool.submit(served.get, f"/thumb/bomb.svg?w={w}") for w in (50, 60)]
        for width in range(40, 50):
            assert served.get(f"/thumb/cat.jpg?w={width}").status_code == 200
        assert not any(bomb.done() for bomb in bombs)
        assert {bomb.result().status_code for bomb in bombs} <= {422, 503}
