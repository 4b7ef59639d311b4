"""A folder and a bucket, so that whatever holds of one store is asked of the other too."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from aiobotocore.session import AioSession, get_session
from botocore.config import Config
from botocore.loaders import create_loader
from botocore.session import Session

from app.stores.base import ObjectStore
from app.stores.files import FileStore
from app.stores.s3 import S3Options, S3Store
from tests.s3server import REGION, S3Server, s3_server
from tests.stores import faulty
from tests.stores.faulty import Behaviour, Faulty

__all__ = ["s3_server"]

OpenS3 = Callable[..., S3Store]
_LOADER: Final = create_loader()
QUICK: Final = {"connect_timeout": 0.5, "read_timeout": 0.4, "attempts": 1}


class Bucket:
    """The bucket of the run as another client sees it: what is in it, without our own code."""

    def __init__(self, server: S3Server) -> None:
        self.name = server.bucket
        session = Session()
        session.register_component("data_loader", _LOADER)
        self._client = session.create_client(
            "s3",
            region_name=REGION,
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with this, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> tuple[bytes, str]:
        """The bytes and the media type of an object."""
        answer = self._client.get_object(Bucket=self.name, Key=key)
        with answer["Body"] as body:
            return body.read(), answer["ContentType"]

    def put(self, key: str, data: bytes) -> None:
        """Keep an object."""
        self._client.put_object(
            Bucket=self.name, Key=key, Body=data, ContentType="application/octet-stream"
        )

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._client.delete_object(Bucket=self.name, Key=key)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()


@pytest.fixture(autouse=True)
def _quick_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the description of S3, much JSON, once for all clients of the run."""

    def session() -> AioSession:
        opened = get_session()
        opened.register_component("data_loader", _LOADER)
        return opened

    monkeypatch.setattr("app.stores.s3.get_session", session)


@pytest.fixture
def bucket(s3_environment: S3Server) -> Iterator[Bucket]:
    opened = Bucket(s3_environment)
    yield opened
    opened.close()


@pytest.fixture
def prefix() -> str:
    """A place in the bucket that no other test knows."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The usual variables, so that stores find the server as they would in production."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    """What is opened in a test and closed after it, in the loop in which it was used."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def open_s3(s3_environment: S3Server, prefix: str, closing: AsyncExitStack) -> OpenS3:
    """Open stores of the real server: `open_s3(connections=4)`, `open_s3(bucket="none")`."""

    def opened(*, bucket: str | None = None, beneath: str | None = None, **options: Any) -> S3Store:
        store = S3Store(
            s3_environment.bucket if bucket is None else bucket,
            prefix if beneath is None else beneath,
            options=S3Options(**options),
        )
        closing.push_async_callback(store.close)
        return store

    return opened


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store: a folder of its own, or a prefix of its own in the bucket."""
    if request.param == "file":
        return FileStore(tmp_path / "store")
    return request.getfixturevalue("open_s3")()


@pytest.fixture
async def against(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[object]:
    """`store, server = await against(behaviour, ..., attempts=2)`: a store of a faulty server."""
    async with AsyncExitStack() as stack:

        async def opened(*behaviours: Behaviour, **options) -> tuple[S3Store, Faulty]:
            server = await stack.enter_async_context(faulty.faulty(*behaviours))
            for name, value in {
                "AWS_ACCESS_KEY_ID": "K",
                "AWS_SECRET_ACCESS_KEY": "S",
                "AWS_ENDPOINT_URL_S3": server.endpoint,
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }.items():
                monkeypatch.setenv(name, value)
            store = S3Store("bucket", options=S3Options(**{**QUICK, **options}))
            stack.push_async_callback(store.close)
            return store, server

        yield opened
