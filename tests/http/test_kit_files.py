"""The files of a kit: each URL is answered, with a picture of the size that was told."""

from __future__ import annotations

import re

import pytest

from tests.http import originals as draw

SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24">'
    b'<rect width="9" height="24"/></svg>'
)


@pytest.fixture
def wide(folder):
    folder.put("wide.jpg", draw.wide())


def sizes_of(served, kit):
    """The sizes of the fallback's files, when all that was told has been found true."""
    for source in (*kit["sources"], kit["img"]):
        for entry in re.split(r"(?<=w), ", source["srcset"]):
            url, width = entry.rsplit(" ", 1)
            answer = served.get(url)
            assert answer.status_code == 200, (url, answer.text)
            image = draw.opened(answer.content)
            assert f"{image.width}w" == width, url
            assert answer.headers["content-type"] == source.get(
                "type", answer.headers["content-type"]
            )
            if source is kit["img"]:
                last = image
                yield image.width, image.height
    assert (kit["width"], kit["height"]) == (last.width, last.height)
    assert (kit["img"]["width"], kit["img"]["height"]) == (last.width, last.height)


def kit_of(served, path):
    answer = served.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sizes(served, path):
    return list(sizes_of(served, kit_of(served, path)))


@pytest.fixture
def preset(serve, wide, tmp_path):
    def start(text, **options):
        path = tmp_path / "presets.toml"
        path.write_text(text)
        return serve(presets=str(path), **options)

    return start


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        (
            'w = 400\nh = 200\nfit = "cover"\nvary = ["dpr", "fm"]',
            "",
            [(400, 200), (600, 300), (800, 400)],
        ),
        ('w = 400\nh = 200\nvary = ["dpr", "fm"]', "&widths=100,200", [(100, 50), (200, 100)]),
        ('w = 400\nh = 300\nfit = "cover"\nvary = ["fm"]', "", [(400, 300)]),
        ('w = 200\ndpr = 2\nvary = ["w", "fm"]', "&widths=100,300", [(100, 50), (300, 150)]),
        ('w = 200\ndpr = 2\nvary = ["w", "fm", "dpr"]', "", [(320, 160), (400, 200)]),
        ("h = 300", "&widths=100,300,900", [(100, 50), (300, 150), (600, 300)]),
        ('h = 300\nvary = ["w", "fm"]', "", [(600, 300)]),
        ("w = 300\npadding = 30", "&widths=100,300", [(120, 70), (360, 210)]),
        ('w = 300\npadding = 30\nvary=["w","fm"]', "&widths=100,300", [(160, 110), (360, 210)]),
        ("q = 50", "&w=200&widths=100,200", [(100, 50), (200, 100)]),
        ("q = 50", "&w=200&h=200&fit=cover&widths=100", [(100, 100)]),
    ],
)
def test_a_preset_gives_the_sizes_that_it_lets_be_made(preset, text, query, expected):
    served = preset(f"[card]\n{text}\n", only_presets=True)
    assert sizes(served, f"/kit/wide.jpg?preset=card{query}") == expected


def test_a_preset_that_fixes_its_format_has_that_alone(preset):
    served = preset('[card]\nw = 300\nfm = "png"\nvary = ["w"]\n[free]\nw = 300\nvary = ["w"]\n')
    kit = kit_of(served, "/kit/wide.jpg?preset=card&widths=100,200")
    assert kit["sources"] == []
    assert list(sizes_of(served, kit)) == [(100, 50), (200, 100)]
    kit = kit_of(served, "/kit/wide.jpg?preset=free&widths=100")
    assert kit["sources"] == []
    assert "fm=" not in kit["img"]["src"]
    assert list(sizes_of(served, kit)) == [(100, 50)]
    for query, param in (("preset=card&formats=webp", "formats"), ("preset=fixed", "preset")):
        problem = served.get(f"/kit/wide.jpg?{query}")
        assert (problem.status_code, problem.json()["param"]) == (400, param)


