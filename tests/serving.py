"""The service as its clients see it: a real uvicorn on a loopback port, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from app.main import Application, create_app
from app.settings import Settings
from app.sources.guard import Resolver, resolve


@dataclass
class Served:
    """A service that runs: where it is, a client for it, and its application for looking inside."""

    url: str
    client: httpx.Client
    app: Application

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all label sets that hold these; 0 where there is none."""
        total = 0.0
        for family in self.app.api.state.service.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total


@contextmanager
def serving(*, resolver: Resolver = resolve, **options: Any) -> Iterator[Served]:
    """Run a service with these settings until the block ends."""
    settings = Settings(_env_file=None, **{"log_level": "error", "database": "off", **options})
    app = create_app(settings, resolver=resolver)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=5, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the service did not start")
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield Served(url=url, client=client, app=app)
    finally:
        server.should_exit = True
        thread.join(20)
