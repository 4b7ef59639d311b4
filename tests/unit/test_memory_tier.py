"""The memory tier: bounded in bytes, and forgetful on request."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.cache import MemoryTier, Rendered
from app.sources.base import Ref
from app.subjects import Coverage, Kind, Purge, Subject, purge_of
from transforms.formats import FORMATS


def rendered(key, size=10, name="cat.jpg"):
    return Rendered(
        key=key,
        ref=Ref("id", name),
        data=bytes(size),
        format=FORMATS["jpeg"],
        modified=None,
    )


def test_what_was_put_is_found_again():
    tier = MemoryTier(100)
    found = rendered("a")
    tier.put(found)
    assert tier.get("a") is found
    assert tier.get("b") is None
    assert (tier.size, len(tier)) == (10, 1)


def test_what_was_used_longest_ago_goes_first():
    tier = MemoryTier(40)
    for key in "abcd":
        tier.put(rendered(key))
    assert tier.get("a")
    tier.put(rendered("e"))
    assert [key for key in "abcde" if tier.get(key)] == ["a", "c", "d", "e"]
    assert tier.size == 40


def test_what_is_put_again_is_held_once():
    tier = MemoryTier(100)
    tier.put(rendered("a", 10))
    tier.put(rendered("a", 20))
    assert (tier.size, len(tier)) == (20, 1)


def test_one_result_does_not_drive_out_all_others():
    tier = MemoryTier(100)
    tier.put(rendered("a", 25))
    tier.put(rendered("b", 26))
    assert tier.get("a")
    assert tier.get("b") is None


def test_a_tier_of_no_size_keeps_nothing():
    tier = MemoryTier(0)
    tier.put(rendered("a", 1))
    assert (tier.size, len(tier), tier.get("a")) == (0, 0, None)


def test_a_purge_takes_every_result_of_one_original_and_no_other():
    tier = MemoryTier(1000)
    for key in "abc":
        tier.put(rendered(key, name="cat.jpg"))
    tier.put(rendered("d", name="dog.jpg"))
    assert tier.purge(of(Ref("id", "cat.jpg"))) == 3
    assert tier.purge(of(Ref("id", "cat.jpg"))) == 0
    assert tier.purge(of(Ref("url", "dog.jpg"))) == 0
    assert (tier.size, len(tier)) == (10, 1)
    assert tier.get("d")


def of(ref):
    return Coverage.of([purge_of(ref)])


def test_a_purge_of_a_prefix_takes_the_ids_below_it_and_no_urls():
    tier = MemoryTier(1000)
    for number, name in enumerate(["a/cat.jpg", "a/b/dog.jpg", "ab/cow.jpg", "b/a/fox.jpg"]):
        tier.put(rendered(str(number), name=name))
    covered = Coverage.of([Purge(Subject(Kind.PREFIX, "a/"), soft=False)])
    assert tier.purge(covered) == 2
    assert [bool(tier.get(key)) for key in "0123"] == [False, False, True, True]


def test_what_has_expired_is_there_for_whoever_asks_for_it_until_it_is_put_anew():
    tier = MemoryTier(1000)
    tier.put(rendered("a", name="cat.jpg"))
    tier.put(rendered("b", name="dog.jpg"))
    tier.label("b", "card")
    assert tier.expire(Coverage.of([purge_of(Ref("id", "cat.jpg"))])) == 1
    assert tier.get("a") is None
    assert tier.get_expired("a")
    assert tier.expire(Coverage.of([Purge(Subject(Kind.PRESET, "card"), soft=True)])) == 1
    assert tier.get("b") is None
    tier.put(rendered("a", name="cat.jpg"))
    assert tier.get("a")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(1, 40)),
        st.tuples(st.just("get"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("purge"), st.integers(0, 2), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(0, 120))
def test_its_books_are_right_whatever_happens(steps, limit):
    tier, held = MemoryTier(limit), {}
    for action, number, size in steps:
        key, name = str(number), str(number % 3)
        if action == "put":
            result = rendered(key, size, name)
            tier.put(result)
            if size * 4 <= limit:
                held[key] = result
                assert tier.get(key) is result
        elif action == "get":
            found = tier.get(key)
            assert found is None or found is held[key]
        else:
            purged = tier.purge(of(Ref("id", key)))
            assert purged <= sum(int(k) % 3 == number for k in held)
            held = {k: v for k, v in held.items() if int(k) % 3 != number}
        present = [key for key in map(str, range(10)) if key in tier._results]
        assert tier.size == sum(len(tier._results[key].data) for key in present)
        assert tier.size <= limit
        assert len(tier) == len(present)
        assert {ref.name for ref in tier._keys_of} == {str(int(key) % 3) for key in present}
