"""GET /info: what can be told of an original, over HTTP."""

from __future__ import annotations

import hashlib

import pytest

from app.sources.stored import StoredSource
from tests.http import originals as draw
from transforms.libvips import MetadataType

TOKEN = "a-token-that-is-long-enough"


def tagged(latitude: bool = True) -> bytes:
    """A JPEG that lies on its side, with a copyright and a place."""
    image = draw.opened(draw.jpeg()).copy()
    image.set_type(MetadataType.INTEGER, "orientation", 6)
    image.set_type(MetadataType.TEXT, "exif-ifd0-Copyright", "(c) somebody")
    if latitude:
        image.set_type(MetadataType.TEXT, "exif-ifd3-GPSLatitudeRef", "N")
        image.set_type(MetadataType.TEXT, "exif-ifd3-GPSLatitude", "52/1 30/1 0/1")
        image.set_type(MetadataType.TEXT, "exif-ifd3-GPSLongitudeRef", "E")
        image.set_type(MetadataType.TEXT, "exif-ifd3-GPSLongitude", "13/1 24/1 0/1")
    return bytes(image.jpegsave_buffer(keep="exif"))


def test_everything_that_is_known_is_told(serve, folder):
    data = tagged()
    folder.put("lying.jpg", data)
    told = serve().get("/info/lying.jpg").json()
    stored = draw.opened(data)
    assert (told["stored_width"], told["stored_height"]) == (stored.width, stored.height)
    assert (told["width"], told["height"]) == (stored.height, stored.width)
    assert told["orientation"] == 6
    assert told["format"] == "jpeg"
    assert told["length"] == len(data)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    assert told["metadata"]["exif"]["copyright"] == "(c) somebody"
    assert told["dominant"].startswith("#")
    assert told["blurhash"]
    assert told["thumbhash"]
    assert len(told["perceptual_hash"]) == 16
    assert told["data_uri"].startswith("data:image/")
    assert "place" not in told


def test_a_place_is_told_to_those_with_a_token_alone(serve, folder):
    folder.put("there.jpg", tagged())
    served = serve(api_tokens=TOKEN)
    assert "place" not in served.get("/info/there.jpg").json()
    refused = served.get("/info/there.jpg?gps=1")
    assert refused.status_code == 401
    told = served.get("/info/there.jpg?gps=1", headers={"authorization": f"Bearer {TOKEN}"})
    assert told.json()["place"]["latitude"] == pytest.approx(52.5)
    assert told.headers["cache-control"].startswith("private")
    assert "place" not in served.get("/info/there.jpg").json()


def test_it_has_validators_and_comes_from_memory(serve, folder):
    served = serve()
    first = served.get("/info/cat.jpg")
    assert first.headers["etag"]
    again = served.get("/info/cat.jpg", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert served.get("/info/cat.jpg").content == first.content
    assert served.metric("pixelmill_stage_seconds_count", stage="decode") == 0
    head = served.client.head("/info/cat.jpg")
    assert head.status_code == 200
    assert head.content == b""


def test_a_replaced_original_is_described_anew(serve, folder):
    served = serve()
    before = served.get("/info/cat.jpg")
    served.client.put("/images/cat.jpg", content=draw.jpeg(draw.flat(draw.BLUE, 40, 20)))
    after = served.get("/info/cat.jpg")
    assert after.headers["etag"] != before.headers["etag"]
    assert (after.json()["width"], after.json()["height"]) == (40, 20)


def test_a_header_is_all_that_is_read_where_no_colours_are_asked_for(serve, folder, monkeypatch):
    big = draw.jpeg(draw.grain(1500, 1000)) + bytes(600_000)
    folder.put("big.jpg", big)
    fetched = []
    fetch = StoredSource.fetch

    async def counted(source, identity):
        fetched.append(identity.ref.name)
        return await fetch(source, identity)

    monkeypatch.setattr(StoredSource, "fetch", counted)
    served = serve()
    told = served.get("/info/big.jpg?colours=0").json()
    assert (told["width"], told["length"], told["sha256"]) == (1500, len(big), None)
    assert "dominant" not in told
    assert fetched == []
    assert served.get("/info/big.jpg").json()["sha256"] == hashlib.sha256(big).hexdigest()
    assert fetched


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/info/missing.jpg", 404, "original_missing"),
        ("/info/letter.txt", 415, "unsupported_format"),
        ("/info/cat.jpg?gps=perhaps", 400, "invalid_parameter"),
        ("/info/cat.jpg?colours=1&colours=0", 400, "invalid_parameter"),
        ("/info", 400, "invalid_parameter"),
        ("/info?url=http://elsewhere.example/cat.jpg", 403, "source_refused"),
    ],
)
def test_what_is_wrong_is_named(serve, folder, path, status, code):
    folder.put("letter.txt", draw.TEXT)
    answer = serve().get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_drawing_is_described_as_well(serve, folder):
    folder.put("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60">'
               b'<rect width="90" height="60" fill="#ff8000"/></svg>')  # fmt: skip
    told = serve().get("/info/drawing.svg").json()
    assert (told["format"], told["width"], told["height"]) == ("svg", 90, 60)
    assert told["dominant"] == "#ff8000"
