"""What a client posts as a batch, read into a plan.

The jobs of a batch are listed, or are those of a list of sources that all get the same outputs, or
are told by a manifest in the store, or are a selection of what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from app.errors import InvalidRequest
from app.jobs import targets
from app.jobs.batches import BatchDraft
from app.jobs.bodies import Body, validate
from app.jobs.entries import JobsOfBatch
from app.jobs.manifests import is_csv
from app.jobs.missing import check_askable
from app.jobs.records import Output
from app.jobs.spec import Options, OutputBody, SpecReader, packed
from app.jobs.targets import TargetKind
from app.settings import Settings
from app.stores.base import can_begin_key, check_key

_FORMS: Final = ("jobs", "sources", "manifest", "select")
_REPORTS: Final = (".ndjson", ".jsonl")
"""How places of reports end."""
_OF_JOBS: Final = ("priority", "delay", "timeout", "retries", "expires", "label")
"""Options that each job has for itself; the batch's hold for those that give none."""


class ReportBody(Body):
    """A list of results that is written when the batch has ended."""

    target: str = Field(description="A key among the originals, or `s3://bucket/key`.")
    only: Literal["all", "failed"] = Field("all", description="Of which jobs it tells.")


class BatchOptions(Options):
    """How a batch is run. `metadata` and `webhook` are those of the batch itself."""

    max_failures: int | None = Field(
        None, ge=0, description="When more jobs than this have failed, the rest is cancelled."
    )
    on_error: Literal["continue", "stop"] = Field(
        "continue", description="`stop` is the same as max_failures 0."
    )
    report: ReportBody | None = Field(None, description="A list of the results, as NDJSON.")
    dry_run: bool = Field(False, description="Accept nothing: tell how much it would be.")  # noqa: FBT003 - pydantic's way


class SelectBody(Body):
    """Originals of the store that are there when the batch is filled."""

    prefix: str = Field("", max_length=1024, description="How their ids begin.")
    suffix: str = Field("", max_length=255, description="How their ids end, such as `.jpg`.")
    modified_since: str | None = Field(
        None, description="Only those written at this time or later (RFC 3339)."
    )
    missing_only: bool = Field(
        False,  # noqa: FBT003 - pydantic's way
        description="Only those of which an output is missing, or older than the original.",
    )
    results: bool = Field(
        False,  # noqa: FBT003 - pydantic's way
        description="Also what jobs have written among the originals before the batch began.",
    )


