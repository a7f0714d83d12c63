"""Too little of something: it is named while it is missing, and later there is enough."""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import ended_by, run_program
from tests.process.test_rights import needs_root
from tests.programs import limits as programs
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("limits") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("limits") / "x.npy"
    np.save(path, DATA)
    return path


def outcome(program, *arguments, **options):
    """Return what a program says that opens and reads everything."""
    ended = run_program(program, *arguments, **options)
    assert (ended_by(ended), ended.stderr) == ("0", ""), ended.stdout
    return ended.stdout.strip()


# --- what a process may have ---------------------------------------------------------------


@pytest.mark.parametrize("limit", [8, 12, 16, 24, 63])
def test_too_few_descriptors_are_named_by_open(url, copy, limit):
    """Those of the pager, and those of the process itself, which needs some first."""
    said = outcome(programs.opens_with_a_limit, url, copy, "RLIMIT_NOFILE", limit, limit)
    assert "Error" in said
    assert "ulimit -n" in said or f"RLIMIT_NOFILE allows {limit} descriptors" in said


@pytest.mark.parametrize("soft", [24, 64])
def test_few_descriptors_are_enough(url, copy, soft):
    """The pager takes what it may have; the process needs little itself."""
    assert outcome(programs.opens_with_a_limit, url, copy, "RLIMIT_NOFILE", soft, 64) == "right"


@pytest.mark.parametrize("soft", [0, 4096, 1 << 16])
@pytest.mark.parametrize("hard", ["same", "unlimited"])
def test_a_limit_on_files_is_named_by_open(url, copy, soft, hard):
    """Memory objects count as files; the kernel's error is that a file is too large."""
    hard = soft if hard == "same" else -1
    said = outcome(programs.opens_with_a_limit, url, copy, "RLIMIT_FSIZE", soft, hard)
    assert "ulimit -f" in said or f"RLIMIT_FSIZE allows files of {soft} bytes" in said


def test_a_limit_on_files_that_is_large_enough_does_no_harm(url, copy):
    """An array is as long as a file that holds it."""
    nbytes = DATA.nbytes + (1 << 20)
    assert (
        outcome(programs.opens_with_a_limit, url, copy, "RLIMIT_FSIZE", nbytes, nbytes) == "right"
    )


@needs_root
def test_without_proc_the_error_names_it(url, copy):
    """Neither can be told without it what a client is, nor how one fares."""
    wrapper = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    said = outcome(programs.opens, url, copy, wrapper=wrapper)
    assert "there is no /proc; mount it" in said


# --- what is left of it ----------------------------------------------------------------------


def test_descriptors_that_are_missing_at_the_moment_are_named(url, copy):
    """With any number left, reading is right or says so; and right when some are free again."""
    ended = run_program(programs.descriptors_that_are_missing_at_the_moment_are_named, url, copy)
    assert ended_by(ended) == "0", ended.stderr
    said = ended.stdout.split()
    assert len(said) == 24
    assert said[0] == "named"
    assert said[-1] == "right"


# --- what may be said ------------------------------------------------------------------------


@pytest.mark.parametrize("n_megabytes", [40, 70])
def test_a_table_of_references_may_be_tens_of_megabytes(tmp_path, n_megabytes):
    """The pager gets it with each array; a larger one is to be given as a file."""
    ended = run_program(
        programs.a_table_of_references_may_be_tens_of_megabytes, tmp_path / "x.zarr", n_megabytes
    )
    assert (ended_by(ended), ended.stderr) == ("0", ""), ended.stdout
    found = "right" if n_megabytes < 64 else "cannot tell the pager what takes"
    assert ended.stdout.startswith(found)


# --- descriptors of the pager ---------------------------------------------------------------

LACKS = (
    "lazyarr: the pager lacks descriptors, and a process waits for some: Too many open files; "
    "close files, or raise 'ulimit -n'"
)


def test_more_processes_than_a_pager_has_descriptors_for(url, copy):
    """Who comes too many waits until others have gone; nobody who is there is harmed."""
    ended = run_program(programs.more_processes_than_a_pager_has_descriptors_for, url, copy)
    assert ended_by(ended) == "0", ended.stderr
    assert set(ended.stderr.splitlines()) == {LACKS}


@pytest.mark.parametrize("n_left", [0, 1, 3])
def test_a_pager_that_lacks_descriptors_for_a_while(tmp_path, copy, n_left):
    """Whatever is asked of it meanwhile is done when there are some: also what imports first."""
    ended = run_program(programs.a_pager_that_lacks_descriptors_for_a_while, tmp_path, copy, n_left)
    assert ended_by(ended) == "0", ended.stderr
    assert set(ended.stderr.splitlines()) <= {LACKS}


def test_a_pager_that_lacks_descriptors_for_good_says_so(url, copy):
    """A chunk that it cannot read is an error that names them, and read when there are some."""
    ended = run_program(programs.a_pager_that_lacks_descriptors_for_good_says_so, url, copy)
    assert (ended_by(ended), ended.stderr) == ("0", "")
    assert "Too many open files; close files, or raise 'ulimit -n'" in ended.stdout
