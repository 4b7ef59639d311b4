"""Bearer tokens as the settings have them: secrets, and what each is for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

_SHORTEST: Final = 16
"""Characters of a secret: what is shorter can be guessed."""


class Scope(StrEnum):
    """What a token may be for."""

    IMAGES = "images:write"
    """Upload, delete and transform, and read what needs a signature."""
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    """Submit, cancel and retry jobs, and read them."""
    EVENTS = "events"
    """Tell of what has changed in a store."""
    ADMIN = "admin"
    """Schedules, rules, pauses, and what is to be purged."""


def split_token(text: str) -> tuple[str, frozenset[Scope]]:
    """The secret and the scopes of `SECRET` or `SECRET@SCOPE+SCOPE`.

    Raises ValueError, which does not tell the secret.
    """
    secret, at, named = text.rpartition("@")
    if not at:
        return text, frozenset(Scope)
    try:
        scopes = frozenset(Scope(name) for name in named.split("+"))
    except ValueError:
        raise ValueError(
            f"must have scopes of {', '.join(Scope)} behind the last @, as in "
            "SECRET@jobs:read+events"
        ) from None
    return secret, scopes


def check_tokens(texts: Iterable[str]) -> None:
    """Raise ValueError, which tells no secret, where tokens cannot be used together."""
    seen = set()
    for number, text in enumerate(texts, start=1):
        secret, _ = split_token(text)
        if len(secret) < _SHORTEST:
            raise ValueError(
                f"must have secrets of at least {_SHORTEST} characters; number {number} has "
                f"{len(secret)}"
            )
        if secret in seen:
            raise ValueError(f"has one secret twice; number {number} is the second")
        seen.add(secret)
