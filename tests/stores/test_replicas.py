"""Several replicas on one store of results: what one purges or renders, all of them know."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app import purges
from app.errors import SourceFailed
from tests.http import originals as draw
from tests.s3server import S3Server
from tests.serving import Served, serving
from tests.sources.origin import Origin, answer, jpeg, running_origin, stall, validated
from tests.stores.gate import State, gate
from tests.stores.test_end_to_end import picture, put, until

PRESETS = "[card]\nw = 40\nh = 30\n[other]\nw = 50\n"


class Site:
    """A folder of originals and one of results, and the replicas on them."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.originals = path / "originals"
        self.results = path / "results"
        self.originals.mkdir()
        self._presets = path / "presets.toml"
        self._presets.write_text(PRESETS)
        self._stack = stack

    def start(self, **options: Any) -> Served:
        return self._stack.enter_context(
            serving(
                **{
                    "originals": f"file:{self.originals}",
                    "results": f"file:{self.results}",
                    "presets": str(self._presets),
                    "purge_poll": 0.1,
                    "queue_interactive": 20,
                    **options,
                }
            )
        )

    def put(self, name: str, data: bytes | None = None) -> None:
        draw.put(self.originals, name, data or draw.jpeg())

    def claims(self) -> list[Path]:
        """The claims on renders that are held."""
        return [path for path in self._files() if path.parent.name == "claims"]

    def _files(self) -> list[Path]:
        # Folders may be removed while they are walked through.
        return [Path(folder, name) for folder, _, names in os.walk(self.results) for name in names]

    def stored(self) -> list[str]:
        """The results in the store, without what is noted beside them."""
        return [
            str(path.relative_to(self.results))
            for path in sorted(self._files())
            if len(path.stem) == 32 and path.suffix
        ]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def tier(answer) -> str:
    """Which tier answered: memory, stored or render; and whether what it had was stale."""
    status = answer.headers["cache-status"]
    found = "memory" if "memory; hit" in status else "stored" if "; hit" in status else "render"
    return f"stale {found}" if "detail=stale" in status else found


def ask(served: Served, path: str, **headers: str):
    answer = served.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def purge(served: Served, **body: Any):
    answer = served.client.post("/purge", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_purge_of_an_id_takes_every_result_from_every_tier_of_every_replica(site):
    site.put("cat.jpg")
    site.put("dog.jpg")
    replicas = [site.start(), site.start(), site.start()]
    widths = (10, 20, 30)
    for served in replicas:
        for width in widths:
            ask(served, f"/thumb/cat.jpg?w={width}")
        ask(served, "/thumb/dog.jpg?w=10")
    until(lambda: len(site.stored()) == 4)
    assert all(tier(ask(r, f"/thumb/cat.jpg?w={w}")) == "memory" for r in replicas for w in widths)

    told = purge(replicas[0], ids=["cat.jpg"])
    assert told["tags"] == ["id-cat.jpg"]
    assert told["removed"] >= 3
    assert len(site.stored()) == 1
    # On the others within two seconds; without what one of them has rendered anew meanwhile.
    gone = lambda: all(len(r.app.api.state.service.memory_tier) == 1 for r in replicas)  # noqa: E731
    began = time.monotonic()
    until(gone)
    assert time.monotonic() - began < 2
    assert tier(ask(replicas[1], "/thumb/cat.jpg?w=10")) == "render"
    assert tier(ask(replicas[1], "/thumb/dog.jpg?w=10")) == "memory"
    assert replicas[2].metric("pixelmill_purges_total", origin="elsewhere", subject="id") == 1


def test_a_replaced_original_shows_on_the_other_replicas_at_once(site):
    here, there = site.start(), site.start()
    put(here, "cat.jpg", picture(1))
    first = ask(there, "/thumb/cat.jpg?w=50")
    assert put(here, "cat.jpg", picture(2)).status_code == 200
    until(lambda: ask(there, "/thumb/cat.jpg?w=50").content != first.content)
    here.client.delete("/images/cat.jpg")
    until(lambda: there.get("/thumb/cat.jpg?w=50").status_code == 404)


def test_what_is_purged_while_another_replica_renders_it_does_not_come_back(site):
    site.put("cat.jpg", draw.jpeg(draw.grain(1200, 900)))
    here, there = site.start(), site.start(purge_poll=0.3)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, there, "/thumb/cat.jpg?w=500&fm=avif")
        until(lambda: there.metric("pixelmill_renders_running") == 1)
        purge(here, ids=["cat.jpg"])
        asked.result()
    until(lambda: there.metric("pixelmill_purges_total", origin="elsewhere") == 1)
    until(lambda: not site.stored())
    assert len(there.app.api.state.service.memory_tier) == 0


