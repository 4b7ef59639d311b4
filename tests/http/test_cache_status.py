"""Cache-Status is what RFC 9211 says: a list of caches, each an item with parameters."""

from __future__ import annotations

import re

import pytest

# Structured fields (RFC 9651), as far as this header has them.
TOKEN = r"[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*"
STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
VALUE = rf"(?:{TOKEN}|{STRING}|-?\d{{1,15}}|\?[01])"
PARAMETER = rf";[ ]*([a-z*][a-z0-9_.*-]*)(?:=({VALUE}))?"
MEMBER = re.compile(rf"({TOKEN}|{STRING})((?:{PARAMETER})*)[ \t]*(?:,[ \t]*(?!$)|$)")
REASONS = {"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}


def parse(text):
    """The members in their order: names, with their parameters. Fails on anything else."""
    members, at = [], 0
    while at < len(text):
        match = MEMBER.match(text, at)
        assert match is not None, f"malformed from {text[at:]!r}"
        parameters = {name: value or "?1" for name, value in re.findall(PARAMETER, match[2])}
        members.append((match[1], parameters))
        at = match.end()
    return members


def check(answer):
    """The parameters by cache, of a header that says nothing contradictory."""
    members = parse(answer.headers["cache-status"])
    assert members
    for _, parameters in members:
        # 2.1 and 2.2: a hit was not forwarded, and what was forwarded says why.
        assert ("hit" in parameters) != ("fwd" in parameters)
        assert parameters.get("hit", "?1") == "?1"
        assert parameters.get("fwd", "miss") in REASONS
        if "fwd" not in parameters:
            assert not {"fwd-status", "stored", "collapsed"} & parameters.keys()
    return dict(members)


@pytest.mark.parametrize(
    "text", ["", "a b", "a;Fwd=miss", "a; hit,", "a; fwd=", 'a; fwd="x', "1a; hit", "a;; hit"]
)
def test_the_parser_of_this_test_is_strict(text):
    with pytest.raises(AssertionError):
        assert parse(text)


def test_each_tier_says_whether_it_had_the_result(serve, folder, until):
    first = serve()
    url = "/thumb/cat.jpg?w=20"
    made = check(first.get(url))
    assert "fwd" in made["pixelmill-memory"]
    assert "fwd" in made["pixelmill-stored"]
    for _ in range(2):
        again = check(first.get(url))
        assert "hit" in again["pixelmill-memory"]
        assert "pixelmill-stored" not in again
    unmodified = first.get(url, headers={"if-none-match": first.get(url).headers["etag"]})
    assert unmodified.status_code == 304
    assert "hit" in check(unmodified)["pixelmill-memory"]
    # Another replica, with the same store of results and nothing in memory.
    until(lambda: first.metric("pixelmill_results_stored_total", outcome="stored") == 1)
    second = serve()
    found = check(second.get(url))
    assert "fwd" in found["pixelmill-memory"]
    assert "hit" in found["pixelmill-stored"]


def test_server_timing_names_stages_and_milliseconds(serve, folder):
    served = serve(results="off")
    timing = served.get("/thumb/cat.jpg?w=20&q=auto").headers["server-timing"]
    metric = re.compile(r'([a-z]+);dur=(\d+\.\d)(?:;desc="([\x20\x21\x23-\x5b\x5d-\x7e]*)")?')
    stages = {}
    for part in timing.split(", "):
        match = metric.fullmatch(part)
        assert match is not None, part
        stages[match[1]] = float(match[2])
    assert list(stages) == ["fetch", "look", "queue", "decode", "encode", "total"]
    parts = sum(seconds for stage, seconds in stages.items() if stage != "total")
    assert parts <= stages["total"] + 1
