"""Links: the URLs that a service hands out, signed where it asks for signatures."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from app.access import Grant
from app.presets import Pairs
from app.service import Service
from app.signing import Signer
from app.sources import web
from app.sources.base import Ref


class Links:
    """Makes the URLs of results of one original, signed where the service asks for that.

    They hold until `expires`, a Unix time, and no longer than what the caller was let see.
    """

    def __init__(
        self, service: Service, ref: Ref, pairs: Pairs, grant: Grant, *, expires: int | None
    ) -> None:
        self._base = service.settings.public_url.rstrip("/")
        self._path = "/thumb" if ref.kind == web.KIND else f"/thumb/{quote(ref.name)}"
        self._fixed = [("url", ref.name)] if ref.kind == web.KIND else []
        self._fixed += [pair for pair in pairs if pair[0] == "v"]
        keys = service.settings.signing_keys
        self._signer = Signer(keys) if service.settings.require_signature != "off" else None
        ends = [end for end in (expires, grant.expires) if end is not None]
        self._expires = min(ends, default=None)
        self.grant = grant
        """What the answer that has these URLs may be kept for."""
        if self._signer is not None:
            self.grant = Grant(expires=self._expires, shared=grant.shared)

    def url(self, pairs: Pairs) -> str:
        """The URL of a result, by its transform's parameters."""
        query = urlencode([*self._fixed, *pairs], quote_via=quote, safe=",:|")
        path = f"{self._path}?{query}"
        if self._signer is not None:
            path = self._signer.sign(path, expires=self._expires)
        return self._base + path
