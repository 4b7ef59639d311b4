"""The one door to libvips: which build runs, with which settings, and what it may decode.

Import pyvips from here only, so that no picture is ever touched before these rules hold.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# A render has one libvips thread and as many renders run at once as there are processors, so that
# throughput is what the processors give and the result does not depend on the thread count.
# libvips reads this when it is loaded, hence before the import.
os.environ.setdefault("VIPS_CONCURRENCY", "1")
os.environ.setdefault("VIPS_WARNING", "0")

import _libvips
import pyvips

OLDEST: Final = (8, 17)
"""Below this, decoders lack fixes for hostile files, and savers lack options that are used here."""

DECODERS: Final = ("Jpeg", "Png", "Webp", "Nsgif", "Tiff", "Heif")
"""The libvips loader classes that may run in this process. All others are blocked."""

VERSION: Final[tuple[int, int, int]] = (pyvips.version(0), pyvips.version(1), pyvips.version(2))

Error: Final = pyvips.Error
Image = pyvips.Image


class MetadataType:
    """The types of an image's metadata fields, for `Image.set_type`."""

    INTEGER: Final = pyvips.GValue.gint_type
    INTEGERS: Final = pyvips.GValue.array_int_type
    TEXT: Final = pyvips.GValue.gstr_type
    BYTES: Final = pyvips.GValue.blob_type


def require_supported_version(version: tuple[int, int, int] = VERSION) -> None:
    """Raise RuntimeError where the libvips that was loaded is older than `OLDEST`.

    Compiling pyvips beside an installed libvips-dev silently binds the system's library instead of
    the wheel's; the symptom is an old version here.
    """
    if version[:2] < OLDEST:
        raise RuntimeError(
            "libvips {}.{}.{} is loaded, but {}.{} or newer is needed. Most likely pip compiled "
            "pyvips against the system's libvips. Reinstall: PKG_CONFIG_LIBDIR=/nonexistent pip "
            "install --force-reinstall --no-cache-dir pyvips pyvips-binary".format(
                *version, *OLDEST
            )
        )


def allow_decoders(names: Sequence[str]) -> None:
    """Leave this process no loaders of libvips but these, by the ends of their classes' names."""
    block = pyvips.operation_block_set
    block("VipsForeignLoad", True)  # noqa: FBT003 - pyvips takes its arguments by position
    for name in names:
        block(f"VipsForeignLoad{name}", False)  # noqa: FBT003 - the same


def learn(operation: str) -> None:
    """Have pyvips look an operation up now, without running it."""
    pyvips.Introspect.get(operation)


require_supported_version()
pyvips.cache_set_max(0)  # operations are never repeated within a process: it only costs memory
allow_decoders(DECODERS)


# pyvips does not declare libvips' own counters, so they are called in the library it has loaded.
_native = ctypes.CDLL(_libvips.__file__)
_native.vips_tracked_get_mem.restype = ctypes.c_size_t
_native.vips_tracked_get_mem_highwater.restype = ctypes.c_size_t


@dataclass(frozen=True, slots=True)
class Tracked:
    """What libvips holds at one moment: pixel memory in bytes, its peak, blocks and open files."""

    memory: int
    memory_peak: int
    allocations: int
    files: int


def tracked() -> Tracked:
    """Read libvips' counters."""
    return Tracked(
        memory=int(_native.vips_tracked_get_mem()),
        memory_peak=int(_native.vips_tracked_get_mem_highwater()),
        allocations=int(_native.vips_tracked_get_allocs()),
        files=int(_native.vips_tracked_get_files()),
    )
