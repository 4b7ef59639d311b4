"""The hook that tells a CDN of purges, against a real server that takes them, or does not."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog

from app import cdn
from app.cdn import PurgeHook
from app.service import open_service
from app.settings import Settings
from app.subjects import Kind, Purge, Subject
from tests.sources.origin import Origin, Script, answer, in_turn, raw, running_origin, stall
from tests.sources.test_web import eventually

OK = answer(b'{"success":true}')
TAGS = ["id-products%2Fshoe.jpg", "preset-card"]
QUICK = (0.01,) * 5


@pytest.fixture
def server() -> Iterator[Origin]:
    with running_origin() as server:
        yield server


class Hooks:
    """Opens hooks, counts what they say of their ends, and closes them after the test."""

    def __init__(self, server: Origin, stack: AsyncExitStack) -> None:
        self._server = server
        self._stack = stack
        self.outcomes: Counter[str] = Counter()

    def open(self, script: Script = OK, **options: Any) -> PurgeHook:
        chosen = {"token": "secret", "pauses": QUICK, **options}
        url = self._server.serve("/purge", script)
        hook = PurgeHook(url, on_end=lambda end: self.outcomes.update([end]), **chosen)
        self._stack.push_async_callback(hook.close)
        return hook


@pytest.fixture
async def hooks(server: Origin) -> AsyncIterator[Hooks]:
    async with AsyncExitStack() as stack:
        yield Hooks(server, stack)


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the hook logs, which is not rendered in tests."""
    capture = structlog.testing.LogCapture()
    wrapper = structlog.make_filtering_bound_logger(logging.INFO)
    logger = structlog.wrap_logger(None, processors=[capture], wrapper_class=wrapper)
    monkeypatch.setattr(cdn, "log", logger)
    return capture.entries


def told(server: Origin) -> list[Any]:
    """The documents that the server was sent."""
    return [json.loads(asked.body) for asked in server.asked]


async def test_a_server_of_the_operator_is_told_as_json(server: Origin, hooks: Hooks) -> None:
    hook = hooks.open()
    hook.tell(TAGS, soft=False)
    await hook.settle()
    hook.tell(["preset-card"], soft=True)
    await hook.settle()
    assert told(server) == [
        {"tags": TAGS, "soft": False},
        {"tags": ["preset-card"], "soft": True},
    ]
    asked = server.asked[0]
    assert (asked.method, asked.path) == ("POST", "/purge")
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["content-type"] == "application/json"
    assert hooks.outcomes == {"done": 2}


async def test_without_a_token_none_is_sent(server: Origin, hooks: Hooks) -> None:
    hook = hooks.open(token="")
    hook.tell(TAGS, soft=False)
    await hook.settle()
    assert "authorization" not in server.asked[0].headers


async def test_fastly_is_told_in_headers(server: Origin, hooks: Hooks) -> None:
    hook = hooks.open(kind="fastly")
    hook.tell(TAGS, soft=False)
    await hook.settle()
    hook.tell(TAGS, soft=True)
    await hook.settle()
    hard, soft = (asked.headers for asked in server.asked)
    assert hard["surrogate-key"] == "id-products%2Fshoe.jpg preset-card"
    assert hard["fastly-key"] == "secret"
    assert "fastly-soft-purge" not in hard
    assert soft["fastly-soft-purge"] == "1"
    assert {"authorization"}.isdisjoint(hard)
    assert [asked.body for asked in server.asked] == [b"", b""]


async def test_cloudflare_is_told_of_tags_alone(server: Origin, hooks: Hooks) -> None:
    hook = hooks.open(kind="cloudflare")
    hook.tell(TAGS, soft=True)
    await hook.settle()
    assert told(server) == [{"tags": TAGS}]
    assert server.asked[0].headers["authorization"] == "Bearer secret"


