"""What a container may use, by cgroup files made up for the test."""

from __future__ import annotations

import gc
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import machine

PLENTY = 16


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A machine of 16 processors and 8 GiB; `files` are put beneath its cgroup root."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(PLENTY)), raising=False)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal:       {8 << 20} kB\nMemFree:         1024 kB\n")

    def ask(own="", **files):
        root = tmp_path / "cgroup"
        root.mkdir(exist_ok=True)
        for name, text in files.items():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        (tmp_path / "own").write_text(own)
        return (
            machine.processors(root, tmp_path / "own"),
            machine.memory(root, tmp_path / "own", meminfo),
        )

    return ask


def test_without_cgroups_it_is_what_the_machine_has(host):
    assert host() == (PLENTY, 8 << 30)


def test_the_affinity_counts(host, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert host()[0] == 1


def test_where_there_is_no_affinity_the_processors_are_counted(host, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert host()[0] == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert host()[0] == 1


@pytest.mark.parametrize(
    ("quota", "processors"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("140000 100000\n", 1),
        ("50000 100000\n", 1),
        ("10000 100000\n", 1),
        ("max 100000\n", PLENTY),
        ("3200000 100000\n", PLENTY),
        ("", PLENTY),
        ("nonsense\n", PLENTY),
        ("0 100000\n", PLENTY),
    ],
)
def test_a_quota_of_version_2_counts(host, quota, processors):
    assert host("0::/\n", **{"cpu.max": quota})[0] == processors


@pytest.mark.parametrize(
    ("limit", "memory"),
    [
        (f"{1 << 30}\n", 1 << 30),
        ("max\n", 8 << 30),
        (f"{64 << 30}\n", 8 << 30),
        ("", 8 << 30),
    ],
)
def test_a_memory_limit_of_version_2_counts(host, limit, memory):
    assert host("0::/\n", **{"memory.max": limit})[1] == memory


def test_the_least_of_nested_groups_counts(host):
    found = host(
        "0::/slice/pod/container\n",
        **{
            "cpu.max": "max 100000\n",
            "slice/cpu.max": "800000 100000\n",
            "slice/pod/cpu.max": "300000 100000\n",
            "slice/pod/container/cpu.max": "max 100000\n",
            "slice/memory.max": f"{4 << 30}\n",
            "slice/pod/memory.max": "max\n",
            "slice/pod/container/memory.max": f"{2 << 30}\n",
            "other/cpu.max": "100000 100000\n",
            "other/memory.max": "1024\n",
        },
    )
    assert found == (3, 2 << 30)


def test_version_1_counts(host):
    found = host(
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        **{
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            "memory/docker/abc/memory.limit_in_bytes": f"{3 << 30}\n",
        },
    )
    assert found == (2, 3 << 30)


def test_version_1_as_a_container_sees_it_counts(host):
    found = host(
        "4:memory:/docker/abc\n3:cpu:/docker/abc\n",
        **{
            "cpu/cpu.cfs_quota_us": "100000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": f"{1 << 30}\n",
        },
    )
    assert found == (1, 1 << 30)


def test_version_1_without_limits_counts_nothing(host):
    found = host(
        "4:memory:/\n3:cpu,cpuacct:/\n",
        **{
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert found == (PLENTY, 8 << 30)


def test_both_versions_at_once_are_understood(host):
    found = host(
        "0::/init.scope\n3:cpu,cpuacct:/box\n",
        **{
            "cpu,cpuacct/box/cpu.cfs_quota_us": "400000\n",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            "init.scope/memory.max": f"{5 << 30}\n",
        },
    )
    assert found == (4, 5 << 30)


@pytest.mark.parametrize("own", ["0::/../../escape\n", "0::/a//b/\n", "0::relative\n", ""])
def test_odd_lines_do_no_harm(host, own):
    assert host(own, **{"cpu.max": "200000 100000\n"}) == (2, 8 << 30)


def test_where_the_memory_is_not_told_a_little_is_assumed(tmp_path):
    for text in (None, "", "MemTotal: lots\n", "MemTotal:\n"):
        meminfo = tmp_path / "meminfo"
        meminfo.unlink(missing_ok=True)
        if text is not None:
            meminfo.write_text(text)
        assert machine.memory(tmp_path / "none", tmp_path / "none", meminfo) == 4 << 30


def test_this_very_machine_is_read():
    assert machine.processors() >= 1
    assert machine.memory() > 64 << 20


def test_what_the_start_has_made_is_not_looked_at_by_the_collector_again():
    before = gc.get_freeze_count()
    try:
        machine.keep_what_is_there()
        assert gc.get_freeze_count() > before + 1000
    finally:
        gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_a_thread_that_yields_does_so_alone():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    with ThreadPoolExecutor(1, initializer=machine.yield_to_others) as threads:
        assert threads.submit(niceness).result() == min(19, own + machine._NICENESS)
    assert niceness() == own
