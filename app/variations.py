"""Variations: what the URLs of a kit's files say, so that each is as wide as it is meant to be.

Where there is no preset, a file's parameters say all of it. A preset may fix its sizes: then its
files differ in what it lets vary, and where that is neither width nor density, there is one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from app.ladders import Ladder, round_to_six
from app.presets import PARAMETER, Pairs, Presets
from app.sizes import RATIOS
from transforms.errors import InvalidOption
from transforms.kinds import show_decimal
from transforms.options import BY_NAME, BY_SPELLING, OPTIONS
from transforms.transform import Transform

_LENGTHS: Final = tuple(option.name for option in OPTIONS if option.is_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """The parameters of one size, without format. `width` is that of its box, if it has one."""

    width: int | None
    pairs: Pairs


class Variations:
    """What may be said beside a preset, and beside what a request has given with it."""

    def __init__(self, presets: Presets, pairs: Pairs) -> None:
        self._presets = presets
        self._pairs = pairs
        self._given = [pair for pair in pairs if pair[0] in BY_SPELLING]
        self._preset = next((text for name, text in pairs if name == PARAMETER), None)
        self._said = {
            BY_SPELLING[name].name: BY_SPELLING[name].kind.show(BY_SPELLING[name].kind.read(text))
            for name, text in presets.resolve(pairs)
            if name in BY_SPELLING
        }

    @property
    def preset(self) -> str | None:
        """The name of the preset that the request names."""
        return self._preset

    @property
    def itself(self) -> Rung:
        """What the request itself says of a file."""
        return Rung(width=None, pairs=self._with([]))

    def shown(self, transform: Transform, pairs: Pairs) -> Pairs:
        """What a URL says whose parameters have been read: only a preset is as it was given."""
        return transform.items() if self._preset is None else pairs

    @property
    def any_format(self) -> bool:
        """Whether a URL may name its format."""
        return self._may("fm")

    def with_format(self, pairs: Pairs, fm: str) -> Pairs:
        """The parameters of one file: those of its size, in a format."""
        if not self.any_format:
            return pairs
        return [*(pair for pair in pairs if not _is("fm", pair[0])), ("fm", fm)]

    def rungs(self, ladder: Ladder, widths: Sequence[int], *, named: bool) -> list[Rung]:
        """A rung for each width, as far as the original reaches. There is at least one.

        `named` is whether the request names the widths: else a preset that lets only dpr vary has
        the usual pixel ratios. Raises InvalidOption where widths are named and cannot be had.
        """
        steps, widest = ladder.steps(widths)
        if self._preset is None:
            return [
                Rung(width=step, pairs=ladder.at(step, widest=widest).items()) for step in steps
            ]
        for lengths in (True, False):
            changes = [self._at(ladder, step, widest, lengths=lengths) for step in steps]
            if all(one is not None and self._may(*(name for name, _ in one)) for one in changes):
                return [
                    Rung(width=step, pairs=self._with(one or []))
                    for step, one in zip(steps, changes, strict=True)
                ]
            if lengths and self._may("dpr"):
                return self._densities(ladder, widths, named=named)
        if named:
            raise InvalidOption(
                "widths",
                f"widths cannot be given with the preset {self._preset}: it fixes its size",
            )
        return [self.itself]

    def _at(self, ladder: Ladder, width: int, widest: int, *, lengths: bool) -> Pairs | None:
        """What a URL must say for a width. None where it cannot be said."""
        transform = self._transform_at(ladder, width, widest)
        ratio = Decimal(self._said.get("dpr", "1"))
        if ratio != transform.dpr and not self._may("dpr"):
            if transform.layers:
                return None  # these have lengths of their own, which no parameter shrinks
            transform = replace(transform, dpr=round_to_six(1 / ratio)).fold_dpr()
        else:
            ratio = transform.dpr
        shown = dict(transform.items())
        names = _LENGTHS if lengths else ("w", "h")
        changes = {
            name: text
            for name, text in shown.items()
            if name in names and text != self._said.get(name)
        }
        if (dpr := show_decimal(ratio)) != self._said.get("dpr", "1"):
            changes["dpr"] = dpr
        if any(name in self._said and name not in shown for name in ("w", "h")):
            return None
        return list(changes.items())

    def _transform_at(self, ladder: Ladder, width: int, widest: int) -> Transform:
        base = ladder.transform
        if base.w is None and base.h is not None and ladder.asked is not None:
            # A height that the preset names cannot be taken back: it leads.
            return ladder.scaled(Decimal(width) / ladder.asked)
        return ladder.at(width, widest=widest)

    def _densities(self, ladder: Ladder, widths: Sequence[int], *, named: bool) -> list[Rung]:
        said = Decimal(self._said.get("dpr", "1"))
        once = (ladder.asked or ladder.natural.width * ladder.transform.dpr) / said
        steps = {round_to_six(width / once): width for width in widths}
        if not named:
            steps = {ratio: max(1, round(once * ratio)) for ratio in RATIOS}
        reach = ladder.reach
        within = {ratio: width for ratio, width in steps.items() if reach is None or width <= reach}
        if not within:
            within = dict([min(steps.items())])
        return [
            Rung(width=width, pairs=self._with([("dpr", show_decimal(ratio))]))
            for ratio, width in sorted(within.items())
        ]

    def _with(self, changes: Pairs) -> Pairs:
        changed = {name for name, _ in changes}
        kept = [pair for pair in self._given if BY_SPELLING[pair[0]].name not in changed]
        preset = [] if self._preset is None else [(PARAMETER, self._preset)]
        return [*preset, *kept, *changes]

    def _may(self, *names: str) -> bool:
        return self._presets.lets_vary(self._pairs, names)


def _is(name: str, spelling: str) -> bool:
    return spelling in BY_NAME[name].spellings
