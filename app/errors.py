"""Everything that can go wrong, as a tree, and the status of each: HTTP is put on errors here only.

    ServiceError
    ├── OriginalMissing        404  there is no such original
    ├── OriginalChanged        409  it was replaced while it was read, more than once
    ├── OriginalTooLarge       413  more bytes than the cap
    ├── SourceRefused          403  the URL's host or address may not be fetched from
    ├── SourceFailed           502  the origin or the store answered with a fault, or a cut body
    │   ├── SourceUnfit        502  the origin answered, but with nothing that could be used
    │   │   └── SourceBusy     502  it asked for patience
    │   └── SourceUnavailable  502  the origin has failed too often, and is left alone for a while
    ├── SourceTimeout          504  it did not answer in time
    ├── StoreMisconfigured     502  bucket, credentials or folder are wrong: for the operator
    ├── InvalidRequest         400  a parameter other than those of a transform is wrong
    ├── KeyConflict            409  the id collides with another that is a folder, or the reverse
    ├── SignatureInvalid       403  missing, wrong or expired
    ├── Unauthorised           401  a bearer token is needed
    ├── Overloaded             503  the queue is longer than this class of request waits
    ├── Leaving                503  this process ends before the answer is there
    ├── BodyTooLarge           413  more is sent than is read
    ├── UploadTimeout          408  the client did not send the body in time
    ├── RenderTimeout          504  the render took longer than it may
    ├── ScopeMissing           403  the token is known, but not for this
    ├── JobsOff                404  this service keeps no ledger of jobs
    ├── RecordMissing          404  no such job, batch, schedule, rule or delivery
    ├── RecordConflict         409  its state does not allow what is asked
    ├── IdempotencyInFlight    409  a request with this key is under way
    ├── IdempotencyMismatch    422  the key has been used for another request
    ├── LedgerUnavailable      503  the database of jobs does not answer
    ├── TargetRefused          403  results may not be written there
    ├── TargetFailed           502  the target did not take the result
    ├── TargetRejected         424  the target will not take it: a signature that has passed
    ├── JobExpired             410  the job did not begin before it expired
    ├── JobTimeout             504  the job took longer than it may
    └── JobPoisoned            422  the job has ended its workers too often

Errors of `transforms` join by `problem_of`. A `code` is stable: clients may rely on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from transforms import errors as transform_errors

_PASSING: Final = (408, 409, 425, 429)
"""Statuses below 500 that another attempt may not meet."""
_RETRY_AFTER: Final = 1
"""Seconds that a client waits which is told 503, where nobody knows better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a client is told (RFC 9457): `retry_after` and `max_age` are seconds."""

    status: int
    code: str
    title: str
    detail: str
    param: str | None = None
    suggestion: str | None = None
    retry_after: int | None = None
    max_age: int = 0
    """How long a cache may keep this answer. 0 means no-store."""


def may_pass(status: int) -> bool:
    """Whether another attempt may meet another answer than this status (RFC 9110, section 15)."""
    return status >= 500 or status in _PASSING


class ServiceError(Exception):
    """Base of everything this floor raises on purpose. The detail is a public sentence."""

    status = 500
    code = "internal"
    title = "Internal error"
    max_age = 0
    retry_hint: int | None = None
    """Seconds after which clients may ask again, where the error itself does not say."""

    def __init__(
        self, detail: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param
        self.retry_after = retry_after


class OriginalMissing(ServiceError):
    """There is no such original."""

    status, code, title, max_age = 404, "original_missing", "No such original", 10


class OriginalChanged(ServiceError):
    """The original was replaced while it was being read."""

    status, code, title = 409, "original_changed", "The original is changing"


class OriginalTooLarge(ServiceError):
    """The original has more bytes than the cap."""

    status, code, title = 413, "original_too_large", "The original is too large"


class SourceRefused(ServiceError):
    """The URL may not be fetched."""

    status, code, title = 403, "source_refused", "This source is not allowed"


class SourceFailed(ServiceError):
    """The origin or the store answered with a fault."""

    status, code, title = 502, "source_failed", "The source failed"
    retry_hint: int | None = 5


class SourceUnfit(SourceFailed):
    """The origin answered, but with nothing that could be used: asking again will not help."""

    retry_hint: int | None = None


class SourceBusy(SourceUnfit):
    """The origin has the picture for whoever comes later. It is well, and tells nothing of it."""

    retry_hint = SourceFailed.retry_hint


class SourceUnavailable(SourceFailed):
    """The origin has failed several times in a row, and is not asked for a while."""

    code, title = "source_unavailable", "The source is left alone for a while"


class SourceTimeout(ServiceError):
    """The origin or the store did not answer in time."""

    status, code, title = 504, "source_timeout", "The source took too long"
    retry_hint = 5


class StoreMisconfigured(ServiceError):
    """Bucket, credentials or folder are wrong."""

    status, code, title = 502, "store_misconfigured", "The object store refuses this service"


class InvalidRequest(ServiceError):
    """A parameter of the request is wrong that is not a transform's."""

    status, code, title = 400, "invalid_parameter", "A parameter is invalid"