def test_a_purge_takes_the_results_that_an_original_is_a_part_of(site):
    site.put("cat.jpg")
    site.put("logo.png", draw.png(draw.ring()))
    here, there = site.start(), site.start()
    plain, marked = "/thumb/cat.jpg?w=60", "/thumb/cat.jpg?w=60&watermark=logo.png"
    for served in (here, there):
        ask(served, plain)
        ask(served, marked)
    until(lambda: len(site.stored()) == 2)
    purge(here, ids=["logo.png"])
    assert tier(ask(here, plain)) == "memory"
    assert tier(ask(here, marked)) == "render"
    until(lambda: len(there.app.api.state.service.memory_tier) == 1)
    # What was stored of it before counts no more, there and for whoever begins later.
    until(lambda: tier(ask(there, marked)) in ("render", "stored", "memory"))
    assert tier(ask(site.start(), plain)) == "stored"


def test_a_soft_purge_answers_what_there_was_until_it_is_made_anew(site):
    site.put("cat.jpg")
    here, there = site.start(), site.start()
    before = ask(here, "/thumb/cat.jpg?w=40").content
    until(site.stored)
    purge(here, ids=["cat.jpg"], soft=True)
    answer = ask(here, "/thumb/cat.jpg?w=40")
    assert (tier(answer), answer.content) == ("stale stored", before)
    assert "max-age=10" in answer.headers["cache-control"]
    until(lambda: tier(ask(here, "/thumb/cat.jpg?w=40")) == "memory")
    assert here.metric("pixelmill_renders_total") == 2
    # A replica that begins later takes what was made anew for what it is.
    until(lambda: tier(ask(site.start(), "/thumb/cat.jpg?w=40")) == "stored")
    until(lambda: tier(ask(there, "/thumb/cat.jpg?w=40")) in ("stored", "memory"))


def test_a_soft_purge_is_known_to_a_replica_that_begins_after_it(site):
    site.put("cat.jpg")
    here = site.start()
    ask(here, "/thumb/cat.jpg?w=40")
    until(site.stored)
    purge(here, ids=["cat.jpg"], soft=True)
    late = site.start()
    time.sleep(0.3)  # it reads what was purged while nobody asks
    assert tier(ask(late, "/thumb/cat.jpg?w=40")) == "stale stored"


def test_a_soft_purge_does_not_bring_back_what_was_purged_for_good(site):
    site.put("shop/cat.jpg")
    site.put("shop/dog.jpg")
    here = site.start()
    for name in ("cat", "dog"):
        ask(here, f"/thumb/shop/{name}.jpg?w=20")
    until(lambda: len(site.stored()) == 2)
    purge(here, prefixes=["shop/"])
    purge(here, prefixes=["shop/"], soft=True)
    assert tier(ask(here, "/thumb/shop/cat.jpg?w=20")) == "render"
    # The same for one that begins after both.
    assert tier(ask(site.start(), "/thumb/shop/dog.jpg?w=20")) == "render"


def test_a_note_that_cannot_be_read_does_not_hide_the_others(site, monkeypatch):
    for name in ("cat", "dog"):
        site.put(f"{name}.jpg")
    here, there = site.start(), site.start(purge_poll=0.3)
    for name in ("cat", "dog"):
        ask(there, f"/thumb/{name}.jpg?w=20")
    read, failures = purges._read, []

    async def failing(store, key):
        if "/log/" in key and len(failures) < 2:
            failures.append(key)
            raise SourceFailed("no")
        return await read(store, key)

    monkeypatch.setattr(purges, "_read", failing)
    purge(here, ids=["cat.jpg"])
    purge(here, ids=["dog.jpg"])
    until(lambda: len(there.app.api.state.service.memory_tier) == 0)
    assert failures


