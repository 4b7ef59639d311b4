"""What object stores tell of their objects, read from the shapes in which they tell it.

- S3's notification (docs.aws.amazon.com, "Event message structure"), which MinIO and Ceph send too,
  by itself or in an envelope of SNS ("Parsing Amazon SNS message formats").
- S3's events by way of EventBridge ("EventBridge event message structure").
- The webhook of SeaweedFS's filer, which tells of files and folders below `/buckets/`.

Nothing here is trusted: what has none of the shapes, or breaks one, is an InvalidRequest.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote_plus

from app.errors import InvalidRequest

MOST_RECORDS: Final = 1000
"""Records of one message. S3 sends one or a few."""
_ENVELOPES: Final = 3
"""How deep messages lie within messages: SNS within SQS, and one to spare."""
_LONGEST: Final = 4096
"""Characters of a key before it is decoded."""
_BUCKETS: Final = "/buckets/"
_VERSION: Final = re.compile(r"[\x21-\x7e]{1,256}")
_SEQUENCER: Final = re.compile(r"[0-9A-Fa-f]{1,64}")
_CEPH_SEQUENCER: Final = re.compile(r"[0-9A-Fa-f]{16}")

_REMOVED: Final = (
    "ObjectRemoved",
    "LifecycleExpiration",
    "LifecycleDelMarkerExpiration",
    "ObjectLifecycle:Expiration",
)
_OF_OTHER_VERSIONS: Final = (
    "ObjectLifecycle:Expiration:NonCurrent",
    "ObjectLifecycle:Expiration:AbortMultipartUpload",
)
"""Ceph's for what was not what a GET answers."""
_EVENT_BRIDGE: Final = {"Object Created": "ObjectCreated", "Object Deleted": "ObjectRemoved"}


class Kind(StrEnum):
    """What has happened to an object."""

    CREATED = "created"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEvent:
    """One object that was written or removed.

    `version` is the ETag without its quotes, which is what the store of originals calls a version.
    Of two events of one key, the later has the greater `sequencer` as a hexadecimal number.
    """

    bucket: str
    key: str
    kind: Kind
    version: str | None = None
    sequencer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one message says. `ignored` counts what is about other things than those.

    `confirm` is a URL of SNS to be asked for, so that messages come at all.
    """

    events: tuple[StoreEvent, ...] = ()
    ignored: int = 0
    confirm: str | None = None


def read_message(text: str | bytes) -> Message:
    """Read a message as it came. Raises InvalidRequest that names what is wrong."""
    return parse(_loaded(text, "The message"))


def parse(document: Any) -> Message:
    """Read a message that is JSON already. Raises InvalidRequest that names what is wrong."""
    return _parse(document, _ENVELOPES)


def _parse(document: Any, depth: int) -> Message:
    if not isinstance(document, dict):
        raise InvalidRequest("The message must be a JSON object")
    match document:
        case {"Type": "Notification", "TopicArn": _}:
            if not depth:
                raise InvalidRequest("Message: too many envelopes", param="Message")
            return _parse(_loaded(_text(document, "Message", most=1 << 20), "Message"), depth - 1)
        case {"Type": "SubscriptionConfirmation"}:
            return Message(confirm=_text(document, "SubscribeURL", most=_LONGEST))
        case {"Type": "UnsubscribeConfirmation"} | {"Event": "s3:TestEvent"}:
            return Message(ignored=1)
        case {"Records": records}:
            return _parse_records(records)
        case {"detail-type": kind, "detail": detail}:
            return _message([_read_event_bridge(kind, detail)])
        case {"event_type": _, "key": _, "message": message}:
            return _message(_read_filer(document, message))
    raise InvalidRequest(
        "The message is none of S3, SNS, EventBridge, MinIO, Ceph or SeaweedFS: it has no Records"
    )


def _parse_records(records: Any) -> Message:
    if not isinstance(records, list):
        raise InvalidRequest("Records must be a list", param="Records")
    if len(records) > MOST_RECORDS:
        raise InvalidRequest(f"Records: at most {MOST_RECORDS}", param="Records")
    return _message([_read_record(r, f"Records[{n}]") for n, r in enumerate(records)])


def _message(found: list[StoreEvent | None]) -> Message:
    events = tuple(event for event in found if event is not None)
    return Message(events=events, ignored=len(found) - len(events))


def _read_record(record: Any, where: str) -> StoreEvent | None:
    """A record of S3, MinIO or Ceph. None where it is about something else."""
    kind = _kind_of(_text(record, "eventName", where))
    if kind is None:
        return None
    source = record.get("eventSource")
    s3 = _object(record, "s3", where)
    found = _object(s3, "object", f"{where}.s3")
    where_object = f"{where}.s3.object"
    key = _text(found, "key", where_object, most=_LONGEST)
    sequencer = _sequencer(found.get("sequencer"))
    if source == "ceph:s3":
        # It writes keys as they are, and the bytes of two little-endian numbers for a sequencer.
        sequencer = _ceph_sequencer(sequencer)
    else:
        key = _decoded(key, where_object)
    return StoreEvent(
        bucket=_text(_object(s3, "bucket", f"{where}.s3"), "name", f"{where}.s3.bucket"),
        key=key,
        kind=kind,
        # `etag` was Ceph's spelling before its release Octopus.
        version=_version(found.get("eTag") or found.get("etag"), f"{where_object}.eTag"),
        sequencer=sequencer,
    )


def _read_event_bridge(name: Any, detail: Any) -> StoreEvent | None:
    kind = _kind_of(_EVENT_BRIDGE.get(name, "") if isinstance(name, str) else "")
    if kind is None:
        return None
    found = _object(detail, "object", "detail")
    return StoreEvent(
        bucket=_text(_object(detail, "bucket", "detail"), "name", "detail.bucket"),
        key=_text(found, "key", "detail.object", most=_LONGEST),
        kind=kind,
        version=_version(found.get("etag"), "detail.object.etag"),
        sequencer=_sequencer(found.get("sequencer")),
    )


def _read_filer(document: Mapping[str, Any], message: Any) -> list[StoreEvent | None]:
    """What SeaweedFS tells of a file: two things where it was moved, else one."""
    message = _mapping(message)
    name, path = document["event_type"], _text(document, "key", most=_LONGEST)
    old, new = _mapping(message.get("old_entry")), _mapping(message.get("new_entry"))
    match name:
        case "create" | "update":
            return [_filer_event(path, new, Kind.CREATED, sequencer=_filer_sequencer(new))]
        case "delete":
            return [_filer_event(path, old, Kind.REMOVED)]
        case "rename":
            # The key is where it was, and its times are as they were.
            to = f"{message.get('new_parent_path')}/{new.get('name')}"
            return [
                _filer_event(path, old, Kind.REMOVED),
                _filer_event(to, new, Kind.CREATED),
            ]
    return [None]


def _filer_event(
    path: str, entry: Mapping[str, Any], kind: Kind, *, sequencer: str | None = None
) -> StoreEvent | None:
    """None for folders, for what is in no bucket, and for what the filer keeps for itself."""
    bucket, _, key = path.removeprefix(_BUCKETS).partition("/")
    own = bucket.startswith(".") or key.startswith(".uploads/")
    if not path.startswith(_BUCKETS) or not key or own or entry.get("is_directory"):
        return None
    return StoreEvent(
        bucket=bucket,
        key=key,
        kind=kind,
        version=_filer_version(entry),
        sequencer=sequencer,
    )


def _filer_version(entry: Mapping[str, Any]) -> str | None:
    """The ETag that its S3 side answers with: kept as base64 of its text, or of an MD5's bytes."""
    try:
        if isinstance(etag := _mapping(entry.get("extended")).get("Seaweed-X-Amz-ETag"), str):
            text = base64.b64decode(etag, validate=True).decode("ascii").strip('"')
            return text if _VERSION.fullmatch(text) else None
        if isinstance(md5 := _mapping(entry.get("attributes")).get("md5"), str):
            return base64.b64decode(md5, validate=True).hex() or None
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequest("message: the ETag is not base64", param="message") from None
    return None


