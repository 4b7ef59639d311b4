"""Parts of a result: Range and If-Range, from a render and from memory."""

from __future__ import annotations

import pytest

from tests.http import originals as draw

URL = "/thumb/cat.jpg?w=150"


@pytest.fixture
def whole(standing):
    answer = standing.get(URL)
    assert answer.status_code == 200
    assert answer.headers["accept-ranges"] == "bytes"
    assert len(answer.content) > 600
    return answer


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=0-0", 0, 1),
        ("bytes=5-5", 5, 6),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=0-99999999", 0, None),
        ("bytes=-99999999", 0, None),
    ],
)
def test_one_range_is_answered_with_that_part(standing, whole, asked, start, stop):
    answer = standing.get(URL, headers={"range": asked})
    part = whole.content[start:stop]
    first = len(whole.content) + start if start < 0 else start
    assert answer.status_code == 206
    assert answer.content == part
    assert answer.headers["content-range"] == (
        f"bytes {first}-{first + len(part) - 1}/{len(whole.content)}"
    )
    assert answer.headers["content-length"] == str(len(part))
    for name in ("etag", "content-type", "cache-control", "last-modified", "vary"):
        assert answer.headers[name] == whole.headers[name]


@pytest.mark.parametrize("asked", ["bytes=99999-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_beyond_the_end_is_416_with_the_size(standing, whole, asked):
    answer = standing.get(URL, headers={"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(whole.content)}"
    assert answer.content == b""


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,4-5",
        "bytes=0-1, -1",
        "bytes=9-3",
        "bytes=-",
        "bytes=a-b",
        "bytes 0-1",
        "lines=0-1",
        "bytes=0x1-0x2",
        "bytes=1.0-2",
        "bytes=+1-2",
        "bytes=\xb2-\xb3",
        "",
    ],
)
def test_what_is_not_one_range_of_bytes_is_answered_with_the_whole(standing, whole, asked):
    answer = standing.client.get(URL, headers=[("range", asked.encode("latin-1"))])
    assert answer.status_code == 200
    assert answer.content == whole.content
    assert "content-range" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "statuses"),
    [
        (f"bytes={'9' * 5000}-", (200, 416)),
        (f"bytes=0-{'9' * 5000}", (200, 206)),
        (f"bytes=-{'9' * 5000}", (200, 206)),
        (f"bytes={'9' * 5000}-{'9' * 5000}", (200, 416)),
        (f"bytes={'0' * 5000}-1", (200, 206)),
    ],
)
@pytest.mark.parametrize("path", [URL, "/images/cat.jpg"])
def test_a_range_of_absurd_numbers_is_no_fault_of_the_service(standing, path, asked, statuses):
    assert standing.get(path, headers={"range": asked}).status_code in statuses


@pytest.mark.parametrize(
    ("condition", "status"),
    [("{tag}", 206), ('"other"', 200), ("W/{tag}", 200), ("Sun, 13 Sep 2020 12:26:40 GMT", 200)],
)
def test_if_range_gives_a_part_of_the_very_same_result_only(standing, whole, condition, status):
    headers = {"range": "bytes=0-3", "if-range": condition.format(tag=whole.headers["etag"])}
    answer = standing.get(URL, headers=headers)
    assert answer.status_code == status
    assert answer.content == (whole.content[:4] if status == 206 else whole.content)


def test_if_none_match_goes_before_range(standing, whole):
    headers = {"range": "bytes=0-3", "if-none-match": whole.headers["etag"]}
    assert standing.get(URL, headers=headers).status_code == 304


def test_the_parts_of_a_result_make_the_whole(standing, whole):
    parts = []
    for start in range(0, len(whole.content), 200):
        answer = standing.get(URL, headers={"range": f"bytes={start}-{start + 199}"})
        assert answer.status_code == 206
        parts.append(answer.content)
    assert b"".join(parts) == whole.content


def test_a_range_may_be_the_first_thing_that_is_asked_of_a_result(serve, folder):
    served = serve(results="off")
    part = served.get(URL, headers={"range": "bytes=0-3"})
    assert part.status_code == 206
    assert part.content == b"\xff\xd8\xff\xdb"
    # And what it left behind is the whole, for whoever asks for that.
    for _ in range(2):
        answer = served.get(URL)
        assert answer.status_code == 200
        assert draw.opened(answer.content).width == 150
        assert "content-range" not in answer.headers
    assert served.metric("pixelmill_renders_total") == 1
