"""When a schedule runs: grids of ticks, and what becomes of them where clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.jobs.bodies import validate
from app.jobs.recurrence import Recurrence, RecurrenceBody

MADE = datetime(2026, 1, 5, 12, 0, 0, 400_000, UTC).timestamp()
MOMENTS = st.floats(min_value=1.5e9, max_value=2.2e9)
CHANGES = [
    # Forward and back, by one hour, by one at midnight, by half of one; and a day that never was.
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/Santiago", "2026-09-06"),
    ("America/Santiago", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Pacific/Apia", "2011-12-30"),
]


def read(**fields) -> Recurrence:
    return Recurrence.read(validate(RecurrenceBody, fields), since=MADE)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def first(recurrence: Recurrence, after: str, count: int, zone: str = "UTC") -> list[str]:
    """The next ticks as a clock on the wall shows them."""
    ticks = islice(recurrence.ticks_after(at(after)), count)
    return [datetime.fromtimestamp(tick, ZoneInfo(zone)).isoformat() for tick in ticks]


def test_cron_is_in_its_zone():
    nightly = read(cron="0 3 * * *", timezone="Europe/Berlin")
    assert first(nightly, "2026-01-31T12:00:00Z", 2) == [
        "2026-02-01T02:00:00+00:00",
        "2026-02-02T02:00:00+00:00",
    ]
    assert first(read(cron="0 3 * * *"), "2026-01-31T12:00:00Z", 1) == ["2026-02-01T03:00:00+00:00"]


def test_cron_knows_names_steps_and_last_days():
    assert first(read(cron="*/20 8-9 * * MON-FRI"), "2026-01-30T09:30:00Z", 3) == [
        "2026-01-30T09:40:00+00:00",
        "2026-02-02T08:00:00+00:00",
        "2026-02-02T08:20:00+00:00",
    ]
    assert first(read(cron="0 0 L FEB *"), "2026-01-01T00:00:00Z", 3) == [
        "2026-02-28T00:00:00+00:00",
        "2027-02-28T00:00:00+00:00",
        "2028-02-29T00:00:00+00:00",
    ]


def test_periods_are_counted_from_the_start_and_do_not_drift():
    recurrence = read(run_every="15m", start_at="2026-02-01T00:05:00Z")
    assert first(recurrence, "2026-01-01T00:00:00Z", 2) == [
        "2026-02-01T00:05:00+00:00",
        "2026-02-01T00:20:00+00:00",
    ]
    # Ten years on, a moment after a tick.
    assert recurrence.next_after(at("2036-02-01T00:05:01Z")) == at("2036-02-01T00:20:00Z")


def test_periods_without_a_start_are_counted_from_when_the_schedule_was_made():
    recurrence = read(run_every=90)
    assert recurrence.next_after(MADE) == at("2026-01-05T12:01:30Z")


def test_a_start_alone_is_the_only_time():
    recurrence = read(start_at="2026-02-01T01:00:00+01:00")
    assert list(recurrence.ticks_after(MADE)) == [at("2026-02-01T00:00:00Z")]
    assert recurrence.next_after(at("2026-02-01T00:00:00Z")) is None


def test_start_and_end_are_ticks_where_they_are_on_the_grid():
    recurrence = read(
        cron="0 * * * *", start_at="2026-02-01T10:00:00Z", end_at="2026-02-01T12:00:00Z"
    )
    assert [text[11:16] for text in first(recurrence, "2026-01-01T00:00:00Z", 9)] == [
        "10:00",
        "11:00",
        "12:00",
    ]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        # The clock goes from 02:00 to 03:00.
        ("30 2 * * *", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("0,30 2 * * *", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]),
        ("0 * * * *", ["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"]),
        ("*/30 2 * * *", ["2026-03-30T02:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
    ],
)
def test_a_time_of_the_day_that_is_skipped_comes_after_the_gap_and_an_interval_does_not(
    cron, expected
):
    recurrence = read(cron=cron, timezone="Europe/Berlin")
    assert first(recurrence, "2026-03-29T00:30:00+01:00", 2, "Europe/Berlin") == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        # The clock goes from 03:00 to 02:00.
        ("30 2 * * *", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        ("30 * * * *", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]),
    ],
)
def test_a_time_of_the_day_that_comes_twice_counts_once_and_an_interval_twice(cron, expected):
    recurrence = read(cron=cron, timezone="Europe/Berlin")
    assert first(recurrence, "2026-10-25T01:45:00+02:00", 2, "Europe/Berlin") == expected


@given(
    minute=st.sampled_from(["*", "*/15", "0", "30", "15,45", "5-7"]),
    hour=st.sampled_from(["*", "*/2", "0", "1", "2,3", "23", "0,1"]),
    weekday=st.sampled_from(["*", "*", "FRI", "SAT", "SUN"]),
    change=st.sampled_from(CHANGES),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_cron_ticks_at_every_minute_that_it_names_and_at_no_other(minute, hour, weekday, change):
    zone, day = ZoneInfo(change[0]), datetime.fromisoformat(change[1])
    recurrence = read(cron=f"{minute} {hour} * * {weekday}", timezone=change[0])
    begin = int((day - timedelta(hours=36)).replace(tzinfo=UTC).timestamp())
    end = begin + 3 * 86_400
    names = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]

    def named(wall: datetime) -> bool:
        return (
            wall.minute in _values(minute, 60)
            and wall.hour in _values(hour, 24)
            and weekday in ("*", names[wall.weekday()])
        )

    expected = []
    latest = None  # on the wall
    for second in range(begin - 3 * 3600, end, 60):
        wall = datetime.fromtimestamp(second, zone).replace(tzinfo=None, fold=0)
        if minute[0] == "*" or hour[0] == "*":
            hit = named(wall)
        else:
            # Whatever the clock has passed for the first time, be it by a leap.
            count = 1 if latest is None else max(0, int((wall - latest).total_seconds() // 60))
            hit = any(named(wall - timedelta(minutes=back)) for back in range(count))
        latest = wall if latest is None else max(latest, wall)
        if hit and second > begin:
            expected.append(second)
    assert list(takewhile(lambda tick: tick < end, recurrence.ticks_after(begin))) == expected


def _values(text: str, most: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        bounds = (0, most - 1) if low == "*" else (int(low), int(high or low))
        found |= set(range(bounds[0], bounds[1] + 1, int(step or 1)))
    return found


@given(
    period=st.integers(10, 40 * 86_400),
    anchor=st.integers(1_400_000_000, 2_300_000_000),
    length=st.integers(0, 10_000_000),
    moment=MOMENTS,
)
def test_periods_ascend_on_their_grid_within_their_bounds(period, anchor, length, moment):
    start, end = (datetime.fromtimestamp(t, UTC).isoformat() for t in (anchor, anchor + length))
    recurrence = read(run_every=period, start_at=start, end_at=end)
    ticks = list(islice(recurrence.ticks_after(moment), 20))
    assert all(before < after for before, after in pairwise([moment, *ticks]))
    assert all((tick - anchor) % period == 0 for tick in ticks)
    assert all(anchor <= tick <= anchor + length for tick in ticks)
    # None is left out.
    assert all(after - before == period for before, after in pairwise(ticks))
    if ticks:
        assert ticks[0] == anchor or ticks[0] - period <= moment


@given(
    cron=st.sampled_from(["* * * * *", "7 3 * * *", "*/9 * 1 * *", "0 0 29 2 *", "0 */5 * * SUN"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"]),
    anchor=st.integers(1_400_000_000, 2_300_000_000),
    length=st.integers(0, 10_000_000),
    moment=MOMENTS,
)
@settings(deadline=None)
def test_cron_ascends_on_whole_minutes_within_its_bounds(cron, zone, anchor, length, moment):
    start, end = (datetime.fromtimestamp(t, UTC).isoformat() for t in (anchor, anchor + length))
    recurrence = read(cron=cron, timezone=zone, start_at=start, end_at=end)
    ticks = list(islice(recurrence.ticks_after(moment), 20))
    assert all(before < after for before, after in pairwise([moment, *ticks]))
    assert all(tick % 60 == 0 for tick in ticks)
    assert all(anchor <= tick <= anchor + length for tick in ticks)


@given(text=st.text(alphabet="0123456789*/,-LW#MONSUJAN ?@", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_cron_expression_or_an_error_that_says_so(text):
    refused = None
    try:
        read(cron=text).next_after(MADE)
    except InvalidRequest as error:
        refused = error.param
    assert refused in (None, "cron")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "cron"),
        ({"cron": ""}, "cron"),
        ({"cron": "0 3 * *"}, "cron"),
        ({"cron": "0 0 3 * * *"}, "cron"),
        ({"cron": "60 3 * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "@daily"}, "cron"),
        ({"cron": 5}, "cron"),
        ({"cron": "0 3 * * *", "timezone": "Berlin"}, "timezone"),
        ({"cron": "0 3 * * *", "timezone": "../Europe/Berlin"}, "timezone"),
        ({"cron": "0 3 * * *", "timezone": ""}, "timezone"),
        ({"cron": "0 3 * * *", "run_every": 60}, "run_every"),
        ({"run_every": 60, "timezone": "UTC"}, "timezone"),
        ({"run_every": 9}, "run_every"),
        ({"run_every": -60}, "run_every"),
        ({"run_every": 10**400}, "run_every"),
        ({"run_every": "4000d"}, "run_every"),
        ({"run_every": "15"}, "run_every"),
        ({"run_every": "1.0001m"}, "run_every"),
        ({"run_every": "15 minutes"}, "run_every"),
        ({"run_every": 60.5}, "run_every"),
        ({"run_every": True}, "run_every"),
        ({"run_every": 60, "run_times": 0}, "run_times"),
        ({"run_every": 60, "start_at": "tomorrow"}, "start_at"),
        ({"run_every": 60, "start_at": "2026-02-01T00:00:00"}, "start_at"),
        ({"run_every": 60, "start_at": "2026-02-30T00:00:00Z"}, "start_at"),
        ({"run_every": 60, "start_at": "9999-12-31T23:59:59Z"}, "start_at"),
        ({"run_every": 60, "start_at": "0001-01-01T00:00:00+23:59"}, "start_at"),
        ({"run_every": 60, "end_at": 1.5}, "end_at"),
        (
            {
                "run_every": 60,
                "start_at": "2026-02-01T00:00:00Z",
                "end_at": "2026-01-01T00:00:00Z",
            },
            "end_at",
        ),
        ({"start_at": "2026-02-01T00:00:00Z", "run_times": 2}, "run_times"),
        ({"start_at": "2026-02-01T00:00:00Z", "end_at": "2026-02-02T00:00:00Z"}, "end_at"),
        ({"end_at": "2026-02-02T00:00:00Z"}, "cron"),
        ({"every": 60}, "every"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param
    assert param in caught.value.detail
    assert len(caught.value.detail) < 300
