"""Equal work is done once; work that nobody waits for is stopped; a stalled origin stops nobody."""

from __future__ import annotations

import asyncio
import threading
from urllib.parse import quote

import pytest

from app.sources import stored
from tests.http import originals as draw

MANY = 50
OPEN = {"allowed_sources": "127.0.0.1:*", "allow_private_networks": True, "results": "off"}


def parts(served):
    return served.app.api.state.service


def waiting(flights):
    """How many wait for work in flight."""
    return sum(flight.waiters for flight in list(flights._flights.values()))


def nothing_is_left(served):
    renderer = parts(served).renderer
    downloads = [source._downloads for source in renderer.originals._sources.values()]
    flights = (
        renderer.originals._identifying,
        renderer.originals._fetching,
        renderer._rendering,
        renderer._watermarks._decoding,
    )
    return (
        not any(len(flight) for flight in flights)
        and not renderer._to_keep
        and not getattr(renderer, "_asking", None)
        and parts(served).admission.running == 0
        and parts(served).admission.queued == 0
        and not any(each._budget.held for each in downloads)
    )


def by_url(origin, name="cat.jpg", query="w=60"):
    return f"/thumb?url={quote(f'{origin.url}/{name}')}&{query}"


def test_equal_requests_at_once_make_one_download_and_one_render(serve, origin, call, until):
    served = serve(**OPEN)
    origin.gate.clear()
    callers = [call(served).send(by_url(origin)) for _ in range(MANY)]
    until(lambda: waiting(parts(served).renderer.originals._identifying) == MANY)
    origin.gate.set()
    answers = [caller.read() for caller in callers]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert origin.requests == ["/cat.jpg"]
    assert served.metric("pixelmill_downloads_total") == 1
    assert served.metric("pixelmill_renders_total") == 1
    assert served.metric("pixelmill_results_total") == MANY
    until(lambda: nothing_is_left(served))


def test_equal_requests_for_a_stored_original_share_a_render(serve, folder, call, until, gate):
    served = serve(results="off")
    callers = [call(served).send("/thumb/cat.jpg?w=60") for _ in range(MANY)]
    until(lambda: waiting(parts(served).renderer._rendering) == MANY)
    gate.set()
    assert {caller.read().status for caller in callers} == {200}
    assert served.metric("pixelmill_renders_total") == 1
    assert served.metric("pixelmill_downloads_total") == 1


def test_different_results_of_one_original_share_its_download(serve, origin, call, until):
    served = serve(**OPEN)
    origin.gate.clear()
    callers = [call(served).send(by_url(origin, query=f"w={width}")) for width in range(40, 50)]
    until(lambda: waiting(parts(served).renderer.originals._identifying) == len(callers))
    origin.gate.set()
    widths = {draw.opened(caller.read().body).width for caller in callers}
    assert widths == set(range(40, 50))
    assert origin.requests == ["/cat.jpg"]
    assert served.metric("pixelmill_renders_total") == len(callers)


def test_different_results_of_a_stored_original_share_its_download(
    serve, folder, call, until, monkeypatch
):
    served = serve(results="off")
    opened, receive = threading.Event(), stored.receive

    async def held(*arguments, **options):
        await asyncio.to_thread(opened.wait, 20)
        return await receive(*arguments, **options)

    monkeypatch.setattr(stored, "receive", held)
    callers = [call(served).send(f"/thumb/cat.jpg?w={width}") for width in range(40, 50)]
    until(lambda: waiting(parts(served).renderer.originals._fetching) == len(callers))
    opened.set()
    assert {caller.read().status for caller in callers} == {200}
    assert served.metric("pixelmill_downloads_total") == 1
    assert served.metric("pixelmill_renders_total") == len(callers)


def test_what_goes_wrong_is_told_to_all_and_asked_for_once(serve, origin, call, until):
    served = serve(**OPEN)
    origin.gate.clear()
    callers = [call(served).send(by_url(origin, "missing.jpg")) for _ in range(MANY)]
    until(lambda: waiting(parts(served).renderer.originals._identifying) == MANY)
    origin.gate.set()
    assert {caller.read().status for caller in callers} == {404}
    assert origin.requests == ["/missing.jpg"]
    until(lambda: nothing_is_left(served))


