"""The service on a real bucket: what clients see, and what lies in the bucket afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from app.cache import Rendered
from app.results import StoredTier, prefix_of
from app.settings import Settings
from app.sources.base import Ref
from app.stores.opening import StoreFound, probe_stores
from tests.s3server import S3Server
from tests.serving import Served, serving
from tests.sources.origin import running_origin, stall
from tests.stores.conftest import Bucket
from tests.stores.test_contract import ODD_KEYS
from transforms.formats import FORMATS
from transforms.libvips import Image

pytestmark = pytest.mark.s3


def picture(seed: int = 1, extension: str = ".jpg") -> bytes:
    noise = Image.gaussnoise(320, 200, mean=128, sigma=30, seed=seed).cast("uchar")
    return noise.write_to_buffer(extension)


@dataclass
class Site:
    """The bucket of a test and the services on it."""

    bucket: Bucket
    prefix: str
    start: Callable[..., Served]

    @property
    def originals(self) -> list[str]:
        """The ids in the bucket."""
        return self._under("originals")

    @property
    def results(self) -> list[str]:
        """The keys of the results in the bucket."""
        return [key for key in self._under("results") if not key.startswith(".pixelmill/")]

    def _under(self, place: str) -> list[str]:
        beginning = f"{self.prefix}/{place}/"
        return [key.removeprefix(beginning) for key in self.bucket.keys(beginning)]


@pytest.fixture
def site(s3_environment: S3Server, bucket: Bucket, prefix: str) -> Iterator[Site]:
    with ExitStack() as stack:

        def start(**options: Any) -> Served:
            places = {
                "originals": f"s3://{bucket.name}/{prefix}/originals",
                "results": f"s3://{bucket.name}/{prefix}/results",
                "queue_interactive": 20,
            }
            return stack.enter_context(serving(**{**places, **options}))

        yield Site(bucket, prefix, start)


def put(served: Served, key: str, data: bytes):
    return served.client.put(f"/images/{key}", content=data)


def until(holds: Callable[[], object]) -> None:
    """Wait for what happens behind the answers."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_picture_that_is_put_lies_in_the_bucket_under_its_id(site):
    served = site.start()
    data = picture()
    answer = put(served, "samples/one.jpg", data)
    assert answer.status_code == 201
    assert site.originals == ["samples/one.jpg"]
    kept, media_type = site.bucket.get(f"{site.prefix}/originals/samples/one.jpg")
    assert kept == data
    assert media_type == "image/jpeg"
    assert put(served, "samples/one.jpg", data).status_code == 200


