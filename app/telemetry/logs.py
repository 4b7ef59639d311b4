"""Structured logs: one line for each event, of ours and of the libraries alike."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog
from pydantic import SecretStr

from app.settings import Settings
from app.telemetry.redaction import make_redactor

_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_CONSOLE: Final = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
_OF_AWS: Final = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PASSWORD: Final = re.compile(r"://[^:/?@]*:(.*)@")


class _Unfailing(io.TextIOBase):
    """A stream whose reader may go away: what it was to read is lost, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logs(settings: Settings) -> None:
    """Write structured logs to standard error: JSON, or lines for people on a terminal.

    What libraries log from `warning` on, and Python's own warnings, take the same way.
    """
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    redact = make_redactor(_secrets_of(settings))
    stream = cast("TextIO", _Unfailing(sys.stderr))

    def redacted(logger: Any, method: str, line: str) -> str:
        del logger, method
        return redact(line)

    described = (
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    )
    rendered = (
        # Without local variables: tokens and pictures are among them.
        *([_TRACEBACKS, structlog.processors.JSONRenderer()] if as_json else [_CONSOLE]),
        redacted,
    )
    structlog.configure(
        processors=cast("list[structlog.typing.Processor]", [*described, *rendered]),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *described],
            processors=cast(
                "list[structlog.typing.Processor]",
                [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
            ),
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


def _secrets_of(settings: Settings) -> Iterator[str]:
    """Whatever is secret of the settings and of the environment of S3."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, SecretStr):
                secret = each.get_secret_value()
                # A key has its id before it, and a token its scopes behind it.
                yield secret
                yield secret.partition(":")[2]
                yield secret.rpartition("@")[0]
    if password := _PASSWORD.search(settings.database):
        yield password[1]
    yield from filter(None, map(os.environ.get, _OF_AWS))
