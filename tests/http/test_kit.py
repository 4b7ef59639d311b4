"""GET /kit and `explain`: what a page needs, and what a request comes to."""

from __future__ import annotations

import html.parser
import re
import time

import pytest

from app.signing import Signer
from tests.http import originals as draw

KEY = "k1:a-secret-of-enough-letters"
TOKEN = "a-token-that-is-long-enough"


@pytest.fixture
def wide(folder):
    folder.put("wide.jpg", draw.wide())


def urls(srcset: str) -> dict[str, int]:
    """The URLs of a srcset with the widths that it says."""
    found = [entry.rsplit(" ", 1) for entry in re.split(r"(?<=w), ", srcset)]
    return {url: int(width.removesuffix("w")) for url, width in found}


def test_a_kit_has_a_ladder_that_stops_at_the_original(serve, wide):
    served = serve()
    kit = served.get("/kit/wide.jpg").json()
    assert kit["widths"] == [320, 480, 640, 960, 1000]
    assert (kit["width"], kit["height"]) == (1000, 500)
    assert [source["type"] for source in kit["sources"]] == ["image/avif", "image/webp"]
    for url, width in urls(kit["img"]["srcset"]).items():
        answer = served.get(url)
        assert answer.headers["content-type"] == "image/jpeg"
        assert draw.opened(answer.content).width == width
    for source in kit["sources"]:
        url, width = next(iter(urls(source["srcset"]).items()))
        answer = served.get(url)
        assert answer.headers["content-type"] == source["type"]
        assert draw.opened(answer.content).width == width
    placeholder = kit["placeholder"]
    assert placeholder["blurhash"]
    assert placeholder["thumbhash"]
    assert placeholder["data_uri"].startswith("data:image/")
    assert placeholder["dominant"].startswith("#")


def test_a_ratio_holds_at_every_width(serve, wide):
    served = serve()
    kit = served.get("/kit/wide.jpg?w=300&h=300&fit=cover&widths=100,200,400&formats=webp").json()
    assert kit["widths"] == [100, 200, 300]
    assert kit["aspect_ratio"] == 1
    for url in urls(kit["sources"][0]["srcset"]):
        image = draw.opened(served.get(url).content)
        assert image.width == image.height


def test_the_html_is_one_picture_that_cannot_be_broken_out_of(serve, wide):
    told = serve().get('/kit/wide.jpg?alt="><script>x()</script>&sizes=50vw').json()
    tags = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Reader().feed(told["html"])
    assert [tag for tag, _ in tags] == ["picture", "source", "source", "img"]
    image = tags[-1][1]
    assert image["alt"] == '"><script>x()</script>'
    assert image["sizes"] == "50vw"
    assert (image["width"], image["height"]) == ("1000", "500")


def test_a_warm_kit_is_rendered_at_once_from_one_download(serve, wide):
    served = serve()
    kit = served.get("/kit/wide.jpg?warm=1&widths=100,200&formats=webp").json()
    assert served.metric("pixelmill_downloads_total", source="stored", outcome="complete") <= 2
    for srcset in (kit["sources"][0]["srcset"], kit["img"]["srcset"]):
        for url in urls(srcset):
            assert "pixelmill-memory; hit" in served.get(url).headers["cache-status"]


def test_the_urls_are_signed_where_signatures_are_needed(serve, wide):
    served = serve(keys=KEY, require_signature="all", api_tokens=TOKEN)
    assert served.get("/kit/wide.jpg").status_code == 403
    mine = {"authorization": f"Bearer {TOKEN}"}
    answer = served.get("/kit/wide.jpg?ttl=60&widths=100", headers=mine)
    assert answer.headers["cache-control"].startswith("private")
    (url,) = urls(answer.json()["img"]["srcset"])
    assert "exp=" in url
    assert served.get(url).status_code == 200
    assert served.get(url.replace("w=100", "w=101")).status_code == 403


@pytest.mark.parametrize("ttl", ["", "&ttl=9000"])
def test_the_urls_hold_no_longer_than_what_the_kit_was_signed_for(serve, wide, ttl):
    served = serve(keys=KEY, require_signature="all")
    expires = int(time.time()) + 60
    signer = Signer({"k1": b"a-secret-of-enough-letters"})
    url = signer.sign(f"/kit/wide.jpg?widths=100{ttl}", expires=expires)
    answer = served.get(url)
    assert answer.status_code == 200, answer.text
    kit = answer.json()
    for source in (kit["img"], *kit["sources"]):
        for thumb in urls(source["srcset"]):
            assert f"exp={expires}" in thumb
            assert served.get(thumb).status_code == 200
    sooner = signer.sign("/kit/wide.jpg?widths=100&ttl=9", expires=expires)
    (thumb,) = urls(served.get(sooner).json()["img"]["srcset"])
    assert int(re.search(r"exp=(\d+)", thumb)[1]) < expires


