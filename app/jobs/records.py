"""Jobs, attempts and batches as values, as they are in the ledger and as they are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from app.errors import Problem
from app.sources import stored, web
from app.sources.base import Ref

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)


class State(StrEnum):
    """What has become of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the job by itself."""
        return self not in (State.QUEUED, State.RUNNING)


class Kind(StrEnum):
    """What a job does: render, or look after a batch."""

    RENDER = "render"
    FILL = "fill"
    REPORT = "report"


class BatchState(StrEnum):
    """What has become of a batch: `filling` while jobs are still added to it."""

    FILLING = "filling"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the batch by itself."""
        return self not in (BatchState.FILLING, BatchState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result that is wanted.

    `transform` is the canonical query, `fm` its settled output, and `target` the template of the
    place that the result is written to: None where it is only kept among the results.
    """

    transform: str
    fm: str
    target: str | None = None
    tile: tuple[int, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """What the ledger keeps."""
        return {
            "transform": self.transform,
            "fm": self.fm,
            **({} if self.target is None else {"target": self.target}),
            **({} if self.tile is None else {"tile": list(self.tile)}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Output:
        """The opposite of `as_json`."""
        tile = value.get("tile")
        return cls(
            transform=value["transform"],
            fm=value["fm"],
            target=value.get("target"),
            tile=None if tile is None else (tile[0], tile[1]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A job that has not been accepted yet. Times and timeouts in seconds.

    `source` is the original, or those that are merged with it after it; `outputs` is JSON already,
    as it is the same text for all jobs of a batch.
    """

    source: tuple[Ref, ...]
    outputs: str
    kind: Kind = Kind.RENDER
    priority: int = 1
    run_after: float = 0.0
    expires_at: float | None = None
    retries: int = 3
    timeout: float = 120.0
    label: str | None = None
    metadata: str | None = None
    webhook: str | None = None
    batch_id: str | None = None
    line: int | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is in the ledger. Times are seconds since the epoch."""

    id: str
    kind: Kind
    state: State
    paused: bool
    priority: int
    run_after: float
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    worker: str | None
    lease_until: float | None
    attempt: int
    failures: int
    deaths: int
    retries: int
    timeout: float
    batch_id: str | None
    line: int | None
    origin: str | None
    label: str | None
    source: str
    digest: str | None
    outputs: str
    metadata: str | None
    webhook: str | None
    results: str | None
    error: str | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Job:
        """The job of a row of the ledger."""
        values = dict(row)
        values["state"] = State(values["state"])
        values["kind"] = Kind(values["kind"])
        return cls(**values)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The original, and those that are merged with it after it."""
        return tuple(Ref(kind, name) for kind, name in json.loads(self.source))

    def as_json(self) -> dict[str, Any]:
        """What a client is told. Links are added by whoever knows the URLs."""
        shown = {
            "id": self.id,
            "state": "paused" if self.paused and self.state is State.QUEUED else self.state.value,
            "source": shown_source(self.refs),
            "outputs": [_shown_output(output) for output in json.loads(self.outputs)],
            "priority": self.priority,
            "attempt": self.attempt,
            "retries": self.retries,
            "timeout": self.timeout,
            "created_at": shown_time(self.created_at),
            "run_after": shown_time(self.run_after) if self.state is State.QUEUED else None,
            "started_at": shown_time(self.started_at),
            "finished_at": shown_time(self.finished_at),
            "expires_at": shown_time(self.expires_at),
            "label": self.label,
            "metadata": _loaded(self.metadata),
            "webhook": None if self.webhook is None else shown_url(self.webhook),
            "batch": self.batch_id,
            "line": self.line,
            "origin": self.origin,
            "results": _loaded(self.results),
            "error": _loaded(self.error),
        }
        return {name: value for name, value in shown.items() if value is not None}

    def as_news(self) -> dict[str, Any]:
        """What receivers of webhooks and readers of reports are told."""
        return {**self.as_json(), "source": told_source(self.refs)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it is in the ledger. Times are seconds since the epoch.

    `rejected` are entries that made no job, and `skipped` those whose results were there already.
    """

    id: str
    state: BatchState
    created_at: float
    filled_at: float | None
    finished_at: float | None
    label: str | None
    origin: str | None
    metadata: str | None
    webhook: str | None
    total: int
    rejected: int
    skipped: int
    rejections: str | None
    max_failures: int | None
    order: str | None
    cursor: str | None
    report: str | None
    report_due: bool
    error: str | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Batch:
        """The batch of a row of the ledger."""
        values = dict(row)
        values["state"] = BatchState(values["state"])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """What a client is told, but for the counts."""
        shown = {
            "id": self.id,
            "state": self.state.value,
            "total": self.total,
            "rejected": self.rejected,
            "skipped": self.skipped,
            "errors": _loaded(self.rejections),
            "created_at": shown_time(self.created_at),
            "filled_at": shown_time(self.filled_at),
            "finished_at": shown_time(self.finished_at),
            "label": self.label,
            "metadata": _loaded(self.metadata),
            "webhook": None if self.webhook is None else shown_url(self.webhook),
            "origin": self.origin,
            "max_failures": self.max_failures,
            "report": _loaded(self.report),
            "error": _loaded(self.error),
        }
        return {name: value for name, value in shown.items() if value is not None}


def packed_source(refs: Sequence[Ref]) -> str:
    """The originals of a job as the ledger keeps them."""
    return _ENCODER.encode([[ref.kind, ref.name] for ref in refs])


def shown_source(refs: Sequence[Ref]) -> Any:
    """The originals as a client names them: ids and URLs, a list where several are merged."""
    names = [ref.name for ref in refs]
    return names[0] if len(names) == 1 else names


def told_source(refs: Sequence[Ref]) -> Any:
    """The same for others than the client: URLs without their queries, which may be signed."""
    return shown_source([replace(ref, name=shown_target(ref.name)) for ref in refs])


def source_ref(name: str) -> Ref:
    """The original that a client names: a URL, or else an id."""
    return Ref(web.KIND if name.startswith(("http://", "https://")) else stored.KIND, name)


def shown_problem(problem: Problem) -> dict[str, Any]:
    """An error as a job keeps it: the problem of the HTTP API without what belongs to a request."""
    shown = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "param": problem.param,
    }
    return {name: value for name, value in shown.items() if value is not None}


def shown_time(at: float | None) -> str | None:
    """A time in RFC 3339, in UTC and to the millisecond."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown_url(url: str) -> str:
    """A URL without its query: that of a presigned one is as good as a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def shown_target(target: str) -> str:
    """A target, or the place that it was filled in to, without what is secret in it."""
    return shown_url(target) if target.startswith(("https://", "http://")) else target


def _shown_output(output: Mapping[str, Any]) -> dict[str, Any]:
    target = output.get("target")
    shown = {
        "transform": output["transform"],
        "target": None if target is None else shown_target(target),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
