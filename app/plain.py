"""How the command line fails: in one line, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def failing_plainly() -> Iterator[None]:
    """Tell what is wrong in one line, without a traceback, and exit with 2."""
    from pydantic import ValidationError

    from app.errors import ServiceError
    from app.wording import sentence_of

    try:
        yield
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0]).upper() if problem["loc"] else ""
            name = f"PIXELMILL_{field}: " if field else ""
            print(f"pixelmill: {name}{sentence_of([problem])}", file=sys.stderr)
        raise typer.Exit(2) from None
    except (ValueError, OSError, ServiceError) as error:
        print(f"pixelmill: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
