"""Explanations: what a request comes to, before anything is rendered."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app.keys import Keyed
from app.settings import Settings
from transforms.cost import estimate_all
from transforms.errors import InvalidOption
from transforms.pipeline import EPOCH, Work
from transforms.shapes import Box


def explain(
    work: Work,
    *,
    reason: str,
    settings: Settings,
    keyed: Keyed | None = None,
    refused: InvalidOption | None = None,
) -> dict[str, Any]:
    """The resolved transform, every size and box, the format and why, limits, key and cost.

    Sizes are in pixels, the cost in seconds of one processor and bytes. `refused` is what a render
    would be refused for, if anything.
    """
    plan, header, transform = work.plan, work.header, work.transform
    cost = estimate_all([work])
    told: dict[str, Any] = {
        "transform": dict(transform.items()),
        "canonical": transform.canonical,
        "format": {"fm": transform.fm or "auto", "reason": reason},
        "original": {
            "format": header.format.name,
            "width": header.size.width,
            "height": header.size.height,
            "orientation": header.orientation,
            "pages": header.pages,
            "alpha": bool(header.alpha),
            "colour_space": header.interpretation,
        },
        "plan": {
            "region": asdict(plan.region),
            "turn": {"quarters": plan.turn.quarters, "mirrored": plan.turn.mirrored},
            "scaled": asdict(plan.scaled),
            "window": _window(work),
            "canvas": asdict(plan.canvas),
            "offset": {"left": plan.offset[0], "top": plan.offset[1]},
            "padding": asdict(plan.padding),
            "border": plan.border,
            "shadow": asdict(plan.shadow_room),
            "whole": asdict(plan.whole),
            "tile": None if plan.tile is None else asdict(plan.tile),
            "result": asdict(plan.result),
            "frames": work.frames,
        },
        "limits": asdict(work.limits)
        | {"source_bytes": int(settings.max_source_bytes), "seconds": settings.render_timeout},
        "cost": {"seconds": round(cost.seconds, 4), "memory": cost.memory},
        "refused": None if refused is None else {"param": refused.param, "detail": refused.detail},
        "engine": EPOCH,
    }
    if transform.trim is not None:
        told["note"] = (
            "sizes may change: what trim cuts off shows only in the pixels, and the plan is for "
            "all of it"
        )
    if keyed is not None:
        told["key"] = keyed.key
        told["version"] = keyed.identity.version
    return told


def _window(work: Work) -> dict[str, Any]:
    window, size = work.plan.window, work.plan.window_size
    if isinstance(window, Box):
        return asdict(window)
    return {"width": size.width, "height": size.height, "place": work.transform.gravity.interest}
