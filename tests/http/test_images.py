"""/images: originals come, are looked at, and go."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from urllib.parse import quote

import pytest

from app.stores.files import FileStore
from tests.http import originals as draw

JPEG = draw.jpeg()
PNG = draw.png(draw.ring())


def chunks(data, size=4096):
    for start in range(0, len(data), size):
        yield data[start : start + size]


def kept_results(folder):
    """The files of the stored tier of this test's services."""
    results = folder.path.parent / "results"
    notes = results / ".pixelmill"
    return [p for p in results.rglob("*") if p.is_file() and notes not in p.parents]


def test_put_keeps_an_original_and_then_replaces_it(serve, folder):
    served = serve()
    first = served.client.put("/images/pets/dog.jpg", content=JPEG)
    assert first.status_code == 201
    assert first.headers["location"] == "/images/pets/dog.jpg"
    assert first.json() == {
        "id": "pets/dog.jpg",
        "url": "/thumb/pets/dog.jpg",
        "bytes": len(JPEG),
        "format": "jpeg",
        "width": 400,
        "height": 200,
    }
    assert (folder.path / "pets/dog.jpg").read_bytes() == JPEG

    second = served.client.put("/images/pets/dog.jpg", content=PNG)
    assert second.status_code == 200
    assert second.json()["format"] == "png"
    assert (folder.path / "pets/dog.jpg").read_bytes() == PNG
    assert folder.names() == ["cat.jpg", "pets/dog.jpg", "ring.png"]


def test_the_size_that_is_told_is_that_of_the_upright_picture(serve):
    held = draw.jpeg(orientation=6)
    for answer in (
        serve().client.put("/images/held.jpg", content=held),
        serve().client.post("/images", content=held),
    ):
        assert (answer.json()["width"], answer.json()["height"]) == (400, 200)


@pytest.mark.parametrize("key", ["with space.jpg", "日本/a+b%.jpg", "what?#.jpg"])
def test_the_addresses_that_put_gives_lead_back_to_the_picture(serve, key):
    served = serve()
    kept = served.client.put(f"/images/{quote(key)}", content=JPEG)
    assert kept.status_code == 201
    assert kept.json()["id"] == key
    assert served.get(kept.json()["url"] + "?w=20").status_code == 200
    assert served.get(kept.headers["location"]).content == JPEG


def test_post_makes_the_id_of_the_content_and_keeps_equal_bytes_once(serve, folder):
    served = serve()
    key = f"{hashlib.sha256(JPEG).hexdigest()[:32]}.jpg"
    first = served.client.post("/images", content=JPEG)
    assert (first.status_code, first.json()["id"]) == (201, key)
    modified = (folder.path / key).stat().st_mtime_ns
    second = served.client.post("/images", content=chunks(JPEG))
    assert second.status_code == 200
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"] == f"/images/{key}"
    assert (folder.path / key).stat().st_mtime_ns == modified
    other = served.client.post("/images", content=PNG)
    assert other.status_code == 201
    assert other.json()["id"] == f"{hashlib.sha256(PNG).hexdigest()[:32]}.png"


def test_a_result_of_what_was_just_uploaded_is_made_at_once(serve):
    served = serve(freshness="1h")
    assert served.get("/thumb/new.jpg?w=20").status_code == 404
    assert served.client.put("/images/new.jpg", content=JPEG).status_code == 201
    assert served.get("/thumb/new.jpg?w=20").status_code == 200


def test_an_original_comes_back_as_it_was_kept(serve, folder):
    served = serve()
    answer = served.get("/images/cat.jpg")
    assert answer.status_code == 200
    assert answer.content == (folder.path / "cat.jpg").read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-disposition" not in answer.headers
    head = served.client.head("/images/cat.jpg")
    assert head.status_code == 200
    changing = {"date", "x-request-id", "server-timing"}
    assert {n: v for n, v in head.headers.items() if n not in changing} == {
        n: v for n, v in answer.headers.items() if n not in changing
    }
    assert head.content == b""


def test_a_large_original_comes_back_whole(serve, folder):
    folder.put("large.png", draw.png(draw.grain(1400, 1000)))
    data = (folder.path / "large.png").read_bytes()
    assert len(data) > 3_000_000
    served = serve()
    assert served.get("/images/large.png").content == data
    part = served.get("/images/large.png", headers={"range": "bytes=1000000-2999999"})
    assert part.content == data[1_000_000:3_000_000]


