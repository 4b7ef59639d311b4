"""What can be wrong with a transform or with an original.

    TransformError
    ├── InvalidOption        the request asks for something no picture could satisfy
    ├── OriginalError        an original cannot be used
    │   ├── UnsupportedFormat    the bytes are not an image of a kind that is decoded here
    │   ├── BrokenImage          the bytes claim to be an image and cannot be decoded
    │   └── SourceTooLarge       the header promises more pixels than are decoded here
    └── Stopped              the render was told to stop before it had finished

`code` is stable and public, and so is the message. HTTP knows nothing of these classes here: the
status of each is in `app.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class TransformError(Exception):
    """Base of everything this floor raises on purpose."""

    code = "transform_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidOption(TransformError):
    """A parameter's value is out of range, unreadable, given twice or unknown."""

    code = "invalid_parameter"

    def __init__(self, param: str, detail: str, *, suggestion: str | None = None) -> None:
        super().__init__(detail)
        self.param = param
        self.suggestion = suggestion


class OriginalError(TransformError):
    """Something is wrong with the bytes of an original.

    `param` names the parameter by which that was asked for, where it is not the first.
    """

    def __init__(self, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail)
        self.param = param


class UnsupportedFormat(OriginalError):
    """The original's bytes are of a format that is not decoded here."""

    code = "unsupported_format"


class BrokenImage(OriginalError):
    """The original is cut short, corrupt or empty."""

    code = "broken_image"


class SourceTooLarge(OriginalError):
    """The original has more pixels than the limit allows."""

    code = "source_too_large"


class Stopped(TransformError):
    """The render was stopped from outside: its deadline passed or nobody waits for it."""

    code = "stopped"


def no_such_page(page: int, pages: int) -> InvalidOption:
    """What is told of a page that an original does not have."""
    has = "1 page" if pages == 1 else f"{pages} pages"
    return InvalidOption("page", f"no page {page}: the original has {has}, counted from 0")


@contextmanager
def naming(param: str) -> Iterator[None]:
    """Have errors about an original say which parameter had named it."""
    try:
        yield
    except OriginalError as error:
        if error.param is not None:
            raise
        raise type(error)(f"{param}: {error.detail}", param=param) from None
