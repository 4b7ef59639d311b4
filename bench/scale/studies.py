"""The questions that are put to the model, each a number of runs that share nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from bench.scale import balance, jobs, mix, queue
from bench.scale.capacity import render_seconds
from bench.scale.day import HOUR, QUIET, Day
from bench.scale.fleet import Fleet, Outcome, Site
from bench.scale.recommended import PROCESSORS, RULES
from bench.scale.scaler import Direction, Rules
from bench.scale.signals import BUSY, MEAN_DEMAND, ONE_REPLICA, SIGNALS, Signal

T = TypeVar("T")
R = TypeVar("R")

_SEED: Final = 11
VARIED: Final = 0.65
"""The target at which rules are varied: with less room than is recommended, differences show."""
_MOST: Final = replace(RULES, most=60)
"""So high that it decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A fleet's day, and what it is called."""

    name: str
    target: float = VARIED
    signal: Signal | None = SIGNALS["demand"]
    rules: Rules = _MOST
    site: Site = field(default_factory=Site)
    replicas: int = 4


@dataclass(frozen=True, slots=True)
class Ran:
    """A run and its outcome."""

    run: Run
    outcome: Outcome


def run_day(run: Run) -> Ran:
    """Let a fleet live through the day."""
    fleet = Fleet(
        Day(),
        run.site,
        seed=_SEED,
        replicas=run.replicas,
        signal=run.signal,
        target=run.target,
        rules=run.rules if run.signal else None,
    )
    return Ran(run, fleet.run())


FIXED: Final = (6, 9, 14)


def signals_runs() -> list[Run]:
    """Every signal at every target, and fleets that stay as they are."""
    runs = [
        Run(name=name, target=target, signal=signal)
        for name, signal in SIGNALS.items()
        for target in signal.targets
    ]
    return runs + [Run(name="fixed", target=n, signal=None, replicas=n) for n in FIXED]


def variants_runs() -> list[Run]:
    """The recommended rules at a target of `VARIED`, each changed in one place."""

    def up(percent: int, pods: int, period: float) -> Rules:
        return replace(_MOST, up=Direction(percent=percent, pods=pods, period=period, window=0))

    def down(percent: int, pods: int, period: float, window: float) -> Rules:
        changed = Direction(percent=percent, pods=pods, period=period, window=window)
        return replace(_MOST, down=changed)

    return [
        Run(name="a mean in place of the sum (`Value`)", signal=MEAN_DEMAND),
        Run(name="a sum of busy workers, without refusals", signal=BUSY),
        Run(name="utilisation of one replica, asked by chance", signal=ONE_REPLICA),
        Run(name="metric: mean over 30 s", site=Site(window=30)),
        Run(name="metric: mean over 2 min", site=Site(window=120)),
        Run(name="start in 5 to 15 s (warm node, image there)", site=Site(start=(5, 15))),
        Run(name="start in 90 to 150 s (new node)", site=Site(start=(90, 150))),
        Run(name="up: 100 % or 4 in 60 s", rules=up(100, 4, 60)),
        Run(name="up: 2 in 60 s", rules=up(0, 2, 60)),
        Run(name="down: window of 60 s", rules=down(10, 1, 60, 60)),
        Run(name="down: 100 % in 15 s (default)", rules=down(100, 1, 15, 300)),
        Run(
            name="half as many replicas of 4 processors, at least 2",
            site=Site(processors=4),
            rules=replace(_MOST, least=2),
            replicas=2,
        ),
        Run(name="at least 2", rules=replace(_MOST, least=2)),
        Run(name="at least 6", rules=replace(_MOST, least=6)),
    ]


@dataclass(frozen=True, slots=True)
class Zone:
    """A fleet of three zones at a utilisation, which loses one: shares of (bad, refused)."""

    utilisation: float
    before: tuple[float, float]
    first_minute: tuple[float, float]
    second_minute: tuple[float, float]


def lose_zone(utilisation: float) -> Zone:
    """What happens to renders before a third of twelve replicas goes, and after."""
    count, misses = 12, QUIET.misses
    rate = utilisation * count * PROCESSORS / (render_seconds() * misses)
    steady = replace(QUIET, peak=rate, trough=1.0)
    fleet = Fleet(steady, Site(), seed=_SEED, replicas=count, lost=(1200.0, 1 / 3))
    outcome = fleet.run(seconds=1500.0)
    between = outcome.between
    return Zone(utilisation, between(120, 1200), between(1200, 1260), between(1260, 1320))


BUDGETS: Final = (0.1, 0.5, 5.0, 1e9)
LOADS: Final = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)


def load_queue(budget: float) -> list[queue.Loaded]:
    """One replica at every load, with a queue of so many seconds."""
    costs = mix.sample(1 << 16, seed=_SEED)
    return [queue.load_replica(costs, load=load, budget=budget, seed=_SEED) for load in LOADS]


ZONES: Final = (0.5, 0.55, 0.6, 0.7, 0.8)
COUNTS: Final = (1, 2, 4, 8, 16)
BACKLOGS: Final = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All answers."""

    signals: list[Ran]
    variants: list[Ran]
    zones: list[Zone]
    queues: dict[float, list[queue.Loaded]]
    balanced: list[balance.Balanced]
    worked: list[jobs.Worked]

    def day_of(self, signal: str, target: float) -> Outcome:
        """The day of a signal at one of its targets."""
        return next(
            ran.outcome
            for ran in self.signals
            if ran.run.name == signal and ran.run.target == target
        )


def find(pool: Executor) -> Found:
    """Run everything, as many at once as the pool has processes."""

    def start(run: Callable[[T], R], asked: Sequence[T]) -> Callable[[], list[R]]:
        futures = [pool.submit(run, one) for one in asked]
        return lambda: [future.result() for future in futures]

    signals = start(run_day, signals_runs())
    variants = start(run_day, variants_runs())
    zones = start(lose_zone, ZONES)
    queues = start(load_queue, BUDGETS)
    balanced = start(_balance, [(way, n) for way in balance.WAYS for n in COUNTS])
    worked = start(partial(jobs.work, seed=_SEED), BACKLOGS)
    return Found(
        signals=signals(),
        variants=variants(),
        zones=zones(),
        queues=dict(zip(BUDGETS, queues(), strict=True)),
        balanced=balanced(),
        worked=worked(),
    )


def _balance(asked: tuple[str, int]) -> balance.Balanced:
    way, replicas = asked
    return balance.balance(way, replicas, seed=_SEED)


CROWD: Final = (12.9 * HOUR, 13.5 * HOUR)
