"""Presets and ladders over HTTP: what a page may ask for where its service says so."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.signing import Signer
from tests.http import originals as draw

SHOP = """
[card]
w = 40
h = 30
fit = "cover"
fm = "png"

[avatar]
extends = "card"
w = 24
h = 24
vary = ["dpr"]
"""


@pytest.fixture
def shop(serve, folder, tmp_path):
    def start(**options):
        path = tmp_path / "presets.toml"
        path.write_text(SHOP)
        return serve(presets=str(path), **options)

    return start


def size_of(answer):
    assert answer.status_code == 200, answer.text
    image = draw.opened(answer.content)
    return image.width, image.height


def refusal_of(answer):
    assert answer.status_code == 400, answer.status_code
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_parameter"
    return problem["param"], problem["detail"]


def test_a_preset_is_the_same_result_as_what_it_stands_for(shop):
    served = shop()
    by_name = served.get("/thumb/cat.jpg?preset=card&dpr=2")
    assert size_of(by_name) == (80, 60)
    spelt_out = served.get("/thumb/cat.jpg?w=80&h=60&fit=cover&fm=png")
    assert spelt_out.headers["etag"] == by_name.headers["etag"]
    assert spelt_out.headers["cache-status"].endswith("hit")
    again = served.get("/thumb/cat.jpg?preset=card&dpr=2")
    assert again.headers["cache-status"] == "pixelmill-memory; hit"
    assert again.content == by_name.content


def test_a_preset_that_changes_gives_another_result_to_the_same_url(shop, serve, tmp_path):
    url = "/thumb/cat.jpg?preset=card"
    before = shop().get(url)
    changed = tmp_path / "changed.toml"
    changed.write_text(SHOP.replace("w = 40", "w = 50"))
    after = serve(presets=str(changed)).get(url, headers={"if-none-match": before.headers["etag"]})
    assert size_of(after) == (50, 30)
    regrouped = tmp_path / "regrouped.toml"
    regrouped.write_text("[base]\nw = 40" + SHOP.replace("w = 40", "extends = 'base'"))
    same = serve(presets=str(regrouped)).get(url)
    assert same.headers["etag"] == before.headers["etag"]


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        ("preset=avatar&w=25", "w", "w is fixed by the preset avatar"),
        ("preset=avatar&quality=9", "q", "q cannot be given with the preset avatar"),
        ("preset=cart", "preset", "did you mean card?"),
        ("preset=card&preset=card", "preset", "given twice"),
        ("preset=card&w=0", "w", "w must be 1 to 8192, got 0"),
    ],
)
def test_what_a_preset_does_not_let_is_a_400_that_names_it(shop, query, param, message):
    found = refusal_of(shop().get(f"/thumb/cat.jpg?{query}"))
    assert found[0] == param
    assert message in found[1]


def test_what_no_preset_knows_still_does_not_matter(shop):
    assert size_of(shop().get("/thumb/cat.jpg?preset=avatar&utm_source=x&v=3")) == (24, 24)


def test_with_only_presets_nothing_else_is_rendered(shop):
    served = shop(only_presets=True)
    assert size_of(served.get("/thumb/cat.jpg?preset=avatar")) == (24, 24)
    for query in ("", "?w=24&h=24"):
        param, detail = refusal_of(served.get(f"/thumb/cat.jpg{query}"))
        assert param == "preset"
        assert "avatar, card" in detail
    # Whoever may write is not held.
    assert served.client.post("/transform?w=9&fm=png", content=draw.jpeg()).status_code == 200
    assert served.get("/images/cat.jpg").status_code == 200


def test_only_presets_needs_some(serve):
    with pytest.raises(ValidationError, match="PIXELMILL_PRESETS"):
        serve(only_presets=True)


def test_a_signature_is_of_the_url_as_it_is_written(shop):
    served = shop(keys=("k:0123456789abcdef",), require_signature="all")
    signed = Signer({"k": b"0123456789abcdef"}).sign("/thumb/cat.jpg?preset=avatar")
    assert size_of(served.get(signed)) == (24, 24)
    assert served.get("/thumb/cat.jpg?preset=avatar").status_code == 403
    assert served.get(f"{signed}&dpr=2").status_code == 403


def test_an_upload_may_use_a_preset(shop):
    answer = shop().client.post("/transform?preset=card", content=draw.jpeg())
    assert size_of(answer) == (40, 30)


def test_the_presets_are_listed(shop, serve):
    listed = shop().get("/presets").json()["presets"]
    assert list(listed) == ["avatar", "card"]
    assert listed["avatar"]["vary"] == ["dpr"]
    assert listed["avatar"]["parameters"]["w"] == "24"
    assert serve().get("/presets").json() == {"presets": {}}


def test_a_file_with_a_mistake_stops_the_start_with_one_line(serve, tmp_path):
    path = tmp_path / "presets.toml"
    path.write_text("[card]\nwidht = 9")
    with pytest.raises(ValidationError, match=r"presets\.toml: card: widht .* width\?"):
        serve(presets=str(path))


def test_sizes_off_the_ladder_take_its_next_step(serve, folder):
    served = serve(allowed_widths=(50, 100), sizes="snap")
    first = served.get("/thumb/cat.jpg?w=60&h=30&fit=cover&fm=png")
    assert size_of(first) == (100, 50)
    same = served.get("/thumb/cat.jpg?w=40&dpr=2.5&h=20&fit=cover&fm=png")
    assert same.headers["etag"] == first.headers["etag"]
    assert size_of(served.get("/thumb/cat.jpg?w=4000&fm=png")) == (100, 50)


def test_or_they_are_refused(serve, folder):
    served = serve(allowed_widths=(50, 100), allowed_heights=(25,))
    assert size_of(served.get("/thumb/cat.jpg?w=25&dpr=2")) == (50, 25)
    assert refusal_of(served.get("/thumb/cat.jpg?w=60")) == (
        "w",
        "w times dpr must be an allowed size, got 60; the nearest: 50 or 100",
    )
    assert refusal_of(served.get("/thumb/cat.jpg?w=50&h=26"))[0] == "h"
    # Nothing of an upload is kept, and whoever may write is not held.
    answer = served.client.post("/transform?w=60&fm=png", content=draw.jpeg())
    assert size_of(answer) == (60, 30)


def test_a_presets_own_sizes_need_no_step_on_the_ladder(shop):
    served = shop(allowed_widths=(100,), allowed_heights=(100,))
    assert size_of(served.get("/thumb/cat.jpg?preset=card")) == (40, 30)
    assert size_of(served.get("/thumb/cat.jpg?preset=card&dpr=2")) == (80, 60)
    assert refusal_of(served.get("/thumb/cat.jpg?preset=card&dpr=2.2"))[0] == "w"
    assert refusal_of(served.get("/thumb/cat.jpg?w=40"))[0] == "w"
