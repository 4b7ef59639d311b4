"""Origins that fail or stall: they are left alone, and keep nobody from the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import httpx
import pytest

from app.errors import ServiceError, SourceFailed, SourceTimeout, SourceUnavailable
from app.sources import origins as of_origins
from app.sources.origins import FAILURES, LONGEST_PAUSE, Origins
from app.sources.web import WebSource
from tests.sources.origin import (
    Origin,
    Script,
    answer,
    cut,
    endless,
    gzipped,
    jpeg,
    raw,
    redirect,
    running_origin,
    stall,
    stalled_body,
    tls_context,
)
from tests.sources.test_web import CAP, HTML, LONG, Sources, eventually
from transforms.errors import TransformError

BODY = jpeg()
PAUSE = 10.0
FAULT = answer(b"fault", status=500)


class Clock:
    """A clock that stands until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


@pytest.fixture
def other() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


@pytest.fixture
async def sources() -> AsyncIterator[Sources]:
    sources = Sources()
    yield sources
    for source in sources.opened:
        await source.close()


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", tls_context)


@pytest.fixture
def origins(clock: Clock) -> Origins:
    return Origins(connections=4, pause=PAUSE, patience=0.1, clock=clock)


async def outcome(asking: Awaitable[Any]) -> Any:
    """What asking comes to: an identity or an error."""
    try:
        return await asking
    except (ServiceError, TransformError) as error:
        return error


async def fail(source: WebSource, url: str, *, times: int = FAILURES) -> None:
    """Fail so often, each time by the origin's fault."""
    for _ in range(times):
        error = await outcome(source.identify(url, None))
        assert isinstance(error, (SourceFailed, SourceTimeout))
        assert not isinstance(error, SourceUnavailable)


async def refusal(source: WebSource, url: str) -> SourceUnavailable:
    """The error of a request that is refused at once."""
    with pytest.raises(SourceUnavailable) as caught:
        await source.identify(url, None)
    return caught.value


@pytest.mark.parametrize(
    "script",
    [FAULT, answer(b"", status=503), cut(BODY, 50), raw(b"garbage\r\n\r\n"), raw(b"")],
    ids=["fault", "busy", "cut", "garbage", "closed"],
)
async def test_an_origin_that_failed_several_times_in_a_row_is_left_alone(
    script: Script, origin: Origin, sources: Sources, origins: Origins
) -> None:
    url = origin.serve("/a.jpg", script)
    good = origin.serve("/good.jpg", answer(BODY))
    source = sources.open(origins=origins)
    await fail(source, url)
    assert origins.left_alone == 1
    for _ in range(3):
        error = await refusal(source, good)
        assert 0.7 * PAUSE <= error.retry_after <= 1.3 * PAUSE
        assert (error.status, error.code) == (502, "source_unavailable")
    assert len(origin.asked) == FAILURES
    assert sources.outcomes() == {"source_failed": FAILURES, "source_unavailable": 3}


async def test_an_origin_that_nobody_reaches_or_that_stalls_is_left_alone(
    origin: Origin, sources: Sources, origins: Origins
) -> None:
    source = sources.open(origins=origins, timeout=0.3)
    await fail(source, "http://127.0.0.1:1/a.jpg")
    await refusal(source, "http://127.0.0.1:1/b.jpg")
    urls = [origin.serve("/a", stall()), origin.serve("/b", stalled_body(BODY[:50]))]
    found = await asyncio.gather(*(outcome(source.identify(url, None)) for url in urls * 2))
    assert {type(each) for each in found} == {SourceTimeout}
    await fail(source, urls[0], times=1)
    await refusal(source, urls[0])
    assert origins.left_alone == 2


