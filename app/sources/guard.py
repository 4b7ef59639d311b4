"""Addresses that are never connected to, and hosts that may be asked.

A name is resolved once; if any of its addresses is forbidden the host is refused; the connection
then goes to the very address that was checked, so that a resolver which changes its answer gains
nothing. `ipaddress.is_global` does not do: it passes addresses that embed others (NAT64, 6to4,
IPv4-compatible), multicast and the addresses of cloud metadata services.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import SplitResult, urlsplit

from app.errors import InvalidRequest, SourceFailed, SourceRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]

# IANA special-purpose registries (RFC 6890 and its updates), and addresses that clouds keep for
# themselves within public ranges.
_FORBIDDEN: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba Cloud's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's wire server
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle Cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""All that IANA has given out as global unicast. Beyond it are loopback, IPv4-compatible addresses,
NAT64, private and local networks, multicast, and what has no meaning yet."""
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_RESOLVERS: Final = ThreadPoolExecutor(16, thread_name_prefix="resolve")
"""Threads of their own: names that resolve slowly must not keep files and headers waiting."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def is_public(address: Address) -> bool:
    """Whether an address may be connected to."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        # ISATAP (RFC 5214) puts an IPv4 address behind this interface id.
        if int(address) >> 32 & 0xFFFFFFFF in _ISATAP or address.scope_id is not None:
            return False
        if address not in _UNICAST:
            return False
    return not any(address in network for network in _FORBIDDEN)


def _is_plain(host: str) -> bool:
    """Whether a host is written as a name or address is usually written.

    `0x7f.1`, `127.1` and `2130706433` mean 127.0.0.1 to some resolvers and nothing to others.
    """
    try:
        ipaddress.ip_address(host.rstrip("."))
    except ValueError:
        labels = host.lower().rstrip(".").split(".")
        if not all(_LABEL.fullmatch(label) for label in labels):
            return False
        return not _NUMBER.fullmatch(labels[-1])
    return "%" not in host


@dataclass(frozen=True, slots=True)
class _HostGlob:
    """One of the allowed hosts: a pattern with `*` and `?`, and the port that it names, if any."""

    host: re.Pattern[str]
    port: str | None

    @classmethod
    def read(cls, text: str) -> _HostGlob:
        host, colon, port = text.lower().rpartition(":")
        if not colon or "]" in port or (":" in host and not host.endswith("]")):
            host, port = text.lower(), ""
        host = host.rstrip(".").removeprefix("[").removesuffix("]")
        pattern = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in host)
        return cls(re.compile(pattern), port or None)

    def allows(self, host: str, port: int | None, default: int) -> bool:
        asked = default if port is None else port
        wanted = str(default) if self.port is None else self.port
        return self.host.fullmatch(host) is not None and wanted in ("*", str(asked))


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, as the system resolves it."""
    found = await asyncio.get_running_loop().run_in_executor(
        _RESOLVERS, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Decides which URLs may be asked, and to which addresses connections go.

    `allowed` are globs of hosts: `*` is every host on the default ports of http and https,
    `*:*` every host on every port. No glob opens the way to addresses that are not public; only
    `private_networks` does. `param` is the parameter that held the URL, for errors to name.
    """

    def __init__(
        self,
        *,
        allowed: Iterable[str],
        private_networks: bool = False,
        resolver: Resolver = resolve,
        param: str = "url",
    ) -> None:
        self.param = param
        self._allowed = tuple(_HostGlob.read(glob) for glob in allowed)
        self._private_networks = private_networks
        self._resolver = resolver

    def check_url(self, url: str) -> SplitResult:
        """Return a URL's parts, or raise InvalidRequest or SourceRefused. Resolves nothing."""
        param = self.param
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise InvalidRequest(f"{param} is not a valid URL", param=param) from None
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise InvalidRequest(f"{param} must begin with http:// or https://", param=param)
        if parts.username is not None or parts.password is not None:
            raise InvalidRequest(f"{param} must not hold a user name or password", param=param)
        if any(ord(char) <= 32 or ord(char) == 127 for char in url):
            raise InvalidRequest(f"{param} holds a space or a control character", param=param)
        if not _is_plain(host):
            raise SourceRefused(
                f"{host[:64]} is not a host name, nor an address in its usual notation",
                param=param,
            )
        default = _DEFAULT_PORTS[parts.scheme]
        if not any(glob.allows(host.lower().rstrip("."), port, default) for glob in self._allowed):
            raise SourceRefused(f"{host} is not among the allowed hosts", param=param)
        return parts

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses to connect to, all of them checked.

        Raises SourceRefused where one is forbidden, SourceFailed where there is none.
        """
        try:
            found = await self._resolver(host, port)
        except (OSError, UnicodeError):
            raise SourceFailed(f"The host {host} is not known") from None
        if not found:
            raise SourceFailed(f"The host {host} has no address")
        if not self._private_networks:
            for address in found:
                if not is_public(ipaddress.ip_address(address)):
                    raise SourceRefused(
                        f"{host} leads to an address that is not public", param=self.param
                    )
        return found
