"""Facts from other image servers' own tests, said in Pixelmill's words.

A vector is one such fact: the size of a source, parameters in a peer's vocabulary, and what came
out. `translate` makes a `Case` of it, whose query asks Pixelmill for the same, or raises `Excluded`
with the name of a group in `GROUPS`, where the reason stands. There is one translator for each
peer. A word that a translator does not know is a KeyError: nothing is passed over in silence.

Some peers' words depend on the source (imgproxy's `auto`, thumbor's `orig`, alignments of a crop).
Their translators look at its size, as a caller who knows it would; none computes a result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from transforms.options import MAX_SIDE
from transforms.shapes import Size

Vector = dict[str, Any]
Query = dict[str, str]

GROUPS = {
    "no size": "Statuses, headers, signatures, addresses, SVG and colours: facts for other tests.",
    "refusals": "The peer refuses the request; what is refused here is for other tests.",
    "trim": "The border is in a picture not at hand, or a margin or another corner is asked for.",
    "effects": "An effect twice over in one request, or in CMYK, in which no result ends here.",
    "overlay": "The second picture cuts a shape out of the first; here it is laid on it.",
    "masks": "Stars, polygons and what surrounds them; here corners are rounded.",
    "arbitrary angle": "Here pictures turn by quarters only.",
    "two steps": "A crop or a turn follows the resize; in one request here, it comes before.",
    "aspect-ratio extend": "A canvas is given by its ratio alone; here it has a size.",
    "one-sided extend": "A canvas is given by one side; here it has two.",
    "fill-down on a canvas": "The box shrinks to the picture, and canvas or padding do not.",
    "padding of pixels": "The frame repeats or mirrors pixels; here it is of one colour.",
    "documents and drawings": "Icons, PDF and SVG, of which the page or density sets the size.",
    "format not written": "The size is that of an encoder that is not offered here.",
    "beyond the largest side": f"A side of more than {MAX_SIDE} pixels cannot be asked for.",
}


class Excluded(Exception):
    """The vector speaks of something that cannot be asked for here."""

    def __init__(self, group: str) -> None:
        super().__init__(f"{group}: {GROUPS[group]}")
        self.group = group


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The original: its size as stored, its EXIF orientation, its frames, its file if any."""

    stored: Size
    orientation: int
    frames: int
    file: str | None

    @property
    def upright(self) -> Size:
        return self.stored.turned if self.orientation >= 5 else self.stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A vector in Pixelmill's words."""

    id: str
    peer: str
    source: Source
    query: Query
    expect: Mapping[str, Any]
    tolerance: int
    """By how many pixels the place of a crop may differ."""
    mark: Size | None
    """The size of the watermark, where it is stated."""

    @property
    def trims(self) -> bool:
        """Whether only pixels can tell the size."""
        return "trim" in self.query and self.source.file in TRIMMED

    @property
    def frames(self) -> int | None:
        """How many frames are asked for, all there are, where it is more than one."""
        return int(self.query["frames"]) if "frames" in self.query else None

    def __str__(self) -> str:
        size = self.source.stored
        query = "&".join(f"{name}={value}" for name, value in self.query.items())
        return f"{size.width}x{size.height}?{query}"


def translate(vector: Vector) -> Case:
    """The vector as a case. Raises Excluded."""
    if vector.get("kind", "geometry") not in ("geometry", "position", "pixel"):
        raise Excluded("no size")
    if "status" in vector["expect"]:
        raise Excluded("refusals")
    given = vector["source"]
    # The few that state no size have a result that is the same for any source.
    size = Size(given["w"] or 640, given["h"] or 480)
    source = Source(
        stored=size,
        orientation=given.get("orientation") or 1,
        frames=given.get("pages") or 1,
        file=_file_name(vector),
    )
    query = _TRANSLATORS[vector["peer"]](vector, source)
    if any(int(query.get(side, 0)) > MAX_SIDE for side in ("w", "h")):
        raise Excluded("beyond the largest side")
    if "trim" in query and source.file not in TRIMMED and not _is_filled(query):
        raise Excluded("trim")
    return Case(
        id=vector["id"],
        peer=vector["peer"],
        source=source,
        query=query,
        expect=_of_one_frame(vector["expect"], query),
        tolerance=1 if "tolerance 1" in vector.get("note", "") else 0,
        mark=_mark_size(vector),
    )


