"""What a render will cost, from its header and plan alone.

Seconds of one processor and bytes of pixel memory. The factors were measured with libvips 8.18 on
one core of a 2023 server; the service corrects them by what its own renders take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from transforms.load import shrink_on_load
from transforms.pipeline import Work

_FIXED: Final = 0.0015
_MEGA: Final = 1_000_000

# Seconds for a megapixel of the original.
_DECODE: Final = {
    "jpeg": 0.0050,
    "png": 0.0150,
    "webp": 0.0070,
    "avif": 0.0300,
    "gif": 0.0060,
    "tiff": 0.0080,
}
_JPEG_SHRUNK: Final = 0.0022  # Huffman decoding alone
_PROGRESSIVE: Final = 4.5
_RESIZE: Final = 0.0030  # for a megapixel that comes out of the decoder

# Seconds for a megapixel of the result, by effort 0 to 9.
_ENCODE: Final = {
    "jpeg": (0.006, *[0.010] * 6, *[0.064] * 3),
    "png": (0.005, 0.028, 0.044, 0.048, 0.050, 0.052, 0.053, 0.060, 0.075, 0.090),
    "webp": (0.028, 0.035, 0.042, 0.090, 0.094, 0.150, *[0.233] * 4),
    "avif": (0.063, 0.236, 0.394, 0.600, 2.500, 3.500, 4.500, 6.000, 8.000, 10.00),
    "gif": (0.060, *[0.080] * 3, *[0.100] * 3, *[0.150] * 3),
    "tiff": (0.030,) * 10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """An estimate: seconds of one processor, bytes of pixel memory, and whose correction applies.

    `kind` groups renders whose estimates err alike.
    """

    seconds: float
    memory: int
    kind: tuple[str, str]


def estimate(work: Work) -> Cost:
    """The cost of a render."""
    header, plan, transform = work.header, work.plan, work.transform
    name = header.format.name
    fm = transform.fm if transform.fm in _ENCODE else name if transform.fm == "same" else "jpeg"
    fm = fm or "jpeg"
    shrink = shrink_on_load(name, plan)

    original = header.size.pixels / _MEGA
    factor = _JPEG_SHRUNK if name == "jpeg" and shrink > 1 else _DECODE[name]
    if name == "jpeg" and header.progressive:
        factor *= _PROGRESSIVE
    frames = transform.page + 1 if name in ("gif", "webp") else 1
    loaded = plan.region.size.pixels / shrink**2 / _MEGA
    result = plan.result.pixels / _MEGA
    seconds = (
        _FIXED
        + original * frames * factor
        + loaded * _RESIZE
        + result * _ENCODE[fm][transform.effort]
    )

    pixel = max(4, header.bands * header.bytes_per_band)
    whole = header.progressive or name in ("avif", "webp", "gif")
    decoded = header.size.pixels * pixel if whole else header.size.width * 512 * pixel
    return Cost(
        seconds=seconds,
        memory=min(decoded, header.size.pixels * pixel)
        + plan.scaled.pixels * 4
        + plan.result.pixels * 12,
        kind=(name, fm),
    )
