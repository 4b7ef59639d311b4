"""Housekeeping: what is due is done, again and again, whatever goes wrong."""

from __future__ import annotations

import asyncio

import pytest

from app.jobs import housekeeping
from app.jobs.housekeeping import Chore, keeping_house
from tests.jobs.deployment import until
from tests.jobs.ledgers import open_ledger


@pytest.fixture
def database(ledger_url, monkeypatch):
    monkeypatch.setattr(housekeeping, "_LOOK", 0.01)
    with open_ledger(ledger_url) as opened:
        yield opened


class Counted:
    """A chore that counts how often it is done. `due` says whether it is."""

    def __init__(self, *, due=True, error=None):
        self.times = 0
        self.due = due
        self.error = error

    @property
    def chore(self):
        return Chore(name="count", period=0.01, do=self.do, is_due=lambda tx: self.due)

    async def do(self):
        self.times += 1
        if self.error is not None:
            raise self.error

    async def done(self, times):
        async def look():
            return self.times >= times

        await until(look)


async def test_what_is_due_is_done_again_and_again_and_nothing_else(database):
    due, not_due = Counted(), Counted(due=False)
    async with keeping_house(database, [due.chore, not_due.chore]):
        await due.done(3)
        assert not_due.times == 0
        not_due.due = True
        await not_due.done(1)


async def test_a_chore_that_fails_is_done_again_and_keeps_no_other(database):
    failing, other = Counted(error=RuntimeError("a defect")), Counted()
    async with keeping_house(database, [failing.chore, other.chore]):
        await failing.done(3)
        await other.done(3)


async def test_a_chore_that_takes_long_keeps_no_other_and_is_begun_once(database):
    begun = []

    async def take_long():
        begun.append(1)
        await asyncio.Event().wait()

    other = Counted()
    long = Chore(name="long", period=0.01, do=take_long, is_due=lambda tx: True)
    async with keeping_house(database, [long, other.chore]):
        await other.done(5)
    assert begun == [1]


async def test_housekeeping_goes_on_when_the_ledger_could_not_be_read(database):
    broken = [True]

    def is_due(tx):
        if broken:
            broken.pop()
            raise RuntimeError("away")
        return True

    counted = Counted()
    chore = Chore(name="count", period=0.01, do=counted.do, is_due=is_due)
    async with keeping_house(database, [chore]):
        await counted.done(1)