def test_widths_that_a_preset_does_not_allow_are_refused_by_name(preset):
    served = preset('[card]\nw = 300\nvary = ["fm"]\n')
    problem = served.get("/kit/wide.jpg?preset=card&widths=100").json()
    assert problem["param"] == "widths"
    assert "preset card" in problem["detail"]


def test_a_named_format_is_the_one_that_every_client_gets(serve, wide):
    kit = kit_of(serve(), "/kit/wide.jpg?fm=png&w=100&formats=webp")
    assert [source["type"] for source in kit["sources"]] == ["image/webp"]
    assert "fm=png" in kit["img"]["src"]


def test_a_page_of_another_size_has_a_ladder_of_its_own(serve, folder):
    folder.put("pages.tif", draw.tiff_of((400, 200), (200, 400)))
    served = serve()
    assert sizes(served, "/kit/pages.tif?page=1&formats=webp") == [(200, 400)]
    assert sizes(served, "/kit/pages.tif?formats=webp") == [(320, 160), (400, 200)]
    for path in ("/kit/pages.tif?page=5", "/thumb/pages.tif?page=5"):
        problem = served.get(path)
        assert (problem.status_code, problem.json()["param"]) == (400, "page")


def test_what_is_merged_is_measured_as_a_whole(serve, wide):
    served = serve()
    query = "merge=cat.jpg&across=1&w=600&widths=300,600&formats=webp"
    assert sizes(served, f"/kit/wide.jpg?{query}") == [(300, 210), (600, 420)]


def test_a_drawing_climbs_the_whole_ladder(serve, folder):
    folder.put("small.svg", SVG)
    served = serve()
    kit = kit_of(served, "/kit/small.svg?formats=webp")
    assert kit["widths"] == [320, 480, 640, 960, 1280, 1920]
    assert sizes(served, "/kit/small.svg?w=20&h=60&fit=outside&formats=webp") == [(60, 60)]


@pytest.mark.parametrize(
    ("query", "widths"),
    [
        ("", [320, 640, 1000]),
        ("&widths=320,640,1280", [320, 640, 1000]),
        ("&w=640", [320, 640]),
        ("&w=1280&padding=10", [326, 652, 1020]),
    ],
)
def test_every_width_is_an_allowed_one(serve, wide, query, widths):
    served = serve(allowed_widths="320,640,1280")
    found = sizes(served, f"/kit/wide.jpg?formats=webp{query}")
    assert [width for width, _ in found] == widths


def test_allowed_boxes_keep_their_ratio_and_snapped_ones_are_what_they_become(serve, wide):
    served = serve(allowed_widths="320,640,1280")
    found = sizes(served, "/kit/wide.jpg?w=1280&h=640&fit=cover&formats=webp")
    assert found == [(320, 160), (640, 320)]
    snapping = serve(allowed_widths="320,640,1280", sizes="snap")
    assert sizes(snapping, "/kit/wide.jpg?widths=200&formats=webp") == [(320, 160)]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("widths=200", 400, "widths"),
        ("watermark=none.png", 404, "watermark"),
        ("merge=none.png", 404, "merge"),
        ("page=1", 400, "page"),
        ("crop=2000,0,10,10", 400, "crop"),
    ],
)
def test_what_no_file_can_be_made_of_is_refused_as_a_file_is(serve, wide, query, status, param):
    served = serve(allowed_widths="320,640,1280")
    problem = served.get(f"/kit/wide.jpg?{query}")
    assert (problem.status_code, problem.json()["param"]) == (status, param)


def test_all_widths_show_the_same_picture(serve, wide):
    served = serve()
    query = "w=800&padding=80&border=8&widths=100,400,800&formats=webp"
    assert sizes(served, f"/kit/wide.jpg?{query}") == [(122, 72), (488, 288), (976, 576)]
    query = "w=400&dpr=2&text=x&widths=200,400,800&formats=webp"
    assert sizes(served, f"/kit/wide.jpg?{query}") == [(200, 100), (400, 200), (800, 400)]
    tall = "h=300&widths=200,1000&formats=webp"
    assert sizes(served, f"/kit/wide.jpg?{tall}") == [(200, 100), (600, 300)]


