"""Confirms subscriptions of SNS, which sends nothing before.

The URL to be asked for comes from whoever calls: it must be one of SNS itself. That a message is
from SNS is told by the token that the subscription's endpoint holds, as for every other sender.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from app.errors import InvalidRequest, SourceFailed, SourceRefused
from app.outbound import Reply

log = structlog.get_logger(__name__)

HOSTS: Final = ("sns.*.amazonaws.com", "sns.*.amazonaws.com.cn")
PARAM: Final = "SubscribeURL"
_HOST: Final = re.compile(r"sns\.[a-z0-9-]{1,32}\.amazonaws\.com(\.cn)?")
_TIMEOUT: Final = 10.0


class Sender(Protocol):
    """Sends requests to the outside; `app.outbound.Outbound` is one."""

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - the request's own
    ) -> Reply:
        """Send a request. Raises what `Outbound.send` does."""


async def confirm(sender: Sender, url: str) -> None:
    """Ask for the URL that confirms a subscription.

    Raises InvalidRequest and SourceRefused where it is none of SNS, SourceFailed and SourceTimeout
    where SNS does not confirm.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidRequest(f"{PARAM} is not a valid URL", param=PARAM) from None
    if parts.scheme != "https" or port not in (None, 443) or not _HOST.fullmatch(host):
        raise SourceRefused(f"{PARAM} must be https://sns.REGION.amazonaws.com/...", param=PARAM)
    reply = await sender.send("GET", url, headers={}, body=b"", timeout=_TIMEOUT)
    if reply.status != 200:
        raise SourceFailed(f"SNS answered {reply.status} to the confirmation")
    log.info("subscription_confirmed", host=host)