async def test_cloudflare_denies_in_the_body_of_an_answer_of_success(
    server: Origin, hooks: Hooks
) -> None:
    hook = hooks.open(answer(b'{"success":false,"errors":[{"code":1}]}'), kind="cloudflare")
    hook.tell(TAGS, soft=False)
    await hook.settle()
    assert hooks.outcomes == {"failed": 1}


@pytest.mark.parametrize(
    ("kind", "most"), [("fastly", 256), ("cloudflare", 100), ("generic", 1000)]
)
async def test_no_call_has_more_tags_than_the_cdn_takes(
    kind: str, most: int, server: Origin, hooks: Hooks
) -> None:
    tags = [f"id-{number}" for number in range(2 * most + 1)]
    hook = hooks.open(kind=kind)
    hook.tell(tags, soft=False)
    await hook.settle()
    calls = [
        asked.headers["surrogate-key"].split()
        if kind == "fastly"
        else json.loads(asked.body)["tags"]
        for asked in server.asked
    ]
    assert sorted(map(len, calls)) == [1, most, most]
    assert sorted(tag for call in calls for tag in call) == sorted(tags)


async def test_no_header_is_longer_than_servers_take(server: Origin, hooks: Hooks) -> None:
    tags = [f"id-{number:02}{'%2F' * 300}" for number in range(20)]
    hook = hooks.open(kind="fastly")
    hook.tell([*tags, "id-" + "x" * 8000], soft=False)
    await hook.settle()
    headers = [asked.headers["surrogate-key"] for asked in server.asked]
    assert max(map(len, headers)) <= 8003
    assert sum(len(header.split()) for header in headers) == 21
    assert len(headers) == 4


async def test_tags_that_wait_are_told_together_and_each_once(
    server: Origin, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdn, "_AT_ONCE", 1)
    hook = hooks.open()
    for number in range(50):
        hook.tell([f"id-{number % 10}"], soft=True)
    hook.tell(["id-3"], soft=False)
    hook.tell(["id-3"], soft=True)
    await hook.settle()
    assert [call["soft"] for call in told(server)] == [False, True]
    assert told(server)[0]["tags"] == ["id-3"]
    assert told(server)[1]["tags"] == [f"id-{n}" for n in range(10) if n != 3]


@pytest.mark.parametrize(
    "script",
    [answer(b"", status=500), answer(b"", status=429), raw(b"garbage"), raw(b"")],
    ids=["fault", "too many", "garbage", "closed"],
)
async def test_what_may_pass_is_tried_again(script: Script, server: Origin, hooks: Hooks) -> None:
    hook = hooks.open(in_turn(script, script, OK))
    hook.tell(TAGS, soft=False)
    await hook.settle()
    assert len(server.asked) == 3
    assert hooks.outcomes == {"retried": 2, "done": 1}


async def test_the_cdn_may_ask_for_a_longer_pause(server: Origin, hooks: Hooks) -> None:
    hook = hooks.open(in_turn(answer(b"", status=429, retry_after="1"), OK))
    hook.tell(TAGS, soft=False)
    began = time.monotonic()
    await hook.settle()
    assert time.monotonic() - began >= 0.9
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
async def test_what_will_not_pass_is_given_up_and_logged_without_the_token(
    status: int, server: Origin, hooks: Hooks, logs: list[Any]
) -> None:
    hook = hooks.open(answer(b"", status=status, location="/elsewhere"))
    hook.tell(TAGS, soft=False)
    await hook.settle()
    assert len(server.asked) == 1
    assert hooks.outcomes == {"failed": 1}
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("cdn_purge_failed", "error")
    assert (entry["count"], entry["tags"]) == (2, tuple(TAGS))
    assert str(status) in entry["reason"]
    assert "secret" not in str(entry)


async def test_a_cdn_that_stays_away_is_given_up(
    server: Origin, hooks: Hooks, logs: list[Any]
) -> None:
    hook = hooks.open(answer(b"", status=503))
    hook.tell(TAGS, soft=False)
    await hook.settle()
    assert len(server.asked) == len(QUICK) + 1
    assert hooks.outcomes == {"retried": len(QUICK), "failed": 1}
    assert [entry["event"] for entry in logs] == ["cdn_purge_failed"]


