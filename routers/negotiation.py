"""Content negotiation: at most three variants of a result, whatever clients send (RFC 9110, 12).

A format counts as accepted only where `Accept` names it with q > 0: `*/*` and `image/*` are what
clients say that know nothing of newer formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from transforms.errors import InvalidOption
from transforms.options import OUTPUTS
from transforms.transform import Transform

_PREFERENCES: Final = {"format": ("webp",), "avif": ("avif", "webp"), "none": ()}
_REMEMBERED: Final = 512
_NEGOTIATED: Final = {b"image/avif": "avif", b"image/webp": "webp"}


def accepted(accept: bytes) -> frozenset[str]:
    """The newer formats that an Accept header names."""
    if len(accept) > _REMEMBERED:
        return _accepted.__wrapped__(accept)  # as long as it is, it is the client's to fill memory
    return _accepted(accept)


@lru_cache(maxsize=1024)
def _accepted(accept: bytes) -> frozenset[str]:
    found = set()
    for part in accept.lower().split(b","):
        media, *parameters = (piece.strip() for piece in part.split(b";"))
        name = _NEGOTIATED.get(media)
        if name is not None and not any(_is_zero(parameter) for parameter in parameters):
            found.add(name)
    return frozenset(found)


def _is_zero(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip() == b"q" and value.strip().rstrip(b"0") in (b"", b"0.", b".", b"0")


def choose_output(transform: Transform, accept: bytes, enabled: Sequence[str]) -> tuple[str, bool]:
    """The output to make, and whether another Accept header could have got another one.

    `auto` as output means JPEG, or PNG where the result is transparent; `same` means the original's
    format. Raises InvalidOption for a format that this service does not make.
    """
    if transform.fm is not None:
        if transform.fm not in enabled:
            raise InvalidOption("fm", f"fm must be one of {', '.join(enabled)}, got {transform.fm}")
        return transform.fm, False
    if transform.auto[0] == "none":
        # Which format that is shows only when the original is there: where some are not made, it
        # might be one of those.
        return ("same" if set(enabled) >= set(OUTPUTS) else "auto"), False
    candidates = [name for name in _PREFERENCES[transform.auto[0]] if name in enabled]
    formats = accepted(accept)
    for name in candidates:
        if name in formats:
            return name, True
    return "auto", bool(candidates)
