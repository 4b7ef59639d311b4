"""Downloads: bytes and slots are bounded, and none is ever lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext

import pytest

from app.downloads import ByteBudget, Downloads
from app.errors import SourceFailed
from app.telemetry import Metrics
from transforms.errors import BrokenImage


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


class Holder:
    """Holds bytes until it is told to let go."""

    def __init__(self, budget, size):
        self.inside = False
        self._done = asyncio.Event()
        self.task = asyncio.create_task(self._run(budget, size))

    async def _run(self, budget, size):
        async with budget.hold(size):
            self.inside = True
            await self._done.wait()
        self.inside = False

    def let_go(self):
        self._done.set()


async def test_bytes_are_granted_while_there_are_any():
    budget = ByteBudget(100)
    holders = [Holder(budget, size) for size in (60, 40, 1)]
    await settle()
    assert [holder.inside for holder in holders] == [True, True, False]
    assert budget.held == 100
    holders[1].let_go()
    await settle()
    assert holders[2].inside
    assert budget.held == 61
    for holder in holders:
        holder.let_go()
    await settle()
    assert budget.held == 0


async def test_who_asks_first_is_served_first():
    budget = ByteBudget(100)
    holders = [Holder(budget, size) for size in (80, 50, 10, 10)]
    await settle()
    # The small ones would fit, but then the large one might wait for ever.
    assert [holder.inside for holder in holders] == [True, False, False, False]
    holders[0].let_go()
    await settle()
    assert [holder.inside for holder in holders] == [False, True, True, True]
    for holder in holders:
        holder.let_go()
    await settle()


async def test_what_exceeds_the_budget_has_all_of_it():
    budget = ByteBudget(100)
    huge, other = Holder(budget, 10**12), Holder(budget, 1)
    await settle()
    assert (huge.inside, other.inside, budget.held) == (True, False, 100)
    huge.let_go()
    await settle()
    assert other.inside
    other.let_go()
    await settle()
    assert budget.held == 0


async def test_who_is_cancelled_makes_way_for_those_behind():
    budget = ByteBudget(100)
    holders = [Holder(budget, size) for size in (80, 90, 20)]
    await settle()
    holders[1].task.cancel()
    await settle()
    assert [holder.inside for holder in holders] == [True, False, True]
    for holder in holders:
        holder.let_go()
    await settle()
    assert budget.held == 0


async def test_who_is_cancelled_in_the_moment_of_the_grant_passes_it_on():
    budget = ByteBudget(100)
    async with budget.hold(100):
        leaving, staying = Holder(budget, 100), Holder(budget, 100)
        await settle()
    # It is granted by now, but the one who waited for it is not yet awake.
    assert budget.held == 100
    assert not leaving.inside
    leaving.task.cancel()
    await settle()
    assert leaving.task.cancelled()
    assert not leaving.inside
    assert staying.inside
    staying.let_go()
    await settle()
    assert budget.held == 0


@pytest.mark.parametrize("seed", range(6))
async def test_no_byte_is_ever_lost_or_granted_twice(seed):
    dice = random.Random(seed)
    budget, inside = ByteBudget(100), [0]

    async def one():
        await asyncio.sleep(dice.random() * 0.02)
        size = dice.randint(0, 120)
        async with budget.hold(size):
            inside[0] += min(size, 100)
            assert inside[0] <= 100
            try:
                for _ in range(dice.randint(0, 3)):
                    await asyncio.sleep(0)
                if dice.random() < 0.2:
                    raise ValueError("in the block")
            finally:
                inside[0] -= min(size, 100)

    async def troubled():
        task = asyncio.create_task(one())
        if dice.random() < 0.5:
            await asyncio.sleep(dice.random() * 0.03)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        error = None if task.cancelled() else task.exception()
        assert error is None or isinstance(error, ValueError)

    await asyncio.gather(*(troubled() for _ in range(250)))
    assert budget.held == 0
    async with budget.hold(100):
        assert budget.held == 100


def outcomes(metrics):
    return {
        (sample.labels["source"], sample.labels["outcome"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "pixelmill_downloads_total"
    }


async def test_slots_are_bounded_too():
    downloads = Downloads(slots=2, memory=1000, metrics=Metrics())
    inside, most, go_on = 0, 0, asyncio.Event()

    async def one():
        nonlocal inside, most
        async with downloads.slot(1):
            inside += 1
            most = max(most, inside)
            await go_on.wait()
            inside -= 1

    tasks = [asyncio.create_task(one()) for _ in range(7)]
    await settle()
    assert inside == 2
    go_on.set()
    await asyncio.gather(*tasks)
    assert most == 2


async def test_a_slot_is_given_back_however_its_block_ends():
    downloads = Downloads(slots=1, memory=10, metrics=Metrics())
    for error in (SourceFailed("cut"), RuntimeError("a defect"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            async with downloads.slot(5):
                raise error
    async with downloads.slot(10):
        pass


def test_downloads_are_counted_by_how_they_ended():
    metrics = Metrics()
    downloads = Downloads(slots=1, memory=10, metrics=metrics)
    for error in (None, SourceFailed("cut"), BrokenImage("half"), RuntimeError("a defect")):
        with pytest.raises(type(error)) if error else nullcontext(), downloads.counted("url"):
            if error is not None:
                raise error
    assert outcomes(metrics) == {
        ("url", "complete"): 1,
        ("url", "source_failed"): 1,
        ("url", "broken_image"): 1,
    }
