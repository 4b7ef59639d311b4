"""Every setting of the service, once. README's table is made from the descriptions here.

They come from the environment with the prefix `PIXELMILL_`, and from a file `.env` in the working
directory. A name with the prefix that is not known here is an error. Credentials, region and
endpoint of S3 come from the usual AWS variables.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from dotenv import dotenv_values
from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import machine
from app.presets import load_presets
from app.tokens import check_tokens
from transforms.compounds import ColourKind
from transforms.kinds import BadValue, nearest
from transforms.limits import Limits
from transforms.options import ALIASES_OF_OUTPUTS, MAX_SIDE, OUTPUTS
from transforms.transform import Defaults
from transforms.values import WHITE

PREFIX: Final = "PIXELMILL_"
TAG_HEADERS: Final = ("cache-groups", "surrogate-key", "cache-tag")
_OF_CLIENTS: Final = ("PIXELMILL_SERVER", "PIXELMILL_TOKEN")
"""What tells the command line of the service that it speaks to: no settings of one that runs."""
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_PASSWORD: Final = re.compile(r"^(\w+://[^:/?@]*:).*@")
_PASSWORD_PARAMETER: Final = re.compile(r"([?&]\w*password=)[^&]*")
_BUCKET: Final = re.compile(r"[A-Za-z0-9._-]{3,255}", re.ASCII)
_UNITS: Final = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip().lower())
    if not match:
        raise ValueError(f"must be a duration such as 500ms, 10s or 5m, got {value!r}")
    return float(match[1]) * _UNITS[match[2]]


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(word for part in value.split(",") if (word := part.strip()))
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Sides = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MAX_SIDE)], ...], NoDecode, BeforeValidator(_words)
]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_words)]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is: a folder, or a bucket with a prefix."""

    kind: Literal["file", "s3", "off"]
    location: str
    prefix: str = ""