def test_a_job_does_not_pass_on_what_is_stale(site, tmp_path):
    site.put("cat.jpg")
    served = site.start(database=f"sqlite:///{tmp_path / 'jobs.db'}")
    first = ask(served, "/thumb/cat.jpg?w=40&fm=webp")
    until(site.stored)
    draw.put(site.originals, "cat.jpg", draw.jpeg(draw.flat(draw.RED)))
    purge(served, ids=["cat.jpg"], soft=True)
    job = {
        "source": "cat.jpg",
        "outputs": [{"transform": {"w": 40, "fm": "webp"}, "target": "made/cat.webp"}],
    }
    assert served.client.post("/jobs", json=job).status_code == 202
    made = site.originals / "made" / "cat.webp"
    until(made.exists)
    assert made.read_bytes() != first.content


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_of_a_prefix_and_of_a_preset_reaches_what_is_stored(site, soft):
    for name in ("shop/cat.jpg", "blog/cat.jpg"):
        site.put(name)
    here, there = site.start(), site.start()
    paths = {
        "prefix": "/thumb/shop/cat.jpg?w=20",
        "preset": "/thumb/blog/cat.jpg?preset=card",
        "none": "/thumb/blog/cat.jpg?preset=other",
    }
    for served in (here, there):
        for path in paths.values():
            ask(served, path)
    until(lambda: len(site.stored()) == 3)
    told = purge(here, prefixes=["shop/"], presets=["card"], soft=soft)
    assert told["tags"] == ["prefix-shop%2F", "preset-card"]
    memory = there.app.api.state.service.memory_tier
    until(lambda: len(memory) - len(memory._expired) == 1)
    expected = "stale stored" if soft else "render"
    for served in (there, here):
        assert tier(ask(served, paths["none"])) == "memory"
    assert tier(ask(there, paths["prefix"])) == expected
    assert tier(ask(there, paths["preset"])) == expected
    # Made anew by one, they are good for all: those of a folder have times finer than seconds.
    until(lambda: tier(ask(there, paths["prefix"])) == "memory")
    until(lambda: tier(ask(here, paths["prefix"])) in ("stored", "memory"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "ids"),
        ({"ids": ["/x"]}, "ids[0]"),
        ({"urls": ["ftp://x"]}, "urls[0]"),
        ({"prefixes": ["a", "../b"]}, "prefixes[1]"),
        ({"presets": ["cart"]}, "presets[0]"),
        ({"ids": ["a"] * 1001}, "ids"),
        ({"ids": ["a"], "soft": "perhaps"}, "soft"),
        ({"idz": ["a"]}, "idz"),
    ],
)
def test_a_purge_that_names_nothing_or_nonsense_is_refused(site, body, param):
    answer = site.start().client.post("/purge", json=body)
    assert (answer.status_code, answer.json()["param"]) == (400, param)


def test_a_purge_needs_a_token_for_administration(site):
    served = site.start(api_tokens="a-secret-of-16-and-more@images:write")
    assert served.client.post("/purge", json={"ids": ["a"]}).status_code == 401
    token = {"authorization": "Bearer a-secret-of-16-and-more"}
    assert served.client.post("/purge", json={"ids": ["a"]}, headers=token).status_code == 403


def test_a_page_of_another_site_purges_nothing_in_a_browser_beside_the_service(site):
    served = site.start()
    post = served.client.post
    body = {"ids": ["a"]}
    assert post("/purge", json=body, headers={"origin": "https://evil.example"}).status_code == 401
    for odd in ("null", "http://[", "http://[::1", "://"):
        assert post("/purge", json=body, headers={"origin": odd}).status_code == 401
    assert post("/purge", json=body, headers={"origin": served.url}).status_code == 200


def test_an_origin_that_refuses_ends_what_is_stale_and_one_that_is_busy_does_not(site, web):
    url = web.serve("/cat.jpg", answer(jpeg()))
    served = site.start(**OPEN, freshness=0)
    path = f"/thumb?url={url}&w=20"
    ask(served, path)
    web.serve("/cat.jpg", answer(b"", status=429))
    assert tier(ask(served, path)) == "stale memory"
    web.serve("/cat.jpg", answer(b"", status=403))
    until(lambda: served.get(path).status_code == 502)


def test_tags_name_originals_folders_and_presets(site):
    site.put("shop/a, b.jpg")
    site.put("logo.png", draw.png(draw.ring()))
    served = site.start(cache_tags="Cache-Groups,Surrogate-Key,Cache-Tag")
    answer = ask(served, "/thumb/shop/a, b.jpg?preset=card&watermark=logo.png")
    tags = ["id-shop%2Fa%2C%20b.jpg", "id-logo.png", "preset-card", "prefix-shop%2F"]
    assert answer.headers["surrogate-key"] == " ".join(tags)
    assert answer.headers["cache-tag"] == ",".join(tags)
    assert answer.headers["cache-groups"] == ", ".join(f'"{tag}"' for tag in tags)
    hit = ask(served, "/thumb/shop/a, b.jpg?preset=card&watermark=logo.png")
    assert (tier(hit), hit.headers["cache-tag"]) == ("memory", ",".join(tags))


