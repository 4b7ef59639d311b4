"""A real S3 server for tests: SeaweedFS on loopback, with credentials, and one bucket."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

HOST: Final = "127.0.0.1"
REGION: Final = "us-east-1"
_PORTS: Final = ("s3", "filer", "master", "volume", "admin")
_TRIES: Final = 3
_START: Final = 12.0
_STOP: Final = 8.0


class NotStarted(Exception):
    """The server ended, or was not ready in time. Its log is in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A server that runs: where it is, who may use it, and its bucket."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a client finds the server, and nothing of this machine's."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


_RUNNING: Final = pytest.StashKey[S3Server]()


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """The S3 server of this run. Its bucket is shared: every test has a prefix of its own.

    Import this into a conftest.py. Several of them still share one server.
    """
    config = request.config
    if _RUNNING not in config.stash:
        program = find_program()
        stack = ExitStack()
        config.stash[_RUNNING] = stack.enter_context(s3_serving(program))
        config.add_cleanup(stack.close)
    return config.stash[_RUNNING]


def find_program() -> str:
    """The server's program. Skips the test where there is none."""
    beside = str(Path(sys.executable).parent)
    program = shutil.which("weed", path=beside) or shutil.which("weed")
    if program is None:
        pytest.skip("the S3 server is not installed: it comes with the test dependencies")
    return program


@contextmanager
def s3_serving(program: str, *, notification: str = "") -> Iterator[S3Server]:
    """Run a server until the block ends. Whatever it keeps is removed with it.

    `notification` is its configuration of whom it tells of changes, in TOML.
    """
    for attempt in range(1, _TRIES + 1):
        # The paths of sockets must be short, so this is not a folder of pytest's.
        with tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True) as name:
            ports = _free_ports(2 * len(_PORTS))
            server = S3Server(
                endpoint=f"http://{HOST}:{ports[0]}",
                bucket=f"pixelmill-{secrets.token_hex(4)}",
                access_key=f"KEY{secrets.token_hex(8).upper()}",
                secret_key=secrets.token_hex(20),
            )
            (Path(name) / "notification.toml").write_text(notification)
            process = _launch(program, Path(name), ports, server)
            try:
                try:
                    _await_ready(process, Path(name), ports, server)
                except NotStarted:
                    # Another process may have taken a port between finding and using it.
                    if attempt == _TRIES:
                        raise
                    continue
                yield server
                return
            finally:
                _stop(process, ports)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


def _launch(
    program: str, folder: Path, ports: list[int], server: S3Server
) -> subprocess.Popen[bytes]:
    identities = folder / "identities.json"
    identities.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "tests",
                        "credentials": [
                            {"accessKey": server.access_key, "secretKey": server.secret_key}
                        ],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    }
                ]
            }
        )
    )
    # A gRPC port that is not given is the other one plus 10000, which may not exist.
    listening = [
        f"-{part}.{kind}={port}"
        for (part, kind), port in zip(
            ((part, kind) for part in _PORTS for kind in ("port", "port.grpc")), ports, strict=True
        )
    ]
    command = [
        program,
        "-logtostderr=true",
        "mini",
        f"-dir={folder / 'data'}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        f"-bucket={server.bucket}",
        *listening,
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=500",
        "-volume.preStopSeconds=0",
        "-idleTimeout=3",  # connections that clients leave open would hold up the end
        f"-filer.localSocket={folder / 'filer.sock'}",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-s3.config={identities}",  # without identities, every key is welcome
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
    ]
    # It takes credentials of the environment for an administrator's.
    environment = {
        name: value for name, value in os.environ.items() if not name.upper().startswith("AWS_")
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "GOMEMLIMIT": "256MiB", "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _await_ready(
    process: subprocess.Popen[bytes], folder: Path, ports: list[int], server: S3Server
) -> None:
    """Wait until volumes can be written, S3 answers, and the bucket is there. In this order."""
    s3, filer, master = ports[0], ports[2], ports[4]
    deadline = time.monotonic() + _START
    for url, sign in (
        (f"http://{HOST}:{master}/dir/assign", b'"fid"'),
        (f"http://{HOST}:{s3}/healthz", b""),
        (f"http://{HOST}:{filer}/buckets/{server.bucket}/", b""),
    ):
        while not _answers(url, sign):
            if process.poll() is not None or time.monotonic() > deadline:
                log = (folder / "log").read_text(errors="replace")
                raise NotStarted(f"the S3 server did not start:\n{log[-2000:]}")
            time.sleep(0.05)


def _answers(url: str, sign: bytes) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return sign in answer.read()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return False


def _stop(process: subprocess.Popen[bytes], ports: list[int]) -> None:
    """End the server and all that it started, and remove the sockets that it leaves."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for folder in {tempfile.gettempdir(), "/tmp"}:
        for port in ports:
            for left in Path(folder).glob(f"seaweedfs-*-grpc-{port}.sock"):
                left.unlink(missing_ok=True)
