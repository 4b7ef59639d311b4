"""Subscriptions of SNS are confirmed by asking for the URL that it sends."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from app.errors import SourceFailed
from app.jobs import subscriptions
from app.outbound import Reply


class Sns:
    """Answers as SNS does, and remembers what it was asked."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[tuple[str, str]] = []

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - the protocol's
    ) -> Reply:
        del headers, body, timeout
        self.asked.append((method, url))
        return Reply(status=self.status, headers={}, body=b"")


@pytest.mark.parametrize("domain", ["amazonaws.com", "amazonaws.com.cn"])
async def test_the_url_is_asked_for_as_it_was_sent(domain):
    sns = Sns(200)
    url = f"https://sns.cn-north-1.{domain}/?Action=ConfirmSubscription&Token=2336412f37"
    await subscriptions.confirm(sns, url)
    assert sns.asked == [("GET", url)]


async def test_an_answer_that_confirms_nothing_is_a_failure():
    with pytest.raises(SourceFailed):
        await subscriptions.confirm(Sns(403), "https://sns.eu-west-1.amazonaws.com/?Token=1")
