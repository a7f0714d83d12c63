"""One copy per machine: processes that were not forked have the pages of who pickled an array."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from lazyarr.wire.messages import VERSION
from tests.process.running import family, pagers, run_program, start_program, wait_until
from tests.process.test_rights import AS_NOBODY, needs_root
from tests.programs import meeting, scripts
from tests.programs import sharing as programs
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharing")
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    return write_zarr(directory / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory, url):
    path = tmp_path_factory.mktemp("sharing") / "x.npy"
    np.save(path, DATA)
    path.parent.chmod(0o755)
    return path


def run_right(program, *arguments, **options):
    """Run a program that must end well; return what it has said."""
    ended = run_program(program, *arguments, **options)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return ended.stdout


# --- whose pages ------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver", "concurrent.futures", "loky"])
def test_each_chunk_is_decompressed_once(url, copy, tmp_path, way, monkeypatch):
    """However workers are started, they have the pages of the process that pickled the array."""
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("MEETING", str(tmp_path / "meeting"))
    ended = run_program(scripts.start, meeting.__file__, way, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "shared\n"), ended.stderr


def test_an_unrelated_process_shares(url, copy):
    """Whoever gets a pickle through a pipe has the same pages, and so have its own children."""
    assert run_right(programs.an_unrelated_process_shares, url, copy) == "32 1 16\n"


def test_many_processes_at_once(url, copy):
    """They read at once and each unit is loaded once."""
    assert run_right(programs.many_processes_at_once, url, copy) == "16\n"


def test_views_and_what_they_say_of_themselves(tmp_path, copy):
    """A view of any shape arrives as it was, with the array's attributes and names."""
    assert (
        run_right(programs.views_and_what_they_say_of_themselves, tmp_path / "x.zarr", copy)
        == "b'2 2\\n'\n"
    )


def test_an_array_in_the_memory_of_one_process(copy):
    """Another process, which cannot open it, has it through the pager."""
    run_right(programs.an_array_in_the_memory_of_one_process, copy)


def test_a_joined_process_goes_by_the_pagers_settings(url, copy):
    """It must not undo the limit that the first one has set, and can change it for all."""
    assert (
        run_right(programs.a_joined_process_goes_by_the_pagers_settings, url, copy)
        == f"{2 << 20}\n"
    )


def test_an_array_that_was_dropped_is_opened_in_the_same_pager(url, copy):
    """Whoever comes late finds the pager, and no pages."""
    run_right(programs.an_array_that_was_dropped_is_opened_in_the_same_pager, url, copy)


def test_the_pages_are_those_that_were_pickled(tmp_path, copy):
    """A store that is replaced meanwhile does not matter to who shares memory."""
    run_right(programs.the_pages_are_those_that_were_pickled, tmp_path / "x.zarr", copy)


def test_an_array_that_has_become_another_one(tmp_path):
    """A place in its memory would show other elements; more rows do no harm."""
    told = "cannot open what was pickled of array '' \n"
    assert run_right(programs.an_array_that_has_become_another_one, tmp_path / "x.zarr") == told * 3


# --- when it cannot be -------------------------------------------------------------------


def test_the_pager_is_gone(url, copy):
    """The array is opened anew; the name in the pickle leads nowhere."""
    run_right(programs.the_pager_is_gone, url, copy)


def test_a_process_that_has_a_pager_keeps_it(url, copy):
    """One process has one pager: it opens what it is given there."""
    run_right(programs.a_process_that_has_a_pager_keeps_it, url, copy)


@needs_root
@pytest.mark.parametrize(
    "wrapper",
    [AS_NOBODY, ("unshare", "--net"), ("unshare", "--pid", "--fork")],
    ids=["another user", "another network", "other process ids"],
)
def test_a_process_that_must_not_share_opens_its_own(url, copy, wrapper):
    """Another user's, or one in another container, can neither reach nor be watched."""
    run_right(programs.a_process_that_must_not_share_opens_its_own, url, copy, *wrapper)


