"""What goes wrong between this service and S3, as errors of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from app.errors import (
    OriginalChanged,
    OriginalMissing,
    ServiceError,
    SourceFailed,
    SourceTimeout,
    StoreMisconfigured,
)

_FAILURES: Final = (ClientError, BotoCoreError, aiohttp.ClientError, OSError, ValueError)


class OutOfRange(SourceFailed):
    """The range begins where the object has ended."""


class Conflicting(SourceFailed):
    """Somebody else changes the object at this moment."""


class Unimplemented(SourceFailed):
    """The provider does not know what it is asked."""


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Translate what botocore and aiohttp raise. The status decides; the code is often absent."""
    try:
        yield
    except ServiceError:
        raise
    except _FAILURES as error:
        raise _translate(error, key) from None


def _translate(error: Exception, key: str) -> ServiceError:
    if isinstance(error, ClientError):
        return _translate_answer(error, key)
    for kinds, failure, detail in _OF_CLIENT:
        if isinstance(error, kinds):
            return failure(detail)
    return SourceFailed(f"The object store's client failed: {type(error).__name__}")


_OF_CLIENT: Final[tuple[tuple[Any, type[ServiceError], str], ...]] = (
    (
        (NoCredentialsError, PartialCredentialsError),
        StoreMisconfigured,
        "There are no credentials for the object store",
    ),
    (ParamValidationError, StoreMisconfigured, "The name of the bucket is not valid"),
    (
        (ReadTimeoutError, ConnectTimeoutError, TimeoutError),
        SourceTimeout,
        "The object store did not answer in time",
    ),
    (aiohttp.ClientPayloadError, SourceFailed, "The object store's answer was cut short"),
    (
        (HTTPClientError, BotoConnectionError, aiohttp.ClientError, OSError),
        SourceFailed,
        "The object store cannot be reached",
    ),
    (ValueError, SourceFailed, "The object store's answer is not S3's"),
)


def _translate_answer(error: ClientError, key: str) -> ServiceError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if error.response.get("Error", {}).get("Code") == "NoSuchBucket":
        return StoreMisconfigured("The bucket does not exist")
    match status:
        case 404:
            return OriginalMissing(f"There is no original {key!r}")
        case 409:
            return Conflicting(f"{key!r} is being changed")
        case 412:
            return OriginalChanged(f"{key!r} was replaced")
        case 416:
            return OutOfRange("The range lies outside the object")
        case 401 | 403:
            return StoreMisconfigured("The object store refuses the credentials")
        case 400:
            return StoreMisconfigured("The object store does not take the request")
        case 501:
            return Unimplemented("The object store answered 501")
        case _:
            return SourceFailed(f"The object store answered {status}")
