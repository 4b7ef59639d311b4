"""The parts of the service, built once from the settings and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog

from app import machine
from app.access import Access
from app.admission import Admission, Lane
from app.cache import MemoryTier
from app.cdn import PurgeHook
from app.children import Children
from app.claims import Claims
from app.demand import DemandMeter
from app.descriptions import Describer
from app.downloads import Downloads
from app.engine import Engine
from app.errors import StoreMisconfigured
from app.executor import Executor
from app.identities import Identities
from app.jobs.opening import open_jobs
from app.jobs.service import Jobs
from app.originals import Freshness, Originals
from app.presets import Presets, load_presets
from app.purges import Purges
from app.purging import Purger
from app.refusals import Refusals
from app.render import Renderer
from app.results import StoredTier
from app.settings import Settings, parse_place
from app.sources import stored, web
from app.sources.guard import Guard, Resolver, resolve
from app.sources.origins import Origins
from app.stores.base import ObjectStore
from app.stores.files import FileStore
from app.stores.opening import open_bucket, open_originals, open_store
from app.telemetry import Metrics, note
from app.telemetry.lag import measuring_lag

log = structlog.get_logger(__name__)

_UPLOADS: Final = "upload"
_DOWNLOADED: Final = (stored.KIND, web.KIND, _UPLOADS)
_DOWNLOAD_SHARE: Final = 0.25
"""Of the memory, for bodies on their way. Pixels have a share of their own."""
_WAITING_BYTES: Final = 8 << 20
"""Of originals that wait for each processor: some photographs: enough for it to go on."""
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
    purger: Purger
    describer: Describer
    memory_tier: MemoryTier
    stored_tier: StoredTier
    admission: Admission
    engine: Engine
    demand: DemandMeter
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


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    resolver: Resolver = resolve,
    role: Literal["serve", "work"] = "serve",
    metrics: Metrics | None = None,
) -> AsyncIterator[Service]:
    """Build the parts; close them when the block ends.

    Whoever serves keeps a processor free of jobs; whoever works has nothing else to do. `metrics`
    are given by whoever shows them for longer than the parts are there.
    """
    metrics = metrics or Metrics()
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
    origins = _open_origins(settings)
    web_source = web.WebSource(
        Guard(
            allowed=settings.allowed_sources,
            private_networks=settings.allow_private_networks,
            resolver=resolver,
        ),
        origins=origins,
        downloads=downloads[web.KIND],
        cap=int(settings.max_source_bytes),
        limits=limits,
        timeout=settings.fetch_timeout,
        redirects=settings.max_redirects,
        connections=settings.downloads,
    )
    stored_source = stored.StoredSource(
        originals,
        downloads=downloads[stored.KIND],
        cap=int(settings.max_source_bytes),
        limits=limits,
        timeout=settings.fetch_timeout,
    )
    memory_tier = MemoryTier(int(settings.memory_cache))
    stored_tier = StoredTier(
        results,
        on_write=lambda done: metrics.stored.labels(done).inc(),
        on_read=lambda found: metrics.tier_requests.labels("stored", found).inc(),
    )
    admission = _open_admission(settings, metrics, role=role)
    engine = Engine(
        processors=settings.processors,
        before_all=machine.yield_to_others if role == "serve" else None,
    )
    children = _open_children(settings, metrics)
    _open_gauges(
        metrics,
        settings,
        admission=admission,
        engine=engine,
        origins=origins,
        memory_tier=memory_tier,
        stored_tier=stored_tier,
    )
    identities = Identities(results, kinds=_recalled(settings)) if results else None
    known = Originals(
        {stored.KIND: stored_source, web.KIND: web_source},
        freshness=_freshness(settings),
        identities=identities,
    )
    purges = Purges(results, poll=settings.purge_poll)
    claims = Claims(results, stored_tier, from_seconds=settings.claim_from)
    renderer = Renderer(
        originals=known,
        memory_tier=memory_tier,
        stored_tier=stored_tier,
        executor=Executor(
            admission=admission,
            engine=engine,
            children=children,
            limits=limits,
            max_seconds=settings.render_timeout,
        ),
        max_bytes=int(settings.max_source_bytes),
        max_seconds=settings.render_timeout,
        pressure_effort=None if settings.pressure_effort == "off" else settings.pressure_effort,
        metrics=metrics,
        purges=purges,
        claims=claims,
        refusals=Refusals(seconds=settings.missing_freshness),
    )
    purge_hook = _open_purge_hook(settings, metrics=metrics, resolver=resolver)
    purger = Purger(
        originals=known,
        identities=identities,
        renderer=renderer,
        memory_tier=memory_tier,
        stored_tier=stored_tier,
        purges=purges,
        hook=purge_hook,
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
        if identities is not None:
            stack.push_async_callback(identities.close)
        stack.push_async_callback(claims.close)
        stack.push_async_callback(stored_tier.close)
        stack.push_async_callback(renderer.close)
        stack.push_async_callback(known.close)
        if purge_hook is not None:
            stack.push_async_callback(purge_hook.close)
        stack.push_async_callback(purges.close)
        await purges.open(purger.hear, on_loss=purger.drop_all)
        jobs = None
        if settings.database != "off":
            jobs = await stack.enter_async_context(
                open_jobs(
                    settings,
                    presets=presets,
                    originals=originals,
                    renderer=renderer,
                    purger=purger,
                    metrics=metrics,
                    open_bucket=lambda name: open_bucket(name, settings),
                    run=role == "work" or settings.run_jobs,
                    stop=stop_jobs,
                    resolver=resolver,
                )
            )
        demand = DemandMeter(admission, jobs.backlog if jobs else None)
        stack.push_async_callback(demand.close)
        service = Service(
            settings=settings,
            presets=presets,
            metrics=metrics,
            access=Access(settings),
            originals=originals,
            renderer=renderer,
            purger=purger,
            describer=Describer(renderer, memory_tier),
            memory_tier=memory_tier,
            stored_tier=stored_tier,
            admission=admission,
            engine=engine,
            demand=demand,
            uploads=downloads[_UPLOADS],
            jobs=jobs,
            stop_jobs=stop_jobs,
        )
        await service.find_fault()
        await stack.enter_async_context(measuring_lag(metrics.loop_lag_seconds.observe))
        yield service


def _open_admission(
    settings: Settings, metrics: Metrics, *, role: Literal["serve", "work"]
) -> Admission:
    def on_wait(lane: Lane, seconds: float) -> None:
        metrics.queue_wait_seconds.labels(lane.name.lower()).observe(seconds)
        note(lane=lane.name.lower())

    return Admission(
        processors=settings.processors,
        memory=int(settings.memory * settings.memory_share),
        budgets={
            Lane.INTERACTIVE: settings.queue_interactive,
            Lane.API: settings.queue_api,
            Lane.JOBS: float("inf"),
        },
        waiting_bytes=settings.processors * _WAITING_BYTES,
        kept_from_jobs=1 if role == "serve" else 0,
        on_wait=on_wait,
        on_shed=lambda lane, reason: metrics.sheds.labels(lane.name.lower(), reason).inc(),
        on_busy=metrics.busy_seconds.inc,
    )


def _open_origins(settings: Settings) -> Origins:
    return Origins(
        connections=settings.source_connections,
        pause=settings.source_pause,
        patience=settings.fetch_timeout / 2,
    )


def _open_children(settings: Settings, metrics: Metrics) -> Children | None:
    if not settings.children:
        return None
    return Children(
        seconds=settings.child_timeout,
        memory=int(settings.child_memory),
        # A document may take all its time: one processor is left for everything else.
        limit=max(1, settings.processors - 1),
        on_start=metrics.child_starts.inc,
        on_death=lambda cause: metrics.child_deaths.labels(cause).inc(),
    )


def _open_gauges(
    metrics: Metrics,
    settings: Settings,
    *,
    admission: Admission,
    engine: Engine,
    origins: Origins,
    memory_tier: MemoryTier,
    stored_tier: StoredTier,
) -> None:
    metrics.workers.set(settings.processors)
    metrics.running.set_function(lambda: admission.running)
    metrics.overdue.set_function(lambda: engine.overdue)
    metrics.queued.set_function(lambda: admission.queued)
    metrics.queue_seconds.set_function(lambda: admission.queued_seconds)
    metrics.origin_breakers_open.set_function(lambda: origins.left_alone)
    metrics.memory_tier_bytes.set_function(lambda: memory_tier.size)
    metrics.pending_bytes.set_function(lambda: stored_tier.pending)
    metrics.count_memory_tier(memory_tier)


def _freshness(settings: Settings) -> Freshness:
    return Freshness(
        trusted=settings.freshness,
        revalidating=settings.stale_while_revalidate,
        patience=settings.stale_patience,
        missing=settings.missing_freshness,
    )


def _recalled(settings: Settings) -> tuple[str, ...]:
    """The kinds of sources whose versions are worth writing down beside the results.

    Where originals and results are in one kind of store, both fail together.
    """
    apart = parse_place(settings.originals).kind != parse_place(settings.results).kind
    return (web.KIND, stored.KIND) if apart else (web.KIND,)


def _open_purge_hook(
    settings: Settings, *, metrics: Metrics, resolver: Resolver
) -> PurgeHook | None:
    if not settings.purge_hook:
        return None
    return PurgeHook(
        settings.purge_hook,
        kind=settings.purge_hook_kind,
        token=settings.purge_hook_token.get_secret_value(),
        on_end=lambda outcome: metrics.cdn_purges.labels(outcome).inc(),
        resolver=resolver,
    )
