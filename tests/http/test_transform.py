"""POST /transform: a picture in, its result out, and nothing kept."""

from __future__ import annotations

import pytest

from tests.http import originals as draw

JPEG = draw.jpeg()


def test_a_picture_that_is_sent_comes_back_transformed(standing):
    answer = standing.client.post("/transform?w=200&h=200", content=JPEG)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-length"] == str(len(answer.content))
    image = draw.opened(answer.content)
    assert (image.width, image.height) == (200, 200)
    assert draw.looks_like(image, 50, 70, draw.RED)
    assert draw.looks_like(image, 100, 20, draw.WHITE)


def test_the_result_is_the_one_that_get_makes(standing):
    for query in ("w=90&h=90", "w=90&fm=png", "fit=cover&w=50&h=80&gravity=east"):
        sent = standing.client.post(f"/transform?{query}", content=JPEG)
        fetched = standing.get(f"/thumb/cat.jpg?{query}")
        assert sent.content == fetched.content


def test_a_body_in_chunks_is_taken_as_well(standing):
    pieces = (JPEG[start : start + 1000] for start in range(0, len(JPEG), 1000))
    answer = standing.client.post("/transform?w=20", content=pieces)
    assert draw.opened(answer.content).width == 20


def test_the_format_is_negotiated(standing):
    answer = standing.client.post("/transform?w=20", content=JPEG, headers={"accept": "image/webp"})
    assert draw.format_of(answer.content) == "webp"


def test_nothing_is_kept(serve, folder, tmp_path):
    served = serve()
    before = folder.names()
    assert served.client.post("/transform?w=20", content=JPEG).status_code == 200
    assert folder.names() == before
    assert [p for p in (tmp_path / "results").rglob("*") if p.is_file()] == []


def test_a_part_of_a_result_is_not_for_post(standing):
    # RFC 9110, 14.2: a Range in anything but GET is not looked at.
    for wanted in ("bytes=0-3", "bytes=9999999-"):
        answer = standing.client.post("/transform?w=20", content=JPEG, headers={"range": wanted})
        assert answer.status_code == 200
        assert draw.opened(answer.content).width == 20


@pytest.mark.parametrize(
    ("query", "param", "suggestion"),
    [
        ("w=20&widht=30", "widht", "width"),
        ("colour=red", "colour", None),
        ("utm_source=letter", "utm_source", None),
        ("v=7", "v", None),
        ("w=20&width=20", "w", None),
        ("fit=covr", "fit", "cover"),
        ("w=0", "w", None),
    ],
)
def test_what_is_not_understood_is_refused_by_name(standing, query, param, suggestion):
    answer = standing.client.post(f"/transform?{query}", content=JPEG)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["param"] == param
    if suggestion:
        assert problem["suggestion"] == suggestion
        assert suggestion in problem["detail"]


def test_what_cannot_be_rendered_is_refused_by_cause(serve):
    served = serve(max_source_bytes=200_000)
    for data, status, code in (
        (draw.TEXT, 415, "unsupported_format"),
        (draw.SVG[:60], 422, "broken_image"),
        (draw.HEIC, 422, "broken_image"),
        (b"", 422, "broken_image"),
        (JPEG[:900], 422, "broken_image"),
        (draw.png_of(60_000, 60_000, b""), 413, "source_too_large"),
        (draw.png(draw.grain(500, 400)), 413, "original_too_large"),
    ):
        answer = served.client.post("/transform?w=20", content=data)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert served.client.post("/transform?w=20", content=JPEG).status_code == 200


def test_a_body_that_stalls_is_given_up(serve, call):
    served = serve(upload_timeout="200ms")
    caller = call(served).send(
        "/transform?w=9", method="POST", headers=[("content-length", "5000")]
    )
    caller.write(JPEG[:100])
    assert caller.read().status == 408


def test_a_client_that_leaves_is_counted_and_its_render_ends(serve, call, until, vast):
    served = serve()
    caller = call(served).send(
        "/transform?w=5000", method="POST", body=vast, headers=[("content-length", str(len(vast)))]
    )
    until(lambda: served.metric("pixelmill_renders_running") == 1)
    caller.leave()
    until(lambda: served.metric("pixelmill_renders_running") == 0)
    until(lambda: served.metric("pixelmill_requests_total", status="499") == 1)
    assert served.metric("pixelmill_renders_total") == 0