class Settings(BaseSettings):
    """The effective settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        env_ignore_empty=False,
        hide_input_in_errors=True,  # secrets are among them
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str = Field(
        "",
        description="Where clients reach this service, such as `https://img.example.com`: begins "
        "the URLs that `/kit` gives.",
    )
    originals: str = Field(
        "file:./data/originals",
        description="Where originals are: `file:FOLDER` or `s3://BUCKET/PREFIX`. The default "
        "folder is made at the start; another one must be there.",
    )
    results: str = Field(
        "file:./data/results",
        description="Where results are kept: `file:FOLDER`, `s3://BUCKET/PREFIX` or `off`.",
    )
    memory_cache: ByteSize = Field(
        ByteSize(64 << 20), description="Memory for results that are asked for often; 0 for none."
    )
    freshness: Seconds = Field(
        60.0,
        description="How long an original's version is trusted before it is asked for again. A "
        "replaced original shows at the latest after this.",
    )
    stale_while_revalidate: Seconds = Field(
        0.0,
        description="For how long after that a result is still answered at once, while its "
        "original's version is asked for behind the answer.",
    )
    stale_patience: Seconds = Field(
        1.0,
        description="How long a source may take to tell an original's version before the last "
        "result that is known is answered. It is answered as well where the source fails.",
    )
    missing_freshness: Seconds = Field(
        10.0,
        description="How long a missing URL or a broken original is answered from memory.",
    )
    claim_from: Seconds = Field(
        0.25,
        description="Renders that are estimated to take at least this are done by one replica, "
        "while others that are asked for the same wait for its result.",
    )
    purge_poll: Seconds = Field(
        1.0,
        description="How often a replica asks the store of results what others have purged; 0 is "
        "never.",
    )
    cache_tags: Words = Field(
        (),
        description="Headers that list the tags of a result, by which caches before this service "
        "purge: of `Cache-Groups`, `Surrogate-Key` and `Cache-Tag`, separated by commas.",
    )
    allowed_sources: Words = Field(
        (),
        description="Hosts that `?url=` may name, as globs (`*.example.com`, `cdn.example.com:8443`"
        "), separated by commas. Empty: no URLs.",
    )
    allow_private_networks: bool = Field(
        default=False,
        description="Let `?url=` reach private and loopback addresses. For development.",
    )
    keys: Secrets = Field(
        (),
        description="Signing keys as `id:secret`, separated by commas. The first signs, all "
        "verify. Secrets have at least 16 characters.",
    )
    require_signature: Literal["off", "urls", "all"] = Field(
        "off", description="Which requests must be signed: none, those with `?url=`, or all."
    )
    api_tokens: Secrets = Field(
        (),
        description="Bearer tokens for uploads, deletions, POST /transform and jobs, separated by "
        "commas. `SECRET` may do all, `SECRET@jobs:read+events` what its scopes say. Secrets have "
        "at least 16 characters. Without a token, these answer on loopback alone.",
    )
    database: str = Field(
        "sqlite:///./data/pixelmill.db",
        repr=False,  # it may hold a password
        description="Where jobs are written down: `sqlite:///FILE` on one machine, "
        "`postgresql://USER:PASSWORD@HOST/DATABASE` for many, or `off`: no jobs.",
    )
    run_jobs: bool = Field(
        default=True,
        description="Run jobs in `pixelmill serve` too, behind its requests. Off where `pixelmill "
        "work` does.",
    )
    job_concurrency: int = Field(
        0,
        ge=0,
        le=256,
        description="Jobs in hand at once, those that fetch and write included; 0 means eight "
        "for each render.",
    )
    job_lease: Seconds = Field(
        10.0,
        ge=2,
        description="Time after which the jobs of a worker that no longer answers go to another.",
    )
    job_retention: Seconds = Field(
        7 * 86_400.0, description="How long jobs and batches are shown after their end."
    )
    targets: Words = Field(
        (),
        description="Where results of jobs may be written besides the store of originals, as "
        "globs: `s3://BUCKET/*`, `https://HOST/*`, separated by commas.",
    )
    event_queue: str = Field(
        "",
        description="URL of an SQS queue in which the store of originals tells what is new. "
        "Credentials, region and endpoint come from the AWS_ variables.",
    )
    webhook_secrets: Secrets = Field(
        (),
        description="Secrets that sign webhooks, as `whsec_` and base64 of 24 to 64 bytes, "
        "separated by commas. All of them sign, so that receivers can change theirs. Without one, "
        "there are no webhooks.",
    )
    webhook_hosts: Words = Field(
        ("*",),
        description="Hosts that webhooks may name, as globs. `*` is every public host on its "
        "default port.",
    )
    purge_hook: str = Field(
        "",
        description="URL that is told which tags are purged, so that the CDN in front forgets "
        "them too: `https://api.fastly.com/service/ID/purge`, "
        "`https://api.cloudflare.com/client/v4/zones/ID/purge_cache` or one of your own, on a "
        "private network too. Empty: nobody is told.",
    )
    purge_hook_kind: Literal["generic", "fastly", "cloudflare"] = Field(
        "generic",
        description='How it is told. generic: POST of `{"tags": [...], "soft": false}`.',
    )
    purge_hook_token: SecretStr = Field(
        SecretStr(""),
        description="Token for it: `Fastly-Key` to Fastly, else `Authorization: Bearer`.",
    )
    workers: int = Field(
        0, ge=0, le=256, description="Renders at once; 0 means one for each usable processor."
    )
    default_fit: Literal["contain", "cover", "inside", "outside", "fill"] = Field(
        "contain", description="`fit` where a request gives w and h without it."
    )
    default_background: str = Field("white", description="`background` of canvases and of JPEG.")
    presets: str = Field("", description="TOML file of named transforms for `preset=`.")
    only_presets: bool = Field(default=False, description="Refuse GET /thumb without a preset.")
    allowed_widths: Sides = Field(
        (),
        description="Widths in pixels that may be asked for, times dpr, separated by commas. "
        "Empty: all.",
    )
    allowed_heights: Sides = Field(
        (), description="Heights that may be asked for, as with allowed widths."
    )
    sizes: Literal["refuse", "snap"] = Field(
        "refuse",
        description="What becomes of other sizes: an error, or the next larger allowed size.",
    )
    formats: Words = Field(
        OUTPUTS, description="Formats that results may have, separated by commas."
    )
    cache_max_age: Seconds = Field(
        3600.0, description="How long clients and CDNs may keep a result without asking."
    )

    max_source_bytes: ByteSize = Field(ByteSize(50_000_000), description="Largest original.")
    max_source_pixels: int = Field(
        100_000_000, gt=0, description="Largest original in pixels, all decoded frames together."
    )
    max_frames: int = Field(1000, gt=0, description="Most frames decoded of one animation.")
    max_result_pixels: int = Field(40_000_000, gt=0, description="Largest result in pixels.")
    max_result_side: int = Field(8192, gt=0, le=8192, description="Longest side of a result.")
    max_redirects: int = Field(3, ge=0, le=10, description="Redirects that `?url=` follows.")
    fetch_timeout: Seconds = Field(10.0, description="Time for one original to arrive whole.")
    upload_timeout: Seconds = Field(60.0, description="Time for one upload to arrive whole.")
    render_timeout: Seconds = Field(10.0, description="Time for one render.")
    queue_interactive: Seconds = Field(
        0.5, description="Longest estimated wait of GET requests; beyond it the answer is 503."
    )
    pressure_effort: Annotated[int, Field(ge=0, le=1)] | Literal["off"] = Field(
        0,
        description="`effort` of encoders while the wait of GET requests is more than half of that "
        "and none is asked for: 0, 1 or off. It tells on AVIF, in a fraction of the time with a "
        "few percent more bytes. Such results are kept for a minute at most.",
    )
    queue_api: Seconds = Field(5.0, description="Longest estimated wait of POST /transform.")
    children: bool = Field(
        default=True,
        description="Read SVG, and HEIC, JPEG XL and PDF where their packages are installed, each "
        "document in a process of its own.",
    )
    child_timeout: Seconds = Field(
        2.0, gt=0, description="Time for one document in such a process."
    )
    child_memory: ByteSize = Field(
        ByteSize(512_000_000), description="Memory that such a process may take."
    )
    memory_limit: ByteSize = Field(
        ByteSize(0), description="Memory to plan with; 0 means what the container has."
    )
    memory_share: float = Field(
        0.6, gt=0, le=1, description="Share of the memory that pixels of running renders may take."
    )
    downloads: int = Field(
        64,
        gt=0,
        le=1024,
        description="Originals received at once, of each kind: stored, by URL, uploaded.",
    )

    source_connections: int = Field(
        16,
        gt=0,
        le=1024,
        description="Originals received at once from one origin (scheme, host and port) of "
        "`?url=`; others wait, within the time that theirs have.",
    )
    source_pause: Seconds = Field(
        10.0,
        description="How long an origin is left alone that has failed five times in a row. Doubled "
        "each time that it then fails again, up to 5 minutes; 0: it is asked all the same.",
    )
    s3_connect_timeout: Seconds = Field(2.0, description="Time to connect to S3.")
    s3_read_timeout: Seconds = Field(10.0, description="Longest silence of S3 within an answer.")
    s3_attempts: int = Field(3, ge=1, le=10, description="Attempts of one S3 call.")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Bucket in the path or in the host name; auto: path where an endpoint is set.",
    )

    keep_alive: Seconds = Field(
        75.0, description="How long idle connections are kept: longer than the load balancer does."
    )
    drain_delay: Seconds = Field(
        5.0,
        description="Time between SIGTERM, when /readyz turns, and closing the listener. Longer "
        "than the load balancer needs to notice. SIGINT does not wait.",
    )
    drain_timeout: Seconds = Field(
        25.0,
        description="Time for requests in flight after that, and from SIGTERM on for jobs in hand. "
        "The process ends at the latest 6 s later.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port on which `pixelmill work` answers `/metrics`; 0: none.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged: debug, info, warning or error."
    )

    @field_validator("originals", "results")
    @classmethod
    def _check_place(cls, value: str) -> str:
        parse_place(value)
        return value

    @field_validator("database")
    @classmethod
    def _check_database(cls, value: str) -> str:
        if value != "off" and not re.match(r"sqlite:///.|postgres(ql)?://.", value):
            # What it was is not told: it may hold a password.
            raise ValueError("must be sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or off")
        if ":memory:" in value:
            raise ValueError("must be a file: what is in memory is lost with the process")
        if value.startswith("postgres") and not all(map(find_spec, ("pgqueuer", "psycopg"))):
            raise ValueError("jobs on PostgreSQL need more packages: install pixelmill[postgres]")
        return value

    @field_validator("event_queue")
    @classmethod
    def _check_event_queue(cls, value: str) -> str:
        if value and not re.match(r"https?://[^/]+/.", value):
            raise ValueError(
                "must be the URL of a queue, as in https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
            )
        return value

    @field_validator("originals")
    @classmethod
    def _check_originals(cls, value: str) -> str:
        if value == "off":
            raise ValueError("must be file:FOLDER or s3://BUCKET/PREFIX, got off")
        return value

    @field_validator("cache_tags")
    @classmethod
    def _check_cache_tags(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.lower() for name in value))
        for name in names:
            if name not in TAG_HEADERS:
                raise ValueError(f"must be of {', '.join(TAG_HEADERS)}, got {name!r}")
        return names

    @field_validator("formats")
    @classmethod
    def _check_formats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(ALIASES_OF_OUTPUTS.get(name, name) for name in value))
        unknown = [name for name in names if name not in OUTPUTS]
        if unknown:
            raise ValueError(f"must be of {', '.join(OUTPUTS)}, got {unknown[0]!r}")
        if not {"jpeg", "png"} <= set(names):
            raise ValueError("must name jpeg and png, which every client can show")
        return names

    @field_validator("default_background")
    @classmethod
    def _check_background(cls, value: str) -> str:
        try:
            ColourKind().read(value)
        except BadValue as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        seen = set()
        for key in value:
            kid, colon, secret = key.get_secret_value().partition(":")
            if not colon or not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", kid) or len(secret) < 16:
                raise ValueError("must be id:secret with a secret of at least 16 characters")
            if kid in seen:
                raise ValueError(f"names the key {kid} twice")
            seen.add(kid)
        return value

    @field_validator("api_tokens")
    @classmethod
    def _check_api_tokens(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        check_tokens(token.get_secret_value() for token in value)
        return value

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for glob in value:
            if not re.match(r"(s3|https?)://[^/]", glob):
                raise ValueError(f"must be s3://BUCKET/* or https://HOST/*, got {glob!r}")
            bucket = glob.removeprefix("s3://").partition("/")[0]
            if glob.startswith("s3://") and not re.search(r"[*?]|...", bucket):
                raise ValueError(f"names of buckets have at least 3 characters, got {glob!r}")
        return value

    @field_validator("webhook_secrets")
    @classmethod
    def _check_webhook_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            try:
                size = len(_webhook_key(secret))
            except ValueError:
                size = 0
            if not 24 <= size <= 64:
                raise ValueError("must be whsec_ and then base64 of 24 to 64 random bytes")
        return value

    @field_validator("purge_hook")
    @classmethod
    def _check_purge_hook(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/@*?#]+(/\S*)?", value):
            raise ValueError("must be a URL that begins with http:// or https://")
        return value

    @field_validator("purge_hook_token")
    @classmethod
    def _check_purge_hook_token(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[\x21-\x7e]*", value.get_secret_value()):
            raise ValueError("must be visible ASCII, as it travels in a header")
        return value

    @field_validator("presets")
    @classmethod
    def _check_presets(cls, value: str) -> str:
        if value:
            load_presets(Path(value))
        return value

    @model_validator(mode="after")
    def _check_only_presets(self) -> Self:
        if self.only_presets and not self.presets:
            raise ValueError(f"{PREFIX}ONLY_PRESETS needs {PREFIX}PRESETS")
        return self

    @model_validator(mode="after")
    def _check_purge_hook_is_known(self) -> Self:
        known = self.purge_hook_token.get_secret_value()
        if self.purge_hook and self.purge_hook_kind != "generic" and not known:
            raise ValueError(
                f"{PREFIX}PURGE_HOOK_KIND={self.purge_hook_kind} needs {PREFIX}PURGE_HOOK_TOKEN"
            )
        return self

    @model_validator(mode="after")
    def _check_signing(self) -> Self:
        if self.require_signature != "off" and not self.keys:
            raise ValueError(f"{PREFIX}REQUIRE_SIGNATURE needs {PREFIX}KEYS")
        return self

    @model_validator(mode="after")
    def _check_results_are_apart(self) -> Self:
        """Results among the originals would be taken for originals, and rendered in their turn."""
        if is_beneath(parse_place(self.results), parse_place(self.originals)):
            raise ValueError(
                f"{PREFIX}RESULTS lies within {PREFIX}ORIGINALS: results would be taken for "
                "originals. Give each a folder, or a prefix, of its own"
            )
        return self

    @field_serializer("database", when_used="json")
    def _mask_database(self, value: str) -> str:
        masked = _PASSWORD.sub(r"\1**********@", value)
        return _PASSWORD_PARAMETER.sub(r"\1**********", masked)

    @property
    def defaults(self) -> Defaults:
        """What requests get that do not say."""
        return _defaults(self.default_fit, self.default_background)

    @property
    def limits(self) -> Limits:
        """The bounds of a render."""
        return Limits(
            source_pixels=self.max_source_pixels,
            result_pixels=self.max_result_pixels,
            result_side=self.max_result_side,
            frames=self.max_frames,
        )

    @property
    def processors(self) -> int:
        """Renders at once."""
        return self.workers or machine.processors()

    @property
    def memory(self) -> int:
        """Bytes of memory to plan with."""
        return int(self.memory_limit) or machine.memory()

    @property
    def signing_keys(self) -> dict[str, bytes]:
        """Secrets by key id, the signing one first."""
        pairs = (key.get_secret_value().partition(":") for key in self.keys)
        return {kid: secret.encode() for kid, _, secret in pairs}

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """What signs webhooks."""
        return tuple(map(_webhook_key, self.webhook_secrets))


def _webhook_key(secret: SecretStr) -> bytes:
    """The bytes of `whsec_BASE64`. Raises ValueError."""
    prefix, mark, encoded = secret.get_secret_value().partition("whsec_")
    if prefix or not mark:
        raise ValueError("no whsec_")
    return base64.b64decode(encoded, validate=True)


@lru_cache
def _defaults(fit: str, background: str) -> Defaults:
    colour = ColourKind().read(background)
    return Defaults(fit=fit, background=None if colour == WHITE else colour)


def parse_place(text: str) -> Place:
    """Read the value of ORIGINALS or RESULTS. Raises ValueError."""
    if text == "off":
        return Place("off", "")
    if text.startswith("file:") and len(text) > len("file:"):
        return Place("file", text.removeprefix("file:").removeprefix("//"))
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if bucket and not _BUCKET.fullmatch(bucket):
            raise ValueError(
                f"must be s3://BUCKET/PREFIX, and {bucket!r} is not the name of a bucket, which "
                "has at least 3 letters, digits, dots, hyphens and underscores"
            )
        if bucket:
            return Place("s3", bucket, prefix.strip("/"))
    raise ValueError(f"must be file:FOLDER, s3://BUCKET/PREFIX or off, got {text!r}")


def is_beneath(inner: Place, outer: Place) -> bool:
    """Whether a store lies within another, or is the same."""
    if inner.kind != outer.kind:
        return False
    match inner.kind:
        case "file":
            return Path(inner.location).resolve().is_relative_to(Path(outer.location).resolve())
        case "s3":
            prefix = f"{outer.prefix}/" if outer.prefix else ""
            return inner.location == outer.location and f"{inner.prefix}/".startswith(prefix)
        case "off":
            return False


def load_settings(**overrides: Any) -> Settings:
    """Read the settings of this process. Raises ValueError for a wrong value or unknown name."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in (*os.environ, *dotenv_values(".env")):
        if name.upper() in _OF_CLIENTS:
            continue
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            words = [setting.removeprefix(PREFIX).lower() for setting in sorted(known)]
            meant = nearest(name[len(PREFIX) :], words)
            hint = f"; did you mean {PREFIX}{meant.upper()}?" if meant else ""
            raise ValueError(f"{name} is not a setting{hint}")
    return Settings(**overrides)
