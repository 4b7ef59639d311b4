"""Admission: who may have a processor, in which order, and who is told to come back."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest

from app import admission as module
from app.admission import Admission, Lane, Reason
from app.errors import Overloaded
from transforms.cost import Cost

NO_END = float("inf")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def build(
    *,
    processors=1,
    memory=1000,
    interactive=NO_END,
    api=NO_END,
    kept=1,
    waiting_bytes=NO_END,
    on_wait=None,
    on_busy=None,
):
    sheds = []
    admission = Admission(
        processors=processors,
        memory=memory,
        budgets={Lane.INTERACTIVE: interactive, Lane.API: api, Lane.JOBS: NO_END},
        kept_from_jobs=kept,
        waiting_bytes=waiting_bytes,
        on_wait=on_wait or (lambda lane, seconds: None),
        on_shed=lambda *shed: sheds.append(shed),
        on_busy=on_busy or (lambda seconds: None),
    )
    admission.sheds = sheds
    return admission


def cost(seconds=1.0, memory=1, kind=("jpeg", "jpeg")):
    return Cost(seconds=seconds, memory=memory, kind=kind)


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


def ask(admission, lane=Lane.INTERACTIVE, **options):
    return asyncio.create_task(admission.enter(lane, cost(**options)))


async def test_a_free_processor_is_granted_at_once(clock):
    waits = []
    admission = build(processors=2, on_wait=lambda *wait: waits.append(wait))
    first = await admission.enter(Lane.INTERACTIVE, cost())
    second = await admission.enter(Lane.API, cost())
    assert (admission.running, admission.queued) == (2, 0)
    assert waits == [(Lane.INTERACTIVE, 0.0), (Lane.API, 0.0)]
    first.release(learn=False)
    second.release(learn=False)
    assert admission.running == 0


async def test_who_finds_none_waits_until_one_is_given_back(clock):
    waits = []
    admission = build(on_wait=lambda *wait: waits.append(wait))
    first = await admission.enter(Lane.INTERACTIVE, cost())
    second = ask(admission)
    await settle()
    assert (admission.running, admission.queued) == (1, 1)
    assert not second.done()
    clock.now += 0.75
    first.release(learn=False)
    (await second).release(learn=False)
    assert waits[1] == (Lane.INTERACTIVE, 0.75)
    assert (admission.running, admission.queued) == (0, 0)


async def test_the_budget_is_in_seconds_of_estimated_work(clock):
    admission = build(interactive=1.0)
    await admission.enter(Lane.INTERACTIVE, cost(0.6))
    queued = ask(admission, seconds=0.6)  # an estimated wait of 0.6
    await settle()
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(1.2)
    for _ in range(3):
        with pytest.raises(Overloaded, match=r"1\.20 s exceeds the 1 s") as caught:
            await admission.enter(Lane.INTERACTIVE, cost(0.001))
        assert 2 <= caught.value.retry_after <= 3
    with pytest.raises(Overloaded):
        admission.check(Lane.INTERACTIVE)
    assert admission.queued == 1
    queued.cancel()


async def test_what_has_run_for_a_while_is_waited_for_less(clock):
    admission = build(interactive=1.0)
    await admission.enter(Lane.INTERACTIVE, cost(0.6))
    queued = ask(admission, seconds=0.6)
    await settle()
    clock.now += 0.3
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(0.9)
    admission.check(Lane.INTERACTIVE)
    clock.now += 100  # longer than was estimated: it may end any moment
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(0.6)
    queued.cancel()


async def test_more_processors_bear_more(clock):
    admission = build(processors=4, interactive=1.0)
    for _ in range(4):
        await admission.enter(Lane.INTERACTIVE, cost(1.0))
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(1.0)
    queued = ask(admission, seconds=1.0)
    await settle()
    with pytest.raises(Overloaded):
        admission.check(Lane.INTERACTIVE)
    queued.cancel()


async def test_retry_after_is_never_absurd(clock):
    admission = build(interactive=0.0)
    await admission.enter(Lane.INTERACTIVE, cost(5000.0))
    with pytest.raises(Overloaded) as caught:
        admission.check(Lane.INTERACTIVE)
    assert caught.value.retry_after == 30


async def test_without_a_budget_only_who_need_not_wait_is_let_in(clock):
    admission = build(interactive=0.0)
    ticket = await admission.enter(Lane.INTERACTIVE, cost(1.0))
    with pytest.raises(Overloaded):
        await admission.enter(Lane.INTERACTIVE, cost(1.0))
    ticket.release(learn=False)
    await admission.enter(Lane.INTERACTIVE, cost(1.0))


async def test_each_lane_has_a_budget_and_sees_only_what_goes_before_it(clock):
    admission = build(interactive=1.0, api=5.0)
    await admission.enter(Lane.INTERACTIVE, cost(0.5))
    waiting = [
        ask(admission, Lane.API, seconds=3.0),
        ask(admission, Lane.JOBS, seconds=99.0),
    ]
    await settle()
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(0.5)
    assert admission.estimated_wait(Lane.API) == pytest.approx(3.5)
    assert admission.estimated_wait(Lane.JOBS) == pytest.approx(102.5)
    admission.check(Lane.INTERACTIVE)
    admission.check(Lane.API)
    for task in waiting:
        task.cancel()


async def test_lanes_go_in_their_order_and_each_in_order_of_arrival(clock):
    admission = build()
    ticket = await admission.enter(Lane.INTERACTIVE, cost())
    order = []
    arrivals = [
        (Lane.JOBS, "job 1"),
        (Lane.API, "api 1"),
        (Lane.INTERACTIVE, "get 1"),
        (Lane.API, "api 2"),
        (Lane.JOBS, "job 2"),
        (Lane.INTERACTIVE, "get 2"),
    ]

    async def run(lane, name):
        granted = await admission.enter(lane, cost())
        order.append(name)
        await settle()
        granted.release(learn=False)

    tasks = []
    for lane, name in arrivals:
        tasks.append(asyncio.create_task(run(lane, name)))
        await settle()
    ticket.release(learn=False)
    await asyncio.gather(*tasks)
    assert order == ["get 1", "get 2", "api 1", "api 2", "job 1", "job 2"]


@pytest.mark.parametrize("processors", [2, 3, 5])
async def test_jobs_never_take_the_last_processor(clock, processors):
    admission = build(processors=processors)
    jobs = [ask(admission, Lane.JOBS) for _ in range(processors + 3)]
    await settle()
    assert admission.running == processors - 1
    get = ask(admission, Lane.INTERACTIVE)
    await settle()
    assert get.done()
    assert admission.running == processors
    get.result().release(learn=False)
    await settle()
    assert admission.running == processors - 1
    for job in jobs:
        job.cancel()


async def test_the_processor_that_jobs_leave_free_is_there_for_whoever_comes(clock):
    admission = build(processors=2, interactive=0.5)
    await admission.enter(Lane.JOBS, cost(60.0))
    waiting = ask(admission, Lane.JOBS, seconds=60.0)
    await settle()
    assert (admission.running, admission.queued) == (1, 1)
    # One processor is idle, and nobody goes before this one.
    assert admission.estimated_wait(Lane.INTERACTIVE) == 0.0
    await admission.enter(Lane.INTERACTIVE, cost(0.1))
    assert (admission.running, admission.queued) == (2, 1)
    waiting.cancel()


async def test_where_there_is_one_processor_jobs_have_it_when_nobody_else_wants_it(clock):
    admission = build(processors=1)
    job = await admission.enter(Lane.JOBS, cost())
    waiting = [ask(admission, Lane.JOBS), ask(admission, Lane.INTERACTIVE)]
    await settle()
    job.release(learn=False)
    await settle()
    assert [task.done() for task in waiting] == [False, True]
    waiting[0].cancel()


async def test_what_runs_at_once_stays_within_the_memory(clock):
    admission = build(processors=8, memory=100)
    first = await admission.enter(Lane.INTERACTIVE, cost(memory=60))
    second = ask(admission, memory=60)
    third = ask(admission, memory=40)  # would fit, but it does not overtake
    await settle()
    assert admission.running == 1
    first.release(learn=False)
    await settle()
    assert admission.running == 2
    assert second.done()
    assert third.done()


async def test_what_exceeds_the_memory_by_itself_runs_alone(clock):
    admission = build(processors=8, memory=100)
    small = await admission.enter(Lane.INTERACTIVE, cost(memory=1))
    huge = ask(admission, memory=5000)
    await settle()
    assert not huge.done()
    small.release(learn=False)
    await settle()
    assert huge.done()
    other = ask(admission, memory=1)
    await settle()
    assert not other.done()
    huge.result().release(learn=False)
    await settle()
    assert other.done()


async def test_who_is_cancelled_leaves_the_queue(clock):
    admission = build(interactive=2.0)
    ticket = await admission.enter(Lane.INTERACTIVE, cost(1.0))
    leaving = ask(admission, seconds=1.0)
    await settle()
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(2.0)
    leaving.cancel()
    await settle()
    assert admission.queued == 0
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(1.0)
    staying = ask(admission)
    await settle()
    ticket.release(learn=False)
    await settle()
    assert staying.done()
    assert admission.running == 1


async def test_who_is_cancelled_in_the_moment_of_the_grant_passes_it_on(clock):
    admission = build()
    ticket = await admission.enter(Lane.INTERACTIVE, cost())
    leaving, staying = ask(admission), ask(admission)
    await settle()
    ticket.release(learn=False)  # granted, but not yet awake
    leaving.cancel()
    await settle()
    assert leaving.cancelled()
    assert staying.done()
    assert (admission.running, admission.queued) == (1, 0)
    staying.result().release(learn=False)
    assert (await admission.enter(Lane.INTERACTIVE, cost())).cost.memory == 1


async def test_a_ticket_that_is_released_twice_frees_one_processor(clock):
    admission = build(processors=1)
    ticket = await admission.enter(Lane.INTERACTIVE, cost())
    ticket.release(learn=False)
    second = await admission.enter(Lane.INTERACTIVE, cost())
    ticket.release(learn=False)
    assert admission.running == 1
    second.release(learn=False)
    assert admission.running == 0


async def test_estimates_follow_what_renders_of_their_kind_take(clock):
    admission = build(processors=1, interactive=NO_END)

    async def render(took, kind):
        ticket = await admission.enter(Lane.INTERACTIVE, cost(1.0, kind=kind))
        estimated = admission.estimate(ticket.cost)
        clock.now += took
        ticket.release(learn=True)
        return estimated

    slow, quick = ("png", "avif"), ("jpeg", "jpeg")
    assert await render(3.0, slow) == 1.0
    for _ in range(100):
        await render(3.0, slow)
    assert await render(3.0, slow) == pytest.approx(3.0, rel=0.01)
    assert await render(1.0, quick) == 1.0
    # One that hangs does not spoil them all, and none is ever taken for free.
    await render(100_000.0, quick)
    assert await render(1.0, quick) < 2.0
    for _ in range(200):
        await render(0.0, quick)
    assert await render(0.0, quick) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("seed", range(8))
async def test_no_processor_is_ever_lost_or_given_twice(seed):
    dice = random.Random(seed)
    processors, memory = dice.randint(1, 4), 100
    admission = build(processors=processors, memory=memory, interactive=50.0, api=80.0)
    held = []
    counts = {"done": 0, "refused": 0, "cancelled": 0}

    def check():
        assert len(held) <= processors
        assert sum(ticket.cost.memory for ticket in held) <= memory or len(held) == 1
        assert admission.running <= processors

    async def one():
        await asyncio.sleep(dice.random() * 0.02)
        lane = dice.choice(list(Lane))
        try:
            ticket = await admission.enter(lane, cost(dice.random() * 5, dice.randint(1, 130)))
        except Overloaded:
            counts["refused"] += 1
            return
        held.append(ticket)
        check()
        try:
            for _ in range(dice.randint(0, 4)):
                await asyncio.sleep(0)
                check()
        finally:
            held.remove(ticket)
            ticket.release(learn=dice.random() < 0.5)
        counts["done"] += 1

    async def troubled():
        task = asyncio.create_task(one())
        if dice.random() < 0.4:
            await asyncio.sleep(dice.random() * 0.03)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            counts["cancelled"] += 1

    await asyncio.gather(*(troubled() for _ in range(250)))
    assert sum(counts.values()) == 250
    assert counts["done"]
    assert (admission.running, admission.queued) == (0, 0)
    # And all of them can be had again.
    tickets = [await admission.enter(Lane.INTERACTIVE, cost()) for _ in range(processors)]
    assert admission.running == processors
    for ticket in tickets:
        ticket.release(learn=False)


async def under_load(clock, admission, *, seconds, lanes, until):
    """Serve these lanes, each of which always has someone waiting, for so many seconds.

    Returns how long renders of each lane ran, and how long anyone of it waited.
    """
    took = dict.fromkeys(lanes, 0.0)
    waits = dict.fromkeys(lanes, 0.0)
    ends = {}  # moment: tickets that end then
    asked = {}

    def arrive(lane):
        task = asyncio.create_task(admission.enter(lane, cost(seconds[lane])))
        asked[task] = (lane, clock.now)

    for lane in lanes:
        for _ in range(8):
            arrive(lane)
    began = clock.now
    while clock.now - began < until:
        await settle()
        for task in [task for task in asked if task.done()]:
            lane, since = asked.pop(task)
            arrive(lane)
            if task.exception() is None:
                ends.setdefault(clock.now + seconds[lane], []).append(task.result())
                took[lane] += seconds[lane]
                waits[lane] = max(waits[lane], clock.now - since)
        await settle()
        if not ends:
            clock.now += 0.1
            continue
        clock.now = min(ends)
        for ticket in ends.pop(clock.now):
            ticket.release(learn=True)
    for task in asked:
        task.cancel()
    await settle()
    return took, waits


@pytest.mark.parametrize("processors", [1, 2])
async def test_jobs_get_on_under_any_load_and_take_little_from_it(clock, processors):
    admission = build(processors=processors)
    seconds = {Lane.INTERACTIVE: 0.25, Lane.JOBS: 2.0}
    took, _ = await under_load(
        clock, admission, seconds=seconds, lanes=[Lane.INTERACTIVE, Lane.JOBS], until=200.0
    )
    share = took[Lane.JOBS] / (processors * 200.0)
    assert 0.05 < share < 0.12
    assert took[Lane.INTERACTIVE] > 0.85 * processors * 200.0


async def test_no_lane_waits_for_ever_where_those_before_it_always_have_work(clock):
    admission = build(processors=2, api=5.0, interactive=3.0)
    seconds = {Lane.INTERACTIVE: 0.25, Lane.API: 0.25, Lane.JOBS: 1.0}
    took, waits = await under_load(clock, admission, seconds=seconds, lanes=list(Lane), until=100.0)
    assert all(took.values())
    assert waits[Lane.API] <= 2 * 5.0 + 0.5


async def test_who_waits_for_twice_the_budget_is_refused_after_all(clock):
    admission = build(interactive=1.0)
    ticket = await admission.enter(Lane.INTERACTIVE, cost(0.9))
    late = [ask(admission, seconds=0.01) for _ in range(2)]
    await settle()
    clock.now += 2.5  # it took far longer than was estimated
    in_time = ask(admission, seconds=0.01)
    await settle()
    ticket.release(learn=False)
    await settle()
    for task in late:
        with pytest.raises(Overloaded, match="longer than was estimated"):
            task.result()
    assert in_time.done()
    assert admission.sheds == [(Lane.INTERACTIVE, Reason.DEADLINE)] * 2
    in_time.result().release(learn=False)


async def test_where_memory_is_what_is_short_the_wait_is_that_of_the_memory(clock):
    admission = build(processors=8, memory=100, interactive=2.5)
    await admission.enter(Lane.INTERACTIVE, cost(1.0, memory=90))
    waiting = [ask(admission, seconds=1.0, memory=90) for _ in range(2)]
    await settle()
    # One after the other, though there are processors for all.
    assert admission.estimated_wait(Lane.INTERACTIVE) == pytest.approx(2.7)
    with pytest.raises(Overloaded):
        await admission.enter(Lane.INTERACTIVE, cost(1.0, memory=90))
    assert admission.sheds == [(Lane.INTERACTIVE, Reason.MEMORY)]
    for task in waiting:
        task.cancel()


async def test_what_waits_is_estimated_by_what_has_been_learnt_since(clock):
    admission = build(interactive=NO_END)
    kind = ("png", "avif")
    ticket = await admission.enter(Lane.INTERACTIVE, cost(1.0, kind=kind))
    waiting = [ask(admission, seconds=1.0, kind=kind) for _ in range(3)]
    await settle()
    assert admission.queued_seconds == pytest.approx(3.0)
    clock.now += 3.0
    ticket.release(learn=True)
    await settle()
    assert admission.queued_seconds == pytest.approx(2 * 2.0)  # the first counts for half
    for task in waiting:
        task.cancel()
    await settle()


async def test_a_crowd_that_leaves_at_once_leaves_nothing(clock):
    admission = build(interactive=NO_END)
    ticket = await admission.enter(Lane.INTERACTIVE, cost(1.0))
    crowd = [ask(admission, seconds=0.1, kind=("jpeg", str(n % 7))) for n in range(500)]
    await settle()
    assert admission.queued == 500
    for task in crowd:
        task.cancel()
    await settle()
    assert (admission.queued, admission.queued_seconds) == (0, 0.0)
    assert not admission._line._loads
    ticket.release(learn=False)


async def test_utilisation_waits_and_sheds_are_those_of_the_last_seconds(clock):
    admission = build(processors=2, interactive=1.0)
    clock.now += 20.0
    assert (admission.utilisation, admission.recent_wait, admission.shed_share) == (0.0, 0.0, 0.0)
    ticket = await admission.enter(Lane.INTERACTIVE, cost(4.0))
    clock.now += 15.0
    assert admission.utilisation == pytest.approx(0.5, abs=0.05)  # though it has not ended
    other = await admission.enter(Lane.INTERACTIVE, cost(1.0))
    waiting = ask(admission, seconds=1.5)
    await settle()
    for _ in range(2):
        with pytest.raises(Overloaded):
            admission.check(Lane.INTERACTIVE)
    clock.now += 1.5
    ticket.release(learn=False)
    await settle()
    assert admission.recent_wait == pytest.approx(1.5)
    assert admission.shed_share == pytest.approx(2 / 4)
    other.release(learn=False)
    waiting.result().release(learn=False)
    clock.now += 17.0
    assert (admission.utilisation, admission.recent_wait, admission.shed_share) == (0.0, 0.0, 0.0)


async def test_originals_that_wait_are_bounded_in_bytes(clock):
    admission = build(processors=2, interactive=NO_END, waiting_bytes=100)
    running = [await admission.enter(Lane.INTERACTIVE, cost()) for _ in range(2)]

    def wait(lane, held):
        return asyncio.create_task(admission.enter(lane, cost(), held=held))

    waiting = [wait(Lane.INTERACTIVE, 90)]
    await settle()
    admission.check(Lane.INTERACTIVE)  # there is room
    waiting.append(wait(Lane.INTERACTIVE, 90))
    await settle()
    for _ in range(2):
        with pytest.raises(Overloaded, match="memory"):
            admission.check(Lane.INTERACTIVE)
    assert admission.sheds == [(Lane.INTERACTIVE, Reason.MEMORY)] * 2
    waiting += [wait(Lane.API, 500), wait(Lane.JOBS, 500)]
    await settle()
    assert admission.queued == 4
    running[0].release(learn=False)
    await settle()
    admission.check(Lane.INTERACTIVE)  # room again
    for task in waiting[1:]:
        task.cancel()
    await settle()
    assert all(admission._line.held(lane) == 0 for lane in Lane)


async def test_as_many_wait_as_there_are_processors_however_large_they_are(clock):
    admission = build(processors=2, interactive=NO_END, waiting_bytes=100)
    for _ in range(2):
        await admission.enter(Lane.INTERACTIVE, cost())
    waiting = [
        asyncio.create_task(admission.enter(Lane.INTERACTIVE, cost(), held=10_000))
        for _ in range(3)
    ]
    await settle()
    assert admission.queued == 2
    with pytest.raises(Overloaded):
        waiting[2].result()
    for task in waiting:
        task.cancel()


async def test_a_job_that_has_become_overdue_begins_when_the_next_request_comes(clock):
    admission = build(processors=2)
    running = await admission.enter(Lane.INTERACTIVE, cost(60.0))
    job = ask(admission, Lane.JOBS)  # one processor is kept from it
    await settle()
    clock.now += 31.0
    request = ask(admission)
    await settle()
    assert (job.done(), request.done()) == (True, False)
    running.release(learn=False)
    await settle()
    assert request.done()


async def test_who_waits_behind_a_render_that_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_PATIENCE", 0.05)
    admission = build(interactive=0.05)
    hanging = await admission.enter(Lane.INTERACTIVE, cost(0.01))
    waiting = [ask(admission, seconds=0.001) for _ in range(2)]
    for each in waiting:
        with pytest.raises(Overloaded, match="longer than was estimated"):
            await asyncio.wait_for(each, 20)
    assert admission.sheds == [(Lane.INTERACTIVE, Reason.DEADLINE)] * 2
    assert (admission.running, admission.queued) == (1, 0)
    hanging.release(learn=False)
    (await admission.enter(Lane.INTERACTIVE, cost(0.01))).release(learn=False)
    assert admission.running == 0


async def test_a_processor_is_busy_from_when_it_is_granted_until_it_is_given_back(clock):
    taken = []
    admission = build(on_busy=taken.append)
    for learn in (True, False):
        ticket = await admission.enter(Lane.INTERACTIVE, cost())
        clock.now += 0.25
        ticket.release(learn=learn)
        ticket.release(learn=learn)
    assert taken == [0.25, 0.25]
    clock.now += 1.5
    assert admission.utilisation == pytest.approx(0.5 / 2)
