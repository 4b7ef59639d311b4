"""Presets: named transforms from a TOML file.

    [card]
    w = 400
    h = 300
    fit = "cover"

    [card-large]
    extends = "card"     # or a list, of which later ones win
    w = 800
    vary = ["dpr", "fm"] # what a URL may give as well; or `locked`: what it may not

`/thumb/cat.jpg?preset=card&q=60` is resolved into plain parameters before anything is parsed, so
a preset is never part of a result's key: what it resolves to is. A preset that changes makes other
transforms, and so other keys and other ETags; one that is renamed or regrouped makes the same, and
every result stays good. The shortcuts of the hit path, which go by raw URLs, live in the memory of
the process that has read the file, and end with it. `Presets.revision` tells clients and logs which
state of a preset answers.

What others keep by URL does not know of this: a URL with `v=` is kept for a year, so whoever uses
it with a preset must change `v` when the preset changes too.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from app.sizes import NO_SIZES, RATIOS, Sizes, sides_of
from transforms.errors import InvalidOption
from transforms.kinds import nearest
from transforms.options import BY_NAME, BY_SPELLING
from transforms.transform import Transform

PARAMETER: Final = "preset"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RULES: Final = ("extends", "vary", "locked")
_SHOWN: Final = 8
"""Presets that an error names."""

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A preset with all that it inherits.

    `parameters` are canonical texts by the names of the option table; `varies` are the names that a
    URL may give, or None for all.
    """

    parameters: Mapping[str, str]
    varies: frozenset[str] | None = None
    sizes: Sizes = NO_SIZES

    @property
    def revision(self) -> str:
        """A digest of the parameters: 16 hexadecimal digits."""
        text = "\n".join(f"{name}={value}" for name, value in sorted(self.parameters.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Presets:
    """The presets of one service, by name. `Presets()` has none."""

    by_name: Mapping[str, Preset] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, sorted."""
        return tuple(sorted(self.by_name))

    def revision(self, name: str) -> str:
        """A digest of what a preset resolves to. Raises KeyError for a name that is not known.

        It changes when a parameter does, its own or an inherited one, and with nothing else.
        """
        return self.by_name[name].revision

    def resolve(self, pairs: Iterable[tuple[str, str]], *, required: bool = False) -> Pairs:
        """The pairs of a request with `preset` replaced by what it stands for.

        What the request gives wins over the preset, under any spelling. Names that are not in the
        option table pass untouched. Raises InvalidOption for a preset that is not known or given
        twice, for a parameter that the preset does not let vary, and where `required` for a request
        without a preset.
        """
        pairs = list(pairs)
        found = self._find(pairs)
        if found is None:
            if required:
                raise InvalidOption(PARAMETER, f"{PARAMETER} is needed here: {self._choice()}")
            return pairs
        name, preset = found
        given = dict.fromkeys(BY_SPELLING[given].name for given, _ in pairs if given in BY_SPELLING)
        for parameter in given:
            if preset.varies is not None and parameter not in preset.varies:
                how = "is fixed by" if parameter in preset.parameters else "cannot be given with"
                raise InvalidOption(parameter, f"{parameter} {how} the preset {name}")
        return [
            *(pair for pair in preset.parameters.items() if pair[0] not in given),
            *(pair for pair in pairs if pair[0] != PARAMETER),
        ]

    def lets_vary(self, pairs: Iterable[tuple[str, str]], names: Iterable[str]) -> bool:
        """Whether a request may give all of these names with its preset, if it names one.

        Raises InvalidOption as `resolve` does.
        """
        found = self._find(pairs)
        return found is None or found[1].varies is None or found[1].varies.issuperset(names)

    def named_in(self, pairs: Iterable[tuple[str, str]]) -> str | None:
        """The preset that a request names. Raises InvalidOption as `resolve` does."""
        found = self._find(pairs)
        return None if found is None else found[0]

    def own_sizes(self, pairs: Iterable[tuple[str, str]]) -> Sizes:
        """The sizes of the preset that a request names, at the usual pixel ratios.

        They were not made up by whoever wrote the URL: see `guard_size`. Raises InvalidOption as
        `resolve` does.
        """
        found = self._find(pairs)
        return NO_SIZES if found is None else found[1].sizes

    def as_json(self) -> dict[str, Any]:
        """Every preset by name: its `revision`, its `parameters`, and the names that `vary`."""
        return {
            name: {
                "revision": preset.revision,
                "parameters": dict(preset.parameters),
                "vary": [n for n in BY_NAME if preset.varies is None or n in preset.varies],
            }
            for name, preset in sorted(self.by_name.items())
        }

    def _find(self, pairs: Iterable[tuple[str, str]]) -> tuple[str, Preset] | None:
        names = [text for name, text in pairs if name == PARAMETER]
        if not names:
            return None
        if len(names) > 1:
            raise InvalidOption(PARAMETER, f"{PARAMETER} is given twice: one can extend others")
        name = names[0]
        if name in self.by_name:
            return name, self.by_name[name]
        if "," in name:
            raise InvalidOption(
                PARAMETER, f"{PARAMETER} takes one name, got {name[:64]!r}: one can extend others"
            )
        meant = nearest(name[:64], self.names)
        hint = f"; did you mean {meant}?" if meant else ""
        raise InvalidOption(
            PARAMETER,
            f"{PARAMETER} must be {self._choice()}, got {name[:64]!r}{hint}",
            suggestion=meant,
        )

    def _choice(self) -> str:
        if not self.by_name:
            return "absent, as this service has none"
        more = len(self.by_name) - _SHOWN
        shown = ", ".join(self.names[:_SHOWN])
        return f"one of {shown} and {more} more" if more > 0 else f"one of {shown}"


def load_presets(path: Path) -> Presets:
    """Read a file of presets.

    Raises ValueError, with one line that names the file, the preset and the parameter.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
        tables = {name: _read_table(name, table) for name, table in content.items()}
        presets: dict[str, Preset] = {}
        for name in tables:
            _inherit(name, tables, presets, below=())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Presets(presets)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A preset as it is written: without what it inherits."""

    parents: list[str]
    parameters: dict[str, str]
    varies: frozenset[str] | None


def _read_table(name: str, table: Any) -> _Table:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a preset's name is 1 to 64 of a-z, A-Z, 0-9, _ and -, got {name[:64]!r}")
    if not isinstance(table, dict):
        message = f"{name} stands outside a preset: begin one with [NAME]"
        raise ValueError(message)  # noqa: TRY004 - a wrong file, not a wrong call
    if "params" in table:
        raise ValueError(f"{name}: parameters stand in the preset itself, not in params")
    own = {key: value for key, value in table.items() if key not in _RULES}
    try:
        Transform.from_mapping(own)
    except InvalidOption as error:
        raise ValueError(f"{name}: {error.detail}") from None
    parents = table.get("extends", [])
    return _Table(
        parents=_words(name, "extends", [parents] if isinstance(parents, str) else parents),
        parameters=dict(_canonical(key, value) for key, value in own.items()),
        varies=_read_varies(name, table),
    )


def _canonical(spelling: str, value: Any) -> tuple[str, str]:
    """The name and the text of a value that has been found right."""
    option = BY_SPELLING[spelling]
    return option.name, option.kind.show(option.kind.read(_text(value)))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(part) for part in value)
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    return str(value)


def _read_varies(name: str, table: Mapping[str, Any]) -> frozenset[str] | None:
    if "vary" in table and "locked" in table:
        raise ValueError(f"{name}: vary and locked say the same twice: keep one")
    rule = "vary" if "vary" in table else "locked"
    if rule not in table:
        return None
    named = set()
    for word in _words(name, rule, table[rule]):
        if word not in BY_SPELLING:
            hint = _hint(word, BY_SPELLING)
            raise ValueError(f"{name}: {rule} names {word}, which is not a parameter{hint}")
        named.add(BY_SPELLING[word].name)
    return frozenset(named if rule == "vary" else BY_NAME.keys() - named)


def _words(name: str, rule: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{name}: {rule} must be a list of names")
    return value


def _hint(word: str, known: Mapping[str, Any]) -> str:
    meant = nearest(word, known)
    return f"; did you mean {meant}?" if meant else ""


def _inherit(
    name: str, tables: Mapping[str, _Table], presets: dict[str, Preset], *, below: tuple[str, ...]
) -> Preset:
    """Put a preset, and before it those that it extends, into `presets`."""
    if name in presets:
        return presets[name]
    if name in below:
        raise ValueError(f"{name}: extends itself: {' -> '.join([*below, name])}")
    table = tables[name]
    parameters: dict[str, str] = {}
    varies = None
    for parent in table.parents:
        if parent not in tables:
            raise ValueError(f"{name}: extends {parent}, which is no preset{_hint(parent, tables)}")
        inherited = _inherit(parent, tables, presets, below=(*below, name))
        parameters |= inherited.parameters
        varies = inherited.varies if inherited.varies is not None else varies
    parameters |= table.parameters
    try:
        Transform.from_mapping(parameters)
    except InvalidOption as error:
        raise ValueError(f"{name}: with what it inherits, {error.detail}") from None
    presets[name] = Preset(
        parameters=parameters,
        varies=varies if table.varies is None else table.varies,
        sizes=_sizes_of(parameters),
    )
    return presets[name]


def _sizes_of(parameters: Mapping[str, str]) -> Sizes:
    ratios = {*RATIOS, Decimal(parameters.get("dpr", 1))}
    sides: set[tuple[str, int, bool]] = set()
    for ratio in ratios:
        try:
            sides.update(sides_of(Transform.from_mapping({**parameters, "dpr": f"{ratio:f}"})))
        except InvalidOption:
            continue  # so dense a picture would be too large
    return Sizes(
        widths=frozenset(side for _, side, is_width in sides if is_width),
        heights=frozenset(side for _, side, is_width in sides if not is_width),
        ratios=frozenset(ratios),
    )
