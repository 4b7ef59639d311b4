"""Opening the stores that the settings name, and trying them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.settings import Place, Settings, parse_place
from app.stores.base import ObjectStore
from app.stores.files import FileStore


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


def open_bucket(name: str, settings: Settings) -> ObjectStore:
    """The store of a whole bucket."""
    store = open_store(Place("s3", name), settings)
    assert store is not None  # noqa: S101 - only `off` has none
    return store


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFound:
    """How a store was found: `ok`, `off`, or what is wrong."""

    state: str
    conditional: bool | None = None
    """Whether it keeps the first of several writes under a condition. None: it was not tried."""

    @property
    def usable(self) -> bool:
        """Whether nothing is wrong."""
        return self.state in ("ok", "off")


async def probe_stores(settings: Settings) -> dict[str, StoreFound]:
    """Try both stores as they are configured."""
    found = {}
    for name in ("originals", "results"):
        store = (
            open_originals(settings)
            if name == "originals"
            else open_store(parse_place(settings.results), settings)
        )
        if store is None:
            found[name] = StoreFound(state="off")
            continue
        try:
            async with asyncio.timeout(10):
                await store.probe()
                # To try this is to write, which the service may not do among the originals.
                conditional = await store.conditional() if name == "results" else None
            found[name] = StoreFound(state="ok", conditional=conditional)
        except Exception as error:  # noqa: BLE001 - a diagnosis names whatever goes wrong
            state = getattr(error, "detail", None) or f"{type(error).__name__}: {error}"
            found[name] = StoreFound(state=state)
        finally:
            await store.close()
    return found
