"""Stores tell of their objects over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.jobs import told
from tests.serving import Served, serving

CONFIRM = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=1"


async def resolver(host: str, port: int) -> list[str]:
    """Every name leads to this machine, as an attacker would have it."""
    del host, port
    return ["127.0.0.1"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("events")
    options = {
        "database": f"sqlite:///{folder}/ledger.db",
        "originals": f"file:{folder}",
        "results": "off",
        "api_tokens": "s3cret-of-the-store@events,other-of-16-chars@jobs:write",
    }
    with serving(resolver=resolver, **options) as started:
        yield started


def tell(served: Served, message: object, path: str = "/events/s3", **headers: str):
    content = message if isinstance(message, bytes) else json.dumps(message)
    return served.client.post(path, content=content, headers=headers)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"sns:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "path"),
    [
        ("Bearer s3cret-of-the-store", "/events/s3"),
        ("s3cret-of-the-store", "/events/s3"),
        (basic("s3cret-of-the-store"), "/events/s3"),
        (None, "/events/s3?token=s3cret-of-the-store"),
    ],
)
def test_a_store_sends_its_token_in_its_own_way(served, authorization, path):
    headers = {"authorization": authorization} if authorization else {}
    answer = tell(served, told.minio(), path, **headers)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "ignored": 1, "jobs": 0})


@pytest.mark.parametrize(
    ("authorization", "path", "status"),
    [
        (None, "/events/s3", 401),
        ("Bearer wrong", "/events/s3", 401),
        ("wrong", "/events/s3", 401),
        (basic("wrong"), "/events/s3", 401),
        ("Basic !", "/events/s3", 401),
        ("Basic", "/events/s3", 401),
        ("Digest s3cret-of-the-store", "/events/s3", 401),
        (None, "/events/s3?token=wrong", 401),
        ("Bearer wrong", "/events/s3?token=s3cret-of-the-store", 401),
        ("Bearer other-of-16-chars", "/events/s3", 403),
        (None, "/events/s3?token=a&token=s3cret-of-the-store", 400),
    ],
)
def test_without_a_token_for_events_nothing_is_read(served, authorization, path, status):
    headers = {"authorization": authorization} if authorization else {}
    answer = tell(served, b"nonsense", path, **headers)
    assert answer.status_code == status
    if status == 401:  # SNS sends a password to who asks for it
        assert {"Bearer", 'Basic realm="events", charset="UTF-8"'} == set(
            answer.headers.get_list("www-authenticate")
        )


@pytest.mark.parametrize(
    ("message", "status", "param"),
    [
        (b"", 400, None),
        (b"[]", 400, None),
        ({"Records": 7}, 400, "Records"),
        (told.s3(""), 400, "Records[0].s3.object.key"),
        (b" " * (1 << 20) + b"{}", 413, None),
    ],
)
def test_what_cannot_be_read_is_named(served, message, status, param):
    answer = tell(served, message, authorization="Bearer s3cret-of-the-store")
    assert (answer.status_code, answer.json().get("param")) == (status, param)


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-west-1.amazonaws.com/",
        "https://sns.eu-west-1.amazonaws.com.evil.example/",
        "https://evil.example/sns.eu-west-1.amazonaws.com",
        "https://sns.evil.example/?x=.amazonaws.com",
        "https://sns.a.b.amazonaws.com/",
        "https://sns.eu-west-1.amazonaws.com:8443/",
        "https://user@sns.eu-west-1.amazonaws.com/",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "https://[",
        CONFIRM,  # where its name leads to an address that is not public
    ],
)
def test_only_sns_itself_is_asked_to_confirm(served, url):
    answer = tell(served, told.subscription(url), authorization="Bearer s3cret-of-the-store")
    assert answer.status_code in (400, 403)
    assert answer.json()["param"] == "SubscribeURL"