# --- claims -----------------------------------------------------------------------------------


def renders(*replicas: Served) -> float:
    return sum(served.metric("pixelmill_renders_total") for served in replicas)


def test_equal_misses_on_all_replicas_are_rendered_once_where_that_is_dear(site):
    site.put("cat.jpg", draw.jpeg(draw.grain(800, 600)))
    replicas = [site.start(claim_from=0) for _ in range(3)]
    path = "/thumb/cat.jpg?w=400&fm=avif"
    with ThreadPoolExecutor(36) as threads:
        asked = [threads.submit(ask, served, path) for served in replicas for _ in range(12)]
        answers = [each.result() for each in asked]
    assert len({answer.content for answer in answers}) == 1
    assert renders(*replicas) == 1
    until(lambda: len(site.stored()) == 1)
    until(lambda: not site.claims())


def test_a_claim_whose_owner_is_gone_holds_nobody_up_for_long(site):
    site.put("cat.jpg")
    served = site.start(claim_from=0)
    ask(served, "/thumb/cat.jpg?w=20")
    until(site.stored)
    key = Path(site.stored()[0])
    purge(served, ids=["cat.jpg"])
    left = site.results / key.parent / "claims" / key.stem
    left.parent.mkdir(parents=True)
    left.write_text("-")
    began = time.monotonic()
    assert tier(ask(served, "/thumb/cat.jpg?w=20")) == "render"
    assert 1.9 < time.monotonic() - began < 9
    until(lambda: not left.exists())


def test_what_fails_gives_its_claim_up(site):
    site.put("cat.jpg", draw.jpeg()[:900])
    served = site.start(claim_from=0)
    assert served.get("/thumb/cat.jpg?w=20").status_code == 422
    until(lambda: not site.claims())


# --- what is missing or broken ----------------------------------------------------------------


def test_what_is_broken_is_not_decoded_again_at_once(site):
    site.put("cat.jpg", draw.jpeg()[:900])
    served = site.start()
    first = served.get("/thumb/cat.jpg?w=20")
    assert first.status_code == 422
    fetched = served.metric("pixelmill_downloads_total")
    again = served.get("/thumb/cat.jpg?w=20")
    assert (again.status_code, again.json()["detail"]) == (422, first.json()["detail"])
    assert served.metric("pixelmill_downloads_total") == fetched
    site.put("cat.jpg")
    put(served, "cat.jpg", picture(3))
    assert served.get("/thumb/cat.jpg?w=20").status_code == 200


def test_what_is_missing_is_asked_for_once_and_again_after_an_upload(site, web):
    url = web.serve("/gone.jpg", answer(b"", status=404))
    served = site.start(**OPEN)
    for _ in range(3):
        assert served.get(f"/thumb?url={url}&w=9").status_code == 404
    assert web.count("/gone.jpg") == 1
    assert served.get("/thumb/new.jpg?w=9").status_code == 404
    put(served, "new.jpg", picture())
    assert served.get("/thumb/new.jpg?w=9").status_code == 200


# --- sources that fail ------------------------------------------------------------------------

OPEN = {"allowed_sources": "*:*", "allow_private_networks": True}


@pytest.fixture
def web() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


def test_an_origin_that_fails_leaves_its_results_stale_on_every_replica(site, web):
    url = web.serve("/cat.jpg", validated(jpeg(), etag='"1"'))
    here = site.start(**OPEN, freshness=0)
    path = f"/thumb?url={url}&w=20"
    first = ask(here, path)
    until(site.stored)
    until(lambda: list(site.results.rglob("original.json")))
    web.serve("/cat.jpg", answer(b"", status=500))
    assert tier(ask(here, path)) == "stale memory"
    # One that knows nothing has what the first one knew.
    late = ask(site.start(**OPEN), path)
    assert (tier(late), late.content) == ("stale stored", first.content)
    assert late.headers["etag"] == first.headers["etag"]
    # What there is no result of cannot be had.
    assert here.get(f"/thumb?url={url}&w=21").status_code == 502
    web.serve("/cat.jpg", validated(jpeg(seed=2), etag='"2"'))
    until(lambda: ask(here, path).content != first.content)


