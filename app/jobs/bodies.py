"""Bodies of requests, read into models: the first field that is wrong is told by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import InvalidRequest
from app.wording import sentence_of

_DEEPEST: Final = 64
"""Levels of lists and objects in a body: what is deeper could not be shown again."""
_LABEL: Final = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$"
_LONGEST_SHOWN: Final = 100
"""Characters that are shown of a value which is wrong."""

Label = Annotated[str, Field(pattern=_LABEL)]


class Body(BaseModel):
    """Base of what is posted: unknown names are refused, and no value is guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def validate(model: type[Any], body: Any, *, what: str = "The body") -> Any:
    """A body as a model. Raises InvalidRequest that names the first field that is wrong."""
    if not isinstance(body, dict):
        raise InvalidRequest(f"{what} must be a JSON object")
    _check_depth(body, what)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)) from None


def _refusal(errors: Sequence[Any]) -> InvalidRequest:
    """What is wrong with the first field that is.

    A field that may be of several kinds has errors of each. Those of its parts go before those of
    its kind, which must be the right one where it has such parts.
    """
    param = _path(errors[0])
    own = [error for error in errors if _is_at(param, _path(error))]
    param = max((_path(error) for error in own), key=len)
    own = [error for error in own if _path(error) == param]
    own = [error for error in own if not error["type"].endswith("_type")] or own
    match own[0]["type"]:
        case "missing":
            detail = f"{param} is needed"
        case "extra_forbidden":
            detail = f"{param} is not a field here"
        case "string_pattern_mismatch" if own[0]["ctx"]["pattern"] == _LABEL:
            detail = (
                f"{param} must have 1 to 64 letters, digits and ._:/-, and begin with a letter or "
                f"a digit, got {show(own[0]['input'])}"
            )
        case _:
            detail = f"{param} {sentence_of(own)}, got {show(own[0]['input'])}"
    return InvalidRequest(detail, param=param)


def _is_at(param: str, path: str) -> bool:
    """Whether a path is that of a field or of a part of it."""
    return path == param or path.startswith((f"{param}[", f"{param}."))


def show(value: Any) -> str:
    """A value as it is told of in an error."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _check_depth(body: Any, what: str) -> None:
    level = [body]
    for _ in range(_DEEPEST):
        values = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise InvalidRequest(f"{what} is nested more than {_DEEPEST} levels deep")


def _path(error: Mapping[str, Any]) -> str:
    """`outputs[0].target` of pydantic's location, without the names of its own alternatives."""
    location = error["loc"]
    # A name that is not known is the client's, whatever it is.
    given = len(location) - 1 if error["type"] == "extra_forbidden" else None
    shown = ""
    for number, part in enumerate(location):
        if isinstance(part, int):
            shown += f"[{part}]"
        elif number == given:
            shown += f".{part[:64]}" if shown else part[:64]
        elif re.fullmatch(r"[a-z_]+", part) and part not in ("str", "dict"):
            shown += f".{part}" if shown else part
    return shown
