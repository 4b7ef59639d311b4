"""The table of options: every row can be read, and says what is wrong where it cannot."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from decimal import Decimal
from typing import Any

import pytest

from transforms.compounds import Parts
from transforms.errors import InvalidOption
from transforms.options import BY_NAME, BY_SPELLING, OPTIONS, Option
from transforms.transform import Transform
from transforms.values import COMPASS, TRANSPARENT, Colour, Extent, Gravity, Rect, Sides

every_option = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)


def refusal(query: str) -> InvalidOption:
    with pytest.raises(InvalidOption) as caught:
        Transform.from_query(query)
    return caught.value


@every_option
def test_every_example_is_read_and_prints_the_same_for_ever(option: Option) -> None:
    value = option.kind.read(option.example)
    shown = option.kind.show(value)
    assert option.kind.read(shown) == value
    assert option.kind.show(option.kind.read(shown)) == shown


@every_option
def test_every_example_is_accepted_by_the_parser_under_every_spelling(option: Option) -> None:
    read = {Transform.from_query({name: option.example}.items()) for name in option.spellings}
    assert len(read) == 1


@every_option
def test_every_row_explains_itself(option: Option) -> None:
    assert option.help.endswith(".")
    assert option.kind.expects
    assert option.step in STEPS
    assert {"type", "anyOf"} & option.kind.schema().keys()


@every_option
def test_every_row_is_an_attribute_of_a_transform(option: Option) -> None:
    assert getattr(Transform.from_query(""), option.field) == option.default
    assert option.field in {field.name for field in fields(Transform)}


@every_option
def test_every_default_is_left_out_of_the_canonical_text(option: Option) -> None:
    if option.default is None:
        return
    shown = option.kind.show(option.default)
    assert option.kind.read(shown) == option.default
    assert Transform.from_query({option.name: shown}.items()).canonical == ""


STEPS = {
    *("mosaic", "load", "trim", "crop", "resize", "orient", "tone", "effects", "canvas"),
    *("overlay", "frame", "tile", "encode"),
}
WORDS = {"merge", "watermark", "text"}
"""Rows of free text, for which nearly everything is right."""


def fits(schema: dict[str, Any], value: str) -> bool:
    """Whether a text, as in a body, is of one of the kinds that a schema names."""
    if len(value) < schema.get("minLength", 0):
        return False
    if "anyOf" in schema:
        return any(fits(alternative, value) for alternative in schema["anyOf"])
    if schema["type"] == "string":
        known = value in schema.get("enum", [value])
        return known and bool(re.search(schema.get("pattern", ""), value))
    if schema["type"] == "boolean":
        return value in ("0", "1")
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    return bool(re.fullmatch(r"-?[0-9.]+", value)) and low <= float(value) <= high


@every_option
def test_the_schema_of_every_row_fits_its_example_and_what_it_prints(option: Option) -> None:
    schema = option.kind.schema()
    assert fits(schema, option.example)
    assert fits(schema, option.kind.show(option.kind.read(option.example)))
    assert not fits(schema, "" if option.name in WORDS else "~")


@every_option
def test_every_error_names_the_parameter_as_it_was_written(option: Option) -> None:
    wrong = "" if option.name in WORDS else "~"
    for name in option.spellings:
        error = refusal(f"{name}={wrong}")
        assert error.param == option.name
        assert error.code == "invalid_parameter"
        if isinstance(option.kind, Parts):
            part = option.kind.parts[0]
            counted = option.kind.required > 1
            said = (
                f"{name} must be {option.kind.expects}, got '~'"
                if counted
                else f"{name} has a {part.field} that must be {part.kind.expects}, got '~'"
            )
            assert error.detail == said
        elif option.name not in WORDS:
            assert error.detail.startswith(f"{name} must be {option.kind.expects}, got '~'")
        else:
            assert error.detail.startswith(f"{name} ")


def test_no_spelling_means_two_options() -> None:
    assert len(BY_SPELLING) == sum(len(option.spellings) for option in OPTIONS)
    assert list(BY_NAME) == [option.name for option in OPTIONS]


@pytest.mark.parametrize(
    ("query", "param", "detail"),
    [
        ("w=0", "w", "w must be 1 to 8192, got 0"),
        ("width=0", "w", "width must be 1 to 8192, got 0"),
        ("h=8193", "h", "h must be 1 to 8192, got 8193"),
        ("w=", "w", "w must be 1 to 8192, got ''"),
        ("w=1.5", "w", "w must be 1 to 8192, got '1.5'"),
        ("w=-3", "w", "w must be 1 to 8192, got '-3'"),
        ("w=1e3", "w", "w must be 1 to 8192, got 1e3"),
        ("w=%D9%A3", "w", "w must be 1 to 8192, got '٣'"),
        ("w=12345678901234567890", "w", "w must be 1 to 8192, got 12345678901234567890"),
        ("min_w=0", "min-w", "min_w must be 1 to 8192, got 0"),
        ("dpr=9", "dpr", "dpr must be 0.1 to 8, got 9"),
        ("dpr=0.05", "dpr", "dpr must be 0.1 to 8, got '0.05'"),
        ("dpr=NaN", "dpr", "dpr must be 0.1 to 8, got NaN"),
        ("rotate=45", "rotate", "rotate must be a multiple of 90, got 45"),
        ("enlarge=maybe", "enlarge", "enlarge must be 0 or 1, got maybe"),
        (
            "q=101",
            "q",
            "q must be 1 to 100, or auto, or auto:TARGET with a target of 50 to 95, got 101",
        ),
        ("effort=10", "effort", "effort must be 0 to 9, got 10"),
        ("page=-1", "page", "page must be 0 to 9999, got '-1'"),
        ("extent=300", "extent", "extent must be WIDTHxHEIGHT, each 1 to 8192, got 300"),
        ("extent=0x5", "extent", "extent must be WIDTHxHEIGHT, each 1 to 8192, got 0x5"),
        ("flip=x", "flip", "flip must be one of h, v, hv, got x"),
        (
            "fit=cvoer",
            "fit",
            (
                "fit must be one of contain, cover, inside, outside, fill, got cvoer; "
                "did you mean cover?"
            ),
        ),
        (
            "fm=jepg",
            "fm",
            "fm must be one of jpeg, png, webp, avif, gif, tiff, got jepg; did you mean jpg?",
        ),
        (
            "padding=1,2,3,4,5",
            "padding",
            (
                "padding must be 1 to 4 numbers (top,right,bottom,left), each 0 to 4096, "
                "got '1,2,3,4,5'"
            ),
        ),
        (
            "crop=1,2,3",
            "crop",
            (
                "crop must be x,y,width,height in whole pixels, or with a decimal point in "
                "fractions 0..1, got '1,2,3'"
            ),
        ),
        (
            "bg=blakc",
            "background",
            (
                "bg must be auto, blur or a CSS colour name, hex digits (fff, ffff, ffffff, "
                "ffffffff), rgb(r,g,b) or none, got blakc; did you mean black?"
            ),
        ),
        (
            "g=nroth",
            "gravity",
            (
                "g must be center, north, south, east, west, northeast, northwest, southeast, "
                "southwest, x,y (or several, x,y,x,y) in 0..1, attention or entropy, got nroth; "
                "did you mean north?"
            ),
        ),
    ],
)
def test_an_error_says_what_is_expected_and_what_came(query: str, param: str, detail: str) -> None:
    error = refusal(query)
    assert error.detail == detail
    assert error.param == param
    assert str(error) == detail


@pytest.mark.parametrize(
    ("query", "suggestion"),
    [
        ("fit=conatin", "contain"),
        ("fit=Crpo", "crop"),
        ("fm=wepb", "webp"),
        ("gravity=attenton", "attention"),
        ("bg=cornflowerblu", "cornflowerblue"),
        ("meta=copyrite", "copyright"),
        ("fit=zzzzzz", None),
        ("w=zzzzzz", None),
    ],
)
def test_a_slip_is_answered_with_the_nearest_word(query: str, suggestion: str | None) -> None:
    error = refusal(query)
    assert error.suggestion == suggestion
    assert ("did you mean" in error.detail) == (suggestion is not None)


def test_a_long_value_is_not_echoed_whole() -> None:
    assert len(refusal("w=" + "9" * 5000).detail) < 120
    assert len(refusal("bg=" + "%00" * 5000).detail) < 500


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("w=1&w=1", "w is given twice"),
        ("w=1&width=2", "w is given twice, as w and as width"),
        ("format=png&f=png", "fm is given twice, as format and as f"),
        ("min_w=5&min-w=5", "min-w is given twice, as min_w and as min-w"),
    ],
)
def test_a_name_that_is_given_twice_is_refused(query: str, detail: str) -> None:
    assert refusal(query).detail == detail


def test_unknown_names_do_not_matter_in_a_query() -> None:
    read = Transform.from_query("utm_source=x&w=100&W=7&&=5&wdith=9&utm_source=y")
    assert read == Transform.from_query("w=100")


def test_unknown_names_in_a_query_can_be_refused() -> None:
    with pytest.raises(InvalidOption, match=r"^wdith is not a parameter; did you mean width[?]$"):
        Transform.from_query("wdith=9", unknown="refuse")
    assert Transform.from_query("width=9", unknown="refuse").w == 9


def test_unknown_names_in_a_body_are_refused_with_a_suggestion() -> None:
    with pytest.raises(InvalidOption) as caught:
        Transform.from_mapping({"w": 1, "widht": 2})
    assert caught.value.param == "widht"
    assert caught.value.suggestion == "width"
    assert caught.value.detail == "widht is not a parameter; did you mean width?"
    with pytest.raises(InvalidOption) as caught:
        Transform.from_mapping({"qqqqqqqqq": 2})
    assert caught.value.suggestion is None


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"w": 200, "h": "100"}, "w=200&h=100"),
        ({"width": 200, "height": None}, "w=200"),
        ({"enlarge": True, "lossless": False}, "enlarge=1"),
        ({"enlarge": "yes"}, "enlarge"),
        ({"dpr": 1.5, "w": 10}, "dpr=1.5&w=10"),
        ({"dpr": 2.0}, "dpr=2"),
        ({"dpr": 2}, "dpr=2"),
        ({"rotate": -90}, "rotate=270"),
        ({"crop": [10, 20, 30, 40]}, "crop=10,20,30,40"),
        ({"crop": [0.0, 0, 0.5, 1.0]}, "crop=0.0,0,0.5,1"),
        ({"crop": [0.0, 0.0, 1.0, 1.0]}, "crop=0.0,0,1,1"),
        ({"crop": "0.1,0.1,0.8,0.8"}, "crop=0.1,0.1,0.8,0.8"),
        ({"padding": 5}, "padding=5"),
        ({"padding": [1, 2, 3, 4]}, "padding=1,2,3,4"),
        ({"padding": [5]}, "padding=5"),
        ({"level": [5, 95]}, "level=5,95"),
        ({"extent": [30, 40]}, "extent=30x40"),
        ({"extent": "30X40"}, "extent=30x40"),
        ({"gravity": [0.25, 1]}, "gravity=0.25,1"),
        ({"gravity": [0.00001, 0.5]}, "gravity=0.00001,0.5"),
        ({"min_w": 7}, "min-w=7"),
        ({}, ""),
    ],
)
def test_a_body_means_what_the_same_query_means(body: dict[str, object], query: str) -> None:
    assert Transform.from_mapping(body) == Transform.from_query(query)


@pytest.mark.parametrize(
    "body",
    [
        {"w": {}},
        {"w": []},
        {"w": [1]},
        {"w": True},
        {"q": [80]},
        {"dpr": [2]},
        {"round": [5]},
        {"rotate": [90]},
        {"sharpen": True},
        {"padding": True},
        {"padding": []},
        {"padding": [True]},
        {"enlarge": [1]},
        {"w": True, "width": 1},
        {"w": 1.5},
        {"w": float("nan")},
        {"w": float("inf")},
        {"dpr": 1e300},
        {"dpr": 1e-300},
        {"crop": [[1], 2, 3, 4]},
        {"crop": [1, 2, 3]},
        {"crop": ["1", "2", "3", "4"]},
        {"gravity": {"x": 1, "y": 2}},
        {"w": 10**30},
        {"w": 10**5000},
        {"background": b"red"},
    ],
    ids="-".join,
)
def test_a_body_with_a_value_of_another_kind_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(InvalidOption) as caught:
        Transform.from_mapping(body)
    assert caught.value.param in BY_NAME


def test_a_whole_number_in_a_body_may_be_written_as_a_float() -> None:
    # JSON has one kind of number, and JSON Schema calls 200.0 an integer.
    assert Transform.from_mapping({"w": 200.0}) == Transform.from_query("w=200")


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("red", Colour(255, 0, 0)),
        ("RebeccaPurple", Colour(102, 51, 153)),
        ("f00", Colour(255, 0, 0)),
        ("#f00", Colour(255, 0, 0)),
        ("f008", Colour(255, 0, 0, 136)),
        ("FF000080", Colour(255, 0, 0, 128)),
        ("ff0000ff", Colour(255, 0, 0)),
        ("rgb(1,2,3)", Colour(1, 2, 3)),
        ("rgb(1, 2, 3)", Colour(1, 2, 3)),
        ("rgba(1,2,3,0.5)", Colour(1, 2, 3, 128)),
        ("none", TRANSPARENT),
        ("transparent", TRANSPARENT),
        ("12345600", TRANSPARENT),
        ("rgba(9,9,9,0)", TRANSPARENT),
    ],
)
def test_a_colour_may_be_written_as_in_css(text: str, colour: Colour) -> None:
    kind = BY_NAME["background"].kind
    assert kind.read(text) == colour
    assert kind.read(kind.show(colour)) == colour


@pytest.mark.parametrize(
    "text", ["", "#", "12345", "rgb(1,2)", "rgb(256,0,0)", "rgb(1,2,3,2)", "rgb(1,2,3,50%)", "redd"]
)
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        Transform.from_query([("bg", text)])


@pytest.mark.parametrize(
    ("text", "gravity"),
    [
        ("n", COMPASS["north"]),
        ("Top", COMPASS["north"]),
        ("0.5,0", COMPASS["north"]),
        ("1.0,1.000", COMPASS["southeast"]),
        (".25,.75", Gravity(Decimal("0.25"), Decimal("0.75"))),
        ("smart", Gravity(interest="attention")),
    ],
)
def test_a_gravity_has_one_value_for_all_its_names(text: str, gravity: Gravity) -> None:
    assert BY_NAME["gravity"].kind.read(text) == gravity


def test_a_crop_with_a_decimal_point_is_in_fractions() -> None:
    read = BY_NAME["crop"].kind.read
    assert read("0,0,1,1") == Rect(Decimal(0), Decimal(0), Decimal(1), Decimal(1), fractional=False)
    assert read("0,0,1.0,1") == Rect(
        Decimal(0), Decimal(0), Decimal(1), Decimal(1), fractional=True
    )
    assert BY_NAME["crop"].kind.show(read("0,0,1.0,1")) != BY_NAME["crop"].kind.show(
        read("0,0,1,1")
    )


@pytest.mark.parametrize(
    "text", ["0,0,0,1", "0,0,1,0", "0.0,0,1.1,1", "-1,0,5,5", "1,2,3,4,5", "a"]
)
def test_a_crop_of_nothing_or_beyond_the_picture_is_refused(text: str) -> None:
    assert refusal(f"crop={text}").param == "crop"


def test_widths_of_a_frame_are_read_in_the_order_of_css() -> None:
    read = BY_NAME["padding"].kind.read
    assert read("1") == Sides(1, 1, 1, 1)
    assert read("1,2") == Sides(1, 2, 1, 2)
    assert read("1,2,3") == Sides(1, 2, 3, 2)
    assert read("1,2,3,4") == Sides(1, 2, 3, 4)


def test_an_extent_is_two_sides() -> None:
    assert BY_NAME["extent"].kind.read("30x40") == Extent(30, 40)
    assert BY_NAME["extent"].kind.read("30,40") == Extent(30, 40)


@pytest.mark.parametrize(
    ("text", "value"), [("", True), ("1", True), ("TRUE", True), ("off", False), ("0", False)]
)
def test_a_flag_without_a_value_means_yes(text: str, value: bool) -> None:
    assert Transform.from_query([("enlarge", text)]).enlarge is value


def test_turns_fold_into_one_round() -> None:
    assert Transform.from_query("rotate=-90") == Transform.from_query("rotate=270")
    assert Transform.from_query("rotate=720") == Transform.from_query("")
