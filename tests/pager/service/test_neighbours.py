"""Pagers that were told no limit share one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.pager.service.neighbours import Neighbours

MIB = 1 << 20
LIMIT = 1 << 34


def processes(root, names, *, groups=()):
    """Write a tree as /proc is: this process, and others with a name and a cgroup each."""
    (root / "self").mkdir(exist_ok=True)
    (root / "meminfo").touch()
    for number, name in enumerate(names):
        process = root / str(10**7 + number)
        process.mkdir(exist_ok=True)
        (process / "comm").write_text(f"{name}\n")
        if groups:
            (process / "cgroup").write_text(f"0::{groups[number]}\n")
    return str(root)


def held_by(names, tmp_path):
    return Neighbours(processes(tmp_path, names)).part_of(LIMIT, 0)


@pytest.fixture(autouse=True)
def whole_machine(monkeypatch):
    """Have no cgroup between this process and the machine, unless a test says so."""
    monkeypatch.setattr("lazyarr.pager.service.neighbours.limiting_group", lambda: "")


@given(held=st.lists(st.integers(0, 2 * LIMIT), min_size=1, max_size=6))
def test_together_they_hold_what_one_may(tmp_path_factory, held):
    """Whoever has grown, each has what the others leave, and at least an equal part."""
    root = tmp_path_factory.mktemp("proc")
    said = []
    for nbytes in held:
        Neighbours(processes(root, [])).part_of(LIMIT, nbytes)
        said.append((root / "self/comm").read_text())
    assert all(len(name) <= 15 for name in said)
    for own in range(len(held)):
        others = [*said[:own], *said[own + 1 :]]
        part_nbytes = held_by(others, tmp_path_factory.mktemp("proc"))
        left_nbytes = LIMIT - sum(held[:own] + held[own + 1 :])
        equal_nbytes = LIMIT // len(held)
        assert part_nbytes >= equal_nbytes
        assert part_nbytes <= max(left_nbytes, equal_nbytes)  # rounded in favour of the others
        assert part_nbytes >= max(left_nbytes - MIB * len(held), equal_nbytes)


def test_much_is_said_in_larger_units(tmp_path):
    """The kernel cuts a name after fifteen characters."""
    neighbours = Neighbours(processes(tmp_path, []))
    for nbytes, name in ((0, "lazyarr 0M"), (1, "lazyarr 1M"), (10**6 << 20, "lazyarr 977G")):
        neighbours.part_of(0, nbytes)
        assert (tmp_path / "self/comm").read_text() == name


@pytest.mark.parametrize(
    "name", ["python3.11", "lazyarr", "lazyarr 12", "lazyarr 12K", "lazyarr -1M", "xlazyarr 1M", ""]
)
def test_others_count_for_nothing(tmp_path, name):
    """Nor does one that ends while it is looked at."""
    root = Path(processes(tmp_path, [name]))
    (root / "77").mkdir()
    assert Neighbours(str(root)).part_of(LIMIT, 0) == LIMIT


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")
def test_other_users_count_for_nothing(tmp_path):
    """They could take memory away by a name."""
    root = Path(processes(tmp_path, ["lazyarr 100M"]))
    os.chown(root / str(10**7), 65534, 65534)
    assert Neighbours(str(root)).part_of(LIMIT, 0) == LIMIT


def test_only_the_same_cgroup_counts(tmp_path, monkeypatch):
    """The one whose limit it is, with those that lie in it."""
    monkeypatch.setattr("lazyarr.pager.service.neighbours.limiting_group", lambda: "/jobs/17")
    groups = ["/jobs/17", "/jobs/17/step", "/jobs/171", "/jobs", "/"]
    root = processes(tmp_path, [f"lazyarr {1 << n}M" for n in range(5)], groups=groups)
    assert Neighbours(root).part_of(LIMIT, 0) == LIMIT - 3 * MIB


def test_who_was_told_a_limit_only_says_what_it_holds(tmp_path):
    """Its limit is its user's affair."""
    root = processes(tmp_path, ["lazyarr 100M"])
    assert Neighbours(root).part_of(0, MIB) == 0
    assert (tmp_path / "self/comm").read_text() == "lazyarr 1M"