def test_the_tries_are_a_handful_over_a_minute_or_two() -> None:
    assert len(cdn.PAUSES) == 5
    assert 60 <= sum(cdn.PAUSES) <= 120


async def test_tags_beyond_a_bound_are_given_up_and_logged(
    server: Origin, hooks: Hooks, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdn, "_WAITING", 3)
    hook = hooks.open()
    hook.tell(["a", "b", "c", "d"], soft=False)
    hook.tell(["c"], soft=False)
    await hook.settle()
    assert [call["tags"] for call in told(server)] == [["a", "b", "c"]]
    assert hooks.outcomes == {"failed": 1, "done": 1}
    assert [entry["tags"] for entry in logs if entry["event"] == "cdn_purge_failed"] == [("d",)]


@pytest.mark.parametrize("tag", ["", "a b", "a\nb", "caf\u00e9"])
async def test_what_no_header_can_hold_is_no_tag(tag: str, server: Origin, hooks: Hooks) -> None:
    hook = hooks.open()
    with pytest.raises(ValueError, match="no tag"):
        hook.tell(["good", tag], soft=False)
    await hook.settle()
    assert server.asked == []


async def test_closing_tells_once_more_what_was_to_be_tried_later(
    server: Origin, hooks: Hooks
) -> None:
    hook = hooks.open(in_turn(answer(b"", status=503), OK), pauses=(60.0,))
    hook.tell(TAGS, soft=False)
    assert await eventually(lambda: hooks.outcomes == {"retried": 1})
    async with asyncio.timeout(5):
        await hook.close()
    assert len(server.asked) == 2
    assert hooks.outcomes == {"retried": 1, "done": 1}


async def test_closing_waits_for_no_cdn_that_stalls(
    server: Origin, hooks: Hooks, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdn, "_CLOSE_TIMEOUT", 0.2)
    monkeypatch.setattr(cdn, "_AT_ONCE", 1)
    hook = hooks.open(stall(), kind="cloudflare")
    hook.tell([f"id-{number}" for number in range(101)], soft=False)
    async with asyncio.timeout(5):
        await hook.close()
    assert hooks.outcomes == {"failed": 2}
    assert sorted(entry["count"] for entry in logs) == [1, 100]


async def test_what_is_purged_here_is_purged_by_the_hook_and_counted(
    server: Origin, tmp_path: Any
) -> None:
    (tmp_path / "originals").mkdir()
    places = {
        "originals": f"file:{tmp_path}/originals",
        "results": "off",
        "database": "off",
        "children": False,
    }
    hook = {
        "purge_hook": server.serve("/service/1/purge", OK),
        "purge_hook_kind": "fastly",
        "purge_hook_token": "hush",
    }
    async with open_service(Settings(_env_file=None, **places, **hook)) as service:
        subjects = [Subject(Kind.ID, "shoe.jpg"), Subject(Kind.PREFIX, "a/")]
        await service.purger.purge([Purge(subject, soft=False) for subject in subjects])
    assert server.asked[0].headers["fastly-key"] == "hush"
    assert server.asked[0].headers["surrogate-key"] == "id-shoe.jpg prefix-a%2F"
    assert b'pixelmill_cdn_purges_total{outcome="done"} 1.0' in service.metrics.render_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"purge_hook": "varnish:6081"},
        {"purge_hook": "http://user:pass@varnish/"},
        {"purge_hook": "http://*/purge"},
        {"purge_hook": "https://api.fastly.com/service/1/purge", "purge_hook_kind": "fastly"},
        {"purge_hook_token": "two words"},
    ],
)
def test_a_hook_that_cannot_work_stops_the_start(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        Settings(_env_file=None, **wrong)


def test_the_token_is_not_shown() -> None:
    settings = Settings(_env_file=None, purge_hook="http://varnish/", purge_hook_token="hush")
    assert "hush" not in repr(settings) + settings.model_dump_json()
