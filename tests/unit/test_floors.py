"""The three floors: an import goes down, never up."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("transforms", "app", "routers")
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]


def name_of(path):
    return str(path.relative_to(ROOT))


@cache
def imports(path):
    """The modules that a file imports, wherever in it that happens."""
    found = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, node.module] if node.module else base)
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def floors_above(path):
    floor = path.relative_to(ROOT).parts[0]
    return FLOORS[FLOORS.index(floor) + 1 :]


def test_there_are_three_floors_with_files_on_each():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(FLOORS)
    assert "app.render" in imports(ROOT / "routers" / "delivery.py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_goes_up(path):
    if name_of(path) == "app/main.py":
        return  # it puts all three together
    above = [name for name in imports(path) if name.split(".")[0] in floors_above(path)]
    assert above == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_floor_knows_the_tests_the_benchmarks_or_the_docs(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"tests", "bench", "docs"}


def test_transforms_know_neither_network_nor_event_loop():
    forbidden = {"asyncio", "httpx", "fastapi", "starlette", "socket", "pydantic", "aiobotocore"}
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == "transforms":
            assert not {name.split(".")[0] for name in imports(path)} & forbidden, path.name


def test_the_service_knows_no_http_framework():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == "app" and name_of(path) != "app/main.py":
            known = {name.split(".")[0] for name in imports(path)}
            assert not known & {"fastapi", "starlette"} or path.name == "server.py", path.name


def test_pyvips_has_one_door():
    doors = [
        name_of(path)
        for path in FILES
        if {name.split(".")[0] for name in imports(path)} & {"pyvips", "_libvips"}
    ]
    assert doors == ["transforms/libvips.py"]


def test_the_http_client_has_one_door():
    doors = [
        name_of(path)
        for path in FILES
        if {name.split(".")[0] for name in imports(path)} & {"httpx", "httpcore"}
    ]
    assert doors == ["app/outbound.py"]


def test_geometry_is_arithmetic_and_nothing_else():
    code = "import sys, transforms.geometry as g; assert 'pyvips' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_can_be_loaded_without_those_above_it(floor):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in FILES
        if path.relative_to(ROOT).parts[0] == floor
        and path.name not in ("__init__.py", "main.py", "server.py", "cli.py")
        and "migrations" not in path.parts  # Alembic loads these, and gives them their context
    ]
    above = FLOORS[FLOORS.index(floor) + 1 :]
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"assert not set({above}) & {{name.split('.')[0] for name in sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
