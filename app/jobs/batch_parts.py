"""The parts that batches need, put together."""

from __future__ import annotations

from collections.abc import Mapping

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
from app.jobs.spec import SpecReader
from app.jobs.worker import Chore
from app.jobs.writers import Writers
from app.render import Renderer
from app.results import StoredTier
from app.settings import Settings
from app.stores.base import ObjectStore


def make_batches(
    settings: Settings,
    *,
    database: Database,
    queue: JobQueue,
    reader: SpecReader,
    writers: Writers,
    originals: ObjectStore,
    renderer: Renderer,
    stored_tier: StoredTier,
) -> tuple[Batches, Mapping[Kind, Chore]]:
    """What accepts batches and tells of them, and what a worker does for them."""
    batch_reader = BatchReader(reader, settings)
    missing = Missing(
        originals=originals,
        stored_tier=stored_tier,
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
    return batches, {Kind.FILL: filler.fill, Kind.REPORT: reporter.report}
