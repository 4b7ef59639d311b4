"""What all tests share."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from app import machine
from tests.serving import Served, serving
from transforms import libvips

# What a service logs is no test's business, and rendering it takes time.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for each processor: much of what tests do is to wait, for processes and for clocks."""
    return 2 * machine.processors()


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays_in_libvips(request: pytest.FixtureRequest) -> Iterator[None]:
    """After the last test libvips holds what it held before the first: constants of modules."""
    before = _held()
    yield
    if request.session.testsfailed:
        return  # a traceback holds the pictures of its test
    after = _held()
    if after != before:
        figures = f"libvips holds {after} after the tests, and before them {before}"
        pytest.fail(figures, pytrace=False)


@dataclass(frozen=True)
class Held:
    """What libvips holds, in bytes of pixels, blocks and open files."""

    memory: int
    allocations: int
    files: int


def _held() -> Held:
    gc.collect()
    now = libvips.tracked()
    return Held(now.memory, now.allocations, now.files)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it."""
    for name in list(os.environ):
        if name.upper().startswith(("PIXELMILL_", "AWS_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real and hostile images, which a clone of this project alone does not have."""
    folder = SHARED / "fixtures"
    if not folder.is_dir():
        pytest.skip("the collection of real images is not beside this checkout")
    return folder


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start services: `serve(queue_interactive=5)`. Originals and results are in `tmp_path`."""
    with ExitStack() as stack:
        (tmp_path / "originals").mkdir(exist_ok=True)

        def start(**options: Any) -> Served:
            folders = {
                "originals": f"file:{tmp_path / 'originals'}",
                "results": f"file:{tmp_path / 'results'}",
            }
            return stack.enter_context(serving(**{**folders, **options}))

        yield start