class KeyConflict(ServiceError):
    """The id cannot exist beside another one."""

    status, code, title = 409, "id_conflict", "The id collides with another"


class SignatureInvalid(ServiceError):
    """The signature is missing, wrong or expired."""

    status, code, title = 403, "signature_invalid", "The signature is not valid"


class Unauthorised(ServiceError):
    """A bearer token is needed, or the one given is not known."""

    status, code, title = 401, "unauthorised", "A bearer token is needed"


class Overloaded(ServiceError):
    """Waiting would take longer than this class of request waits."""

    status, code, title = 503, "overloaded", "Too busy"


class Leaving(ServiceError):
    """This process ends, and the request has had all the time that there was."""

    status, code, title = 503, "leaving", "This replica is going away"


class BodyTooLarge(ServiceError):
    """More is sent than is read."""

    status, code, title = 413, "body_too_large", "The body is too large"


class UploadTimeout(ServiceError):
    """The client did not send the body in time."""

    status, code, title = 408, "upload_timeout", "The upload took too long"


class RenderTimeout(ServiceError):
    """The render took longer than it may."""

    status, code, title = 504, "render_timeout", "The render took too long"


class ScopeMissing(ServiceError):
    """The token is known, but not for this."""

    status, code, title = 403, "scope_missing", "The token does not allow this"


class JobsOff(ServiceError):
    """This service keeps no ledger of jobs."""

    status, code, title = 404, "jobs_off", "There are no jobs here"


class RecordMissing(ServiceError):
    """There is no such job, batch, schedule, rule or delivery."""

    status, code, title = 404, "record_missing", "No such record"


class RecordConflict(ServiceError):
    """The state that it is in does not allow what is asked."""

    status, code, title = 409, "record_conflict", "Its state does not allow this"


class IdempotencyInFlight(ServiceError):
    """A request with this key is under way."""

    status, code, title = 409, "idempotency_in_flight", "A request with this key is under way"


class IdempotencyMismatch(ServiceError):
    """The key has been used for another request."""

    status, code, title = 422, "idempotency_mismatch", "The key has been used for another request"


class LedgerUnavailable(ServiceError):
    """The database of jobs does not answer."""

    status, code, title = 503, "ledger_unavailable", "Jobs are not available"


class TargetRefused(ServiceError):
    """Results may not be written there."""

    status, code, title = 403, "target_refused", "This target is not allowed"


class TargetFailed(ServiceError):
    """The target did not take the result."""

    status, code, title = 502, "target_failed", "The target failed"


class TargetRejected(ServiceError):
    """The target will not take the result, however often it is sent."""

    status, code, title = 424, "target_rejected", "The target rejects the result"


class JobExpired(ServiceError):
    """The job did not begin before it expired."""

    status, code, title = 410, "job_expired", "The job has expired"


class JobTimeout(ServiceError):
    """The job took longer than it may."""

    status, code, title = 504, "job_timeout", "The job took too long"


class JobPoisoned(ServiceError):
    """The job has ended its workers too often."""

    status, code, title = 422, "poison", "The job ends its workers"


@dataclass(frozen=True, slots=True)
class _Public:
    status: int
    title: str
    max_age: int = 0


_OF_ORIGINALS: Final = (
    OriginalMissing,
    OriginalTooLarge,
    SourceRefused,
    SourceFailed,
    SourceTimeout,
)


@contextmanager
def naming(param: str) -> Iterator[None]:
    """Have errors about an original say which parameter had named it."""
    try:
        with transform_errors.naming(param):
            yield
    except _OF_ORIGINALS as error:
        if error.param is None:
            error.detail = f"{param}: {error.detail}"
            error.param = param
        raise


OF_TRANSFORMS: Final[Mapping[type[transform_errors.TransformError], _Public]] = {
    transform_errors.InvalidOption: _Public(400, "A parameter is invalid"),
    transform_errors.UnsupportedFormat: _Public(415, "The original's format is unsupported", 60),
    transform_errors.BrokenImage: _Public(422, "The original is broken"),
    transform_errors.SourceTooLarge: _Public(413, "The original is too large"),
    transform_errors.Stopped: _Public(503, "The render was stopped"),
}


def problem_of(error: Exception) -> Problem | None:
    """What a client is told of an error, or None where it is not one of ours: a defect."""
    if isinstance(error, ServiceError):
        return Problem(
            status=error.status,
            code=error.code,
            title=error.title,
            detail=error.detail,
            param=error.param,
            retry_after=error.retry_after or _default_retry(error.status),
            max_age=error.max_age,
        )
    if isinstance(error, transform_errors.TransformError):
        public = OF_TRANSFORMS[type(error)]
        return Problem(
            status=public.status,
            code=error.code,
            title=public.title,
            detail=error.detail,
            param=getattr(error, "param", None),
            suggestion=getattr(error, "suggestion", None),
            retry_after=_default_retry(public.status),
            max_age=public.max_age,
        )
    return None


def _default_retry(status: int) -> int | None:
    return _RETRY_AFTER if status == 503 else None
