"""One job from its source to its targets: what a worker does with it.

The originals are identified, all outputs are rendered together (`Renderer.answer_all`: one
download, one decode), and each result is written where it is wanted. Doing it twice is harmless:
equal versions and transforms have equal keys and bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

from app.admission import Lane
from app.errors import InvalidRequest
from app.jobs import targets
from app.jobs.database import Connection
from app.jobs.records import Job, Output, shown_source, shown_target
from app.jobs.spec import settled
from app.jobs.targets import Fields, TargetKind
from app.keys import Keyed
from app.render import Answer, Renderer
from app.settings import Settings
from app.sources import stored, web
from transforms.formats import Format
from transforms.inspect import look, peek

FROM_RULE: Final = "rule:"
"""How the origins of jobs begin that a rule has made, because an original is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A result and the place where it goes."""

    data: bytes
    media_type: str
    place: str


Note = Callable[[Connection], None]
"""Something that is written down in a transaction."""


class ResultWriter(Protocol):
    """Writes results to targets."""

    async def write(self, results: Sequence[Finished]) -> Note:
        """Write results to their places. Raises TargetFailed, and what the store raises.

        What has been written is to be noted, with the end of the job or before.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a job has come to: its results, as a client is told of them, and what is noted."""

    results: list[dict[str, Any]]
    note: Note


class Runner:
    """Does the work of jobs, one call for each attempt."""

    def __init__(self, renderer: Renderer, writer: ResultWriter, settings: Settings) -> None:
        self._renderer = renderer
        self._writer = writer
        self._settings = settings

    async def identify(self, job: Job) -> str:
        """A digest of the version that the job's original has now."""
        found = [await self._renderer.originals.identify(ref) for ref in job.refs]
        text = "\n".join(f"{one.ref.kind} {one.ref.name} {one.version}" for one in found)
        return hashlib.sha256(text.encode()).hexdigest()

    async def run(self, job: Job) -> Done:
        """Make every result and write it. Raises what any step does; see `app.errors`."""
        began = perf_counter()
        outputs = [Output.from_json(output) for output in json.loads(job.outputs)]
        ref = job.refs[0]
        if job.origin is not None and job.origin.startswith(FROM_RULE):
            # It is of now, though this process may have known the version before.
            self._renderer.originals.forget(ref)
        keyeds = [
            await self._renderer.identify(ref, settled(output, self._settings))
            for output in outputs
        ]
        answers = await self._renderer.answer_all(keyeds, lane=Lane.JOBS, seconds=job.timeout)
        made = await asyncio.to_thread(
            lambda: [_Made.of(*one) for one in zip(outputs, keyeds, answers, strict=True)]
        )
        places = _places(made, allowed=self._settings.targets)
        note = await self._writer.write(
            [
                Finished(data=one.data, media_type=one.format.media_type, place=place)
                for one, place in zip(made, places, strict=True)
                if place is not None
            ]
        )
        shared = {
            "source": shown_source(job.refs),
            "milliseconds": round((perf_counter() - began) * 1000, 1),
        }
        results = [
            {**self._shown(one, place), **shared} for one, place in zip(made, places, strict=True)
        ]
        return Done(results=results, note=note)

    def _shown(self, made: _Made, place: str | None) -> dict[str, Any]:
        """What a client is told of a result."""
        shown = {
            "url": self._url(made, place),
            "target": None if place is None else shown_target(place),
            "key": made.answer.rendered.key,
            "digest": f"sha256:{made.digest}",
            "width": made.width,
            "height": made.height,
            "bytes": len(made.data),
            "format": made.format.name,
            "tier": made.answer.tier,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def _url(self, made: _Made, place: str | None) -> str | None:
        """Where the result is to be had, as far as this service serves it."""
        base = self._settings.public_url.rstrip("/")
        if place is not None:
            kind = targets.kind_of(place)
            return f"{base}/images/{quote(place)}" if kind is TargetKind.ORIGINAL else None
        ref = made.keyed.identity.ref
        transform = made.keyed.transform
        pairs = [pair for pair in transform.items() if pair not in (("fm", "auto"), ("fm", "same"))]
        path = f"/thumb/{quote(ref.name)}"
        if ref.kind == web.KIND:
            path = "/thumb"
            pairs.insert(0, ("url", ref.name))
        query = urlencode(pairs, quote_via=quote, safe=",:|")
        return f"{base}{path}?{query}" if query else f"{base}{path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A result that was asked for, and what its bytes tell: size in pixels, SHA-256."""

    output: Output
    keyed: Keyed
    answer: Answer
    width: int
    height: int
    digest: str

    @classmethod
    def of(cls, output: Output, keyed: Keyed, answer: Answer) -> _Made:
        data = answer.rendered.data
        _, size = peek(data)
        size = size or look(data).size  # AVIF and TIFF do not tell it at their beginning
        return cls(
            output=output,
            keyed=keyed,
            answer=answer,
            width=size.width,
            height=size.height,
            digest=hashlib.sha256(data).hexdigest(),
        )

    @property
    def data(self) -> bytes:
        return self.answer.rendered.data

    @property
    def format(self) -> Format:
        return self.answer.rendered.format


def _places(made: Sequence[_Made], *, allowed: Sequence[str]) -> list[str | None]:
    """Where each result goes.

    Raises TargetRefused, and InvalidRequest where it is no place, two would go to one, or one over
    an original that any of them is made of: a source, or what is merged with it or laid over it.
    """
    own = {ref.name for one in made for ref in one.keyed.refs if ref.kind == stored.KIND}
    places: list[str | None] = []
    for number, one in enumerate(made):
        place = one.output.target
        param = f"outputs[{number}].target"
        if place is not None and targets.kind_of(place) is not TargetKind.URL:
            fields = Fields(
                ref=one.keyed.identity.ref,
                width=one.width,
                height=one.height,
                extension=one.format.extension,
                digest=one.digest,
                tile=one.output.tile,
            )
            place = targets.fill(place, fields)
        if place is not None:
            # What is allowed may have changed, and fields come to more than a sample shows.
            targets.check_place(place, param=param, allowed=allowed)
        if place in own:
            raise InvalidRequest(
                f"{param}: the result would be written over an original of the job, {place}",
                param=param,
            )
        if place is not None and place in places:
            shown = shown_target(place)
            raise InvalidRequest(f"{param}: two results would be written to {shown}", param=param)
        places.append(place)
    return places