TRIMMED = {
    "dancing-banana.gif",
    "Flag_of_the_Netherlands.png",
    "Flag_of_the_Netherlands-16bit.png",
    "Flag_of_the_Netherlands-alpha.png",
}
"""Pictures whose border is known: they are at hand, or can be drawn from what is said of them."""


def _is_filled(query: Query) -> bool:
    """Whether the result is as large as the box, whatever is put into it."""
    exact = query.get("fit") in ("contain", "cover", "fill") and query.get("enlarge") == "1"
    return exact and {"w", "h"} <= query.keys()


def _of_one_frame(expect: Mapping[str, Any], query: Query) -> Mapping[str, Any]:
    """The expectation with the height of one frame, where it is that of all of them together."""
    if "frames" not in query:
        return expect
    plain = {name: value for name, value in expect.items() if name not in _PAGE_HEIGHTS}
    if "h_is_page_height" not in expect:
        plain["h"] = expect.get("page_height", expect["h"] // int(query["frames"]))
    return plain


_PAGE_HEIGHTS = ("h_is_page_height", "page_height")


def _mark_size(vector: Vector) -> Size | None:
    stated = re.search(r"\(watermark image (\d+)x(\d+)\)", str(vector.get("options")))
    return Size(int(stated[1]), int(stated[2])) if stated else None


# What several translators need


def _file_name(vector: Vector) -> str | None:
    if vector["peer"] == "imagor":
        return str(vector["options"]).rsplit("/", 1)[-1]
    return vector["source"].get("file")


def _box(width: Any, height: Any) -> Query:
    """The sides that are given; 0, "", "0" and None mean that a side is not."""
    sides = {"w": width, "h": height}
    return {name: str(int(side)) for name, side in sides.items() if side and int(side)}


def _only(words: Iterable[str], known: Iterable[str], peer: str) -> None:
    unknown = set(words) - set(known)
    if unknown:
        raise KeyError(f"{peer} says {', '.join(sorted(unknown))}")


def _joined(parts: Iterable[Any]) -> str:
    return ",".join(str(part) for part in parts)


def _quarters(angle: Any) -> int:
    """Quarter turns clockwise."""
    if int(angle) % 90:
        raise Excluded("arbitrary angle")
    return int(angle) // 90 % 4


def _fraction(part: Decimal | float, whole: int = 1) -> str:
    return format((Decimal(part) / whole).quantize(Decimal("0.000001")), "f")


def _compass(*words: str) -> str:
    """A gravity named by edges in any order: ("right", "top") is northeast."""
    edges = {"top": "north", "bottom": "south", "left": "west", "right": "east"}
    named = [edges[word] for word in words if word in edges]
    named.sort(key=("north", "south", "west", "east").index)
    return "".join(named) or "center"


# imgproxy: name:argument:argument/name:argument. Fits, and does not enlarge unless told to.

_IMGPROXY_ALIASES = {"rs": "resize", "g": "gravity"}
_IMGPROXY_SAME = {
    "enlarge": "enlarge",
    "dpr": "dpr",
    "rotate": "rotate",
    "min-width": "min-w",
    "min-height": "min-h",
    "format": "fm",
}
_IMGPROXY_KNOWN = {
    *_IMGPROXY_SAME,
    *("resize", "width", "height", "zoom", "gravity", "crop", "extend", "extend_aspect_ratio"),
    *("padding", "background", "auto_rotate", "max_result_dimension"),
    "watermark",
    "preserve_hdr",  # depth, not size
}
_IMGPROXY_FITS = {"fit": "inside", "fill": "cover", "fill-down": "cover", "force": "fill"}
_IMGPROXY_GRAVITIES = {
    "ce": "center",
    "no": "north",
    "so": "south",
    "ea": "east",
    "we": "west",
    "noea": "northeast",
    "nowe": "northwest",
    "soea": "southeast",
    "sowe": "southwest",
}


def _imgproxy(vector: Vector, source: Source) -> Query:
    words = _imgproxy_words(vector["options"])
    if "trim" in words:
        raise Excluded("trim")  # none of the pictures is at hand
    _only(words, _IMGPROXY_KNOWN, "imgproxy")

    query = {ours: words[theirs][0] for theirs, ours in _IMGPROXY_SAME.items() if theirs in words}
    picture = source.upright
    if words.get("auto_rotate") == ["0"]:
        query["orient"] = "none"
        picture = source.stored
    if "crop" in words:
        query["crop"] = crop = _imgproxy_crop(words["crop"], picture)
        picture = Size(*(int(part) for part in crop.split(",")[2:]))
    if _quarters(query.get("rotate", 0)) % 2:
        picture = picture.turned
    if "gravity" in words:
        query["gravity"] = _imgproxy_gravity(words["gravity"])
    if "padding" in words:
        query["padding"] = _joined(words["padding"])
    if "background" in words:
        colour = words["background"]
        query["background"] = f"rgb({_joined(colour)})" if len(colour) == 3 else colour[0]
    if "watermark" in words:
        query["watermark"] = _imgproxy_watermark(*words["watermark"])
    if "max_result_dimension" in words:
        query["max-w"] = query["max-h"] = words["max_result_dimension"][0]
    return _imgproxy_resize(words, query, picture)


def _imgproxy_words(options: str) -> dict[str, list[str]]:
    plain = re.sub(r"\(.*\)", "", options).strip()  # remarks stand in brackets
    words = {}
    for part in filter(None, plain.split("/")):
        name, *arguments = part.split(":")
        words[_IMGPROXY_ALIASES.get(name, name)] = arguments
    return words


def _imgproxy_gravity(arguments: list[str]) -> str:
    # Offsets may follow. They are not an option here, and no size depends on them.
    if arguments[0] == "fp":
        return _joined(arguments[1:3])
    return _IMGPROXY_GRAVITIES[arguments[0]]


def _imgproxy_watermark(opacity: str, place: str, x: str = "0", y: str = "0") -> str:
    gravity = _IMGPROXY_GRAVITIES[place]
    return f"mark.png,opacity={opacity},gravity={gravity},x={x},y={y}"


def _imgproxy_crop(arguments: list[str], picture: Size) -> str:
    """The crop as a box: imgproxy gives its size, a gravity and offsets from there."""
    width, height, gravity, *offsets = arguments
    name = _IMGPROXY_GRAVITIES[gravity]
    across, down = (int(offset) for offset in offsets or ("0", "0"))
    rest = Size(picture.width - int(width), picture.height - int(height))
    # Its centre may be a pixel past the middle: (rest + 1) / 2, a half rounded to even.
    left = rest.width if "east" in name else 0 if "west" in name else round((rest.width + 1) / 2)
    top = rest.height if "south" in name else 0 if "north" in name else round((rest.height + 1) / 2)
    return _joined((left + across, top + down, width, height))


def _imgproxy_resize(words: dict[str, list[str]], query: Query, picture: Size) -> Query:
    mode, *sides = words.get("resize", ["fit", "0", "0"])
    zoom = Decimal(words.get("zoom", ["1"])[0])
    width = int(zoom * int(words.get("width", sides)[0]))
    height = int(zoom * int(words.get("height", sides[1:])[0]))
    if mode == "auto":
        alike = (width >= height) == (picture.width >= picture.height)
        mode = "fill" if alike else "fit"

    query |= {"fit": _IMGPROXY_FITS[mode], **_box(width, height)}
    wider, higher = width > picture.width, height > picture.height
    if query.get("enlarge") == "1":
        wider = higher = False  # the picture grows with the box
    if mode == "fill-down" and width and height and (wider or higher):
        if "extend" in words or "padding" in query:
            raise Excluded("fill-down on a canvas")
        # The box shrinks until the picture covers it: a cover that never exceeds the picture.
        query["enlarge"] = "1"
        for bound, side in (("max-w", picture.width), ("max-h", picture.height)):
            query[bound] = str(min(side, int(query.get(bound, side))))
    elif "extend" in words and (wider or higher) and not (width and height):
        raise Excluded("one-sided extend")
    elif "extend_aspect_ratio" in words and wider and higher:
        raise Excluded("aspect-ratio extend")
    elif width and height:
        query |= _imgproxy_canvas(words, query)
    return query


def _imgproxy_canvas(words: dict[str, list[str]], query: Query) -> Query:
    """A canvas as large as the box, which is also what its ratio gives round what fills a side."""
    on, *gravity = words.get("extend", words.get("extend_aspect_ratio", ["0"]))
    if on != "1":
        return {}
    canvas = (
        {"fit": "contain"} if query["fit"] == "inside" else {"extent": f"{query['w']}x{query['h']}"}
    )
    return canvas | ({"gravity": _imgproxy_gravity(gravity)} if gravity else {})


# imagor: segments of a path, the file last. Without a word it covers, and enlarges.

_IMAGOR = re.compile(
    r"""
    (?P<trim>trim(?::(?P<corner>[a-z-]+))?(?::(?P<tolerance>\d+))?/)?
    (?:(?P<crop>[\d.]+x[\d.]+:[\d.]+x[\d.]+)/)?
    (?P<adaptive>adaptive-)?(?P<full>full-)?(?P<fit_in>fit-in/)?(?P<stretch>stretch/)?
    (?:(?P<w>\d*)x(?P<h>\d*)/)?
    (?:(?P<across>\d+)x(?P<down>\d+)/)?
    (?P<alignment>(?:(?:left|right|top|bottom|center|middle)/)*)
    (?:filters:(?P<filters>[^/]*)/)?
    [^/]+
    """,
    re.VERBOSE,
)
_IMAGOR_FILTERS = {
    *("fill", "focal", "format", "proportion", "rotate", "upscale", "no_upscale", "stretch"),
    *("grayscale", "pixelate"),
    *("quality", "strip_icc"),  # the vectors' own note says: no change of size
}
_IMAGOR_EXCLUDED = {"crop": "two steps", "invert": "effects"}


def _imagor(vector: Vector, source: Source) -> Query:
    filters = re.findall(r"(\w+)\(([^)]*)\)", vector["options"])
    said = dict(filters)
    _exclude_from_imagor(vector["options"], said)
    path = _IMAGOR.fullmatch(vector["options"])
    if path is None:
        raise KeyError(f"imagor says {vector['options']}")

    query = _imagor_fit(path, said)
    if path["trim"]:
        query["trim"] = path["tolerance"] or "1"
    if path["crop"]:
        query["crop"] = _imagor_crop(path["crop"])
    if "grayscale" in said:
        query["grayscale"] = "1"
    if "pixelate" in said:
        query["pixelate"] = said["pixelate"]
    if path["alignment"]:
        query["gravity"] = _compass(*path["alignment"].split("/"))
    if "focal" in said:
        query["gravity"] = said["focal"].replace("x", ",")
    if "proportion" in said:
        query["dpr"] = _fraction(Decimal(said["proportion"]), 100)
    if "fill" in said:
        query["background"] = said["fill"]
    turn = sum(_quarters(angle) for name, angle in filters if name == "rotate") % 4
    return query | _imagor_box(path, source, turn=turn, framed="fill" in said)


def _exclude_from_imagor(options: str, said: Mapping[str, str]) -> None:
    for name, group in _IMAGOR_EXCLUDED.items():
        if name in said:
            raise Excluded(group)
    if options.startswith("trim:bottom-right"):
        raise Excluded("trim")
    if said.get("format") == "heif":
        raise Excluded("format not written")
    _only(said, _IMAGOR_FILTERS, "imagor")


def _imagor_box(path: re.Match[str], source: Source, *, turn: int, framed: bool) -> Query:
    """The box and the frame round it. imagor turns both, with the picture in them.

    Here the picture is turned first, and the sides are those of the turned picture.
    """
    box = [int(path["w"] or 0), int(path["h"] or 0)]
    frame = [path["down"] or "0", path["across"] or "0"] if framed else []
    upright = source.upright
    if path["adaptive"] and (box[0] > box[1]) != (upright.width > upright.height):
        box.reverse()
    if turn % 2:
        box.reverse()
        frame.reverse()
    query = _box(*box)
    if turn:
        query["rotate"] = str(90 * turn)
    if frame:
        query["padding"] = _joined(frame)
    return query


def _imagor_fit(path: re.Match[str], said: Mapping[str, str]) -> Query:
    if path["stretch"] or "stretch" in said:
        return {"fit": "fill", "enlarge": "1"}
    if path["full"]:
        return {"fit": "outside", "enlarge": "1"}
    if path["fit_in"]:
        fit = "contain" if "fill" in said else "inside"
        return {"fit": fit, "enlarge": "1" if "upscale" in said else "0"}
    return {"fit": "cover", "enlarge": "0" if "no_upscale" in said else "1"}


def _imagor_crop(corners: str) -> str:
    """Left, top, right and bottom, in pixels or all in 0..1, as a box."""
    left, top, right, bottom = (Decimal(part) for part in re.split("[x:]", corners))
    return _joined((left, top, right - left, bottom - top))


# thumbor: it covers unless told to fit in, and enlarges unless it fits in.


def _thumbor(vector: Vector, source: Source) -> Query:
    params = vector["params"]
    size = source.stored
    _only(
        params,
        ("w", "h", "halign", "valign", "fit", "focal_points", "fit_in", "full"),
        "thumbor",
    )
    sides = {"w": size.width, "h": size.height}
    query = _box(
        *(whole if params[side] == "orig" else params[side] for side, whole in sides.items())
    )
    query["fit"] = params["fit"]
    query["enlarge"] = "0" if params["fit"] == "inside" else "1"
    query["gravity"] = _compass(params["halign"], params["valign"])
    if points := params.get("focal_points"):
        x = sum(Decimal(point["x"]) for point in points) / len(points)
        y = sum(Decimal(point["y"]) for point in points) / len(points)
        query["gravity"] = f"{_fraction(x, size.width)},{_fraction(y, size.height)}"
    if box := vector["expect"]["crop_source_px"]:
        # thumbor's tests hand the box that they expect to the request, as its own crop. It is cut
        # before the alignment or focal point has a say.
        query["crop"] = _corners(*(box[side] for side in ("left", "top", "right", "bottom")))
    return query


def _corners(left: float, top: float, right: float, bottom: float) -> str:
    return _joined(int(part) for part in (left, top, right - left, bottom - top))


# weserv: it fits inside and enlarges, unless `we` is given.

_WESERV_FITS = {
    "fit": ("inside", "0"),
    "fitup": ("inside", "1"),
    "square": ("cover", "1"),
    "squaredown": ("cover", "0"),
    "absolute": ("fill", "1"),
    "letterbox": ("contain", "1"),
}
"""What `t` was before there was `fit`: the fit, and whether it enlarges."""
_WESERV_CROP = {"cx", "cy", "cw", "ch"}
_WESERV_KNOWN = {
    *("w", "h", "fit", "t", "we", "a", "fpx", "fpy", "crop", "ro", "bg", "cbg", "page"),
    *("output", "q", "n", "trim", "mask", "mbg", "mtrim"),
    *("blur", "bri", "con", "filt", "gam", "hue", "mod", "sat", "sharp", "sharpf", "sharpj"),
    "tint",
}
_WESERV_FILTERS = {
    "greyscale": {"grayscale": "1"},
    "duotone": {"duotone": "c83658,d8e74f"},  # its defaults
    "negate": {"invert": "1"},
}
_LETTERS = {"t": "top", "b": "bottom", "l": "left", "r": "right"}


def _weserv(vector: Vector, source: Source) -> Query:
    params = vector["params"]
    _exclude_from_weserv(params, source)
    _only(params, _WESERV_KNOWN | _WESERV_CROP, "weserv")

    fit, enlarge = _WESERV_FITS.get(params.get("t"), (params.get("fit", "inside"), "1"))
    query = {"fit": fit, "enlarge": "0" if "we" in params else enlarge}
    query |= _box(params.get("w"), params.get("h"))
    if "crop" in params:
        width, height, left, top = params["crop"].split(",")
        query["crop"] = _joined((left, top, width, height))
    if "cx" in params:
        whole = {"cy": 0, "cw": source.upright.width, "ch": source.upright.height}
        query["crop"] = _joined({**whole, **params}[name] for name in ("cx", "cy", "cw", "ch"))
    if "trim" in params:
        query["trim"] = params["trim"]
    if params.get("n") == "-1":
        query["frames"] = str(source.frames)
    if "mask" in params:
        query |= _weserv_mask(params)
    if turn := _quarters(params.get("ro", 0)):
        query["rotate"] = str(90 * turn)
    if "page" in params:
        query["page"] = params["page"]
    if "output" in params:
        query["fm"] = params["output"]
    if params.get("a"):
        query["gravity"] = _weserv_gravity(params)
    if "bg" in params:
        query["background"] = _weserv_colour(params["bg"])
    elif fit == "contain":
        query["background"] = _weserv_colour(params.get("cbg", "none"))
    return query | _weserv_effects(params)


def _weserv_mask(params: Mapping[str, str]) -> Query:
    """A circle in the middle of what fills the box, cut to the circle."""
    if params["mask"] != "circle" or params.get("mtrim") != "true":
        raise Excluded("masks")
    side = min(int(params["w"]), int(params["h"]))
    return {"extent": f"{side}x{side}", "round": "full"}


def _weserv_effects(params: Mapping[str, str]) -> Query:
    same = {"bri": "brightness", "con": "contrast", "hue": "hue", "tint": "tint"}
    query = {ours: params[theirs] for theirs, ours in same.items() if theirs in params}
    if "blur" in params:  # "true" is a box of three pixels, whose deviation is that
        query["blur"] = {"true": "0.8165"}.get(params["blur"], params["blur"])
    if "filt" in params:
        query |= _WESERV_FILTERS[params["filt"]]
    if "gam" in params:
        query["gamma"] = _gamma(params["gam"])
    if "mod" in params:  # all values are multiplied
        query["level"] = f"0,{_fraction(100 / Decimal(params['mod']))}"
    if "sat" in params:
        query["saturation"] = _fraction(100 * (Decimal(params["sat"]) - 1))
    if "sharp" in params:
        query["sharpen"] = _weserv_sharpen(params)
    return query


def _weserv_sharpen(params: Mapping[str, str]) -> str:
    """Sigma and the slope for edges. There is no other for flat areas here."""
    given = params["sharp"].split(",")
    if given == ["true"]:
        return ""
    sigma, jagged = (given[2], given[1]) if len(given) == 3 else (given[0], params["sharpj"])
    return f"{sigma},{jagged}"


def _gamma(before: Decimal | str, after: Decimal | str | None = None) -> str:
    """One gamma for two: pictures are darkened by the first, resized, and lightened by the other.

    The other is the same unless it is given: then the resize alone is done in that gamma.
    """
    return _fraction(Decimal(after or before) / Decimal(before))


def _exclude_from_weserv(params: Mapping[str, str], source: Source) -> None:
    if (source.file or "").endswith((".ico", ".pdf", ".svg")):
        raise Excluded("documents and drawings")
    _quarters(params.get("ro", 0))
    if _WESERV_CROP & params.keys() and {"w", "h"} & params.keys():
        raise Excluded("two steps")


def _weserv_gravity(params: Mapping[str, str]) -> str:
    place = params["a"]
    if place == "focal":
        return f"{params.get('fpx', '0.5')},{params.get('fpy', '0.5')}"
    if place in ("entropy", "attention"):
        return place
    return _compass(*_LETTERS.get(place, place).split("-"))


def _weserv_colour(text: str) -> str:
    """Its eight digits begin with the alpha, ours end with it."""
    return text[2:] + text[:2] if re.fullmatch("[0-9A-Fa-f]{8}", text) else text


# sharp: a chain of calls. Covers, enlarges, and leaves pictures as they are stored.

_SHARP_EXCLUDED = {"composite": "overlay", "toColourspace": "effects"}
_SHARP_OUTPUTS = ("jpeg", "png", "webp", "toFormat")
_SHARP_RESIZE = {
    *("op", "w", "h", "fit", "position", "background"),
    *("withoutEnlargement", "withoutReduction"),
}
_UPRIGHT_AFTER = {1: "6", 2: "3", 3: "8"}
"""The EXIF orientation that lays a picture down as so many quarter turns do."""


def _sharp(vector: Vector, source: Source) -> Query:
    params = dict(vector["params"])
    opened = params.pop("input", "")
    if "density" in opened:
        raise Excluded("documents and drawings")
    moves = "pages: -1" in opened or params.pop("pages", None) == -1
    chain = params.get("ops", [{"op": "resize", **params}])
    calls = [call for call in chain if call["op"] not in _SHARP_OUTPUTS]
    for call in calls:
        if call["op"] in _SHARP_EXCLUDED:
            raise Excluded(_SHARP_EXCLUDED[call["op"]])
        if call["op"] == "rotate":
            _quarters(call["args"][0])

    query = {"orient": "none", **({"frames": str(source.frames)} if moves else {})}
    if [call["op"] for call in calls[:2]] == ["rotate", "extract"]:
        # A crop counts in the upright picture: a turn before it is one to stand upright.
        query["orient"] = _UPRIGHT_AFTER[_quarters(calls[0]["args"][0])]
        calls = calls[1:]
    if not _in_our_order([call["op"] for call in calls]):
        raise Excluded("two steps")
    for call in calls:
        query |= _SHARP_CALLS[call["op"]](call, query, source)
    return query


def _in_our_order(names: list[str]) -> bool:
    order = ("trim", "autoOrient", "extract", "flip", "flop", "rotate", "resize", "gamma", "extend")
    if "rotate" not in names:  # then it is the same whether the picture is mirrored first or last
        names = [name for name in names if name not in ("flip", "flop")]
    places = [order.index(name) for name in names]
    return places == sorted(set(places))


def _sharp_flip(call: dict[str, Any], query: Query, source: Source) -> Query:
    del source
    added = {"flip": "v", "flop": "h"}[call["op"]]
    return {"flip": "hv" if "flip" in query else added}


def _sharp_trim(call: dict[str, Any], query: Query, source: Source) -> Query:
    del query, source
    border = call["args"][0] if call["args"] else {}
    if "margin" in border:
        raise Excluded("trim")
    colour = [border["background"]] if "background" in border else []
    return {"trim": _joined((border.get("threshold", 10), *colour))}


def _sharp_gamma(call: dict[str, Any], query: Query, source: Source) -> Query:
    del query, source
    return {"gamma": _gamma(*(Decimal(str(number)) for number in call["args"]))}


def _sharp_extract(call: dict[str, Any], query: Query, source: Source) -> Query:
    del query, source
    box = call["args"][0]
    return {"crop": _joined(box[side] for side in ("left", "top", "width", "height"))}


def _sharp_extend(call: dict[str, Any], query: Query, source: Source) -> Query:
    del query, source
    frame = call["args"][0]
    if frame.get("extendWith", "background") != "background":
        raise Excluded("padding of pixels")
    padding = _joined(frame.get(side, 0) for side in ("top", "right", "bottom", "left"))
    return {"padding": padding, "background": _sharp_colour(frame.get("background", "black"))}


def _sharp_resize(call: dict[str, Any], query: Query, source: Source) -> Query:
    del query
    _only(call, _SHARP_RESIZE, "sharp")
    size = source.upright
    if call.get("withoutReduction") and (
        call.get("w", size.width) < size.width or call.get("h", size.height) < size.height
    ):
        raise KeyError("sharp says withoutReduction where it matters")
    place = call.get("position", "center")
    resized = {
        "fit": call["fit"],
        "enlarge": "0" if call.get("withoutEnlargement") else "1",
        # Two edges stand apart ("right top"), and compass points and strategies are our words.
        "gravity": _compass(*place.split()) if " " in place else place,
        **_box(call.get("w"), call.get("h")),
    }
    if call["fit"] == "contain":
        resized["background"] = _sharp_colour(call.get("background", "black"))
    return resized


def _sharp_colour(colour: str | dict[str, float]) -> str:
    if isinstance(colour, str):
        return colour
    return f"rgba({colour['r']},{colour['g']},{colour['b']},{colour['alpha']})"


_SHARP_CALLS: dict[str, Callable[[dict[str, Any], Query, Source], Query]] = {
    "trim": _sharp_trim,
    "gamma": _sharp_gamma,
    "autoOrient": lambda _call, _query, _source: {"orient": "auto"},
    "rotate": lambda call, _query, _source: {"rotate": str(call["args"][0])},
    "extract": _sharp_extract,
    "flip": _sharp_flip,
    "flop": _sharp_flip,
    "resize": _sharp_resize,
    "extend": _sharp_extend,
}


# IIIF: region, size and rotation. A caret lets it enlarge.


def _iiif(vector: Vector, _source: Source) -> Query:
    params = vector["params"]
    _only(params, ("region", "size", "rotation"), "iiif")
    size = params["size"].removeprefix("^")
    query = {"enlarge": "1" if params["size"].startswith("^") else "0"}
    if turn := _quarters(params.get("rotation", 0)):
        query["rotate"] = str(90 * turn)
    if params["region"] != "full":
        percents = params["region"].removeprefix("pct:").split(",")
        query["crop"] = _joined(_fraction(Decimal(part), 100) for part in percents)
    if size.startswith("pct:"):
        query["dpr"] = _fraction(Decimal(size.removeprefix("pct:")), 100)
    elif size != "max":
        width, height = size.removeprefix("!").split(",")
        query |= _box(width, height)
        query["fit"] = "inside" if "!" in size else "fill" if width and height else "inside"
    return query


# imaginary: an endpoint and its parameters.

_IMAGINARY_FITS = {
    "fit": ("inside", "0"),
    "resize": ("contain", "1"),
    "crop": ("cover", "1"),
    "enlarge": ("cover", "1"),
}


def _imaginary(vector: Vector, source: Source) -> Query:
    params = dict(vector["params"])
    endpoint = params.pop("endpoint")
    if endpoint == "pipeline":
        first, convert = params["operations"]
        endpoint, params = first["operation"], {**first["params"], "fm": convert["params"]["type"]}
    if endpoint == "extract":
        sides = ("left", "top", "areawidth", "areaheight")
        _only(params, sides, "imaginary")
        return {"crop": _joined(params[side] for side in sides)}
    _only(params, ("width", "height", "nocrop", "fm"), "imaginary")
    fit, enlarge = _IMAGINARY_FITS[endpoint]
    size = {"width": source.upright.width, "height": source.upright.height}
    if params.get("nocrop") is False:
        fit, params = "cover", {**size, **params}  # a side that is not given stays as it is
    box = _box(params.get("width"), params.get("height"))
    return {
        "fit": fit,
        "enlarge": enlarge,
        **box,
        **({"fm": params["fm"]} if "fm" in params else {}),
    }


# nginx's image_filter: directives. Never enlarges.


def _nginx(vector: Vector, _source: Source) -> Query:
    words = {}
    for directive in vector["params"]["directive"].split(" + "):
        name, *arguments = directive.split()
        words[name] = arguments
    _only(words, ("resize", "crop", "rotate"), "nginx")
    query = {}
    turn = _quarters(words["rotate"][0]) if "rotate" in words else 0
    if turn:
        query["rotate"] = str(90 * turn)
    if "crop" in words and turn:
        raise Excluded("two steps")  # it resizes, turns, and cuts what is turned
    if fit := next((name for name in ("resize", "crop") if name in words), None):
        sides = [None if side == "-" else side for side in words[fit]]
        # It turns after the resize; here the sides are those of the turned picture.
        query |= _box(*(reversed(sides) if turn % 2 else sides))
        query["fit"] = {"resize": "inside", "crop": "cover"}[fit]
    return query


# Peers that say w, h and fit.

_CLOUDFLARE_FITS = {
    "scale-down": ("inside", "0"),
    "contain": ("inside", "1"),
    "cover": ("cover", "1"),
    "crop": ("cover", "0"),
    "pad": ("contain", "1"),
    "squeeze": ("fill", "1"),
}


def _cloudflare(vector: Vector, _source: Source) -> Query:
    params = vector["params"]
    _only(params, ("width", "height", "fit"), "cloudflare")
    fit, enlarge = _CLOUDFLARE_FITS[params["fit"]]
    return {"fit": fit, "enlarge": enlarge, **_box(params["width"], params["height"])}


def _plain(vector: Vector, _source: Source) -> Query:
    params = vector["params"]
    _only(params, ("w", "h", "fit"), vector["peer"])
    fit = {"fit": params["fit"]} if "fit" in params else {}
    return {"enlarge": "1", **fit, **_box(params.get("w"), params.get("h"))}


_TRANSLATORS: dict[str, Callable[[Vector, Source], Query]] = {
    "imgproxy": _imgproxy,
    "imagor": _imagor,
    "thumbor": _thumbor,
    "weserv": _weserv,
    "sharp": _sharp,
    "iiif": _iiif,
    "imaginary": _imaginary,
    "nginx-image_filter": _nginx,
    "cloudflare": _cloudflare,
    "libvips": _plain,
    "glide": _plain,
    "imgix": _plain,
}
