"""The command line: serve, transform, explain, sign, doctor, config."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

# Modules that are slow to load are imported by the commands that need them, so that --help is not.
from app import __version__
from app.cli_jobs import batch, demo, jobs_cli, warm
from app.plain import failing_plainly

if TYPE_CHECKING:
    from app.settings import Settings
    from app.stores.opening import StoreFound
    from transforms.pipeline import Result, Work
    from transforms.transform import Transform

_HEALTH_TIMEOUT: Final = 2.0
"""Seconds for each thing that a health check waits for."""

cli = typer.Typer(
    name="pixelmill",
    help="An image-transformation service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(jobs_cli, name="jobs")
for command in (batch, warm, demo):
    cli.command()(command)


def main() -> None:
    """Run the command line."""
    cli()


def _settings(**overrides: Any) -> Settings:
    from app.settings import load_settings

    return load_settings(**{k: v for k, v in overrides.items() if v is not None})


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    worker: Annotated[bool | None, typer.Option(help="Run jobs too, behind requests.")] = None,
) -> None:
    """Run the service."""
    with failing_plainly():
        settings = _settings(host=host, port=port, run_jobs=worker)
        from app.jobs.opening import check_database
        from app.server import serve as run
        from app.telemetry import configure_logs

        configure_logs(settings)
        check_database(settings)
        run(settings)


@cli.command()
def work(
    concurrency: Annotated[
        int | None, typer.Option(help="Jobs in hand at once; 0: eight for each render.")
    ] = None,
) -> None:
    """Run jobs, and nothing else, until told to stop."""
    with failing_plainly():
        settings = _settings(job_concurrency=concurrency)
        if settings.database == "off":
            raise ValueError("there are no jobs: PIXELMILL_DATABASE is off")
        from app.jobs.opening import check_database
        from app.telemetry import configure_logs
        from app.working import work as run

        configure_logs(settings)
        check_database(settings)
        run(settings)


@cli.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def transform(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN", help="The original.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where the result goes.")],
) -> None:
    """Transform a file: pixelmill transform in.jpg out.webp --w 200 --h 200. Needs no server.

    Every parameter of the URLs is an option here; merge and watermark name files. The ending of OUT
    names the format unless --fm does. --tile 3x2 writes all six parts. OUT may be -, which is
    standard output, with --fm. Presets are the service's: name their parameters here.
    """
    from app.offline import Bench
    from transforms.errors import TransformError

    with failing_plainly():
        settings = _settings()
        try:
            pairs = _read_options(context.args)
            wanted, targets = _spread(pairs, target, settings)
            bench = Bench(settings, lambda name: Path(name).read_bytes())
            began = time.perf_counter()

            async def run() -> list[Result]:
                try:
                    return await bench.run(str(source), wanted)
                finally:
                    await bench.close()

            results = asyncio.run(run())
        except TransformError as error:
            raise ValueError(error.detail) from None
        for result, path in zip(results, targets, strict=True):
            if str(path) == "-":
                sys.stdout.buffer.write(result.data)
                sys.stdout.buffer.flush()
                continue
            path.write_bytes(result.data)
            print(
                f"{path}: {result.format.name} {result.width}x{result.height}, "
                f"{len(result.data)} bytes, {(time.perf_counter() - began) * 1000:.0f} ms"
            )


@cli.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def explain(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN", help="The original.")],
) -> None:
    """Tell what a transform of a file would come to, as JSON: pixelmill explain in.jpg --w 200.

    Nothing is rendered.
    """
    import json

    from app.explanation import explain as tell
    from app.offline import Bench
    from transforms.errors import TransformError
    from transforms.transform import Transform

    with failing_plainly():
        settings = _settings()
        try:
            wanted = Transform.from_query(
                _read_options(context.args), defaults=settings.defaults, unknown="refuse"
            )
            reason = "fm names it" if wanted.fm else "no fm: by the pixels"
            wanted = wanted.with_output(wanted.fm or "auto", defaults=settings.defaults)
            bench = Bench(settings, lambda name: Path(name).read_bytes())

            async def prepare() -> Work:
                try:
                    return (await bench.prepare(str(source), [wanted]))[0]
                finally:
                    await bench.close()

            work = asyncio.run(prepare())
        except TransformError as error:
            raise ValueError(error.detail) from None
        print(json.dumps(tell(work, reason=reason, settings=settings), indent=2))


def _spread(
    pairs: list[tuple[str, str]], target: Path, settings: Settings
) -> tuple[list[Transform], list[Path]]:
    """The transforms and the files of their results: one, or with `--tile 3x2` one for each part.

    Their names take `{column}` and `{row}`, or end in them.
    """
    from transforms.formats import FORMATS
    from transforms.transform import Transform

    endings = {f.extension: f.name for f in FORMATS.values()} | {n: n for n in FORMATS}
    grid = next((re.fullmatch(r"(\d{1,3})x(\d{1,3})", v) for n, v in pairs if n == "tile"), None)
    places: list[tuple[int, int] | None] = [None]
    if grid is not None:
        columns, rows = int(grid[1]), int(grid[2])
        if not columns or not rows:
            raise ValueError(f"tile must have at least one column and one row, got {grid[0]}")
        places = [(column, row) for row in range(rows) for column in range(columns)]
        if "{" not in target.name:
            target = target.with_name(f"{target.stem}-{{column}}-{{row}}{target.suffix}")
    transforms, paths = [], []
    for place in places:
        chosen = pairs
        path = target
        if place is not None and grid is not None:
            part = f"{grid[0]},{place[0]},{place[1]}"
            chosen = [(name, part if name == "tile" else value) for name, value in pairs]
            path = target.with_name(target.name.format(column=place[0], row=place[1]))
        wanted = Transform.from_query(chosen, defaults=settings.defaults, unknown="refuse")
        fm = wanted.fm or endings.get(path.suffix.lower().removeprefix("."))
        if fm is None:
            raise ValueError(f"the ending of {path.name} names no format: add --fm")
        transforms.append(wanted.with_output(fm, defaults=settings.defaults))
        paths.append(path)
    return transforms, paths


def _read_options(arguments: list[str]) -> list[tuple[str, str]]:
    """`--w 200`, `--w=200` and flags such as `--enlarge` as pairs."""
    pairs = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"{word} is not an option; options look like --w 200")
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            follows = bool(rest) and not rest[0].startswith("--")
            value = rest.pop(0) if follows else ""
        pairs.append((name, value))
    return pairs


@cli.command()
def sign(
    url: Annotated[str, typer.Argument(help="A URL or path, such as /thumb/cat.jpg?w=200.")],
    ttl: Annotated[int | None, typer.Option(help="Seconds until it expires.")] = None,
) -> None:
    """Sign a URL with the first of PIXELMILL_KEYS."""
    from app.signing import Signer

    with failing_plainly():
        keys = _settings().signing_keys
        if not keys:
            raise ValueError("set PIXELMILL_KEYS to id:secret")
        expires = None if ttl is None else int(time.time()) + ttl
        print(Signer(keys).sign(url, expires=expires))


@cli.command()
def config() -> None:
    """Print the effective settings, secrets masked."""
    with failing_plainly():
        settings = _settings()
        for name, value in settings.model_dump(mode="json").items():
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            shown = str(shown).lower() if isinstance(shown, bool) else shown
            print(f"PIXELMILL_{name.upper()}={shown}")


@cli.command()
def doctor() -> None:
    """Look at this machine and these settings, and tell what is wrong with them."""
    with failing_plainly():
        settings = _settings()
        from importlib.metadata import version

        from app import machine
        from app.jobs.diagnosis import diagnose
        from app.stores.opening import probe_stores
        from transforms import formats, libvips

        stores = asyncio.run(probe_stores(settings))
        database = diagnose(settings)
        memory = settings.memory / (1 << 20)
        lines = {
            "pixelmill": __version__,
            "python": sys.version.split()[0],
            "libvips": "{}.{}.{}".format(*libvips.VERSION),
            **{name: version(name) for name in ("pyvips", "fastapi", "uvicorn", "aiobotocore")},
            "formats": ", ".join(formats.FORMATS),
            "processors": f"{machine.processors()} usable of {os.cpu_count()} (affinity, cgroup)",
            "renders at once": settings.processors,
            "memory": f"{memory:.0f} MiB to plan with",
            "allocator": _allocator(),
            **{f"store of {name}": found.state for name, found in stores.items()},
            **_conditional_writes(stores["results"]),
            "database": settings.model_dump(mode="json", include={"database"})["database"],
            "state of database": database.found,
        }
        for name, value in lines.items():
            print(f"{name:18} {value}")
        if not database.usable or not all(found.usable for found in stores.values()):
            raise typer.Exit(1)


def _conditional_writes(results: StoreFound) -> dict[str, str]:
    """Whether the store of results keeps the first of several, where that is known."""
    if results.conditional is None:
        return {}
    last = "no: of equal results that replicas write at once the last one stays"
    return {"conditional writes": "yes" if results.conditional else last}


def _allocator() -> str:
    """Which malloc runs: fragmentation of the system's own costs a long-lived process memory."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return "unknown"
    for name in ("jemalloc", "mimalloc", "tcmalloc"):
        if name in maps:
            return name
    arenas = os.environ.get("MALLOC_ARENA_MAX")
    return f"system, MALLOC_ARENA_MAX={arenas}" if arenas else "system"