def test_the_placeholder_is_of_the_transformed_picture(serve, folder):
    served = serve()
    plain = kit_of(served, "/kit/cat.jpg")["placeholder"]
    for query in ("rotate=90", "crop=0,0,200,100", "w=50&h=50&fit=cover&g=west", "grayscale"):
        placeholder = kit_of(served, f"/kit/cat.jpg?{query}")["placeholder"]
        for name in ("blurhash", "thumbhash", "data_uri"):
            assert placeholder[name] != plain[name], query
    red = kit_of(served, "/kit/cat.jpg?crop=0,0,200,100")["placeholder"]["dominant"]
    assert int(red[1:3], 16) > 200
    assert int(red[3:5], 16) < 60


@pytest.mark.parametrize(
    ("query", "fm"),
    [
        ("", "jpeg"),
        ("&round=20", "png"),
        ("&shadow=0,8,24", "png"),
        ("&opacity=0.5", "png"),
        ("&round=20&formats=webp", "png"),
        ("&padding=4", "jpeg"),
        ("&padding=4&background=none", "png"),
    ],
)
def test_the_fallback_keeps_the_transparency_that_a_transform_makes(serve, wide, query, fm):
    kit = kit_of(serve(), f"/kit/wide.jpg?w=300{query}")
    assert f"fm={fm}" in kit["img"]["src"]


def test_transparency_that_is_covered_needs_no_png(serve, folder):
    served = serve()
    assert "fm=png" in kit_of(served, "/kit/ring.png")["img"]["src"]
    assert "fm=jpeg" in kit_of(served, "/kit/ring.png?background=fff")["img"]["src"]


def test_no_file_is_promised_that_is_larger_than_any_that_is_made(serve, wide):
    served = serve()
    found = sizes(served, "/kit/wide.jpg?padding=4000&formats=webp")
    assert [width for width, _ in found] == [2880, 4320, 5760]
    problem = served.get("/kit/wide.jpg?padding=4000&widths=320,1000")
    assert (problem.status_code, problem.json()["param"]) == (400, "widths")


def test_kits_and_descriptions_are_of_one_decode(serve, wide):
    served = serve(api_tokens="a-token-that-is-long-enough")

    def decodes() -> float:
        return served.metric("pixelmill_queue_wait_seconds_count")

    mine = {"authorization": "Bearer a-token-that-is-long-enough"}
    first = served.get("/info/wide.jpg?gps=1", headers=mine).json()
    assert decodes() == 1
    kits = [served.get(f"/kit/wide.jpg?{q}").json() for q in ("", "w=300", "q=50&sizes=9px")]
    assert {kit["placeholder"]["data_uri"] for kit in kits} == {first["data_uri"]}
    assert served.get("/info/wide.jpg?gps=1", headers=mine).json() == first
    served.get("/info/wide.jpg")
    assert decodes() == 1
    for _ in range(2):
        served.get("/kit/wide.jpg?rotate=90")
    assert decodes() == 2


def test_what_is_laid_over_a_picture_shows_in_its_placeholder(serve, wide):
    served = serve()
    plain = kit_of(served, "/kit/cat.jpg?w=200&formats=webp")
    marked = kit_of(served, "/kit/cat.jpg?w=200&formats=webp&widths=100,200&watermark=ring.png")
    assert marked["placeholder"]["blurhash"] != plain["placeholder"]["blurhash"]
    assert list(sizes_of(served, marked)) == [(100, 50), (200, 100)]


def test_a_kit_beyond_what_is_asked_for_is_not_made(serve, wide):
    served = serve()
    assert sizes(served, "/kit/wide.jpg?max-w=400&formats=webp") == [(320, 160), (400, 200)]
    assert sizes(served, "/kit/wide.jpg?w=3000&padding=4000&formats=webp")[0] == (2880, 2720)