class BatchBody(BatchOptions):
    """A batch: one of `jobs`, `sources`, `manifest` and `select` says of what."""

    jobs: list[Any] | None = Field(
        None, min_length=1, description="Jobs, each as in POST /jobs; or `source` and own options."
    )
    sources: list[Any] | None = Field(
        None, min_length=1, description="Ids and URLs that all get the outputs."
    )
    manifest: str | None = Field(
        None, description="An id of a list among the originals, as .csv, .ndjson or .jsonl."
    )
    select: SelectBody | None = Field(None, description="What the store has.")
    outputs: list[OutputBody] | None = Field(
        None, min_length=1, max_length=100, description="The results that are wanted of each."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which originals are selected. `modified_since` is seconds since the epoch."""

    prefix: str
    suffix: str
    modified_since: float | None
    missing_only: bool
    results: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A list in the store. `version` is that which was there when the batch was accepted."""

    key: str
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a batch is to be.

    `entries` are the bodies of its jobs where they came with the request, else `origin` says where
    they come from. `outputs` are as posted, for entries without their own. `options` hold for jobs
    that do not say otherwise.
    """

    draft: BatchDraft
    options: Mapping[str, Any]
    outputs: list[dict[str, Any]] | None
    entries: list[Any] | None = None
    origin: Selection | Manifest | None = None
    dry_run: bool = False

    @property
    def shared(self) -> dict[str, Any]:
        """What entries have that do not say otherwise."""
        outputs = {} if self.outputs is None else {"outputs": self.outputs}
        return {**self.options, **outputs}

    def as_json(self) -> dict[str, Any]:
        """What the ledger keeps to fill the batch from: its order."""
        order: dict[str, Any] = {"options": self.options, "outputs": self.outputs}
        if isinstance(self.origin, Selection):
            order["select"] = {n: getattr(self.origin, n) for n in Selection.__dataclass_fields__}
        if isinstance(self.origin, Manifest):
            order["manifest"] = {n: getattr(self.origin, n) for n in Manifest.__dataclass_fields__}
        return order

    @classmethod
    def from_json(cls, order: Mapping[str, Any]) -> Plan:
        """The opposite of `as_json`, without what the batch itself keeps."""
        origin: Selection | Manifest
        if select := order.get("select"):
            origin = Selection(**select)
        else:
            origin = Manifest(**order["manifest"])
        return cls(
            draft=BatchDraft(), options=order["options"], outputs=order["outputs"], origin=origin
        )


class BatchReader:
    """Reads batches, with the presets and defaults of one service."""

    def __init__(self, reader: SpecReader, settings: Settings) -> None:
        self._reader = reader
        self._settings = settings

    def read(self, body: Any, options: Mapping[str, Any]) -> Plan:
        """A batch as JSON. `options` came beside the body, which goes before them.

        Raises InvalidRequest, TargetRefused.
        """
        if isinstance(body, list):
            body = {"jobs": body}
        if isinstance(body, dict):
            body = {**options, **body}
        batch: BatchBody = validate(BatchBody, body)
        given = [name for name in _FORMS if getattr(batch, name) is not None]
        if len(given) != 1:
            named = ", ".join(_FORMS)
            raise InvalidRequest(f"A batch has one of {named}, got {' and '.join(given) or 'none'}")
        outputs = body.get("outputs")
        if batch.outputs is not None:
            # Targets may be in the manifest: then only its rows tell whether one is missing.
            if batch.manifest is None or self._settings.results != "off":
                self._reader.check_outputs(batch.outputs)
        elif batch.sources is not None or batch.select is not None:
            raise InvalidRequest("outputs is needed", param="outputs")
        plan = self._plan(batch, body, outputs)
        if batch.outputs is not None and (batch.select is not None or len(batch.sources or ()) > 1):
            self._reader.check_apart(batch.outputs)
        if batch.sources is not None:
            return replace(plan, entries=[_entry(source) for source in batch.sources])
        if batch.jobs is not None:
            return replace(plan, entries=batch.jobs)
        if batch.manifest is not None:
            key = check_key(batch.manifest, param="manifest")
            is_csv(key)
            return replace(plan, origin=Manifest(key=key))
        assert batch.select is not None  # noqa: S101 - it is one of the four
        return replace(plan, origin=self._selection(batch.select, plan))

    def read_options(self, options: Mapping[str, Any]) -> Plan:
        """A batch whose entries are still to come, of what came beside them."""
        batch: BatchOptions = validate(BatchOptions, dict(options))
        return self._plan(batch, options, None)

    def drafts_of(self, plan: Plan, *, batch_id: str, now: float) -> JobsOfBatch:
        """Reads the entries of one batch."""
        return JobsOfBatch(self._reader, plan.shared, batch_id=batch_id, now=now)

    def _plan(self, batch: BatchOptions, body: Mapping[str, Any], outputs: Any) -> Plan:
        most = batch.max_failures
        if batch.on_error == "stop":
            if most:
                raise InvalidRequest(
                    f"on_error is stop, so max_failures is 0, got {most}", param="max_failures"
                )
            most = 0
        report = None
        if batch.report is not None:
            report = json.dumps(self._checked_report(batch.report))
        return Plan(
            draft=BatchDraft(
                label=batch.label,
                metadata=packed(batch.metadata),
                webhook=self._reader.check_webhook(batch.webhook),
                max_failures=most,
                report=report,
            ),
            options={name: body[name] for name in _OF_JOBS if body.get(name) is not None},
            outputs=outputs,
            dry_run=batch.dry_run,
        )

    def _checked_report(self, report: ReportBody) -> dict[str, Any]:
        param = "report.target"
        targets.check_template(
            report.target,
            param=param,
            allowed=self._settings.targets,
            originals=self._settings.originals,
        )
        if targets.kind_of(report.target) is TargetKind.URL:
            raise InvalidRequest(f"{param} must be a key or s3://bucket/key", param=param)
        if "{" in report.target or "}" in report.target:
            raise InvalidRequest(f"{param} takes no fields: it is of no one image", param=param)
        if not report.target.endswith(_REPORTS):
            raise InvalidRequest(
                f"{param} must end in {' or '.join(_REPORTS)}: no original is written over",
                param=param,
            )
        return {"target": report.target, "only": report.only}

    def _selection(self, select: SelectBody, plan: Plan) -> Selection:
        if not can_begin_key(select.prefix):
            raise InvalidRequest("select.prefix: no id begins like this", param="select.prefix")
        since = None
        if select.modified_since is not None:
            since = _read_time(select.modified_since, param="select.modified_since")
        if select.missing_only:
            draft = self._reader.read_job({"source": "x", **plan.shared}, now=0.0)
            for output in map(Output.from_json, json.loads(draft.outputs)):
                check_askable(output)
        return Selection(
            prefix=select.prefix,
            suffix=select.suffix,
            modified_since=since,
            missing_only=select.missing_only,
            results=select.results,
        )


def _entry(source: Any) -> dict[str, Any]:
    return {"source": source}


def _read_time(text: str, *, param: str) -> float:
    """Seconds since the epoch of a time in RFC 3339. Raises InvalidRequest."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidRequest(
            f"{param} must be a time such as 2026-01-31T00:00:00Z, got {text[:64]!r}", param=param
        )
    return at.timestamp()
