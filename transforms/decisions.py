"""Decisions: what the pixels of the first frame decide for all frames of an animation.

A contrast that is stretched for each frame by itself undoes a fade, and a background that follows
every frame flickers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Decisions:
    """The decisions of one render, each made once."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def once(self, name: str, decide: Callable[[], T]) -> T:
        """What has been decided under this name, or what is decided now."""
        if name not in self._made:
            self._made[name] = decide()
        made: T = self._made[name]
        return made
