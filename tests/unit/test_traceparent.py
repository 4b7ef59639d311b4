"""Trace context is read as its grammar has it, and what is malformed is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.traceparent import TraceParent, parent_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def read(*values, state=()):
    headers = [(b"traceparent", value.encode("latin-1")) for value in values]
    return parent_of([*headers, *((b"tracestate", value.encode("latin-1")) for value in state)])


def test_the_parent_is_what_the_header_says():
    assert read(GOOD) == TraceParent(trace_id=TRACE, span_id=SPAN, sampled=True)
    assert read(f"00-{TRACE}-{SPAN}-00").sampled is False
    # Flags that this version does not know do not matter.
    assert read(f"00-{TRACE}-{SPAN}-fe").sampled is False
    assert read(f"00-{TRACE}-{SPAN}-ff").sampled is True
    assert read(f" {GOOD}\t") == read(GOOD)


def test_a_later_version_may_say_more():
    for value in (f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-brings"):
        assert read(value) == read(GOOD)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        GOOD[:-1],
        f"{GOOD}0",
        f"{GOOD}-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"0G-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00_{TRACE}_{SPAN}_01",
        f"{GOOD},{GOOD}",
        f"{GOOD}\n",
        f"00-{TRACE}-{SPAN}-\xb2\xb2",
    ],
)
def test_what_is_malformed_is_no_parent(value):
    assert read(value) is None


def test_two_parents_are_none():
    assert read() is None
    assert read(GOOD, GOOD) is None


def test_the_state_comes_in_several_lines_and_keeps_its_order():
    state = read(GOOD, state=["rojo=00f067aa0ba902b7 , congo=t61rcWkgMzE", "", "a@b=x!y"]).state
    assert state == (("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE"), ("a@b", "x!y"))
    many = ",".join(f"k{n}=v" for n in range(32))
    assert len(read(GOOD, state=[many]).state) == 32


@pytest.mark.parametrize(
    "state",
    [
        "Upper=1",
        "no value",
        "empty=",
        "a=1,a=2",
        "a=b=c",
        "a=\xe9",
        "@a=1",
        "a@=1",
        "a@0=1",
        f"{'k' * 257}=v",
        f"a={'v' * 257}",
        ",".join(f"k{n}=v" for n in range(33)),
    ],
)
def test_a_malformed_state_goes_and_the_parent_stays(state):
    assert read(GOOD, state=[state]) == read(GOOD)


@given(value=st.text(alphabet=st.characters(max_codepoint=255), max_size=80))
def test_nothing_that_clients_send_fails(value):
    found = read(value, state=[value])
    assert found is None or found.trace_id.strip("0")
