"""Conditional and range requests: whatever a header says, it is understood or passed over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.dates import parse_http_date, show_http_date
from routers.conditional import Unsatisfiable, is_unmodified, matches, parse_range

MOMENT = datetime(2020, 9, 13, 12, 26, 40, 654321, UTC)
HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)
TAGS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"'))
RANGES = st.one_of(
    HEADER_TEXT,
    st.from_regex(r"bytes=[0-9]{0,4}-[0-9]{0,4}", fullmatch=True),
    st.from_regex(r"bytes=[0-9 ,=-]{0,12}", fullmatch=True),
)


def headers(**values):
    return Headers({name.replace("_", "-"): value for name, value in values.items()})


def asked(text, size, etag='"e"', **others):
    """The range as (start, stop), None for the whole, or "outside"."""
    try:
        found = parse_range(headers(range=text, **others), size, etag)
    except Unsatisfiable:
        return "outside"
    return found and (found.start, found.stop)


@given(RANGES, st.integers(0, 5000))
@example("bytes=" + "9" * 5000 + "-", 100)
@example("bytes=-" + "9" * 5000, 100)
@example("bytes=0-" + "9" * 5000, 100)
@example("bytes=\u0663-\u0664".encode().decode("latin-1"), 100)
def test_a_range_lies_within_the_whole_whatever_was_asked_for(text, size):
    found = asked(text, size)
    if found not in (None, "outside"):
        start, stop = found
        assert 0 <= start < stop <= size


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 150))
def test_first_and_last_byte_are_both_included(first, last, size):
    expected = None if last < first else (first, min(last + 1, size))
    if expected is not None and first >= size:
        expected = "outside"
    assert asked(f"bytes={first}-{last}", size) == expected


@given(st.integers(0, 200), st.integers(0, 150))
def test_a_range_may_be_open_at_either_end(number, size):
    assert asked(f"bytes={number}-", size) == ("outside" if number >= size else (number, size))
    tail = (max(0, size - number), size)
    assert asked(f"bytes=-{number}", size) == ("outside" if not number or not size else tail)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ('"e"', (0, 4)),
        (' "e" ', (0, 4)),
        ('W/"e"', None),
        ('"f"', None),
        ("e", None),
        ("", None),
        ("*", None),
        ('"e", "f"', None),
        (show_http_date(MOMENT), None),
    ],
)
def test_if_range_is_a_strong_comparison(condition, found):
    assert asked("bytes=0-3", 100, if_range=condition) == found


def test_without_a_range_there_is_none():
    assert parse_range(Headers({}), 100, '"e"') is None


@given(st.lists(TAGS), TAGS)
def test_a_list_of_tags_names_exactly_its_members(tags, tag):
    for prefix in ("", "W/"):
        for separator in (",", ", ", " , "):
            text = separator.join(f'{prefix}"{each}"' for each in tags)
            assert matches(text, f'"{tag}"') == (tag in tags)


@given(HEADER_TEXT)
def test_any_text_may_stand_where_tags_should(text):
    assert matches(text, '"0123456789abcdef"') == (text.strip() == "*")


@given(HEADER_TEXT, HEADER_TEXT | st.none())
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None)
@example("Mon, 01 Jan 2020 00:00:00 -99999999999", None)
@example("Fri, 31 Dec 9999 23:59:59 -2300", None)
@example("Mon, 01 Jan 0001 00:00:00 +2300", None)
@example("Sun, 13 Sep 2020 12:26:40", None)
@example("0 0 0 0 0 0", None)
@example("1 Jan", None)
@example(",", None)
@example("9" * 5000, None)
@example("", "")
def test_no_header_fails_a_request(since, known):
    found = {"if-modified-since": since} | ({} if known is None else {"if-none-match": known})
    for modified in (MOMENT, None, datetime.max.replace(tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)):
        assert is_unmodified(Headers(found), '"e"', modified) in (True, False)


@pytest.mark.parametrize(
    ("sent", "unmodified"),
    [
        ({"if_none_match": '"e"'}, True),
        ({"if_none_match": '"f"'}, False),
        ({"if_none_match": "*"}, True),
        ({"if_none_match": ""}, False),
        ({"if_modified_since": show_http_date(MOMENT)}, True),
        ({"if_modified_since": show_http_date(MOMENT - timedelta(seconds=1))}, False),
        ({"if_modified_since": show_http_date(MOMENT + timedelta(days=1))}, True),
        ({"if_none_match": '"f"', "if_modified_since": show_http_date(MOMENT)}, False),
        ({"if_none_match": '"e"', "if_modified_since": "x"}, True),
        ({}, False),
    ],
)
def test_tags_go_before_dates(sent, unmodified):
    assert is_unmodified(headers(**sent), '"e"', MOMENT) is unmodified


def test_what_has_no_date_is_always_modified():
    assert not is_unmodified(headers(if_modified_since=show_http_date(MOMENT)), '"e"', None)


@given(
    st.datetimes(
        timezones=st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
    ).filter(lambda moment: 1000 < moment.year < 9999)
)
def test_a_date_is_read_back_as_it_was_written(moment):
    text = show_http_date(moment)
    assert text.endswith(" GMT")
    assert parse_http_date(text) == moment.replace(microsecond=0)
    assert parse_http_date(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 13 Sep 2020 12:26:40 GMT",
        "Sunday, 13-Sep-20 12:26:40 GMT",
        "Sun Sep 13 12:26:40 2020",
        "Sun, 13 Sep 2020 12:26:40 -0000",
        "Sun, 13 Sep 2020 14:26:40 +0200",
    ],
)
def test_a_date_may_be_written_in_every_way_of_old(text):
    assert parse_http_date(text) == MOMENT.replace(microsecond=0)
