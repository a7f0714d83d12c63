"""The memory of the cgroup, wherever it is mounted and however deep it lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazyarr import cgroups, settings

MACHINE_NBYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 1 << 20
UNLIMITED = "9223372036854771712"

# As /proc/self/mountinfo has them: cgroup v1 and v2 together, v2 alone, one in a container.
V1_MOUNTS = """\
23 28 0:21 / /proc rw,nosuid - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
36 31 0:33 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2_MOUNTS = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_GROUPS = "4:memory:{path}\n1:cpu,cpuacct:/elsewhere\n0::/\n"
V2_GROUPS = "0::{path}\n"


def system(root: Path, mounts: str, groups: str, limits: dict[str, str]) -> str:
    """Write a tree of proc and cgroup files, and return it."""
    files = {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, **limits}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return str(root)


def test_cgroup_v1_that_is_nested(tmp_path):
    """The smallest limit on the way up holds."""
    base = "sys/fs/cgroup/memory"
    limits = {
        f"{base}/memory.limit_in_bytes": UNLIMITED,
        f"{base}/jobs/memory.limit_in_bytes": str(64 * MIB),
        f"{base}/jobs/17/memory.limit_in_bytes": str(96 * MIB),
        f"{base}/jobs/18/memory.limit_in_bytes": str(MIB),
    }
    root = system(tmp_path, V1_MOUNTS, V1_GROUPS.format(path="/jobs/17"), limits)
    assert cgroups.memory_nbytes(root) == 64 * MIB


@pytest.mark.parametrize(
    ("own", "parents", "expected"),
    [("max", str(50 * MIB), 50), (str(20 * MIB), "max", 20), (str(90 * MIB), str(30 * MIB), 30)],
)
def test_cgroup_v2_that_is_nested(tmp_path, own, parents, expected):
    """A slice's limit holds for the scopes in it; the root cgroup has no such file."""
    base = "sys/fs/cgroup"
    limits = {
        f"{base}/user.slice/memory.max": parents,
        f"{base}/user.slice/a b.scope/memory.max": own,
    }
    root = system(tmp_path, V2_MOUNTS, V2_GROUPS.format(path="/user.slice/a b.scope"), limits)
    assert cgroups.memory_nbytes(root) == expected * MIB


def test_cgroup_v2_where_more_is_slowed_down(tmp_path):
    """Above memory.high a process gets nowhere, so that is what it has."""
    limits = {"sys/fs/cgroup/x/memory.max": "max", "sys/fs/cgroup/x/memory.high": str(7 * MIB)}
    root = system(tmp_path, V2_MOUNTS, V2_GROUPS.format(path="/x"), limits)
    assert cgroups.memory_nbytes(root) == 7 * MIB


@pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/job", "/other", "/../../x"])
def test_container_without_a_cgroup_namespace(tmp_path, path):
    """Its own cgroup is what it sees mounted, though it is called by its name outside."""
    mounts = "36 31 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup ro,memory\n"
    limits = {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(40 * MIB)}
    root = system(tmp_path, mounts, V1_GROUPS.format(path=path), limits)
    assert cgroups.memory_nbytes(root) == 40 * MIB


def test_cgroup_mounted_in_an_unusual_place(tmp_path):
    """Spaces in it are escaped."""
    mounts = "30 24 0:26 / /run/my\\040groups rw - cgroup2 none rw\n"
    root = system(
        tmp_path, mounts, V2_GROUPS.format(path="/x"), {"run/my groups/x/memory.max": str(3 * MIB)}
    )
    assert cgroups.memory_nbytes(root) == 3 * MIB


@pytest.mark.parametrize("limit", [UNLIMITED, "max", "", "-1", "\u0662"])
def test_no_limit_is_the_memory_of_the_machine(tmp_path, limit):
    """Nor is what cannot be read one."""
    limits = {"sys/fs/cgroup/x/memory.max": limit}
    root = system(tmp_path, V2_MOUNTS, V2_GROUPS.format(path="/x"), limits)
    assert cgroups.memory_nbytes(root) == MACHINE_NBYTES
    assert cgroups.memory_nbytes(f"{root}/nothing") == MACHINE_NBYTES


def test_half_of_it_is_the_default(monkeypatch):
    """Of this process's own cgroup, as the kernel shows it."""
    monkeypatch.delenv("LAZYARR_MEMORY_LIMIT", raising=False)
    monkeypatch.setattr(settings, "_current", None)
    assert settings.current().memory_limit == cgroups.memory_nbytes() // 2


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"a/memory.max": 9, "a/b/memory.max": 5}, "/a/b"),
        ({"a/memory.max": 5, "a/b/memory.max": 9}, "/a"),
        ({"memory.max": 5}, "/"),
        ({"a/b/memory.max": "max"}, ""),
    ],
)
def test_the_group_that_limits_is_named(tmp_path, limits, expected):
    """As processes in it are said to be in it."""
    files = {
        f"sys/fs/cgroup/{name}": f"{n * MIB if n != 'max' else n}" for name, n in limits.items()
    }
    root = system(tmp_path, V2_MOUNTS, V2_GROUPS.format(path="/a/b"), files)
    assert cgroups.limiting_group(root) == expected
    groups = V2_GROUPS.format(path=f"{expected.rstrip('/')}/c")
    assert cgroups.is_in_group(groups, expected)
    assert expected in {"", "/"} or not cgroups.is_in_group(V2_GROUPS.format(path="/ab"), expected)


def test_a_group_without_a_name_here_is_all_that_is_seen(tmp_path):
    """A container without a cgroup namespace, whose group is called otherwise outside."""
    mounts = "36 31 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup ro,memory\n"
    limits = {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(40 * MIB)}
    for path, expected in (("/docker/abc", "/docker/abc"), ("/other", "")):
        root = system(tmp_path, mounts, V1_GROUPS.format(path=path), limits)
        assert cgroups.limiting_group(root) == expected
