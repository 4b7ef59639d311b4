"""Signatures: what was signed is let in, and nothing else is."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from app.errors import SignatureInvalid
from app.signing import Signer

SECRET = b"a-secret-of-16-bytes"
SIGNER = Signer({"k1": SECRET})
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
IDS = st.lists(TEXT.filter(bool).filter(lambda part: "/" not in part), min_size=1, max_size=3).map(
    "/".join
)
PAIRS = st.lists(st.tuples(TEXT.filter(lambda name: name not in ("sig", "exp")), TEXT), max_size=5)


def received(url):
    """A path and parameters as the service decodes them."""
    parts = urlsplit(url)
    return unquote(parts.path), parse_qsl(parts.query, keep_blank_values=True)


def written(key, pairs):
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
    return f"/thumb/{quote(key)}" + (f"?{query}" if pairs else "")


@settings(deadline=None)
@given(IDS, PAIRS, st.none() | st.integers(0, 10**6))
@example("a?b#c%2F", [("w", "200"), ("bg", "rgb(1, 2, 3)"), ("", "")], None)
@example("a", [("a+b", "c d"), ("a b", "c+d")], 60)
def test_what_is_signed_is_verified_as_it_is_received(key, pairs, lifetime):
    expires = None if lifetime is None else int(time.time()) + 5 + lifetime
    signed = SIGNER.sign(written(key, pairs), expires=expires)
    path, found = received(signed)
    assert path == f"/thumb/{key}"
    assert SIGNER.verify(path, found) == expires
    assert SIGNER.verify(path, found[::-1]) == expires
    # Signed again it is the same: an old signature is replaced.
    assert SIGNER.sign(signed, expires=expires) == signed


@settings(deadline=None)
@given(IDS, PAIRS, IDS, PAIRS)
def test_a_signature_holds_for_nothing_else(key, pairs, other_key, other_pairs):
    assume((key, sorted(pairs)) != (other_key, sorted(other_pairs)))
    _, found = received(SIGNER.sign(written(key, pairs)))
    signature = [pair for pair in found if pair[0] == "sig"]
    path, others = received(written(other_key, other_pairs))
    assume((path, sorted(others)) != (f"/thumb/{key}", sorted(pairs)))
    with pytest.raises(SignatureInvalid):
        SIGNER.verify(path, [*others, *signature])


@settings(deadline=None)
@given(st.data())
def test_no_part_of_a_signed_url_can_be_changed(data):
    signed = SIGNER.sign("/thumb/cat.jpg?w=200&h=100", expires=int(time.time()) + 1000)
    at = data.draw(st.integers(0, len(signed) - 1))
    char = data.draw(st.sampled_from("abcXYZ019-_.=&?/%"))
    changed = signed[:at] + char + signed[at + 1 :]
    path, pairs = received(changed)
    same_path, same_pairs = received(signed)
    assume((path, sorted(pairs)) != (same_path, sorted(same_pairs)))
    with pytest.raises(SignatureInvalid):
        SIGNER.verify(path, pairs)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_text_passes_for_a_signature(text):
    for signature in (text, f"k1.{text}", f"k2.{text}", f".{text}"):
        with pytest.raises(SignatureInvalid):
            SIGNER.verify("/thumb/cat.jpg", [("w", "200"), ("sig", signature)])


def test_path_and_parameters_cannot_be_shifted_into_each_other():
    digests = set()
    for path, pairs in (
        ("/thumb/a", [("b", "c")]),
        ("/thumb/a?b=c", []),
        ("/thumb/a\nb=c", []),
        ("/thumb/a", [("b=c", "")]),
        ("/thumb/a", [("", "b=c")]),
        ("/thumb/a", [("b", "c"), ("", "")]),
        ("/thumb/a&b=c", []),
        ("/thumb/a", [("b", "c&d=e")]),
        ("/thumb/a", [("b", "c"), ("d", "e")]),
    ):
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
        _, found = received(SIGNER.sign(f"{quote(path)}?{query}"))
        digests.add(dict(found)["sig"])
        assert SIGNER.verify(path, [*pairs, ("sig", dict(found)["sig"])]) is None
    assert len(digests) == 9


def test_an_absolute_url_is_signed_by_its_path():
    relative = SIGNER.sign("/thumb/cat.jpg?w=9")
    absolute = SIGNER.sign("https://images.example:8443/thumb/cat.jpg?w=9#part")
    assert absolute.startswith("https://images.example:8443/thumb/cat.jpg?w=9&sig=k1.")
    assert absolute.endswith("#part")
    assert received(absolute)[1] == received(relative)[1]


def test_the_first_key_signs_and_all_verify():
    old, new = Signer({"old": SECRET}), Signer({"new": b"x" * 16, "old": SECRET})
    assert dict(received(new.sign("/a"))[1])["sig"].startswith("new.")
    assert new.verify(*received(old.sign("/a"))) is None
    assert new.verify(*received(new.sign("/a"))) is None
    with pytest.raises(SignatureInvalid):
        old.verify(*received(new.sign("/a")))
    # The name of a key is no part of what it signs, but its secret is.
    with pytest.raises(SignatureInvalid):
        Signer({"old": b"y" * 16}).verify(*received(old.sign("/a")))


def test_without_a_key_nothing_is_signed_and_nothing_verified():
    nobody = Signer({})
    assert not nobody
    with pytest.raises(SignatureInvalid):
        nobody.sign("/a")
    with pytest.raises(SignatureInvalid):
        nobody.verify(*received(SIGNER.sign("/a")))
    with pytest.raises(SignatureInvalid):
        nobody.verify("/a", [])


@pytest.mark.parametrize("pairs", [[], [("w", "9")], [("sig", "")], [("sig", "k1.")]])
def test_what_is_not_signed_is_refused(pairs):
    with pytest.raises(SignatureInvalid):
        SIGNER.verify("/a", pairs)


def test_two_signatures_are_none():
    path, pairs = received(SIGNER.sign("/a?w=9"))
    with pytest.raises(SignatureInvalid):
        SIGNER.verify(path, [*pairs, pairs[-1]])


def test_an_expiry_is_replaced_and_one_that_is_passed_is_refused():
    now = int(time.time())
    signed = SIGNER.sign(f"/a?exp={now - 100}&w=9", expires=now + 100)
    path, pairs = received(signed)
    assert [value for name, value in pairs if name == "exp"] == [str(now + 100)]
    assert SIGNER.verify(path, pairs) == now + 100
    for text in (str(now), str(now - 1), "0", "x", "", "-1", "1" * 13, "٣٤", "1.5", " 9999999999"):
        path, pairs = received(SIGNER.sign(f"/a?exp={quote(text)}"))
        with pytest.raises(SignatureInvalid) as caught:
            SIGNER.verify(path, pairs)
        assert caught.value.param == "exp"
