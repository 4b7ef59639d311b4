"""GET and HEAD /thumb: a picture of the size that was asked for, of whichever original."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.http import originals as draw
from tests.http.originals import BLUE, GREEN, RED, WHITE, YELLOW, looks_like

CHANGING = {"date", "x-request-id", "server-timing", "cache-status"}
IDS = (
    "a.jpg",
    "no-extension",
    "folder/and/deeper/a.jpg",
    "with space.jpg",
    "plus+plus.jpg",
    "100%.jpg",
    "half%2Fescaped.jpg",
    "what?.jpg",
    "a#fragment.jpg",
    "a&w=9&h=9.jpg",
    "semi;colon,comma.jpg",
    "straße/日本語/🐈.jpg",
    "e\u0301-in-two-parts.jpg",
    "~tilde!$'()*@:.jpg",
    ".hidden",
)


def stable(headers):
    return {name: value for name, value in headers.items() if name not in CHANGING}


def test_a_wide_picture_becomes_exactly_200x200_padded_on_white(serve, folder):
    answer = serve().get("/thumb/cat.jpg?w=200&h=200")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    image = draw.opened(answer.content)
    assert (image.width, image.height) == (200, 200)
    for x, y, colour in (
        (100, 10, WHITE),
        (100, 40, WHITE),
        (100, 160, WHITE),
        (100, 190, WHITE),
        (50, 70, RED),
        (150, 70, GREEN),
        (50, 130, BLUE),
        (150, 130, YELLOW),
        (3, 60, RED),
        (196, 140, YELLOW),
    ):
        assert looks_like(image, x, y, colour), (x, y, image.getpoint(x, y))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_comes_upright_however_the_camera_was_held(serve, folder, orientation):
    folder.put("held.jpg", draw.jpeg(orientation=orientation))
    image = draw.opened(serve().get("/thumb/held.jpg?w=200&h=200&fm=png").content)
    assert (image.width, image.height) == (200, 200)
    for x, y, colour in (
        (100, 20, WHITE),
        (40, 70, RED),
        (160, 70, GREEN),
        (40, 130, BLUE),
        (160, 130, YELLOW),
    ):
        assert looks_like(image, x, y, colour), (x, y, image.getpoint(x, y))


def test_a_small_original_is_padded_and_not_blown_up(serve, folder):
    folder.put("small.png", draw.png(draw.flat(RED, 20, 10)))
    image = draw.opened(serve().get("/thumb/small.png?w=200&h=200&fm=png").content)
    assert (image.width, image.height) == (200, 200)
    assert looks_like(image, 100, 100, RED)
    assert looks_like(image, 100, 90, WHITE)
    assert looks_like(image, 85, 100, WHITE)


def test_the_background_of_the_setting_is_for_requests_that_name_none(serve, folder):
    served = serve(default_background="black", results="off")
    for query, colour in (
        ("", (0, 0, 0)),
        ("&bg=white", WHITE),
        ("&bg=ffffff", WHITE),
        ("&bg=black", (0, 0, 0)),
        ("&bg=1e1edc", BLUE),
    ):
        for fm in ("", "&fm=jpeg", "&fm=png"):
            for path, x, y in (("cat.jpg", 100, 10), ("ring.png", 5, 5)):
                answer = served.get(f"/thumb/{path}?w=200&h=200{query}{fm}")
                image = draw.opened(answer.content)
                assert looks_like(image, x, y, colour), (path, query, fm)


def test_one_side_alone_keeps_the_proportions(serve, folder):
    image = draw.opened(serve().get("/thumb/cat.jpg?w=100").content)
    assert (image.width, image.height) == (100, 50)


def test_without_parameters_the_original_comes_in_its_own_size(serve, folder):
    image = draw.opened(serve().get("/thumb/cat.jpg").content)
    assert (image.width, image.height) == (400, 200)


def test_an_id_may_be_any_path_once_it_is_encoded(serve, folder):
    served = serve()
    for number, key in enumerate(IDS, 20):
        folder.put(key, draw.jpeg(draw.quarters(number, 10)))
        answer = served.get(f"/thumb/{quote(key)}?h=10")
        assert answer.status_code == 200, answer.text
        assert draw.opened(answer.content).width == number // 2 * 2
        with_slashes_encoded = served.get(f"/thumb/{quote(key, safe='')}?h=10")
        assert with_slashes_encoded.headers["etag"] == answer.headers["etag"]


def test_a_bare_plus_in_an_id_is_a_plus(serve, folder):
    folder.put("a+b.jpg", draw.jpeg())
    served = serve()
    assert served.get("/thumb/a+b.jpg?w=9").status_code == 200
    assert served.get("/thumb/a%20b.jpg?w=9").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/thumb/",
        "/thumb//cat.jpg",
        "/thumb/cat.jpg/",
        "/thumb/../originals/cat.jpg",
        "/thumb/%2e%2e/originals/cat.jpg",
        "/thumb/..%2foriginals%2fcat.jpg",
        "/thumb/./cat.jpg",
        "/thumb/a%00b",
        "/thumb/a%5Cb",
        f"/thumb/{'a' * 256}",
        f"/thumb/{'a/' * 600}a",
    ],
)
def test_an_id_that_no_store_could_hold_is_refused_by_name(standing, call, path):
    answer = call(standing).send(f"{path}?w=9").read()
    assert answer.status == 400
    assert b'"param": "id"' in answer.body


@pytest.mark.parametrize("path", ["cat.jpg", "ring.png"])
def test_head_says_what_get_would_on_a_miss_and_on_a_hit(serve, folder, path):
    # Nothing is kept by the first service, so each of its requests renders.
    never, always = serve(results="off", memory_cache=0, freshness=0), serve()
    url = f"/thumb/{path}?w=120"
    for served in (never, always, always):
        head, get = served.client.head(url), served.client.get(url)
        assert head.status_code == get.status_code == 200
        assert stable(head.headers) == stable(get.headers)
        assert head.content == b""
        assert int(head.headers["content-length"]) == len(get.content)
    assert never.client.head(url).headers["cache-status"].endswith("fwd=miss")
    assert always.client.head(url).headers["cache-status"] == "pixelmill-memory; hit"


def test_a_hit_and_a_miss_differ_in_nothing_but_how_they_were_made(serve, folder):
    served = serve()
    miss, hit = served.get("/thumb/cat.jpg?w=77"), served.get("/thumb/cat.jpg?w=77")
    assert "miss" in miss.headers["cache-status"]
    assert hit.headers["cache-status"] == "pixelmill-memory; hit"
    assert stable(miss.headers) == stable(hit.headers)
    assert miss.headers.keys() == hit.headers.keys()
    assert miss.content == hit.content


def test_what_was_stored_is_answered_by_another_service(serve, folder, until):
    first = serve()
    made = first.get("/thumb/cat.jpg?w=78")
    until(lambda: first.metric("pixelmill_results_stored_total", outcome="stored") == 1)
    second = serve()
    found = second.get("/thumb/cat.jpg?w=78")
    assert found.headers["cache-status"] == "pixelmill-stored; hit, pixelmill-memory; fwd=miss"
    assert found.content == made.content
    assert stable(found.headers) == stable(made.headers)
    assert second.metric("pixelmill_renders_total") == 0
    assert second.metric("pixelmill_results_total", tier="stored") == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/thumb/missing.jpg?w=9", 404),
        ("/thumb/cat.jpg?w=0", 400),
        ("/thumb/letter.txt?w=9", 415),
        ("/thumb/cut.jpg?w=9", 422),
        ("/thumb/bomb.png?w=9", 413),
        ("/thumb?url=https://elsewhere.example/a.jpg", 403),
        ("/thumb", 400),
        ("/nowhere", 404),
        ("/transform", 405),
    ],
)
def test_head_says_what_get_would_of_an_error(standing, path, status):
    for _ in range(2):
        head, get = standing.client.head(path), standing.client.get(path)
        assert head.status_code == get.status_code == status
        left, right = stable(head.headers), stable(get.headers)
        # Their bodies name a request each, and request ids are not all of one length.
        assert abs(int(left.pop("content-length")) - int(right.pop("content-length"))) <= 2
        if status != 405:  # its sentence names the method
            assert left == right
        assert head.content == b""


def test_an_original_on_the_web_is_fetched_and_rendered(serve, origin):
    served = serve(allowed_sources="127.0.0.1:*", allow_private_networks=True)
    answer = served.get(f"/thumb?url={quote(origin.url)}/cat.jpg&w=200&h=200")
    assert answer.status_code == 200
    image = draw.opened(answer.content)
    assert (image.width, image.height) == (200, 200)
    assert looks_like(image, 50, 70, RED)
    assert served.get(f"/thumb?url={quote(origin.url)}/cat.jpg&w=100").status_code == 200


def test_where_nothing_is_named_the_answer_says_how_to_name_it(serve):
    served = serve()
    for path in ("/thumb", "/thumb?w=200", "/thumb?url="):
        problem = served.get(path).json()
        assert (problem["status"], problem["param"]) == (400, "url")
        assert "/thumb/ID" in problem["detail"]


def test_a_url_matters_only_where_there_is_no_id(serve, folder):
    assert serve().get("/thumb/cat.jpg?w=9&url=https://elsewhere.example/").status_code == 200
