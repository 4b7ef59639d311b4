"""How much more is answered where encoders work less hard under pressure, on a clock of its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from app import admission as module
from app.admission import Admission, Lane
from app.errors import Overloaded
from app.pressure import PRESSED, ease
from tests.http import originals as draw
from transforms import pipeline
from transforms.cost import estimate_all
from transforms.limits import Limits
from transforms.transform import Transform

PROCESSORS = 2
ARRIVALS = 400


async def serve_at_twice_the_capacity(monkeypatch, works, *, effort):
    """How many of the arrivals are answered, how many of those with less effort."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    admission = Admission(
        processors=PROCESSORS,
        memory=10**12,
        budgets=dict.fromkeys(Lane, 0.5),
        on_wait=lambda lane, seconds: None,
        on_shed=lambda lane, reason: None,
        on_busy=lambda seconds: None,
    )
    usual = estimate_all(works)
    asked, running = [], []
    answered = reduced = 0

    async def pass_time(until):
        """Begin what may begin, and end what has run for as long as was estimated."""
        nonlocal answered
        while True:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in [task for task in asked if task.done()]:
                asked.remove(task)
                if task.exception() is None:
                    running.append(task.result())
                else:
                    assert isinstance(task.exception(), Overloaded)
            ends = [(ticket.started + ticket.cost.seconds, ticket) for ticket in running]
            end, ticket = min(ends, default=(until, None), key=lambda one: one[0])
            if ticket is None or end > until:
                clock.now = until
                return
            clock.now = end
            running.remove(ticket)
            answered += 1
            ticket.release(learn=True)

    for number in range(ARRIVALS):
        await pass_time(1000.0 + number * usual.seconds / PROCESSORS / 2)
        cost = usual
        if effort is not None and admission.is_pressed(Lane.INTERACTIVE, share=PRESSED):
            eased, cost = ease(works, usual, effort=effort)
            reduced += eased is not works
        asked.append(asyncio.create_task(admission.enter(Lane.INTERACTIVE, cost)))
    await pass_time(clock.now + 10.0)
    return answered, reduced


async def test_of_avif_nearly_all_is_answered_at_twice_the_load(monkeypatch):
    data = draw.jpeg(draw.flat(draw.RED, 1600, 1200))
    works = [pipeline.prepare(data, Transform.from_query("w=800&fm=avif"), Limits())]
    answered, reduced = await serve_at_twice_the_capacity(monkeypatch, works, effort=None)
    assert reduced == 0
    assert answered < 0.6 * ARRIVALS  # half, and what the queue holds at the end
    eased, reduced = await serve_at_twice_the_capacity(monkeypatch, works, effort=0)
    assert eased > 0.95 * ARRIVALS
    assert 0 < reduced < 0.8 * eased  # the rest is made as it was asked for


async def test_of_jpeg_no_more_is_answered_and_none_is_worse(monkeypatch):
    data = draw.jpeg(draw.flat(draw.RED, 1600, 1200))
    works = [pipeline.prepare(data, Transform.from_query("w=800&fm=jpeg"), Limits())]
    _, reduced = await serve_at_twice_the_capacity(monkeypatch, works, effort=0)
    assert reduced == 0
