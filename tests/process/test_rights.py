"""What works for users without rights, and what is said where nothing works."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.process.running import run_program
from tests.programs import rights as programs
from tests.stores import images, write_zarr

DATA = images()
# Another user, with no rights but to read the files of whatever Python this is.
AS_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rights")
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    return write_zarr(directory / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory, url):
    path = tmp_path_factory.mktemp("rights") / "x.npy"
    np.save(path, DATA)
    path.parent.chmod(0o755)
    return path


@needs_root
@pytest.mark.parametrize("brought", ["another process", "readahead"])
def test_system_calls_find_what_others_have_brought(url, copy, brought):
    """In user-mode-only, where a page that is not mapped here would be refused."""
    ended = run_program(
        programs.system_calls_find_what_others_have_brought, url, copy, brought, wrapper=AS_NOBODY
    )
    assert ended.returncode == 0, ended.stderr


@needs_root
def test_system_calls_write_to_memory():
    """In user-mode-only, to chunks that were written to, and to all others by way of a copy."""
    ended = run_program(programs.system_calls_write_to_memory, wrapper=AS_NOBODY)
    assert (ended.returncode, ended.stderr) == (0, "")


@needs_root
def test_a_user_without_rights_reads_everything(url, copy):
    """In user-mode-only picks, raw touches, children and writing to files work."""
    ended = run_program(
        programs.a_user_without_rights_reads_everything, url, copy, wrapper=AS_NOBODY
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "14\n")


@needs_root
def test_a_kernel_that_refuses_is_explained(url):
    """Where an engine is wanted that cannot be had, the error names what is missing, and why."""
    ended = run_program(programs.a_kernel_that_refuses_is_explained, url, wrapper=AS_NOBODY)
    assert ended.returncode == 0, ended.stderr
    assert "cannot open userfaultfd" in ended.stdout
    assert "lazyarr doctor" in ended.stdout


@needs_root
def test_where_the_kernel_refuses_arrays_copy(url, copy):
    """Everything can be read, after one warning that says why and what to do; no pager stays."""
    ended = run_program(programs.where_the_kernel_refuses_arrays_copy, url, copy, wrapper=AS_NOBODY)
    assert ended.returncode == 0, ended.stderr
    children, message = ended.stdout.splitlines()
    assert children == "no children"
    for words in ("cannot open userfaultfd", "lazyarr doctor", "LAZYARR_ENGINE=copy", "--device"):
        assert words in message


# --- who is somebody else by now ----------------------------------------------------------------

# Root that stays able to open what lies in root's directories, whoever it becomes, and so does
# what it starts.
STILL_ABLE = (
    "setpriv",
    "--securebits=+no_setuid_fixup",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)


@needs_root
@pytest.mark.parametrize("way", programs.BECOMING)
def test_a_process_that_has_become_somebody_else_is_told(url, copy, way):
    """The next request says so; what is opened from then on is read with the rights of now."""
    ended = run_program(
        programs.a_process_that_has_become_somebody_else_is_told, url, copy, way, wrapper=STILL_ABLE
    )
    assert ended.returncode == 0, ended.stderr


@needs_root
def test_who_becomes_the_same_again_reads_on(url, copy):
    """And a child is who its parent was when that came to the pager."""
    ended = run_program(programs.who_becomes_the_same_again_reads_on, url, copy, wrapper=STILL_ABLE)
    assert ended.returncode == 0, ended.stderr


@needs_root
def test_a_user_that_the_pager_would_not_become_is_refused(url, copy):
    """A program that is started opens files as its effective user (execve(2), setfsuid(2))."""
    ended = run_program(
        programs.a_user_that_the_pager_would_not_become_is_refused, url, copy, wrapper=STILL_ABLE
    )
    assert ended.returncode == 0, ended.stderr
    told, refused = ended.stdout.splitlines()
    assert told == "cannot read what was opened as another user"
    assert refused.startswith("cannot open arrays as the user that setfsuid has set")
