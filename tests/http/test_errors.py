"""Errors: each says what is wrong, in one shape, with the status of its cause."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.http import originals as draw
from tests.http.conftest import BAD_ORIGINALS

COMMON = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "cross-origin",
    "access-control-allow-origin": "*",
    "timing-allow-origin": "*",
}
INVALID = (
    # query, the parameter it names, a word of the detail, the suggestion
    ("w=0", "w", "1 to 8192", None),
    ("w=8193", "w", "8193", None),
    ("w=-5", "w", "-5", None),
    ("w=12.5", "w", "1 to 8192", None),
    ("w=", "w", "1 to 8192", None),
    ("w=%EF%BC%91", "w", "1 to 8192", None),
    ("w=1_0", "w", "1 to 8192", None),
    (f"w={'9' * 5000}", "w", "1 to 8192", None),
    ("w=NaN", "w", "1 to 8192", None),
    ("width=abc", "w", "width", None),
    ("h=none", "h", "1 to 8192", None),
    ("fit=covr", "fit", "did you mean cover?", "cover"),
    ("fit=insde", "fit", "did you mean inside?", "inside"),
    ("fit=zzz", "fit", "contain, cover", None),
    ("gravity=nroth", "gravity", "did you mean north?", "north"),
    ("gravity=2,2", "gravity", "0..1", None),
    ("bg=whit", "background", "did you mean white?", "white"),
    ("bg=12345", "background", "hex", None),
    ("bg=rgb(1,2,300)", "background", "rgb", None),
    ("fm=webpp", "fm", "did you mean webp?", "webp"),
    ("fm=svg", "fm", "jpeg, png", None),
    ("fm=auto", "fm", "jpeg, png", None),
    ("fm=same", "fm", "jpeg, png", None),
    ("auto=avfi", "auto", "did you mean avif?", "avif"),
    ("q=0", "q", "1 to 100", None),
    ("q=101", "q", "1 to 100", None),
    ("dpr=0", "dpr", "0.1 to 8", None),
    ("dpr=1e1", "dpr", "0.1 to 8", None),
    ("w=8000&dpr=2", "w", "times dpr", None),
    ("rotate=45", "rotate", "multiple of 90", None),
    ("flip=x", "flip", "h, v, hv", None),
    ("crop=1,2,3", "crop", "x,y,width,height", None),
    ("crop=0,0,0,0", "crop", "x,y,width,height", None),
    ("crop=5000,0,10,10", "crop", "outside", None),
    ("extent=10", "extent", "WIDTHxHEIGHT", None),
    ("padding=1,2,3,4,5", "padding", "1 to 4", None),
    ("enlarge=maybe", "enlarge", "0 or 1", None),
    ("page=1", "page", "has 1 page", None),
    ("page=10000", "page", "0 to 9999", None),
    ("orient=9", "orient", "auto, none", None),
    ("meta=some", "meta", "none, copyright, keep", None),
    ("effort=10", "effort", "0 to 9", None),
    ("w=5&w=5", "w", "twice", None),
    ("w=5&width=6", "w", "as w and as width", None),
    ("fm=png&format=png", "fm", "twice", None),
    ("min-w=5&min_w=5", "min-w", "twice", None),
    ("v=1&v=1", "v", "twice", None),
    ("url=a&url=b", "url", "twice", None),
    ("sig=a&sig=b", "sig", "twice", None),
    ("exp=1&exp=2", "exp", "twice", None),
)


def check(answer, status, code):
    """An error in the one shape that errors have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"/problems/{code}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    known = {"type", "title", "status", "detail", "code", "request_id"}
    assert known <= problem.keys() <= known | {"param", "suggestion", "retry_after"}
    for name, value in COMMON.items():
        assert answer.headers[name] == value
    assert "etag" not in answer.headers
    assert "cache-control" in answer.headers
    return problem


@pytest.mark.parametrize(("query", "param", "word", "suggestion"), INVALID)
def test_a_bad_parameter_is_refused_by_name(standing, query, param, word, suggestion):
    problem = check(standing.get(f"/thumb/cat.jpg?{query}"), 400, "invalid_parameter")
    assert problem["param"] == param
    assert word in problem["detail"]
    assert len(problem["detail"]) < 400
    assert problem.get("suggestion") == suggestion


