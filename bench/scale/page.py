"""The page docs/scaling.md, whose figures are written by a program, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from bench.service import ROOT

PAGE: Final = ROOT / "docs" / "scaling.md"
PICTURES: Final = ROOT / "docs" / "scaling"


def fill(text: str, parts: Mapping[str, str]) -> str:
    """The page with each part in its place. Raises ValueError where it has none."""
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"docs/scaling.md has no place for {name}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


def part(text: str, name: str) -> str:
    """What the page has in a place."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"docs/scaling.md has no place for {name}")
    return found[1]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def percent(share: float, *, digits: int = 1) -> str:
    """A share as the page has it. What would look like none is told to be little."""
    least = 10.0**-digits
    return f"{100 * share:.{digits}f} %" if 100 * share >= least or not share else f"< {least:g} %"


def many(number: float) -> str:
    """A whole number, in groups of thousands."""
    return f"{number:,.0f}"
