"""Which format a client gets: few variants, and Vary only where another client gets another."""

from __future__ import annotations

import pytest

from tests.http import originals as draw

CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
SAFARI = (
    "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,"
    "image/svg+xml,image/*;q=0.8,*/*;q=0.5"
)
FIREFOX = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
ANYTHING = "*/*"
ACCEPTS = {
    "chrome": CHROME,
    "safari": SAFARI,
    "firefox": FIREFOX,
    "curl": ANYTHING,
    "images": "image/*",
    "webp alone": "image/webp",
    "avif alone": "image/avif",
    "no avif": "image/avif;q=0",
    "no avif, spelt at length": "image/avif; q=0.000, image/webp;q=0.0, */*",
    "shouted": "IMAGE/AVIF, IMAGE/WEBP",
    "weighted": "image/webp;q=0.1,image/avif;q=0.001,*/*",
    "with parameters": "image/webp;foo=bar;q=0.4",
    "a page": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "empty": "",
    "none": None,
    "garbage": ";;,,=/;q=,image/,/webp,\xff\xfe*",
    "similar names": "image/webpx,ximage/avif,image/avif-sequence,application/webp",
    "long": ",".join(f"image/x{n}" for n in range(400)),
}


def ask(served, path, accept):
    headers = [] if accept is None else [("accept", accept.encode("latin-1"))]
    request = served.client.build_request("GET", path, headers=headers)
    if accept is None:
        del request.headers["accept"]
    answer = served.client.send(request)
    assert answer.status_code == 200, answer.text
    return answer


def kind(answer):
    name = draw.format_of(answer.content)
    assert answer.headers["content-type"] == f"image/{name}"
    return name


@pytest.mark.parametrize(
    ("auto", "expected"),
    [
        (
            "avif",
            {
                "chrome": "avif",
                "safari": "avif",
                "firefox": "avif",
                "avif alone": "avif",
                "shouted": "avif",
                "weighted": "avif",
                "webp alone": "webp",
                "with parameters": "webp",
            },
        ),
        (
            "format",
            {
                "chrome": "webp",
                "safari": "webp",
                "firefox": "webp",
                "shouted": "webp",
                "weighted": "webp",
                "webp alone": "webp",
                "with parameters": "webp",
            },
        ),
        ("none", {}),
    ],
)
def test_clients_get_the_best_format_that_they_name(standing, auto, expected):
    tags = set()
    for _ in range(2):  # the second time from memory
        for name, accept in ACCEPTS.items():
            answer = ask(standing, f"/thumb/cat.jpg?w=60&auto={auto}&effort=0", accept)
            assert kind(answer) == expected.get(name, "jpeg"), name
            assert answer.headers.get("vary") == (None if auto == "none" else "Accept"), name
            tags.add(answer.headers["etag"])
    assert len(tags) == {"avif": 3, "format": 2, "none": 1}[auto]


def test_the_default_makes_two_variants_and_no_more(standing):
    answers = [ask(standing, "/thumb/cat.jpg?w=61", accept) for accept in ACCEPTS.values()]
    assert len({answer.headers["etag"] for answer in answers}) == 2
    assert {kind(answer) for answer in answers} == {"webp", "jpeg"}


@pytest.mark.parametrize("fm", ["jpeg", "jpg", "png", "webp", "avif", "gif", "tiff"])
def test_a_format_that_is_asked_for_is_the_same_for_everybody(standing, fm):
    answers = [
        ask(standing, f"/thumb/cat.jpg?w=30&fm={fm}&effort=0", accept)
        for accept in (CHROME, SAFARI, ANYTHING, None)
    ]
    assert {kind(answer) for answer in answers} == {"jpeg" if fm == "jpg" else fm}
    assert all("vary" not in answer.headers for answer in answers)
    assert len({answer.headers["etag"] for answer in answers}) == 1


def test_a_transparent_picture_is_a_png_for_clients_that_name_nothing(standing):
    for accept in (ANYTHING, None, "image/*"):
        answer = ask(standing, "/thumb/ring.png?w=60", accept)
        assert kind(answer) == "png"
        assert draw.opened(answer.content).hasalpha()
        assert answer.headers["vary"] == "Accept"


def test_a_transparent_picture_on_a_canvas_is_a_jpeg(standing):
    assert kind(ask(standing, "/thumb/ring.png?w=60&h=60", ANYTHING)) == "jpeg"


def test_auto_none_keeps_the_format_of_the_original(standing):
    for path, name in (("cat.jpg", "jpeg"), ("ring.png", "png"), ("still.webp", "webp")):
        answer = ask(standing, f"/thumb/{path}?w=31&auto=none", CHROME)
        assert kind(answer) == name
        assert "vary" not in answer.headers


def test_the_setting_of_formats_restricts_what_is_made(serve, folder):
    served = serve(formats="jpeg,png,webp", results="off")
    for accept in (CHROME, "image/avif"):
        expected = "webp" if accept == CHROME else "jpeg"
        assert kind(ask(served, "/thumb/cat.jpg?w=32&auto=avif", accept)) == expected
    problem = served.get("/thumb/cat.jpg?w=32&fm=avif")
    assert problem.status_code == 400
    assert problem.json()["param"] == "fm"
    assert "jpeg, png, webp" in problem.json()["detail"]
    assert served.get("/schema").json()["formats"] == ["jpeg", "png", "webp"]


def test_where_only_the_old_formats_are_made_nothing_varies(serve, folder):
    served = serve(formats="jpeg,png", results="off")
    for auto in ("format", "avif"):
        answer = ask(served, f"/thumb/cat.jpg?w=32&auto={auto}", CHROME)
        assert kind(answer) == "jpeg"
        assert "vary" not in answer.headers


def test_the_setting_of_formats_holds_for_the_original_s_own_format_too(serve, folder):
    folder.put("still.webp", draw.webp())
    served = serve(formats="jpeg,png", results="off")
    answer = served.get("/thumb/still.webp?w=33&auto=none")
    assert draw.format_of(answer.content) in ("jpeg", "png", "unknown")


def test_accept_may_come_in_several_lines(standing, call):
    lines = [("accept", "text/html"), ("accept", "image/webp")]
    for path in ("/thumb/cat.jpg?w=34", "/thumb/cat.jpg?w=34"):
        # The other order, one line, and whatever was asked for before: it is all one.
        for headers in (lines, lines[::-1], [("accept", "text/html, image/webp")]):
            answer = call(standing).send(path, headers=headers).read()
            assert answer.headers["content-type"] == "image/webp", headers
            plain = call(standing).send(path, headers=[("accept", "text/html")]).read()
            assert plain.headers["content-type"] == "image/jpeg"


def test_a_304_is_for_the_variant_that_the_client_may_have(standing):
    jpeg = ask(standing, "/thumb/cat.jpg?w=35", ANYTHING)
    for _ in range(2):
        headers = {"accept": CHROME, "if-none-match": jpeg.headers["etag"]}
        answer = standing.get("/thumb/cat.jpg?w=35", headers=headers)
        assert answer.status_code == 200
        assert kind(answer) == "webp"