@pytest.mark.parametrize("query", ["wdith=abc", "colour=red", "=5", "&&&", "W=abc", "%", "a=%zz"])
def test_a_parameter_that_is_not_known_does_not_matter(standing, query):
    plain = standing.get("/thumb/cat.jpg?w=20")
    answer = standing.get(f"/thumb/cat.jpg?w=20&{query}")
    assert answer.status_code == 200
    assert answer.headers["etag"] == plain.headers["etag"]


def test_parameters_may_be_many_but_not_too_many(standing):
    many = "&".join(f"x{n}=1" for n in range(99))
    assert standing.get(f"/thumb/cat.jpg?{many}&w=20").status_code == 200
    problem = check(standing.get(f"/thumb/cat.jpg?{many}&x=1&w=20"), 400, "invalid_parameter")
    assert "100" in problem["detail"]


@pytest.mark.parametrize("name", BAD_ORIGINALS)
def test_a_bad_original_has_the_status_of_what_is_wrong_with_it(standing, name):
    status, code, _ = BAD_ORIGINALS[name]
    for _ in range(2):
        check(standing.get(f"/thumb/{name}?w=20"), status, code)


def test_a_missing_original_is_404(standing):
    for key in ("missing.jpg", "cat.jpg/beneath", "folder/missing.jpg"):
        check(standing.get(f"/thumb/{key}?w=20"), 404, "original_missing")
        check(standing.get(f"/images/{key}"), 404, "original_missing")


def test_an_original_of_too_many_bytes_is_413(serve, folder):
    folder.put("big.png", draw.png(draw.grain()))
    served = serve(max_source_bytes=50_000)
    problem = check(served.get("/thumb/big.png?w=20"), 413, "original_too_large")
    assert "50000" in problem["detail"]


def test_an_original_of_too_many_pixels_is_413(serve, folder):
    served = serve(max_source_pixels=400 * 200 - 1)
    problem = check(served.get("/thumb/cat.jpg?w=20"), 413, "source_too_large")
    assert "400x200" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/thumb/cat.jpg"),
        ("PUT", "/thumb/cat.jpg"),
        ("DELETE", "/thumb/cat.jpg"),
        ("OPTIONS", "/thumb/cat.jpg"),
        ("PATCH", "/images/cat.jpg"),
        ("POST", "/images/cat.jpg"),
        ("GET", "/images"),
        ("GET", "/transform"),
        ("DELETE", "/livez"),
        ("PROPFIND", "/"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_405_and_says_which_it_takes(standing, method, path):
    answer = standing.client.request(method, path)
    check(answer, 405, "method_not_allowed")
    allowed = set(re.split(r"\s*,\s*", answer.headers["allow"]))
    assert method not in allowed
    assert (
        allowed
        == {
            "thumb": {"GET", "HEAD"},
            "images": {"GET", "HEAD", "PUT", "DELETE"} if path != "/images" else {"POST"},
            "transform": {"POST"},
            "livez": {"GET", "HEAD"},
            "": {"GET", "HEAD"},
        }[path.split("/")[1]]
    )


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/thumbs/a",
        "/favicon.ico",
        "/docs",
        "/%00",
        "/%ff",
        "/livez/",
        "/schema/",
        "/" + "a" * 500,
    ],
)
def test_a_path_that_leads_nowhere_is_404(standing, path):
    check(standing.get(path), 404, "not_found")


def test_a_problem_says_nothing_it_should_not(standing):
    for path in ("/thumb/missing.jpg", "/nowhere", "/thumb/cut.png?w=9", "/thumb/cat.jpg?w=0"):
        text = standing.get(path).text
        assert "/tmp" not in text
        assert "standing" not in text
        assert "Traceback" not in text


