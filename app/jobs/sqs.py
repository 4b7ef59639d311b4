"""Takes in what a store tells by way of an SQS queue.

Credentials, region and endpoint come from the usual AWS variables and files (`AWS_REGION`,
`AWS_ENDPOINT_URL_SQS`, ...). A message is deleted when what it asks for has been written down. One
that cannot be read stays, is logged, and comes again until the queue's own redrive policy sets it
aside: nothing is lost that somebody may want to look at.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from app.errors import InvalidRequest, ServiceError
from app.jobs import s3events
from app.jobs.intake import Intake

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 10
"""Messages of one receive or delete: the most that SQS takes."""
_WAIT: Final = 20
"""Seconds of long polling: the longest that SQS waits."""
_VISIBILITY: Final = 120
"""Seconds in which a message is nobody else's."""
_CONNECT_TIMEOUT: Final = 5.0
_FIRST_REST: Final = 1.0
_LONGEST_REST: Final = 60.0
_REGION: Final = re.compile(r"(?:sqs|queue)\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


class QueueReader:
    """Reads one queue until it is told to stop."""

    def __init__(self, url: str, intake: Intake) -> None:
        self._url = url
        self._intake = intake

    async def run(self, stop: asyncio.Event) -> None:
        """Read the queue, and come back to one that is away. Ends soon after `stop` is set."""
        reading = asyncio.create_task(self._read_for_ever())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # What is in hand stays in the queue, and comes again.
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    async def _read_for_ever(self) -> None:
        rest = _FIRST_REST
        while True:
            with suppress(_Failed):
                async with self._connected() as client:
                    while True:
                        await self._read_some(client)
                        rest = _FIRST_REST
            await asyncio.sleep(rest * secrets.SystemRandom().uniform(0.5, 1.0))
            rest = min(rest * 2, _LONGEST_REST)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        try:
            async with self._connect() as client:
                yield client
        except Exception as error:
            # Whatever it is, it is to be tried again: nobody else waits for these messages.
            log.warning("event_queue_failed", error=f"{type(error).__name__}: {error}"[:500])
            raise _Failed from error

    def _connect(self) -> Any:
        # Half a second of every start, which only those spend who have a queue.
        from aiobotocore.config import AioConfig  # noqa: PLC0415
        from aiobotocore.session import get_session  # noqa: PLC0415

        session = get_session()
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        named = _REGION.fullmatch(urlsplit(self._url).hostname or "")
        return session.create_client(
            "sqs",
            region_name=named[1] if named else region or "us-east-1",
            config=AioConfig(
                connect_timeout=_CONNECT_TIMEOUT,
                read_timeout=_WAIT + _CONNECT_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": 3},
            ),
        )

    async def _read_some(self, client: Any) -> None:
        answer = await client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_AT_ONCE,
            WaitTimeSeconds=_WAIT,
            VisibilityTimeout=_VISIBILITY,
        )
        messages = answer.get("Messages", [])
        done = await asyncio.gather(*(self._take(message) for message in messages))
        finished = [m for m, is_done in zip(messages, done, strict=True) if is_done]
        if finished:
            await self._delete(client, finished)

    async def _take(self, message: Mapping[str, Any]) -> bool:
        """Act on a message. Whether it is done with."""
        try:
            read = s3events.read_message(message["Body"])
            taken = await self._intake.take(read.events)
        except InvalidRequest as error:
            log.warning("event_unreadable", message=message["MessageId"], error=error.detail)
            return False
        except ServiceError as error:
            log.warning("event_put_off", message=message["MessageId"], error=error.detail)
            return False
        except Exception:
            log.exception("event_defect", message=message["MessageId"])
            return False
        log.info("events_taken", accepted=taken.accepted, ignored=taken.ignored, jobs=taken.jobs)
        return True

    async def _delete(self, client: Any, messages: Sequence[Mapping[str, Any]]) -> None:
        entries = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
            for number, message in enumerate(messages)
        ]
        answer = await client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        for failed in answer.get("Failed", []):
            # It comes again, and makes nothing new.
            log.warning("event_not_deleted", error=failed.get("Message"))


class _Failed(Exception):
    """The queue cannot be read now."""