def test_when_all_have_left_the_download_stops(serve, origin, call, until):
    served = serve(**OPEN)
    origin.gate.clear()
    callers = [call(served).send(by_url(origin)) for _ in range(MANY)]
    until(lambda: waiting(parts(served).renderer.originals._identifying) == MANY)
    until(lambda: len(origin.requests) == 1)
    for caller in callers:
        caller.leave()
    until(lambda: origin.deserted == ["/cat.jpg"])
    until(lambda: nothing_is_left(served))
    until(lambda: served.metric("pixelmill_requests_total", status="499") == MANY)
    assert served.metric("pixelmill_renders_total") == 0
    origin.gate.set()
    assert served.get(by_url(origin)).status_code == 200


def test_when_all_but_one_have_left_that_one_is_answered(serve, origin, call, until):
    served = serve(**OPEN)
    origin.gate.clear()
    callers = [call(served).send(by_url(origin)) for _ in range(MANY)]
    renderer = parts(served).renderer
    until(lambda: waiting(renderer.originals._identifying) == MANY)
    for caller in callers[:-1]:
        caller.leave()
    until(lambda: waiting(renderer.originals._identifying) == 1)
    origin.gate.set()
    assert callers[-1].read().status == 200
    assert origin.requests == ["/cat.jpg"]
    assert origin.deserted == []


def test_when_all_have_left_the_render_stops(serve, folder, call, until, vast):
    folder.put("vast.png", vast)
    served = serve(results="off", render_timeout="50s")
    callers = [call(served).send("/thumb/vast.png?w=5000&fm=jpeg") for _ in range(MANY)]
    until(lambda: waiting(parts(served).renderer._rendering) == MANY)
    until(lambda: parts(served).admission.running == 1)
    for caller in callers:
        caller.leave()
    until(lambda: nothing_is_left(served))
    assert served.metric("pixelmill_renders_total") == 0
    assert served.metric("pixelmill_renders_running") == 0
    assert served.get("/thumb/cat.jpg?w=60").status_code == 200


def test_when_all_have_left_a_render_that_waits_its_turn_leaves_the_queue(
    serve, folder, call, until, gate
):
    served = serve(results="off", workers=1, queue_interactive="1h")
    first = call(served).send("/thumb/cat.jpg?w=60")
    until(lambda: parts(served).admission.running == 1)
    others = [call(served).send(f"/thumb/cat.jpg?w={width}") for width in (61, 62, 62, 63)]
    until(lambda: parts(served).admission.queued == 3)
    until(lambda: waiting(parts(served).renderer._rendering) == 5)
    for caller in others[:3]:
        caller.leave()
    until(lambda: parts(served).admission.queued == 1)
    gate.set()
    assert first.read().status == others[3].read().status == 200
    assert served.metric("pixelmill_renders_total") == 2
    until(lambda: nothing_is_left(served))


@pytest.fixture(params=[{}, {"memory_limit": "1GiB"}, {"downloads": 10}], ids=str)
def served(request, serve, folder):
    """A service with room for many downloads, or for few bytes of them, or for few of them."""
    return serve(**OPEN, fetch_timeout="5s", **request.param)


def test_a_stalled_origin_holds_up_nobody_else(served, origin, call, until):
    origin.gate.clear()
    for number in range(20):
        origin.pictures[f"/{number}.jpg"] = draw.jpeg()
    callers = [call(served).send(by_url(origin, f"{number}.jpg")) for number in range(20)]
    until(lambda: waiting(parts(served).renderer.originals._identifying) == 20)
    assert parts(served).admission.running == 0
    assert parts(served).admission.queued == 0

    other = served.get("/thumb/cat.jpg?w=60")
    assert other.status_code == 200, other.text
    kept = served.client.put("/images/new.jpg", content=draw.jpeg())
    assert kept.status_code == 201, kept.text
    # All this came while the others were still waiting.
    assert waiting(parts(served).renderer.originals._identifying) == 20
    origin.gate.set()
    assert {caller.read().status for caller in callers} == {200}


def test_an_origin_that_does_not_answer_is_a_504_of_its_own(serve, folder, origin, until):
    served = serve(**OPEN, fetch_timeout="200ms")
    origin.gate.clear()
    answer = served.get(by_url(origin))
    assert answer.status_code == 504
    assert answer.json()["code"] == "source_timeout"
    until(lambda: origin.deserted == ["/cat.jpg"])
    until(lambda: nothing_is_left(served))