def test_a_defect_is_a_problem_too_and_tells_nothing_of_itself(serve, folder, until, monkeypatch):
    served = serve()

    async def fail(*arguments, **options):
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(served.app.api.state.service.renderer, "identify", fail)
    answer = served.get("/thumb/cat.jpg?w=20")
    assert "secret" not in answer.text
    problem = check(answer, 500, "internal")
    assert answer.headers["cache-control"] == "no-store"
    assert "log" in problem["detail"]
    until(lambda: served.metric("pixelmill_requests_total", status="500") == 1)
    monkeypatch.undo()
    assert served.get("/thumb/cat.jpg?w=20").status_code == 200


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_log_of_a_defect_tells_no_secrets(form):
    code = f"""
import structlog
from app.settings import Settings
from app.telemetry import configure_logs

configure_logs(Settings(_env_file=None, log_format="{form}"))

def fail():
    token = "-".join(["a", "token", "of", "somebody"])
    raise RuntimeError(len(token))

try:
    fail()
except RuntimeError:
    structlog.get_logger().exception("defect")
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert "RuntimeError" in run.stderr
    assert "fail" in run.stderr
    assert "a-token-of-somebody" not in run.stderr


@pytest.mark.parametrize("given", ["abc", "A-1_2.z", "x" * 64, "0"])
def test_a_request_id_that_is_a_plain_token_is_given_back(standing, given):
    for path in ("/thumb/cat.jpg?w=21", "/thumb/cat.jpg?w=21", "/thumb/missing", "/nowhere"):
        answer = standing.get(path, headers={"x-request-id": given})
        assert answer.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a\tb", "<script>", "ü", "a,b", 'a"b'])
def test_a_request_id_that_is_anything_else_is_replaced(standing, given):
    for path in ("/thumb/cat.jpg?w=21", "/thumb/cat.jpg?w=21", "/thumb/missing", "/nowhere"):
        answer = standing.client.get(path, headers=[("x-request-id", given.encode("latin-1"))])
        (made,) = answer.headers.get_list("x-request-id")
        assert made != given
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", made)


def test_every_request_has_an_id_of_its_own(standing):
    paths = ["/thumb/cat.jpg?w=22"] * 5 + ["/livez"] * 5
    assert len({standing.get(path).headers["x-request-id"] for path in paths}) == 10


def test_every_answer_has_the_headers_that_keep_it_harmless(standing):
    etag = standing.get("/thumb/cat.jpg?w=23").headers["etag"]
    seen = set()
    for path, headers, status in (
        ("/thumb/cat.jpg?w=23", {"range": "bytes=0-1"}, 206),
        ("/thumb/cat.jpg?w=23", {"range": "bytes=999999-"}, 416),
        ("/thumb/cat.jpg?w=23", {"authorization": "x"}, 200),
        ("/thumb/cat.jpg?w=23", {}, 200),
        ("/thumb/cat.jpg?w=23", {"if-none-match": etag, "authorization": "x"}, 304),
        ("/thumb/cat.jpg?w=23", {"if-none-match": etag}, 304),
        ("/thumb/missing.jpg", {}, 404),
        ("/thumb/letter.txt", {}, 415),
        ("/images/cat.jpg", {}, 200),
        ("/images/letter.txt", {}, 200),
        ("/livez", {}, 200),
        ("/metrics", {}, 200),
        ("/openapi.json", {}, 200),
        ("/", {}, 200),
    ):
        answer = standing.get(path, headers=headers)
        assert answer.status_code == status, path
        for name, value in COMMON.items():
            assert answer.headers.get_list(name) == [value], (path, name)
        for name in ("server-timing", "x-request-id", "cache-control"):
            assert len(answer.headers.get_list(name)) == 1, (path, name)
        seen.add(answer.headers.get("cache-status"))
    assert "pixelmill-memory; hit" in seen


def test_server_timing_tells_where_the_time_of_a_render_went(standing):
    timing = standing.get("/thumb/cat.jpg?w=24").headers["server-timing"]
    stages = dict(re.findall(r"(\w+);dur=([0-9.]+)", timing))
    assert {"fetch", "look", "queue", "decode", "encode", "total"} <= stages.keys()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("w=25&fm=jpeg&q=auto:70", r"q=\d+"),
        ("w=25&fm=jpeg&max-bytes=5000", r"q=\d+"),
        ("w=25&fm=jpeg&q=80", None),
        ("w=25&fm=png&q=auto", None),
    ],
)
def test_server_timing_tells_the_quality_that_was_chosen(standing, query, said):
    timing = standing.get(f"/thumb/cat.jpg?{query}").headers["server-timing"]
    found = re.search(r'encode;dur=[0-9.]+(?:;desc="([^"]*)")?(?:,|$)', timing)
    assert found
    assert found[1] is None if said is None else re.fullmatch(said, found[1])
