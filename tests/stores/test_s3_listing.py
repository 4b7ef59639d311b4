"""What only listings of a bucket have: markers of folders, foreign names, servers at fault."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from app.errors import SourceFailed, SourceTimeout, StoreMisconfigured
from tests.stores import faulty
from tests.stores.test_contract import keys_of, list_all, write

ONE = (
    "<Contents><Key>{}</Key><LastModified>2026-03-03T10:20:30.456Z</LastModified>"
    "<ETag>&quot;abc-2&quot;</ETag><Size>5</Size></Contents>"
)


def page(*keys: str, token: str | None = None, truncated: bool | None = None) -> faulty.Behaviour:
    """A page of a listing."""
    more = token is not None if truncated is None else truncated
    contents = "".join(ONE.format(key) for key in keys)
    after = "" if token is None else f"<NextContinuationToken>{token}</NextContinuationToken>"
    body = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{after}{contents}"
    return faulty.whole(f"{body}</ListBucketResult>".encode(), Content_Type="application/xml")


def asked(server: faulty.Faulty) -> list[dict[str, str]]:
    """What each listing was asked with."""
    return [
        {name: values[0] for name, values in parse_qs(urlsplit(each.target).query).items()}
        for each in server.asked
    ]


@pytest.mark.s3
async def test_markers_of_folders_that_others_keep_do_not_end_a_page_early(open_s3, bucket, prefix):
    store = open_s3()
    for name in ("a/", "b/c/"):
        bucket.put(f"{prefix}/{name}", b"")
    for key in ("a/one", "b/c/two", "z"):
        await write(store, key, b"1")
    assert keys_of(await store.list_page(limit=3)) == ["a/one", "b/c/two", "z"]
    assert keys_of(await list_all(store, limit=1)) == ["a/one", "b/c/two", "z"]


@pytest.mark.s3
async def test_neighbours_of_the_prefix_of_the_store_are_not_listed(open_s3, bucket, prefix):
    for name in (f"{prefix}-a", f"{prefix}0/a", prefix[:-1], f"{prefix}/inner/a"):
        bucket.put(name, b"1")
    assert keys_of(await open_s3().list_page()) == ["inner/a"]
    assert keys_of(await open_s3(beneath=f"{prefix}/inner").list_page()) == ["a"]


@pytest.mark.s3
async def test_a_bucket_that_does_not_exist_is_not_an_empty_one(open_s3):
    with pytest.raises(StoreMisconfigured, match="bucket"):
        await open_s3(bucket="there-is-none").list_page()


async def test_a_page_is_filled_from_as_many_answers_as_it_takes(against):
    store, server = await against(
        page("a/", "b", token="1"), page(token="2"), page("c/", "d/", token="3"), page("e", "f")
    )
    found = await store.list_page("", after="A", limit=3)
    assert keys_of(found) == ["b", "e", "f"]
    assert {each.version for each in found} == {"abc-2"}
    assert {each.modified.isoformat() for each in found} == {"2026-03-03T10:20:30+00:00"}
    questions = asked(server)
    assert [each.get("start-after") for each in questions] == ["A", None, None, None]
    assert [each.get("continuation-token") for each in questions] == [None, "1", "2", "3"]
    assert [each["max-keys"] for each in questions] == ["3", "2", "2", "2"]


async def test_no_more_is_asked_for_than_is_wanted(against):
    store, server = await against(page("a", "b", token="1"))
    assert keys_of(await store.list_page(limit=2)) == ["a", "b"]
    assert len(server.asked) == 1


async def test_a_key_before_all_that_begin_so_is_not_told_to_the_server(against):
    store, server = await against(page("b/one"))
    assert keys_of(await store.list_page("b/", after="a")) == ["b/one"]
    assert "start-after" not in asked(server)[0]
    assert await store.list_page("b/", after="c") == []
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        page("b", truncated=True),
        page(token="again"),
        page("a", "b"),
        faulty.whole(b"<ListBucketResult><Contents><Key>one</Key></Contents></ListBucketResult>"),
        faulty.whole(b"nothing of the kind", Content_Type="application/xml"),
        faulty.whole(b"<html><p>", Content_Type="text/html"),
        faulty.error(503, "SlowDown"),
        faulty.hang_up,
        faulty.babble,
    ],
    ids=[
        *("no token", "the same token again", "the beginning again", "no ETag", "no XML", "HTML"),
        *("503", "hanging up", "no HTTP"),
    ],
)
async def test_a_listing_that_is_none_fails_and_ends(against, answer):
    store, _ = await against(answer)
    with pytest.raises(SourceFailed):
        await store.list_page(after="a", limit=5)


async def test_a_silent_server_is_not_waited_for(against):
    store, _ = await against(faulty.stall)
    with pytest.raises(SourceTimeout):
        await store.list_page()


async def test_a_listing_that_is_refused_is_the_operators_business(against):
    store, _ = await against(faulty.error(403, "AccessDenied"))
    with pytest.raises(StoreMisconfigured):
        await store.list_page()
