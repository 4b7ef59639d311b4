"""The parts of the service, built once from the settings and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog

from app.access import Access
from app.admission import Admission, Lane
from app.cache import MemoryTier
from app.children import Children
from app.descriptions import Describer
from app.downloads import Downloads
from app.engine import Engine
from app.errors import StoreMisconfigured
from app.jobs.opening import open_jobs
from app.jobs.service import Jobs
from app.originals import Originals
from app.presets import Presets, load_presets
from app.render import Renderer
from app.results import StoredTier
from app.settings import Place, Settings, parse_place
from app.sources import stored, web
from app.sources.base import Source
from app.sources.guard import Guard, Resolver, resolve
from app.stores.base import ObjectStore
from app.stores.files import FileStore
from app.telemetry import Metrics, note
from app.telemetry.lag import measuring_lag

log = structlog.get_logger(__name__)

_UPLOADS: Final = "upload"
_DOWNLOADED: Final = (stored.KIND, web.KIND, _UPLOADS)
_DOWNLOAD_SHARE: Final = 0.25
"""Of the memory, for bodies on their way. Pixels have a share of their own."""
_UNUSABLE: Final = "The folder of originals cannot be used: the log names it"
_SILENT: Final = "The folder of originals does not answer"
_LOOK_TIMEOUT: Final = 2.0
"""Seconds for a look at a folder: one on a network may not answer."""


@dataclass(slots=True, kw_only=True)
class Service:
    """What routers call."""

    settings: Settings
    presets: Presets
    metrics: Metrics
    access: Access
    originals: ObjectStore
    renderer: Renderer
    describer: Describer
    memory_tier: MemoryTier
    stored_tier: StoredTier
    admission: Admission
    uploads: Downloads
    jobs: Jobs | None
    """None where there is no database of jobs."""
    stop_jobs: asyncio.Event
    """Set when this process takes up no more jobs."""
    draining: bool = field(default=False)
    _looking: asyncio.Task[str | None] | None = field(default=None)
    _fault: str | None = field(default=None)

    async def find_fault(self) -> str | None:
        """What is wrong with the folder of originals on this machine, if anything is.

        Anybody may be told this; where the folder is, is in the log. A bucket is not looked at: it
        is the same for all replicas.
        """
        if not isinstance(self.originals, FileStore):
            return None
        # One look at a time: where the folder hangs, each would hold a thread for good.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(_look_at(self.originals))
        done, _ = await asyncio.wait({self._looking}, timeout=_LOOK_TIMEOUT)
        fault = self._looking.result() if done else "it does not answer"
        if fault != self._fault:
            self._fault = fault
            log.warning("originals_unusable" if fault else "originals_usable", reason=fault)
        return None if fault is None else _UNUSABLE if done else _SILENT

    def drain(self) -> None:
        """Turn readiness, and take up no more jobs."""
        self.draining = True
        self.stop_jobs.set()


async def _look_at(originals: FileStore) -> str | None:
    try:
        await originals.check()
    except StoreMisconfigured as error:
        return error.detail
    return None


def open_originals(settings: Settings) -> ObjectStore:
    """The store of originals. The default folder is made; another one must be there."""
    place = parse_place(settings.originals)
    if settings.originals == Settings.model_fields["originals"].default:
        with suppress(OSError):  # whoever looks at the store is told
            Path(place.location).mkdir(parents=True, exist_ok=True)
    store = open_store(place, settings, required=True)
    if store is None:
        raise ValueError("there must be a store of originals")
    return store


def open_store(place: Place, settings: Settings, *, required: bool = False) -> ObjectStore | None:
    """The store at a place, or None for `off`. Connects to nothing yet.

    A folder that is `required` is not made.
    """
    match place.kind:
        case "file":
            return FileStore(Path(place.location), required=required)
        case "s3":
            # Half a second of every start, which only those spend who have a bucket.
            from app.stores.s3 import S3Options, S3Store  # noqa: PLC0415

            return S3Store(
                place.location,
                place.prefix,
                options=S3Options(
                    connections=settings.downloads,
                    connect_timeout=settings.s3_connect_timeout,
                    read_timeout=settings.s3_read_timeout,
                    attempts=settings.s3_attempts,
                    addressing=settings.s3_addressing,
                ),
            )
        case "off":
            return None


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    resolver: Resolver = resolve,
    role: Literal["serve", "work"] = "serve",
) -> AsyncIterator[Service]:
    """Build the parts; close them when the block ends.

    Whoever serves keeps a processor free of jobs; whoever works has nothing else to do.
    """
    metrics = Metrics()
    originals = open_originals(settings)
    results = open_store(parse_place(settings.results), settings)
    limits = settings.limits
    # Of each kind apart: origins that stall must not keep stored originals waiting.
    downloads = {
        kind: Downloads(
            slots=settings.downloads,
            memory=int(settings.memory * _DOWNLOAD_SHARE / len(_DOWNLOADED)),
            metrics=metrics,
        )
        for kind in _DOWNLOADED
    }
    web_source = web.WebSource(
        Guard(
            allowed=settings.allowed_sources,
            private_networks=settings.allow_private_networks,
            resolver=resolver,
        ),
        downloads=downloads[web.KIND],
        cap=int(settings.max_source_bytes),
        limits=limits,
        timeout=settings.fetch_timeout,
        redirects=settings.max_redirects,
        connections=settings.downloads,
    )
    sources: dict[str, Source] = {
        stored.KIND: stored.StoredSource(
            originals,
            downloads=downloads[stored.KIND],
            cap=int(settings.max_source_bytes),
            limits=limits,
            timeout=settings.fetch_timeout,
        ),
        web.KIND: web_source,
    }
    memory_tier = MemoryTier(int(settings.memory_cache))
    stored_tier = StoredTier(
        results,
        on_write=lambda done: metrics.stored.labels(done).inc(),
        on_read=lambda found: metrics.tier_requests.labels("stored", found).inc(),
    )

    def on_wait(lane: Lane, seconds: float) -> None:
        metrics.queue_wait_seconds.labels(lane.name.lower()).observe(seconds)
        note(lane=lane.name.lower())

    admission = Admission(
        processors=settings.processors,
        memory=int(settings.memory * settings.memory_share),
        budgets={
            Lane.INTERACTIVE: settings.queue_interactive,
            Lane.API: settings.queue_api,
            Lane.JOBS: float("inf"),
        },
        kept_from_jobs=1 if role == "serve" else 0,
        on_wait=on_wait,
    )
    engine = Engine(
        processors=settings.processors,
        on_busy=metrics.busy_seconds.inc,
    )
    children = None
    if settings.children:
        children = Children(
            seconds=settings.child_timeout,
            memory=int(settings.child_memory),
            # A document may take all its time: one processor is left for everything else.
            limit=max(1, settings.processors - 1),
            on_start=metrics.child_starts.inc,
            on_death=lambda cause: metrics.child_deaths.labels(cause).inc(),
        )
    metrics.workers.set(settings.processors)
    metrics.running.set_function(lambda: admission.running)
    metrics.queued.set_function(lambda: admission.queued)
    metrics.memory_tier_bytes.set_function(lambda: memory_tier.size)
    metrics.pending_bytes.set_function(lambda: stored_tier.pending)
    metrics.count_memory_tier(memory_tier)
    renderer = Renderer(
        originals=Originals(sources, freshness=settings.freshness),
        memory_tier=memory_tier,
        stored_tier=stored_tier,
        admission=admission,
        engine=engine,
        children=children,
        limits=limits,
        max_bytes=int(settings.max_source_bytes),
        max_seconds=settings.render_timeout,
        metrics=metrics,
    )
    presets = load_presets(Path(settings.presets)) if settings.presets else Presets()
    stop_jobs = asyncio.Event()
    async with AsyncExitStack() as stack:
        for store in (originals, results):
            if store is not None:
                stack.push_async_callback(store.close)
        stack.push_async_callback(web_source.close)
        stack.callback(engine.close)
        if children is not None:
            stack.push_async_callback(children.close)
        stack.push_async_callback(stored_tier.close)
        jobs = None
        if settings.database != "off":
            jobs = await stack.enter_async_context(
                open_jobs(
                    settings,
                    presets=presets,
                    originals=originals,
                    renderer=renderer,
                    stored_tier=stored_tier,
                    metrics=metrics,
                    open_bucket=lambda name: _open_bucket(name, settings),
                    run=role == "work" or settings.run_jobs,
                    stop=stop_jobs,
                    resolver=resolver,
                )
            )
        service = Service(
            settings=settings,
            presets=presets,
            metrics=metrics,
            access=Access(settings),
            originals=originals,
            renderer=renderer,
            describer=Describer(renderer, memory_tier),
            memory_tier=memory_tier,
            stored_tier=stored_tier,
            admission=admission,
            uploads=downloads[_UPLOADS],
            jobs=jobs,
            stop_jobs=stop_jobs,
        )
        await service.find_fault()
        await stack.enter_async_context(measuring_lag(metrics.loop_lag_seconds.observe))
        yield service


def _open_bucket(name: str, settings: Settings) -> ObjectStore:
    store = open_store(Place("s3", name), settings)
    assert store is not None  # noqa: S101 - only `off` has none
    return store


async def probe_stores(settings: Settings) -> dict[str, str]:
    """Try both stores as they are configured: `ok`, `off`, or what is wrong."""
    found = {}
    for name in ("originals", "results"):
        store = (
            open_originals(settings)
            if name == "originals"
            else open_store(parse_place(settings.results), settings)
        )
        if store is None:
            found[name] = "off"
            continue
        try:
            async with asyncio.timeout(10):
                await store.probe()
            found[name] = "ok"
        except Exception as error:  # noqa: BLE001 - a diagnosis names whatever goes wrong
            found[name] = getattr(error, "detail", None) or f"{type(error).__name__}: {error}"
        finally:
            await store.close()
    return found
