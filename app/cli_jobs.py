"""The command line of jobs: it speaks to a running service."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import typer

from app.client import Client, ServerError, Unreachable
from app.plain import failing_plainly

Server = Annotated[
    str | None,
    typer.Option(
        envvar="PIXELMILL_SERVER",
        help="Where the service is; else at PIXELMILL_PORT, 8000, of this machine.",
        show_default=False,
    ),
]
Token = Annotated[
    str | None, typer.Option(envvar="PIXELMILL_TOKEN", help="A bearer token.", show_default=False)
]
Label = Annotated[str | None, typer.Option(help="A name to find the jobs by.")]
_FINAL: Final = ("succeeded", "failed", "cancelled")
_RESTART: Final = 60.0
"""Seconds for which a service that is watched may be away."""
_LOOK: Final = 0.5
"""Seconds between looks at what is watched."""

jobs_cli = typer.Typer(no_args_is_help=True, help="Submit jobs to a running service, and see them.")


@jobs_cli.command()
def submit(
    source: Annotated[str, typer.Argument(help="An id or a URL, or a file of JSON (- for input).")],
    query: Annotated[
        list[str] | None, typer.Argument(help="Transforms, such as 'w=200&h=200'.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Where results go: out/{stem}-{w}.{ext}")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Submit a job: pixelmill jobs submit cat.jpg 'w=200&h=200' --target out/cat.jpg, or a body.

    pixelmill jobs submit job.json sends a whole job as it stands in a file.
    """
    with failing_plainly():
        client = Client(server, token)
        if source == "-" or (not query and source.endswith(".json")):
            body = json.loads(sys.stdin.read() if source == "-" else Path(source).read_text())
        else:
            outputs = [{"transform": text} for text in query or [""]]
            if target is not None:
                outputs = [{**output, "target": target} for output in outputs]
            body = {"source": source, "outputs": outputs}
        # What sends a request again on the way, such as a proxy, has it done once.
        job = client.post("/jobs", body, headers={"idempotency-key": secrets.token_hex(16)})
        if wait:
            job = _follow_job(client, job["id"])
        _print_job(job)
        _exit_as(job)


@jobs_cli.command()
def ls(
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    label: Label = None,
    batch: Annotated[str | None, typer.Option(help="Only those of this batch.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    server: Server = None,
    token: Token = None,
) -> None:
    """List jobs, the newest first."""
    with failing_plainly():
        client = Client(server, token)
        given = {"state": state, "label": label, "batch": batch, "limit": min(limit, 1000)}
        path = f"/jobs?{urlencode({n: v for n, v in given.items() if v is not None})}"
        left = limit
        while path and left > 0:
            found = client.get(path)
            for job in found["items"][:left]:
                detail = job.get("error", {}).get("detail", "")
                print(f"{job['id']}  {job['state']:9}  {_named(job['source'])}  {detail}".rstrip())
            left -= len(found["items"])
            path = found.get("next", "")


@jobs_cli.command()
def get(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    server: Server = None,
    token: Token = None,
) -> None:
    """Print a job as JSON."""
    with failing_plainly():
        print(json.dumps(Client(server, token).get(f"/jobs/{quote(job_id)}"), indent=2))


@jobs_cli.command()
def watch(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="A job or a batch.")],
    server: Server = None,
    token: Token = None,
) -> None:
    """Wait for the end of a job or a batch, telling what happens."""
    with failing_plainly():
        client = Client(server, token)
        try:
            job = _follow_job(client, job_id)
        except ServerError as error:
            if "There is no job" not in str(error):
                raise
            _exit_as(_follow_batch(client, job_id))
            return
        _print_job(job)
        _exit_as(job)


@jobs_cli.command()
def cancel(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    server: Server = None,
    token: Token = None,
) -> None:
    """Cancel a job."""
    with failing_plainly():
        print(Client(server, token).post(f"/jobs/{quote(job_id)}/cancel")["state"])


@jobs_cli.command()
def retry(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    server: Server = None,
    token: Token = None,
) -> None:
    """Try a job again that has failed or was cancelled."""
    with failing_plainly():
        print(Client(server, token).post(f"/jobs/{quote(job_id)}/retry")["state"])


