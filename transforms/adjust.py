"""Adjust: tone, colours and effects, on the finished window of the picture, in a fixed order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transforms import effects, tone

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work
    from transforms.transform import Transform


def adjust(image: libvips.Image, work: Work) -> libvips.Image:
    """Contrast, then colours, then what looks at neighbours, then opacity."""
    transform = work.transform
    if not transform.adjustments:
        return image
    image = _apply_effects(_colour(_stretch(image, work), transform), work)
    if transform.opacity != 1:
        image = tone.opacity(image, amount=float(transform.opacity))
    return image


def _stretch(image: libvips.Image, work: Work) -> libvips.Image:
    transform = work.transform
    if transform.normalize:
        image = _normalize(image, work, "normalize")
    if transform.level is not None:
        level = transform.level
        image = tone.level(
            image, black=float(level.black), white=float(level.white), gamma=float(level.gamma)
        )
    if transform.gamma != 1:
        image = tone.gamma(image, exponent=float(transform.gamma))
    if transform.brightness:
        image = tone.brightness(image, amount=float(transform.brightness))
    if transform.contrast:
        image = tone.contrast(image, amount=float(transform.contrast))
    return image


def _normalize(image: libvips.Image, work: Work, step: str) -> libvips.Image:
    """Stretch the contrast as the first frame needs it in this step."""
    return tone.stretch(image, work.decisions.once(step, lambda: tone.find_range(image)))


def _colour(image: libvips.Image, transform: Transform) -> libvips.Image:
    if transform.saturation:
        image = tone.saturation(image, amount=float(transform.saturation))
    if transform.hue:
        image = tone.hue(image, degrees=float(transform.hue))
    if transform.grayscale:
        image = tone.grayscale(image)
    if transform.sepia:
        image = tone.sepia(image, amount=float(transform.sepia))
    if transform.tint is not None:
        image = tone.tint(image, colour=transform.tint)
    if transform.duotone is not None:
        image = tone.duotone(image, dark=transform.duotone.dark, light=transform.duotone.light)
    return tone.invert(image) if transform.invert else image


def _apply_effects(image: libvips.Image, work: Work) -> libvips.Image:
    transform, scale = work.transform, float(work.plan.scale)
    if transform.sketch:
        image = effects.sketch(image, normalize=lambda lines: _normalize(lines, work, "sketch"))
    if transform.charcoal is not None:
        image = effects.charcoal(
            image,
            sigma=float(transform.charcoal) * scale,
            normalize=lambda lines: _normalize(lines, work, "charcoal"),
        )
    if transform.pixelate is not None:
        image = effects.pixelate(image, block=max(1, round(transform.pixelate * scale)))
    if transform.blur is not None:
        image = effects.blur(image, sigma=float(transform.blur) * scale)
    if transform.sharpen is not None:
        sharpen = transform.sharpen
        image = effects.sharpen(
            image,
            sigma=float(sharpen.sigma) * scale,
            amount=float(sharpen.amount),
            threshold=float(sharpen.threshold),
        )
    return image
