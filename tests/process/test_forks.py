"""Forks of which Python's hooks do not hear, and hooks that fail or are interrupted.

A child has the data, gets an exception, or dies of SIGSEGV at a raw touch; it reads no zeros and
does not hang, nor does its parent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.process.running import run_program
from tests.programs import forks as programs
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("forks") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("forks") / "x.npy"
    np.save(path, DATA)
    return path


def run(program: Callable[..., object], *arguments: object) -> None:
    """Run a program that says nothing and ends well."""
    ended = run_program(program, *arguments)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


@pytest.mark.parametrize("row", [5, 40])
def test_a_child_of_c_code_joins_at_its_first_call(url, copy, row):
    """From then on it reads right, by asking and by touching, resident or not."""
    run(programs.a_child_of_c_code_joins_at_its_first_call, url, copy, row)


def test_any_call_will_do(url, copy):
    """Whatever of lazyarr is called first, what is touched after it is data."""
    run(programs.any_call_will_do, url, copy)


def test_generations_of_either_kind(url, copy):
    """Children of children, seen and unseen in turn, read right and let go of what they have."""
    run(programs.generations_of_either_kind, url, copy)


def test_a_touch_before_the_first_call_dies(url, copy):
    """There is no mapping: SIGSEGV, not zeros; and the parent goes on."""
    run(programs.a_touch_before_the_first_call_dies, url, copy)


def test_what_was_written_stays_in_the_parent(url, copy):
    """Mode "c" of a child that C code forked: PagerError and SIGSEGV, not what is stored."""
    run(programs.what_was_written_stays_in_the_parent, url, copy)


def test_something_else_has_taken_the_place(url, copy):
    """The array cannot be had there, which is said; it is opened again, and others are right."""
    run(programs.something_else_has_taken_the_place, url, copy)


def test_the_parent_has_let_go(url, copy):
    """An array that only the child has still is opened anew there, at the same address."""
    run(programs.the_parent_has_let_go, url, copy)


def test_the_pager_is_gone(url, copy):
    """PagerError for what was open, and a new pager for what is opened then."""
    ended = run_program(programs.the_pager_is_gone, url, copy)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "right", "")


def test_locks_that_other_threads_hold(url, copy):
    """They stay locked in a child that C code forks, and are not waited for there."""
    run(programs.locks_that_other_threads_hold, url, copy)


def test_it_ends_without_ever_calling(url, copy):
    """An interpreter that ends in a child of C code's, which has called nothing, ends at once."""
    run(programs.it_ends_without_ever_calling, url, copy)


@pytest.mark.parametrize("error", ["OSError(24, 'made up')", "KeyboardInterrupt()"])
def test_any_call_of_a_hook_fails(url, copy, error):
    """At its beginning or its end: the child has data or an exception, the parent has all.

    One that touches before it has called anything reads right or dies of SIGSEGV.
    """
    run(programs.any_call_of_a_hook_fails, url, copy, error)


def test_no_descriptor_is_free(url, copy):
    """At a fork: the child has data or PagerError, ends by itself, and the parent goes on."""
    for n_freed in (0, 50):
        run(programs.no_descriptor_is_free, url, copy, n_freed)


def test_threads_that_fork_at_once(url, copy):
    """What one thread's child is to inherit, the hooks of another thread's fork leave alone."""
    run(programs.threads_that_fork_at_once, url, copy)


@pytest.mark.parametrize("n_threads", [0, 2])
def test_a_storm_of_signals(url, copy, n_threads):
    """Handlers that raise at any moment of forking break nothing: no hang, no zeros."""
    run(programs.a_storm_of_signals, url, copy, n_threads)
