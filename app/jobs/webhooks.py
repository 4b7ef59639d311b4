"""Tells receivers of ends: signed as Standard Webhooks asks, again and again over a day.

The signature is an HMAC-SHA256 of `id.timestamp.body` in base64, one for each secret, so that a
receiver may change its own at leisure (https://www.standardwebhooks.com). Every request passes the
guard against private addresses, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import structlog

from app.dates import pause_asked
from app.errors import InvalidRequest, ServiceError, SourceRefused
from app.jobs import deliveries
from app.jobs.database import Database
from app.jobs.deliveries import Delivery, Try
from app.outbound import Outbound, Reply
from app.settings import Settings
from app.sources.guard import Guard, Resolver, is_public, resolve
from app.telemetry import Metrics

log = structlog.get_logger(__name__)

_RANDOM: Final = random.SystemRandom()

AT_ONCE: Final = 16
"""Deliveries of one process that are under way at once."""
_EACH: Final = 4
"""Of these, to one host."""
_TIMEOUT: Final = 10.0
"""Seconds that a receiver has for its answer."""
_HELD: Final = 60.0
"""Seconds for which a delivery belongs to the process that sends it."""
_LOOK: Final = 1.0
MOST_ATTEMPTS: Final = 10
_FIRST_BACKOFF: Final = 5.0
_GROWTH: Final = 3.2
"""Nine pauses, each so much longer than the one before, are 22 hours."""
_LONGEST_BACKOFF: Final = 86_400.0
_GONE: Final = 410


class WebhookCheck:
    """Decides at submission whether a URL may be told of an end."""

    def __init__(self, settings: Settings) -> None:
        self._guard = webhook_guard(settings)
        self._private_networks = settings.allow_private_networks
        self._signs = bool(settings.webhook_keys)

    def check(self, url: str) -> str:
        """Return the URL, or raise InvalidRequest or SourceRefused. Resolves nothing."""
        param = self._guard.param
        if not self._signs:
            raise InvalidRequest(
                f"{param}: this service signs none, as PIXELMILL_WEBHOOK_SECRETS is not set",
                param=param,
            )
        host = self._guard.check_url(url).hostname or ""
        if not self._private_networks and _is_forbidden(host):
            raise SourceRefused(f"{host} is not a public address", param=param)
        return url


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What follows from an attempt: whether it was the last, and the pause that was asked for."""

    attempt: Try
    last: bool
    pause: float = 0.0


class Sender:
    """Sends what is due. Each process has one, and no two send the same at once."""

    def __init__(
        self, database: Database, outbound: Outbound, *, keys: Sequence[bytes], metrics: Metrics
    ) -> None:
        self._database = database
        self._outbound = outbound
        self._keys = keys
        self._metrics = metrics
        self._hosts: Counter[str] = Counter()

    async def send_due(self) -> None:
        """Send until nothing is due and all that was begun has ended."""
        sending: set[asyncio.Task[None]] = set()
        try:
            while True:
                for delivery in await self._claim(AT_ONCE - len(sending)):
                    sending.add(asyncio.create_task(self._send(delivery)))
                if not sending:
                    return
                done, sending = await asyncio.wait(
                    sending, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def _claim(self, free: int) -> list[Delivery]:
        now = time.time()
        # Mostly there is nothing, and to look for it must not keep those who write waiting.
        if not free or not await self._database.read(lambda tx: deliveries.is_any_due(tx, now=now)):
            return []
        in_hand = dict(self._hosts)
        claimed = await self._database.write(
            lambda tx: deliveries.claim(
                tx, limit=free, until=now + _HELD, now=now, in_hand=in_hand, each=_EACH
            )
        )
        self._hosts.update(delivery.host for delivery in claimed)
        return claimed

    async def _send(self, delivery: Delivery) -> None:
        try:
            verdict = await self._post(delivery)
        finally:
            self._hosts -= Counter((delivery.host,))
        attempt, now = verdict.attempt, time.time()
        next_at = None
        if attempt.error is not None and not verdict.last and delivery.attempt < MOST_ATTEMPTS:
            pause = min(verdict.pause, _LONGEST_BACKOFF)
            next_at = now + max(pause, backoff(delivery.attempt))
        noted = await self._database.write(
            lambda tx: deliveries.note(tx, delivery, attempt, next_at=next_at, now=now)
        )
        if not noted:
            return
        ended = "delivered" if attempt.error is None else "failed"
        outcome = ended if next_at is None else "retried"
        self._metrics.webhook_deliveries.labels(outcome).inc()
        log.info("webhook_sent", delivery=delivery.id, outcome=outcome, status=attempt.status)

    async def _post(self, delivery: Delivery) -> _Verdict:
        began, at = perf_counter(), time.time()
        body = delivery.payload.encode()
        reply: Reply | None = None
        error: str | None = None
        last = False
        try:
            if not self._keys:
                # One that was accepted when there were some. Nobody could trust it unsigned.
                raise InvalidRequest("PIXELMILL_WEBHOOK_SECRETS is not set: nothing signs this")
            reply = await self._outbound.send(
                "POST",
                delivery.url,
                headers={
                    "content-type": "application/json",
                    **signed_headers(self._keys, delivery.id, at=int(at), body=body),
                },
                body=body,
                timeout=_TIMEOUT,
            )
        except ServiceError as failure:
            error = failure.detail
            # Another attempt would not be let out either.
            last = isinstance(failure, (InvalidRequest, SourceRefused))
        else:
            error = _complaint(reply.status)
            last = reply.status == _GONE
        return _Verdict(
            attempt=Try(
                at=at,
                milliseconds=round((perf_counter() - began) * 1000, 1),
                status=None if reply is None else reply.status,
                error=error,
            ),
            last=last,
            pause=0.0 if reply is None else pause_asked(reply.headers.get("retry-after"), now=at),
        )


def webhook_guard(settings: Settings, *, resolver: Resolver = resolve) -> Guard:
    """What decides which hosts are told."""
    return Guard(
        allowed=settings.webhook_hosts,
        private_networks=settings.allow_private_networks,
        resolver=resolver,
        param="webhook",
    )


def signed_headers(
    keys: Sequence[bytes], delivery_id: str, *, at: int, body: bytes
) -> dict[str, str]:
    """The headers of Standard Webhooks. `at` is Unix time in seconds."""
    signed = b".".join((delivery_id.encode(), str(at).encode(), body))
    digests = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(d).decode()}" for d in digests),
    }


def backoff(attempts: int) -> float:
    """Seconds until the next attempt after so many: growing, and spread around that time."""
    usual = _FIRST_BACKOFF * _GROWTH ** (attempts - 1)
    return min(_LONGEST_BACKOFF, usual * _RANDOM.uniform(0.75, 1.25))


def _complaint(status: int) -> str | None:
    """What is wrong with an answer, or None where the receiver has taken what it was told."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"The receiver answered {status}: redirects are not followed"
    return f"The receiver answered {status}"


def _is_forbidden(host: str) -> bool:
    """Whether a host is written as an address, and one that is not public."""
    try:
        return not is_public(ipaddress.ip_address(host))
    except ValueError:
        return False
