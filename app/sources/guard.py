"""Addresses that are never connected to, and hosts that may be asked.

A name is resolved once; if any of its addresses is forbidden the host is refused; the connection
then goes to the very address that was checked, so that a resolver which changes its answer gains
nothing. `ipaddress.is_global` does not do: it passes addresses that embed others (NAT64, 6to4,
IPv4-compatible), multicast and the addresses of cloud metadata services.
"""

from __future__ import annotations

import asyncio
import fnmatch
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
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
        "::/96",  # unspecified, loopback, IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped: judged by the address within
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # local NAT64
        "100::/64",  # discard
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # private; AWS's metadata over IPv6
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def is_public(address: Address) -> bool:
    """Whether an address may be connected to."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        # ISATAP (RFC 5214) puts an IPv4 address behind this interface id.
        if int(address) >> 32 & 0xFFFFFFFF in _ISATAP or address.scope_id is not None:
            return False
    return not any(address in network for network in _FORBIDDEN)


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, as the system resolves it."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Decides which URLs may be fetched, and to which addresses connections go."""

    def __init__(
        self,
        *,
        allowed: Iterable[str],
        private_networks: bool = False,
        resolver: Resolver = resolve,
    ) -> None:
        self._allowed = tuple(glob.lower().rstrip(".") for glob in allowed)
        self._private_networks = private_networks
        self._resolver = resolver

    def check_url(self, url: str) -> SplitResult:
        """Return a URL's parts, or raise InvalidRequest or SourceRefused. Resolves nothing."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise InvalidRequest("url is not a valid URL", param="url") from None
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise InvalidRequest("url must begin with http:// or https://", param="url")
        if parts.username is not None or parts.password is not None:
            raise InvalidRequest("url must not hold a user name or password", param="url")
        if any(ord(char) <= 32 or ord(char) == 127 for char in url):
            raise InvalidRequest("url holds a space or a control character", param="url")
        if not self._allows(host.lower().rstrip("."), port, parts.scheme):
            raise SourceRefused(f"{host} is not among the allowed sources", param="url")
        return parts

    def _allows(self, host: str, port: int | None, scheme: str) -> bool:
        shown = f"[{host}]" if ":" in host else host
        default = _DEFAULT_PORTS[scheme]
        names = [f"{shown}:{port or default}"]
        if port is None or port == default:
            names.append(shown)
        return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in self._allowed)

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
                        f"{host} leads to an address that is not public", param="url"
                    )
        return found
