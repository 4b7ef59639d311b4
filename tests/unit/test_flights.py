"""Coalescing: one piece of work for all who want it, and none where nobody does."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.flights import Flights


class Work:
    """Work that ends when it is told to, and counts."""

    def __init__(self):
        self.begun = self.cancelled = 0
        self.end = asyncio.get_running_loop().create_future()

    async def __call__(self):
        self.begun += 1
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


async def test_all_who_ask_for_a_key_share_one_piece_of_work():
    flights, work = Flights(), Work()
    waiters = [asyncio.create_task(flights.join("key", work)) for _ in range(10)]
    await settle()
    assert len(flights) == 1
    assert "key" in flights
    work.end.set_result("done")
    assert await asyncio.gather(*waiters) == ["done"] * 10
    assert work.begun == 1
    assert len(flights) == 0


async def test_different_keys_are_different_work():
    flights, left, right = Flights(), Work(), Work()
    waiters = [
        asyncio.create_task(flights.join("left", left)),
        asyncio.create_task(flights.join("right", right)),
    ]
    await settle()
    left.end.set_result(1)
    right.end.set_result(2)
    assert await asyncio.gather(*waiters) == [1, 2]


async def test_what_has_landed_is_begun_anew():
    flights = Flights()
    for number in range(3):
        work = Work()
        work.end.set_result(number)
        assert await flights.join("key", work) == number
        assert work.begun == 1


async def test_an_error_reaches_all_and_is_not_remembered():
    flights, work = Flights(), Work()
    waiters = [asyncio.create_task(flights.join("key", work)) for _ in range(5)]
    await settle()
    work.end.set_exception(ValueError("broken"))
    found = await asyncio.gather(*waiters, return_exceptions=True)
    assert [str(error) for error in found] == ["broken"] * 5
    assert len(flights) == 0
    again = Work()
    again.end.set_result("well")
    assert await flights.join("key", again) == "well"


async def test_who_leaves_leaves_alone():
    flights, work = Flights(), Work()
    waiters = [asyncio.create_task(flights.join("key", work)) for _ in range(3)]
    await settle()
    for waiter in waiters[:2]:
        waiter.cancel()
    await settle()
    assert work.cancelled == 0
    work.end.set_result("done")
    assert await waiters[2] == "done"
    assert waiters[0].cancelled()
    assert waiters[1].cancelled()


async def test_the_last_one_to_leave_takes_the_work_along():
    flights, work = Flights(), Work()
    waiters = [asyncio.create_task(flights.join("key", work)) for _ in range(3)]
    await settle()
    for waiter in waiters:
        waiter.cancel()
    await settle()
    assert work.cancelled == 1
    assert len(flights) == 0


async def test_who_comes_after_the_last_has_left_begins_anew():
    flights, release = Flights(), asyncio.Event()
    begun = []

    async def stubborn():
        begun.append(len(begun))
        number = begun[-1]
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await release.wait()  # takes its time over being cancelled
            raise
        return number

    async def quick():
        begun.append(len(begun))
        return "fresh"

    first = asyncio.create_task(flights.join("key", stubborn))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    assert "key" not in flights
    assert await flights.join("key", quick) == "fresh"
    release.set()
    await settle()
    assert len(begun) == 2
    assert len(flights) == 0


async def test_old_work_that_ends_late_does_not_remove_new_work_of_its_key():
    flights, release = Flights(), asyncio.Event()

    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await release.wait()
            raise

    first = asyncio.create_task(flights.join("key", stubborn))
    await settle()
    first.cancel()
    await settle()
    work = Work()
    second = asyncio.create_task(flights.join("key", work))
    await settle()
    release.set()
    await settle()
    assert "key" in flights
    third = asyncio.create_task(flights.join("key", work))
    await settle()
    work.end.set_result("shared")
    assert await asyncio.gather(second, third) == ["shared", "shared"]
    assert work.begun == 1


async def test_work_that_fails_when_all_have_left_troubles_nobody():
    flights = Flights()

    async def ill():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("on the way out") from None

    waiter = asyncio.create_task(flights.join("key", ill))
    await settle()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await settle()
    assert len(flights) == 0


async def test_work_may_join_other_work():
    flights, inner = Flights(), Work()
    waiters = [
        asyncio.create_task(flights.join(name, lambda: flights.join("inner", inner)))
        for name in ("a", "b", "a")
    ]
    await settle()
    assert inner.begun == 1
    for waiter in (waiters[0], waiters[2]):
        waiter.cancel()
    await settle()
    assert inner.cancelled == 0
    waiters[1].cancel()
    await settle()
    assert inner.cancelled == 1
    assert len(flights) == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from("abc")),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("end"), st.sampled_from("abc")),
        st.tuples(st.just("fail"), st.sampled_from("abc")),
        st.tuples(st.just("tick"), st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_work_runs_exactly_while_somebody_waits_for_it(steps):
    asyncio.run(follow(steps))


async def follow(steps):
    flights = Flights()
    current, works, waiters = {}, [], []

    def begin(key):
        async def run():
            current[key] = work = Work()
            works.append(work)
            return await work()

        return run

    for action, what in steps:
        if action == "join":
            task = asyncio.create_task(flights.join(what, begin(what)))
            waiters.append((what, task))
            continue
        if action == "leave" and waiters:
            waiters[what % len(waiters)][1].cancel()
        elif action == "end":
            end(current.get(what), lambda work, what=what: work.set_result(what))
        elif action == "fail":
            end(current.get(what), lambda work, what=what: work.set_exception(KeyError(what)))
        await settle()
        under_way = {key for key in "abc" if key in flights}
        assert under_way == {key for key, task in waiters if not task.done()}
        running = [work for work in works if not work.end.done() and not work.cancelled]
        assert len(running) == len(under_way)

    await disperse(waiters)
    assert len(flights) == 0
    assert {work.begun for work in works} <= {1}
    for work in works:
        if work.end.done():
            work.end.exception()  # seen, also where all had left


def end(work, how):
    if work is not None and not work.end.done():
        how(work.end)


async def disperse(waiters):
    """Have everybody leave; whoever had an answer had the right one."""
    for _, task in waiters:
        task.cancel()
    results = await asyncio.gather(*(task for _, task in waiters), return_exceptions=True)
    for (key, _), result in zip(waiters, results, strict=True):
        assert result == key or isinstance(result, (KeyError, asyncio.CancelledError))
    await settle()
