"""What a client posts becomes jobs, or an error that names what is wrong."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest, TargetRefused
from app.jobs.ids import is_id, new_id
from app.jobs.records import Output
from app.jobs.spec import SpecReader, settled
from app.jobs.targets import Fields, fill
from app.presets import Preset, Presets
from app.settings import Settings
from app.sources.base import Ref
from transforms.transform import Transform

SETTINGS = Settings(_env_file=None, targets="s3://results/out/*,https://put.example.com/*")
PRESETS = Presets({"card": Preset(parameters={"w": "400", "h": "300", "fit": "cover"})})


def read(*, settings=SETTINGS, **body):
    draft = SpecReader(settings, PRESETS).read_job(body, now=1000.0)
    return draft, [Output.from_json(output) for output in json.loads(draft.outputs)]


def outputs_of(*outputs, **body):
    return read(source="b.jpg", outputs=list(outputs), **body)[1]


def test_the_plainest_body():
    draft, outputs = read(
        source="b.jpg",
        outputs=[
            {
                "transform": {"w": 200, "h": 100, "fit": "cover", "fm": "jpeg"},
                "target": "out/1.jpg",
            }
        ],
    )
    assert draft.source == (Ref("id", "b.jpg"),)
    assert outputs == [
        Output(transform="fit=cover&fm=jpeg&h=100&w=200", fm="jpeg", target="out/1.jpg")
    ]
    assert (draft.priority, draft.retries, draft.run_after, draft.expires_at) == (1, 3, 1000, None)


def test_a_transform_is_an_object_a_query_or_a_preset():
    as_object, as_query, as_preset = (
        outputs_of(output, target_free)
        for output, target_free in (
            ({"transform": {"w": 400, "h": 300, "fit": "cover", "q": 60}}, {}),
            ({"transform": "width=400&height=300&fit=cover&q=60"}, {}),
            ({"preset": "card", "transform": "q=60"}, {}),
        )
    )
    assert as_object == as_query == as_preset


def test_widths_formats_and_tiles_multiply_and_equal_outputs_are_one():
    outputs = outputs_of(
        {"transform": "q=70", "widths": [100, 200], "formats": ["webp", "avif"]},
        {"transform": "q=70&fm=avif&w=200"},
    )
    assert [output.transform for output in outputs] == [
        "fit=inside&fm=webp&q=70&w=100",
        "fit=inside&fm=avif&q=70&w=100",
        "fit=inside&fm=webp&q=70&w=200",
        "fit=inside&fm=avif&q=70&w=200",
    ]
    tiles = outputs_of({"transform": {"tile": "3x2"}, "target": "t/{column}-{row}.png"})
    assert [output.tile for output in tiles] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert {output.fm for output in tiles} == {"png"}


def test_the_ending_of_a_target_names_the_format_unless_the_transform_does():
    assert [
        outputs_of({"transform": transform, "target": target})[0].fm
        for transform, target in (
            ("", "a.webp"),
            ("", "a.JPG"),
            ("fm=png", "a.jpg"),
            ("", "a.{ext}"),
            ("", "a"),
            ("auto=none", "{digest}"),
        )
    ] == ["webp", "jpeg", "png", "auto", "auto", "same"]


def test_several_sources_are_merged_in_their_order():
    draft, outputs = read(source=["a.jpg", "b.jpg", "c.png"], outputs=[{"transform": "across=3"}])
    assert [ref.name for ref in draft.source] == ["a.jpg", "b.jpg", "c.png"]
    assert Transform.from_query(outputs[0].transform).merge == ("b.jpg", "c.png")


def test_times_count_from_now():
    draft, _ = read(source="a", outputs=[{}], delay=60, expires=90.5, timeout=5, priority=2)
    assert (draft.run_after, draft.expires_at, draft.timeout) == (1060, 1090.5, 5.0)


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"outputs": [{}]}, "source", "is needed"),
        ({"source": "a"}, "outputs", "is needed"),
        ({"source": "a", "outputs": []}, "outputs", "at least 1"),
        ({"source": "a", "outputs": [{}], "colour": 1}, "colour", "not a field"),
        ({"source": "a", "outputs": [{"w": 1}]}, "outputs[0].w", "not a field"),
        ({"source": "", "outputs": [{}]}, "source", "is empty"),
        ({"source": "a/../b", "outputs": [{}]}, "source", ".."),
        ({"source": ["a", "/b"], "outputs": [{}]}, "source[1]", "empty segment"),
        ({"source": ["a", "https://h/b"], "outputs": [{}]}, "source[1]", "only ids"),
        ({"source": 7, "outputs": [{}]}, "source", "source must be a string or a list, got 7"),
        ({"source": [], "outputs": [{}]}, "source", "source must have at least 1 entry, got []"),
        ({"source": ["a", 5], "outputs": [{}]}, "source[1]", "source[1] must be a string, got 5"),
        ({"source": "a", "outputs": [5]}, "outputs[0]", "outputs[0] must be an object, got 5"),
        ({"source": "a", "outputs": [{}], "Colour[]": 1}, "Colour[]", "not a field"),
        ({"source": "a", "outputs": [{}], "metadata": []}, "metadata", "must be an object"),
        (
            {"source": "a", "outputs": [{"transform": 5}]},
            "outputs[0].transform",
            "must be an object or a string",
        ),
        ({"source": "a", "outputs": [{"transform": {"w": [1]}}]}, "outputs[0].transform.w", "list"),
        (
            {"source": "a", "outputs": [{"transform": {"w": True}}]},
            "outputs[0].transform.w",
            "1 to",
        ),
        (
            {"source": "a", "outputs": [{"transform": {"tile": ["3x2"]}}]},
            "outputs[0].transform.tile",
            "text such as 3x2",
        ),
        (
            {"source": "a", "outputs": [{"transform": {"preset": True}}]},
            "outputs[0].transform.preset",
            "name, got true",
        ),
        ({"source": "a", "outputs": [{"target": "a.svg"}]}, "outputs[0].target", ".svg names no"),
        (
            {"source": "a", "outputs": [{}, {"target": "{stem}.txt"}]},
            "outputs[1].target",
            ".jpg, .jpeg, .png, .webp, .avif, .gif, .tif, .tiff",
        ),
        (
            {"source": "a", "outputs": [{"target": "s3://results/out/a.bmp"}]},
            "outputs[0].target",
            "any ending",
        ),
        (
            {"source": "a", "outputs": [{"target": "s3://ab/a.jpg"}]},
            "outputs[0].target",
            "'ab' is not the name of a bucket",
        ),
        (
            {"source": "a", "outputs": [{"target": "s3://results"}]},
            "outputs[0].target",
            "must be s3://bucket/key",
        ),
        (
            {"source": "a", "outputs": [{"target": "{w:>10}.jpg"}]},
            "outputs[0].target",
            "a field is its name alone, {w}, without :>10",
        ),
        ({"source": "a", "outputs": [{"transform": {"w": 0}}]}, "outputs[0].transform.w", "w must"),
        ({"source": "a", "outputs": [{"transform": {"W": 9}}]}, "outputs[0].transform.W", "mean"),
        (
            {"source": "a", "outputs": [{"transform": "w=1&width=2"}]},
            "outputs[0].transform.w",
            "twice",
        ),
        (
            {"source": "a", "outputs": [{"transform": "nope=1"}]},
            "outputs[0].transform.nope",
            "not a",
        ),
        ({"source": "a", "outputs": [{"preset": "crad"}]}, "outputs[0].transform.preset", "card"),
        (
            {"source": "a", "outputs": [{"transform": "w=5", "widths": [1]}]},
            "outputs[0].widths",
            "twice",
        ),
        ({"source": "a", "outputs": [{"widths": [0]}]}, "outputs[0].widths[0]", "at least 1"),
        ({"source": "a", "outputs": [{"formats": ["bmp"]}]}, "outputs[0].transform.fm", "fm must"),
        ({"source": "a", "outputs": [{"transform": {"tile": "11x10"}}]}, "tile", "at most 100"),
        ({"source": "a", "outputs": [{"target": ""}]}, "outputs[0].target", "1 to"),
        ({"source": "a", "outputs": [{"target": "/a"}]}, "outputs[0].target", "begins"),
        ({"source": "a", "outputs": [{"target": "{name}"}]}, "outputs[0].target", "{stem}"),
        ({"source": "a", "outputs": [{"target": "{id!r}"}]}, "outputs[0].target", "without !r"),
        ({"source": "a", "outputs": [{"target": "{id.__class__}"}]}, "outputs[0].target", "{stem}"),
        ({"source": "a", "outputs": [{"target": "{"}]}, "outputs[0].target", "brace"),
        (
            {"source": "a", "outputs": [{"widths": [1, 2], "target": "https://put.example.com/a"}]},
            "outputs[0].target",
            "one result",
        ),
        ({"source": "a", "outputs": [{}], "priority": 3}, "priority", "at most 2, got 3"),
        ({"source": "a", "outputs": [{}], "priority": True}, "priority", "integer"),
        ({"source": "a", "outputs": [{}], "delay": -1}, "delay", "at least 0"),
        ({"source": "a", "outputs": [{}], "retries": 21}, "retries", "at most 20"),
        ({"source": "a", "outputs": [{}], "timeout": "soon"}, "timeout", "number"),
        ({"source": "a", "outputs": [{}], "label": "a b"}, "label", "label must have 1 to 64"),
        ({"source": "a", "outputs": [{}], "metadata": {"a": "x" * 5000}}, "metadata", "4096"),
    ],
)
def test_what_is_wrong_is_told_by_name(body, param, told):
    with pytest.raises(InvalidRequest) as caught:
        read(**body)
    assert caught.value.param == param
    assert told in caught.value.detail


@pytest.mark.parametrize(
    ("outputs", "param", "told"),
    [
        (
            [{"transform": "w=1", "target": "a.jpg"}, {"transform": "w=2", "target": "a.jpg"}],
            "outputs[1].target",
            "this and outputs[0] would be written to one place, a.jpg",
        ),
        ([{"widths": [1, 2], "target": "{stem}.jpg"}], "outputs[0].target", "its results"),
        ([{"transform": "tile=2x2", "target": "t-{row}.png"}], "outputs[0].target", "its results"),
        (
            [{"transform": "w=1", "target": "a.{ext}"}, {"transform": "w=2", "target": "a.webp"}],
            None,
            None,
        ),
        (
            [
                {"transform": "w=1&fm=webp", "target": "a.{ext}"},
                {"transform": "w=2", "target": "a.webp"},
            ],
            "outputs[1].target",
            "one place",
        ),
        (
            [{"transform": f"w={w}", "target": "https://put.example.com/a?sig=s"} for w in (1, 2)],
            "outputs[1].target",
            "https://put.example.com/a",
        ),
        ([{"widths": [1, 2], "target": "{w}.jpg"}], None, None),
        ([{"widths": [1, 2], "target": "{digest}"}], None, None),
        ([{"formats": ["png", "webp"], "target": "a.{ext}"}], None, None),
        ([{"transform": "tile=2x2", "target": "t-{row}-{column}.png"}], None, None),
        (
            [{"transform": "w=1", "target": "a.jpg"}, {"transform": "w=1", "target": "a.jpg"}],
            None,
            None,
        ),
        ([{"widths": [1, 2]}], None, None),
        (
            [{"transform": "w=1", "target": "{{w}}"}, {"transform": "w=2", "target": "{w}"}],
            None,
            None,
        ),
    ],
)
def test_two_results_for_one_place_are_refused_when_they_are_submitted(outputs, param, told):
    if param is None:
        assert outputs_of(*outputs)
        return
    with pytest.raises(InvalidRequest) as caught:
        outputs_of(*outputs)
    assert caught.value.param == param
    assert told in caught.value.detail
    assert "sig=" not in caught.value.detail


@pytest.mark.parametrize(
    ("transform", "target", "fm"),
    [
        ("fm=png", "a.svg", "png"),
        ("", "v1.2", "auto"),
        ("", "a.{ext}", "auto"),
        ("", "a.original", "auto"),
        ("", "https://put.example.com/upload.php", "auto"),
        ("", "https://put.example.com/a.png?name=b.svg", "png"),
    ],
)
def test_an_ending_that_names_no_format_is_no_matter_where_there_is_another_say(
    transform, target, fm
):
    assert outputs_of({"transform": transform, "target": target})[0].fm == fm


def test_an_ending_of_a_format_that_is_not_enabled_is_that_of_the_target():
    settings = Settings(_env_file=None, formats="jpeg,png")
    with pytest.raises(InvalidRequest, match=r"outputs\[0\]\.target: \.webp") as caught:
        read(source="a", outputs=[{"target": "a.webp"}], settings=settings)
    assert "jpeg" in caught.value.detail
    assert "avif" not in caught.value.detail


@pytest.mark.parametrize(
    "body",
    [
        {"source": {}, "outputs": [{}]},
        {"source": "a", "outputs": "x"},
        {"source": "a", "outputs": [{}], "delay": []},
        {"source": "a", "outputs": [{}], "webhook": 1},
        {"source": "a", "outputs": [{}], "webhook": "x" * 3000},
        {"source": "a", "outputs": [{}] * 101},
        {"source": "a", "outputs": [{}], "expires": 0},
    ],
)
def test_no_error_is_in_the_words_of_a_library(body):
    with pytest.raises(InvalidRequest) as caught:
        read(**body)
    assert caught.value.param
    assert caught.value.detail.startswith(f"{caught.value.param} must ")
    for word in ("Input", "valid", "dictionary", "instance", "items", "validation"):
        assert word not in caught.value.detail.partition(", got ")[0]


@pytest.mark.parametrize("target", ["s3://other/out/a.jpg", "s3://results/a.jpg", "https://evil/a"])
def test_a_target_that_is_not_allowed_is_refused(target):
    with pytest.raises(TargetRefused, match="PIXELMILL_TARGETS"):
        outputs_of({"target": target})


def test_without_a_place_for_results_a_target_is_needed():
    with pytest.raises(InvalidRequest, match=r"outputs\[0\]\.target is needed"):
        read(source="a", outputs=[{}], settings=Settings(_env_file=None, results="off"))


def test_a_job_has_a_bounded_number_of_results():
    with pytest.raises(InvalidRequest, match="at most 100"):
        outputs_of(*({"transform": f"w={n}"} for n in range(1, 100)), {"widths": [200, 201]})


@given(
    st.dictionaries(
        st.sampled_from(["w", "h", "q", "blur", "rotate", "fm", "background", "gravity"]),
        st.one_of(
            st.integers(1, 300),
            st.sampled_from(["jpeg", "webp", "90", "gold", "north", "0.5,0.5", "auto"]),
        ),
        max_size=5,
    )
)
def test_an_output_renders_what_its_transform_says(transform):
    try:
        (output,) = outputs_of({"transform": transform})
    except InvalidRequest:
        return
    given_text = {name: str(value) for name, value in transform.items()}
    asked = Transform.from_query(given_text.items(), defaults=SETTINGS.defaults)
    assert settled(output, SETTINGS) == asked.with_output(output.fm, defaults=SETTINGS.defaults)


@pytest.mark.parametrize(
    ("ref", "template", "place"),
    [
        (Ref("id", "a/b/c.tar.gz"), "{id}|{stem}|{ext}", "a/b/c.tar.gz|c.tar|png"),
        (Ref("id", "plain"), "{stem}-{w}x{h}", "plain-30x20"),
        (Ref("url", "https://h.example/x/y.jpg?z=1"), "{id}/{stem}", "x/y.jpg/y"),
        (Ref("url", "https://h.example"), "{id}", "image"),
        (Ref("id", "a.jpg"), "{digest}", "f" * 32),
        (Ref("id", "a.jpg"), "{column}-{row}{{}}", "2-1{}"),
    ],
)
def test_a_template_is_filled(ref, template, place):
    fields = Fields(ref=ref, width=30, height=20, extension="png", digest="f" * 64, tile=(2, 1))
    assert fill(template, fields) == place


def test_ids_ascend_and_are_told_from_other_texts():
    ids = [new_id() for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert all(map(is_id, ids))
    assert not any(map(is_id, ["", "x", ids[0].upper(), ids[0] + "0", "../" + ids[0][3:]]))


@pytest.mark.parametrize("name", ["text", "watermark", "merge"])
def test_what_is_kept_of_a_job_is_what_was_asked_for(name):
    value = "1+1 = 2 & more&tint=red#50%;"
    for asked in ({name: value}, urlencode({name: value})):
        (output,) = outputs_of({"transform": asked})
        wanted = Transform.from_mapping({name: value}).with_output("auto")
        assert settled(output, SETTINGS) == wanted


@pytest.mark.parametrize("background", ["white", "black", "none", None])
def test_a_job_keeps_the_background_whatever_the_service_has_chosen(background):
    settings = Settings(_env_file=None, default_background="black")
    asked = {"w": 9, "h": 9, "fm": "jpeg", "bg": background}
    _, (output,) = read(settings=settings, source="b.jpg", outputs=[{"transform": asked}])
    wanted = Transform.from_mapping(asked, defaults=settings.defaults)
    assert settled(output, settings) == wanted.with_output("jpeg", defaults=settings.defaults)
