"""Who may do what: signed requests, bearer tokens, and loopback where there are no tokens."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from app.errors import ScopeMissing, Unauthorised
from app.settings import Settings
from app.signing import Signer
from app.tokens import Scope, split_token

_IMPLIED = {Scope.JOBS_READ: Scope.JOBS_WRITE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: its address, its bearer token, and whether a proxy spoke for it."""

    address: str | None
    token: str | None
    forwarded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What was let pass.

    `expires` is the Unix time at which that ends, if it does; `shared` is whether the answer is for
    everybody who asks the same, or for this caller only.
    """

    expires: int | None
    shared: bool


class Access:
    """The rules of one service."""

    def __init__(self, settings: Settings) -> None:
        self._required = settings.require_signature
        self._signer = Signer(settings.signing_keys)
        # Digests of equal length compare in a time that tells nothing of the tokens.
        self._tokens = [
            (_digest(secret), scopes)
            for secret, scopes in (split_token(t.get_secret_value()) for t in settings.api_tokens)
        ]

    def check_read(
        self, caller: Caller, path: str, pairs: Iterable[tuple[str, str]], *, by_url: bool
    ) -> Grant:
        """Let a GET of a decoded path and decoded parameters pass, or raise SignatureInvalid."""
        pairs = list(pairs)
        needed = self._required == "all" or (self._required == "urls" and by_url)
        given = any(name == "sig" for name, _ in pairs)
        if needed and not given and Scope.IMAGES in self._scopes(caller):
            return Grant(expires=None, shared=False)
        if needed or (given and self._signer):
            return Grant(expires=self._signer.verify(path, pairs), shared=True)
        return Grant(expires=None, shared=True)

    def check(self, caller: Caller, scope: Scope) -> None:
        """Let a caller do what a scope is for, or raise Unauthorised or ScopeMissing."""
        if not self._tokens:
            if caller.forwarded or not _is_loopback(caller.address):
                raise Unauthorised(
                    "No token is configured, so this answers on loopback alone: set "
                    "PIXELMILL_API_TOKENS"
                )
            return
        scopes = self._scopes(caller)
        if not scopes:
            raise Unauthorised(
                "A bearer token is needed" if caller.token is None else "The token is not known"
            )
        if scope not in scopes and _IMPLIED.get(scope) not in scopes:
            raise ScopeMissing(f"The token lacks the scope {scope}")

    def _scopes(self, caller: Caller) -> frozenset[Scope]:
        """What the caller's token is for: nothing where it is not known."""
        if caller.token is None:
            return frozenset()
        digest = _digest(caller.token)
        found: frozenset[Scope] = frozenset()
        for known, scopes in self._tokens:
            if hmac.compare_digest(digest, known):
                found |= scopes
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
