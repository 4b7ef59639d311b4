"""Foreign documents are decoded in processes that may crash, hang and be killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import child as protocol
from app import children as parent
from app.children import Children
from app.errors import Overloaded
from tests.transforms import pictures
from transforms import foreign, formats
from transforms.errors import BrokenImage, InvalidOption, TransformError
from transforms.shapes import Size

ROOT = Path(__file__).resolve().parents[2]
LONG = 30.0

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc tells of processes")


def svg(body="", attributes='width="500" height="500"'):
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{body}</svg>'.encode()


def nested(levels, copies):
    """Groups that each use the one before several times: copies ** levels rectangles."""
    groups = "".join(
        f'<g id="a{level + 1}" opacity=".9">' + f'<use href="#a{level}" x="1"/>' * copies + "</g>"
        for level in range(levels)
    )
    return svg(f'<defs><rect id="a0" width="9" height="9"/>{groups}</defs><use href="#a{levels}"/>')


RED = svg('<rect width="500" height="500" fill="#f00"/>')
ENDLESS = nested(18, 2)
BOMBS = {
    "uses": nested(8, 10),
    "blur": svg(
        "<filter id='f' x='-50' y='-50' width='100' height='100'>"
        "<feGaussianBlur stdDeviation='5000'/></filter>"
        + "<g filter='url(#f)'>" * 60
        + "<rect width='400' height='400'/>"
        + "</g>" * 60
    ),
    "turbulence": svg(
        "<filter id='f'><feTurbulence baseFrequency='.9' numOctaves='9999999'/></filter>"
        "<rect width='500' height='500' filter='url(#f)'/>"
    ),
    "depth": svg("<g>" * 100_000 + "</g>" * 100_000),
    "patterns": svg(
        "".join(
            f"<pattern id='p{n}' width='.001' height='.001' patternUnits='objectBoundingBox'>"
            f"<rect width='1000' height='1000' fill='url(#p{n + 1})'/></pattern>"
            for n in range(8)
        )
        + "<rect width='500' height='500' fill='url(#p0)'/>"
    ),
    "huge pattern": svg(
        "<pattern id='p' width='30000' height='30000' patternUnits='userSpaceOnUse'>"
        "<rect width='30000' height='30000'/></pattern>"
        "<rect width='500' height='500' fill='url(#p)'/>"
    ),
    "pixels": svg(attributes="width='20000' height='20000'"),
    "picture": svg(
        "<image width='9' height='9' href='data:image/png;base64,"
        + base64.b64encode(bytes(pictures.Image.black(20_000, 20_000).pngsave_buffer())).decode()
        + "'/>"
    ),
}


@pytest.fixture
async def children():
    some = Children(seconds=LONG, memory=512 << 20, limit=2)
    yield some
    await some.close()


async def draw(children, data=RED, *, name="svg", scale=0.1):
    async with children.open(name, data) as child:
        return pictures.opened(await child.draw(scale))


async def starts_drawing(children, data):
    """A task that has measured and now draws."""
    measured = asyncio.Event()

    async def work():
        async with children.open("svg", data) as child:
            measured.set()
            await child.draw(1)

    task = asyncio.create_task(work())
    await measured.wait()
    await asyncio.sleep(0.05)
    return task


def descendants(process):
    """The processes that this one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue  # it has just ended
        if int(above) == process and state != "Z":
            found.append(int(stat.parent.name))
    return found


