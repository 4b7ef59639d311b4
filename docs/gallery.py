"""Draws docs/gallery.md and its pictures from the samples: `make docs`. A test holds both current.

Every row of the option table that changes how a picture looks has at least one example.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from app.samples import SAMPLES
from transforms import libvips, pipeline
from transforms.limits import Limits
from transforms.options import OPTIONS, Option
from transforms.pipeline import Result, Stop
from transforms.transform import Transform

PAGE: Final = Path(__file__).with_name("gallery.md")
FOLDER: Final = Path(__file__).with_name("gallery")

_WIDE: Final = "landscape.jpg?w=240"
_MARKED: Final = f"{_WIDE}&watermark=samples/emblem.png"
_JOINED: Final = (
    "landscape.jpg?merge=samples/portrait-rotated.jpg|samples/emblem.png|samples/spinner.gif"
)

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "w": (_WIDE, "landscape.jpg?w=120"),
    "h": ("landscape.jpg?h=100", "portrait-rotated.jpg?h=160"),
    "fit": (
        "landscape.jpg?w=240&h=240&bg=lavender",
        "landscape.jpg?w=240&h=240&fit=cover",
        "landscape.jpg?w=240&h=240&fit=inside",
        "landscape.jpg?w=120&h=120&fit=outside",
        "landscape.jpg?w=120&h=200&fit=fill",
    ),
    "enlarge": (
        "landscape.jpg?crop=1950,900,90,60&w=240",
        "landscape.jpg?crop=1950,900,90,60&w=240&enlarge=1",
    ),
    "dpr": ("landscape.jpg?w=120&padding=6&bg=gold", "landscape.jpg?w=120&padding=6&bg=gold&dpr=2"),
    "min-w": ("landscape.jpg?h=60&min-w=200",),
    "min-h": ("landscape.jpg?w=100&min-h=120",),
    "max-w": ("landscape.jpg?h=200&padding=10&bg=gold&max-w=160",),
    "max-h": ("portrait-rotated.jpg?w=200&max-h=160",),
    "crop": (
        "landscape.jpg?crop=0.5,0.2,0.4,0.4&w=240",
        "landscape.jpg?crop=1500,900,900,600&w=240",
    ),
    "trim": (
        "emblem.png?w=240&bg=lavender",
        "emblem.png?trim&w=240&bg=lavender",
        "spinner.gif?page=3&trim=20&w=120",
    ),
    "gravity": (
        "portrait-rotated.jpg?w=200&h=120&fit=cover&gravity=north",
        "portrait-rotated.jpg?w=200&h=120&fit=cover&gravity=center",
        "portrait-rotated.jpg?w=200&h=120&fit=cover&gravity=south",
        "landscape.jpg?w=100&h=160&fit=cover&gravity=west",
        "landscape.jpg?w=100&h=160&fit=cover&gravity=0.68,0.42",
        "landscape.jpg?w=200&h=160&bg=lavender&gravity=north",
        "landscape.jpg?w=100&h=160&fit=cover&gravity=0.2,0.5,0.6,0.5",
        "landscape.jpg?w=100&h=160&fit=cover&gravity=attention",
        "landscape.jpg?w=100&h=160&fit=cover&gravity=entropy",
    ),
    "extent": (
        "landscape.jpg?w=160&extent=240x160&bg=lavender",
        "landscape.jpg?w=240&extent=160x120&gravity=east",
    ),
    "padding": (
        "landscape.jpg?w=200&padding=10&bg=gold",
        "landscape.jpg?w=200&padding=5,20,30,20&bg=white&border=1,silver",
    ),
    "background": (
        "landscape.jpg?w=240&h=200&bg=e6e6fa",
        "portrait-rotated.jpg?w=240&h=160&bg=auto",
        "portrait-rotated.jpg?w=240&h=160&bg=blur",
        "emblem.png?w=160&bg=none",
        "emblem.png?w=160&bg=rgb(255,215,0)",
        "emblem.png?w=160&bg=34568b66",
    ),
    "border": ("landscape.jpg?w=220&border=2", "landscape.jpg?w=220&padding=8&border=6,gold"),
    "round": (
        "landscape.jpg?w=240&round=24",
        "landscape.jpg?w=160&h=160&fit=cover&gravity=0.68,0.42&round=full",
        "landscape.jpg?w=240&h=100&fit=cover&round=full&border=4,gold",
    ),
    "shadow": (
        "landscape.jpg?w=200&shadow",
        "landscape.jpg?w=200&round=20&shadow=0,8,20,00000080",
        "emblem.png?w=200&shadow=8,8,6,00000080",
    ),
    "rotate": tuple(f"landscape.jpg?w=120&rotate={angle}" for angle in (90, 180, 270)),
    "flip": tuple(f"landscape.jpg?w=120&flip={way}" for way in ("h", "v", "hv")),
    "orient": tuple(f"portrait-rotated.jpg?h=140&orient={tag}" for tag in ("auto", "none", "3")),
    "normalize": (_WIDE, f"{_WIDE}&normalize"),
    "level": (f"{_WIDE}&level=20,80", f"{_WIDE}&level=0,100,1.6"),
    "gamma": (f"{_WIDE}&gamma=0.6", f"{_WIDE}&gamma=1.6"),
    "brightness": (f"{_WIDE}&brightness=-25", f"{_WIDE}&brightness=25"),
    "contrast": (f"{_WIDE}&contrast=-40", f"{_WIDE}&contrast=40"),
    "saturation": (f"{_WIDE}&saturation=-60", f"{_WIDE}&saturation=60"),
    "hue": (f"{_WIDE}&hue=90", f"{_WIDE}&hue=180"),
    "grayscale": (f"{_WIDE}&grayscale",),
    "sepia": (f"{_WIDE}&sepia", f"{_WIDE}&sepia=50"),
    "tint": (f"{_WIDE}&tint=teal", f"{_WIDE}&tint=crimson"),
    "duotone": (f"{_WIDE}&duotone=192550,ffd500", f"{_WIDE}&duotone=4b0082,ffe4e1"),
    "invert": (f"{_WIDE}&invert",),
    "sketch": (f"{_WIDE}&sketch", "portrait-rotated.jpg?w=160&sketch", "emblem.png?w=160&sketch"),
    "charcoal": (
        f"{_WIDE}&charcoal",
        f"{_WIDE}&charcoal=4",
        "portrait-rotated.jpg?w=160&charcoal=2",
    ),
    "pixelate": (f"{_WIDE}&pixelate=12",),
    "blur": (f"{_WIDE}&blur=2", f"{_WIDE}&blur=8", "emblem.png?w=160&blur=6"),
    "sharpen": (f"{_WIDE}&sharpen", f"{_WIDE}&sharpen=2,3,0"),
    "opacity": (f"{_WIDE}&opacity=0.4", f"{_WIDE}&opacity=0.4&bg=navy"),
    "watermark": (
        f"{_MARKED},scale=0.4",
        f"{_MARKED},scale=0.3,gravity=northwest,x=10,y=10,opacity=0.6",
        f"{_MARKED},scale=0.25,tile=1,gap=12,opacity=0.4",
        *(
            f"{_MARKED},scale=0.9,gravity=center,blend={blend}"
            for blend in (
                "multiply",
                "screen",
                "overlay",
                "darken",
                "lighten",
                "soft-light",
                "difference",
            )
        ),
        f"{_WIDE}&wm=samples/emblem.png,scale=0.3|samples/spinner.gif,scale=0.3,gravity=northwest",
    ),
    "text": tuple(
        f"{_WIDE}&text={text}"
        for text in (
            "Hello+world,color=fff",
            "Above+the+hills,font=serif,italic=1,size=26,color=fff,gravity=north,y=12",
            "Sale,weight=bold,size=64,color=crimson,outline=fff,outline-width=3",
            "Pixelmill,size=13,color=fff,bg=00000099,padding=6,gravity=southeast,x=8,y=8",
            "Lines+that+are+too+long+are+wrapped,size=22,color=fff,align=center,width=0.6",
            r"One+line\nand+another,size=24,color=ffd500,align=right,opacity=0.7",
            "One+text,color=fff,gravity=north,y=8|Another,size=20,color=gold,gravity=south,y=8",
        )
    ),
    "layer-dpr": tuple(
        f"{_WIDE}&text=Hello+world,color=fff&layer-dpr={by}" for by in ("0.5", "1.5")
    ),
    "merge": (f"{_JOINED}&w=240", f"{_JOINED}&w=240&bg=lavender"),
    "across": (f"{_JOINED}&across=4&w=240", f"{_JOINED}&across=1&w=80"),
    "cell": (f"{_JOINED}&cell=120x80&bg=lavender",),
    "gap": (f"{_JOINED}&cell=120x80&gap=8&bg=gold",),
    "tile": tuple(
        f"landscape.jpg?w=240&tile=3x2,{column},{row}" for row in range(2) for column in range(3)
    ),
    "page": ("spinner.gif?w=120&page=0", "spinner.gif?w=120&page=5"),
    "frames": (
        "spinner.gif?w=120",
        "spinner.gif?w=120&frames=1",
        "spinner.gif?w=120&page=6&frames=4",
    ),
}
"""For each option the samples and queries that show it."""

INVISIBLE: Final = (
    "fm",
    "auto",
    "q",
    "max-bytes",
    "lossless",
    "effort",
    "progressive",
    "hdr",
    "meta",
)
"""The options that change the file, and not what is seen of it."""

_ABOUT: Final = """\
What parameters do to the samples that `make run` draws. Under each picture stands what made it, to
be put behind `/thumb/samples/`."""
_COLUMNS: Final = 3
_BLOCK: Final = 8
_ALIKE: Final = 20.0
"""Pictures look the same when no block of 8x8 pixels differs by more in its mean, of 0..255.

