"""Conditional writes with providers that keep conditions, pass over them, or refuse them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from app.errors import SourceFailed, StoreMisconfigured
from app.stores import s3conditions
from tests.stores import faulty
from tests.stores.faulty import Exchange
from tests.stores.test_contract import create

PROBES = "/bucket/.pixelmill/probe-"


@dataclass
class Provider:
    """A provider of S3 that keeps names, and answers as it is set."""

    keeps_conditions: bool = True
    refusal: tuple[int, str] | None = None
    """How it answers to a condition."""
    fault: tuple[int, str] | None = None
    """How it answers to everything."""
    conflicts: int = 0
    """How many conditional writes, but for probes, meet another one."""
    lost_answers: int = 0
    """How many writes are done, and answered as if they were not."""
    kept: set[str] = field(default_factory=set)
    conditions: list[str] = field(default_factory=list)
    """What was to be written on a condition."""

    async def __call__(self, exchange: Exchange) -> None:
        await self._answer(exchange)(exchange)

    def _answer(self, exchange: Exchange) -> faulty.Behaviour:
        method, target = exchange.asked.method, exchange.asked.target
        if self.fault:
            return faulty.error(*self.fault)
        if method == "PUT":
            return self._put(target, conditional="if-none-match" in exchange.asked.headers)
        if method == "DELETE":
            self.kept.discard(target)
            return faulty.status(204)
        found = target in self.kept or target == "/bucket"
        return faulty.whole(b"1") if found else faulty.status(404)

    def _put(self, target: str, *, conditional: bool) -> faulty.Behaviour:
        if conditional:
            self.conditions.append(target)
            if self.refusal:
                return faulty.error(*self.refusal)
            if self.conflicts and not target.startswith(PROBES):
                self.conflicts -= 1
                return faulty.error(409, "ConditionalRequestConflict")
            if self.keeps_conditions and target in self.kept:
                return faulty.error(412, "PreconditionFailed")
        self.kept.add(target)
        if self.lost_answers:
            self.lost_answers -= 1
            return faulty.error(500, "InternalError")
        return faulty.whole(b"")

    @property
    def probes(self) -> int:
        """How often it was probed."""
        return len({target for target in self.conditions if target.startswith(PROBES)})


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3conditions, "_FIRST_PAUSE", 0.01)


async def test_a_provider_that_keeps_conditions_is_probed_once_and_left_clean(against):
    provider = Provider()
    store, server = await against(provider, connections=8)
    created = await asyncio.gather(*(create(store, f"{n}", b"1") for n in range(8)))
    assert all(created)
    assert await create(store, "1", b"2") is None
    assert await store.conditional()
    assert provider.probes == 1
    assert provider.kept == {f"/bucket/{n}" for n in range(8)}
    assert "HEAD" not in server.methods


@pytest.mark.parametrize(
    "trait",
    [
        {"keeps_conditions": False},
        {"refusal": (501, "NotImplemented")},
        {"refusal": (400, "InvalidArgument")},
    ],
    ids=["passes over them", "does not know them", "takes them for a fault"],
)
async def test_a_provider_without_conditions_is_looked_at_before_a_write(against, trait):
    provider = Provider(**trait)
    store, _ = await against(provider)
    created = await asyncio.gather(*(create(store, f"{n}", b"1") for n in range(3)))
    assert all(created)
    assert await create(store, "1", b"2") is None
    assert not await store.conditional()
    assert provider.probes == 1
    assert provider.kept == {f"/bucket/{n}" for n in range(3)}
    assert [target for target in provider.conditions if not target.startswith(PROBES)] == []


async def test_a_provider_that_is_down_is_probed_again_when_it_is_back(against):
    provider = Provider(fault=(503, "SlowDown"))
    store, _ = await against(provider)
    with pytest.raises(SourceFailed):
        await create(store, "one", b"1")
    with pytest.raises(SourceFailed):
        await store.conditional()
    provider.fault = None
    assert await create(store, "one", b"1") is not None
    assert await store.conditional()


async def test_a_provider_that_takes_nothing_is_not_taken_for_one_without_conditions(against):
    provider = Provider(fault=(400, "InvalidRequest"))
    store, _ = await against(provider)
    with pytest.raises(StoreMisconfigured):
        await store.conditional()
    provider.fault = None
    assert await store.conditional()


async def test_a_probe_whose_answer_was_lost_is_believed_when_it_is_sent_again(against):
    store, _ = await against(Provider(lost_answers=1), attempts=2)
    assert await store.conditional()


async def test_a_creation_that_meets_another_one_is_tried_again(against):
    provider = Provider(conflicts=2)
    store, _ = await against(provider)
    assert await create(store, "one", b"1") is not None
    assert provider.conditions.count("/bucket/one") == 3


async def test_a_creation_that_always_meets_another_one_leaves_it_to_that_one(against):
    provider = Provider(conflicts=1000)
    store, _ = await against(provider)
    assert await create(store, "one", b"1") is None
    assert provider.conditions.count("/bucket/one") == s3conditions._TRIES
    assert provider.kept == set()