def test_a_picture_comes_back_as_it_was_put_whole_and_in_parts(site):
    served = site.start()
    data = picture()
    put(served, "one.jpg", data)
    whole = served.get("/images/one.jpg")
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-type"] == "image/jpeg"
    part = served.get("/images/one.jpg", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, data[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
    tag = {"if-none-match": whole.headers["etag"]}
    assert served.get("/images/one.jpg", headers=tag).status_code == 304


def test_an_empty_object_that_somebody_put_into_the_bucket_is_answered(site):
    site.bucket.put(f"{site.prefix}/originals/empty", b"")
    served = site.start()
    assert served.get("/images/empty").status_code in (200, 422)
    assert served.get("/thumb/empty?w=10").status_code == 422


def test_odd_ids_go_all_the_way(site):
    served = site.start()
    data = picture()
    for key in ODD_KEYS.values():
        escaped = "".join(f"%{byte:02X}" for byte in key.encode())
        answer = put(served, escaped, data)
        assert (answer.status_code, answer.json()["id"]) == (201, key)
        assert site.originals == [key]
        assert served.get(answer.headers["location"]).content == data
        assert served.get(answer.json()["url"] + "?w=20").status_code == 200
        assert served.client.delete(f"/images/{escaped}").status_code == 204
        assert site.originals == []


def test_a_result_lies_in_the_bucket_as_a_picture(site):
    served = site.start()
    put(served, "one.jpg", picture())
    answer = served.get("/thumb/one.jpg?w=40&fm=png")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    until(lambda: site.results)
    (key,) = site.results
    assert key == f"{prefix_of(Ref('id', 'one.jpg'))}/{answer.headers['etag'].strip(chr(34))}.png"
    kept, media_type = site.bucket.get(f"{site.prefix}/results/{key}")
    assert kept == answer.content
    assert media_type == "image/png"
    assert Image.new_from_buffer(kept, "").width == 40
    until(lambda: served.metric("pixelmill_results_stored_total", outcome="stored") == 1)


def test_another_service_on_the_same_bucket_answers_without_rendering(site):
    first = site.start()
    put(first, "one.jpg", picture())
    rendered = first.get("/thumb/one.jpg?w=40&fm=webp")
    assert "stored; fwd=miss" in rendered.headers["cache-status"]
    assert first.metric("pixelmill_renders_total") == 1
    until(lambda: site.results)

    second = site.start()
    found = second.get("/thumb/one.jpg?w=40&fm=webp")
    assert found.status_code == 200
    assert found.content == rendered.content
    assert found.headers["etag"] == rendered.headers["etag"]
    assert found.headers["content-type"] == "image/webp"
    assert found.headers["last-modified"] == rendered.headers["last-modified"]
    assert "stored; hit" in found.headers["cache-status"]
    assert second.metric("pixelmill_renders_total") == 0
    assert second.metric("pixelmill_downloads_total") == 0
    assert second.metric("pixelmill_results_total", tier="stored") == 1
    again = second.get("/thumb/one.jpg?w=40&fm=webp")
    assert "memory; hit" in again.headers["cache-status"]


def test_a_service_that_starts_again_finds_what_it_had_made(site):
    with serving(
        originals=f"s3://{site.bucket.name}/{site.prefix}/originals",
        results=f"s3://{site.bucket.name}/{site.prefix}/results",
    ) as before:
        put(before, "one.jpg", picture())
        tags = [before.get(f"/thumb/one.jpg?w={w}").headers["etag"] for w in (20, 30, 40)]
    # What was still to be written is written before a service ends.
    assert len(site.results) == 3
    after = site.start()
    assert [after.get(f"/thumb/one.jpg?w={w}").headers["etag"] for w in (20, 30, 40)] == tags
    assert after.metric("pixelmill_renders_total") == 0


def test_a_result_that_is_broken_in_the_bucket_is_made_again(site):
    first = site.start()
    put(first, "one.jpg", picture())
    rendered = first.get("/thumb/one.jpg?w=40&fm=jpeg")
    until(lambda: site.results)
    site.bucket.put(f"{site.prefix}/results/{site.results[0]}", b"no picture")
    second = site.start()
    found = second.get("/thumb/one.jpg?w=40&fm=jpeg")
    assert found.status_code == 200
    assert found.content == rendered.content
    assert second.metric("pixelmill_renders_total") == 1


def test_deleting_removes_the_original_and_all_its_results_from_the_bucket(site):
    served = site.start()
    for name in ("one.jpg", "one.jpg.bak", "two.jpg"):
        put(served, name, picture())
    for w in range(20, 26):
        assert served.get(f"/thumb/one.jpg?w={w}").status_code == 200
    others = [served.get(f"/thumb/{name}?w=20") for name in ("one.jpg.bak", "two.jpg")]
    assert {answer.status_code for answer in others} == {200}
    until(lambda: len(site.results) == 8)

    assert served.client.delete("/images/one.jpg").status_code == 204
    assert site.originals == ["one.jpg.bak", "two.jpg"]
    assert len(site.results) == 2
    assert served.get("/thumb/one.jpg?w=20").status_code == 404
    assert served.get("/images/one.jpg").status_code == 404
    assert served.get("/thumb/two.jpg?w=20").status_code == 200
    assert served.client.delete("/images/one.jpg").status_code == 204


def test_deleting_at_once_leaves_no_result_that_was_still_on_its_way(site):
    served = site.start()
    for turn in range(5):
        put(served, "one.jpg", picture(turn))
        for w in range(20, 24):
            assert served.get(f"/thumb/one.jpg?w={w}").status_code == 200
        assert served.client.delete("/images/one.jpg").status_code == 204
    time.sleep(0.3)  # what was still on its way would be there by now
    assert site.originals == []
    assert site.results == []


async def test_a_purge_waits_for_a_write_that_can_no_longer_be_called_back():
    kept: dict[str, bytes] = {}

    class Late:
        """A store that has the whole request already when its client goes away."""

        async def create(self, key, data, **_):
            async def arrive():
                await asyncio.sleep(0.2)
                kept[key] = data

            await asyncio.shield(asyncio.ensure_future(arrive()))

        async def list_page(self, prefix, **_):
            return []

        async def delete_prefix(self, prefix):
            found = [key for key in kept if key.startswith(f"{prefix}/")]
            for key in found:
                del kept[key]
            return len(found)

    tier = StoredTier(Late(), on_write=lambda _: None)
    ref = Ref("id", "one.jpg")
    for number in range(20):  # more than are written at once
        rendered = Rendered(
            key=f"{number}", ref=ref, data=b"1", format=FORMATS["png"], modified=None
        )
        tier.put_later(rendered, "png")
    await asyncio.sleep(0.05)
    await tier.purge(ref)
    await asyncio.sleep(0.4)
    assert kept == {}


def test_replacing_an_original_changes_the_tag_and_removes_the_old_results(site):
    served = site.start()
    put(served, "one.jpg", picture(1))
    old = [served.get(f"/thumb/one.jpg?w={w}&fm=jpeg") for w in (40, 50)]
    until(lambda: len(site.results) == 2)
    assert put(served, "one.jpg", picture(2)).status_code == 200
    assert site.results == []
    new = served.get("/thumb/one.jpg?w=40&fm=jpeg")
    assert new.status_code == 200
    assert new.headers["etag"] != old[0].headers["etag"]
    assert new.content != old[0].content
    tag = {"if-none-match": old[0].headers["etag"]}
    assert served.get("/thumb/one.jpg?w=40&fm=jpeg", headers=tag).status_code == 200


def test_another_service_sees_a_replaced_original_once_its_freshness_is_over(site):
    first, second = site.start(), site.start(freshness=0)
    put(first, "one.jpg", picture(1))
    old = second.get("/thumb/one.jpg?w=40")
    put(first, "one.jpg", picture(2))
    new = second.get("/thumb/one.jpg?w=40")
    assert new.headers["etag"] != old.headers["etag"]
    assert new.headers["etag"] == first.get("/thumb/one.jpg?w=40").headers["etag"]


def test_an_original_replaced_behind_the_services_back_is_noticed(site):
    served = site.start(freshness=60, memory_cache=0)
    key = f"{site.prefix}/originals/one.jpg"
    site.bucket.put(key, picture(1))
    old = served.get("/thumb/one.jpg?w=40")
    site.bucket.put(key, picture(2))
    # Its version is still trusted, but the bytes of that version are no longer to be had.
    new = served.get("/thumb/one.jpg?w=44")
    assert new.status_code == 200
    assert served.get("/thumb/one.jpg?w=40").headers["etag"] != old.headers["etag"]


def test_putting_the_first_picture_back_brings_its_tags_back(site):
    served = site.start()
    put(served, "one.jpg", picture(1))
    first = served.get("/thumb/one.jpg?w=40").headers["etag"]
    put(served, "one.jpg", picture(2))
    put(served, "one.jpg", picture(1))
    assert served.get("/thumb/one.jpg?w=40").headers["etag"] == first


def test_what_is_no_picture_does_not_reach_the_bucket(site):
    served = site.start()
    assert put(served, "one.psd", b"8BPS" + bytes(1000)).status_code == 415
    assert put(served, "one.jpg", picture()[:40]).status_code == 422
    assert put(served, "../one.jpg", picture()).status_code >= 400
    assert site.originals == []


def test_equal_requests_at_once_are_rendered_and_stored_once(site):
    served = site.start()
    put(served, "one.jpg", picture())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: served.get("/thumb/one.jpg?w=40"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert served.metric("pixelmill_renders_total") == 1
    until(lambda: site.results)
    assert len(site.results) == 1


def test_a_missing_original_is_missing_and_nothing_is_stored(site):
    served = site.start()
    answer = served.get("/thumb/none.jpg?w=40")
    assert (answer.status_code, answer.json()["code"]) == (404, "original_missing")
    assert site.results == []


def test_a_missing_bucket_of_originals_is_told_apart_from_a_missing_original(site):
    served = site.start(originals="s3://no-such-bucket/x")
    for answer in (
        served.get("/thumb/one.jpg?w=40"),
        served.get("/images/one.jpg"),
        put(served, "one.jpg", picture()),
    ):
        assert (answer.status_code, answer.json()["code"]) == (502, "store_misconfigured")


BROKEN_RESULTS = {
    "a bucket that is not there": "s3://no-such-bucket/x",
    "a name that no bucket can have": "s3://No_Such_Bucket/x",
    "a folder that is a file": None,
}


@pytest.mark.parametrize("results", BROKEN_RESULTS.values(), ids=BROKEN_RESULTS.keys())
def test_results_that_cannot_be_kept_only_make_the_service_slower(site, tmp_path, results):
    if results is None:
        (tmp_path / "file").write_bytes(b"1")
        results = f"file:{tmp_path / 'file'}"
    site.bucket.put(f"{site.prefix}/originals/one.jpg", picture())
    served = site.start(results=results, memory_cache=0)
    tags = set()
    for _ in range(2):
        answer = served.get("/thumb/one.jpg?w=40")
        assert answer.status_code == 200
        tags.add(answer.headers["etag"])
    assert len(tags) == 1
    assert served.metric("pixelmill_renders_total") == 2
    until(lambda: served.metric("pixelmill_results_stored_total", outcome="failed") == 2)


def test_a_picture_is_kept_even_where_results_cannot_be(site):
    served = site.start(results="s3://no-such-bucket/x")
    assert put(served, "one.jpg", picture()).status_code == 201
    assert site.originals == ["one.jpg"]
    assert served.get("/thumb/one.jpg?w=40").status_code == 200


def test_a_results_server_that_cannot_be_reached_only_makes_the_service_slower(
    site, tmp_path, monkeypatch
):
    originals = tmp_path / "originals"
    originals.mkdir()
    (originals / "one.jpg").write_bytes(picture())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    served = site.start(originals=f"file:{originals}", s3_attempts=1)
    assert served.get("/thumb/one.jpg?w=40").status_code == 200
    until(lambda: served.metric("pixelmill_results_stored_total", outcome="failed") == 1)


def test_credentials_that_are_half_there_only_make_the_service_slower(site, tmp_path, monkeypatch):
    originals = tmp_path / "originals"
    originals.mkdir()
    (originals / "one.jpg").write_bytes(picture())
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    served = site.start(originals=f"file:{originals}")
    assert served.get("/thumb/one.jpg?w=40").status_code == 200
    until(lambda: served.metric("pixelmill_results_stored_total", outcome="failed") == 1)


def test_originals_in_a_folder_and_results_in_a_bucket_go_together(site, tmp_path):
    (tmp_path / "originals").mkdir()
    served = site.start(originals=f"file:{tmp_path / 'originals'}")
    put(served, "one.jpg", picture())
    assert served.get("/thumb/one.jpg?w=40").status_code == 200
    until(lambda: site.results)
    assert site.originals == []
    assert served.client.delete("/images/one.jpg").status_code == 204
    assert site.results == []


def test_results_may_be_off(site):
    served = site.start(results="off")
    put(served, "one.jpg", picture())
    assert served.get("/thumb/one.jpg?w=40").status_code == 200
    assert served.client.delete("/images/one.jpg").status_code == 204
    assert site.results == []


async def test_a_diagnosis_tells_a_usable_bucket_from_a_missing_one(site):
    usable = f"s3://{site.bucket.name}/{site.prefix}"
    found = await probe_stores(
        Settings(_env_file=None, originals=usable, results="s3://no-such-bucket")
    )
    assert found == {
        "originals": StoreFound(state="ok"),
        "results": StoreFound(state="The bucket does not exist"),
    }


async def test_a_diagnosis_tells_whether_writes_are_conditional_and_leaves_nothing(site):
    place = f"s3://{site.bucket.name}/{site.prefix}"
    found = await probe_stores(
        Settings(_env_file=None, originals=f"{place}/originals", results=f"{place}/results")
    )
    assert found["results"] == StoreFound(state="ok", conditional=True)
    assert site.bucket.keys(site.prefix) == []


def test_a_store_that_is_down_or_slow_is_told_with_advice_to_ask_again(serve, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    with running_origin() as origin:
        origin.serve("/bucket/a.jpg", stall())
        for port, told in ((1, (502, "source_failed")), (origin.port, (504, "source_timeout"))):
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
            served = serve(originals="s3://bucket", s3_attempts=1, s3_read_timeout=0.3)
            answer = served.get("/thumb/a.jpg?w=40")
            assert (answer.status_code, answer.json()["code"]) == told
            assert answer.headers["retry-after"] == "5"
            assert answer.headers["cache-control"] == "no-store"