def test_a_replica_that_knows_nothing_of_a_url_asks_for_changes_only(site, web):
    url = web.serve("/cat.jpg", validated(jpeg(), etag='"1"'))
    path = f"/thumb?url={url}&w=20"
    ask(site.start(**OPEN), path)
    until(lambda: list(site.results.rglob("original.json")))
    until(site.stored)
    assert tier(ask(site.start(**OPEN), path)) == "stored"
    assert [asked.headers.get("if-none-match") for asked in web.asked] == [None, '"1"']


def test_an_origin_that_is_slow_is_not_waited_for_where_there_is_a_result(site, web):
    url = web.serve("/cat.jpg", answer(jpeg()))
    served = site.start(**OPEN, freshness=0, stale_patience=0.2)
    path = f"/thumb?url={url}&w=20"
    ask(served, path)
    web.serve("/cat.jpg", stall())
    began = time.monotonic()
    assert tier(ask(served, path)) == "stale memory"
    assert time.monotonic() - began < 5


def test_a_result_is_answered_while_its_version_is_asked_for(site, web):
    url = web.serve("/cat.jpg", answer(jpeg()))
    served = site.start(**OPEN, freshness=0, stale_while_revalidate=60, stale_patience=30)
    path = f"/thumb?url={url}&w=20"
    first = ask(served, path)
    web.serve("/cat.jpg", answer(jpeg(seed=2)))
    assert ask(served, path).content == first.content
    until(lambda: ask(served, path).content != first.content)


@pytest.mark.s3
def test_a_bucket_that_is_away_costs_misses_and_nothing_else(
    s3_environment: S3Server, prefix, monkeypatch
):
    with ExitStack() as stack:
        way = stack.enter_context(gate(int(s3_environment.endpoint.rpartition(":")[2])))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{way.port}")
        bucket = f"s3://{s3_environment.bucket}/{prefix}"
        served = stack.enter_context(
            serving(
                originals=f"{bucket}/originals",
                results=f"{bucket}/results",
                freshness=0,
                stale_patience=0.3,
                s3_connect_timeout=0.5,
                s3_read_timeout=0.5,
                s3_attempts=1,
            )
        )
        put(served, "cat.jpg", picture())
        put(served, "dog.jpg", picture(2))
        path = "/thumb/cat.jpg?w=50"
        ask(served, path)
        for state in (State.CLOSED, State.SILENT):
            way.state = state
            answers = [ask(served, path) for _ in range(3)]
            assert {tier(each) for each in answers} == {"stale memory"}
            missed = served.get("/thumb/cat.jpg?w=51")
            assert missed.status_code in (502, 504)
            assert missed.headers["cache-control"] == "no-store"
            assert int(missed.headers["retry-after"]) > 0
            assert served.get("/thumb/dog.jpg?w=51").status_code in (502, 504)
            assert served.metric("pixelmill_renders_running") == 0
            assert served.get("/readyz").status_code == 200
        way.state = State.OPEN
        until(lambda: served.get("/thumb/dog.jpg?w=51").status_code == 200)
        until(lambda: tier(ask(served, path)) == "memory")


@pytest.mark.s3
def test_a_purge_reaches_results_in_a_bucket_and_the_memory_of_all(
    s3_environment: S3Server, bucket, prefix
):
    with ExitStack() as stack:
        places = {
            "originals": f"s3://{bucket.name}/{prefix}/originals",
            "results": f"s3://{bucket.name}/{prefix}/results",
        }
        replicas = [stack.enter_context(serving(**places)) for _ in range(3)]
        put(replicas[0], "cat.jpg", picture())
        for served in replicas:
            for width in (10, 20):
                ask(served, f"/thumb/cat.jpg?w={width}")

        def stored() -> list[str]:
            return [k for k in bucket.keys(f"{prefix}/results/") if k.endswith(".img")]

        until(lambda: len(stored()) == 2)
        began = time.monotonic()
        purge(replicas[1], ids=["cat.jpg"])
        until(lambda: all(len(r.app.api.state.service.memory_tier) == 0 for r in replicas))
        assert time.monotonic() - began < 2
        assert not stored()
        assert tier(ask(replicas[2], "/thumb/cat.jpg?w=10")) == "render"