def _filer_sequencer(entry: Mapping[str, Any]) -> str | None:
    """Nanoseconds of the youngest chunk, or else of the file."""
    attributes, chunks = _mapping(entry.get("attributes")), entry.get("chunks")
    seconds, rest = attributes.get("mtime"), attributes.get("mtime_ns")
    times = [
        _mapping(c).get("modified_ts_ns") for c in (chunks if isinstance(chunks, list) else ())
    ]
    if not times and isinstance(seconds, int):
        times = [seconds * 10**9 + (rest if isinstance(rest, int) else 0)]
    known = [time for time in times if isinstance(time, int) and 0 < time < 1 << 64]
    return f"{max(known):x}" if known else None


def _kind_of(name: str) -> Kind | None:
    name = name.removeprefix("s3:").removeprefix("ceph:")
    if name.startswith("ObjectCreated"):
        return Kind.CREATED
    if name.startswith(_REMOVED) and not name.startswith(_OF_OTHER_VERSIONS):
        return Kind.REMOVED
    return None


def _ceph_sequencer(text: str | None) -> str | None:
    """Seconds and nanoseconds, each of four bytes, in the order of their weight."""
    if text is None or not _CEPH_SEQUENCER.fullmatch(text):
        return None
    raw = bytes.fromhex(text)
    return (raw[3::-1] + raw[:3:-1]).hex()


def _decoded(key: str, where: str) -> str:
    """A key that is written as in a form: `+` for a space, and percent for the rest."""
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{where}.key is not UTF-8", param=f"{where}.key") from None


def _sequencer(value: Any) -> str | None:
    return value if isinstance(value, str) and _SEQUENCER.fullmatch(value) else None


def _version(value: Any, param: str) -> str | None:
    if value is None or value == "":
        return None
    text = value.strip('"') if isinstance(value, str) else ""
    if not _VERSION.fullmatch(text):
        raise InvalidRequest(f"{param} is not an ETag", param=param)
    return text


def _text(holder: Any, name: str, where: str = "", *, most: int = 1024) -> str:
    param = f"{where}.{name}" if where else name
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise InvalidRequest(f"{param} must be a text of 1 to {most} characters", param=param)
    return value


def _object(holder: Any, name: str, where: str) -> dict[str, Any]:
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, dict):
        param = f"{where}.{name}"
        raise InvalidRequest(f"{param} must be an object", param=param)
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _loaded(text: str | bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{name} is not JSON") from None