@pytest.mark.parametrize(
    "script",
    [
        answer(b"", status=404),
        answer(b"", status=410),
        answer(b"", status=403),
        answer(b"", status=429),
        answer(b""),
        endless(HTML),
        endless(BODY),
        gzipped(BODY),
        redirect("/a.jpg"),
        redirect("file:///etc/passwd"),
        redirect("http://10.0.0.1/"),
    ],
    ids=[
        *("missing", "gone", "forbidden", "too many", "empty", "page", "large", "compressed"),
        *("loop", "no address", "refused"),
    ],
)
async def test_an_origin_that_answers_is_not_left_alone_for_what_it_says(
    script: Script, origin: Origin, sources: Sources, origins: Origins
) -> None:
    url = origin.serve("/a.jpg", script)
    source = sources.open(origins=origins, allowed=("127.0.0.1:*",), cap=CAP // 8)
    for _ in range(FAILURES + 1):
        error = await outcome(source.identify(url, None))
        assert isinstance(error, (ServiceError, TransformError))
        assert not isinstance(error, SourceUnavailable)
    assert len(origins) == 0


async def test_only_failures_in_a_row_count(
    origin: Origin, sources: Sources, origins: Origins, clock: Clock
) -> None:
    url = origin.serve("/a.jpg", FAULT)
    missing = origin.serve("/missing.jpg", answer(b"", status=404))
    source = sources.open(origins=origins)
    await fail(source, url, times=FAILURES - 1)
    await outcome(source.identify(missing, None))
    await fail(source, url, times=FAILURES - 1)
    clock.now += 3600
    await fail(source, url, times=FAILURES - 1)
    assert origins.left_alone == 0


async def test_without_a_pause_an_origin_is_always_asked(origin: Origin, sources: Sources) -> None:
    url = origin.serve("/a.jpg", FAULT)
    await fail(sources.open(), url, times=3 * FAILURES)
    assert len(origin.asked) == 3 * FAILURES


async def test_after_the_pause_one_request_decides_for_the_others(
    origin: Origin, sources: Sources, origins: Origins, clock: Clock
) -> None:
    url = origin.serve("/a.jpg", FAULT)
    source = sources.open(origins=origins)
    await fail(source, url)
    clock.now += 2 * PAUSE
    origin.serve("/a.jpg", answer(BODY))
    found = await asyncio.gather(*(outcome(source.identify(url, None)) for _ in range(4)))
    refused = [each for each in found if isinstance(each, SourceUnavailable)]
    assert len(refused) == 3
    assert {each.retry_after for each in refused} == {1}
    assert len(origin.asked) == FAILURES + 1
    found = await asyncio.gather(*(source.identify(url, None) for _ in range(4)))
    assert [each.body for each in found] == [BODY] * 4
    assert len(origins) == 0


async def test_each_failed_trial_doubles_the_pause_up_to_a_bound(
    origin: Origin, sources: Sources, origins: Origins, clock: Clock
) -> None:
    url = origin.serve("/a.jpg", FAULT)
    source = sources.open(origins=origins)
    await fail(source, url)
    usual = PAUSE
    for _ in range(8):
        clock.now += 2 * LONGEST_PAUSE
        await fail(source, url, times=1)
        usual = min(LONGEST_PAUSE, 2 * usual)
        error = await refusal(source, url)
        assert 0.7 * usual <= error.retry_after <= 1.3 * usual
    clock.now += 2 * LONGEST_PAUSE
    origin.serve("/a.jpg", answer(BODY))
    await source.identify(url, None)
    origin.serve("/a.jpg", FAULT)
    await fail(source, url)
    assert (await refusal(source, url)).retry_after <= 1.3 * PAUSE


async def test_requests_that_fail_together_leave_an_origin_alone_once(
    origin: Origin, sources: Sources, clock: Clock
) -> None:
    origins = Origins(connections=3 * FAILURES, pause=PAUSE, patience=0.1, clock=clock)
    sources.downloads = type(sources.downloads)(
        slots=3 * FAILURES, memory=1 << 20, metrics=sources.metrics
    )
    url = origin.serve("/a.jpg", stall())
    source = sources.open(origins=origins, timeout=0.4, connections=3 * FAILURES)
    await asyncio.gather(*(outcome(source.identify(url, None)) for _ in range(3 * FAILURES)))
    assert (await refusal(source, url)).retry_after <= 1.3 * PAUSE


async def test_a_trial_that_is_given_up_leaves_the_next_request_to_try(
    origin: Origin, sources: Sources, origins: Origins, clock: Clock
) -> None:
    url = origin.serve("/a.jpg", FAULT)
    source = sources.open(origins=origins)
    await fail(source, url)
    clock.now += 2 * PAUSE
    origin.serve("/a.jpg", stall())
    trial = asyncio.create_task(source.identify(url, None))
    assert await eventually(lambda: len(origin.asked) > FAILURES)
    await refusal(source, url)
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)
    origin.serve("/a.jpg", answer(BODY))
    assert (await source.identify(url, None)).body == BODY


async def test_each_redirect_counts_for_the_origin_that_it_leads_to(
    origin: Origin, other: Origin, sources: Sources, origins: Origins
) -> None:
    failing = other.serve("/b.jpg", FAULT)
    url = origin.serve("/a.jpg", redirect(failing))
    good = origin.serve("/good.jpg", answer(BODY))
    source = sources.open(origins=origins)
    await fail(source, url)
    await refusal(source, failing)
    await refusal(source, url)
    assert (await source.identify(good, None)).body == BODY
    assert len(other.asked) == FAILURES


