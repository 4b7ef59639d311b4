"""Which URLs are fetched and which addresses are connected to: the table of tricks, refused."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.downloads import Downloads
from app.errors import InvalidRequest, ServiceError, SourceFailed, SourceRefused
from app.sources import guard
from app.sources.guard import Guard, is_public
from app.sources.origins import Origins
from app.sources.web import WebSource
from app.telemetry import Metrics
from tests.serving import serving
from tests.sources.origin import Names, Origin, Wire, host_of, running_origin, tls_context
from transforms.limits import Limits

ANY = ("*", "*:*")
"""Every host, on every port."""

# Every one is a host of a URL as a client could write it.
HOSTILE = (
    # one number, other bases, fewer parts
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "017700000001",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "0",
    # this network, loopback
    "0.0.0.0",
    "127.0.0.1",
    "127.255.255.254",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1.",
    "2130706433.",
    # private
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "[fc00::1]",
    "[fdff::1]",
    # link-local, site-local
    "169.254.0.1",
    "[fe80::1]",
    "[fe80::1%eth0]",
    "[febf::1]",
    "[fec0::1]",
    # what clouds tell about themselves
    "169.254.169.254",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    # protocols, documentation, benchmarks
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "[100::1]",
    "[2001:db8::1]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[3fff::1]",
    "[5f00::1]",
    # multicast, reserved, broadcast
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
    "[ff0e::1]",
    # addresses within addresses
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::10.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b:1::1]",
    "[64:ff9b:1:a00:0:100::]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[2001:0:7f00:1::1]",
    "[2606:4700::5efe:127.0.0.1]",
    "[2606:4700::200:5efe:10.0.0.1]",
)

# A resolver understands them, a strict parser of URLs does not.
ODD = (
    "0177.0.0.1",
    "127.000.000.001",
    "127.0.0.0x1",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",  # noqa: RUF001 - fullwidth on purpose
    "127。0。0。1",
)

# No registry gives these to anybody on the Internet: global unicast is 2000::/3 alone.
BEYOND = (
    "::ffff:0:127.0.0.1",  # IPv4-translated, RFC 2765: a stateless translator takes it to loopback
    "::ffff:0:a9fe:a9fe",
    "100:0:0:1::1",  # the dummy prefix, RFC 9780
    "1::1",
    "200::1",  # once for NSAP
    "4000::1",
    "fe00::1",
)

PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:800::200e",
    "::ffff:8.8.8.8",
)

TO_LOOPBACK = (
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:0]",
    "localhost",
    "①②⑦.⓪.⓪.①",
)


async def numeric_resolver(host: str, port: int) -> list[str]:
    """The system's resolver, kept from asking anybody about names, and from knowing interfaces."""
    if host.rstrip(".").lower() == "localhost":
        return ["127.0.0.1"]
    if "%" in host:
        return [host]
    return await guard.resolve(host.rstrip("."), port)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """No connection leaves; each attempt is noted."""
    wire = Wire()
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", wire.connect_tcp)
    return wire


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", tls_context)


@pytest.fixture
def listener() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


def open_guard(resolver: Any = numeric_resolver, **options: Any) -> Guard:
    return Guard(**{"allowed": ANY, "resolver": resolver, **options})


def web_source(checked: Guard, **options: Any) -> WebSource:
    chosen = {"cap": 1 << 20, "timeout": 5, "redirects": 3, "connections": 4, **options}
    origins = Origins(connections=4, pause=0, patience=0)
    downloads = Downloads(slots=4, memory=1 << 24, metrics=Metrics())
    return WebSource(checked, origins=origins, downloads=downloads, limits=Limits(), **chosen)


async def identify(checked: Guard, url: str) -> None:
    source = web_source(checked)
    try:
        await source.identify(url, None)
    finally:
        await source.close()


# --- hostile addresses ------------------------------------------------------------------------


