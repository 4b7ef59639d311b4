"""What a client posts as a schedule, and what it takes to start what it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

from pydantic import Field

from app.errors import InvalidRequest, ServiceError
from app.jobs.bodies import validate
from app.jobs.database import Connection
from app.jobs.recurrence import Recurrence, RecurrenceBody

KINDS: Final = ("job", "batch")
"""What a schedule may run."""


_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}", re.ASCII)


class ScheduleBody(RecurrenceBody):
    """What runs, and when."""

    # What is left out has no value, and null is none.
    job: dict[str, Any] = Field({}, description="What runs: a job, as POST /jobs takes it.")
    batch: dict[str, Any] = Field(
        {}, description="What runs instead: a batch, as POST /batches takes it as an object."
    )
    catch_up: Literal["one", "none"] = Field(
        "one", description="What becomes of ticks that were missed: one run for all, or none."
    )
    grace: int = Field(
        60, ge=5, le=86_400, description="Seconds after which a tick counts as missed."
    )
    overlap: Literal["skip", "allow"] = Field(
        "skip",
        description="What becomes of a tick while the run before has not ended: it is skipped, or "
        "runs all the same.",
    )

    @property
    def kind(self) -> str:
        """What it runs: one of `KINDS`."""
        return next(kind for kind in KINDS if kind in self.model_fields_set)

    @property
    def what(self) -> dict[str, Any]:
        """The body of the job or batch."""
        return self.job if self.kind == "job" else self.batch


Start = Callable[[Connection, str], str]
"""Accepts a job or a batch in a transaction, with its origin, and returns its id."""


class Starter(Protocol):
    """Starts what schedules run."""

    def check(self, body: Any, *, now: float) -> None:
        """Raise InvalidRequest or TargetRefused where a body could not be started."""

    async def prepare(self, body: Any, *, now: float) -> Start:
        """Look at all that there is to look at before the transaction. Raises ServiceError."""


Starters = Mapping[str, Starter]
"""One for each of `KINDS`."""


def is_name(text: str) -> bool:
    """Whether a text may be the id of a schedule."""
    return _ID.fullmatch(text) is not None


def check_id(text: str, *, param: str) -> str:
    """Return an id that a client has chosen. Raises InvalidRequest."""
    if not is_name(text):
        raise InvalidRequest(
            f"{param} must have 1 to 48 letters, digits, dots, hyphens and underscores, and begin "
            f"with a letter or a digit, got {text[:64]!r}",
            param=param,
        )
    return text


def read_schedule(body: Any, starters: Starters, *, now: float) -> ScheduleBody:
    """A schedule whose parts are all sound. Raises InvalidRequest, TargetRefused."""
    schedule: ScheduleBody = validate(ScheduleBody, body)
    Recurrence.read(schedule, since=now)
    given = [kind for kind in KINDS if kind in schedule.model_fields_set]
    if len(given) != 1:
        raise InvalidRequest("job or batch is needed, and one of them alone", param="job")
    kind = schedule.kind
    try:
        starters[kind].check(schedule.what, now=now)
    except ServiceError as error:
        param = kind if error.param is None else f"{kind}.{error.param}"
        raise type(error)(f"{kind}: {error.detail}", param=param) from None
    return schedule
