"""How watermarks and text are written: what is read prints, and what is wrong is named."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.kinds import BadValue
from transforms.layers import (
    BLENDS,
    MOST_WORDS,
    TEXTS,
    WATERMARKS,
    LayersKind,
    Length,
    Text,
    Watermark,
)
from transforms.values import COMPASS, Colour, Gravity

both_kinds = pytest.mark.parametrize("kind", [WATERMARKS, TEXTS], ids=["watermark", "text"])


def refusal(kind: LayersKind, text: str) -> BadValue:
    with pytest.raises(BadValue) as caught:
        kind.read(text)
    return caught.value


def test_a_watermark_is_read_part_by_part() -> None:
    text = "brand/logo.png,gravity=southeast,x=10,y=10,scale=0.2,opacity=0.6"
    ten = Length(Decimal(10))
    assert WATERMARKS.read(text) == (
        Watermark(
            "brand/logo.png",
            gravity=COMPASS["southeast"],
            x=ten,
            y=ten,
            scale=Decimal("0.2"),
            opacity=Decimal("0.6"),
        ),
    )


def test_a_text_is_read_part_by_part() -> None:
    assert TEXTS.read("Hello world,size=32,color=fff,gravity=south") == (
        Text("Hello world", size=32, colour=Colour(255, 255, 255), gravity=COMPASS["south"]),
    )


def test_a_first_part_alone_has_all_defaults() -> None:
    assert WATERMARKS.read("logo.png") == (Watermark("logo.png"),)
    assert TEXTS.read("Hello") == (Text("Hello"),)


def test_layers_keep_their_order() -> None:
    assert [layer.original for layer in WATERMARKS.read("a|b,tile|c|a")] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"Hello\, world", "Hello, world"),
        (r"a\|b", "a|b"),
        (r"C:\\temp", r"C:\temp"),
        (r"one\ntwo", "one\ntwo"),
        ("one\ntwo", "one\ntwo"),
        (r"a\b", "ab"),
        ("  a = b  ", "a = b"),
        ("<b>&amp;", "<b>&amp;"),
        ("שלום 你好 😀", "שלום 你好 😀"),
        ("\ufffe\U0010ffff\u0378", "\ufffe\U0010ffff\u0378"),
    ],
)
def test_words_are_what_was_written(text: str, words: str) -> None:
    assert TEXTS.read(text) == (Text(words),)
    assert TEXTS.read(TEXTS.show((Text(words),))) == (Text(words),)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a.png,opacity=1,x=0,tile=0,scale=0,gravity=se", "a.png"),
        ("a.png, Y=5 , x = 3,g=n", "a.png,gravity=north,x=3,y=5"),
        ("a.png,g=0.20:0.8", "a.png,gravity=0.2:0.8"),
        ("a.png,g=0.5:0.5", "a.png,gravity=center"),
        ("a.png,x=-0.25,y=+7", "a.png,x=-0.25,y=7"),
        ("a.png,x=0.0,y=-0", "a.png"),
        ("a.png,tile,gap=4", "a.png,tile=1,gap=4"),
        ("a.png,blend=normal", "a.png"),
        (r"a\,b|c\|d", r"a\,b|c\|d"),
    ],
)
def test_a_watermark_is_shown_in_one_way(text: str, shown: str) -> None:
    assert WATERMARKS.show(WATERMARKS.read(text)) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a,colour=black,bg=none,width=0.9,font=sans,weight=normal", "a"),
        ("a,italic,align=centre,background=white", "a,italic=1,align=center,bg=ffffff"),
        ("a,w=1.0", "a,width=1.0"),
        ("a,width=1", "a,width=1"),
        ("a,outline-width=3,outline=000", "a,outline=000000,outline-width=3"),
        ("a,opacity=.5,size=9", "a,size=9,opacity=0.5"),
        (r"a\,b\\c\nd", r"a\,b\\c\nd"),
    ],
)
def test_a_text_is_shown_in_one_way(text: str, shown: str) -> None:
    assert TEXTS.show(TEXTS.read(text)) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,scale=7", "scale must be 0.01 to 1, or 0 for its own size, got 7"),
        ("a,scale=0.001", "scale must be 0.01 to 1, or 0 for its own size, got '0.001'"),
        ("a,opacity=1.1", "opacity must be 0 to 1, got '1.1'"),
        ("a,x=9000", "x must be -8192 to 8192 pixels, or"),
        ("a,y=1.0", "y must be -8192 to 8192 pixels, or with a decimal point a fraction -0.999999"),
        ("a,gap=", "gap must be 0 to 1000, got ''"),
        ("a,x=1,x=1", "x is given twice"),
        ("a,gravity=north,g=south", "gravity is given twice"),
        ("a,gravity=attention", "gravity must be"),
        ("a,gravity=entropy", "gravity must be"),
        ("a,gravity=0.2:0.8:0.1:0.2", "gravity must be"),
        ("a,gravity=0.2:1.8", "gravity must be"),
        ("a,gravity=0.2,0.8", "gravity must be"),
        ("a,blend=hue", "blend must be one of over, multiply"),
        ("a,", "has no part ''"),
        ("", "id must be 1 to 1024 bytes"),
        ("a||b", "id must be 1 to 1024 bytes"),
        (",x=1", "id must be 1 to 1024 bytes"),
        ("a\x00b", "id must be 1 to 1024 bytes"),
        ("a\ud800", "id must be 1 to 1024 bytes"),
        ("é" * 513, "id must be 1 to 1024 bytes"),
        ("a|b|c|d|e", "must have 1 to 4 layers, got 5"),
        ("a\\", "must not end in a backslash"),
        ("a" * 9000, "must have at most 8192 characters, got 9000"),
    ],
)
def test_what_is_wrong_with_a_watermark_is_named(text: str, message: str) -> None:
    assert str(refusal(WATERMARKS, text)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "words must be 1 to 500 characters"),
        (r"\n", "words must be 1 to 500"),
        ("a" * (MOST_WORDS + 1), "words must be 1 to 500"),
        ("a\tb", "words must be 1 to 500"),
        ("a\x85b", "words must be 1 to 500"),
        ("a\udc00b", "words must be 1 to 500"),
        ("a,size=5", "size must be 6 to 500, got 5"),
        ("a,size=12.5", "size must be 6 to 500, got '12.5'"),
        ("a,color=blurple", "color must be a CSS colour name"),
        ("a,font=", "font must be a font family"),
        ("a,font=<b>", "font must be a font family"),
        ("a,width=0", "width must be 1 to 8192 pixels, or"),
        ("a,width=0.0", "width must be 1 to 8192 pixels, or"),
        ("a,outline-width=5", "outline-width must be 1 to 4, got 5"),
        ("a,weight=heavy", "weight must be one of normal, bold"),
        ("Hello, world", r"has no part 'world'; there are font, weight,"),
    ],
)
def test_what_is_wrong_with_a_text_is_named(text: str, message: str) -> None:
    assert str(refusal(TEXTS, text)).startswith(message)


def test_who_forgets_to_escape_a_comma_is_told_how() -> None:
    assert r"(a comma within words is written \,)" in str(refusal(TEXTS, "Hello, world"))


@pytest.mark.parametrize(
    ("kind", "text", "suggestion"),
    [
        (WATERMARKS, "a,opacty=1", "opacity"),
        (WATERMARKS, "a,blend=multipy", "multiply"),
        (WATERMARKS, "a,gravity=souteast", "southeast"),
        (WATERMARKS, "a,gravity=atention", None),
        (TEXTS, "a,colr=fff", "color"),
        (TEXTS, "a,color=withe", "white"),
        (TEXTS, "a,zzz=1", None),
    ],
)
def test_a_slip_of_the_pen_has_a_suggestion(
    kind: LayersKind, text: str, suggestion: str | None
) -> None:
    assert refusal(kind, text).suggestion == suggestion


@both_kinds
def test_every_part_explains_itself(kind: LayersKind) -> None:
    assert kind.example in kind.expects
    assert kind.read(kind.example)
    assert kind.schema()["type"] == "string"
    for part in (kind.first, *kind.parts):
        assert part.names[0] in kind.expects or part is kind.first
        assert part.kind.expects
        assert {"type", "anyOf"} & part.kind.schema().keys()


@both_kinds
def test_no_two_parts_share_a_name_or_a_field(kind: LayersKind) -> None:
    names = [name for part in kind.parts for name in part.names]
    assert len(names) == len(set(names))
    filled = [kind.first.field, *(part.field for part in kind.parts)]
    assert sorted(filled) == sorted(kind.make.__dataclass_fields__)


# Whatever can be asked for reads back as the same

_fractions = st.decimals("0.000001", "0.999999", places=6).map(lambda value: value.normalize())
_lengths = st.one_of(
    st.integers(-8192, 8192).map(lambda value: Length(Decimal(value))),
    st.builds(Length, _fractions, fractional=st.just(value=True)),
)
_opacities = st.decimals(0, 1, places=3)
_gravities = st.one_of(
    st.sampled_from(list(COMPASS.values())), st.builds(Gravity, _fractions, _fractions)
)
_signs = st.characters(exclude_categories=["Cc", "Cs"])
_watermarks = st.builds(
    Watermark,
    st.text(_signs, min_size=1, max_size=40),
    gravity=_gravities,
    x=_lengths,
    y=_lengths,
    scale=st.one_of(st.just(Decimal(0)), st.decimals("0.01", 1, places=4)),
    opacity=_opacities,
    blend=st.sampled_from(BLENDS),
    tile=st.booleans(),
    gap=st.integers(0, 1000),
)
_colours = st.builds(Colour, *(st.integers(0, 255),) * 3, st.integers(1, 255))
_texts = st.builds(
    Text,
    st.text(st.one_of(_signs, st.just("\n")), min_size=1).map(str.strip).filter(bool),
    font=st.from_regex("[A-Za-z0-9][A-Za-z0-9-]{0,20}", fullmatch=True),
    weight=st.sampled_from(["normal", "bold"]),
    italic=st.booleans(),
    size=st.integers(6, 500),
    colour=_colours,
    align=st.sampled_from(["left", "center", "right"]),
    background=_colours,
    padding=st.integers(0, 500),
    outline=_colours,
    outline_width=st.integers(1, 4),
    gravity=_gravities,
    x=_lengths,
    opacity=_opacities,
)


@given(st.lists(_watermarks, min_size=1, max_size=4).map(tuple))
def test_watermarks_read_back_as_they_were(layers: tuple[Watermark, ...]) -> None:
    shown = WATERMARKS.show(layers)
    assert WATERMARKS.read(shown) == layers
    assert WATERMARKS.show(WATERMARKS.read(shown)) == shown


@given(st.lists(_texts, min_size=1, max_size=4).map(tuple))
def test_texts_read_back_as_they_were(layers: tuple[Text, ...]) -> None:
    shown = TEXTS.show(layers)
    assert TEXTS.read(shown) == layers
    assert TEXTS.show(TEXTS.read(shown)) == shown


@both_kinds
@given(text=st.text(st.one_of(st.sampled_from(r"\,|=0.5:x"), st.characters()), max_size=60))
def test_any_text_is_read_or_refused(kind: LayersKind, text: str) -> None:
    try:
        layers = kind.read(text)
    except BadValue:
        return
    assert kind.read(kind.show(layers)) == layers


def test_the_width_of_an_outline_is_spelt_either_way():
    assert TEXTS.read("a,outline_width=3") == TEXTS.read("a,outline-width=3")
