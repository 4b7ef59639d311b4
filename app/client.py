"""A running service as the command line speaks to it: plain HTTP with the standard library."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

_TIMEOUT: Final = 90.0
"""Seconds of silence: longer than a service waits for a job that is waited for."""


_LOOPBACK: Final = "127.0.0.1"


class ServerError(ValueError):
    """The service refused, or cannot be reached. The message is one line for people."""


class Unreachable(ServerError):
    """The service does not answer: it may be restarting."""


def default_server() -> str:
    """Where a service of the settings here listens: `http://127.0.0.1:8000`.

    Only its address and its port are read, of the environment and of `.env`. Raises ServerError.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - most commands are told the service

    values = {**dotenv_values(".env"), **os.environ}
    port = values.get("PIXELMILL_PORT") or "8000"
    if not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise ServerError(
            f"PIXELMILL_PORT is no port to be asked at, got {port[:64]}: name the service with "
            "--server"
        )
    try:
        address = ipaddress.ip_address(values.get("PIXELMILL_HOST") or _LOOPBACK)
    except ValueError:
        address = ipaddress.ip_address(_LOOPBACK)
    if address.is_unspecified:  # whoever listens on every address is asked on this machine's
        address = ipaddress.ip_address(_LOOPBACK if address.version == 4 else "::1")
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{host}:{port}"


class Client:
    """Talks to one service. `token` is a bearer token, where it wants one.

    Without a `server`, it is the one of the settings here.
    """

    def __init__(self, server: str | None, token: str | None = None) -> None:
        server = server or default_server()
        self.server = server.rstrip("/")
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"--server must be a URL such as http://127.0.0.1:8000, got {server}")
        self._parts = parts
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        """The JSON at a path. Raises ServerError."""
        with self._exchange("GET", path) as answer:
            return json.load(answer)

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Post JSON, and read the JSON that comes back. Raises ServerError."""
        data = b"" if body is None else json.dumps(body).encode()
        own = {"content-type": "application/json", **(headers or {})}
        with self._exchange("POST", path, data, own) as answer:
            return json.load(answer)

    def post_lines(self, path: str, lines: Iterable[bytes]) -> Any:
        """Post lines of JSON as they come, and read the JSON that comes back."""
        own = {"content-type": "application/x-ndjson"}
        with self._exchange("POST", path, lines, own) as answer:
            return json.load(answer)

    def put(self, path: str, data: bytes) -> Any:
        """Put bytes at a path. Raises ServerError."""
        with self._exchange("PUT", path, data) as answer:
            return json.load(answer)

    def read(self, path: str) -> bytes:
        """The bytes at a path. Raises ServerError."""
        with self._exchange("GET", path) as answer:
            return answer.read()

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=_TIMEOUT)
        whole = self._parts.path.rstrip("/") + path
        try:
            connection.request(
                method, whole, body=body, headers={**self._headers, **(headers or {})}
            )
            answer = connection.getresponse()
            if answer.status >= 400:
                raise ServerError(_refusal(answer))
            yield answer
        except (OSError, HTTPException) as error:
            where = f"{self._parts.scheme}://{self._parts.netloc}"
            raise Unreachable(f"{where} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()


def _refusal(answer: HTTPResponse) -> str:
    try:
        return f"{answer.status}: {json.load(answer)['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"the service answered {answer.status} {answer.reason}"
