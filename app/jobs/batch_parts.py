"""The parts that batches need, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.jobs.batch_spec import BatchReader
from app.jobs.batching import Batches
from app.jobs.database import Database
from app.jobs.estimates import Estimator
from app.jobs.filling import Filler
from app.jobs.missing import Missing
from app.jobs.origins import Origins
from app.jobs.queues import JobQueue
from app.jobs.records import Kind
from app.jobs.reports import Reporter
from app.jobs.schedule_spec import Starters
from app.jobs.spec import SpecReader
from app.jobs.starters import BatchStarter, JobStarter
from app.jobs.worker import Chore
from app.jobs.writers import Writers
from app.render import Renderer
from app.settings import Settings
from app.stores.base import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchParts:
    """What accepts batches and tells of them, does their chores, and starts what is scheduled."""

    batches: Batches
    chores: Mapping[Kind, Chore]
    starters: Starters


def make_batches(
    settings: Settings,
    *,
    database: Database,
    queue: JobQueue,
    reader: SpecReader,
    writers: Writers,
    originals: ObjectStore,
    renderer: Renderer,
) -> BatchParts:
    """Put the parts together."""
    batch_reader = BatchReader(reader, settings)
    missing = Missing(
        originals=originals,
        renderer=renderer,
        bucket_of=writers.bucket,
        settings=settings,
    )
    origins = Origins(originals=originals, database=database, missing=missing)
    batches = Batches(
        database=database,
        queue=queue,
        reader=batch_reader,
        origins=origins,
        estimator=Estimator(origins=origins, renderer=renderer, settings=settings),
    )
    filler = Filler(database=database, queue=queue, reader=batch_reader, origins=origins)
    reporter = Reporter(database=database, writer=writers)
    return BatchParts(
        batches=batches,
        chores={Kind.FILL: filler.fill, Kind.REPORT: reporter.report},
        starters={
            "job": JobStarter(reader, queue),
            "batch": BatchStarter(batches, batch_reader, queue),
        },
    )