def test_an_animation_has_webp_and_gif(serve, folder):
    strip = draw.opened(draw.png(draw.grain(30, 60)))[:3].copy()
    strip.set_type(draw.MetadataType.INTEGER, "page-height", 20)
    folder.put("moving.gif", bytes(strip.gifsave_buffer()))
    kit = serve().get("/kit/moving.gif").json()
    assert [source["type"] for source in kit["sources"]] == ["image/webp"]
    assert "fm=gif" in kit["img"]["src"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("widths=0", "widths"),
        ("widths=1,x", "widths"),
        ("widths=", "widths"),
        ("formats=bmp", "formats"),
        ("ttl=0", "ttl"),
        ("sizes=" + "x" * 501, "sizes"),
        ("trim", "trim"),
        ("w=0", "w"),
        ("alt=a&alt=b", "alt"),
    ],
)
def test_what_is_wrong_is_named(serve, wide, query, param):
    answer = serve().get(f"/kit/wide.jpg?{query}")
    assert (answer.status_code, answer.json()["param"]) == (400, param)


def test_a_preset_stays_a_preset(serve, wide, tmp_path):
    presets = tmp_path / "presets.toml"
    presets.write_text('[card]\nw = 400\nh = 200\nfit = "cover"\nq = 40\nvary = ["w", "h", "fm"]\n')
    served = serve(presets=str(presets), only_presets=True)
    kit = served.get("/kit/wide.jpg?preset=card&widths=100,200&formats=webp").json()
    for url, width in urls(kit["img"]["srcset"]).items():
        assert "preset=card" in url
        answer = served.get(url)
        assert answer.status_code == 200, answer.text
        assert draw.opened(answer.content).width == width


def test_explain_tells_and_renders_nothing(serve, wide):
    served = serve()
    query = "w=200&h=200&fit=cover&gravity=east&q=60&padding=5"
    told = served.get(f"/thumb/wide.jpg?{query}&explain=1").json()
    assert served.metric("pixelmill_renders_total") == 0
    assert told["transform"]["w"] == "200"
    assert told["plan"]["scaled"] == {"width": 400, "height": 200}
    assert told["plan"]["window"] == {"left": 200, "top": 0, "width": 200, "height": 200}
    assert told["plan"]["result"] == {"width": 210, "height": 210}
    assert told["cost"]["seconds"] > 0
    assert told["limits"]["result_side"] == 8192
    rendered = served.get(f"/thumb/wide.jpg?{query}")
    assert rendered.headers["etag"] == f'"{told["key"]}"'
    accepted = served.get(f"/thumb/wide.jpg?{query}&explain=1", headers={"accept": "image/webp"})
    assert accepted.json()["format"] == {"fm": "webp", "reason": "Accept names it"}
    assert served.get("/thumb/wide.jpg?w=0&explain=1").status_code == 400


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("preset=logo", "the preset names it"),
        ("preset=card&fm=png", "fm names it"),
        ("preset=card&format=png", "fm names it"),
        ("preset=card", "Accept names it"),
    ],
)
def test_explain_tells_who_has_named_the_format(serve, wide, tmp_path, query, reason):
    presets = tmp_path / "presets.toml"
    presets.write_text('[card]\nw = 40\n[logo]\nfm = "png"\n')
    served = serve(presets=str(presets))
    headers = {"accept": "image/webp"}
    told = served.get(f"/thumb/wide.jpg?{query}&explain=1", headers=headers).json()
    assert told["format"]["reason"] == reason
    assert (
        served.get(f"/thumb/wide.jpg?{query}", headers=headers)
        .headers["content-type"]
        .endswith(told["format"]["fm"])
    )


def test_explain_tells_what_a_render_is_refused_for(serve, wide):
    served = serve(render_timeout=1)
    query = "w=1000&fm=avif&effort=9"
    told = served.get(f"/thumb/wide.jpg?{query}&explain=1").json()
    problem = served.get(f"/thumb/wide.jpg?{query}")
    assert problem.status_code == 400
    refused = {name: problem.json()[name] for name in ("param", "detail")}
    assert told["refused"] == refused
    assert refused["param"] == "effort"
    assert served.get("/thumb/wide.jpg?w=100&explain=1").json()["refused"] is None
    kit = served.get("/kit/wide.jpg?effort=9&widths=100,1000").json()
    avif = [source for source in kit["sources"] if source["type"] == "image/avif"]
    assert [width for source in avif for width in urls(source["srcset"]).values()] == [100]


def test_explain_says_that_trim_may_change_sizes(serve, wide):
    told = serve().get("/thumb/wide.jpg?w=100&trim&explain=1").json()
    assert told["note"].startswith("sizes may change")