@pytest.mark.parametrize("host", [*HOSTILE, *ODD])
async def test_the_addresses_of_a_hostile_host_are_refused(host: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        await open_guard().addresses(host_of(f"http://{host}/"), 80)
    assert caught.value.param == "url"


@pytest.mark.parametrize("host", [*HOSTILE, *ODD])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_url_with_a_hostile_host_is_refused_though_the_host_is_allowed(
    host: str, scheme: str, wire: Wire
) -> None:
    with pytest.raises(ServiceError) as caught:
        await identify(open_guard(), f"{scheme}://{host}/a.jpg")
    assert wire.attempts == []
    assert (type(caught.value), caught.value.param) == (SourceRefused, "url")


@pytest.mark.parametrize("hosts", [HOSTILE, ODD], ids=["plain", "odd"])
def test_http_answers_403_that_names_url_for_every_hostile_host(
    hosts: tuple[str, ...], wire: Wire, serve: Any
) -> None:
    served = serve(allowed_sources=ANY, resolver=numeric_resolver)
    answers = {}
    for host in hosts:
        response = served.get("/thumb", params={"url": f"http://{host}/a.jpg", "w": "50"})
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        answers[host] = (response.status_code, problem["code"], problem.get("param"))
    assert wire.attempts == []
    assert answers == dict.fromkeys(hosts, (403, "source_refused", "url"))


@pytest.mark.parametrize("host", TO_LOOPBACK)
async def test_nothing_is_accepted_by_a_listener_on_this_machine(
    host: str, listener: Origin
) -> None:
    with pytest.raises((SourceRefused, SourceFailed)):
        await identify(open_guard(), f"http://{host}:{listener.port}/a.jpg")
    assert listener.connections == 0


async def test_the_listener_of_the_test_before_does_accept_where_private_networks_are_allowed(
    listener: Origin,
) -> None:
    with pytest.raises(ServiceError):
        await identify(open_guard(private_networks=True), f"http://127.0.0.1:{listener.port}/a.jpg")
    assert listener.connections == 1


@pytest.mark.parametrize("text", BEYOND)
def test_what_lies_outside_of_global_unicast_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


def _vectors() -> list[Any]:
    shared = Path(__file__).resolve().parents[2].parent / "shared"
    path = shared / "vectors" / "imgproxy_imagor.json"
    if not path.is_file():
        reason = "the collection of vectors is not beside this checkout"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")]
    cases = [case for case in json.loads(path.read_text("utf-8")) if case["kind"] == "ssrf"]
    return [pytest.param(case, id=case["id"]) for case in cases]


@pytest.mark.parametrize("case", _vectors())
async def test_addresses_that_other_services_refuse_are_refused_here(
    case: dict[str, Any],
) -> None:
    address = case["options"]["dial_ip"]
    checked = open_guard(Names({"pictures.example": [address]}))
    # Whatever NAT64 leads to is refused here: the translator's network is not the Internet's.
    stricter = ipaddress.ip_address(address) in ipaddress.ip_network("64:ff9b::/96")
    if case["expect"]["blocked"] or stricter:
        with pytest.raises(SourceRefused):
            await checked.addresses("pictures.example", 80)
    else:
        assert await checked.addresses("pictures.example", 80) == [address]


# --- public addresses -------------------------------------------------------------------------


@pytest.mark.parametrize("text", PUBLIC)
async def test_a_public_address_passes(text: str) -> None:
    checked = open_guard(Names({"pictures.example": [text]}))
    assert await checked.addresses("pictures.example", 80) == [text]


IPV4 = st.ip_addresses(v=4)


@settings(deadline=None)
@given(IPV4)
@example(ipaddress.IPv4Address("127.0.0.1"))
@example(ipaddress.IPv4Address("8.8.8.8"))
def test_an_embedded_address_is_public_only_if_it_is_mapped_and_public(
    inner: ipaddress.IPv4Address,
) -> None:
    number = int(inner)
    high, low = number >> 16, number & 0xFFFF
    embedded = {
        "nat64": f"64:ff9b::{inner}",
        "local nat64": f"64:ff9b:1:{high:x}:{low >> 8:x}:{(low & 0xFF) << 8:x}::",
        "6to4": f"2002:{high:x}:{low:x}::1",
        "compatible": f"::{inner}",
        "teredo client": f"2001:0:4136:e378:8000:63bf:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
        "teredo server": f"2001:0:{high:x}:{low:x}::1",
        "isatap": f"2606:4700::5efe:{inner}",
        "isatap, unique": f"2606:4700::200:5efe:{inner}",
    }
    public = [name for name, text in embedded.items() if is_public(ipaddress.ip_address(text))]
    assert public == []
    mapped = ipaddress.ip_address(f"::ffff:{inner}")
    assert is_public(mapped) == is_public(inner)


@settings(deadline=None)
@given(IPV4)
def test_no_ipv4_address_is_public_that_the_standard_library_knows_as_special(
    address: ipaddress.IPv4Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@settings(deadline=None)
@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_public_that_the_standard_library_knows_as_special(
    address: ipaddress.IPv6Address,
) -> None:
    if is_public(address) and address.ipv4_mapped is None:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_site_local


@settings(deadline=None)
@given(st.integers(0, (1 << 128) - 1))
@example(int(ipaddress.IPv6Address("::ffff:0:127.0.0.1")))
@example(int(ipaddress.IPv6Address("8000::1")))
def test_only_global_unicast_and_mapped_addresses_are_public(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    if is_public(address):
        assert address.ipv4_mapped or address in ipaddress.ip_network("2000::/3")


def test_an_address_of_one_interface_is_not_public() -> None:
    assert not is_public(ipaddress.ip_address("2606:4700:4700::1111%eth0"))


# --- resolvers --------------------------------------------------------------------------------


async def test_one_private_address_among_public_ones_refuses_the_host() -> None:
    for addresses in (
        ["93.184.216.34", "10.0.0.1"],
        ["10.0.0.1", "93.184.216.34"],
        ["93.184.216.34", "2606:4700::1", "::1"],
    ):
        with pytest.raises(SourceRefused):
            await open_guard(Names({"mixed.example": addresses})).addresses("mixed.example", 80)


@pytest.mark.parametrize(
    "found",
    [
        [],
        socket.gaierror(socket.EAI_NONAME, "unknown"),
        socket.gaierror(socket.EAI_AGAIN, "try again"),
        OSError("no resolver"),
        UnicodeError("label too long"),
    ],
    ids=["empty", "unknown", "again", "broken", "label"],
)
async def test_a_host_without_addresses_is_a_fault_of_the_source(found: Any, wire: Wire) -> None:
    checked = open_guard(Names({"pictures.example": found}))
    with pytest.raises(SourceFailed, match=r"pictures\.example"):
        await checked.addresses("pictures.example", 80)
    with pytest.raises(SourceFailed, match=r"pictures\.example"):
        await identify(checked, "http://pictures.example/a.jpg")
    assert wire.attempts == []


async def test_a_label_that_is_too_long_is_a_fault_of_the_source() -> None:
    with pytest.raises(SourceFailed):
        await open_guard(guard.resolve).addresses(f"{'a' * 64}.example", 80)


async def test_the_system_resolver_gives_each_address_once() -> None:
    assert await guard.resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert await guard.resolve("::1", 80) == ["::1"]


async def test_private_networks_are_reached_where_they_are_allowed() -> None:
    checked = open_guard(Names({"inner.example": ["10.0.0.1"]}), private_networks=True)
    assert await checked.addresses("inner.example", 80) == ["10.0.0.1"]


# --- the list of hosts ------------------------------------------------------------------------


def allows(globs: tuple[str, ...], url: str) -> bool:
    try:
        Guard(allowed=globs).check_url(url)
    except SourceRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("globs", "url"),
    [
        (("example.com",), "http://example.com/a.jpg"),
        (("example.com",), "https://example.com/a.jpg"),
        (("example.com",), "HTTPS://EXAMPLE.COM/a.jpg"),
        (("Example.COM",), "http://eXample.com/a.jpg"),
        (("example.com",), "http://example.com./a.jpg"),
        (("example.com.",), "http://example.com/a.jpg"),
        (("example.com",), "http://example.com:80/a.jpg"),
        (("example.com",), "https://example.com:443/a.jpg"),
        (("example.com",), "http://example.com:/a.jpg"),
        (("example.com",), "http://example.com?a"),
        (("*.example.com",), "http://a.example.com/"),
        (("*.example.com",), "http://a.b.example.com/"),
        (("a.example", "b.example"), "http://b.example/"),
        (("cdn.example.com:8443",), "https://cdn.example.com:8443/"),
        (("cdn.example.com:443",), "https://cdn.example.com/"),
        (("cdn.example.com:*",), "https://cdn.example.com:9/"),
        (("img?.example.com",), "http://img7.example.com/"),
        (("127.0.0.1:8000",), "http://127.0.0.1:8000/"),
    ],
)
def test_a_host_of_the_list_is_allowed(globs: tuple[str, ...], url: str) -> None:
    assert allows(globs, url)


@pytest.mark.parametrize(
    ("globs", "url"),
    [
        ((), "http://example.com/"),
        (("",), "http://example.com/"),
        (("example.com",), "http://example.org/"),
        (("example.com",), "http://a.example.com/"),
        (("example.com",), "http://example.com.evil.org/"),
        (("example.com",), "http://evil-example.com/"),
        (("example.com",), "http://evil.org/example.com"),
        (("example.com",), "http://evil.org?example.com"),
        (("example.com",), "http://evil.org#example.com"),
        (("example.com",), "http://exampleXcom/"),
        (("example.com",), "http://example.com%2eevil.org/"),
        (("*.example.com",), "http://evil.org%2f.example.com.evil.org/"),
        (("*.example.com",), "http://example.com/"),
        (("*.example.com",), "http://example.com.evil.org/"),
        (("*.example.com",), "http://a.example.com.evil.org/"),
        (("*.example.com",), "http://evilexample.com/"),
        (("*.example.com",), "http://evil.org/.example.com"),
        (("example.com",), "http://example.com:8443/"),
        (("example.com",), "http://example.com:443/"),
        (("example.com",), "https://example.com:80/"),
        (("example.com",), "http://example.com:22/"),
        (("*.example.com",), "http://a.example.com:8080/"),
        (("cdn.example.com:8443",), "https://cdn.example.com/"),
        (("cdn.example.com:8443",), "https://cdn.example.com:8444/"),
        (("cdn.example.com:8443",), "https://a.cdn.example.com:8443/"),
        (("127.0.0.1",), "http://2130706433/"),
        (("127.0.0.1",), "http://127.1/"),
    ],
)
def test_a_host_that_is_not_of_the_list_is_refused(globs: tuple[str, ...], url: str) -> None:
    assert not allows(globs, url)


@pytest.mark.parametrize("glob", ["*", "cdn.*", "cdn.example.*"])
def test_a_glob_that_ends_in_a_star_does_not_open_other_ports(glob: str) -> None:
    assert allows((glob,), "http://cdn.example.com/")
    assert not allows((glob,), "http://cdn.example.com:6379/")


def test_port_0_is_not_the_default_port() -> None:
    assert not allows(("example.com:80",), "http://example.com:0/")


@pytest.mark.parametrize(
    ("glob", "url"),
    [
        ("[2606:4700::1]", "http://[2606:4700::1]/"),
        ("[2606:4700::1]:8080", "http://[2606:4700::1]:8080/"),
        ("[::1]:*", "http://[::1]:8000/"),
    ],
)
def test_an_ipv6_address_can_be_allowed_by_name(glob: str, url: str) -> None:
    assert allows((glob,), url)


def test_the_brackets_of_an_ipv6_address_are_not_a_set_of_characters() -> None:
    assert not allows(("[2606:4700::1]",), "http://7/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/a.jpg",
        "/a.jpg",
        "//example.com/a.jpg",
        "http:",
        "http://",
        "http:///a.jpg",
        "http:/example.com/a.jpg",
        "http:example.com/a.jpg",
        "http://:80/",
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "file://example.com/etc/passwd",
        "gopher://example.com/",
        "data:image/gif;base64,R0lGODlh",
        "unix:/run/docker.sock",
        "http+unix://example.com/",
        "javascript:alert(1)",
        "local:///a.jpg",
        "s3://example.com/a.jpg",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://:secret@example.com/",
        "http://@example.com/",
        "http://example.com@evil.org/",
        "http://example.com:80@evil.org/",
        "http://example.com\\@evil.org/",
        "http://evil.org\\@example.com/",
        "http://example.com /",
        "http://example.com/a b.jpg",
        " http://example.com/",
        "http://example.com/\r\nHost: evil.org",
        "http://example.com/a\nb",
        "http://exam\tple.com/",
        "http://example.com/\0",
        "http://example.com/\x7f",
        "http://example.com:port/",
        "http://example.com:-1/",
        "http://example.com:65536/",
        "http://example.com:80:80/",
        "http://[::1/",
        "http://::1]/",
        "http://[example.com]/",
        "http://example.com／@evil.org/",  # noqa: RUF001 - a fullwidth slash
        "http://evil.org：80/",  # noqa: RUF001 - a fullwidth colon
    ],
)
def test_a_url_that_is_none_for_us_is_invalid_and_names_its_parameter(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Guard(allowed=ANY).check_url(url)
    assert (caught.value.status, caught.value.param) == (400, "url")


def test_http_answers_400_that_names_url_for_urls_that_are_none_for_us(
    wire: Wire, tmp_path: Path
) -> None:
    with serving(originals=f"file:{tmp_path}", results="off", allowed_sources=ANY) as served:
        for url in ("file:///etc/passwd", "http://user@example.com/", "http://example.com/%0a\n"):
            response = served.get("/thumb", params={"url": url})
            assert (response.status_code, response.json()["param"]) == (400, "url")
    assert wire.attempts == []


def test_http_answers_403_where_no_host_is_allowed(wire: Wire, serve: Any) -> None:
    response = serve(resolver=Names({"example.com": ["93.184.216.34"]})).get(
        "/thumb", params={"url": "http://example.com/a.jpg"}
    )
    assert (response.status_code, response.json()["param"]) == (403, "url")
    assert wire.attempts == []


PIECES = (
    *("http:", "https:", "//", "/", "\\", "@", ":", "?", "#", "[", "]", "%2f", "%40", "%00"),
    *("example.com", "evil.org", "::1", ".", "80", "K", "a", "-", ";", "&", "=", "_"),
    *("\u3002", "\uff0f", "\uff20", "\uff1a", "\u00ad", "\ufb00", "\u0130", "\u212a"),
)
"""What URLs are made of, with characters that some parser takes for another."""


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=9).map("".join),
    st.sampled_from(["", "http://", "https://", "http://example.com"]),
)
@example("evil.org\\.example.com/", "http://")
@example("evil.org#@example.com/", "http://")
def test_the_client_asks_the_very_host_that_was_checked(rest: str, start: str) -> None:
    """Two parsers read a URL: one to check it, one to fetch it. They must agree."""
    url = start + rest
    try:
        parts = Guard(allowed=("example.com", "*.example.com")).check_url(url)
    except (InvalidRequest, SourceRefused):
        return
    try:
        asked = httpx.URL(url)
    except httpx.InvalidURL:
        return  # then nothing is asked
    default = {"http": 80, "https": 443}[parts.scheme]
    assert asked.host.rstrip(".").endswith("example.com")
    assert f".{asked.host.rstrip('.')}".endswith(".example.com")
    assert asked.scheme == parts.scheme
    assert (asked.port or default) == (parts.port or default)
