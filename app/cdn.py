"""Tells a CDN of purges, by the tags that results carry.

That is done in the background, and again where it fails. Three ways of asking are spoken: `fastly`
is the batch purge of its API, of at most 256 keys
(https://www.fastly.com/documentation/reference/api/purging/); `cloudflare` is the purge_cache of a
zone by tags, of at most 100 (https://developers.cloudflare.com/cache/how-to/purge-cache/), which
knows no soft purges; `generic` is for a program of the operator's.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

import structlog

from app.dates import pause_asked
from app.errors import ServiceError, SourceFailed, SourceTimeout, may_pass
from app.outbound import Outbound, Reply
from app.sources.guard import Guard, Resolver, resolve

log = structlog.get_logger(__name__)

_RANDOM: Final = random.SystemRandom()
_TAG: Final = re.compile(r"[\x21-\x7e]+")
"""Fastly separates tags by spaces, and all travel in headers."""

_WAITING: Final = 100_000
"""Tags that wait to be told. What comes then is given up, and logged."""
_AT_ONCE: Final = 4
_TIMEOUT: Final = 10.0
PAUSES: Final = (1.0, 4.0, 12.0, 30.0, 60.0)
"""Seconds before the second call and those after it, give or take a quarter."""
_LONGEST_PAUSE: Final = 120.0
"""Seconds that the CDN may ask for."""
_CLOSE_TIMEOUT: Final = 5.0
_SHOWN: Final = 5
"""Tags that the log names of a call that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What is told at once."""

    tags: tuple[str, ...]
    soft: bool

    @property
    def document(self) -> bytes:
        """The tags as JSON, with what becomes of them."""
        return _as_json({"tags": self.tags, "soft": self.soft})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Complaint:
    """Why a call has not done it. `pause` is what the CDN asks for, in seconds."""

    reason: str
    may_pass: bool
    pause: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """How a kind of CDN is asked: `size` is in characters, all tags of a call together."""

    tags: int
    size: int
    headers: Callable[[_Call, str], Mapping[str, str]]
    body: Callable[[_Call], bytes]


def _as_json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _bearer(call: _Call, token: str) -> Mapping[str, str]:
    del call
    authorised = {"authorization": f"Bearer {token}"} if token else {}
    return {"content-type": "application/json", **authorised}


def _of_fastly(call: _Call, token: str) -> Mapping[str, str]:
    soft = {"fastly-soft-purge": "1"} if call.soft else {}
    return {"fastly-key": token, "surrogate-key": " ".join(call.tags), **soft}


DIALECTS: Final[Mapping[str, _Dialect]] = {
    "generic": _Dialect(tags=1000, size=1 << 18, headers=_bearer, body=lambda call: call.document),
    # A header of 16 KB is the longest of Surrogate-Key; others in the way may take half of it.
    "fastly": _Dialect(tags=256, size=7000, headers=_of_fastly, body=lambda _: b""),
    "cloudflare": _Dialect(
        tags=100, size=1 << 16, headers=_bearer, body=lambda call: _as_json({"tags": call.tags})
    ),
}


class PurgeHook:
    """Tells a CDN which tags are purged.

    `on_end` is told what became of each call: done, retried or failed.
    """

    def __init__(
        self,
        url: str,
        *,
        kind: str = "generic",
        token: str = "",
        on_end: Callable[[str], None],
        resolver: Resolver = resolve,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._url = url
        self._dialect = DIALECTS[kind]
        self._token = token
        self._on_end = on_end
        self._pauses = pauses
        self._outbound = Outbound(_guard(url, resolver), connections=_AT_ONCE)
        self._hard: dict[str, None] = {}
        self._soft: dict[str, None] = {}
        self._senders: set[asyncio.Task[None]] = set()
        self._later: dict[tuple[tuple[str, ...], bool], asyncio.TimerHandle] = {}
        self._closing = asyncio.Event()

    def tell(self, tags: Sequence[str], *, soft: bool) -> None:
        """Have the CDN purge what carries one of these tags, or with `soft` take it for stale.

        Returns at once. Tags that wait are told together, each once. Raises ValueError for a tag
        that no header can hold.
        """
        if wrong := [tag for tag in tags if not _TAG.fullmatch(tag)]:
            raise ValueError(f"{wrong[0]!r} is no tag: it is empty, or more than visible ASCII")
        given_up = []
        for tag in tags:
            if len(self._hard) + len(self._soft) >= _WAITING and not self._waits(tag):
                given_up.append(tag)
            elif not soft:
                self._soft.pop(tag, None)
                self._hard[tag] = None
            elif tag not in self._hard:
                self._soft[tag] = None
        if given_up:
            self._give_up(_Call(tags=tuple(given_up), soft=soft), "too many tags wait")
        if self._closing.is_set() or len(self._senders) == _AT_ONCE:
            return
        sender = asyncio.create_task(self._send_all())
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    def tell_later(self, tags: Sequence[str], *, soft: bool, seconds: float) -> None:
        """Tell it in so many seconds, or when the service ends."""
        loop = asyncio.get_running_loop()
        key = (tuple(tags), soft)
        if key in self._later or len(self._later) >= _WAITING or self._closing.is_set():
            return
        self._later[key] = loop.call_later(seconds, self._tell_now, key)

    def _tell_now(self, key: tuple[tuple[str, ...], bool]) -> None:
        del self._later[key]
        tags, soft = key
        self.tell(tags, soft=soft)

    async def settle(self) -> None:
        """Wait until everything has been told or given up."""
        while self._senders:
            await asyncio.wait(self._senders)

    async def close(self) -> None:
        """Tell what waits once more, within a bound, and let go of connections."""
        for key, handle in list(self._later.items()):
            handle.cancel()
            self._tell_now(key)
        self._closing.set()
        if self._senders:
            _, late = await asyncio.wait(self._senders, timeout=_CLOSE_TIMEOUT)
            for sender in late:
                sender.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        while call := self._take():
            self._give_up(call, "the service ends")
        await self._outbound.close()

    def _waits(self, tag: str) -> bool:
        return tag in self._hard or tag in self._soft

    async def _send_all(self) -> None:
        while call := self._take():
            try:
                await self._send(call)
            except asyncio.CancelledError:
                self._give_up(call, "the service ends")
                raise

    def _take(self) -> _Call | None:
        """As many of the tags that have waited longest as one call takes."""
        waiting = self._hard or self._soft
        if not waiting:
            return None
        soft = waiting is self._soft
        taken: list[str] = []
        size = 0
        for tag in islice(waiting, self._dialect.tags):
            size += len(tag) + 1
            if taken and size > self._dialect.size:
                break
            taken.append(tag)
        for tag in taken:
            del waiting[tag]
        return _Call(tags=tuple(taken), soft=soft)

    async def _send(self, call: _Call) -> None:
        for usual in (*self._pauses, None):
            complaint = await self._post(call)
            if complaint is None:
                self._on_end("done")
                log.debug("cdn_purged", tags=len(call.tags), soft=call.soft)
                return
            if usual is None or not complaint.may_pass or self._closing.is_set():
                self._give_up(call, complaint.reason)
                return
            self._on_end("retried")
            asked = min(complaint.pause, _LONGEST_PAUSE)
            await self._wait(max(asked, usual * _RANDOM.uniform(0.75, 1.25)))

    async def _post(self, call: _Call) -> _Complaint | None:
        try:
            reply = await self._outbound.send(
                "POST",
                self._url,
                headers=self._dialect.headers(call, self._token),
                body=self._dialect.body(call),
                timeout=_TIMEOUT,
            )
        except ServiceError as error:
            passing = isinstance(error, (SourceFailed, SourceTimeout))
            return _Complaint(reason=error.detail, may_pass=passing)
        if 200 <= reply.status < 300 and not _is_denied(reply):
            return None
        return _Complaint(
            reason=f"The CDN answered {reply.status}",
            may_pass=may_pass(reply.status),
            pause=pause_asked(reply.headers.get("retry-after"), now=time.time()),
        )

    async def _wait(self, seconds: float) -> None:
        """Wait so long, or until the service ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    def _give_up(self, call: _Call, reason: str) -> None:
        self._on_end("failed")
        log.error(
            "cdn_purge_failed",
            reason=reason,
            tags=call.tags[:_SHOWN],
            count=len(call.tags),
            soft=call.soft,
        )


def _is_denied(reply: Reply) -> bool:
    """Whether an answer of success says otherwise within, as Cloudflare's may."""
    try:
        document = json.loads(reply.body)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("success") is False


def _guard(url: str, resolver: Resolver) -> Guard:
    """The operator named the host: it alone is asked, and may be on a private network."""
    return Guard(
        allowed=(urlsplit(url).netloc,),
        private_networks=True,
        resolver=resolver,
        param="purge_hook",
    )
