"""What clients say that they accept, and the class that every recipe makes of it."""

from __future__ import annotations

from typing import Final

ACCEPTS: Final = {
    "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8": "image/avif,image/webp,*/*",
    "image/jxl,image/avif,image/webp,image/png;q=0.5": "image/avif,image/webp,*/*",
    "image/webp,*/*;q=0.5": "image/webp,*/*",
    "IMAGE/WEBP ;q=0.9": "image/webp,*/*",
    "image/avif": "image/avif,*/*",
    "image/avif;q=0,image/webp": "image/webp,*/*",
    "image/webp;q=0.000, image/avif ; q=0.5": "image/avif,*/*",
    "image/webp;v=1;q=0": "*/*",
    "image/webp;q=0.05": "image/webp,*/*",
    "image/webpx, ximage/avif": "*/*",
    "*/*": "*/*",
    "image/*": "*/*",
    "": "*/*",
}