def batch(
    file: Annotated[Path, typer.Argument(metavar="FILE.ndjson", help="A job a line.")],
    label: Label = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
    server: Server = None,
    token: Token = None,
) -> None:
    """Submit a file of jobs, one JSON object a line, and show how they come along."""
    with failing_plainly():
        client = Client(server, token)
        path = "/batches" if label is None else f"/batches?{urlencode({'label': label})}"
        with file.open("rb") as lines:
            accepted = client.post_lines(path, lines)
        for error in accepted.get("errors", []):
            print(f"line {error['line']}: {error['problem']['detail']}", file=sys.stderr)
        print(f"batch {accepted['id']}: {accepted['total']} jobs")
        if wait:
            _exit_as(_follow_batch(client, accepted["id"]))


def warm(
    prefix: Annotated[str, typer.Option(help="Ids that begin with this.")] = "",
    preset: Annotated[str | None, typer.Option(help="A named transform.")] = None,
    query: Annotated[str, typer.Option(help="A transform, such as 'w=400&h=300'.")] = "",
    widths: Annotated[str | None, typer.Option(help="Widths, such as 320,640,1280.")] = None,
    formats: Annotated[str, typer.Option(help="Formats that clients will ask for.")] = "webp,jpeg",
    missing_only: Annotated[bool, typer.Option(help="Leave out what is there already.")] = True,
    dry_run: Annotated[bool, typer.Option(help="Only tell how much that would be.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
    server: Server = None,
    token: Token = None,
) -> None:
    """Render ahead: the results that pages will ask for, of every original under a prefix."""
    with failing_plainly():
        client = Client(server, token)
        if not (query or preset or widths):
            raise ValueError(
                "say what to render: --widths 320,640, --preset NAME or --query 'w=400&h=300'"
            )
        output: dict[str, Any] = {"transform": query}
        if preset is not None:
            output["preset"] = preset
        if widths is not None:
            output["widths"] = _read_widths(widths)
        # What negotiation leaves unnamed is settled by the pixels: JPEG, or PNG.
        names = [name.strip() for name in formats.split(",")]
        outputs = [{**output, "formats": [n for n in names if n not in ("jpeg", "png")]}]
        outputs = [one for one in outputs if one["formats"]]
        if "jpeg" in names or "png" in names:
            outputs.append(output)
        body = {
            "select": {"prefix": prefix, "missing_only": missing_only},
            "outputs": outputs,
            "label": "warm",
            "priority": 0,
        }
        if dry_run:
            print(json.dumps(client.post("/batches", {**body, "dry_run": True}), indent=2))
            return
        accepted = client.post("/batches", body)
        print(f"batch {accepted['id']}")
        if wait:
            _exit_as(_follow_batch(client, accepted["id"]))


def _read_widths(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(
            f"--widths are whole numbers of pixels with commas between, such as 320,640: got {text}"
        )
    return [int(word[:9]) for word in words]


_DEMO: Final[tuple[tuple[str, str, str], ...]] = (
    ("thumbnail, 50x50", "w=50&h=50&background=white&gravity=center", "thumb-50.{ext}"),
    ("100 high", "h=100", "high-100.{ext}"),
    ("200 high", "h=200", "high-200.{ext}"),
    # ImageMagick's -level 10,250 on 8 bits, in percent of full scale.
    ("levels 10,250", "w=600&level=3.92,98.04", "level.{ext}"),
    ("normalized", "w=600&normalize", "normalize.{ext}"),
    ("sketch", "w=600&sketch", "sketch.{ext}"),
    ("charcoal", "w=600&charcoal=2", "charcoal.{ext}"),
    ("tile", "w=600&tile=3x3", "tile-{column}-{row}.{ext}"),
)
"""The work of an image worker: what each is called, its transform, and its file."""


def demo(
    picture: Annotated[Path, typer.Argument(help="A picture of yours.")],
    server: Server = None,
    token: Token = None,
) -> None:
    """Do all that an image worker is asked with a picture, through the queue of a running service.

    Thumbnails, levels, a sketch, a charcoal drawing, nine tiles, and these merged again; a sheet of
    all at the end. Prints where each result lies.
    """
    with failing_plainly():
        client = Client(server, token)
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", picture.stem).strip("-") or "picture"
        original = f"demo/{name}/original{picture.suffix.lower()}"
        client.put(f"/images/{quote(original)}", picture.read_bytes())
        print(f"{'original':18} {client.server}/images/{quote(original)}")
        folder = f"demo/{name}"
        made = _render(
            client,
            original,
            [(what, query, f"{folder}/{file}") for what, query, file in _DEMO],
        )
        tiles = [place for place in made if "/tile-" in place]
        rest = [place for place in made if place not in tiles]
        merged = _render(client, tiles, [("tiles, merged", "across=3", f"{folder}/merged.{{ext}}")])
        sheet = "across=4&cell=300x225&gap=8&background=white&fm=png"
        _render(client, [*rest, *merged], [("all on a sheet", sheet, f"{folder}/sheet.png")])


def _render(
    client: Client, source: str | list[str], wanted: list[tuple[str, str, str]]
) -> list[str]:
    """Run one job to its end, and print where its results lie. Returns their ids."""
    outputs = [{"transform": query, "target": target} for _, query, target in wanted]
    job = client.post("/jobs", {"source": source, "outputs": outputs, "label": "demo"})
    job = _follow_job(client, job["id"])
    if job["state"] != "succeeded":
        raise ServerError(f"job {job['id']} {job['state']}: {job.get('error', {}).get('detail')}")
    names = {re.sub(r"\{.*", "", target): what for what, _, target in wanted}
    for result in job["results"]:
        what = next(what for start, what in names.items() if result["target"].startswith(start))
        size = f"{result['width']}x{result['height']}"
        print(
            f"{what:18} {client.server}{_path_of(result['url'])}  {size}, {result['bytes']} bytes"
        )
    return [result["target"] for result in job["results"]]


def _path_of(url: str) -> str:
    """The path of a URL that may name a host that is not reached from here."""
    return re.sub(r"^https?://[^/]+", "", url)


def _follow_job(client: Client, job_id: str) -> Any:
    """Look at a job until it has ended."""
    while True:
        job = _look(client, f"/jobs/{quote(job_id)}")
        if job["state"] in _FINAL:
            return job
        time.sleep(_LOOK)


def _look(client: Client, path: str) -> Any:
    """What is at a path, though the service may be restarting."""
    until = time.monotonic() + _RESTART
    while True:
        try:
            return client.get(path)
        except Unreachable:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK)


def _follow_batch(client: Client, batch_id: str) -> Any:
    """Look at a batch until it has ended, and show how far it is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[pace]}"), transient=False) as progress:
        shown = progress.add_task("queued", total=None, pace="")
        while True:
            found = _look(client, f"/batches/{quote(batch_id)}")
            counts = found["counts"]
            progress.update(
                shown,
                description=found["state"],
                completed=sum(counts[state] for state in _FINAL),
                total=found["total"] or None,
                pace=_pace(found),
            )
            if found["state"] in _FINAL and "finished_at" in found:
                break
            time.sleep(_LOOK)
    tallied = {**counts, "rejected": found.get("rejected", 0)}
    tally = ", ".join(f"{count} {state}" for state, count in tallied.items() if count)
    print(f"{found['state']}: {tally or 'no jobs'}")
    return found


def _pace(batch: Any) -> str:
    parts = []
    if batch.get("rate"):
        parts.append(f"{batch['rate']:.1f}/s")
    if batch.get("eta") is not None:
        parts.append(f"{batch['eta']:.0f} s left")
    return ", ".join(parts)


def _print_job(job: Any) -> None:
    print(f"{job['id']}  {job['state']}  {job.get('error', {}).get('detail', '')}".rstrip())
    for result in job.get("results", []):
        place = result.get("target") or result.get("url")
        print(f"  {place}  {result['width']}x{result['height']}, {result['bytes']} bytes")


def _named(source: str | list[str]) -> str:
    return source if isinstance(source, str) else " + ".join(source)


def _exit_as(record: Any) -> None:
    """Exit with 1 where it has not ended well, or not all of a batch was taken for jobs."""
    if record["state"] in ("failed", "cancelled") or record.get("rejected"):
        raise typer.Exit(1)
