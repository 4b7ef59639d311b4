"""Three replicas behind a balancer, as processes: what happens to requests when one goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bench.deployment import Cluster, find_haproxy
from bench.failover import (
    Paths,
    ask_at_once,
    ask_for_variants,
    drain_under_load,
    kill_under_load,
    lose,
    renders_of,
)
from tests.http import originals as draw

pytestmark = pytest.mark.timeout(180)  # four processes start, on two processors or on one

IDS = [f"in/{number}.jpg" for number in range(12)]
RATE = 20.0
SLOW = draw.jpeg(draw.flat(draw.RED, 1600, 1200))


@pytest.fixture(scope="module", params=["own", "haproxy"])
def cluster(request, tmp_path_factory) -> Iterator[Cluster]:
    if request.param == "haproxy" and find_haproxy() is None:
        pytest.skip("HAProxy is not installed, or deploy/ has no file for it")
    folder = tmp_path_factory.mktemp("cluster")
    for key in IDS:
        draw.put(folder / "originals", key, SLOW)
    with ExitStack() as stack:
        yield Cluster(
            folder,
            stack,
            balancer=request.param,
            settings={
                "originals": f"file:{folder / 'originals'}",
                "results": f"file:{folder / 'results'}",
                "database": "off",
                "workers": 1,
                "queue_interactive": 20,
                "drain_delay": 2 if request.param == "haproxy" else 1,
            },
        )


@pytest.fixture(scope="module")
def paths() -> Paths:
    """Of which each test takes others."""
    return Paths(IDS)


def test_no_request_is_lost_when_a_replica_is_told_to_stop(cluster, paths):
    loss = drain_under_load(cluster, paths, tries=1, rate=RATE)
    assert loss.answers >= RATE
    assert loss.failures == []


def test_no_request_is_lost_when_a_replica_dies(cluster, paths):
    loss = kill_under_load(cluster, paths, tries=1, rate=RATE)
    assert loss.answers >= RATE
    assert loss.failures == []


def test_bodies_go_through_whole_in_both_directions(cluster):
    cluster.put("new.jpg", SLOW)
    assert cluster.ask("/images/new.jpg") == (200, SLOW)
    assert cluster.ask("/images/new.jpg", method="HEAD") == (200, b"")
    assert cluster.ask("/images/new.jpg", method="DELETE") == (204, b"")
    assert cluster.ask("/images/new.jpg")[0] == 404


def test_equal_requests_that_miss_are_rendered_once(cluster):
    path = f"/thumb/{IDS[0]}?w=700&h=500&fm=webp"
    statuses: list[int] = []
    renders = renders_of(cluster, lambda: statuses.extend(ask_at_once([cluster.port], path, 30)))
    assert statuses == [200] * 30
    assert 1 <= sum(renders) <= 2


def test_all_that_is_made_of_an_original_is_made_at_one_replica_unless_it_is_hot(cluster):
    quiet = ask_for_variants(cluster, IDS[1], 24, clients=1)
    assert sorted(quiet) == [0, 0, 24]
    hot = ask_for_variants(cluster, IDS[2], 48, clients=12)
    assert sum(hot) == 48
    assert sum(count > 0 for count in hot) >= 2


def test_a_replica_that_is_lost_moves_its_own_originals_alone(cluster, paths):
    moves = lose(cluster, IDS, paths, key=IDS[0])
    assert (moves.others, moves.own) == (0, moves.of_lost)