The grain of the samples is never the same, and effects make it stand out.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A picture of the gallery: the option that it shows, its number there and what makes it."""

    option: str
    number: int
    url: str

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.option}-{self.number}.webp"

    @property
    def query(self) -> list[tuple[str, str]]:
        """The decoded pairs of the query."""
        return parse_qsl(self.url.partition("?")[2], keep_blank_values=True)

    @property
    def portable(self) -> bool:
        """Whether it looks alike on every machine: letters do not."""
        return all(name != "text" for name, _ in self.query)

    def render(self) -> Result:
        """Draw it, as WebP. Raises TransformError."""
        data = original("samples/" + self.url.partition("?")[0])
        transform = Transform.from_query(self.query, unknown="refuse").with_output("webp")
        work = pipeline.prepare(
            data,
            transform,
            Limits(),
            others=[original(name) for name in transform.merge or ()],
            marks={name: bitmap(name) for name in transform.mark_ids},
        )
        return pipeline.run(data, work)


def examples() -> list[Example]:
    """All pictures of the gallery, in the order of the page."""
    return [
        Example(option.name, number, url)
        for option in OPTIONS
        for number, url in enumerate(EXAMPLES.get(option.name, ()), start=1)
    ]


@cache
def original(name: str) -> bytes:
    """A sample, drawn when it is first asked for."""
    return SAMPLES[name]()


@cache
def bitmap(name: str) -> libvips.Image:
    """A sample as a watermark, as the service has them."""
    transform = Transform.from_query("frames=1").with_output("png")
    data = original(name)
    return pipeline.make_bitmap(data, [pipeline.prepare(data, transform, Limits())], Stop())


def page() -> str:
    """The text of docs/gallery.md."""
    parts = [
        "# Gallery",
        "<!-- Written by `make docs`, from docs/gallery.py and the table of options. -->",
        _ABOUT,
    ]
    seen = [option for option in OPTIONS if option.name in EXAMPLES]
    for step, options in groupby(seen, key=lambda option: option.step):
        parts.append(f"## {step.capitalize()}")
        for option in options:
            parts += _section(option)
    parts.append("## Not to be seen")
    hidden = [option for option in OPTIONS if option.name in INVISIBLE]
    parts.append("\n".join(f"- `{option.name}`: {option.help}" for option in hidden))
    return "\n\n".join(parts) + "\n"


def _section(option: Option) -> list[str]:
    rows = []
    shown = [example for example in examples() if example.option == option.name]
    for start in range(0, len(shown), _COLUMNS):
        some = shown[start : start + _COLUMNS]
        cells = [f"![{example.option}](gallery/{example.file.name})" for example in some]
        queries = ["`{}`".format(example.url.replace("|", r"\|")) for example in some]
        rows.append("\n".join(map(_row, (cells, [":---:"] * len(some), queries))))
    return [f"### `{option.name}`", option.help, *rows]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def alike(one: bytes, other: bytes) -> bool:
    """Whether two pictures have the same size and frames, and look the same but for their grain."""
    pictures = [_seen(data) for data in (one, other)]
    if len({(picture.width, picture.height) for picture in pictures}) > 1:
        return False
    return float((pictures[0] - pictures[1]).abs().max()) <= _ALIKE


def _seen(data: bytes) -> libvips.Image:
    """All frames of a picture with their alpha, each block as one pixel."""
    image = libvips.Image.webpload_buffer(data, n=-1)
    image = (image if image.hasalpha() else image.addalpha()).premultiply()
    return image.shrink(_BLOCK, _BLOCK, ceil=True)


def main() -> None:
    """Write the page, and those pictures that are missing or no longer look right."""
    FOLDER.mkdir(exist_ok=True)
    files = set()
    for example in examples():
        files.add(example.file)
        data = example.render().data
        if not example.file.exists() or not alike(example.file.read_bytes(), data):
            example.file.write_bytes(data)
    for file in FOLDER.iterdir():
        if file not in files:
            file.unlink()
    PAGE.write_text(page())
    print(f"{PAGE}: {len(files)} pictures, {sum(f.stat().st_size for f in files) / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