@cli.command()
def health() -> None:
    """Exit with 0 where the service of these settings is ready: for container health checks."""
    from http.client import HTTPConnection, HTTPException

    with failing_plainly():
        settings = _settings()
        # What listens on every address is asked on this one, and no proxy is asked for it.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
        connection = HTTPConnection(host, settings.port, timeout=_HEALTH_TIMEOUT)
        try:
            connection.request("GET", "/readyz", headers={"connection": "close"})
            answer = connection.getresponse()
            ready = answer.status == 200
            reason = "" if ready else _reason_of(answer.read()) or answer.status
        except (OSError, HTTPException) as error:
            ready, reason = False, getattr(error, "strerror", None) or str(error)
        finally:
            connection.close()
        if not ready:
            print(f"not ready: {reason}", file=sys.stderr)
            raise typer.Exit(1)
        print("ready")


def _reason_of(body: bytes) -> str | None:
    """Why the service says that it is not ready, if it does."""
    import json

    try:
        told = json.loads(body)
        return str(told.get("detail") or told["status"])
    except (ValueError, KeyError, AttributeError):
        return None


@cli.command()
def samples() -> None:
    """Draw a few sample originals into the folder of originals, and print URLs to try."""
    with failing_plainly():
        settings = _settings()
        from app.samples import draw_samples
        from app.settings import parse_place

        place = parse_place(settings.originals)
        if place.kind != "file":
            raise ValueError("samples are drawn into a folder: set PIXELMILL_ORIGINALS=file:FOLDER")
        draw_samples(Path(place.location))
        base = f"http://{settings.host}:{settings.port}"
        print("Try:")
        for path in (
            "/thumb/samples/landscape.jpg?w=200&h=200",
            "/thumb/samples/landscape.jpg?w=800&h=300&fit=cover&gravity=attention",
            "/thumb/samples/portrait-rotated.jpg?w=300",
            "/thumb/samples/emblem.png?w=300&background=none",
            "/thumb/samples/spinner.gif?w=120&page=3",
            "/schema",
        ):
            print(f"  {base}{path}")


if __name__ == "__main__":
    main()
