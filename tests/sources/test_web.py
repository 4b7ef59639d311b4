"""Originals by URL, from an origin that does what origins do: well, badly and with intent."""

from __future__ import annotations

import asyncio
import gc
import gzip
import hashlib
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from app import outbound
from app.dates import show_http_date as http_date
from app.downloads import Downloads
from app.errors import (
    OriginalChanged,
    OriginalMissing,
    OriginalTooLarge,
    ServiceError,
    SourceFailed,
    SourceRefused,
    SourceTimeout,
)
from app.sources import web
from app.sources.base import Identity, Ref
from app.sources.guard import Guard
from app.sources.origins import Origins
from app.sources.web import WebSource
from app.telemetry import Metrics
from tests.sources.origin import (
    Names,
    Origin,
    Script,
    Wire,
    again_and_again,
    answer,
    chunked,
    cut,
    drip,
    endless,
    gzipped,
    head,
    in_turn,
    jpeg,
    png_head,
    raw,
    redirect,
    running_origin,
    stall,
    stalled_body,
    tls_context,
    until_closed,
    validated,
)
from transforms.errors import BrokenImage, SourceTooLarge, TransformError, UnsupportedFormat
from transforms.limits import Limits

ANY = ("*", "*:*")
PUBLIC, OTHER_PUBLIC = "93.184.216.34", "93.184.216.35"
PRIVATE = "10.0.0.1"
BODY = jpeg()
OTHER_BODY = jpeg(seed=2)
HTML = b"<!doctype html><html><head><title>Sign in</title></head>" + b" " * 100
LONG = 10
"""Seconds within which what has a deadline far below must be over, on the slowest machine."""
MEMORY = 1 << 26
CAP = 1 << 20


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, origin: Origin) -> Wire:
    """Public addresses lead to the origin; whatever else is connected to is noted and refused."""
    wire = Wire({PUBLIC: origin.port, OTHER_PUBLIC: origin.port})
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", wire.connect_tcp)
    return wire


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", tls_context)


def asked_all_the_same() -> Origins:
    """Origins that are asked however often they fail."""
    return Origins(connections=4, pause=0, patience=0)