@needs_root
def test_another_user_is_turned_away(url):
    """Whoever knows the name gets nothing; what this user's process says is checked too."""
    ended = run_program(programs.another_user_is_turned_away, url)
    assert ended.returncode == 0, ended.stderr
    nothing, not_invited, other_version, other_fields = ended.stdout.splitlines()
    assert nothing == "b'' b''"
    assert not_invited.count("it was not invited") == 2
    assert f"expected version {VERSION}, found 0" in other_version
    assert other_fields == "b''"
    assert "cannot take on a process that was not forked" in ended.stderr


@pytest.mark.parametrize("made", ["array", "group"])
def test_a_reference_of_another_version_is_refused(url, tmp_path, made):
    """It would mean something else; the first ones had no number."""
    found = run_right(
        programs.a_reference_of_another_version_is_refused, url, tmp_path / "g", made
    ).splitlines()
    told = (
        "cannot open what was pickled by another version of lazyarr: its references are of version"
    )
    assert [line.startswith(told) for line in found] == [True] * 3


@needs_root
def test_a_crowd_of_another_user_does_not_disturb(url, copy):
    """It is turned away a few at a time: faults are served, and who is invited comes in."""
    run_right(programs.a_crowd_of_another_user_does_not_disturb, url, copy)


def test_a_name_that_another_user_has_taken(url):
    """A socket of another user's gets no descriptors: it is not even spoken to."""
    if os.geteuid():
        pytest.skip("listening as another user needs root")
    name = "0" * 32
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.seteuid(65534)
    try:
        listener.bind(f"\0lazyarr-{name}")
        listener.listen()
    finally:
        os.seteuid(0)
    with listener:
        run_right(programs.a_name_that_another_user_has_taken, name)
        listener.settimeout(5)
        came, _ = listener.accept()
        with came:
            assert came.recv(100) == b""


# --- who dies -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", programs.ENDINGS)
def test_the_parent_ends_first(url, copy, tmp_path, ending):
    """Who joined reads on in the same pager, and that ends with the last of them."""
    result = tmp_path / "result"
    process, mark = start_program(
        programs.the_parent_ends_first, url, copy, tmp_path / "ready", result, ending
    )
    process.communicate(timeout=60)
    assert wait_until(lambda: result.exists() and result.read_text(), 30)
    assert result.read_text() == "32"
    assert wait_until(lambda: not pagers(mark))


def test_the_worker_dies_while_a_process_comes(url, copy):
    """Who waits to be let in is let in by the next worker."""
    ended = run_program(programs.the_worker_dies_while_a_process_comes, url, copy)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "lazyarr: the pager's worker died of SIGKILL; another takes over\n"


def test_workers_die_all_the_time(url, copy):
    """At whatever moment of its coming a process meets a dead worker, it reads right."""
    ended = run_program(programs.workers_die_all_the_time, url, copy, seconds=150)
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
    said = "lazyarr: the pager's worker died of SIGKILL; another takes over"
    assert set(ended.stderr.splitlines()) == {said}


def test_everything_of_the_pager_dies(url, copy):
    """Whoever comes after that opens the array in a pager of its own."""
    process, mark = start_program(programs.everything_of_the_pager_dies, url, copy)
    worker = int(process.stdout.readline())
    for pid in (family(mark, worker)[0], worker):
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: len(pagers(mark)) == 1)
    _, stderr = process.communicate("go\n", timeout=60)
    said = "lazyarr: the pager was killed; touching what is not loaded gives SIGBUS from now on\n"
    assert (process.returncode, stderr) == (0, said)
    assert wait_until(lambda: not pagers(mark))


# --- nothing stays ---------------------------------------------------------------------------


def test_nothing_is_left_of_those_who_came_and_went(url, copy):
    """Descriptors and clients of pager and process are what they were; so are names of sockets."""
    name = run_right(programs.nothing_is_left_of_those_who_came_and_went, url, copy).strip()
    assert name not in Path("/proc/net/unix").read_text()


def test_region_of_another_process_is_given_back(url, copy):
    """A process that joined lets go of what it drops, and of the mappings."""
    assert run_right(programs.region_of_another_process_is_given_back, url, copy) == "16\n"
