"""Lines out of bytes: the same ones whatever pieces the bytes come in."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.jobs.documents import read_document
from app.jobs.lines import LineReader
from app.jobs.manifests import csv_lines, read_record

PIECES = st.lists(
    st.sampled_from([b"a", b"bc" * 9, b"\n", b"\r\n", b"\r", b'"', b","]), max_size=60
)
CELLS = st.text(st.sampled_from('ab",\r\n é'), max_size=6)
ROWS = st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=8)


def cut(data, sizes):
    """The bytes in pieces of these sizes, again and again."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def read(reader, pieces):
    lines = [line for piece in pieces for line in reader.feed(piece)]
    return [*lines, *reader.end()]


SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@given(PIECES.map(b"".join), SIZES)
def test_any_pieces_give_the_same_lines(data, sizes):
    whole = read(LineReader(longest=12), [data])
    assert read(LineReader(longest=12), cut(data, sizes)) == whole
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert len(whole) == len(expected)
    for line, text in zip(whole, expected, strict=True):
        assert line.data == (text.removesuffix(b"\r") if len(text) <= 12 else None)
    assert [line.number for line in whole] == list(range(1, len(expected) + 1))
    assert not whole or whole[-1].stop == len(data)


@given(PIECES.map(b"".join), SIZES, st.data())
def test_reading_goes_on_at_the_end_of_any_line(data, sizes, draw):
    for make in (LineReader, csv_lines):
        whole = read(make(), [data])
        if not whole:
            continue
        at = draw.draw(st.integers(0, len(whole) - 1))
        line = whole[at]
        rest = make(number=line.last, offset=line.stop)
        assert read(rest, cut(data[line.stop :], sizes)) == whole[at + 1 :]


@given(ROWS, st.sampled_from(["\n", "\r\n"]), SIZES)
def test_csv_is_read_as_it_was_written(rows, end, sizes):
    if end == "\n":  # then the writer does not quote a carriage return
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    written = io.StringIO()
    csv.writer(written, lineterminator=end).writerows(rows)
    lines = read(csv_lines(), cut(written.getvalue().encode(), sizes))
    assert [read_record(line) for line in lines] == rows


@given(st.lists(st.sampled_from(["a", '"', '""', ",", "\n"]), max_size=30).map("".join))
def test_csv_that_is_badly_quoted_has_the_records_of_the_csv_module(text):
    lines = read(csv_lines(), [text.encode()])
    records = [[] if line.data == b"" else read_record(line) for line in lines]
    assert records == list(csv.reader(io.StringIO(text)))


def test_a_long_line_is_dropped_while_it_comes_and_the_next_one_is_whole():
    reader = LineReader(longest=100)
    for _ in range(10_000):
        assert list(reader.feed(b"x" * 1000)) == []
        assert len(reader._buffer) <= 1000
    (long, short) = read(reader, [b"\nshort\n"])
    assert (long.number, long.data) == (1, None)
    assert (short.number, short.data) == (2, b"short")
    assert short.stop == 10_000_007


def test_an_open_quote_holds_no_more_than_one_record_may_have():
    lines = read(csv_lines(), [b'a,"b\n' + b"x\n" * 100_000 + b'","c"\n', b"d,e\n"])
    assert lines[0].data is None
    assert read_record(lines[-1]) == ["d", "e"]


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"\xff",
        b'{"a": 1, "a": 2}',
        b"[NaN]",
        b"[1e999]",
        b'["\\ud800"]',
        b'["\\u0000"]',
        b'{"\\udfff": 1}',
        b"[" * 100_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_could_be_taken_for_two_things_is_no_document(text):
    with pytest.raises(InvalidRequest):
        read_document(text)


def test_escapes_that_mean_something_are_read():
    assert read_document(b'["\\ud83d\\ude00", "\\\\u0000"]') == ["😀", "\\u0000"]