class Sources:
    """Opens sources, and closes them after the test."""

    def __init__(self) -> None:
        self.opened: list[WebSource] = []
        self.metrics = Metrics()
        self.downloads = Downloads(slots=4, memory=MEMORY, metrics=self.metrics)

    def open(
        self,
        *,
        allowed: tuple[str, ...] = ANY,
        private_networks: bool = True,
        resolver: Any = None,
        **options: Any,
    ) -> WebSource:
        how = {} if resolver is None else {"resolver": resolver}
        chosen = {
            "cap": CAP,
            "limits": Limits(),
            "timeout": 5,
            "redirects": 3,
            "connections": 4,
            "origins": asked_all_the_same(),
            **options,
        }
        source = WebSource(
            Guard(allowed=allowed, private_networks=private_networks, **how),
            downloads=self.downloads,
            **chosen,
        )
        self.opened.append(source)
        return source

    async def all_slots_are_free(self) -> bool:
        """Whether every slot and all memory can be had at once."""
        try:
            async with asyncio.timeout(2), AsyncExitStack() as stack:
                for _ in range(4):
                    await stack.enter_async_context(self.downloads.slot(MEMORY // 4))
        except TimeoutError:
            return False
        return True

    def outcomes(self) -> dict[str, float]:
        """The downloads that were counted, by outcome."""
        return {
            sample.labels["outcome"]: sample.value
            for family in self.metrics.downloads.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["source"] == web.KIND
        }


@pytest.fixture
async def sources() -> AsyncIterator[Sources]:
    sources = Sources()
    yield sources
    for source in sources.opened:
        await source.close()


async def eventually(condition: Callable[[], Any], *, seconds: float = LONG) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.01)
    return True


def sweep() -> None:
    """Collect connections that were left open, so that no other test stumbles over them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# --- what works -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        answer(BODY),
        answer(BODY, content_type="text/html"),
        answer(BODY, content_encoding="identity"),
        until_closed(BODY),
        chunked(BODY),
        chunked(*(BODY[at : at + 7] for at in range(0, len(BODY), 7))),
        raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY),
        raw(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + head(200, {}) + BODY),
    ],
    ids=["plain", "wrong type", "identity", "until closed", "chunked", "in bits", "1.0", "hints"],
)
async def test_an_original_is_identified_by_the_digest_of_its_bytes(
    script: Script, origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", script)
    found = await sources.open().identify(url, None)
    assert found.ref == Ref(web.KIND, url)
    assert found.version == digest(BODY)
    assert found.body == BODY
    assert found.size == len(BODY)


async def test_a_coding_is_identity_in_whatever_case(origin: Origin, sources: Sources) -> None:
    url = origin.serve("/a.jpg", answer(BODY, content_encoding="Identity"))
    assert (await sources.open().identify(url, None)).version == digest(BODY)


async def test_a_query_is_passed_on_and_a_fragment_is_not(origin: Origin, sources: Sources) -> None:
    origin.serve("/a.jpg?x=1&y=%20%2F", answer(BODY))
    found = await sources.open().identify(f"{origin.url}/a.jpg?x=1&y=%20%2F#z", None)
    assert found.body == BODY


async def test_the_origin_is_asked_for_a_picture_as_it_is(origin: Origin, sources: Sources) -> None:
    await sources.open().identify(origin.serve("/a.jpg", answer(BODY)), None)
    (asked,) = origin.asked
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["host"] == f"127.0.0.1:{origin.port}"
    for name in ("cookie", "authorization", "referer", "x-forwarded-for", "if-none-match"):
        assert name not in asked.headers


async def test_a_connection_that_the_origin_has_closed_is_replaced(
    origin: Origin, sources: Sources
) -> None:
    source = sources.open()
    url = origin.serve("/a.jpg", raw(head(200, {"content-length": str(len(BODY))}) + BODY))
    for _ in range(3):
        assert (await source.identify(url, None)).body == BODY
        await asyncio.sleep(0.1)  # for the end of the connection to arrive
    assert origin.connections == 3


async def test_each_answer_has_a_connection_of_its_own(origin: Origin, sources: Sources) -> None:
    source = sources.open(connections=2)
    urls = [origin.serve(f"/{number}.jpg", answer(BODY)) for number in range(8)]
    for url in urls[:2]:
        await source.identify(url, None)
    found = await asyncio.gather(*(source.identify(url, None) for url in urls[2:]))
    assert all(identity.body == BODY for identity in found)
    assert origin.connections == len(origin.asked) == 8


async def test_one_request_leaves_nothing_behind_for_the_next(
    origin: Origin, sources: Sources
) -> None:
    source = sources.open()
    first = origin.serve("/a.jpg", answer(BODY, set_cookie="session=of-somebody; Path=/"))
    second = origin.serve("/b.jpg", answer(BODY))
    await source.identify(first, None)
    await source.identify(second, None)
    assert "cookie" not in origin.asked[1].headers
    assert not source._outbound._client.cookies


# --- the address that was checked -------------------------------------------------------------


async def test_the_connection_goes_to_the_address_that_was_checked(
    wire: Wire, origin: Origin, sources: Sources
) -> None:
    names = Names({"pictures.example": [PUBLIC]})
    origin.serve("/a.jpg", answer(BODY))
    source = sources.open(private_networks=False, resolver=names)
    found = await source.identify("http://pictures.example/a.jpg", None)
    assert found.body == BODY
    assert wire.attempts == [(PUBLIC, 80)]
    assert origin.asked[0].headers["host"] == "pictures.example"


async def test_a_resolver_is_asked_once_for_each_connection(
    wire: Wire, origin: Origin, sources: Sources
) -> None:
    names = Names({"pictures.example": [PUBLIC]})
    origin.serve("/kept.jpg", answer(BODY))
    origin.serve("/closed.jpg", until_closed(BODY))
    source = sources.open(private_networks=False, resolver=names)
    for name in ("kept", "kept", "closed", "closed", "kept"):
        await source.identify(f"http://pictures.example/{name}.jpg", None)
    assert len(names.asked) == len(wire.attempts) == origin.connections


async def test_a_resolver_that_changes_its_answer_gains_nothing(
    wire: Wire, origin: Origin, sources: Sources
) -> None:
    names = Names({"pictures.example": [[PUBLIC], [PRIVATE]]})
    origin.serve("/a.jpg", until_closed(BODY))
    source = sources.open(private_networks=False, resolver=names)
    found = await source.identify("http://pictures.example/a.jpg", None)
    assert found.body == BODY
    assert (len(names.asked), wire.attempts) == (1, [(PUBLIC, 80)])

    for again in (
        source.identify("http://pictures.example/a.jpg", found),
        source.fetch(replace(found, body=None)),
    ):
        with pytest.raises(SourceRefused):
            await again
    assert (len(names.asked), wire.attempts) == (3, [(PUBLIC, 80)])


async def test_a_private_address_among_others_is_not_tried(wire: Wire, sources: Sources) -> None:
    for addresses in ([PUBLIC, PRIVATE], [PRIVATE, PUBLIC], [PUBLIC, "::ffff:127.0.0.1"]):
        names = Names({"mixed.example": addresses})
        with pytest.raises(SourceRefused):
            await sources.open(private_networks=False, resolver=names).identify(
                "http://mixed.example/a.jpg", None
            )
    assert wire.attempts == []


async def test_the_next_address_is_tried_where_one_does_not_answer(
    wire: Wire, origin: Origin, sources: Sources
) -> None:
    names = Names({"pictures.example": ["93.184.216.1", "2606:4700::1", PUBLIC, OTHER_PUBLIC]})
    origin.serve("/a.jpg", answer(BODY))
    source = sources.open(private_networks=False, resolver=names)
    assert (await source.identify("http://pictures.example/a.jpg", None)).body == BODY
    assert wire.attempts == [("93.184.216.1", 80), ("2606:4700::1", 80), (PUBLIC, 80)]


async def test_an_origin_that_nobody_reaches_has_failed(wire: Wire, sources: Sources) -> None:
    names = Names({"pictures.example": ["93.184.216.1", "93.184.216.2"]})
    with pytest.raises(SourceFailed):
        await sources.open(private_networks=False, resolver=names).identify(
            "https://pictures.example/a.jpg", None
        )
    assert wire.attempts == [("93.184.216.1", 443), ("93.184.216.2", 443)]


async def test_a_resolver_that_never_answers_ends_at_the_deadline(
    wire: Wire, sources: Sources
) -> None:
    async def silent(host: str, port: int) -> list[str]:
        await asyncio.sleep(3600)
        return [PUBLIC]

    async with asyncio.timeout(LONG):
        with pytest.raises(SourceTimeout):
            await sources.open(resolver=silent, timeout=0.2).identify(
                "http://pictures.example/a.jpg", None
            )
    assert wire.attempts == []
    assert await sources.all_slots_are_free()


async def test_proxies_of_the_environment_are_ignored(
    origin: Origin, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_origin() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        found = await sources.open().identify(origin.serve("/a.jpg", answer(BODY)), None)
        assert found.body == BODY
        assert (proxy.connections, origin.connections) == (0, 1)


async def test_sockets_of_the_file_system_are_not_sources(sources: Sources) -> None:
    backend = outbound._GuardedBackend(Guard(allowed=ANY, private_networks=True))
    with pytest.raises(SourceRefused):
        await backend.connect_unix_socket("/var/run/docker.sock")


# --- redirects --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status: int, origin: Origin, sources: Sources) -> None:
    url = origin.serve("/a", redirect("/b", status=status))
    origin.serve("/b", answer(BODY))
    found = await sources.open().identify(url, None)
    assert found.body == BODY
    assert found.ref == Ref(web.KIND, url)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("b.jpg", "/dir/b.jpg"),
        ("../b.jpg", "/b.jpg"),
        ("/b.jpg?c=d", "/b.jpg?c=d"),
        ("?c=d", "/dir/a?c=d"),
        ("//127.0.0.1:{port}/b.jpg", "/b.jpg"),
        ("http://127.0.0.1:{port}/b.jpg#part", "/b.jpg"),
        ("HTTP://127.0.0.1:{port}/b.jpg", "/b.jpg"),
    ],
)
async def test_a_relative_redirect_is_read_from_where_it_stands(
    location: str, path: str, origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/dir/a", redirect(location.format(port=origin.port)))
    origin.serve(path, answer(BODY))
    assert (await sources.open().identify(url, None)).body == BODY


async def test_as_many_redirects_as_are_allowed_are_followed_and_no_more(
    origin: Origin, sources: Sources
) -> None:
    for hop in range(4):
        origin.serve(f"/{hop}", redirect(f"/{hop + 1}"))
    origin.serve("/4", answer(BODY))
    source = sources.open(redirects=3)
    assert (await source.identify(f"{origin.url}/1", None)).body == BODY
    origin.asked.clear()
    with pytest.raises(SourceFailed, match="redirects"):
        await source.identify(f"{origin.url}/0", None)
    assert [asked.path for asked in origin.asked] == ["/0", "/1", "/2", "/3"]


async def test_no_redirect_is_followed_where_none_is_allowed(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a", redirect("/b"))
    origin.serve("/b", answer(BODY))
    with pytest.raises(SourceFailed):
        await sources.open(redirects=0).identify(url, None)
    assert origin.count("/b") == 0


@pytest.mark.parametrize(
    "hops", [{"/a": "/a"}, {"/a": "/b", "/b": "/a"}], ids=["itself", "each other"]
)
async def test_a_loop_of_redirects_ends(
    hops: dict[str, str], origin: Origin, sources: Sources
) -> None:
    for path, location in hops.items():
        origin.serve(path, redirect(location))
    with pytest.raises(SourceFailed):
        await sources.open().identify(f"{origin.url}/a", None)
    assert len(origin.asked) <= 4
    assert await sources.all_slots_are_free()


async def test_a_redirect_that_leads_nowhere_is_a_fault_of_the_source(
    origin: Origin, sources: Sources
) -> None:
    for number, script in enumerate(
        [
            answer(b"", status=302),
            redirect(""),
            redirect("http://[::1"),
            redirect("http://127.0.0.1:99999/"),
            answer(b"", status=300),
            answer(b"", status=304),
        ]
    ):
        url = origin.serve(f"/{number}", script)
        with pytest.raises(SourceFailed):
            await sources.open().identify(url, None)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/b.jpg",
        "http://127.1/b.jpg",
        "http://2130706433/b.jpg",
        "http://[::1]/b.jpg",
        "http://[::ffff:127.0.0.1]/b.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "http://inner.example/b.jpg",
        "//inner.example/b.jpg",
    ],
)
async def test_a_redirect_to_a_private_address_is_refused(
    target: str, wire: Wire, origin: Origin, sources: Sources
) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        known = {"pictures.example": PUBLIC, "inner.example": PRIVATE}
        # numbers and addresses mean what they mean; nobody is asked for names
        numbers = {"127.1": "127.0.0.1", "2130706433": "127.0.0.1"}
        return [known.get(host) or numbers.get(host) or host]

    origin.serve("/a.jpg", redirect(target))
    source = sources.open(private_networks=False, resolver=resolver)
    with pytest.raises(SourceRefused) as caught:
        await source.identify("http://pictures.example/a.jpg", None)
    assert caught.value.param == "url"
    assert wire.attempts == [(PUBLIC, 80)]


async def test_a_redirect_from_one_host_of_the_list_to_another_is_followed(
    wire: Wire, origin: Origin, sources: Sources
) -> None:
    names = Names({"a.example": [PUBLIC], "b.example": [OTHER_PUBLIC]})
    origin.serve("/a.jpg", redirect("http://b.example/b.jpg"))
    origin.serve("/b.jpg", answer(BODY))
    source = sources.open(
        allowed=("a.example", "b.example"), private_networks=False, resolver=names
    )
    assert (await source.identify("http://a.example/a.jpg", None)).body == BODY
    assert wire.attempts == [(PUBLIC, 80), (OTHER_PUBLIC, 80)]


@pytest.mark.parametrize(
    "target",
    ["http://b.example/b.jpg", "http://a.example:8080/b.jpg", "http://a.example.evil.org/b.jpg"],
)
async def test_a_redirect_to_a_host_that_is_not_of_the_list_is_refused(
    target: str, wire: Wire, origin: Origin, sources: Sources
) -> None:
    names = Names({"a.example": [PUBLIC], "b.example": [OTHER_PUBLIC]})
    origin.serve("/a.jpg", redirect(target))
    source = sources.open(allowed=("a.example",), private_networks=False, resolver=names)
    with pytest.raises(SourceRefused):
        await source.identify("http://a.example/a.jpg", None)
    assert names.asked == ["a.example"]
    assert wire.attempts == [(PUBLIC, 80)]


@pytest.mark.parametrize("target", ["http://b.example/b.jpg", "http://a.example/b.jpg"])
async def test_a_redirect_from_https_to_http_is_refused(
    target: str, wire: Wire, sources: Sources
) -> None:
    names = Names({"a.example": ["93.184.216.1"], "b.example": [OTHER_PUBLIC]})
    wire.routes["93.184.216.1"] = head(302, {"location": target, "content-length": "0"})
    source = sources.open(private_networks=False, resolver=names)
    with pytest.raises(SourceRefused):
        await source.identify("https://a.example/a.jpg", None)
    assert wire.attempts == [("93.184.216.1", 443)]


@pytest.mark.parametrize("target", ["https://b.example/b.jpg", "HTTPS://b.example/b.jpg", "/b.jpg"])
async def test_a_redirect_from_https_to_https_is_followed(
    target: str, wire: Wire, sources: Sources
) -> None:
    names = Names({"a.example": [["93.184.216.1"], ["93.184.216.2"]], "b.example": [OTHER_PUBLIC]})
    wire.routes["93.184.216.1"] = head(302, {"location": target, "connection": "close"})
    good = head(200, {"content-length": str(len(BODY))}) + BODY
    wire.routes["93.184.216.2"] = wire.routes[OTHER_PUBLIC] = good
    source = sources.open(private_networks=False, resolver=names)
    assert (await source.identify("https://a.example/a.jpg", None)).body == BODY
    assert [port for _, port in wire.attempts] == [443, 443]


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "ftp://127.0.0.1/b.jpg",
        "gopher://127.0.0.1:6379/_INFO",
        "data:image/gif;base64,R0lGODlh",
        "javascript:alert(1)",
        "http://user:secret@127.0.0.1/b.jpg",
        "http://user@127.0.0.1/b.jpg",
        "http://@127.0.0.1/b.jpg",
        "/with a space.jpg",
    ],
)
async def test_a_redirect_that_cannot_be_followed_is_the_fault_of_the_origin_not_of_the_request(
    target: str, origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", redirect(target))
    with pytest.raises((SourceRefused, SourceFailed)):
        await sources.open().identify(url, None)
    assert len(origin.asked) == 1


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(5)])
async def test_an_origin_that_does_not_speak_tls_is_a_fault_of_the_source(
    greeting: bytes, origin: Origin, sources: Sources
) -> None:
    origin.greeting = greeting
    with pytest.raises(SourceFailed):
        await sources.open().identify(f"https://127.0.0.1:{origin.port}/a.jpg", None)
    assert await sources.all_slots_are_free()


async def test_a_tls_handshake_that_stalls_ends_at_the_deadline(
    origin: Origin, sources: Sources
) -> None:
    try:
        async with asyncio.timeout(LONG):
            with pytest.raises(SourceTimeout):
                await sources.open(timeout=0.3).identify(f"https://127.0.0.1:{origin.port}/", None)
        assert await sources.all_slots_are_free()
    finally:
        sweep()


async def test_a_tls_handshake_that_is_given_up_closes_its_connection(
    origin: Origin, sources: Sources
) -> None:
    source = sources.open(timeout=60)
    gc.disable()  # what closes connections must not be chance
    try:
        for number in range(1, 5):
            task = asyncio.create_task(source.identify(f"https://127.0.0.1:{origin.port}/", None))
            assert await eventually(lambda number=number: origin.connections == number)
            await asyncio.sleep(0.05)  # for the handshake to begin
            task.cancel()
            await asyncio.wait([task])
            del task
        assert await eventually(lambda: origin.open_connections == 0, seconds=2)
    finally:
        gc.enable()
        sweep()


# --- bodies -----------------------------------------------------------------------------------


async def test_a_declared_length_over_the_cap_is_refused_before_the_body(
    origin: Origin, sources: Sources
) -> None:
    async with asyncio.timeout(LONG):
        for declared in (CAP + 1, 10**15):
            url = origin.serve("/a.jpg", stalled_body(b"", declared=declared))
            with pytest.raises(OriginalTooLarge):
                await sources.open(timeout=60).identify(url, None)
            assert await eventually(origin.asked[-1].left.is_set)


@pytest.mark.parametrize("framed", [False, True], ids=["until closed", "chunked"])
async def test_a_body_without_a_length_is_cut_at_the_cap(
    framed: bool, origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", endless(BODY, framed=framed))
    with pytest.raises(OriginalTooLarge):
        await sources.open().identify(url, None)
    assert await eventually(origin.asked[0].left.is_set)
    assert await sources.all_slots_are_free()


async def test_the_cap_is_exact(origin: Origin, sources: Sources) -> None:
    scripts = (answer(BODY), until_closed(BODY), chunked(BODY[:9], BODY[9:]))
    for number, script in enumerate(scripts):
        url = origin.serve(f"/{number}", script)
        assert (await sources.open(cap=len(BODY)).identify(url, None)).body == BODY
        with pytest.raises(OriginalTooLarge):
            await sources.open(cap=len(BODY) - 1).identify(url, None)


@pytest.mark.parametrize(
    "script",
    [
        cut(BODY, 0),
        cut(BODY, 10),
        cut(BODY, len(BODY) - 1),
        raw(head(200, {"transfer-encoding": "chunked"}) + b"ffff\r\n" + BODY),
        raw(head(200, {"transfer-encoding": "chunked"}) + b"%x\r\n%s\r\n" % (len(BODY), BODY)),
        raw(head(200, {"transfer-encoding": "chunked"}) + b"no number\r\n" + BODY),
        raw(head(200, {"content-length": "-1"}) + BODY),
        raw(head(200, {"content-length": "1e3"}) + BODY),
        raw(head(200, {"content-length": "5, 6"}) + BODY),
        raw(head(200, {"transfer-encoding": "gzip"}) + BODY),
        raw(b"HTTP/1.1 200 OK\r\ncontent-le"),
        raw(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n"),
        raw(b"HTTP/1.1 999999 OK\r\n\r\n"),
        raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        raw(b"-ERR unknown command 'GET'\r\n"),
        raw(bytes(range(256)) * 16),
        raw(BODY),
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\n" + b"x-long: " + b"a" * 300_000 + b"\r\n\r\n"),
    ],
    ids=[
        *("no body", "cut early", "cut late", "chunk cut", "last chunk missing", "chunk size"),
        *("negative length", "length 1e3", "two lengths", "transfer gzip"),
        *("head cut", "no colon", "space before colon", "status", "switching", "ssh", "redis"),
        *("bytes", "bare picture", "nothing", "long header"),
    ],
)
async def test_an_answer_that_is_cut_or_is_not_http_is_a_fault_of_the_source(
    script: Script, origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", script)
    with pytest.raises(SourceFailed):
        await sources.open().identify(url, None)
    assert await sources.all_slots_are_free()


async def test_a_length_that_is_too_short_makes_a_short_body(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", answer(BODY, content_length="100", connection="close"))
    assert (await sources.open().identify(url, None)).body == BODY[:100]


async def test_bytes_after_the_body_do_not_become_the_next_answer(
    origin: Origin, sources: Sources
) -> None:
    smuggled = head(200, {"content-length": str(len(OTHER_BODY))}) + OTHER_BODY
    first = head(200, {"content-length": str(len(BODY))}) + BODY + smuggled
    source = sources.open()
    one = await source.identify(origin.serve("/a.jpg", raw(first, keep=True)), None)
    assert one.body == BODY
    third = jpeg(seed=3)
    two = await source.identify(origin.serve("/b.jpg", answer(third)), None)
    assert two.body == third


@pytest.mark.parametrize(
    "script",
    [
        stall(),
        stall(b"HTTP/1.1 200 OK\r\n"),
        stalled_body(b""),
        stalled_body(BODY[:100]),
        drip(BODY, pause=0.02),
        again_and_again(b"HTTP/1.1 100 Continue\r\n\r\n"),
        redirect("/stalls"),
    ],
    ids=["silent", "in head", "in body", "in picture", "drip", "interim", "redirected"],
)
async def test_a_slow_origin_ends_at_the_deadline(
    script: Script, origin: Origin, sources: Sources
) -> None:
    origin.serve("/stalls", stall())
    url = origin.serve("/a.jpg", script)
    async with asyncio.timeout(LONG):
        with pytest.raises(SourceTimeout):
            await sources.open(timeout=0.3).identify(url, None)
    assert await eventually(origin.asked[-1].left.is_set)
    assert await sources.all_slots_are_free()


async def test_waiting_for_a_slot_counts_towards_the_deadline(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", answer(BODY))
    async with asyncio.timeout(LONG), AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(sources.downloads.slot(1))
        with pytest.raises(SourceTimeout):
            await sources.open(timeout=0.3).identify(url, None)
    assert origin.connections == 0
    assert (await sources.open().identify(url, None)).body == BODY


async def test_what_is_refused_takes_no_slot(sources: Sources) -> None:
    async with asyncio.timeout(LONG), AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(sources.downloads.slot(1))
        with pytest.raises(SourceRefused):
            await sources.open(allowed=(), timeout=60).identify("http://a.example/", None)


@pytest.mark.parametrize("named", ["gzip", "x-gzip", "GZIP", "br", "deflate", "identity, gzip"])
async def test_a_compressed_answer_is_refused(named: str, origin: Origin, sources: Sources) -> None:
    url = origin.serve("/a.jpg", gzipped(BODY, named=named))
    with pytest.raises(SourceFailed, match="compressed"):
        await sources.open().identify(url, None)


async def test_a_compressed_answer_that_does_not_say_so_is_no_picture(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", answer(gzip.compress(BODY)))
    with pytest.raises(UnsupportedFormat):
        await sources.open().identify(url, None)


async def test_a_page_is_refused_by_its_first_bytes(origin: Origin, sources: Sources) -> None:
    async with asyncio.timeout(LONG):
        url = origin.serve("/a.jpg", stalled_body(HTML))
        with pytest.raises(UnsupportedFormat):
            await sources.open(timeout=60).identify(url, None)
        assert await eventually(origin.asked[0].left.is_set)


async def test_the_origin_notices_that_a_page_is_not_read_to_its_end(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", endless(HTML))
    with pytest.raises(UnsupportedFormat):
        await sources.open(cap=1 << 40).identify(url, None)
    assert await eventually(origin.asked[0].left.is_set)


@pytest.mark.parametrize(
    "first",
    [
        png_head(65_536, 65_536),
        b"GIF89a\xff\xff\xff\xff" + bytes(30),
        b"\xff\xd8\xff\xe0\0\4\0\0\xff\xc2\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0" + bytes(30),
    ],
    ids=["png", "gif", "jpeg"],
)
async def test_a_pixel_bomb_is_refused_from_its_first_chunk(
    first: bytes, origin: Origin, sources: Sources
) -> None:
    async with asyncio.timeout(LONG):
        for number, script in enumerate((stalled_body(first), endless(first))):
            url = origin.serve(f"/{number}", script)
            with pytest.raises(SourceTooLarge):
                await sources.open(timeout=60, cap=1 << 40).identify(url, None)
            assert await eventually(origin.asked[number].left.is_set)


async def test_an_empty_body_is_a_broken_picture(origin: Origin, sources: Sources) -> None:
    for number, script in enumerate((answer(b""), until_closed(b""), chunked())):
        with pytest.raises(BrokenImage):
            await sources.open().identify(origin.serve(f"/{number}", script), None)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, OriginalMissing),
        (410, OriginalMissing),
        (201, SourceFailed),
        (204, SourceFailed),
        (206, SourceFailed),
        (304, SourceFailed),
        (400, SourceFailed),
        (401, SourceFailed),
        (403, SourceFailed),
        (407, SourceFailed),
        (429, SourceFailed),
        (500, SourceFailed),
        (503, SourceFailed),
    ],
)
async def test_what_an_origin_answers_is_told(
    status: int, error: type[ServiceError], origin: Origin, sources: Sources
) -> None:
    bodiless = status in (204, 304)
    url = origin.serve("/a.jpg", raw(head(status, {})) if bodiless else answer(BODY, status=status))
    with pytest.raises(error) as caught:
        await sources.open().identify(url, None)
    if error is SourceFailed:
        assert str(status) in caught.value.detail


# --- validators and versions ------------------------------------------------------------------

SHORT = 8192
"""Bytes of headers that any server takes."""
MONDAY = "Mon, 05 Jan 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("etag", "modified", "sent"),
    [
        ('"abc"', None, {"if-none-match": '"abc"'}),
        ('W/"abc"', None, {"if-none-match": 'W/"abc"'}),
        (None, MONDAY, {"if-modified-since": MONDAY}),
        ('"abc"', MONDAY, {"if-none-match": '"abc"', "if-modified-since": MONDAY}),
    ],
    ids=["etag", "weak etag", "date", "both"],
)
async def test_an_origin_is_asked_for_changes_by_the_validators_it_gave(
    etag: str | None,
    modified: str | None,
    sent: dict[str, str],
    origin: Origin,
    sources: Sources,
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag=etag, modified=modified))
    source = sources.open()
    known = replace(await source.identify(url, None), body=None)
    again = await source.identify(url, known)
    assert again == known
    assert again.body is None
    asked = origin.asked[1].headers
    assert {name: value for name, value in asked.items() if name.startswith("if-")} == sent


async def test_an_original_that_was_replaced_has_another_version(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag='"1"'))
    source = sources.open()
    known = replace(await source.identify(url, None), body=None)
    origin.serve("/a.jpg", validated(OTHER_BODY, etag='"2"'))
    again = await source.identify(url, known)
    assert (again.version, again.body) == (digest(OTHER_BODY), OTHER_BODY)
    assert again.validators == (("if-none-match", '"2"'),)


async def test_the_same_bytes_are_the_same_version_whatever_the_origin_says_of_them(
    origin: Origin, sources: Sources
) -> None:
    source = sources.open()
    url = origin.serve("/a.jpg", validated(BODY, etag='"1"', modified=MONDAY))
    one = await source.identify(url, None)
    origin.serve("/a.jpg", answer(BODY))
    assert (await source.identify(url, one)).version == one.version


async def test_an_origin_without_validators_is_asked_for_the_whole(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", answer(BODY))
    source = sources.open()
    known = replace(await source.identify(url, None), body=None)
    assert known.validators == ()
    again = await source.identify(url, known)
    assert again.body == BODY
    assert not any(name.startswith("if-") for name in origin.asked[1].headers)


async def test_validators_are_for_the_url_that_gave_them_and_for_no_other(
    origin: Origin, sources: Sources
) -> None:
    """Two pictures may have the same entity tag: it means something beside its own URL only."""
    url = origin.serve("/a.jpg", redirect("/one.jpg"))
    origin.serve("/one.jpg", validated(BODY, etag='"1"'))
    origin.serve("/two.jpg", validated(OTHER_BODY, etag='"1"'))
    source = sources.open()
    known = replace(await source.identify(url, None), body=None)
    assert (await source.identify(url, known)).version == digest(BODY)
    origin.serve("/a.jpg", redirect("/two.jpg"))
    assert (await source.identify(url, known)).version == digest(OTHER_BODY)


async def test_an_entity_tag_beyond_ascii_does_not_stand_in_the_way_of_asking_again(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag='"caf\xe9"'))
    source = sources.open()
    known = replace(await source.identify(url, None), body=None)
    assert (await source.identify(url, known)).version == digest(BODY)


async def test_validators_of_unreasonable_length_are_not_remembered(
    origin: Origin, sources: Sources
) -> None:
    """Thousands of originals are remembered, and what an origin says may take 100 kB."""
    for number, given in enumerate(({"etag": f'"{"a" * 50_000}"'}, {"modified": "a" * 50_000})):
        url = origin.serve(f"/{number}", validated(BODY, **given))
        source = sources.open()
        known = replace(await source.identify(url, None), body=None)
        assert sum(len(value) for _, value in known.validators) < SHORT
        assert (await source.identify(url, known)).version == known.version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MONDAY, MONDAY),
        ("Mon, 05 Jan 2026 12:00:00 +0200", MONDAY),
        ("Mon, 05 Jan 2026 10:00:00 -0000", MONDAY),
        ("Mon, 05 Jan 2026 10:00:00", MONDAY),
        ("yesterday", None),
        ("0", None),
        ("Mon, 99 Jan 2026 10:00:00 GMT", None),
        ("Mon, 05 Jan 2026 10:00:00 +9999", None),
        ("Fri, 31 Dec 9999 23:59:59 -0200", None),
        ("Mon, 05 Jan 99999999999999999999 10:00:00 GMT", None),
        ("Mon, 05 Jan 2026 10:00:00 +99999999999999999999", None),
    ],
)
async def test_a_date_of_the_origin_is_a_moment_or_nothing(
    text: str,
    expected: str | None,
    origin: Origin,
    sources: Sources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    url = origin.serve("/a.jpg", answer(BODY, last_modified=text))
    try:
        found = await sources.open().identify(url, None)
        shown = None if found.modified is None else http_date(found.modified)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert shown == expected
    assert found.modified is None or found.modified.tzinfo is not None


@pytest.mark.parametrize(
    "text",
    ["Mon, 05 Jan 2026 10:00:00", "Mon, 05 Jan 99999999999999999999 10:00:00 GMT"],
    ids=["no zone", "no year"],
)
def test_a_strange_date_of_the_origin_does_not_keep_a_picture_from_its_client(
    text: str, origin: Origin, open_served: Any
) -> None:
    url = origin.serve("/a.jpg", answer(BODY, last_modified=text))
    response = open_served().get(
        "/thumb", params={"url": url, "w": "8"}, headers={"if-modified-since": MONDAY}
    )
    assert response.status_code in (200, 304)


async def test_a_body_that_was_carried_is_not_downloaded_again(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", answer(BODY))
    source = sources.open()
    found = await source.identify(url, None)
    assert await source.fetch(found) == BODY
    assert len(origin.asked) == 1


async def test_a_body_that_was_not_carried_is_downloaded_without_conditions(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag='"1"'))
    source = sources.open()
    found = await source.identify(url, None)
    assert await source.fetch(replace(found, body=None)) == BODY
    assert "if-none-match" not in origin.asked[1].headers


async def test_fetching_a_version_that_has_gone_tells_that_the_original_changed(
    origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", in_turn(answer(BODY), answer(OTHER_BODY)))
    source = sources.open()
    found = await source.identify(url, None)
    with pytest.raises(OriginalChanged):
        await source.fetch(replace(found, body=None))


async def test_fetching_checks_the_url_anew(wire: Wire, sources: Sources) -> None:
    names = Names({"a.example": [PRIVATE]})
    source = sources.open(allowed=("a.example",), private_networks=False, resolver=names)
    for host in ("a.example", "b.example"):
        ref = Ref(web.KIND, f"http://{host}/a.jpg")
        with pytest.raises(SourceRefused):
            await source.fetch(Identity(ref=ref, version="1", size=1))
    assert wire.attempts == []


# --- nothing is left over ---------------------------------------------------------------------


async def test_after_a_hundred_failures_a_good_request_works(
    origin: Origin, sources: Sources
) -> None:
    failures = [
        origin.serve("/stall", stall()),
        origin.serve("/stalled", stalled_body(BODY[:50])),
        origin.serve("/cut", cut(BODY, 50)),
        origin.serve("/garbage", raw(b"garbage\r\n\r\n")),
        origin.serve("/closed", raw(b"")),
        origin.serve("/fault", answer(b"fault", status=500)),
        origin.serve("/missing", answer(b"missing", status=404)),
        origin.serve("/page", endless(HTML)),
        origin.serve("/bomb", endless(png_head(65_536, 65_536))),
        origin.serve("/loop", redirect("/loop")),
        origin.serve("/file", redirect("file:///etc/passwd")),
        origin.serve("/large", endless(BODY)),
        origin.serve("/declared", stalled_body(b"", declared=10**12)),
        origin.serve("/gzip", gzipped(BODY)),
        "http://127.0.0.1:1/a.jpg",
        "http://nobody.example/a.jpg",
    ]
    good = origin.serve("/good.jpg", answer(BODY))

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "127.0.0.1" else []

    source = sources.open(timeout=0.4, resolver=resolver)
    errors: list[BaseException] = []
    for start in range(0, 100, 10):
        batch = [failures[number % len(failures)] for number in range(start, start + 10)]
        found = await asyncio.gather(
            *(source.identify(url, None) for url in batch), return_exceptions=True
        )
        errors += [error for error in found if isinstance(error, BaseException)]
    assert len(errors) == 100
    assert all(isinstance(error, (ServiceError, TransformError)) for error in errors), errors

    for _ in range(10):  # its deadline is short for a machine that is busy
        with suppress(SourceTimeout):
            assert (await source.identify(good, None)).body == BODY
            break
    else:
        pytest.fail("no good request worked")
    assert await sources.all_slots_are_free()
    assert await eventually(lambda: origin.open_connections == 0)


async def test_requests_that_are_cancelled_leave_nothing_behind(
    origin: Origin, sources: Sources
) -> None:
    stalls = [origin.serve("/stall", stall()), origin.serve("/body", stalled_body(BODY[:50]))]
    good = origin.serve("/good.jpg", answer(BODY))
    source = sources.open(timeout=60)
    for _ in range(5):
        before = len(origin.asked)
        tasks = [asyncio.create_task(source.identify(stalls[n % 2], None)) for n in range(8)]
        assert await eventually(lambda before=before: len(origin.asked) >= before + 4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await eventually(lambda: all(asked.left.is_set() for asked in origin.asked))
    assert (await source.identify(good, None)).body == BODY
    assert await sources.all_slots_are_free()


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (answer(BODY), "complete"),
        (answer(b"", status=404), "original_missing"),
        (answer(b"", status=500), "source_failed"),
        (answer(HTML), "unsupported_format"),
        (cut(BODY, 50), "source_failed"),
        (raw(b"garbage"), "source_failed"),
        (stall(), "source_timeout"),
    ],
    ids=["good", "missing", "fault", "page", "cut", "garbage", "stall"],
)
async def test_a_download_is_counted_once_by_its_outcome(
    script: Script, outcome: str, origin: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", script)
    try:
        await sources.open(timeout=0.3 if outcome == "source_timeout" else LONG).identify(url, None)
    except (ServiceError, TransformError) as error:
        assert error.code == outcome  # noqa: PT017 - the good one raises nothing
    assert sources.outcomes() == {outcome: 1}


# --- over HTTP --------------------------------------------------------------------------------


@pytest.fixture
def open_served(serve: Any) -> Callable[..., Any]:
    def start(**options: Any) -> Any:
        return serve(
            **{"allowed_sources": ANY, "allow_private_networks": True, **options},
        )

    return start


def test_a_url_becomes_a_picture(origin: Origin, open_served: Any) -> None:
    url = origin.serve("/a.jpg", answer(jpeg(200, 100)))
    response = open_served().get("/thumb", params={"url": url, "w": "50", "fm": "png"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.content[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(response.content[16:20], "big") == 50
    assert int.from_bytes(response.content[20:24], "big") == 25


def test_the_modification_date_of_the_origin_is_passed_on(origin: Origin, open_served: Any) -> None:
    url = origin.serve("/a.jpg", answer(BODY, last_modified=MONDAY))
    response = open_served().get("/thumb", params={"url": url, "w": "8"})
    assert response.headers["last-modified"] == MONDAY


def test_within_its_freshness_the_origin_is_not_asked_again(
    origin: Origin, open_served: Any
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag='"1"'))
    served = open_served(freshness="1h")
    first = served.get("/thumb", params={"url": url, "w": "8"})
    for headers in ({}, {"accept": "image/*"}, {"if-none-match": first.headers["etag"]}):
        again = served.get("/thumb", params={"url": url, "w": "8"}, headers=headers)
        assert again.status_code in (200, 304)
        assert again.headers["etag"] == first.headers["etag"]
    assert len(origin.asked) == 1


def test_after_its_freshness_the_origin_is_asked_for_changes(
    origin: Origin, open_served: Any
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag='"1"'))
    served = open_served(freshness="50ms")
    first = served.get("/thumb", params={"url": url, "w": "8"})
    time.sleep(0.2)
    again = served.get("/thumb", params={"url": url, "w": "8"})
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"']

    origin.serve("/a.jpg", validated(OTHER_BODY, etag='"2"'))
    time.sleep(0.2)
    changed = served.get("/thumb", params={"url": url, "w": "8"})
    assert changed.headers["etag"] != first.headers["etag"]
    assert len(origin.asked) == 3


def test_without_freshness_the_origin_is_asked_for_changes_each_time(
    origin: Origin, open_served: Any
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag='"1"'))
    served = open_served(freshness="0")
    first, second, third = (served.get("/thumb", params={"url": url, "w": "8"}) for _ in range(3))
    assert first.content == second.content == third.content
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"', '"1"']


def test_an_origin_that_says_unmodified_and_sends_another_picture_is_believed_by_its_bytes(
    origin: Origin, open_served: Any
) -> None:
    url = origin.serve("/a.jpg", validated(BODY, etag='"1"'))
    served = open_served(freshness="1h", memory_cache=0, results="off")
    first = served.get("/thumb", params={"url": url, "w": "8"})
    origin.serve("/a.jpg", validated(OTHER_BODY, etag='"1"'))
    second = served.get("/thumb", params={"url": url, "w": "8"})
    assert second.status_code == 200
    assert second.headers["etag"] != first.headers["etag"]
    assert second.content != first.content


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (answer(b"", status=404), 404, "original_missing"),
        (answer(b"", status=410), 404, "original_missing"),
        (answer(b"", status=403), 502, "source_failed"),
        (answer(b"", status=500), 502, "source_failed"),
        (redirect("/a.jpg"), 502, "source_failed"),
        (raw(b"garbage"), 502, "source_failed"),
        (cut(BODY, 50), 502, "source_failed"),
        (gzipped(BODY), 502, "source_failed"),
        (endless(HTML), 415, "unsupported_format"),
        (endless(png_head(65_536, 65_536)), 413, "source_too_large"),
        (endless(BODY), 413, "original_too_large"),
        (answer(b""), 422, "broken_image"),
        (answer(BODY[:100]), 422, "broken_image"),
    ],
)
def test_what_goes_wrong_is_told_as_a_problem(
    script: Script, status: int, code: str, origin: Origin, open_served: Any
) -> None:
    url = origin.serve("/a.jpg", script)
    response = open_served(max_source_bytes=CAP).get("/thumb", params={"url": url, "w": "50"})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


def test_an_origin_that_stalls_is_told_as_a_problem(origin: Origin, open_served: Any) -> None:
    url = origin.serve("/a.jpg", stall())
    response = open_served(fetch_timeout="300ms").get("/thumb", params={"url": url, "w": "50"})
    assert (response.status_code, response.json()["code"]) == (504, "source_timeout")
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_origin_is_left_when_the_client_leaves(origin: Origin, open_served: Any) -> None:
    url = origin.serve("/a.jpg", stall())
    served = open_served(fetch_timeout="60s", downloads=1)
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/thumb", params={"url": url}, timeout=1)
    assert await eventually(lambda: origin.asked and origin.asked[0].left.is_set())
    good = origin.serve("/b.jpg", answer(BODY))
    response = await asyncio.to_thread(served.get, "/thumb", params={"url": good, "w": "8"})
    assert response.status_code == 200


def test_equal_requests_at_once_ask_the_origin_once(origin: Origin, open_served: Any) -> None:
    def script(exchange: Any) -> None:
        exchange.wait(0.3)
        answer(BODY)(exchange)

    url = origin.serve("/a.jpg", script)
    served = open_served()

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as client:
            return await asyncio.gather(
                *(client.get("/thumb", params={"url": url, "w": "8"}) for _ in range(10))
            )

    responses = asyncio.run(ask())
    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert len(origin.asked) == 1


def test_a_service_that_is_not_told_otherwise_reaches_no_private_network(
    origin: Origin, serve: Any, tmp_path: Path
) -> None:
    url = origin.serve("/a.jpg", answer(BODY))
    response = serve(allowed_sources=ANY).get("/thumb", params={"url": url, "w": "8"})
    assert (response.status_code, response.json()["code"]) == (403, "source_refused")
    assert origin.connections == 0
    assert not list((tmp_path / "results").rglob("*.*"))
