"""Who may do what: loopback, bearer tokens and signatures, as the settings have it."""

from __future__ import annotations

import re
import time
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.signing import Signer
from tests.http import originals as draw

JPEG = draw.jpeg()
KEYS = "k1:a-secret-of-many-letters"
SIGNER = Signer({"k1": b"a-secret-of-many-letters"})
TOKEN = "a-token-that-is-known"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def writes(served, **headers):
    """The statuses of a PUT, a POST, a transform and a DELETE."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    client = served.client
    return [
        client.put("/images/new.jpg", content=JPEG, headers=headers).status_code,
        client.post("/images", content=JPEG, headers=headers).status_code,
        client.post("/transform?w=9", content=JPEG, headers=headers).status_code,
        client.delete("/images/new.jpg", headers=headers).status_code,
    ]


def test_without_tokens_whoever_is_on_this_machine_may_write(serve, folder):
    served = serve()
    assert writes(served) == [201, 201, 200, 204]


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "203.0.113.9"},
        {"x_forwarded_for": "127.0.0.1"},
        {"x_forwarded_for": ""},
        {"forwarded": "for=203.0.113.9"},
    ],
)
def test_without_tokens_whoever_came_through_a_proxy_may_not(serve, folder, headers):
    served = serve()
    before = folder.names()
    assert writes(served, **headers) == [401] * 4
    assert folder.names() == before
    assert served.get("/thumb/cat.jpg?w=9").status_code == 200


def test_with_tokens_only_who_has_one_may_write(serve, folder):
    served = serve(api_tokens=f"another-token-too,{TOKEN}")
    before = folder.names()
    for header in (
        None,
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer",
        "Bearer \xe9",
    ):
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        assert writes(served, **headers) == [401] * 4, header
        assert folder.names() == before
    assert writes(served, authorization="bearer another-token-too") == [201, 201, 200, 204]
    assert writes(served, **BEARER, x_forwarded_for="203.0.113.9")[0] == 201


def test_a_refusal_says_how_to_be_let_in(serve):
    answer = serve(api_tokens=TOKEN).client.delete("/images/a")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["code"] == "unauthorised"


def test_who_may_not_write_is_told_so_before_the_body_is_sent(serve, call):
    served = serve(api_tokens=TOKEN)
    for method, path in (("PUT", "/images/a"), ("POST", "/images"), ("POST", "/transform")):
        caller = call(served).send(path, method=method, headers=[("content-length", "1000")])
        assert caller.read().status == 401


def test_a_token_does_not_stand_in_for_what_is_wrong_with_a_signature(serve, folder):
    served = serve(keys=KEYS, require_signature="all", api_tokens=TOKEN)
    wrong = served.get("/thumb/cat.jpg?w=9&sig=k1.wrong", headers=BEARER)
    assert wrong.status_code == 403


def allowed(served, origin):
    """Which of four requests pass: an id and a URL, each plain and signed."""
    found = []
    for path in ("/thumb/cat.jpg?w=9", f"/thumb?url={quote(origin.url + '/cat.jpg')}&w=9"):
        found += [served.get(path).status_code, served.get(SIGNER.sign(path)).status_code]
    return found


@pytest.mark.parametrize(
    ("required", "statuses"),
    [
        ("off", [200, 200, 200, 200]),
        ("urls", [200, 200, 403, 200]),
        ("all", [403, 200, 403, 200]),
    ],
)
def test_signatures_are_needed_where_the_setting_says(serve, folder, origin, required, statuses):
    served = serve(
        keys=KEYS,
        require_signature=required,
        allowed_sources="127.0.0.1:*",
        allow_private_networks=True,
    )
    assert allowed(served, origin) == statuses
    assert served.get("/images/cat.jpg").status_code == (403 if required == "all" else 200)
    assert served.get(SIGNER.sign("/images/cat.jpg")).status_code == 200


def test_without_keys_a_signature_means_nothing(serve, folder):
    assert serve().get("/thumb/cat.jpg?w=9&sig=k1.wrong&exp=1").status_code == 200


def test_a_signature_does_not_let_a_source_in_that_is_not_allowed(serve, origin):
    served = serve(keys=KEYS, require_signature="urls", allow_private_networks=True)
    path = SIGNER.sign(f"/thumb?url={quote(origin.url + '/cat.jpg')}&w=9")
    assert served.get(path).json()["code"] == "source_refused"
    assert origin.requests == []


@pytest.fixture
def strict(serve, folder):
    return serve(keys=KEYS, require_signature="all", results="off")


def code(served, path, **headers):
    answer = served.get(path, headers=headers)
    return answer.status_code if answer.status_code == 200 else answer.json()["code"]


def test_a_signature_holds_for_one_original_and_one_transform(strict, folder):
    folder.put("dog.jpg", JPEG)
    signed = SIGNER.sign("/thumb/cat.jpg?w=20&h=30")
    assert code(strict, signed) == 200
    for tampered in (
        signed.replace("w=20", "w=21"),
        signed.replace("cat", "dog"),
        signed + "&q=1",
        signed + "&unknown=1",
        signed.replace("h=30&", ""),
        signed.replace("w=20", "width=20"),
        signed.replace("sig=k1", "sig=k2"),
        signed.replace("sig=k1.", "sig="),
        signed[:-1],
        signed + "A",
        signed.replace("sig=", "sig=k1."),
        signed + "&" + signed.partition("&sig")[2].replace("=", "sig=", 1),
        signed.replace("/thumb/", "/images/"),
        signed.partition("&sig=")[0],
        signed.partition("?")[0] + "?sig=",
        signed + "&exp=9999999999",
    ):
        answer = strict.get(tampered)
        assert answer.status_code in (400, 403), tampered
        assert answer.json()["code"] in ("signature_invalid", "invalid_parameter"), tampered


def test_the_order_of_the_parameters_and_their_escapes_do_not_matter(strict):
    signed = SIGNER.sign("/thumb/cat.jpg?w=20&h=30&crop=0.1,0.1,0.5,0.5&bg=rgb(1,2,3)")
    path, _, query = signed.partition("?")
    pairs = parse_qsl(query)
    tags = set()
    for turned in (pairs, pairs[::-1], pairs[2:] + pairs[:2], sorted(pairs)):
        for safe in ("", ",:/()"):
            answer = strict.get(f"{path}?{urlencode(turned, safe=safe)}")
            assert answer.status_code == 200
            tags.add(answer.headers["etag"])
    assert len(tags) == 1


@pytest.mark.parametrize(
    "key", ["plain.jpg", "a b.jpg", "ü/日本.jpg", "a+b.jpg", "100%.jpg", "what?.jpg", "a#b.jpg"]
)
def test_any_id_can_be_signed(strict, folder, key):
    folder.put(key, JPEG)
    for path in (f"/thumb/{quote(key)}?w=20", f"/thumb/{quote(key, safe='')}?w=20"):
        assert code(strict, SIGNER.sign(path)) == 200
        assert code(strict, SIGNER.sign(path, expires=int(time.time()) + 60)) == 200
    assert code(strict, SIGNER.sign(f"/images/{quote(key)}")) == 200
    if "?" in key or "#" in key:
        cut = re.split("[?#]", key)[0]
        other = SIGNER.sign(f"/thumb/{cut}?w=20")
        assert code(strict, other.replace(f"/{cut}?", f"/{quote(key)}?")) == "signature_invalid"


def test_a_signature_does_not_hold_for_another_path_whatever_the_host_is_called(strict, call):
    signed = SIGNER.sign("/thumb/other.jpg?w=20")
    wanted = signed.replace("other", "cat")
    for host in ("x/thumb/other.jpg?", "x/thumb/other.jpg#", "x\\thumb/other.jpg?", "[", "a@b:x"):
        connection = call(strict)
        connection._connection.putrequest("GET", wanted, skip_host=True)
        connection._connection.putheader("host", host)
        connection._connection.endheaders()
        assert connection.read().status in (400, 403), host


def test_what_has_expired_is_refused(strict):
    now = int(time.time())
    assert code(strict, SIGNER.sign("/thumb/cat.jpg?w=20", expires=now + 60)) == 200
    for expires in (now - 1, 1, 0):
        problem = strict.get(SIGNER.sign("/thumb/cat.jpg?w=20", expires=expires))
        assert problem.status_code == 403
        assert problem.json()["param"] == "exp"
    signed = SIGNER.sign("/thumb/cat.jpg?w=20", expires=now - 1)
    assert code(strict, signed.replace(f"exp={now - 1}", f"exp={now + 99}")) == "signature_invalid"


@pytest.mark.parametrize("text", ["soon", "", "-5", "1e99", "9" * 400, "9" * 5000, "٣", "12.5"])
def test_an_expiry_must_be_a_time(strict, text):
    signed = SIGNER.sign(f"/thumb/cat.jpg?w=20&exp={quote(text)}")
    assert code(strict, signed) == "signature_invalid"


def test_the_expiry_is_no_part_of_the_entity_tag(strict):
    now = int(time.time())
    tags = {
        strict.get(SIGNER.sign("/thumb/cat.jpg?w=20", expires=expires)).headers["etag"]
        for expires in (None, now + 60, now + 600)
    }
    assert len(tags) == 1
    assert strict.metric("pixelmill_renders_total") == 1


def test_a_key_rotates_by_standing_first(serve, folder):
    old, new = "old:an-old-secret-of-16", "new:a-new-secret-of-16"
    signed = {
        name: Signer({name: secret.encode()}).sign("/thumb/cat.jpg?w=20")
        for name, secret in (key.split(":") for key in (old, new))
    }
    both, after = (
        serve(keys=keys, require_signature="all", results="off") for keys in (f"{new},{old}", new)
    )
    assert [code(both, signed[name]) for name in ("old", "new")] == [200, 200]
    assert [code(after, signed[name]) for name in ("old", "new")] == ["signature_invalid", 200]


@pytest.mark.parametrize("ttl", [None, 60])
def test_what_the_command_line_signs_is_let_in(strict, monkeypatch, ttl):
    monkeypatch.setenv("PIXELMILL_KEYS", f"{KEYS},k2:another-secret-16")
    arguments = [] if ttl is None else ["--ttl", str(ttl)]
    for url in ("/thumb/cat.jpg?w=20", f"{strict.url}/thumb/cat.jpg?w=30&bg=rgb(1, 2, 3)"):
        run = CliRunner().invoke(cli, ["sign", url, *arguments])
        assert run.exit_code == 0, run.output
        signed = run.output.strip()
        assert code(strict, signed) == 200
        assert ("exp=" in signed) == (ttl is not None)
        assert code(strict, signed.replace("w=", "w=1")) == "signature_invalid"


def test_a_hit_under_a_signature_is_not_for_those_without_one(strict):
    signed = SIGNER.sign("/thumb/cat.jpg?w=20")
    for _ in range(2):
        answer = strict.get(signed)
    assert answer.headers["cache-status"] == "pixelmill-memory; hit"
    plain = signed.partition("&sig=")[0]
    tagged = {"if-none-match": answer.headers["etag"]}
    for path in (plain, signed[:-1], f"{signed}&x=1", plain + "&sig=k1.wrong"):
        for method in ("GET", "HEAD"):
            assert strict.client.request(method, path).status_code == 403
            assert strict.client.request(method, path, headers=tagged).status_code == 403


def test_a_hit_ends_with_its_signature(strict):
    expires = int(time.time()) + 2
    signed = SIGNER.sign("/thumb/cat.jpg?w=20", expires=expires)
    assert strict.get(signed).status_code == 200
    assert strict.get(signed).status_code == 200
    time.sleep(max(0.0, expires - time.time()) + 0.05)
    assert code(strict, signed) == "signature_invalid"
    tagged = {"if-none-match": "*"}
    assert strict.get(signed, headers=tagged).status_code == 403


def test_what_a_token_was_let_to_see_is_not_for_everybody(serve, folder):
    served = serve(keys=KEYS, require_signature="all", api_tokens=TOKEN)
    for path in ("/thumb/cat.jpg?w=20", "/images/cat.jpg"):
        for _ in range(2):
            assert served.get(path, headers=BEARER).status_code == 200
        assert served.get(path).status_code == 403
        assert served.get(path, headers={"if-none-match": "*"}).status_code == 403
        wrong = {"authorization": "Bearer wrong"}
        assert served.get(path, headers=wrong).status_code == 403


def test_what_a_token_was_let_to_see_is_not_for_shared_caches(serve, folder):
    # `public` lets a shared cache keep even the answer to a request with Authorization and give
    # it to others (RFC 9111, 3.5).
    served = serve(keys=KEYS, require_signature="all", api_tokens=TOKEN)
    full = served.get("/thumb/cat.jpg?w=20", headers=BEARER)
    tagged = BEARER | {"if-none-match": full.headers["etag"]}
    for answer in (full, served.get("/thumb/cat.jpg?w=20", headers=tagged)):
        directives = re.split(r"\s*,\s*", answer.headers["cache-control"])
        assert "public" not in directives
        assert {"private", "no-store"} & set(directives)
