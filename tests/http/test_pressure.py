"""Effort under pressure: where many wait, encoders work less hard, and that can be told."""

from __future__ import annotations

import pytest

from app.pressure import ease
from tests.http import originals as draw
from transforms import pipeline
from transforms.cost import estimate_all
from transforms.limits import Limits
from transforms.transform import Transform

AVIF = "/thumb/heavy.jpg?w=400&fm=avif"


@pytest.fixture(scope="module")
def heavy():
    return draw.jpeg(draw.grain(1000, 800))


@pytest.fixture(scope="module")
def wide():
    """What takes a minute to encode with all effort: nobody waits for that here."""
    return draw.png(draw.flat(draw.RED, 3000, 2000))


@pytest.fixture
def pressed(serve, folder, call, until, gate, heavy, wide):
    """A service whose processor is taken, so that whoever comes waits for more than half the time.

    Let go, it answers.
    """

    def start(**options):
        folder.put("heavy.jpg", heavy)
        folder.put("wide.png", wide)
        times = {"queue_interactive": "100s", "queue_api": "100s", "render_timeout": "1h"}
        served = serve(workers=1, **{**times, **options})
        admission = served.app.api.state.service.admission
        busy = call(served).send("/thumb/wide.png?w=3000&fm=avif&effort=9")
        until(lambda: admission.running == 1)

        def answer(path, **sent):
            asked = call(served).send(path, **sent)
            until(lambda: admission.queued == 1)
            busy.leave()
            gate.set()
            return asked.read()

        return served, answer

    return start


def test_what_is_made_under_pressure_is_told_apart_and_not_kept(pressed, tmp_path):
    results = tmp_path / "results"
    served, answer = pressed(results=f"file:{results}")
    reduced = answer(AVIF)
    assert reduced.status == 200
    assert draw.opened(reduced.body).width == 400
    assert 'desc="effort 0 under pressure"' in reduced.headers["server-timing"]
    assert reduced.headers["etag"].endswith('-reduced"')
    assert reduced.headers["cache-control"] == "public, max-age=60, stale-if-error=604800"
    assert "last-modified" not in reduced.headers

    usual = served.get(f"{AVIF}&v=1", headers={"if-none-match": reduced.headers["etag"]})
    assert usual.status_code == 200
    assert usual.content != reduced.body
    assert reduced.headers["etag"] == usual.headers["etag"][:-1] + '-reduced"'
    assert "immutable" in usual.headers["cache-control"]
    assert "under pressure" not in usual.headers["server-timing"]
    assert usual.headers["cache-status"].startswith("pixelmill-stored; fwd=miss")
    again = served.get(AVIF)
    assert again.headers["cache-status"] == "pixelmill-memory; hit"
    assert again.content == usual.content
    assert served.get(AVIF, headers={"if-none-match": usual.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (AVIF, {"pressure_effort": "off"}),
        (AVIF, {"queue_interactive": "1h"}),  # nobody waits for long
        (f"{AVIF}&effort=1", {}),  # it was asked for
        ("/thumb/cat.jpg?w=60&fm=jpeg", {}),  # it would save next to nothing
    ],
)
def test_effort_stays_where_it_is_to(pressed, path, options):
    _, answer = pressed(results="off", **options)
    usual = answer(path)
    assert usual.status == 200
    assert "under pressure" not in usual.headers["server-timing"]
    assert "reduced" not in usual.headers["etag"]
    assert "last-modified" in usual.headers


def test_whoever_posts_gets_what_was_asked_for(pressed, heavy):
    _, answer = pressed(results="off")
    posted = answer(
        "/transform?w=400&fm=avif",
        method="POST",
        headers=[("content-length", str(len(heavy)))],
        body=heavy,
    )
    assert posted.status == 200
    assert "under pressure" not in posted.headers["server-timing"]


@pytest.mark.parametrize(
    ("query", "eased"),
    [
        ("w=400&fm=avif", True),
        ("w=400&fm=avif&q=auto", True),
        ("w=400&fm=avif&effort=4", False),
        ("w=40&fm=avif", False),  # nearly all of it is decoding
        ("w=400&fm=jpeg", False),
    ],
)
def test_only_what_saves_a_third_is_eased(heavy, query, eased):
    works = [pipeline.prepare(heavy, Transform.from_query(query), Limits())]
    cost = estimate_all(works)
    found, less = ease(works, cost, effort=0)
    assert (found[0].transform.effort == 0) is eased
    assert (less.seconds <= cost.seconds * 2 / 3) is eased