def state(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


async def gone(process):
    for _ in range(200):
        if state(process) in (None, "Z"):
            return True
        await asyncio.sleep(0.02)
    return False


def only(numbers):
    (number,) = numbers
    return number


def zygote(children):
    return children._zygote._process.pid


async def test_a_document_is_measured_and_then_drawn(children):
    async with children.open("svg", RED) as child:
        assert child.leaf.size == Size(500, 500)
        assert child.leaf.scalable
        image = pictures.opened(await child.draw(0.2))
    assert (image.width, image.height) == (100, 100)
    assert image(50, 50) == [255, 0, 0, 255]


async def test_a_document_may_be_measured_only(children):
    async with children.open("svg", RED) as child:
        assert child.leaf.pages == 1
    assert (await draw(children)).width == 50


async def test_many_documents_take_turns(children):
    drawn = await asyncio.gather(*(draw(children, scale=n / 100) for n in range(1, 9)))
    assert [image.width for image in drawn] == [5 * n for n in range(1, 9)]


async def test_large_documents_and_pictures_pass_whole(children):
    data = svg('<rect width="500" height="500" fill="#00f"/>' + " " * 3_000_000)
    image = await draw(children, data, scale=4)
    assert (image.width, image.height) == (2000, 2000)
    assert image(1999, 1999) == [0, 0, 255, 255]


async def test_what_is_wrong_with_a_document_is_told(children):
    with pytest.raises(BrokenImage, match="cannot be decoded as SVG"):
        await draw(children, b"<svg")
    with pytest.raises(InvalidOption, match="the original has 1 page") as told:
        async with children.open("svg", RED, page=4):
            pass
    assert told.value.param == "page"


async def test_text_is_drawn(children):
    image = await draw(children, svg("<text y='300' font-size='300'>Aa</text>"))
    if image.max() == 0:
        pytest.skip("there are no fonts here")
    assert image[3].max() == 255


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_costs_its_own_request_only(name):
    children = Children(seconds=1, memory=256 << 20, limit=1)
    try:
        with contextlib.suppress(BrokenImage):
            await draw(children, BOMBS[name], scale=1)
        assert (await draw(children)).width == 50
    finally:
        await children.close()


async def test_an_overrun_is_the_documents_fault():
    told = []
    children = Children(
        seconds=0.5,
        memory=512 << 20,
        limit=1,
        on_start=lambda: told.append("begun"),
        on_death=told.append,
    )
    try:
        with pytest.raises(BrokenImage, match=r"could not be decoded within 0\.5 s"):
            await draw(children, ENDLESS)
        assert told == ["begun", "timeout"]
    finally:
        await children.close()


async def test_too_much_memory_is_the_documents_fault(children):
    with pytest.raises(BrokenImage, match=r"needed more than 512 MB|out of memory"):
        await draw(children, BOMBS["picture"])


async def test_the_callers_own_time_is_not_counted():
    children = Children(seconds=1, memory=512 << 20, limit=1)
    try:
        await children.warm()
        async with children.open("svg", RED) as child:
            await asyncio.sleep(1.1)
            assert await child.draw(0.1)
    finally:
        await children.close()


async def test_waiting_for_a_turn_is_bounded():
    children = Children(seconds=LONG, memory=512 << 20, limit=1, patience=0.05)
    try:
        async with children.open("svg", RED) as child:
            with pytest.raises(Overloaded):
                await draw(children)
            assert await child.draw(0.1)
        assert (await draw(children)).width == 50
    finally:
        await children.close()


@linux
async def test_a_killed_document_is_broken_and_the_next_is_not(children):
    task = await starts_drawing(children, ENDLESS)
    os.kill(only(descendants(zygote(children))), signal.SIGKILL)
    with pytest.raises(BrokenImage, match="its decoder crashed"):
        await task
    assert (await draw(children)).width == 50


@linux
async def test_a_cancelled_document_is_killed(children):
    task = await starts_drawing(children, ENDLESS)
    process = only(descendants(zygote(children)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(process)
    assert (await draw(children)).width == 50


@linux
async def test_an_abandoned_document_is_killed(children):
    async with children.open("svg", RED):
        process = only(descendants(zygote(children)))
    assert await gone(process)


@linux
async def test_the_process_that_forks_is_started_again(children):
    await children.warm()
    first = zygote(children)
    os.kill(first, signal.SIGKILL)
    assert (await draw(children)).width == 50
    assert zygote(children) != first


@linux
async def test_documents_die_with_the_process_that_forks(children):
    task = await starts_drawing(children, ENDLESS)
    process = only(descendants(zygote(children)))
    os.kill(zygote(children), signal.SIGKILL)
    with pytest.raises(BrokenImage):
        await task
    assert await gone(process)
    assert (await draw(children)).width == 50


@linux
async def test_closing_ends_everything(children):
    task = await starts_drawing(children, ENDLESS)
    processes = [zygote(children), only(descendants(zygote(children)))]
    await children.close()
    with pytest.raises(BrokenImage):
        await task
    assert [await gone(process) for process in processes] == [True, True]
    with pytest.raises(Overloaded):
        await draw(children)


@linux
async def test_everything_dies_with_the_service():
    code = (
        "import asyncio, os, signal\nfrom app.children import Children\n"
        "async def main():\n"
        "    children = Children(seconds=30, memory=512 << 20, limit=1)\n"
        "    await children.warm()\n"
        "    print(children._zygote._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL
    assert await gone(int(done.stdout))


async def test_a_process_that_does_not_start_is_no_fault_of_the_document(monkeypatch, children):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    told = []
    monkeypatch.setattr(children, "_on_death", told.append)
    with pytest.raises(Overloaded, match="does not start"):
        await draw(children)
    assert told == ["start"]
    monkeypatch.undo()
    assert (await draw(children)).width == 50


async def test_no_secret_is_handed_down(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    monkeypatch.setenv("PIXELMILL_SIGNING_KEYS", "another")
    assert not {"a secret", "another"} & set(parent._environment().values())


async def test_the_confinement_is_told(children):
    applied = await children.warm()
    assert applied.limits


TEXTS = ("broken_image", "unsupported_format", "invalid_parameter", "a\0\n\u202e" * 200)
ANSWERS = st.one_of(
    st.binary(max_size=80),
    st.dictionaries(
        st.sampled_from(["width", "height", "pages", "bands", "alpha", "error", "detail"]),
        st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.sampled_from(TEXTS)),
    ).map(lambda answer: json.dumps(answer).encode()),
    st.just(b"[" * 60_000),
)


@given(ANSWERS)
def test_no_answer_of_a_process_is_trusted(data):
    for parse in (protocol.parse_leaf, lambda raw: protocol.parse_bands(raw, Size(3, 2))):
        with pytest.raises(TransformError) as told:
            parse(data)
        assert len(told.value.detail) <= 300
        assert told.value.detail.isprintable()


@pytest.mark.parametrize(
    "answer",
    [
        '{"width": 0, "height": 1, "pages": 1, "bands": 3, "alpha": false, "scalable": false}',
        '{"width": 1e3, "height": 1, "pages": 1, "bands": 3, "alpha": false, "scalable": false}',
        '{"width": 1, "height": 1, "pages": 1, "bands": 3, "alpha": 1, "scalable": false}',
        '{"width": true, "height": 1, "pages": 1, "bands": 3, "alpha": true, "scalable": false}',
        '{"width": 1, "height": 1}',
    ],
)
def test_a_wrong_measure_is_refused(answer):
    with pytest.raises(BrokenImage, match="wrong answer"):
        protocol.parse_leaf(answer.encode())


@pytest.mark.parametrize(("width", "height", "bands"), [(4, 2, 3), (3, 2, 0), (3, 2, 5)])
def test_pixels_of_another_size_are_refused(width, height, bands):
    answer = f'{{"width": {width}, "height": {height}, "bands": {bands}}}'
    with pytest.raises(BrokenImage, match="wrong answer"):
        protocol.parse_bands(answer.encode(), Size(3, 2))


@pytest.mark.parametrize(
    ("file", "name", "size"),
    [
        ("xss.svg", "svg", (256, 172)),
        ("giant.svg", "svg", (10_000_000, 10_000_000)),
        ("struct-image-04-t.svg", "svg", (480, 360)),
        ("logo.svgz", "svg", (736, 552)),
        ("own-svg-external-image.svg", "svg", (100, 100)),
        ("winter_1440x960.heic", "heic", (1440, 960)),
        ("jxl-isobmff.jxl", "jxl", (640, 416)),
        ("sizes.pdf", "pdf", (612, 792)),
    ],
)
async def test_real_documents_are_drawn(children, real_images, file, name, size):
    data = next(real_images.rglob(file)).read_bytes()
    assert formats.sniff(data[: formats.SNIFFED_BYTES]).name == name
    if not foreign.supported(name):
        pytest.skip(f"the extra pixelmill[{name}] is not installed")
    async with children.open(name, data) as child:
        assert child.leaf.size == Size(*size)
        image = pictures.opened(await child.draw(100 / size[0]))
    assert image.width == 100


@pytest.mark.parametrize(
    "file", ["truncated.svgz", "own-svg-xxe.svg", "own-svg-billion-laughs.svg"]
)
async def test_hostile_documents_are_broken(children, real_images, file):
    data = next(real_images.rglob(file)).read_bytes()
    with pytest.raises(BrokenImage):
        await draw(children, data)
