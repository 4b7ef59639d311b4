"""Admission under any sequence of arrivals, cancellations, releases and time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app import admission as module
from app.admission import Admission, Lane
from app.errors import Overloaded
from transforms.cost import Cost

LANES = strategies.sampled_from(list(Lane))
SECONDS = strategies.sampled_from([0.01, 0.2, 1.0, 7.0])
KINDS = strategies.sampled_from([("jpeg", "jpeg"), ("png", "avif")])
MEMORY = 100


class Sequences(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1000.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.asked = []  # (task, lane, cost), in order of arrival
        self.held = {}  # task: ticket
        self.begun = []  # tasks, in the order in which they were granted
        self.sheds = []

    @initialize(
        processors=strategies.integers(1, 4),
        kept=strategies.integers(0, 1),
        budget=strategies.sampled_from([0.0, 0.5, 30.0]),
    )
    def build(self, processors, kept, budget):
        self.processors = processors
        self.admission = Admission(
            processors=processors,
            memory=MEMORY,
            budgets={Lane.INTERACTIVE: budget, Lane.API: 4 * budget, Lane.JOBS: float("inf")},
            kept_from_jobs=kept,
            on_wait=lambda lane, seconds: None,
            on_shed=lambda *shed: self.sheds.append(shed),
            on_busy=lambda seconds: None,
        )

    def settle(self):
        async def turns():
            for _ in range(6):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    @rule(lane=LANES, seconds=SECONDS, memory=strategies.integers(1, 130), kind=KINDS)
    def arrive(self, lane, seconds, memory, kind):
        cost = Cost(seconds=seconds, memory=memory, kind=kind)

        async def enter():
            ticket = await self.admission.enter(lane, cost)
            task = asyncio.current_task()
            self.held[task] = ticket
            self.begun.append(task)

        self.asked.append((self.loop.create_task(enter()), lane, cost))
        self.settle()

    @property
    def waiting(self):
        return [one for one in self.asked if not one[0].done()]

    @precondition(lambda self: self.waiting)
    @rule(data=strategies.data())
    def leave(self, data):
        data.draw(strategies.sampled_from(self.waiting))[0].cancel()
        self.settle()

    @precondition(lambda self: self.held)
    @rule(data=strategies.data(), learn=strategies.booleans(), leaving=strategies.booleans())
    def release(self, data, learn, leaving):
        task = data.draw(strategies.sampled_from(list(self.held)))
        self.held.pop(task).release(learn=learn)
        if leaving and self.waiting:  # in the very moment of the grant
            data.draw(strategies.sampled_from(self.waiting))[0].cancel()
        self.settle()

    @rule(seconds=strategies.sampled_from([0.05, 0.6, 5.0, 40.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @invariant()
    def keeps_within_its_bounds(self):
        assert self.admission.running == len(self.held) <= self.processors
        memory = [ticket.cost.memory for ticket in self.held.values()]
        assert sum(memory) <= MEMORY

    @invariant()
    def counts_who_waits(self):
        waiting = self.waiting
        assert self.admission.queued == len(waiting)
        loads = [(self.admission.estimate(cost), min(cost.memory, MEMORY)) for *_, cost in waiting]
        seconds = sum(seconds for seconds, _ in loads) / self.processors
        by_memory = sum(seconds * memory for seconds, memory in loads) / MEMORY
        assert self.admission.queued_seconds == pytest.approx(max(seconds, by_memory), abs=1e-6)

    @invariant()
    def leaves_nobody_where_all_is_free(self):
        assert self.held or not self.waiting

    @invariant()
    def lets_no_request_wait_where_there_is_room_for_all(self):
        costs = [cost for _, _, cost in self.waiting]
        memory = sum(min(cost.memory, MEMORY) for cost in costs)
        memory += sum(ticket.cost.memory for ticket in self.held.values())
        if len(self.held) < self.processors and memory <= MEMORY:
            assert all(lane is Lane.JOBS for _, lane, _ in self.waiting)

    @invariant()
    def serves_each_lane_in_order(self):
        places = {task: place for place, (task, *_) in enumerate(self.asked)}
        lanes = {task: lane for task, lane, _ in self.asked}
        for lane in Lane:
            mine = [places[task] for task in self.begun if lanes[task] is lane]
            assert mine == sorted(mine)

    @invariant()
    def tells_of_everyone_who_is_refused(self):
        ended = [task for task, *_ in self.asked if task.done() and not task.cancelled()]
        errors = [task.exception() for task in ended if task.exception()]
        assert all(isinstance(error, Overloaded) for error in errors)
        assert all(1 <= error.retry_after <= 30 for error in errors)
        left = sum(task.cancelled() for task, *_ in self.asked)  # some when they had been refused
        assert len(errors) <= len(self.sheds) <= len(errors) + left
        assert 0 <= self.admission.shed_share <= 1
        assert 0 <= self.admission.utilisation <= 1

    def teardown(self):
        for _ in range(len(self.asked)):
            for ticket in self.held.values():
                ticket.release(learn=False)
            self.held.clear()
            self.settle()
        for task, *_ in self.asked:
            assert task.done()
        if self.asked:
            assert (self.admission.running, self.admission.queued) == (0, 0)
            small = Cost(seconds=1.0, memory=1, kind=("gif", "gif"))
            for _ in range(self.processors):
                self.loop.run_until_complete(self.admission.enter(Lane.INTERACTIVE, small))
            assert self.admission.running == self.processors
        self.loop.close()
        self.patch.undo()


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
