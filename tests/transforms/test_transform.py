"""Transform: requests that ask for the same are equal, and print and read back as themselves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from transforms import geometry
from transforms.compounds import (
    INTERESTS,
    ColourKind,
    Either,
    ExtentKind,
    GravityKind,
    IdsKind,
    Parts,
    QualityKind,
    RectKind,
    SidesKind,
    TileKind,
    WordsKind,
)
from transforms.errors import InvalidOption
from transforms.kinds import Angle, Bytes, Choice, Flag, Integer, Kind, Number
from transforms.layers import LayersKind, Watermark
from transforms.options import BY_NAME, MAX_SIDE, OPTIONS, Option
from transforms.shapes import Size
from transforms.transform import Defaults, Transform
from transforms.values import COMPASS, WHITE, Colour, Sides

read = Transform.from_query


def decimals(low: str, high: str) -> st.SearchStrategy[str]:
    places = st.integers(0, 6)
    between = st.decimals(Decimal(low), Decimal(high), allow_nan=False, places=6)
    return st.builds(lambda value, count: f"{round(value, count):f}", between, places)


def whole(low: int, high: int) -> st.SearchStrategy[str]:
    # Small numbers more often: most requests are not at the edge of what is possible.
    return st.one_of(st.integers(low, min(high, low + 999)), st.integers(low, high)).map(str)


def texts(kind: Kind) -> st.SearchStrategy[str]:  # noqa: C901, PLR0912 - a case for each kind
    """Texts that a kind accepts."""
    match kind:
        case Integer(low, high):
            return whole(low, high)
        case Number(low, high, _):
            return decimals(str(low), str(high)).filter(lambda text: low <= Decimal(text) <= high)
        case Choice(words, aliases):
            return st.sampled_from([*words, *aliases, words[0].upper()])
        case Flag():
            return st.sampled_from(["", "1", "0", "true", "no", "ON"])
        case Angle():
            return st.integers(-20, 20).map(lambda quarters: str(quarters * 90))
        case ColourKind():
            digits = st.text("0123456789abcdefABCDEF", min_size=8, max_size=8)
            channel = st.integers(0, 255)
            return st.one_of(
                st.sampled_from(["none", "white", "Navy", "#abc", "abcd", "rgba(1 2 3 .25)"]),
                st.builds(
                    lambda text, length: text[:length], digits, st.sampled_from([3, 4, 6, 8])
                ),
                st.builds(lambda r, g, b: f"rgb({r},{g},{b})", channel, channel, channel),
            )
        case GravityKind():
            share = decimals("0", "1")
            return st.one_of(
                st.sampled_from([*COMPASS, *INTERESTS, "n", "top", "centre", "SMART"]),
                st.builds(lambda x, y: f"{x},{y}", share, share),
            )
        case RectKind():
            at, side, share = whole(0, 9999), whole(1, 9999), decimals("0.000001", "1")
            return st.one_of(
                st.tuples(at, at, side, side).map(",".join),
                st.tuples(share, share, share, share).map(",".join).filter(_is_rect),
                st.just("0.0,0,1,1"),
            )
        case ExtentKind(side):
            return st.builds(lambda w, h: f"{w}x{h}", texts(side), texts(side))
        case SidesKind(side):
            return st.lists(texts(side), min_size=1, max_size=4).map(",".join)
        case Bytes(low, high):
            return st.one_of(whole(low, high), st.sampled_from(["50k", "1.5M", "20kb"]))
        case Either(words, other, aliases):
            return st.one_of(st.sampled_from([*words, *aliases]), texts(other))
        case Parts(_, parts, required):
            every = st.tuples(*(texts(part.kind) for part in parts))
            return st.builds(
                lambda given, count: ",".join(given[:count]),
                every,
                st.integers(max(required, 1), len(parts)),
            )
        case TileKind(most):
            side = st.integers(1, most)
            return st.builds(lambda a, b: f"{a}x{b},{a - 1},{b // 2}", side, side)
        case QualityKind(targets):
            target = st.integers(targets.low, targets.high)
            return st.one_of(whole(1, 100), st.just("auto"), target.map(lambda t: f"AUTO:{t}"))
        case WordsKind(alternatives, additions):
            return st.sampled_from([*alternatives, *additions, f"{additions[0]},{alternatives[1]}"])
        case IdsKind(most):
            names = st.one_of(
                st.sampled_from(["a.jpg", "b/c d.png", r"e\|f", r"g\\h", "ü"]),
                hostile("a&=+%#;\0\n"),
            )
            return st.lists(names, min_size=1, max_size=most).map("|".join)
        case LayersKind(make) if make is Watermark:
            return st.one_of(
                st.sampled_from(
                    [
                        "a.png",
                        "b.png,gravity=0.2:0.8,x=-3|c.png,tile,gap=4",
                        "d,scale=.25,blend=screen",
                    ]
                ),
                hostile("a&=+%#; "),
            )
        case LayersKind():
            return st.one_of(
                st.sampled_from([r"a\, b,size=9", "x,bg=fff,y=0.5|y,align=right", r"one\ntwo"]),
                hostile("a&=+%#; ü").map("x{}x,size=9".format),
            )
    raise AssertionError(f"no strategy for {kind}")


def hostile(signs: str) -> st.SearchStrategy[str]:
    """Texts of signs that mean something in a query string, and of whole parameters."""
    parts = st.sampled_from([*signs, "&tint=ff0000", "&w=1", "%26", "+", "&text=a"])
    return st.lists(parts, min_size=1, max_size=6).map("".join)


def _is_rect(text: str) -> bool:
    _, _, width, height = (Decimal(part) for part in text.split(","))
    return bool(width and height)


requests = st.fixed_dictionaries({}, optional={o.name: texts(o.kind) for o in OPTIONS})
"""What a request may hold: names of the table, each with a text of its kind."""


def read_or_skip(pairs: Any, **options: Any) -> Transform:
    try:
        return read(pairs, **options)
    except InvalidOption as error:
        # The one thing that may be wrong with values that are right each for itself.
        assume("times dpr must be at most" not in error.detail)

        raise


@settings(max_examples=500, deadline=None)
@given(requests)
def test_what_is_printed_reads_back_as_the_same_value(request: dict[str, str]) -> None:
    transform = read_or_skip(request.items())
    again = read(transform.canonical)
    assert again == transform
    assert hash(again) == hash(transform)
    assert again.canonical == transform.canonical


@settings(deadline=None)
@given(requests, requests)
def test_what_differs_prints_differently(one: dict[str, str], other: dict[str, str]) -> None:
    first, second = read_or_skip(one.items()), read_or_skip(other.items())
    assert (first == second) == (first.canonical == second.canonical)


@pytest.mark.parametrize("text", ["hi&tint=ff0000", "1+1 = 2 & more", "50%", "50%25", "a#b;c=d"])
def test_no_text_or_id_passes_for_a_parameter(text: str) -> None:
    for name in ("text", "watermark", "merge"):
        transform = read([(name, text)])
        assert transform.tint is None
        assert read(transform.canonical) == transform
    assert read("text=hi%26tint%3Dff0000").canonical != read("text=hi&tint=red").canonical


def test_a_name_that_utf_8_has_not_is_refused() -> None:
    with pytest.raises(InvalidOption, match="merge"):
        Transform.from_mapping({"merge": "a|\ud800"})


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_value_prints_in_one_way(option: Option, data: st.DataObject) -> None:
    value = option.kind.read(data.draw(texts(option.kind)))
    shown = option.kind.show(value)
    assert option.kind.read(shown) == value
    assert option.kind.show(option.kind.read(shown)) == shown


@settings(deadline=None)
@given(requests, st.data())
def test_neither_order_nor_spelling_matters(request: dict[str, str], data: st.DataObject) -> None:
    transform = read_or_skip(request.items())
    respelt = [
        (data.draw(st.sampled_from(BY_NAME[name].spellings)), text)
        for name, text in data.draw(st.permutations(list(request.items())))
    ]
    assert read(respelt) == transform
    assert Transform.from_mapping(dict(respelt)) == transform


@settings(deadline=None)
@given(requests)
def test_the_canonical_text_is_sorted_and_says_nothing_that_is_default(
    request: dict[str, str],
) -> None:
    items = read_or_skip(request.items()).items()
    names = [name for name, _ in items]
    assert names == sorted(set(names))
    for name, text in items:
        assert BY_NAME[name].kind.read(text) != BY_NAME[name].default


@settings(deadline=None)
@given(requests, st.sampled_from([Colour(1, 2, 3), WHITE, Colour(0, 0, 0), Colour(0, 0, 0, 0)]))
def test_it_reads_back_so_too_where_a_service_has_defaults(
    request: dict[str, str], background: Colour
) -> None:
    defaults = Defaults(fit="cover", background=background)
    transform = read_or_skip(request.items(), defaults=defaults)
    assert read(transform.canonical, defaults=defaults) == transform
    if transform.background != WHITE:  # which a service without a background need not say
        assert read(transform.canonical) == transform


@pytest.mark.parametrize("query", ["w=9&h=9&bg=white", "padding=1&bg=fff", "extent=9x9&bg=white"])
def test_white_reads_back_as_white_whatever_the_service_has_chosen(query: str) -> None:
    for colour in (Colour(0, 0, 0), Colour(0, 0, 255)):
        defaults = Defaults(background=colour)
        transform = read(query, defaults=defaults)
        assert transform.background == WHITE
        assert read(transform.canonical, defaults=defaults) == transform


@settings(deadline=None)
@given(requests)
def test_dpr_is_gone_where_a_side_is_given(request: dict[str, str]) -> None:
    request = {**request, "w": "300"}
    ratio = request.pop("dpr", "2")
    transform = read_or_skip({**request, "dpr": ratio}.items())
    assert transform.dpr == 1
    assert "dpr" not in dict(transform.items())
    bare = read_or_skip(
        {n: text for n, text in request.items() if n not in ("watermark", "text")}.items()
        | {"dpr": ratio}.items()
    )
    assert (transform.w, transform.h) == (bare.w, bare.h)
    assert transform.w == int(300 * Decimal(ratio) + Decimal("0.5"))


def test_a_frame_that_dpr_makes_wide_is_refused_or_prints_and_reads_back() -> None:
    try:
        transform = read("padding=3000&w=10&dpr=2")
    except InvalidOption as error:
        assert error.param == "padding"  # noqa: PT017 - either way is right
        return
    assert read(transform.canonical) == transform


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("w=200&h=200", "fit=contain&h=200&w=200"),
        ("h=200&width=200&fit=pad", "fit=contain&h=200&w=200"),
        ("w=200", "fit=inside&w=200"),
        ("w=100&dpr=2", "fit=inside&w=200"),
        ("w=5&dpr=0.5", "fit=inside&w=3"),
        ("w=1&dpr=0.1", "fit=inside&w=1"),
        ("dpr=2", "dpr=2"),
        ("dpr=2.0", "dpr=2"),
        ("dpr=1.0", ""),
        (
            "w=10&h=10&dpr=1.5&padding=1,2&extent=9x9",
            "extent=14x14&fit=contain&h=15&padding=2,3,2,3&w=15",
        ),
        ("fm=jpg&q=80", "fm=jpeg&q=80"),
        ("fm=png&auto=avif", "fm=png"),
        ("fm=png&auto=smaller,avif", "auto=none,smaller&fm=png"),
        ("auto=avif", "auto=avif"),
        ("rotate=-90&flip=both", "flip=hv&rotate=270"),
        ("bg=FFF&w=10&h=10", "fit=contain&h=10&w=10"),
        ("bg=FFF&w=10", "background=ffffff&fit=inside&w=10"),
        ("bg=FFE&w=10&h=10", "background=ffffee&fit=contain&h=10&w=10"),
        ("enlarge=0&progressive=false&lossless=no", ""),
        ("g=0.5,0.50&w=9&h=9&fit=crop", "fit=cover&h=9&w=9"),
        ("g=ne&w=9&h=9&fit=crop", "fit=cover&gravity=northeast&h=9&w=9"),
        ("crop=0.0,0,1,1", "crop=0.0,0,1,1"),
        ("crop=00,0,010,1", "crop=0,0,10,1"),
    ],
)  # fmt: skip - a line is a case
def test_the_canonical_text(query: str, canonical: str) -> None:
    assert read(query).canonical == canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("w=100&fit=cover", "w=100&fit=inside"),
        ("w=100&fit=contain", "w=100"),
        ("h=100&fit=cover", "h=100&fit=contain"),
        ("fit=cover", ""),
        ("gravity=north", ""),
        ("w=100&gravity=north", "w=100"),
        ("w=100&h=100&fit=fill&gravity=attention", "w=100&h=100&fit=fill"),
        ("w=100&h=100&fit=contain", "w=100&h=100"),
        ("w=100&h=100&fit=max", "w=100&h=100&fit=inside"),
        ("fm=webp&auto=none", "fm=webp"),
        ("orient=0", "orient=none"),
        ("bg=f008", "background=ff000088"),
        ("w=100&h=100&bg=white", "w=100&h=100"),
        ("extent=9x9&bg=fff", "extent=9x9"),
        ("bg=transparent", "bg=12345600"),
    ],
)
def test_requests_for_the_same_are_equal(one: str, other: str) -> None:
    assert read(one) == read(other)
    assert read(one).canonical == read(other).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("w=100&fit=fill", "w=100"),
        ("w=100&h=100&fit=cover", "w=100&h=100"),
        ("w=100&h=100&gravity=north", "w=100&h=100"),
        ("w=100&min-h=5&gravity=north", "w=100&min-h=5"),
        ("extent=5x5&gravity=north", "extent=5x5"),
        ("crop=0,0,1,1", "crop=0.0,0,1,1"),
        ("dpr=2", ""),
        ("orient=none", ""),
        ("bg=white", ""),
        ("w=100&h=100&bg=none", "w=100&h=100"),
    ],
)
def test_requests_for_different_things_differ(one: str, other: str) -> None:
    assert read(one) != read(other)
    assert read(one).canonical != read(other).canonical


def test_dpr_multiplies_all_that_is_given_in_pixels_of_the_result() -> None:
    folded = read(
        "w=10&h=20&min-w=3&min-h=4&max-w=50&max-h=60&extent=30x40&padding=1,2,3,4&dpr=1.5"
    )
    assert folded == read(
        "w=15&h=30&min-w=5&min-h=6&max-w=75&max-h=90&extent=45x60&padding=2,3,5,6"
    )


def test_dpr_multiplies_within_layers_and_reads_back() -> None:
    folded = read("w=320&dpr=1.5&text=x")
    assert folded == read("w=480&layer-dpr=1.5&text=x") == read(folded.canonical)
    assert folded.canonical == "fit=inside&layer-dpr=1.5&text=x&w=480"
    assert read("w=10&dpr=2&layer-dpr=3&watermark=m") == read("w=20&layer-dpr=6&watermark=m")
    assert read("w=10&layer-dpr=3") == read("w=10")


@given(st.integers(1, 900), st.integers(1, 900), st.integers(10, 400))
def test_a_text_does_not_change_the_size_of_a_result(w: int, h: int, ratio: int) -> None:
    query = f"w={w}&h={h}&padding=3&dpr={Decimal(ratio) / 100}"
    stored = Size(1000, 700)
    assert (
        geometry.plan(stored, read(f"{query}&text=x")).result
        == geometry.plan(stored, read(query)).result
    )


def test_dpr_does_not_touch_the_crop_which_is_in_pixels_of_the_original() -> None:
    assert read("w=10&crop=1,2,3,4&dpr=2") == read("w=20&crop=1,2,3,4")


def test_without_w_and_h_dpr_scales_the_original() -> None:
    plan = geometry.plan(Size(100, 60), read("dpr=0.5&padding=10"))
    assert plan.scaled == Size(50, 30)
    assert plan.padding == Sides(5, 5, 5, 5)
    assert plan.result == Size(60, 40)


@pytest.mark.parametrize("name", ["w", "h", "min-w", "max-h"])
def test_a_size_that_dpr_makes_too_large_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        read(f"w=1&{name}=5000&dpr=2" if name != "w" else "w=5000&dpr=2")
    assert caught.value.param == name
    assert caught.value.detail == f"{name} times dpr must be at most {MAX_SIDE}, got 10000"


def test_frames_and_canvases_are_on_the_colour_that_the_service_has_chosen() -> None:
    blue = Colour(0, 0, 255)
    defaults = Defaults(background=blue)
    assert read("w=9&h=9", defaults=defaults).background == blue
    assert read("padding=1", defaults=defaults).background == blue
    assert read("w=9", defaults=defaults).background is None
    assert read("w=9&h=9&bg=red", defaults=defaults).background == Colour(255, 0, 0)
    assert read("w=9&h=9&bg=none", defaults=defaults).background == Colour(0, 0, 0, 0)


def test_the_fit_that_the_service_has_chosen_holds_where_both_sides_are_given() -> None:
    defaults = Defaults(fit="cover")
    assert read("w=9&h=9", defaults=defaults).fit == "cover"
    assert read("w=9&h=9&fit=fill", defaults=defaults).fit == "fill"
    assert read("w=9", defaults=defaults).fit == "inside"
    assert read("", defaults=defaults).fit is None


def test_an_output_that_was_negotiated_equals_one_that_was_asked_for() -> None:
    assert read("w=9&auto=avif").with_output("webp") == read("w=9&fm=webp")
    assert read("w=9").with_output("webp").canonical == "fit=inside&fm=webp&w=9"
    assert read("").with_output("auto").fm == "auto"
    assert read("").with_output("same").fm == "same"


def test_only_jpeg_takes_the_colour_that_the_service_lets_shine_through() -> None:
    defaults = Defaults(background=Colour(9, 9, 9))
    assert read("w=9").with_output("jpeg", defaults=defaults).background == Colour(9, 9, 9)
    assert read("w=9").with_output("png", defaults=defaults).background is None
    assert read("w=9").with_output("same", defaults=defaults).background is None
    asked = read("w=9&bg=red").with_output("jpeg", defaults=defaults)
    assert asked.background == Colour(255, 0, 0)


def test_a_transform_that_asks_for_nothing_has_no_text() -> None:
    assert read("").canonical == ""
    assert read("").items() == []
    assert Transform.from_mapping({}) == read("")


def test_a_transform_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read("w=1").w = 2  # type: ignore[misc]


def test_white_that_is_asked_for_stays_white_whatever_the_service_has_chosen() -> None:
    defaults = Defaults(background=Colour(0, 0, 255))
    for query in ("w=9&h=9&bg=white", "w=9&bg=white", "padding=2&bg=fff"):
        transform = read(query, defaults=defaults)
        for fm in ("jpeg", "png", "auto"):
            settled = transform.with_output(fm, defaults=defaults)
            assert settled.background == transform.background == WHITE
