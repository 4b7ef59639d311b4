"""The model of many replicas that docs/scaling.md speaks of, and the page itself."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.scale import balance, jobs, mix, page, plans, queue
from bench.scale.day import QUIET, Day, Event, unseen
from bench.scale.fleet import Fleet, Site
from bench.scale.recommended import BACKLOG, PROCESSOR_TARGET, PROCESSORS, RULES, TARGET, WORKERS
from bench.scale.replica import REFUSED, Replica, serve
from bench.scale.scaler import Autoscaler, Direction, Rules
from bench.scale.signals import SIGNALS

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
BUSY = Day(
    trough=1.0,
    cold=None,
    slow_store=None,
    neighbours=None,
    crowd=Event(begin=30, seconds=120),
)


def quick(replicas, *, seconds=180, day=BUSY, **options):
    return Fleet(day, Site(), seed=3, replicas=replicas, **options).run(seconds=seconds)


def test_every_render_is_answered_refused_or_in_flight():
    outcome = quick(3)
    assert outcome.renders == outcome.answered + outcome.refused + outcome.unfinished
    assert min(outcome.answered, outcome.refused, outcome.unfinished) > 0
    assert sum(renders for renders, _, _ in outcome.minutes.values()) == outcome.renders
    assert sum(bad for _, bad, _ in outcome.events.values()) == outcome.refused + outcome.slow


def test_more_replicas_refuse_no_more():
    refused = [quick(n).refused for n in (2, 4, 10, 24)]
    assert refused == sorted(refused, reverse=True)
    assert refused[0] > refused[-1]


def test_a_fleet_with_the_same_seed_has_the_same_day():
    assert quick(3, seconds=60) == quick(3, seconds=60)


@pytest.mark.parametrize("processors", [1, 2, 4])
def test_waits_are_those_of_erlang(processors):
    """M/M/c at 0.7 of capacity: the share that waits, and the mean wait, which follows from it."""
    costs = np.random.default_rng(5).exponential(0.1, size=1 << 18)
    random = np.random.default_rng(6)
    rate = 0.7 * processors / costs.mean()
    times = np.cumsum(random.exponential(1 / rate, size=50_000)).tolist()
    zeros = [0] * len(times)
    replica = Replica(processors=processors, budget=1e9)
    arrivals = zip(times, costs[: len(times)].tolist(), zeros, zeros, strict=True)
    waits = np.array(serve([replica], arrivals))
    expected = queue.erlang_c(processors, 0.7)
    assert (waits > 0).mean() == pytest.approx(expected, rel=0.05)
    assert waits.mean() == pytest.approx(expected * 0.1 / (processors * 0.3), rel=0.15)


def test_a_bounded_queue_keeps_what_a_replica_can_do_at_twice_its_load():
    costs = mix.sample(1 << 14, seed=2)
    bounded = queue.load_replica(costs, load=2.0, budget=0.5, seconds=200)
    assert bounded.goodput >= 0.97
    assert bounded.p99_wait <= 0.5
    assert queue.load_replica(costs, load=2.0, budget=1e9, seconds=200).goodput < 0.2


def test_a_replica_counts_what_waits_by_processor():
    replica = Replica(processors=2, budget=0.5)
    assert [replica.offer(0.0, 1.0) for _ in range(2)] == [0.0, 0.0]
    assert replica.offer(0.1, 1.0) == REFUSED  # 0.9 s are left of each
    assert replica.offer(0.6, 0.3) == pytest.approx(0.4)
    assert replica.busy_seconds(1.0) == pytest.approx(2.0)
    assert replica.busy_seconds(9.0) == pytest.approx(2.3)


def rules(**changed):
    options = {
        "least": 2,
        "most": 20,
        "up": Direction(percent=100, pods=4, period=15, window=0),
        "down": Direction(percent=10, pods=1, period=60, window=60),
    }
    return Rules(**(options | changed))


def test_an_autoscaler_is_steady_within_its_tolerance_and_bounded():
    scaler = Autoscaler(rules())
    assert scaler.decide(0, ratio=1.09, ready=10, replicas=10) == 10
    assert scaler.decide(15, ratio=1.5, ready=10, replicas=10) == 15
    assert scaler.decide(30, ratio=9.0, ready=15, replicas=15) == 20


def test_an_autoscaler_rises_no_faster_than_its_policy():
    scaler = Autoscaler(rules())
    assert scaler.decide(0, ratio=9.0, ready=2, replicas=2) == 6
    assert scaler.decide(5, ratio=9.0, ready=2, replicas=6) == 6
    assert scaler.decide(15, ratio=9.0, ready=2, replicas=6) == 12


def test_an_autoscaler_falls_slowly_and_after_its_window():
    scaler = Autoscaler(rules())
    assert scaler.decide(0, ratio=1.0, ready=10, replicas=10) == 10
    assert scaler.decide(45, ratio=0.2, ready=10, replicas=10) == 10
    assert scaler.decide(75, ratio=0.2, ready=10, replicas=10) == 9
    assert scaler.decide(90, ratio=0.2, ready=9, replicas=9) == 9
    assert scaler.decide(135, ratio=0.2, ready=9, replicas=9) == 8


def test_a_fleet_follows_its_load():
    day = Day(trough=1.0, cold=None, slow_store=None, neighbours=None, crowd=None)
    outcome = quick(3, seconds=600, day=day, signal=SIGNALS["demand"], target=TARGET, rules=RULES)
    assert outcome.changes
    assert outcome.between(420, 600) < outcome.between(0, 60)


def test_a_day_without_events_is_ordinary():
    assert {QUIET.named(hour * 3600) for hour in range(24)} == {"ordinary"}
    assert QUIET.requests(16 * 3600) == pytest.approx(QUIET.peak)


def test_a_cache_warms():
    shares = [unseen(n) for n in (0, 1e4, 1e6, 1e8)]
    assert shares[0] == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.01


def test_memories_add_up_where_ids_are_hashed():
    ways = balance.WAYS[:2]
    by_chance, by_id = (balance.balance(way, 8, seed=1, requests=40_000) for way in ways)
    assert by_id.hits > by_chance.hits + 0.05


def test_a_longer_backlog_takes_fewer_workers_and_more_time():
    short, long = jobs.work(60, seed=1), jobs.work(600, seed=1)
    assert short.replica_hours > long.replica_hours
    assert short.minutes[0] < long.minutes[0]


@pytest.mark.parametrize("name", plans.computed())
def test_the_page_is_current(name):
    """`make bench-scale` writes it."""
    assert page.part(page.PAGE.read_text(), name) == plans.computed()[name]


def test_the_page_shows_every_picture():
    pictures = {path.name for path in page.PICTURES.iterdir()}
    text = page.PAGE.read_text()
    assert pictures
    assert {name for name in pictures if f"(scaling/{name})" in text} == pictures
    assert all((page.PICTURES / name).stat().st_size < 150_000 for name in pictures)


def autoscalers(name):
    """Bounds, rules and targets that the manifests give a deployment."""
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            kind = (document or {}).get("kind")
            if kind not in ("HorizontalPodAutoscaler", "ScaledObject"):
                continue
            spec = document["spec"]
            if spec["scaleTargetRef"]["name"] != name:
                continue
            if kind == "ScaledObject":
                behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
                yield spec["minReplicaCount"], spec["maxReplicaCount"], behaviour, spec["triggers"]
            else:
                yield spec["minReplicas"], spec["maxReplicas"], spec["behavior"], spec["metrics"]


def direction(told):
    policies = {policy["type"]: policy for policy in told["policies"]}
    (period,) = {policy["periodSeconds"] for policy in policies.values()}
    return Direction(
        percent=policies["Percent"]["value"],
        pods=policies["Pods"]["value"] if "Pods" in policies else 0,
        period=period,
        window=told["stabilizationWindowSeconds"],
    )


@pytest.mark.parametrize(
    ("name", "recommended", "expected"),
    [
        ("pixelmill-api", RULES, {"own": TARGET, "cpu": PROCESSOR_TARGET}),
        ("pixelmill-worker", WORKERS, {"own": BACKLOG, "cpu": 0.80}),
    ],
)
def test_manifests_say_what_the_page_does(name, recommended, expected):
    found = list(autoscalers(name))
    if not found:
        pytest.skip("there are no manifests yet")
    for least, most, behaviour, triggers in found:
        told = Rules(
            least=least,
            most=most,
            up=direction(behaviour["scaleUp"]),
            down=direction(behaviour["scaleDown"]),
        )
        assert told == recommended
        assert [target_of(trigger) for trigger in triggers] == [
            pytest.approx(expected[kind_of(trigger)]) for trigger in triggers
        ]


def test_replicas_follow_demand():
    """A sum of what is busy and of what was refused."""
    triggers = [
        trigger
        for *_, triggers in autoscalers("pixelmill-api")
        for trigger in triggers
        if trigger["type"] == "prometheus"
    ]
    if not triggers:
        pytest.skip("there are no manifests yet")
    for trigger in triggers:
        assert trigger["metricType"] == "AverageValue"
        assert "pixelmill_workers_busy_seconds_total" in trigger["metadata"]["query"]
        assert "pixelmill_sheds_total" in trigger["metadata"]["query"]


def test_the_page_and_the_manifest_have_one_query():
    (query,) = [
        trigger["metadata"]["query"]
        for *_, triggers in autoscalers("pixelmill-api")
        for trigger in triggers
        if trigger["type"] == "prometheus"
    ]
    of_namespace = query.replace('namespace="pixelmill",', "")
    told = next(text for text in page.PAGE.read_text().split("```") if "clamp_max" in text)
    assert "".join(of_namespace.split()) == "".join(told.split())


def kind_of(trigger):
    return "cpu" if trigger["type"] == "Resource" else "own"


def target_of(trigger):
    """The target of a HorizontalPodAutoscaler's metric, or of a trigger of KEDA."""
    if trigger["type"] == "Resource":
        return trigger["resource"]["target"]["averageUtilization"] / 100
    metadata = trigger["metadata"]
    return float(metadata.get("threshold") or metadata["targetValue"])


def test_replicas_have_the_processors_that_the_page_says():
    manifest = MANIFESTS / "base" / "api.yaml"
    if not manifest.exists():
        pytest.skip("there are no manifests yet")
    (container, *_) = next(
        document["spec"]["template"]["spec"]["containers"]
        for document in yaml.safe_load_all(manifest.read_text())
        if document["kind"] == "Deployment"
    )
    assert float(container["resources"]["requests"]["cpu"]) == PROCESSORS
