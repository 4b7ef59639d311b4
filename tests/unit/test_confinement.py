"""A confined process reaches neither files nor the network, and stays confined."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app import confinement

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 256 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")

SCRIPT = """
import json, os, socket, sys, sysconfig, threading
from dataclasses import asdict
from pathlib import Path
from app import confinement

folder, port, sealed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "sealed"
memory = int(sys.argv[4])
opened = open(folder / "opened", "wb", buffering=0)
report = confinement.confine(memory=memory, read=confinement.readable())
if sealed:
    confinement.seal(seconds=60)

def connect(kind):
    with socket.socket(socket.AF_INET, kind) as plug:
        plug.connect(("127.0.0.1", port))

def bind():
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))

def fork():
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)

def start_thread():
    done = []
    thread = threading.Thread(target=done.append, args=[1])
    thread.start()
    thread.join()
    assert done

attempts = {
    "read a secret": lambda: (folder / "secret").read_bytes(),
    "list a folder": lambda: os.listdir(folder),
    "read /etc/passwd": lambda: Path("/etc/passwd").read_bytes(),
    "read the parent's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "write a file": lambda: (folder / "new").write_bytes(b"x"),
    "write to an open file": lambda: opened.write(b"x"),
    "delete a file": lambda: (folder / "secret").unlink(),
    "connect": lambda: connect(socket.SOCK_STREAM),
    "send datagrams": lambda: connect(socket.SOCK_DGRAM),
    "listen": bind,
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "fork": fork,
    "run a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "take much memory": lambda: bytearray(2 * memory),
    "take some memory": lambda: bytearray(memory // 2),
    "read the library": lambda: (Path(sysconfig.get_path("stdlib")) / "this.py").read_bytes(),
    "import a module": lambda: __import__("this"),
    "start a thread": start_thread,
}
outcome = {}
for name, attempt in attempts.items():
    if name == "run a program" and not sealed:
        continue  # it might succeed
    try:
        attempt()
    except (OSError, MemoryError) as error:
        outcome[name] = False
    else:
        outcome[name] = True
outcome["niceness"] = os.getpriority(os.PRIO_PROCESS, 0)
print(json.dumps([asdict(report), outcome]), file=sys.__stdout__)
"""


def attempt(folder, *, sealed):
    (folder / "secret").write_bytes(b"a secret")
    how = "sealed" if sealed else "confined"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder), port, how, str(MEMORY)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    report, outcome = json.loads(done.stdout.splitlines()[-1])
    return report, outcome


@pytest.fixture(scope="module")
def confined(tmp_path_factory):
    return attempt(tmp_path_factory.mktemp("confined"), sealed=False)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    return attempt(tmp_path_factory.mktemp("sealed"), sealed=True)


def require(report, part):
    if not report[part]:
        pytest.skip(f"this kernel does not confine: {part}")


@pytest.mark.parametrize(
    "what",
    [
        "read a secret",
        "list a folder",
        "read /etc/passwd",
        "read the parent's environment",
        "write a file",
        "delete a file",
    ],
)
def test_a_confined_process_reaches_no_files(confined, what):
    report, outcome = confined
    require(report, "landlock")
    assert not outcome[what]


def test_a_sealed_process_goes_behind_all_others(confined, sealed):
    assert sealed[1]["niceness"] > confined[1]["niceness"]


@pytest.mark.parametrize("what", ["connect", "listen"])
def test_a_confined_process_reaches_no_network(confined, what):
    report, outcome = confined
    require(report, "network")
    assert not outcome[what]


def test_a_confined_process_writes_to_no_file_and_takes_no_more_memory(confined):
    _, outcome = confined
    assert not outcome["write to an open file"]
    assert not outcome["take much memory"]


@pytest.mark.parametrize(
    "what",
    ["take some memory", "read the library", "import a module", "start a thread", "fork"],
)
def test_a_confined_process_does_its_work(confined, what):
    assert confined[1][what]


@pytest.mark.parametrize(
    "what",
    ["fork", "run a program", "connect", "send datagrams", "listen", "signal the parent"],
)
def test_a_sealed_process_starts_and_reaches_no_other(sealed, what):
    report, outcome = sealed
    require(report, "system_calls")
    assert not outcome[what]


@pytest.mark.parametrize(
    "what", ["take some memory", "read the library", "import a module", "start a thread"]
)
def test_a_sealed_process_does_its_work(sealed, what):
    assert sealed[1][what]


def test_what_is_readable_is_no_ones_own():
    folders = confinement.readable()
    assert not any(folder in (ROOT, *ROOT.parents) for folder in folders)
    assert Path(os.__file__).parent in folders
