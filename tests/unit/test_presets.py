"""Presets and ladders: what a file says, what a URL may add, and which sizes there can be."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.presets import Presets, load_presets
from app.sizes import RATIOS, guard_size
from transforms.errors import InvalidOption
from transforms.options import BY_NAME, MAX_SIDE
from transforms.transform import Transform

SHOP = """
[card]
w = 400
h = 300
fit = "crop"
q = 80

[card-large]
extends = "card"
width = 800

[avatar]
w = 96
h = 96.0
gravity = "attention"
vary = ["dpr", "format"]

[soft]
q = 50
locked = ["quality"]

[both]
extends = ["card", "avatar"]
padding = [10, 20]
enlarge = true
background = "#fff"
dpr = 1.25
"""


CHOICE = "one of avatar, both, card, card-large, soft"


@pytest.fixture
def load(tmp_path):
    def write(text):
        path = tmp_path / "presets.toml"
        path.write_text(text)
        return load_presets(path)

    return write


@pytest.fixture
def shop(load):
    return load(SHOP)


def resolved(presets, query):
    pairs = [tuple(pair.split("=", 1)) for pair in query.split("&")]
    return presets.resolve(pairs)


def read(query):
    return Transform.from_query(query)


def test_a_preset_gives_its_parameters_and_the_url_what_it_adds(shop):
    assert shop.names == ("avatar", "both", "card", "card-large", "soft")
    found = Transform.from_query(resolved(shop, "preset=card&dpr=2"))
    assert found == read("w=800&h=600&fit=cover&q=80")


@pytest.mark.parametrize("query", ["width=500", "w=500"])
def test_the_url_wins_over_the_preset_under_any_spelling(shop, query):
    found = Transform.from_query(resolved(shop, f"{query}&preset=card"))
    assert (found.w, found.h) == (500, 300)


def test_what_the_url_says_twice_is_still_twice(shop):
    with pytest.raises(InvalidOption, match="given twice") as caught:
        Transform.from_query(resolved(shop, "preset=card&w=1&width=2"))
    assert caught.value.param == "w"


def test_what_is_no_parameter_of_a_transform_passes_in_its_order(shop):
    others = [("url", "https://a.example/?preset=card"), ("sig", "k.x"), ("v", "1"), ("odd", "")]
    assert shop.resolve([*others[:2], ("preset", "soft"), *others[2:]]) == [("q", "50"), *others]
    assert shop.resolve(others) == others
    assert Presets().resolve(others) == others


def test_a_child_overrides_its_parent_and_later_parents_earlier_ones(shop):
    assert shop.by_name["card-large"].parameters == {
        **shop.by_name["card"].parameters,
        "w": "800",
    }
    assert shop.by_name["both"].parameters == {
        "w": "96",
        "h": "96",
        "fit": "cover",
        "q": "80",
        "gravity": "attention",
        "padding": "10,20,10,20",
        "enlarge": "1",
        "background": "ffffff",
        "dpr": "1.25",
    }


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        ("preset=avatar&w=9", "w", "w is fixed by the preset avatar"),
        ("preset=avatar&width=96", "w", "w is fixed by the preset avatar"),
        ("preset=avatar&dpr=2&blur=3", "blur", "blur cannot be given with the preset avatar"),
        ("preset=soft&quality=9", "q", "q is fixed by the preset soft"),
        ("preset=both&q=9", "q", "q is fixed by the preset both"),  # as avatar has it
    ],
)
def test_what_a_preset_locks_the_url_cannot_give(shop, query, param, message):
    with pytest.raises(InvalidOption) as caught:
        resolved(shop, query)
    assert (caught.value.param, caught.value.detail) == (param, message)


@pytest.mark.parametrize("query", ["preset=avatar&dpr=2&f=webp", "preset=soft&w=9&fit=cover"])
def test_what_a_preset_does_not_lock_the_url_can_give(shop, query):
    assert set(query.split("&")[1:]) <= {"=".join(pair) for pair in resolved(shop, query)}


def test_an_empty_vary_locks_everything_and_an_empty_locked_nothing(load):
    presets = load("[shut]\nw = 9\nvary = []\n[open]\nextends = 'shut'\nlocked = []")
    assert resolved(presets, "preset=open&q=3&v=1") == [("w", "9"), ("q", "3"), ("v", "1")]
    for name in BY_NAME:
        with pytest.raises(InvalidOption):
            resolved(presets, f"preset=shut&{name}=1")


@pytest.mark.parametrize(
    ("query", "message", "suggestion"),
    [
        (
            "preset=cadr",
            f"preset must be {CHOICE}, got 'cadr'; did you mean card?",
            "card",
        ),
        ("preset=", f"preset must be {CHOICE}, got ''", None),
        ("preset=card,soft", "preset takes one name, got 'card,soft': one can extend others", None),
        ("preset=card&preset=card", "preset is given twice: one can extend others", None),
    ],
)
def test_a_preset_that_is_none_is_refused_by_name(shop, query, message, suggestion):
    pairs = [tuple(pair.split("=", 1)) for pair in query.split("&")]
    for method in (shop.resolve, shop.own_sizes):
        with pytest.raises(InvalidOption) as caught:
            method(pairs)
        found = caught.value
        assert (found.param, found.detail, found.suggestion) == ("preset", message, suggestion)


def test_where_a_preset_is_needed_some_are_named(shop, load):
    with pytest.raises(InvalidOption, match="needed here: one of avatar, both, card, c") as caught:
        shop.resolve([("w", "9")], required=True)
    assert caught.value.param == "preset"
    assert shop.resolve([("preset", "soft")], required=True) == [("q", "50")]
    many = load("".join(f"[p{number}]\n" for number in range(30)))
    with pytest.raises(InvalidOption, match="p15 and 22 more"):
        many.resolve([], required=True)


def test_without_presets_none_can_be_named():
    with pytest.raises(InvalidOption, match="absent, as this service has none"):
        Presets().resolve([("preset", "card")])
    assert Presets().names == ()
    assert Presets().as_json() == {}


def test_a_revision_follows_what_a_preset_resolves_to(load):
    first = load("[a]\nw = 9\nfit = 'cover'\n[b]\nextends = 'a'\nq = 7")
    same = load("[z]\nq = 7\n[b]\nfit = 'crop'\nwidth = 9.0\nextends = 'z'\nvary = []\n[a]")
    assert first.revision("b") == same.revision("b")
    changed = load("[a]\nw = 10\nfit = 'cover'\n[b]\nextends = 'a'\nq = 7")
    assert changed.revision("b") != first.revision("b") != first.revision("a")
    assert len(first.revision("b")) == 16
    with pytest.raises(KeyError):
        first.revision("c")


def test_presets_as_data(shop):
    data = shop.as_json()
    assert list(data) == list(shop.names)
    assert data["avatar"] == {
        "revision": shop.revision("avatar"),
        "parameters": {"w": "96", "h": "96", "gravity": "attention"},
        "vary": ["dpr", "fm"],
    }
    assert data["card"]["vary"] == list(BY_NAME)
    assert set(data["soft"]["vary"]) == BY_NAME.keys() - {"q"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nw = 0", "a: w must be 1 to 8192, got 0"),
        ("[a]\nwidht = 3", "a: widht is not a parameter; did you mean width?"),
        ("[a]\nfit = 'covr'", "a: fit must be one of .*, got covr; did you mean cover?"),
        ("[a]\nq = 2026-01-01", "a: q must be 1 to 100"),
        ("[a]\nw = 1\nwidth = 2", "a: w is given twice, as w and as width"),
        ("[a.b]\nw = 1", "a: b is not a parameter"),
        ("[a]\nparams = { w = 1 }", "a: parameters stand in the preset itself, not in params"),
        ("w = 1", r"w stands outside a preset: begin one with \[NAME\]"),
        ("['a,b']", "a preset's name is 1 to 64 of a-z, A-Z, 0-9, _ and -, got 'a,b'"),
        ("[a]\nw = 5000\n[b]\nextends = 'a'\ndpr = 2", "b: with what it inherits, w times dpr .*"),
        ("[card]\n[b]\nextends = 'crad'", "b: extends crad, which is no preset; .* mean card?"),
        ("[a]\nextends = 3", "a: extends must be a list of names"),
        ("[a]\nextends = 'a'", "a: extends itself: a -> a"),
        (
            "[a]\nextends = 'b'\n[b]\nextends = ['c']\n[c]\nextends = 'a'",
            "a: extends itself: a -> b -> c -> a",
        ),
        ("[a]\nvary = 'dpr'", "a: vary must be a list of names"),
        ("[a]\nlocked = [1]", "a: locked must be a list of names"),
        ("[a]\nvary = ['qualty']", "a: vary names qualty, which is not a parameter; .* quality?"),
        ("[a]\nvary = []\nlocked = []", "a: vary and locked say the same twice: keep one"),
        ("[a]\nw = x", ".*line 2.*"),
        ("[a]\n[a]", ".*line 2.*"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_with_file_preset_and_parameter(
    load, tmp_path, text, message
):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'presets.toml'}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml: No such file or directory"):
        load_presets(tmp_path / "none.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"odd\.toml: .*decode"):
        load_presets(tmp_path / "odd.toml")


def guard(query, *, widths=(), heights=(), snap=True, **options):
    return guard_size(read(query), widths=widths, heights=heights, snap=snap, **options)


WIDTHS = (320, 640, 1280)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("w=320", "w=320"),
        ("w=321", "w=640"),
        ("w=999", "w=1280"),
        ("w=8000", "w=1280"),
        ("w=160&dpr=2", "w=320"),
        ("w=160&dpr=2.01", "w=640"),
        ("w=300&h=200&fit=cover", "w=320&h=213&fit=cover"),
        ("w=2560&h=1000&padding=10", "w=1280&h=500&padding=5"),
        ("h=77", "h=77"),  # heights are free
        ("max-w=300", "max-w=320"),
        ("w=160&min-w=100", "w=320&min-w=320"),
        ("w=320&extent=500x250", "w=320&extent=640x320"),
        ("dpr=0.3", ""),
        ("dpr=1.2", "dpr=1.5"),
        ("dpr=8", "dpr=4"),
        ("q=7", "q=7"),
    ],
)
def test_a_width_takes_the_next_step_and_the_rest_grows_with_it(query, expected):
    assert guard(query, widths=WIDTHS) == read(expected)


def test_heights_have_a_ladder_of_their_own():
    assert guard("h=77", heights=(100, 200)) == read("h=100")
    assert guard("w=50&h=80", heights=(100,)) == read("w=63&h=100")
    # With both, proportions are kept as far as the ladders let them.
    assert guard("w=300&h=225", widths=(400,), heights=(300, 600)) == read("w=400&h=300")
    assert guard("w=300&h=226", widths=(400,), heights=(300, 600)) == read("w=400&h=600")


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        (
            "w=500",
            "w",
            "w times dpr must be an allowed size, got 500; the nearest: 320 or 640",
        ),
        ("w=320&dpr=3", "w", "got 960; the nearest: 640 or 1280"),
        ("w=10", "w", "got 10; the nearest: 320"),
        ("w=8000", "w", "got 8000; the nearest: 1280"),
        ("w=320&h=241", "h", "got 241; the nearest: 240 or 480"),
        ("min-h=1", "min-h", "min-h times dpr"),
        ("extent=320x1", "extent", "got 1;"),
        ("merge=a&cell=321x240", "cell", "got 321;"),
        ("dpr=1.2", "dpr", "dpr without w and h must be an allowed size, got 1.2; .* 1 or 1.5"),
    ],
)
def test_where_nothing_snaps_what_is_not_allowed_is_refused_by_name(query, param, message):
    with pytest.raises(InvalidOption, match=message) as caught:
        guard(query, widths=WIDTHS, heights=(240, 480), snap=False)
    assert caught.value.param == param


@pytest.mark.parametrize("query", ["", "w=320&h=480", "w=160&dpr=2", "padding=7&q=3", "dpr=2"])
def test_what_is_allowed_stays_as_it_is_in_both_ways(query):
    for snap in (True, False):
        assert guard(query, widths=WIDTHS, heights=(240, 480), snap=snap) == read(query)


def test_without_ladders_every_size_is_allowed():
    assert guard("w=333&h=77&dpr=1.1", snap=False) == read("w=333&h=77&dpr=1.1")


@pytest.mark.parametrize("query", ["w=1&h=8192", "w=300&max-h=8192", "extent=1x8192"])
def test_what_would_grow_beyond_every_bound_is_refused(query):
    with pytest.raises(InvalidOption, match="would be too large") as caught:
        guard(query, widths=WIDTHS)
    assert caught.value.param == query.rpartition("&")[2].partition("=")[0]


@pytest.mark.parametrize("name", ["avatar", "both", "card", "card-large", "soft"])
@pytest.mark.parametrize("ratio", [None, *RATIOS])
def test_a_presets_own_size_is_allowed_at_every_usual_ratio(load, name, ratio):
    presets = load(SHOP.replace("vary", "#"))
    pairs = [("preset", name)] + ([("dpr", str(ratio))] if ratio else [])
    transform = Transform.from_query(presets.resolve(pairs))
    own = presets.own_sizes(pairs)
    for snap in (True, False):
        assert guard_size(transform, widths=(1,), heights=(1,), snap=snap, own=own) == transform


def test_a_size_that_a_url_makes_up_is_held_beside_a_preset_too(shop):
    pairs = [("preset", "card"), ("dpr", "1.37")]
    transform = Transform.from_query(shop.resolve(pairs))
    held = guard_size(transform, widths=(2000,), heights=(), snap=True, own=shop.own_sizes(pairs))
    assert (held.w, held.h) == (600, 450)
    assert shop.own_sizes([("w", "7")]).widths == frozenset()


sides = st.integers(1, MAX_SIDE)
ladders = st.frozensets(sides, max_size=6)
boxes = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("w", "h", "min-w", "min-h", "max-w", "max-h"), sides),
        "extent": st.builds("{}x{}".format, sides, sides),
        "fit": st.sampled_from(["cover", "contain", "fill"]),
        "padding": st.integers(0, 400),
        "dpr": st.sampled_from(["0.5", "1", "1.1", "2"]),
    },
)


def read_or_skip(box):
    try:
        return Transform.from_mapping(box)
    except InvalidOption as error:
        assume("times dpr" not in error.detail)
        raise


def snap_or_skip(transform, widths, heights):
    try:
        return guard_size(transform, widths=widths, heights=heights, snap=True)
    except InvalidOption as error:
        assume("too large" not in error.detail)
        raise


@given(boxes, ladders, ladders)
def test_what_has_snapped_is_allowed_and_snaps_no_further(box, widths, heights):
    snapped = snap_or_skip(read_or_skip(box), widths, heights)
    for snap in (True, False):
        assert guard_size(snapped, widths=widths, heights=heights, snap=snap) == snapped
    assert Transform.from_query(snapped.canonical) == snapped  # it is still a normal one


@given(boxes, ladders, ladders)
def test_no_side_becomes_smaller_unless_it_was_beyond_its_ladder(box, widths, heights):
    transform = read_or_skip(box)
    assume(transform.w is None or not widths or transform.w <= max(widths))
    led_by_width = widths and transform.w is not None
    assume(transform.h is None or not heights or led_by_width or transform.h <= max(heights))
    snapped = snap_or_skip(transform, widths, heights)
    for name in ("w", "h", "min_w", "min_h", "max_w", "max_h"):
        before, after = getattr(transform, name), getattr(snapped, name)
        ladder = widths if name.endswith("w") else heights
        assert (before is None) == (after is None)
        if before is not None:
            assert after >= before or after == max(ladder)


@given(sides, sides, ladders.filter(bool), st.booleans())
def test_with_one_ladder_the_proportions_are_kept_within_a_pixel(w, h, ladder, by_width):
    transform = read(f"w={w}&h={h}")
    widths, heights = (ladder, ()) if by_width else ((), ladder)
    snapped = snap_or_skip(transform, widths, heights)
    growth = Decimal(snapped.w) / w if by_width else Decimal(snapped.h) / h
    assert abs(snapped.w - max(1, w * growth)) <= Decimal("0.5000001")
    assert abs(snapped.h - max(1, h * growth)) <= Decimal("0.5000001")


def test_a_text_does_not_get_past_the_allowed_sizes():
    allowed = {"widths": (200, 320, 400), "heights": ()}
    transform = Transform.from_query("w=320&dpr=1.5&text=x")
    with pytest.raises(InvalidOption) as caught:
        guard_size(transform, snap=False, **allowed)
    assert caught.value.param == "w"
    snapped = guard_size(transform, snap=True, **allowed)
    assert snapped.w == 400
    assert Transform.from_query(snapped.canonical) == snapped
