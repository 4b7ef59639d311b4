"""Requests that are sent to receivers, good and bad, and never to where the guard forbids."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import httpcore
import httpx
import pytest

from app.errors import InvalidRequest, SourceFailed, SourceRefused, SourceTimeout
from app.outbound import MAX_REPLY, Outbound
from app.sources.guard import Guard
from tests.sources.origin import (
    Names,
    Origin,
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
    raw,
    redirect,
    running_origin,
    stall,
    stalled_body,
    tls_context,
)

PUBLIC = "93.184.216.34"
PRIVATE = "10.0.0.1"
LONG = 10
"""Seconds within which what has a deadline far below must be over, on the slowest machine."""

Open = Callable[..., Outbound]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", tls_context)


@pytest.fixture
async def open_outbound() -> AsyncIterator[Open]:
    """`open_outbound(allowed=("*",), private_networks=False)`: closed after the test."""
    async with AsyncExitStack() as stack:

        def opened(*, connections: int = 4, **guarding) -> Outbound:
            guard = Guard(**{"allowed": ("*:*",), "private_networks": True, **guarding})
            outbound = Outbound(guard, connections=connections)
            stack.push_async_callback(outbound.close)
            return outbound

        yield opened


@pytest.fixture
def outbound(open_outbound: Open) -> Outbound:
    """One that may send to this machine."""
    return open_outbound()


async def eventually(holds: Callable[[], object]) -> bool:
    """Whether something comes to hold before long."""
    for _ in range(LONG * 100):
        if holds():
            return True
        await asyncio.sleep(0.01)
    return False


async def send(outbound: Outbound, url: str, *, method: str = "POST", body: bytes = b"{}", **how):
    chosen = {"headers": {}, "timeout": LONG, **how}
    return await outbound.send(method, url, body=body, **chosen)


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("body", [b"", b"{}", bytes(range(256)) * 4096])
async def test_a_request_arrives_as_it_was_sent(outbound, origin, method, body):
    url = origin.serve("/hook?a=b%2Fc&d=%20e+f", answer(b"thanks", status=202, x_seen="Yes"))
    headers = {"Content-Type": "image/webp", "x-odd": "caf\u00e9 \t; q=1", "x-empty": ""}
    reply = await send(outbound, url, method=method, body=body, headers=headers)
    assert (reply.status, reply.body, reply.headers["x-seen"]) == (202, b"thanks", "Yes")
    asked = origin.asked[0]
    assert (asked.method, asked.path, asked.body) == (method, "/hook?a=b%2Fc&d=%20e+f", body)
    assert (
        headers.items() <= {**asked.headers, "Content-Type": asked.headers["content-type"]}.items()
    )
    assert asked.headers["content-length"] == str(len(body))
    assert asked.headers["user-agent"] == "pixelmill"
    assert asked.headers["host"] == f"127.0.0.1:{origin.port}"


@pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 410, 429, 500, 503])
async def test_every_status_is_a_reply(outbound, origin, status):
    script = raw(
        head(status, {"retry-after": "7"} | ({} if status == 204 else {"content-length": "0"}))
    )
    reply = await send(outbound, origin.serve("/hook", script))
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, b"", "7")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_reply_and_is_not_followed(outbound, origin, status):
    origin.serve("/other", answer(b"other"))
    reply = await send(outbound, origin.serve("/hook", redirect("/other", status=status)))
    assert (reply.status, reply.headers["location"]) == (status, "/other")
    assert [asked.path for asked in origin.asked] == ["/hook"]


async def test_what_a_receiver_sets_is_not_told_to_it_again(outbound, origin):
    url = origin.serve("/hook", answer(b"", set_cookie="a=b; Path=/"))
    for _ in range(2):
        await send(outbound, url)
    assert [asked.headers.get("cookie") for asked in origin.asked] == [None, None]


async def test_proxies_of_the_environment_are_not_used(outbound, origin, monkeypatch):
    with running_origin() as proxy:
        for name in ("HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        await send(outbound, origin.serve("/hook", answer(b"")))
        assert (proxy.connections, origin.connections) == (0, 1)


@pytest.mark.parametrize(
    "script",
    [
        answer(b"x" * (MAX_REPLY + 1)),
        answer(b"x" * (5 * MAX_REPLY)),
        chunked(*[b"x" * 1000] * 100),
        endless(b"x" * MAX_REPLY),
        endless(b"x" * MAX_REPLY, framed=True),
        stalled_body(b"x" * MAX_REPLY, declared=10 * MAX_REPLY),
    ],
    ids=["one more", "many more", "chunked", "endless", "endless in chunks", "stalled after"],
)
async def test_a_large_reply_is_cut_and_not_read_on(outbound, origin, script):
    async with asyncio.timeout(LONG):
        reply = await send(outbound, origin.serve("/hook", script), timeout=60)
    assert (reply.status, reply.body) == (200, b"x" * MAX_REPLY)


async def test_a_reply_of_exactly_the_most_is_whole(outbound, origin):
    reply = await send(outbound, origin.serve("/hook", answer(b"x" * MAX_REPLY)))
    assert reply.body == b"x" * MAX_REPLY


async def test_a_compressed_reply_is_left_as_it_is(outbound, origin):
    reply = await send(outbound, origin.serve("/hook", gzipped(bytes(10_000_000))))
    assert reply.body[:2] == b"\x1f\x8b"
    assert origin.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "script",
    [
        stall(),
        stall(b"HTTP/1.1 200 OK\r\n"),
        stalled_body(b"some"),
        drip(b"x" * 1000, pause=0.05),
        again_and_again(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["silence", "half a head", "a stalled body", "a dripping body", "endless early hints"],
)
async def test_a_receiver_has_its_time_and_no_more(outbound, origin, script):
    async with asyncio.timeout(LONG):
        with pytest.raises(SourceTimeout, match=r"The receiver did not answer within 0\.4 s"):
            await send(outbound, origin.serve("/hook", script), timeout=0.4)


async def test_waiting_for_a_connection_counts(open_outbound, origin):
    outbound = open_outbound(connections=1)
    url = origin.serve("/hook", stall())
    sent = await asyncio.gather(
        *(send(outbound, url, timeout=0.4) for _ in range(4)), return_exceptions=True
    )
    assert [type(error) for error in sent] == [SourceTimeout] * 4
    origin.serve("/hook", answer(b"thanks"))
    assert (await send(outbound, url)).body == b"thanks"


@pytest.mark.parametrize(
    "script",
    [raw(b""), raw(b"\0\xff nothing of the kind\r\n\r\n"), cut(b"x" * 100, 50)],
    ids=["hanging up", "no HTTP", "a cut body"],
)
async def test_a_reply_that_is_none_fails_and_the_next_one_counts(outbound, origin, script):
    url = origin.serve("/hook", in_turn(script, answer(b"thanks")))
    with pytest.raises(SourceFailed, match="The receiver's answer was cut short or is not HTTP"):
        await send(outbound, url)
    assert (await send(outbound, url)).body == b"thanks"


async def test_nobody_at_a_port_cannot_be_reached(outbound):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceFailed, match="The receiver cannot be reached"):
        await send(outbound, f"http://127.0.0.1:{port}/hook")


async def test_whoever_leaves_leaves_no_connection(outbound, origin):
    sending = asyncio.create_task(send(outbound, origin.serve("/hook", stall())))
    assert await eventually(lambda: origin.asked)
    sending.cancel()
    await asyncio.wait([sending])
    assert await eventually(origin.asked[0].left.is_set)


async def test_requests_given_up_at_any_moment_take_no_place_for_ever(open_outbound, origin):
    outbound = open_outbound(connections=1)
    url = origin.serve("/hook", answer(b"thanks"))
    for turns in range(60):
        sending = [asyncio.create_task(send(outbound, url)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for each in sending:
            each.cancel()
        await asyncio.wait(sending)
    assert (await send(outbound, url)).body == b"thanks"
    assert await eventually(lambda: origin.open_connections == 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "169.254.169.254", PRIVATE])
async def test_addresses_that_are_not_public_are_refused(open_outbound, origin, host):
    outbound = open_outbound(private_networks=False, param="webhook")
    with pytest.raises(SourceRefused) as caught:
        await send(outbound, f"http://{host}:{origin.port}/hook")
    assert caught.value.param == "webhook"
    assert origin.connections == 0


async def test_every_public_host_may_be_allowed_and_no_name_of_a_private_one(
    open_outbound, origin, monkeypatch
):
    wire = Wire({PUBLIC: origin.port, PRIVATE: origin.port})
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", wire.connect_tcp)
    names = Names({"good.example": [PUBLIC], "bad.example": [PRIVATE], "both": [PUBLIC, PRIVATE]})
    outbound = open_outbound(allowed=("*",), private_networks=False, resolver=names)
    origin.serve("/hook", answer(b"thanks"))
    assert (await send(outbound, "http://good.example/hook")).body == b"thanks"
    for host in ("bad.example", "both"):
        with pytest.raises(SourceRefused, match="not public"):
            await send(outbound, f"http://{host}/hook")
    assert wire.attempts == [(PUBLIC, 80)]


async def test_a_host_that_is_not_allowed_is_not_resolved(open_outbound):
    names = Names({})
    outbound = open_outbound(allowed=("*.example",), resolver=names, param="target")
    with pytest.raises(SourceRefused, match=r"evil\.test is not among the allowed") as caught:
        await send(outbound, "https://evil.test/")
    assert (caught.value.param, names.asked) == ("target", [])


@pytest.mark.parametrize("url", ["", "ftp://a.example/", "http://u:p@a.example/", "http://a b/"])
async def test_a_url_that_is_none_is_named_by_its_parameter(open_outbound, url):
    with pytest.raises(InvalidRequest, match=r"^webhook ") as caught:
        await send(open_outbound(param="webhook"), url)
    assert caught.value.param == "webhook"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "a"),
        ("a b", "c"),
        ("a:", "b"),
        ("a\r\nb", "c"),
        ("caf\u00e9", "a"),
        ("a", "b\r\nc: d"),
        ("a", "b\nc"),
        ("a", "b\0"),
        ("a", " b"),
        ("a", "b "),
        ("a", "\u6f22"),
        ("a", "\ud800"),
        ("Host", "other.example"),
        ("content-length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "keep-alive"),
        ("Expect", "100-continue"),
    ],
)
async def test_a_header_that_would_break_the_request_is_refused(open_outbound, origin, name, value):
    with pytest.raises(InvalidRequest, match="header") as caught:
        await send(
            open_outbound(param="webhook"),
            origin.serve("/hook", answer(b"")),
            headers={name: value},
        )
    assert caught.value.param == "webhook"
    caught.value.detail.encode()
    assert origin.connections == 0


@pytest.mark.parametrize(
    ("allowed", "url", "taken"),
    [
        (("*",), "http://a.example/", True),
        (("*",), "https://a.example:443/", True),
        (("*",), "http://[2606:2800::1]/", True),
        (("*",), "http://a.example:8080/", False),
        (("*",), "https://a.example:80/", False),
        (("*:8443",), "https://a.example:8443/", True),
        (("*:8443",), "https://a.example/", False),
        (("*:*",), "http://a.example:8080/", True),
        (("*:*",), "https://a.example/", True),
    ],
)
def test_a_star_is_every_host_and_every_port_only_where_it_says_so(allowed, url, taken):
    guard = Guard(allowed=allowed)
    if taken:
        assert guard.check_url(url).hostname
    else:
        with pytest.raises(SourceRefused):
            guard.check_url(url)
