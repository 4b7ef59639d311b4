"""One job from its source to its targets: what a worker does with it.

The originals are identified, all outputs are rendered together (`Renderer.answer_all`: one
download, one decode), and each result is written where it is wanted. Doing it twice is harmless:
equal versions and transforms have equal keys and bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

from app.admission import Lane
from app.errors import InvalidRequest
from app.jobs import targets
from app.jobs.records import Job, Output, shown_source, shown_target
from app.jobs.spec import settled
from app.jobs.targets import Fields, TargetKind
from app.render import Answer, Keyed, Renderer
from app.settings import Settings
from app.sources import web
from app.sources.base import Ref
from transforms.inspect import look, peek
from transforms.transform import Transform

FROM_RULE: Final = "rule:"
"""How the origins of jobs begin that a rule has made, because an original is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A result and the place where it goes."""

    data: bytes
    media_type: str
    place: str


class ResultWriter(Protocol):
    """Writes results to targets."""

    async def write(self, results: Sequence[Finished]) -> None:
        """Write results to their places. Raises TargetFailed, and what the store raises."""


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

    async def run(self, job: Job) -> list[dict[str, Any]]:
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
        sizes = [_size_of(answer.rendered.data) for answer in answers]
        places = _places(ref, outputs, answers, sizes, allowed=self._settings.targets)
        await self._writer.write(
            [
                Finished(
                    data=answer.rendered.data,
                    media_type=answer.rendered.format.media_type,
                    place=place,
                )
                for answer, place in zip(answers, places, strict=True)
                if place is not None
            ]
        )
        milliseconds = round((perf_counter() - began) * 1000, 1)
        return [
            {
                "source": shown_source(job.refs),
                **self._shown(keyed, answer, size, place),
                "milliseconds": milliseconds,
            }
            for keyed, answer, size, place in zip(keyeds, answers, sizes, places, strict=True)
        ]

    def _shown(
        self, keyed: Keyed, answer: Answer, size: tuple[int, int], place: str | None
    ) -> dict[str, Any]:
        """What a client is told of a result."""
        data = answer.rendered.data
        shown = {
            "url": self._url(keyed.identity.ref, keyed.transform, place),
            "target": None if place is None else shown_target(place),
            "key": answer.rendered.key,
            "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "width": size[0],
            "height": size[1],
            "bytes": len(data),
            "format": answer.rendered.format.name,
            "tier": answer.tier,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def _url(self, ref: Ref, transform: Transform, place: str | None) -> str | None:
        """Where the result is to be had, as far as this service serves it."""
        base = self._settings.public_url.rstrip("/")
        if place is not None:
            kind = targets.kind_of(place)
            return f"{base}/images/{quote(place)}" if kind is TargetKind.ORIGINAL else None
        pairs = [pair for pair in transform.items() if pair not in (("fm", "auto"), ("fm", "same"))]
        path = f"/thumb/{quote(ref.name)}"
        if ref.kind == web.KIND:
            path = "/thumb"
            pairs.insert(0, ("url", ref.name))
        query = urlencode(pairs, quote_via=quote, safe=",:|")
        return f"{base}{path}?{query}" if query else f"{base}{path}"


def _size_of(data: bytes) -> tuple[int, int]:
    _, size = peek(data)
    size = size or look(data).size  # AVIF and TIFF do not tell it at their beginning
    return size.width, size.height


def _places(
    ref: Ref,
    outputs: Sequence[Output],
    answers: Sequence[Answer],
    sizes: Sequence[tuple[int, int]],
    *,
    allowed: Sequence[str],
) -> list[str | None]:
    """Where each result goes.

    Raises TargetRefused, and InvalidRequest where it is no place or two would go to one.
    """
    places: list[str | None] = []
    for number, (output, answer, size) in enumerate(zip(outputs, answers, sizes, strict=True)):
        place = output.target
        param = f"outputs[{number}].target"
        if place is not None and targets.kind_of(place) is not TargetKind.URL:
            fields = Fields(
                ref=ref,
                width=size[0],
                height=size[1],
                extension=answer.rendered.format.extension,
                digest=hashlib.sha256(answer.rendered.data).hexdigest(),
                tile=output.tile,
            )
            place = targets.fill(place, fields)
        if place is not None:
            # What is allowed may have changed, and fields come to more than a sample shows.
            targets.check_place(place, param=param, allowed=allowed)
        if place is not None and place in places:
            shown = shown_target(place)
            raise InvalidRequest(f"{param}: two results would be written to {shown}", param=param)
        places.append(place)
    return places