def test_conditions_and_ranges_hold_for_originals(serve, folder):
    served = serve()
    whole = served.get("/images/cat.jpg")
    size = len(whole.content)
    etag = whole.headers["etag"]
    for method in ("GET", "HEAD"):

        def ask(method=method, **headers):
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            return served.client.request(method, "/images/cat.jpg", headers=headers)

        assert ask(if_none_match=etag).status_code == 304
        assert ask(if_none_match=f"W/{etag}").status_code == 304
        assert ask(if_none_match="*").status_code == 304
        assert ask(if_none_match='"other"').status_code == 200
        assert ask(if_modified_since=whole.headers["last-modified"]).status_code == 304
        assert ask(if_none_match=etag).headers["etag"] == etag
        outside = ask(range=f"bytes={size}-")
        assert outside.status_code == 416
        assert outside.headers["content-range"] == f"bytes */{size}"

    def part(wanted, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return served.get("/images/cat.jpg", headers={"range": wanted, **headers})

    for wanted, start, stop in (
        ("bytes=0-9", 0, 10),
        ("bytes=-5", size - 5, size),
        (f"bytes={size - 1}-", size - 1, size),
    ):
        answer = part(wanted)
        assert answer.status_code == 206
        assert answer.content == whole.content[start:stop]
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert answer.headers["content-type"] == "image/jpeg"
    assert part("bytes=0-9", if_range=etag).status_code == 206
    assert part("bytes=0-9", if_range='"other"').content == whole.content
    assert part("bytes=0-1,3-4").content == whole.content


def test_the_entity_tag_of_an_original_changes_with_its_bytes(serve):
    served = serve()
    served.client.put("/images/a.jpg", content=JPEG)
    before = served.get("/images/a.jpg").headers["etag"]
    served.client.put("/images/a.jpg", content=draw.jpeg(draw.flat(draw.RED)))
    assert served.get("/images/a.jpg").headers["etag"] != before


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("page.html", b"<html><script>alert(1)</script></html>"),
        ("drawing.svg", draw.SVG),
        ("letter.jpg", draw.TEXT),
        ("paper.pdf", draw.PDF),
        ("nothing.jpg", b""),
        ("short", b"G"),
    ],
)
def test_what_is_no_picture_is_saved_and_never_shown(serve, folder, name, data):
    folder.put(name, data)
    served = serve()
    for method in ("GET", "HEAD"):
        answer = served.client.request(method, f"/images/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-length"] == str(len(data))
        assert answer.content == (data if method == "GET" else b"")


def test_the_name_of_a_file_does_not_make_its_type(serve, folder):
    folder.put("page.html", JPEG)
    assert serve().get("/images/page.html").headers["content-type"] == "image/jpeg"


def test_delete_removes_an_original_once_and_again(serve, folder):
    served = serve()
    for _ in range(2):
        answer = served.client.delete("/images/cat.jpg")
        assert answer.status_code == 204
        assert answer.content == b""
    assert folder.names() == ["ring.png"]
    assert served.get("/images/cat.jpg").status_code == 404


def test_with_an_original_go_its_results_at_once_and_everywhere(serve, folder, until):
    served = serve(freshness="1h")
    urls = ["/thumb/cat.jpg?w=50", "/thumb/cat.jpg?w=60", "/thumb/cat.jpg?w=60&fm=png"]
    kept = {}
    for url in urls:
        served.get(url)
        kept[url] = served.get(url)
        assert kept[url].headers["cache-status"] == "pixelmill-memory; hit"
    until(lambda: served.metric("pixelmill_results_stored_total", outcome="stored") == len(urls))
    assert served.metric("pixelmill_memory_tier_bytes") > 0

    assert served.client.delete("/images/cat.jpg").status_code == 204
    for url in urls:
        assert served.get(url).status_code == 404
        assert served.client.head(url).status_code == 404
        tagged = {"if-none-match": kept[url].headers["etag"]}
        assert served.get(url, headers=tagged).status_code == 404
    assert served.metric("pixelmill_memory_tier_bytes") == 0
    assert kept_results(folder) == []


