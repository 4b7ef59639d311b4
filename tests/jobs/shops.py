"""A service that is told of its originals, with all its parts but the workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.jobs import ledger, rules, writers
from app.jobs.database import Database
from app.jobs.intake import Intake
from app.jobs.records import Job
from app.jobs.rules import RuleBody
from app.jobs.s3events import Kind, StoreEvent
from app.jobs.schema import rules as table
from app.jobs.writers import Finished
from app.outbound import Outbound
from app.service import Service, open_service
from app.settings import Place, Settings
from app.sources.guard import Guard
from tests.http import originals as draw

BUCKET = "pictures"
CAT = StoreEvent(bucket=BUCKET, key="shop/in/cat.jpg", kind=Kind.CREATED, version="v1")
GONE = replace(CAT, kind=Kind.REMOVED, version=None)
OUTPUTS = [{"transform": "w=32", "target": "thumbs/{stem}.jpg"}]


@dataclass
class Shop:
    """A service whose originals lie in a folder that stands for `s3://pictures/shop`.

    It runs no jobs: what it accepts stays queued.
    """

    service: Service
    intake: Intake
    folder: Path

    async def rule(self, name: str = "thumbs", **body: Any) -> None:
        spec = RuleBody(**{"prefix": "in/", "outputs": OUTPUTS, **body})
        await self.database.write(lambda tx: rules.put(tx, name, spec, now=time.time()))

    async def tell(self, *events: StoreEvent) -> int:
        """Returns how many jobs were made."""
        return (await self.intake.take(events)).jobs

    async def jobs(self) -> list[Job]:
        return await self.database.read(lambda tx: ledger.find_page(tx, limit=1000))

    async def look(self, name: str = "thumbs") -> None:
        """Look through the folder for a rule from its beginning, whoever does it."""
        await self.database.write(lambda tx: tx.execute(table.update().values(poll_at=1.0)))
        while True:
            await self.service.jobs.arrivals.poller.look()
            rule = await self.database.read(lambda tx: rules.find(tx, name))
            if rule.poll_at is None or rule.poll_at > time.time() + 1000:
                return
            await asyncio.sleep(0.02)

    async def write_result(self, place: str) -> str:
        """Write a result as jobs do. Returns its version."""
        found = Finished(data=draw.jpeg(), media_type="image/jpeg", place=place)
        await self.database.write(await self.writer.write([found]))
        return (await self.service.originals.stat(place)).version

    @property
    def writer(self) -> writers.Writers:
        return writers.Writers(
            originals=self.service.originals,
            originals_at=self.service.settings.originals,
            purger=self.service.purger,
            database=self.database,
            open_bucket=lambda name: self.service.originals,
            outbound=Outbound(Guard(allowed=()), connections=1),
        )

    @property
    def database(self) -> Database:
        return self.service.jobs.database

    def put(self, name: str, width: int = 60) -> None:
        draw.put(self.folder, name, draw.jpeg(draw.quarters(width, 40)))


@asynccontextmanager
async def open_shop(path: Path, **options: Any) -> AsyncIterator[Shop]:
    """Open one in a folder of its own."""
    folder = path / "originals"
    folder.mkdir()
    settings = Settings(
        _env_file=None,
        **{
            "database": f"sqlite:///{path}/ledger.db",
            "originals": f"file:{folder}",
            "results": f"file:{path}/results",
            "run_jobs": False,
            **options,
        },
    )
    async with open_service(settings) as service:
        intake = Intake(
            database=service.jobs.database,
            queue=service.jobs.queue,
            reader=service.jobs.reader,
            purger=service.purger,
            originals=service.originals,
            place=Place("s3", BUCKET, "shop"),
        )
        yield Shop(service, intake, folder)
