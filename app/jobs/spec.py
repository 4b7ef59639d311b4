"""What a client posts, read into jobs. Everything that can be wrong is told by name, at once.

An output is one transform, or several: for each of `widths`, for each of `formats`, and for each
part of a `tile` that names none. All of them are made from one download and one decode.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from pydantic import Field

from app.errors import InvalidRequest
from app.jobs import targets
from app.jobs.bodies import Body, Label, show, validate
from app.jobs.records import Draft, Output, shown_target, source_ref
from app.jobs.webhooks import WebhookCheck
from app.presets import PARAMETER, Presets
from app.settings import Settings
from app.sources import stored
from app.sources.base import Ref
from app.stores.base import check_key
from transforms.errors import InvalidOption
from transforms.options import BY_SPELLING, MAX_SIDE
from transforms.transform import Defaults, Transform

MOST_OUTPUTS: Final = 100
"""Results of one job."""
_MOST_MERGED: Final = 25
_LONGEST_METADATA: Final = 4096
_LONGEST_DELAY: Final = 30 * 86_400.0
_REMEMBERED: Final = 256
_GRID: Final = re.compile(r"(\d{1,3})x(\d{1,3})")

Pairs = list[tuple[str, str]]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class OutputBody(Body):
    """Results that are wanted of an original."""

    transform: dict[str, Any] | str = Field(
        "", description="Parameters as an object or as a query string; none: the original, upright."
    )
    preset: str | None = Field(None, description="A named transform that the parameters vary.")
    widths: list[Side] | None = Field(
        None, min_length=1, max_length=50, description="One result for each of these widths."
    )
    formats: list[str] | None = Field(
        None, min_length=1, max_length=6, description="One result in each of these formats."
    )
    target: str | None = Field(
        None,
        description="Where the result goes: a key among the originals, `s3://bucket/key` or a "
        "presigned URL; it takes {id} {stem} {w} {h} {ext} {digest} {column} {row}. Without one, "
        "the result is kept for whoever asks for it by URL.",
    )


Outputs = Annotated[list[OutputBody], Field(min_length=1, max_length=MOST_OUTPUTS)]


class Options(Body):
    """How jobs are run. Times in seconds."""

    priority: int = Field(1, ge=0, le=2, description="0 low, 1 normal, 2 high.")
    delay: float = Field(0, ge=0, le=_LONGEST_DELAY, description="Seconds before it may begin.")
    timeout: float = Field(120, ge=1, le=3600, description="Seconds for one attempt.")
    retries: int = Field(3, ge=0, le=20, description="Attempts after one that failed for a time.")
    expires: float | None = Field(
        None, gt=0, le=_LONGEST_DELAY, description="Seconds after which it is no longer begun."
    )
    label: Label | None = Field(None, description="A name to list, pause and resume jobs by.")
    metadata: dict[str, Any] | None = Field(None, description="Yours; it comes back with the job.")
    webhook: str | None = Field(None, max_length=2048, description="URL that is told of the end.")


class JobBody(Options):
    """One job."""

    source: str | Annotated[list[str], Field(min_length=1, max_length=_MOST_MERGED)] = Field(
        description="An id or a URL; or a list of ids, which are merged in that order."
    )
    outputs: Outputs = Field(description="The results that are wanted.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ways:
    """All that tells which outputs one stands for, but for their target.

    `ending` is that of the target, without its dot.
    """

    transform: str
    is_object: bool
    preset: str | None
    widths: tuple[int, ...]
    formats: tuple[str, ...]
    merged: str
    ending: str | None


class SpecReader:
    """Reads what clients post, with the presets and defaults of one service."""

    def __init__(self, settings: Settings, presets: Presets) -> None:
        self._settings = settings
        self._presets = presets
        self._ways = lru_cache(maxsize=_REMEMBERED)(self._find_ways)
        self._webhooks = WebhookCheck(settings)

    def read_job(self, body: Any, *, now: float, what: str = "The body", **context: Any) -> Draft:
        """One job. `what` the body is called, and `context` are more fields of the draft.

        Raises InvalidRequest, TargetRefused, SourceRefused.
        """
        job = validate(JobBody, body, what=what)
        return self.draft(job.source, job.outputs, job, now=now, **context)

    def draft(
        self,
        source: str | list[str],
        outputs: list[OutputBody],
        options: Options,
        *,
        now: float,
        **context: Any,
    ) -> Draft:
        """One job of parts that have been validated.

        Raises InvalidRequest, TargetRefused, SourceRefused.
        """
        names = [source] if isinstance(source, str) else source
        refs = tuple(source_ref(name) for name in names)
        for number, ref in enumerate(refs):
            param = "source" if isinstance(source, str) else f"source[{number}]"
            if ref.kind == stored.KIND:
                check_key(ref.name, param=param)
            elif number:
                raise InvalidRequest(f"{param}: only ids are merged with others", param=param)
        _check_not_over(refs, outputs)
        return Draft(
            source=refs,
            outputs=self._expand_all(outputs, "|".join(names[1:])),
            priority=options.priority,
            run_after=now + options.delay,
            expires_at=None if options.expires is None else now + options.expires,
            retries=options.retries,
            timeout=float(options.timeout),
            label=options.label,
            metadata=packed(options.metadata),
            webhook=self.check_webhook(options.webhook),
            **context,
        )

    def check_webhook(self, url: str | None) -> str | None:
        """Return the webhook of a body. Raises InvalidRequest, SourceRefused."""
        return None if url is None else self._webhooks.check(url)

    def check_apart(self, outputs: list[OutputBody]) -> None:
        """Raise InvalidRequest where what is made of several originals would go to one place."""
        for number, body in enumerate(outputs):
            if body.target is not None and not targets.tells_originals_apart(body.target):
                raise InvalidRequest(
                    f"outputs[{number}].target: the results of all originals would be written to "
                    "one place: it takes {id}, {stem} or {digest}",
                    param=f"outputs[{number}].target",
                )

    def check_outputs(self, outputs: list[OutputBody]) -> None:
        """Raise InvalidRequest or TargetRefused where no original could have these outputs."""
        self._expand_all(outputs, "")

    def _expand_all(self, outputs: list[OutputBody], merged: str) -> str:
        """All outputs that these stand for, as JSON."""
        expanded: dict[Output, str] = {}
        count = 0
        for number, body in enumerate(outputs):
            where = f"outputs[{number}]"
            found = self._expand(body, merged, where=where)
            count += len(found)
            if count > MOST_OUTPUTS:
                raise InvalidRequest(
                    f"outputs: at most {MOST_OUTPUTS} results of one job", param="outputs"
                )
            for output in found:
                expanded.setdefault(output, where)
        if len(expanded) > 1:
            _check_distinct(expanded)
        return _as_text(tuple(expanded))

    def _expand(self, body: OutputBody, merged: str, *, where: str) -> Sequence[Output]:
        """The outputs that one stands for, each with its canonical transform."""
        if body.target is None and self._settings.results == "off":
            raise InvalidRequest(
                f"{where}.target is needed where results are not kept", param=f"{where}.target"
            )
        # A million jobs have few transforms, though each may have a target of its own.
        known = self._ways(
            _Ways(
                transform=body.transform
                if isinstance(body.transform, str)
                else json.dumps(body.transform),
                is_object=not isinstance(body.transform, str),
                preset=body.preset,
                widths=tuple(body.widths or ()),
                formats=tuple(body.formats or ()),
                merged=merged,
                ending=None if body.target is None else targets.ending_of(body.target),
            ),
            where,
        )
        if isinstance(known, InvalidRequest):
            raise InvalidRequest(known.detail, param=known.param)
        if body.target is None:
            return known
        param = f"{where}.target"
        targets.check_template(
            body.target,
            param=param,
            allowed=self._settings.targets,
            originals=self._settings.originals,
        )
        if len(known) > 1 and targets.kind_of(body.target) is targets.TargetKind.URL:
            raise InvalidRequest(f"{param}: a URL takes one result, not {len(known)}", param=param)
        return [
            Output(transform=way.transform, fm=way.fm, target=body.target, tile=way.tile)
            for way in known
        ]

    def _find_ways(self, ways: _Ways, where: str) -> Sequence[Output] | InvalidRequest:
        """The outputs without their target, or what is wrong: that is remembered as well."""
        try:
            pairs = self._pairs(ways, where=where)
            if ways.merged:
                pairs.append(("merge", ways.merged))
            choices = [
                [[("w", str(width))] for width in ways.widths] or [[]],
                [[("fm", name)] for name in ways.formats] or [[]],
                list(_parts(pairs)) or [[]],
            ]
            chosen = list(itertools.product(*choices))
            if len(chosen) > MOST_OUTPUTS:
                raise InvalidRequest(
                    f"{where}: at most {MOST_OUTPUTS} results of one job", param=where
                )
            return [
                self._output(
                    _with(pairs, list(itertools.chain.from_iterable(way)), where),
                    ways.ending,
                    where=where,
                )
                for way in chosen
            ]
        except InvalidRequest as error:
            return error.with_traceback(None)

    def _pairs(self, ways: _Ways, *, where: str) -> Pairs:
        """The parameters of an output, its preset resolved."""
        where = f"{where}.transform"
        try:
            if ways.is_object:
                values = json.loads(ways.transform)
                given = {n: v for n, v in values.items() if n not in ("tile", PARAMETER)}
                Transform.from_mapping(given)  # strict: names and kinds of values
                _check_own(values, where)
                pairs = [(n, as_text(v)) for n, v in values.items() if v is not None]
            else:
                pairs = parse_qsl(ways.transform, keep_blank_values=True)
            if ways.preset is not None:
                pairs.append((PARAMETER, ways.preset))
            return self._presets.resolve(pairs)
        except InvalidOption as error:
            raise _named(error, where) from None

    def _output(self, pairs: Pairs, ending: str | None, *, where: str) -> Output:
        try:
            transform = Transform.from_query(
                pairs, defaults=self._settings.defaults, unknown="refuse"
            )
        except InvalidOption as error:
            raise _named(error, f"{where}.transform") from None
        fm = transform.fm or self._format_of(ending, where=where)
        if fm is None:
            fm = "same" if "none" in transform.auto else "auto"
        elif fm not in self._settings.formats:
            param = f"{where}.transform.fm"
            enabled = ", ".join(self._settings.formats)
            raise InvalidRequest(f"{param} must be one of {enabled}, got {fm}", param=param)
        tile = transform.tile
        return Output(
            transform=transform.canonical,
            fm=fm,
            tile=None if tile is None else (tile.column, tile.row),
        )

    def _format_of(self, ending: str | None, *, where: str) -> str | None:
        """The format that the ending of a target names, if it has one. Raises InvalidRequest."""
        fm = None if ending is None else targets.FORMAT_OF_ENDING.get(ending)
        if ending is not None and fm not in self._settings.formats:
            enabled = self._settings.formats
            known = [f".{end}" for end, of in targets.FORMAT_OF_ENDING.items() if of in enabled]
            param = f"{where}.target"
            raise InvalidRequest(
                f"{param}: .{ending} names no format of results; known are {', '.join(known)}, and "
                "{ext} takes that of the result. With fm in transform, any ending may be had",
                param=param,
            )
        return fm


def _check_not_over(refs: Sequence[Ref], outputs: Sequence[OutputBody]) -> None:
    """Raise InvalidRequest where a result would go over a source. The rest shows when it is run."""
    own = {ref.name for ref in refs if ref.kind == stored.KIND}
    for number, body in enumerate(outputs):
        if body.target in own or (body.target == "{id}" and refs[0].kind == stored.KIND):
            raise InvalidRequest(
                f"outputs[{number}].target: the result would be written over its original",
                param=f"outputs[{number}].target",
            )


def _check_distinct(outputs: Mapping[Output, str]) -> None:
    """Refuse results that would be written to one place. Each comes with where its body is.

    What is known only of a result (`{w}`, `{h}`, `{digest}`, perhaps `{ext}`) may tell them apart.
    """
    bodies: dict[str, str] = {}
    for output, where in outputs.items():
        if output.target is None:
            continue
        place = targets.place_before(output.target, fm=output.fm, tile=output.tile)
        if place is None:
            continue
        if place in bodies:
            param = f"{where}.target"
            others = "its results" if bodies[place] == where else f"this and {bodies[place]}"
            raise InvalidRequest(
                f"{param}: {others} would be written to one place, "
                f"{shown_target(output.target)[:100]}",
                param=param,
            )
        bodies[place] = where


@lru_cache(maxsize=_REMEMBERED)
def _as_text(outputs: tuple[Output, ...]) -> str:
    return json.dumps([output.as_json() for output in outputs])


def settled(output: Output, settings: Settings) -> Transform:
    """The transform of an output as it is rendered."""
    return _settle(output.transform, output.fm, settings.defaults)


@lru_cache(maxsize=_REMEMBERED)
def _settle(query: str, fm: str, defaults: Defaults) -> Transform:
    """Jobs of a batch have the same outputs, and reading one costs a tenth of a small render."""
    return Transform.from_query(query, defaults=defaults).with_output(fm, defaults=defaults)


def _check_own(values: Mapping[str, Any], where: str) -> None:
    """Refuse a tile and a preset of a wrong kind: these may say what no transform does."""
    tile, preset = values.get("tile"), values.get(PARAMETER)
    if isinstance(tile, list) and len(tile) > 1 and all(type(part) is int for part in tile):
        tile = None
    for name, value, expected in (
        ("tile", tile, "a text such as 3x2 or 3x2,0,1"),
        (PARAMETER, preset, "a name"),
    ):
        if value is not None and not isinstance(value, str):
            param = f"{where}.{name}"
            raise InvalidRequest(f"{param} must be {expected}, got {show(value)}", param=param)


def _parts(pairs: Pairs) -> Iterator[Pairs]:
    """The parts of a tile that names a grid and no part: from the left, and down."""
    grid = next((m for n, v in pairs if n == "tile" and (m := _GRID.fullmatch(v))), None)
    if grid is None:
        return
    columns, rows = int(grid[1]), int(grid[2])
    if not 1 <= columns * rows <= MOST_OUTPUTS:
        raise InvalidRequest(f"tile: at most {MOST_OUTPUTS} parts of one job", param="tile")
    for row in range(rows):
        for column in range(columns):
            yield [("tile", f"{grid[0]},{column},{row}")]


def _with(pairs: Pairs, extra: Pairs, where: str) -> Pairs:
    """The parameters with some that the output's own fields give."""
    given = {BY_SPELLING[name].name: value for name, value in pairs if name in BY_SPELLING}
    for name, _ in extra:
        if name in given and name != "tile":
            field = {"w": "widths", "fm": "formats"}[name]
            raise InvalidRequest(
                f"{where}: {name} is given twice, in transform and in {field}",
                param=f"{where}.{field}",
            )
    replaced = {name for name, _ in extra}
    return [*(pair for pair in pairs if pair[0] not in replaced), *extra]


def _named(error: InvalidOption, where: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {error.detail}", param=f"{where}.{error.param}")


def packed(metadata: Mapping[str, Any] | None) -> str | None:
    """Metadata as the ledger keeps it. Raises InvalidRequest where there is too much."""
    if metadata is None:
        return None
    text = json.dumps(metadata, ensure_ascii=False)
    if len(text.encode()) > _LONGEST_METADATA:
        raise InvalidRequest(
            f"metadata must have at most {_LONGEST_METADATA} bytes as JSON", param="metadata"
        )
    return text


def as_text(value: Any) -> str:
    """A parameter's value of JSON as a query string has it."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list):
        return ",".join(as_text(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
