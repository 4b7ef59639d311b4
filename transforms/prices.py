"""What single steps cost: seconds of one processor, measured with libvips 8.18.

The machine was one core of a 2023 server. `python -m bench costs` measures again.
"""

from __future__ import annotations

from typing import Final

FIXED: Final = 0.0015

# Seconds for a megapixel of the original.
DECODE: Final = {
    "jpeg": 0.0050,
    "png": 0.0150,
    "webp": 0.0070,
    "avif": 0.0300,
    "gif": 0.0060,
    "tiff": 0.0040,
    # These are decoded by another process, which a processor is taken for.
    "heic": 0.0600,
    "jxl": 0.0500,
    "svg": 0.0300,
    "pdf": 0.0300,
}
JPEG_SHRUNK: Final = {4: 0.0022, 2: 0.0030}  # the more, the fewer coefficients count
PROGRESSIVE: Final = 4.5
START_DOCUMENT: Final = 0.0150  # a process for a foreign document, its fonts included
TRIM: Final = 0.0350

# Seconds for a megapixel that comes out of the decoder, and of one that it is enlarged to.
SHRINK: Final = 0.0040
ENLARGE: Final = 0.0450

# Seconds for a megapixel of the window, for each adjustment; those missing depend on a radius.
ADJUST: Final = {
    "normalize": 0.013,
    "level": 0.004,
    "gamma": 0.004,
    "brightness": 0.004,
    "contrast": 0.004,
    "saturation": 0.014,
    "hue": 0.014,
    "grayscale": 0.008,
    "sepia": 0.018,
    "tint": 0.014,
    "duotone": 0.008,
    "invert": 0.003,
    "sketch": 0.035,
    "pixelate": 0.009,
    "opacity": 0.003,
}
WITH_ALPHA: Final = 1.6  # how much longer an adjustment takes where colours count by their alpha

# Seconds for a megapixel of the canvas, or of all of it with border and shadow.
BACKGROUND: Final = {"blur": 0.060, "auto": 0.010}
FRAME: Final = {"border": 0.016, "round": 0.018, "shadow": 0.080}

# Seconds for a megapixel under a mark, where it is only laid over an opaque picture, and else.
OVER: Final = 0.030
BLEND: Final = 0.090
# Seconds for a text, for each of its characters, and for a megapixel that it is drawn on.
TEXT: Final = (0.004, 0.0001, 0.040)
OUTLINE: Final = (0.012, 0.060)  # for each, and for a megapixel

# Seconds for each frame of an animation beside its pixels, with what is done to it.
EACH_FRAME: Final = 0.0010
EACH_ADJUSTMENT: Final = 0.0005
EACH_LAYER: Final = 0.0027
EACH_PALETTE: Final = 0.0015

# Seconds for a megapixel of the result, by effort 0 to 9.
ENCODE: Final = {
    "jpeg": (0.006, *[0.008] * 4, *[0.014] * 2, *[0.064] * 3),
    "png": (0.006, 0.045, 0.065, 0.070, 0.072, 0.075, 0.080, 0.090, 0.110, 0.160),
    "webp": (0.028, 0.040, 0.052, 0.115, 0.120, 0.140, *[0.240] * 4),
    "avif": (0.060, 0.150, 0.394, 0.450, 2.100, 2.700, 4.500, 6.000, 8.000, 10.00),
    "gif": (*[0.420] * 3, 0.450, 0.550, 0.620, *[1.000] * 2, *[1.150] * 2),
    "tiff": (0.100,) * 10,
}
LOSSLESS: Final = {
    "webp": (0.380, *[0.900] * 2, *[1.050] * 3, *[1.250] * 4),
    "avif": (0.500, 0.720, 1.600, 2.000, *[4.000] * 2, *[8.000] * 4),
}
WEBP_ALPHA: Final = (0.055, 0.085, 0.105, 0.120, 0.180, 0.260, *[1.300] * 4)
SCANS: Final = {"jpeg": 3.0, "png": 1.3}  # by what a progressive file takes longer
USUAL_EFFORT: Final = 2
SCORE: Final = 0.020  # to compare a megapixel with what has been made of it
