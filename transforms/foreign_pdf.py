"""Pages of PDF, by PDFium within the optional package pypdfium2. Scripts are never run."""

from __future__ import annotations

import importlib
from typing import Any, Final

from transforms.errors import BrokenImage
from transforms.foreign_raster import Leaf, Raster, pixels_of, raster_of
from transforms.shapes import Size

PACKAGE: Final = "pypdfium2"

_WHITE: Final = (255, 255, 255, 255)


def measure(data: bytes, page: int) -> Leaf:
    """Read the size of a page, upright, a point (1/72 inch) to the pixel."""
    document = _open(data)
    pages = len(document)
    if pages == 0:
        raise BrokenImage("The PDF has no pages")
    width, height = document.get_page_size(min(page, pages - 1))
    if not (0 < width < 1e7 and 0 < height < 1e7):
        raise BrokenImage("The PDF's page has no size")
    return Leaf(
        size=Size(max(1, int(width + 0.5)), max(1, int(height + 0.5))),
        pages=pages,
        alpha=False,
        scalable=True,
        bands=3,
    )


def draw(data: bytes, page: int, scale: float) -> Raster:
    """Draw a page with its annotations on white."""
    size = measure(data, page).drawn(scale)
    package, document = importlib.import_module(PACKAGE), _open(data)
    raw = package.raw
    try:
        leaf = document[page]
        bitmap = package.PdfBitmap.new_native(
            size.width, size.height, raw.FPDFBitmap_BGRx, rev_byteorder=True
        )
        bitmap.fill_rect(_WHITE, 0, 0, size.width, size.height)
        flags = raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER
        raw.FPDF_RenderPageBitmap(bitmap, leaf, 0, 0, size.width, size.height, 0, flags)
    except RuntimeError as error:
        raise _broken(error) from None
    image = pixels_of(bitmap.buffer, size, bands=4, stride=bitmap.stride)
    return raster_of(image[:3])


def _open(data: bytes) -> Any:
    package = importlib.import_module(PACKAGE)
    try:
        return package.PdfDocument(data)
    except RuntimeError as error:
        raise _broken(error) from None


def _broken(error: Exception) -> BrokenImage:
    return BrokenImage(f"The original cannot be decoded as PDF: {str(error)[:160]}")
