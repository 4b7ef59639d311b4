"""More work than there are processors for: some is done, the rest is refused at once."""

from __future__ import annotations

import threading

import pytest

from app import engine
from tests.http import originals as draw
from transforms import pipeline


def admission(served):
    return served.app.api.state.service.admission


@pytest.fixture
def heavy(folder):
    """A picture each of whose results keeps a processor busy for a while."""
    return folder.put("heavy.jpg", draw.jpeg(draw.grain(1600, 1200)))


def test_what_cannot_be_done_in_time_is_refused_at_once(serve, heavy, call, until):
    served = serve(workers=1, queue_interactive="300ms", results="off")
    callers = [
        call(served).send(f"/thumb/{heavy}?w={width}&fm=webp&effort=6")
        for width in range(1000, 1040)
    ]
    answers = [caller.read() for caller in callers]
    done = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 503]
    assert done
    assert refused
    assert len(done) + len(refused) == len(answers)
    for answer in done:
        assert draw.opened(answer.body).width in range(1000, 1040)
    for answer in refused:
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/problem+json"
        assert b'"code": "overloaded"' in answer.body
        assert b'"retry_after": %s' % answer.headers["retry-after"].encode() in answer.body
    failures = served.metric("pixelmill_sheds_total", lane="interactive")
    assert failures == len(refused)

    until(lambda: admission(served).running == admission(served).queued == 0)
    again = served.get(f"/thumb/{heavy}?w=500")
    assert again.status_code == 200


def test_what_is_in_memory_is_answered_however_busy_it_is(serve, folder, call, until, gate):
    served = serve(workers=1, queue_interactive=0, results="off")
    gate.set()
    etag = served.get("/thumb/cat.jpg?w=60").headers["etag"]
    gate.clear()
    busy = call(served).send("/thumb/cat.jpg?w=61&fm=avif&effort=9")
    until(lambda: admission(served).running == 1)
    assert served.get("/thumb/cat.jpg?w=60").status_code == 200
    # The long way too: neither needs a processor.
    headers = {"authorization": "Bearer x"}
    assert served.get("/thumb/cat.jpg?w=60", headers=headers).status_code == 200
    headers["if-none-match"] = etag
    assert served.get("/thumb/cat.jpg?w=60", headers=headers).status_code == 304
    assert served.get("/images/cat.jpg").status_code == 200
    assert served.get("/readyz").json()["renders_running"] == 1
    gate.set()
    assert busy.read().status == 200


def test_where_it_is_too_busy_nothing_is_downloaded_in_vain(serve, folder, call, until, gate):
    served = serve(workers=1, queue_interactive=0, queue_api=0, render_timeout="1h", results="off")
    # An estimate of many seconds, so that it does not run out while the test looks.
    folder.put("wide.png", draw.png(draw.flat(draw.RED, 3000, 2000)))
    busy = call(served).send("/thumb/wide.png?w=3000&fm=avif&effort=9")
    until(lambda: admission(served).running == 1)
    before = served.metric("pixelmill_downloads_total")
    assert served.get("/thumb/cat.jpg?w=60").status_code == 503
    sent = served.client.post("/transform?w=60", content=draw.jpeg())
    assert sent.status_code == 503
    assert served.metric("pixelmill_downloads_total") == before
    busy.leave()
    until(lambda: admission(served).running == 0)
    gate.set()
    assert served.get("/thumb/cat.jpg?w=60").status_code == 200


def test_a_post_may_wait_longer_than_a_get(serve, folder, call, until, gate):
    served = serve(
        workers=1, queue_interactive=0, queue_api="1h", render_timeout="1h", results="off"
    )
    folder.put("wide.png", draw.png(draw.flat(draw.RED, 3000, 2000)))
    busy = call(served).send("/thumb/wide.png?w=3000&fm=avif&effort=9")
    until(lambda: admission(served).running == 1)
    data = draw.jpeg()
    waits = call(served).send(
        "/transform?w=60", method="POST", headers=[("content-length", str(len(data)))], body=data
    )
    until(lambda: admission(served).queued == 1)
    assert served.get("/thumb/cat.jpg?w=60").status_code == 503
    busy.leave()
    gate.set()
    assert waits.read().status == 200


def test_a_render_that_takes_too_long_is_stopped_and_the_next_one_works(
    serve, folder, until, vast, monkeypatch
):
    folder.put("vast.png", vast)
    served = serve(workers=1, render_timeout="300ms", queue_interactive="1h", results="off")
    # The estimate would refuse it before it begins: here it is wrong.
    monkeypatch.setattr("app.executor.check_seconds", lambda *estimated: None)
    answer = served.get("/thumb/vast.png?w=5000&fm=jpeg")
    assert answer.status_code == 504
    assert answer.json()["code"] == "render_timeout"
    assert answer.headers["cache-control"] == "no-store"
    until(lambda: admission(served).running == 0)
    assert served.metric("pixelmill_renders_total") == 0
    assert served.metric("pixelmill_render_failures_total", code="render_timeout") == 1
    assert served.get("/thumb/cat.jpg?w=60").status_code == 200


def test_what_would_take_too_long_is_refused_before_it_begins(serve, folder, vast):
    folder.put("vast.png", vast)
    served = serve(workers=1, render_timeout="300ms", queue_interactive="1h", results="off")
    for path in ("vast.png?w=5000", "cat.jpg?fm=avif&effort=9"):
        answer = served.get(f"/thumb/{path}")
        assert answer.status_code == 400, answer.text
        assert answer.json()["param"] in ("w", "effort")
    assert served.get("/thumb/cat.jpg?w=60").status_code == 200


def test_a_client_that_does_not_read_holds_no_processor(serve, folder, call, until):
    folder.put("large.png", draw.png(draw.grain(2400, 2000)))
    served = serve(workers=1, results="off")
    slow = call(served).send("/thumb/large.png?fm=tiff")
    until(lambda: served.metric("pixelmill_renders_total") == 1)
    until(lambda: admission(served).running == 0)
    assert served.get("/thumb/cat.jpg?w=60").status_code == 200
    assert len(slow.read().body) > 5_000_000


def test_a_render_that_fails_gives_its_processor_back(serve, folder, until):
    folder.put("cut.png", draw.png(draw.grain())[:20_000])
    served = serve(workers=1, results="off")
    for width in range(10, 20):
        assert served.get(f"/thumb/cut.png?w={width}").status_code == 422
    until(lambda: admission(served).running == 0)
    assert served.get("/thumb/cat.jpg?w=60").status_code == 200


def test_where_every_render_hangs_the_process_asks_to_be_started_anew(
    serve, folder, until, monkeypatch
):
    gate = threading.Event()  # `stop` is not looked at, as by a decoder that hangs
    monkeypatch.setattr(pipeline, "run_all", lambda *_: gate.wait(30))
    monkeypatch.setattr(engine, "_HOPELESS", 0.1)
    served = serve(workers=1, render_timeout="100ms", results="off")
    assert served.get("/livez").json() == {"status": "alive"}
    assert served.get("/thumb/cat.jpg?w=60").json()["code"] == "render_timeout"
    assert served.metric("pixelmill_renders_overdue") == 1
    until(lambda: served.get("/livez").status_code == 503)
    assert served.get("/livez").json() == {"status": "stuck"}
    gate.set()
    until(lambda: served.get("/livez").status_code == 200)
    assert served.metric("pixelmill_renders_overdue") == 0
    assert served.metric("pixelmill_workers_busy_seconds_total") > 0.1
