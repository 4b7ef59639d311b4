"""Colours as bytes, so that the memory tier holds them beside results: they cost a decode."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import Any

from transforms.describe import Colours
from transforms.palette import Swatch
from transforms.values import Colour


def pack(colours: Colours) -> bytes:
    """The bytes that `unpack` reads: JSON in UTF-8."""
    told = asdict(colours) | {"thumbhash": base64.b64encode(colours.thumbhash).decode()}
    return json.dumps(told, separators=(",", ":")).encode()


def unpack(data: bytes) -> Colours:
    """The colours that `pack` wrote."""
    told: dict[str, Any] = json.loads(data)
    return Colours(
        **told
        | {
            "dominant": Colour(**told["dominant"]),
            "average": Colour(**told["average"]),
            "palette": tuple(
                Swatch(colour=Colour(**swatch["colour"]), share=swatch["share"])
                for swatch in told["palette"]
            ),
            "thumbhash": base64.b64decode(told["thumbhash"]),
        }
    )
