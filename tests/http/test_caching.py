"""Entity tags, conditional requests and Cache-Control."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import pytest

from app.signing import Signer
from tests.http import originals as draw

URL = "/thumb/cat.jpg?w=200&h=200"
KEY = "k1:a-secret-of-many-letters"
SIGNER = Signer({"k1": b"a-secret-of-many-letters"})


def tag(served, path, **headers):
    answer = served.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


def test_the_entity_tag_is_strong(serve, folder):
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag(serve(), URL))


def test_what_is_different_has_different_entity_tags(serve, folder):
    served = serve()
    folder.put("copy.jpg", (folder.path / "cat.jpg").read_bytes())
    tags = [
        tag(served, URL),
        tag(served, "/thumb/cat.jpg?w=200&h=201"),
        tag(served, "/thumb/cat.jpg?w=200"),
        tag(served, "/thumb/cat.jpg"),
        tag(served, f"{URL}&fit=cover"),
        tag(served, f"{URL}&fm=png"),
        tag(served, f"{URL}&fm=webp"),
        tag(served, f"{URL}&q=50"),
        tag(served, f"{URL}&bg=black"),
        tag(served, "/thumb/copy.jpg?w=200&h=200"),
        tag(served, URL, accept="image/webp"),
        tag(served, f"{URL}&auto=avif", accept="image/avif"),
    ]
    same = tags[6], tags[10]  # WebP asked for, and WebP negotiated, are the same bytes
    assert same[0] == same[1]
    assert len(set(tags)) == len(tags) - 1


@pytest.mark.parametrize(
    "query",
    [
        "h=200&w=200",
        "width=200&height=200",
        "height=200&w=200",
        "w=200&h=200&fit=contain",
        "w=200&h=200&fit=pad",
        "w=100&h=100&dpr=2",
        "w=200&h=200&bg=white",
        "w=200&h=200&background=ffffff",
        "w=200&h=200&gravity=centre",
        "w=0200&h=200",
        "w=200&h=200&utm_source=letter",
        "w=200&h=200&enlarge=0&lossless=false",
        "w=200&h=200&v=",
        "w=200&h=200&v=7",
    ],
)
def test_equal_requests_have_equal_entity_tags_however_they_are_spelt(standing, query):
    assert tag(standing, f"/thumb/cat.jpg?{query}") == tag(standing, URL)


def test_an_equal_request_is_rendered_once_however_it_is_spelt(serve, folder):
    served = serve()
    for query in ("w=200&h=200", "height=200&width=200", "w=100&h=100&dpr=2&fit=pad"):
        assert served.get(f"/thumb/cat.jpg?{query}").status_code == 200
    assert served.metric("pixelmill_renders_total") == 1


def test_two_services_on_the_same_folders_agree_on_the_entity_tag(serve, folder):
    assert tag(serve(), URL) == tag(serve(results="off"), URL)


def test_a_new_version_of_the_original_has_a_new_entity_tag(serve, folder):
    served = serve(freshness=0)
    before = served.get(URL)
    folder.put("cat.jpg", draw.jpeg(draw.flat(draw.BLUE, 400, 200)))
    after = served.get(URL, headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]
    assert draw.looks_like(draw.opened(after.content), 50, 70, draw.BLUE)


@pytest.mark.parametrize("listed", ["{tag}", "W/{tag}", '"x", {tag}', '"x",W/{tag} , "y"', "*"])
@pytest.mark.parametrize("way", ["hit", "authorization", "fresh"])
def test_who_has_a_result_gets_304_and_nothing_is_rendered(serve, folder, listed, way):
    served = serve()
    full = served.get(URL)
    headers = {"if-none-match": listed.format(tag=full.headers["etag"])}
    if way == "authorization":
        headers["authorization"] = "Bearer of-no-use"
    if way == "fresh":
        served = serve(results="off")
    before = served.metric("pixelmill_renders_total")
    for method in ("GET", "HEAD"):
        answer = served.client.request(method, URL, headers=headers)
        assert answer.status_code == 304
        assert answer.content == b""
        for name in ("etag", "cache-control", "last-modified"):
            assert answer.headers[name] == full.headers[name]
        assert "vary" in full.headers
        assert answer.headers["vary"] == full.headers["vary"]
        for name in ("content-type", "content-length"):
            assert name not in answer.headers
    assert served.metric("pixelmill_renders_total") == before


@pytest.mark.parametrize("listed", ['"x"', 'W/"x", "y"', "", "x", '"', "W/", "**"])
@pytest.mark.parametrize("authorised", [False, True])
def test_who_has_something_else_gets_the_whole(standing, listed, authorised):
    full = standing.get(URL)
    headers = {"if-none-match": listed} | ({"authorization": "Bearer x"} if authorised else {})
    answer = standing.get(URL, headers=headers)
    assert answer.status_code == 200
    assert answer.content == full.content


def test_a_tag_of_a_list_counts_wherever_the_list_is_split_into_lines(serve, folder, call):
    served = serve()
    known = tag(served, URL)
    for lines in ([known, '"x"'], ['"x"', known]):
        for extra in ([], [("authorization", "Bearer x")]):
            headers = [("if-none-match", line) for line in lines]
            answer = call(served).send(URL, headers=[*headers, *extra]).read()
            assert answer.status == 304, (lines, extra)


def test_if_modified_since_is_answered_by_the_time_of_the_original(serve, folder):
    os.utime(folder.path / "cat.jpg", (1_600_000_000.5, 1_600_000_000.5))
    served = serve()
    moment = datetime.fromtimestamp(1_600_000_000, UTC)
    assert served.get(URL).headers["last-modified"] == "Sun, 13 Sep 2020 12:26:40 GMT"
    for seconds, status in ((-1, 200), (0, 304), (1, 304), (86400, 304)):
        since = format_datetime(moment + timedelta(seconds=seconds), usegmt=True)
        for method in ("GET", "HEAD"):
            answer = served.client.request(method, URL, headers={"if-modified-since": since})
            assert answer.status_code == status, (seconds, method)


def test_if_none_match_goes_before_if_modified_since(serve, folder):
    served = serve()
    full = served.get(URL)
    late, early = full.headers["last-modified"], "Sun, 13 Sep 2020 12:26:40 GMT"
    for known, since, status in (
        ('"x"', late, 200),
        (full.headers["etag"], early, 304),
    ):
        headers = {"if-none-match": known, "if-modified-since": since}
        assert served.get(URL, headers=headers).status_code == status


@pytest.mark.parametrize(
    "since",
    [
        "yesterday",
        "",
        "Sun, 13 Sep 2020",
        "Sun, 99 Sep 2020 12:26:40 GMT",
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 -99999999999",
        f"Mon, 01 Jan {'9' * 5000} 00:00:00 GMT",
    ],
)
def test_a_date_that_is_none_is_passed_over(standing, since):
    assert standing.get(URL, headers={"if-modified-since": since}).status_code == 200


@pytest.mark.parametrize(
    "modified",
    [
        "Sun, 13 Sep 2020 12:26:40 GMT",
        "Sun, 13 Sep 2020 12:26:40 -0000",
        "Sun, 13 Sep 2020 12:26:40",
        "Sun, 13 Sep 2020 12:26:40 +0530",
        "Fri, 31 Dec 9999 23:59:59 -2300",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "yesterday",
    ],
)
def test_a_date_of_the_origin_never_fails_a_request(serve, origin, modified):
    origin.headers["last-modified"] = modified
    served = serve(allowed_sources="127.0.0.1:*", allow_private_networks=True)
    url = f"/thumb?url={quote(origin.url)}/cat.jpg&w=9"
    assert served.get(url).status_code == 200
    for since in ("Sat, 12 Sep 2020 12:26:40 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"):
        assert served.get(url, headers={"if-modified-since": since}).status_code in (200, 304)


def test_a_plain_result_is_kept_an_hour_and_may_be_used_stale(serve, folder):
    assert serve().get(URL).headers["cache-control"] == (
        "public, max-age=3600, stale-while-revalidate=86400, stale-if-error=604800"
    )


def test_the_time_that_results_are_kept_is_a_setting(serve, folder):
    answer = serve(cache_max_age="5m").get(URL)
    assert answer.headers["cache-control"].startswith("public, max-age=300,")


def test_a_url_that_names_a_version_is_kept_for_ever(serve, folder):
    served = serve()
    for _ in range(2):
        answer = served.get(f"{URL}&v=7")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_a_result_is_kept_no_longer_than_its_signature_holds(serve, folder):
    served = serve(keys=KEY)
    expires = int(time.time()) + 50
    for path in (URL, f"{URL}&v=7"):
        answer = served.get(SIGNER.sign(path, expires=expires))
        age = re.fullmatch(r"public, max-age=(\d+)", answer.headers["cache-control"])
        assert age is not None
        assert 0 < int(age[1]) <= 50


def test_a_hit_too_is_kept_no_longer_than_its_signature_holds(serve, folder):
    served = serve(keys=KEY)
    expires = int(time.time()) + 50
    url = SIGNER.sign(URL, expires=expires)
    served.get(url)
    time.sleep(2.1)
    left = expires - time.time()
    answer = served.get(url)
    age = re.fullmatch(r"public, max-age=(\d+)", answer.headers["cache-control"])
    assert age is not None
    assert int(age[1]) <= left


def test_a_far_expiry_does_not_lengthen_the_time_that_a_result_is_kept(serve, folder):
    served = serve(keys=KEY, cache_max_age=60)
    answer = served.get(SIGNER.sign(URL, expires=int(time.time()) + 100_000))
    assert answer.headers["cache-control"] == "public, max-age=60"


def test_errors_are_not_kept_but_for_what_is_missing_or_unsupported(standing):
    expected = {
        "/thumb/missing.jpg?w=9": "public, max-age=10",
        "/thumb/letter.txt?w=9": "public, max-age=60",
        "/thumb/cut.jpg?w=9": "no-store",
        "/thumb/bomb.png?w=9": "no-store",
        "/thumb/cat.jpg?w=0": "no-store",
        "/thumb/cat.jpg?w=9&w=9": "no-store",
        "/thumb?url=https://elsewhere.example/a.jpg": "no-store",
        "/nowhere": "no-store",
        "/livez": "no-store",
    }
    found = {path: standing.get(path).headers["cache-control"] for path in expected}
    assert found == expected


def test_an_original_that_was_missing_is_found_once_it_is_there(serve, folder):
    served = serve()
    assert served.get("/thumb/late.jpg?w=9").status_code == 404
    folder.put("late.jpg", draw.jpeg())
    assert served.get("/thumb/late.jpg?w=9").status_code == 200


def test_the_version_of_an_original_is_trusted_for_the_time_of_the_setting(serve, folder):
    trusting, asking = serve(freshness="1h"), serve(freshness=0, results="off")
    before = tag(trusting, URL)
    assert tag(asking, URL) == before
    folder.put("cat.jpg", draw.jpeg(draw.flat(draw.GREEN)))
    assert tag(trusting, URL) == before
    assert tag(asking, URL) != before
    assert asking.get(URL).headers["cache-status"] == "pixelmill-memory; hit"


def test_an_original_that_changes_while_its_version_is_trusted_is_never_mixed_up(serve, folder):
    os.utime(folder.path / "cat.jpg", (1_600_000_000, 1_600_000_000))
    served = serve(freshness="1h", results="off")
    before = served.get("/thumb/cat.jpg?w=50")
    folder.put("cat.jpg", draw.jpeg(draw.flat(draw.BLUE, 400, 200)))
    os.utime(folder.path / "cat.jpg", (1_700_000_000, 1_700_000_000))
    # This one must be made anew, and only then it shows that there is another picture.
    after = served.get("/thumb/cat.jpg?w=60")
    assert draw.looks_like(draw.opened(after.content), 10, 5, draw.BLUE)
    assert after.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert after.headers["etag"] != before.headers["etag"]
    again = served.get("/thumb/cat.jpg?w=60", headers={"authorization": "Bearer x"})
    assert again.headers["etag"] == after.headers["etag"]
    assert again.headers["last-modified"] == after.headers["last-modified"]
