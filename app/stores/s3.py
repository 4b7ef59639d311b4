"""An S3 bucket, or anything that speaks S3, as an object store.

One client for the process. Credentials, region and endpoint come from the usual AWS variables and
files (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL_S3`, ...).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from app.errors import (
    InvalidRequest,
    OriginalChanged,
    OriginalMissing,
    SourceFailed,
    StoreMisconfigured,
)
from app.stores.base import CHUNK, MAX_KEY, Reading, Stat, can_begin_key, is_key
from app.stores.s3conditions import Conditions, put_new
from app.stores.s3faults import OutOfRange, translated

_BATCH: Final = 1000
"""Keys of one listing or DeleteObjects call: the most that S3 takes."""
_BUCKET_SEEN_FOR: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How to talk to S3. Times in seconds."""

    connections: int = 64
    connect_timeout: float = 2.0
    read_timeout: float = 10.0
    attempts: int = 3
    addressing: str = "auto"
    deadline: float = 30.0
    """For one call without its body, all attempts together."""


class S3Store:
    """Objects in a bucket, under a prefix."""

    def __init__(self, bucket: str, prefix: str = "", *, options: S3Options | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options or S3Options()
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._opening = asyncio.Lock()
        self._bucket_seen = -_BUCKET_SEEN_FOR
        self._conditions = Conditions(self)

    async def stat(self, key: str) -> Stat:
        try:
            answer = await self._call("head_object", key, Key=self._name(key))
        except OriginalMissing:
            # A HEAD has no body: a missing bucket and a missing key look the same.
            await self._require_bucket()
            raise
        return _stat(key, answer)

    @asynccontextmanager
    async def read(
        self,
        key: str,
        *,
        version: str | None = None,
        start: int = 0,
        stop: int | None = None,
        piece: int = CHUNK,
    ) -> AsyncIterator[Reading]:
        if stop is not None and stop <= start:
            yield await self._read_nothing(key, version)
            return
        options: dict[str, Any] = {"Key": self._name(key)}
        if version is not None:
            options["IfMatch"] = f'"{version}"'
        if start or stop is not None:
            options["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        try:
            answer = await self._call("get_object", key, **options)
        except OutOfRange:
            yield await self._read_nothing(key, version)
            return
        if "Range" in options and "ContentRange" not in answer:
            answer["Body"].close()
            raise SourceFailed("The object store answered the whole instead of a range")
        # An abandoned body keeps its connection for ever: it is closed on every way out.
        async with answer["Body"] as body:
            yield Reading(stat=_stat(key, answer), chunks=_chunks(body, key, answer, piece))

    async def write(self, key: str, data: bytes, *, content_type: str) -> Stat:
        return await self._put(key, data, ContentType=content_type)

    async def create(self, key: str, data: bytes, *, content_type: str) -> Stat | None:
        if await self.conditional():
            return await put_new(lambda: self.put_where_none_is(key, data, content_type))
        with suppress(OriginalMissing):
            await self.stat(key)
            return None
        return await self.write(key, data, content_type=content_type)

    async def conditional(self) -> bool:
        return await self._conditions.are_kept()

    async def put_where_none_is(self, key: str, data: bytes, content_type: str) -> Stat:
        """Write under the condition that there is no object yet, whoever keeps it.

        Raises OriginalChanged where there is one, Conflicting where another comes to be.
        """
        return await self._put(key, data, ContentType=content_type, IfNoneMatch="*")

    async def delete(self, key: str) -> None:
        with suppress(OriginalMissing):
            await self._call("delete_object", key, Key=self._name(key))

    async def delete_prefix(self, prefix: str) -> int:
        count = 0
        token: dict[str, str] = {}
        while True:
            page = await self._call(
                "list_objects_v2",
                prefix,
                Prefix=f"{self._prefix}{prefix}/",
                MaxKeys=_BATCH,
                **token,
            )
            keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
            if keys:
                answer = await self._call(
                    "delete_objects", prefix, Delete={"Objects": keys, "Quiet": True}
                )
                if errors := answer.get("Errors"):
                    raise SourceFailed(f"S3 did not delete {len(errors)} objects")
                count += len(keys)
            if not page.get("IsTruncated"):
                return count
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def list_page(
        self, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> list[Stat]:
        if not can_begin_key(prefix):
            return []
        where: dict[str, str] = {}
        if after.startswith(prefix):
            where = {"StartAfter": self._prefix + after} if after else {}
        elif after.encode() > prefix.encode():
            return []
        found: list[Stat] = []
        while len(found) < limit:
            page = await self._list(prefix, most=limit - len(found), **where)
            found += self._stats(page)
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated"):
                break
            if token is None or where.get("ContinuationToken") == token:
                raise SourceFailed("The object store does not say how its listing goes on")
            where = {"ContinuationToken": token}
        if after and any(each.key == after for each in found):
            raise SourceFailed("The object store lists from the beginning again and again")
        return found

    async def probe(self) -> None:
        self._bucket_seen = -_BUCKET_SEEN_FOR
        await self._require_bucket()

    async def close(self) -> None:
        await self._stack.aclose()
        self._client = None

    async def _put(self, key: str, data: bytes, **options: str) -> Stat:
        answer = await self._call("put_object", key, Key=self._name(key), Body=data, **options)
        return Stat(key=key, version=answer["ETag"].strip('"'), size=len(data), modified=None)

    async def _list(self, prefix: str, *, most: int, **where: str) -> Any:
        try:
            return await self._call(
                "list_objects_v2",
                prefix,
                Prefix=self._prefix + prefix,
                MaxKeys=min(_BATCH, most),
                **where,
            )
        except OriginalMissing:
            raise StoreMisconfigured("The bucket does not exist") from None

    def _stats(self, page: Any) -> Iterator[Stat]:
        """The objects of a listing, without those whose names, given by others, are no keys."""
        for item in page.get("Contents", []):
            if not item.keys() >= {"Key", "ETag", "Size", "LastModified"}:
                raise SourceFailed("The object store's listing lacks a key, a size or an ETag")
            key = item["Key"].removeprefix(self._prefix)
            if is_key(key):
                yield Stat(
                    key=key,
                    version=item["ETag"].strip('"'),
                    size=item["Size"],
                    # A HEAD tells no fractions of a second.
                    modified=item["LastModified"].replace(microsecond=0),
                )

    def _name(self, key: str) -> str:
        """The key in the bucket."""
        name = self._prefix + key
        if len(name.encode()) > MAX_KEY:
            room = MAX_KEY - len(self._prefix.encode())
            raise InvalidRequest(f"id has more than {room} bytes", param="id")
        return name

    async def _read_nothing(self, key: str, version: str | None) -> Reading:
        """A range that holds no byte, of an object that is there all the same."""
        found = await self.stat(key)
        if version is not None and found.version != version:
            raise OriginalChanged(f"{key!r} was replaced")
        return Reading(stat=found, chunks=_no_chunks())

    async def _require_bucket(self) -> None:
        if time.monotonic() - self._bucket_seen < _BUCKET_SEEN_FOR:
            return
        try:
            await self._call("head_bucket", self._bucket)
        except OriginalMissing:
            raise StoreMisconfigured("The bucket does not exist") from None
        self._bucket_seen = time.monotonic()

    async def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        with translated(key):
            client = await self._open()
            async with asyncio.timeout(self._options.deadline):
                return await getattr(client, operation)(Bucket=self._bucket, **arguments)

    async def _open(self) -> Any:
        if self._client is not None:
            return self._client
        async with self._opening:
            if self._client is None:
                try:
                    self._client = await self._stack.enter_async_context(self._connect())
                except ValueError:
                    raise StoreMisconfigured("The endpoint of S3 is not a URL") from None
                for event in ("PutObject", "UploadPart"):
                    self._client.meta.events.register(f"before-sign.s3.{event}", _drop_expect)
            return self._client

    def _connect(self) -> Any:
        options = self._options
        session = get_session()
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        # botocore itself does not read AWS_REGION.
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        if not region and not endpoint:
            raise StoreMisconfigured("Set AWS_REGION, or AWS_ENDPOINT_URL_S3")
        addressing = options.addressing
        if addressing == "auto" and endpoint:
            addressing = "path"
        return session.create_client(
            "s3",
            region_name=region or "us-east-1",
            config=AioConfig(
                signature_version="s3v4",
                s3={"addressing_style": addressing},
                max_pool_connections=options.connections,
                connect_timeout=options.connect_timeout,
                read_timeout=options.read_timeout,
                retries={"mode": "standard", "total_max_attempts": options.attempts},
                # The default checksums break several implementations of S3 (ranges, 304).
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


def _drop_expect(request: Any, **_: Any) -> None:
    """Remove `Expect: 100-continue`: a server that never answers it would hold us for ever."""
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _stat(key: str, answer: Any) -> Stat:
    if "ETag" not in answer or "ContentLength" not in answer:
        raise SourceFailed("The object store's answer lacks a length or an ETag")
    size = answer["ContentLength"]
    if content_range := answer.get("ContentRange"):
        size = int(content_range.rpartition("/")[2])
    return Stat(
        key=key,
        version=answer["ETag"].strip('"'),
        size=size,
        modified=answer.get("LastModified"),
    )


async def _no_chunks() -> AsyncIterator[bytes]:
    return
    yield b""


async def _chunks(body: Any, key: str, answer: Any, piece: int) -> AsyncIterator[bytes]:
    received = 0
    with translated(key):
        async for chunk in body.iter_chunks(piece):
            received += len(chunk)
            yield chunk
    if received != answer["ContentLength"]:
        raise SourceFailed("The object store's answer was cut short")