async def test_a_host_is_one_origin_however_it_is_written(
    sources: Sources, origins: Origins
) -> None:
    async def nobody(host: str, port: int) -> list[str]:
        return []

    source = sources.open(origins=origins, resolver=nobody)
    await fail(source, "http://shop.example/a.jpg")
    await refusal(source, "http://SHOP.example.:80/b.jpg")
    await fail(source, "https://shop.example/a.jpg", times=1)
    await fail(source, "http://shop.example:8080/a.jpg", times=1)


async def test_an_origin_that_stalls_takes_neither_the_slots_nor_the_time_of_others(
    origin: Origin, other: Origin, sources: Sources
) -> None:
    url = origin.serve("/a.jpg", stall())
    good = other.serve("/good.jpg", answer(BODY))
    origins = Origins(connections=2, pause=PAUSE, patience=0.1)
    source = sources.open(origins=origins, timeout=60)
    tasks = [asyncio.create_task(source.identify(url, None)) for _ in range(8)]
    assert await eventually(lambda: len(origin.asked) == 2)
    async with asyncio.timeout(LONG):
        found = await asyncio.gather(*(source.identify(good, None) for _ in range(4)))
    assert [each.body for each in found] == [BODY] * 4
    assert len(origin.asked) == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await sources.all_slots_are_free()
    assert len(origins) == 0


async def test_who_waits_for_an_origin_does_so_in_turn_and_within_its_own_time(
    origin: Origin, sources: Sources
) -> None:
    origins = Origins(connections=1, pause=PAUSE, patience=0.2)
    source = sources.open(origins=origins, timeout=0.4)
    url = origin.serve("/stall.jpg", stall())
    tasks = [asyncio.create_task(source.identify(url, None)) for _ in range(FAILURES + 2)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in found} == {SourceTimeout}
    # One of them asked the origin. What the others waited for was no fault of its own.
    assert origins.left_alone == 0
    patient = sources.open(origins=origins, timeout=LONG)
    urls = [origin.serve(f"/{number}.jpg", answer(BODY)) for number in range(6)]
    before = len(origin.asked)
    await asyncio.gather(*(patient.identify(url, None) for url in urls))
    assert [each.path for each in origin.asked[before:]] == [f"/{n}.jpg" for n in range(6)]


async def test_origins_are_remembered_up_to_a_bound_and_no_longer_than_they_are_in_trouble(
    sources: Sources, origins: Origins, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_origins, "_REMEMBERED", 10)

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "127.0.0.1" else []

    source = sources.open(origins=origins, resolver=resolver)
    await source.identify(origin.serve("/a.jpg", answer(BODY)), None)
    assert len(origins) == 0
    for number in range(15):
        await fail(source, f"http://shop-{number}.example/a.jpg", times=1)
    assert len(origins) == 10
    await fail(source, "http://shop-14.example/a.jpg", times=FAILURES - 1)
    await refusal(source, "http://shop-14.example/a.jpg")


def test_clients_are_told_when_to_ask_again(origin: Origin, serve: Any) -> None:
    url = origin.serve("/a.jpg", FAULT)
    served = serve(allowed_sources=("127.0.0.1:*",), allow_private_networks=True)

    def ask(url: str) -> httpx.Response:
        return served.get("/thumb", params={"url": url, "w": "8"})

    for _ in range(FAILURES):
        response = ask(url)
        assert (response.status_code, response.json()["code"]) == (502, "source_failed")
        assert (response.headers["retry-after"], response.json()["retry_after"]) == ("5", 5)
    response = ask(url)
    assert (response.status_code, response.json()["code"]) == (502, "source_unavailable")
    assert 7 <= int(response.headers["retry-after"]) <= 13
    assert response.headers["cache-control"] == "no-store"
    assert len(origin.asked) == FAILURES
    assert served.metric("pixelmill_origin_breakers_open") == 1
    counted = served.metric("pixelmill_downloads_total", source="url", outcome="source_unavailable")
    assert counted == 1


def test_what_an_origin_will_say_again_comes_without_advice_to_ask_again(
    origin: Origin, serve: Any
) -> None:
    url = origin.serve("/a.jpg", answer(b"", status=403))
    served = serve(allowed_sources=("127.0.0.1:*",), allow_private_networks=True)
    response = served.get("/thumb", params={"url": url, "w": "8"})
    assert (response.status_code, response.json()["code"]) == (502, "source_failed")
    assert "retry-after" not in response.headers
