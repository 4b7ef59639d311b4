"""OpenAPI from the option table: parameters, answers and error bodies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, urlencode

from pydantic import BaseModel

from routers.problems import MEDIA_TYPE
from transforms.formats import FORMATS
from transforms.options import OPTIONS

_OWN: Final[dict[str, dict[str, Any]]] = {
    "id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The original's id. It may hold slashes.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 1024},
        "example": "samples/landscape.jpg",
    },
    "url": {
        "name": "url",
        "in": "query",
        "required": True,
        "description": "Where the original is, on an allowed host.",
        "schema": {"type": "string", "format": "uri"},
        "example": "https://images.example.com/cat.jpg",
    },
    "v": {
        "name": "v",
        "in": "query",
        "description": "A version of the original, of your own making. The answer is then cached "
        "for a year: change it when the original changes.",
        "schema": {"type": "string"},
        "example": "7",
    },
    "job": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The job's id.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^/]+$"},
        "example": "01m86y9z9pz12s0jh091j5caeb",
    },
    "rule": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The rule's id, which is yours to choose.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,57}$"},
        "example": "thumbnails",
    },
    "token": {
        "name": "token",
        "in": "query",
        "description": "The token, for a store that can send it in no other way. What is in a URL "
        "is in logs, too.",
        "schema": {"type": "string"},
    },
    "schedule": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The schedule's id, of your own choice.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$"},
        "example": "nightly-cards",
    },
    "after": {
        "name": "cursor",
        "in": "query",
        "description": "Where the page begins: `next` of the page before has it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$"},
    },
    "state": {
        "name": "state",
        "in": "query",
        "description": "Only those in this state.",
        "schema": {
            "type": "string",
            "enum": ["queued", "running", "succeeded", "failed", "cancelled"],
        },
    },
    "label": {
        "name": "label",
        "in": "query",
        "description": "Only those with this label.",
        "schema": {"type": "string", "maxLength": 64},
    },
    "batch": {
        "name": "batch",
        "in": "query",
        "description": "Only those of this batch.",
        "schema": {"type": "string", "maxLength": 64},
    },
    "of_job": {
        "name": "job",
        "in": "query",
        "description": "Only those of this job.",
        "schema": {"type": "string", "maxLength": 64},
    },
    "delivery": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The delivery's id, which is also its `webhook-id`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^/]+$"},
        "example": "01m86y9z9pz12s0jh091j5caec",
    },
    "delivery_state": {
        "name": "state",
        "in": "query",
        "description": "Only those in this state.",
        "schema": {"type": "string", "enum": ["pending", "delivered", "failed"]},
    },
    "code": {
        "name": "code",
        "in": "query",
        "description": "Only those that ended in a problem of this code.",
        "schema": {"type": "string", "pattern": "^[a-z0-9_]{1,64}$"},
    },
    "digest": {
        "name": "digest",
        "in": "path",
        "required": True,
        "description": "The digest of the version of an original.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^/]+$"},
        "example": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "cursor": {
        "name": "cursor",
        "in": "query",
        "description": "Where the page begins: `next` of the page before has it.",
        "schema": {"type": "string", "pattern": "^[0-9a-z]{26}$"},
    },
    "digest_cursor": {
        "name": "cursor",
        "in": "query",
        "description": "Where the page begins: `next` of the page before has it.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    },
    "limit": {
        "name": "limit",
        "in": "query",
        "description": "How many of them a page has.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
    },
    "preset": {
        "name": "preset",
        "in": "query",
        "description": "A transform that the service has a name for; other parameters vary it as "
        "far as it allows.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    },
    "explain": {
        "name": "explain",
        "in": "query",
        "description": "Tell what the request comes to, as JSON, and render nothing.",
        "schema": {"type": "string", "enum": ["0", "1"]},
    },
    "gps": {
        "name": "gps",
        "in": "query",
        "description": "Tell where the picture was taken. Needs a bearer token.",
        "schema": {"type": "string", "enum": ["0", "1"]},
    },
    "colours": {
        "name": "colours",
        "in": "query",
        "description": "0: only what the header and the metadata say; nothing is decoded.",
        "schema": {"type": "string", "enum": ["0", "1"]},
    },
    "widths": {
        "name": "widths",
        "in": "query",
        "description": "The ladder of widths in pixels, separated by commas.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,3}(,[1-9][0-9]{0,3}){0,11}$"},
        "example": "320,640,1280",
    },
    "formats": {
        "name": "formats",
        "in": "query",
        "description": "Newer formats to offer before the one that every client shows.",
        "schema": {"type": "string", "pattern": "^(avif|webp)(,(avif|webp))?$"},
        "example": "avif,webp",
    },
    "sizes": {
        "name": "sizes",
        "in": "query",
        "description": "The `sizes` attribute: how wide the picture is shown.",
        "schema": {"type": "string", "maxLength": 500},
        "example": "(min-width: 800px) 50vw, 100vw",
    },
    "alt": {
        "name": "alt",
        "in": "query",
        "description": "The `alt` attribute.",
        "schema": {"type": "string", "maxLength": 500},
    },
    "ttl": {
        "name": "ttl",
        "in": "query",
        "description": "For how many seconds the signed URLs hold, and no longer than what the kit "
        "itself was signed for; without either for ever.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 31536000},
    },
    "warm": {
        "name": "warm",
        "in": "query",
        "description": "Render the whole kit now, from one decode. Needs a bearer token.",
        "schema": {"type": "string", "enum": ["0", "1"]},
    },
    "sig": {
        "name": "sig",
        "in": "query",
        "description": "The signature: key id, a dot, base64url of an HMAC-SHA256.",
        "schema": {"type": "string"},
    },
    "exp": {
        "name": "exp",
        "in": "query",
        "description": "The Unix time at which a signed URL expires.",
        "schema": {"type": "integer", "minimum": 0},
    },
}

OF_THUMB: Final = ("preset", "explain", "v", "sig", "exp")
OF_KIT: Final = (
    "preset",
    "widths",
    "formats",
    "sizes",
    "alt",
    "ttl",
    "warm",
    "v",
    "sig",
    "exp",
)
OF_INFO: Final = ("colours", "gps", "v", "sig", "exp")
_REQUESTS: Final = {"/thumb": OF_THUMB, "/kit": OF_KIT, "/info": OF_INFO}
"""What these requests say beside the transform, and beside which original they are about."""

PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "param": {"type": "string"},
        "suggestion": {"type": "string"},
        "retry_after": {"type": "integer"},
    },
    "example": {
        "type": "/problems/invalid_parameter",
        "title": "A parameter is invalid",
        "status": 400,
        "detail": "w must be 1 to 8192, got 0",
        "code": "invalid_parameter",
        "request_id": "9f86d081884c-1",
        "param": "w",
    },
}

_MEANINGS: Final = {
    400: "A parameter is invalid; `param` names it",
    401: "A bearer token is needed",
    403: "The signature is not valid, or the source is not allowed",
    404: "There is no such thing",
    408: "The body did not arrive in time",
    409: "Its state, or another request that is under way, does not allow this",
    413: "The original, or the body, is too large",
    415: "The original is of no supported format",
    422: "The original is broken, or an Idempotency-Key came with another body before",
    500: "The service failed",
    502: "The store or the origin failed",
    503: "Too busy: try again after `Retry-After` seconds",
    504: "The store, the origin or the render took too long",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The declared error answers of a route."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": PROBLEM_SCHEMA}},
        }
        for status in statuses
    }


_IMAGE: Final = {
    f.media_type: {"schema": {"type": "string", "format": "binary"}} for f in FORMATS.values()
}
RESULT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The result", "content": _IMAGE},
    206: {"description": "The part of the result that was asked for", "content": _IMAGE},
    304: {"description": "The client has it already"},
    416: {"description": "The range lies outside the result"},
    **problems(400, 403, 404, 409, 413, 415, 422, 502, 503, 504),
}


def own_parameters(*own: str) -> dict[str, Any]:
    """The parameters of a route that does not transform."""
    return {"parameters": [_OWN[name] for name in own]}


def parameters(*own: str) -> dict[str, Any]:
    """The parameters of a route that transforms: those named, and every row of the table."""
    table = [
        {
            "name": option.name,
            "in": "query",
            "required": False,
            "description": option.help,
            "schema": option.kind.schema(),
            "example": option.example,
        }
        for option in OPTIONS
    ]
    return {"parameters": [*(_OWN[name] for name in own), *table]}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON body as a model reads it. What its schema refers to stands where it is referred to.

    pydantic puts that beside the schema, where a reference of an OpenAPI document does not lead.
    """
    schema = model.model_json_schema()
    parts = {f"#/$defs/{name}": part for name, part in schema.pop("$defs", {}).items()}

    def inlined(value: Any) -> Any:
        if isinstance(value, list):
            return [inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        if (part := parts.get(value.get("$ref", ""))) is not None:
            return inlined({**part, **{n: v for n, v in value.items() if n != "$ref"}})
        return {name: inlined(item) for name, item in value.items()}

    content = {"application/json": {"schema": inlined(schema)}}
    return {"requestBody": {"required": True, "content": content}}


def link(path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A URL of this service."""
    query = urlencode(list(pairs), quote_via=quote, safe=",:|")
    return f"{path}?{query}" if query else path


def option_rows() -> list[dict[str, Any]]:
    """The option table as data, for `GET /schema` and for documentation."""
    return [
        {
            "name": option.name,
            "aliases": [name for name in option.spellings if name != option.name],
            "step": option.step,
            "help": option.help,
            "expects": option.kind.expects,
            "default": None if option.default is None else option.kind.show(option.default),
            "example": option.example,
            "schema": option.kind.schema(),
        }
        for option in OPTIONS
    ]


def request_rows() -> list[dict[str, Any]]:
    """What requests say beside the transform, as data, each with the routes that know it."""
    names = dict.fromkeys(["url", *(name for own in _REQUESTS.values() for name in own)])
    return [
        {
            "name": name,
            "routes": [path for path, own in _REQUESTS.items() if name == "url" or name in own],
            "help": _OWN[name]["description"],
            "example": _OWN[name].get("example"),
            "schema": _OWN[name]["schema"],
        }
        for name in names
    ]