def test_with_a_replaced_original_its_results_are_replaced_at_once(serve, folder):
    served = serve(freshness="1h")
    url = "/thumb/cat.jpg?w=50"
    served.get(url)
    before = served.get(url)
    served.client.put("/images/cat.jpg", content=draw.jpeg(draw.flat(draw.BLUE, 400, 200)))
    after = served.get(url, headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200
    assert draw.looks_like(draw.opened(after.content), 10, 5, draw.BLUE)


def test_results_of_other_originals_stay(serve, folder):
    folder.put("cat.jpg.png", draw.png())
    served = serve(freshness="1h")
    for _ in range(2):
        served.get("/thumb/ring.png?w=50")
        served.get("/thumb/cat.jpg.png?w=50")
    served.client.delete("/images/cat.jpg")
    for path in ("ring.png", "cat.jpg.png"):
        hit = served.get(f"/thumb/{path}?w=50")
        assert hit.headers["cache-status"] == "pixelmill-memory; hit"


REFUSED = {
    "text": (draw.TEXT, 415, "unsupported_format"),
    "svg": (draw.SVG[:60], 422, "broken_image"),
    "heic": (draw.HEIC, 422, "broken_image"),
    "pdf": (draw.PDF, 422, "broken_image"),
    "nothing": (b"", 422, "broken_image"),
    "a header alone": (b"\x89PNG\r\n\x1a\n" + bytes(400), 422, "broken_image"),
    "half a header": (JPEG[:40], 422, "broken_image"),
    "too many pixels": (draw.png_of(50_000, 50_000, b""), 413, "source_too_large"),
    "too many bytes": (draw.png(draw.grain(500, 400)), 413, "original_too_large"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_rendered_is_not_kept(serve, folder, what):
    data, status, code = REFUSED[what]
    served = serve(max_source_bytes=200_000)
    before = folder.names()
    for attempt in (
        lambda: served.client.put("/images/new.bin", content=data),
        lambda: served.client.put("/images/new.bin", content=chunks(data)),
        lambda: served.client.post("/images", content=data),
        lambda: served.client.post("/images", content=chunks(data)),
        lambda: served.client.put("/images/cat.jpg", content=data),
    ):
        answer = attempt()
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == code
        assert folder.names() == before
    assert served.get("/thumb/cat.jpg?w=20").status_code == 200
    # And the next upload on the same client goes through.
    assert served.client.put("/images/good.jpg", content=JPEG).status_code == 201


def test_an_upload_that_declares_too_much_is_refused_before_it_is_sent(serve, call, folder):
    served = serve(max_source_bytes=200_000)
    caller = call(served).send(
        "/images/big.png", method="PUT", headers=[("content-length", "200001")]
    )
    answer = caller.read()  # not a byte of the body has been sent
    assert answer.status == 413
    assert b'"original_too_large"' in answer.body


@pytest.mark.parametrize("start", [JPEG[:100], b""])
@pytest.mark.parametrize("framing", [("content-length", "5000"), ("transfer-encoding", "chunked")])
def test_an_upload_that_stalls_is_given_up(serve, folder, call, start, framing):
    served = serve(upload_timeout="200ms")
    before = folder.names()
    caller = call(served).send("/images/slow.jpg", method="PUT", headers=[framing])
    chunked = framing[0] == "transfer-encoding"
    if start:
        caller.write(b"%x\r\n%b\r\n" % (len(start), start) if chunked else start)
    answer = caller.read()
    assert answer.status == 408
    assert b'"upload_timeout"' in answer.body
    assert folder.names() == before
    assert served.client.put("/images/next.jpg", content=JPEG).status_code == 201


def test_an_upload_whose_client_leaves_is_not_kept(serve, folder, call, until):
    served = serve()
    before = folder.names()
    caller = call(served).send(
        "/images/left.jpg", method="PUT", headers=[("content-length", str(len(JPEG)))]
    )
    caller.write(JPEG[:-1])
    until(lambda: served.app.api.state.service.uploads._budget.held > 0)
    caller.leave()
    until(lambda: served.app.api.state.service.uploads._budget.held == 0)
    assert folder.names() == before
    # It is no defect of the service either.
    until(lambda: served.metric("pixelmill_requests_total") == 1)
    assert served.metric("pixelmill_requests_total", status="499") == 1


@pytest.mark.parametrize("key", ["a/../b", "a//b", "a/", "a%00", "a%5Cb", "x" * 256, "x" * 1025])
def test_an_id_that_no_store_could_hold_is_refused_before_the_body_is_read(serve, call, key):
    served = serve()
    for method in ("PUT", "GET", "DELETE"):
        answer = call(served).send(f"/images/{key}", method=method).read()
        assert answer.status == 400, method
        assert b'"param": "id"' in answer.body


def test_an_id_beneath_another_one_is_a_conflict(serve):
    served = serve()
    served.client.put("/images/a", content=JPEG)
    beneath = served.client.put("/images/a/b", content=JPEG)
    assert (beneath.status_code, beneath.json()["code"]) == (409, "id_conflict")
    served.client.put("/images/c/d", content=JPEG)
    above = served.client.put("/images/c", content=JPEG)
    assert (above.status_code, above.json()["code"]) == (409, "id_conflict")
    assert served.get("/images/a").content == JPEG
    assert served.get("/images/c/d").content == JPEG
    for key in ("c", "a/b", "c/d/e"):
        assert served.get(f"/images/{key}").status_code == 404
        assert served.client.delete(f"/images/{key}").status_code == 204
    assert served.get("/images/a").content == JPEG
    assert served.get("/images/c/d").content == JPEG


def test_a_link_in_the_folder_leads_nowhere(serve, folder, tmp_path):
    draw.put(tmp_path / "elsewhere", "secret.jpg", JPEG)
    (folder.path / "link.jpg").symlink_to(tmp_path / "elsewhere" / "secret.jpg")
    (folder.path / "links").symlink_to(tmp_path / "elsewhere")
    served = serve()
    for key in ("link.jpg", "links/secret.jpg"):
        assert served.get(f"/images/{key}").status_code == 404
        assert served.get(f"/thumb/{key}?w=9").status_code == 404
    assert served.client.put("/images/links/new.jpg", content=JPEG).status_code == 409
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["secret.jpg"]


def test_what_is_being_written_does_not_come_back_after_a_deletion(
    serve, folder, until, monkeypatch
):
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    write = FileStore._write

    def slow(store, key, data, *rest):
        begun.set()
        go_on.wait(20)
        try:
            return write(store, key, data, *rest)
        finally:
            done.set()

    served = serve()
    monkeypatch.setattr(FileStore, "_write", slow)
    assert served.get("/thumb/cat.jpg?w=50").status_code == 200
    until(begun.is_set)  # the result is on its way to its folder
    releasing = threading.Timer(0.3, go_on.set)
    releasing.start()
    try:
        assert served.client.delete("/images/cat.jpg").status_code == 204
    finally:
        go_on.set()
        releasing.join()
    until(done.is_set)
    assert kept_results(folder) == []


def test_a_render_that_was_under_way_does_not_bring_a_deleted_picture_back(
    serve, folder, call, until, gate
):
    served = serve(freshness="1h")
    early = call(served).send("/thumb/cat.jpg?w=50")
    until(lambda: served.metric("pixelmill_renders_running") == 1)
    assert served.client.delete("/images/cat.jpg").status_code == 204
    gate.set()
    assert early.read().status == 200  # it was asked for while it was still there
    assert served.get("/thumb/cat.jpg?w=50").status_code == 404
    assert served.metric("pixelmill_memory_tier_bytes") == 0
    assert kept_results(folder) == []


def test_a_render_that_was_under_way_does_not_bring_a_replaced_picture_back(
    serve, folder, call, until, gate
):
    served = serve(freshness="1h")
    early = call(served).send("/thumb/cat.jpg?w=50")
    until(lambda: served.metric("pixelmill_renders_running") == 1)
    new = draw.jpeg(draw.flat(draw.BLUE, 400, 200))
    assert served.client.put("/images/cat.jpg", content=new).status_code == 200
    gate.set()
    assert early.read().status == 200
    late = served.get("/thumb/cat.jpg?w=50")
    assert draw.looks_like(draw.opened(late.content), 10, 5, draw.BLUE)
    until(lambda: served.metric("pixelmill_results_stored_total", outcome="stored") == 1)
    assert len(kept_results(folder)) == 1


def test_a_look_that_was_under_way_does_not_bring_a_deleted_picture_back(
    serve, folder, call, until, monkeypatch
):
    served = serve(freshness="1h", results="off")
    url = "/thumb/cat.jpg?w=50"
    looked, go_on = threading.Event(), threading.Event()
    stat = FileStore.stat

    async def slow(store, key):
        found = await stat(store, key)
        looked.set()
        await asyncio.to_thread(go_on.wait, 20)
        return found

    monkeypatch.setattr(FileStore, "stat", slow)
    early = call(served).send(url)
    until(looked.is_set)
    assert served.client.delete("/images/cat.jpg").status_code == 204
    go_on.set()
    assert early.read().status == 404
    assert served.get(url).status_code == 404
    # Nor may a client that has it be told that it is still good.
    assert served.get(url, headers={"if-none-match": "*"}).status_code == 404
