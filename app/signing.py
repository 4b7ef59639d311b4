"""Signed URLs: `sig=<key id>.<base64url HMAC-SHA256>`, and `exp=` for a time of expiry.

What is signed is the path and every parameter but `sig`, sorted; so a signature holds for one
original and one transform, whatever the order of the parameters. Keys rotate by putting a new one
first: it signs, and all that are configured verify.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from app.errors import SignatureInvalid

_DOMAIN: Final = "pixelmill-url-1"
"""Keeps a signature from meaning anything elsewhere, and names the rule by which it was made."""


class Signer:
    """Signs and verifies with keys by id; the first signs."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def sign(self, url: str, *, expires: int | None = None) -> str:
        """Return a URL, absolute or relative, with `sig` (and `exp`, a Unix time) added.

        Raises SignatureInvalid where there is no key.
        """
        if not self._keys:
            raise SignatureInvalid("No signing key is configured")
        kid, secret = next(iter(self._keys.items()))
        parts = urlsplit(url)
        pairs = [
            (name, value)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
            if name != "sig" and not (name == "exp" and expires is not None)
        ]
        if expires is not None:
            pairs.append(("exp", str(expires)))
        signature = f"{kid}.{_digest(secret, unquote(parts.path), pairs)}"
        query = urlencode([*pairs, ("sig", signature)], quote_via=quote, safe=",:/.")
        path = quote(unquote(parts.path))
        return urlunsplit((parts.scheme, parts.netloc, path, query, parts.fragment))

    def verify(self, path: str, pairs: Iterable[tuple[str, str]]) -> int | None:
        """Check the signature of a decoded path and decoded parameters.

        Returns the Unix time at which it expires, if any. Raises SignatureInvalid.
        """
        pairs = list(pairs)
        given = [value for name, value in pairs if name == "sig"]
        if len(given) != 1:
            raise SignatureInvalid(
                "The request must be signed" if not given else "sig is given twice", param="sig"
            )
        kid, _, digest = given[0].partition(".")
        secret = self._keys.get(kid)
        signed = [pair for pair in pairs if pair[0] != "sig"]
        # An unknown key costs as much as a known one.
        expected = _digest(secret or b"\0" * 16, path, signed)
        if not hmac.compare_digest(digest.encode(), expected.encode()) or secret is None:
            raise SignatureInvalid("The signature does not fit the request", param="sig")
        return _expiry(signed)


def _expiry(pairs: Iterable[tuple[str, str]]) -> int | None:
    given = [value for name, value in pairs if name == "exp"]
    if not given:
        return None
    if len(given) > 1 or not given[0].isascii() or not given[0].isdigit() or len(given[0]) > 12:
        raise SignatureInvalid("exp must be one Unix time in seconds", param="exp")
    expires = int(given[0])
    if expires <= time.time():
        raise SignatureInvalid("The signature has expired", param="exp")
    return expires


def _digest(secret: bytes, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    query = urlencode(sorted(pairs), quote_via=quote)
    message = "\n".join((_DOMAIN, quote(path), query)).encode()
    digest = hmac.new(secret, message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
