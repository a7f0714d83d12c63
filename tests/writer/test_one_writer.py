"""One writer of a store at a time: the second gets an error, and nobody's rows are lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.errors import StoreError
from lazyarr.writer import open_writer
from lazyarr.writer.new_file import NewFile
from tests.cli.running import run
from tests.process.running import command_of
from tests.programs import writers
from tests.writer.stores import download, new_url, partials, read_tree, same

ROWS = np.arange(12, dtype="i8")


@contextlib.contextmanager
def holder(kind, url, *, forks=False):
    """Have another process begin to write; it goes on when a line is written to it."""
    command = [sys.executable, *command_of(writers.holds_a_store, kind, url)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, bufsize=0) as process:
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"f" if forks else b"-")
        assert process.stdout.readline() == b"forked\n"
        yield process
        process.stdin.close()


@pytest.fixture
def store(tmp_path):
    lazyarr.save(tmp_path / "s", {"x": ROWS})
    return tmp_path / "s"


WRITERS = {
    "append": open_writer,
    "overwrite": lambda url: lazyarr.create(url, overwrite=True),
    "save": lambda url: lazyarr.save(url, {"x": ROWS}, overwrite=True),
}


@pytest.mark.parametrize("second", WRITERS)
@pytest.mark.parametrize("first", ["append", "overwrite"])
def test_second_writer_is_told_who_is_first(store, first, second):
    """Whatever both do; the first goes on, and when it has closed the next may write."""
    before = sorted(path.name for path in store.rglob("*"))
    with holder(first, store) as process:
        with pytest.raises(StoreError, match=rf"process {process.pid} is writing") as caught:
            WRITERS[second](store)
        assert not caught.value.transient
        assert sorted(path.name for path in store.rglob("*")) == before
        process.stdin.write(b"g")
        assert process.stdout.readline() == b"closed\n"
    expected = [*ROWS, 100, 101] if first == "append" else [7]
    assert read_tree(store)["x"].tolist() == expected
    assert partials(store.parent) == []
    with open_writer(store) as writer:
        writer["x"].append([5])
    assert read_tree(store)["x"].tolist() == [*expected, 5]


NEW_WRITERS = {
    "create": lambda url: lazyarr.create(url),
    "overwrite": lambda url: lazyarr.create(url, overwrite=True),
    "save": lambda url: lazyarr.save(url, {"x": ROWS}, overwrite=True),
    "convert": lambda url: convert(url),
}


def convert(url):
    """Have the command write a store; what it says is raised."""
    np.save(url.parent / "rows.npy", ROWS)
    result = run("convert", url.parent / "rows.npy", url, "--quiet")
    if result.exit_code:
        raise StoreError(result.stderr, url=str(url), key=None, transient=False)


def test_second_writer_of_a_new_store_is_told_who_is_first(tmp_path):
    """Whoever it is, in this process too, before anything is lost; nothing is left behind."""
    url = tmp_path / "new"
    with holder("new", url) as process:
        for second in NEW_WRITERS.values():
            with pytest.raises(StoreError, match=rf"process {process.pid} is writing") as caught:
                second(url)
            assert "goes on from here" not in str(caught.value)
        process.stdin.write(b"g")
        assert process.stdout.readline() == b"closed\n"
    assert read_tree(url)["x"].tolist() == [7]
    assert partials(tmp_path) == []
    with lazyarr.create(tmp_path / "mine"):
        with pytest.raises(StoreError, match="this process has a writer"):
            lazyarr.create(tmp_path / "mine")
        lazyarr.create(tmp_path / "other").close()
    lazyarr.create(tmp_path / "mine", overwrite=True).close()
    assert partials(tmp_path) == []


@pytest.mark.parametrize("forks", [False, True])
def test_killed_writer_of_a_new_store_is_in_nobodys_way(tmp_path, forks):
    """Its lock ends with it, and the next writer takes away what it left."""
    url = tmp_path / "new"
    with holder("new", url, forks=forks) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(partials(tmp_path)) == 2
        lazyarr.save(url, {"x": ROWS})
    assert read_tree(url)["x"].tolist() == ROWS.tolist()
    assert partials(tmp_path) == []


def test_of_many_threads_one_makes_a_new_store(tmp_path):
    """Each either writes all of it, or is refused; none loses rows without an error."""

    def write(number):
        try:
            with lazyarr.create(tmp_path / "new", overwrite=True, durable=False) as writer:
                writer.create_array("x", shape=(1,), dtype="i8")[:] = number
        except StoreError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(8) as threads:
        refusals = list(threads.map(write, range(24)))
    assert None in refusals
    # The holder's process is not named where the holder has just ended.
    known = re.compile("this process has a writer|another process is writing")
    assert all(text is None or known.search(text) for text in refusals)
    assert refusals[read_tree(tmp_path / "new")["x"][0]] is None
    assert partials(tmp_path) == []


def test_two_conversions_to_a_new_file(tmp_path):
    """One file has one writer too, and what is locked is let go."""
    np.save(tmp_path / "rows.npy", ROWS)
    path = tmp_path / "rows.h5"
    with NewFile(str(path), overwrite=False), pytest.raises(StoreError, match="this process has"):
        NewFile(str(path), overwrite=True)
    assert run("convert", tmp_path / "rows.npy", path, "--quiet").exit_code == 0
    assert partials(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_rows_are_kept_where_something_came_in_between(tmp_path, overwrite):
    """Other libraries know of no lock; the error says where the rows are, which can be opened."""
    writer = lazyarr.create(tmp_path / "s", overwrite=overwrite)
    writer.create_array("x", shape=(12,), dtype="i8")[:] = ROWS
    (tmp_path / "s").mkdir()
    (tmp_path / "s/mine").touch()
    with pytest.raises(FileExistsError, match=r"complete, and kept as /") as caught:
        writer.close()
    kept = str(caught.value).rpartition(" ")[2]
    assert lazyarr.open(kept)["x"].tolist() == ROWS.tolist()
    assert partials(tmp_path) == []
    assert (tmp_path / "s/mine").exists()


@pytest.mark.parametrize("forks", [False, True])
def test_death_ends_the_right_to_write(store, forks):
    """Also where a forked child of the dead writer lives on."""
    with holder("append", store, forks=forks) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open_writer(store) as writer:
            writer["x"].append([5])
    assert read_tree(store)["x"].tolist() == [*ROWS, 5]


def test_readers_see_nothing_of_it(store):
    """No file is made for it: zarr-python lists arrays and groups only, without a warning."""
    with open_writer(store), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(zarr.open_group(store, mode="r", use_consolidated=False)) == ["x"]
        assert lazyarr.open(store)["x"].tolist() == ROWS.tolist()
    assert sorted(os.listdir(store)) == ["x", "zarr.json"]


def test_second_writer_in_this_process_is_refused(store):
    """It would lose rows as well; the error says that the first is here."""
    with open_writer(store), pytest.raises(StoreError, match="this process has a writer"):
        open_writer(store)
    with pytest.raises(ZeroDivisionError), open_writer(store):
        raise ZeroDivisionError
    open_writer(store).close()


def test_writer_that_was_dropped_is_in_nobodys_way(store):
    """Its right to write goes with it."""
    with pytest.warns(ResourceWarning, match="neither closed nor aborted"):
        open_writer(store).create_group("g")
    open_writer(store).close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_does_not_end_its_parents_right(store):
    """The child closes what it has of it, and the parent is still the only writer."""
    with open_writer(store):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(StoreError, match="this process"):
            open_writer(store)


def test_other_libraries_have_no_lock_but_lose_no_row(store):
    """What they have changed since the writer read it is not replaced by what it had in mind."""
    writer = open_writer(store)
    writer["x"].append([5])
    zarr.open_array(store / "x", mode="r+").append(np.array([50, 51]))
    with pytest.raises(StoreError, match="another writer has changed it"):
        writer.close()
    assert read_tree(store)["x"].tolist() == [*ROWS, 50, 51]


def test_array_that_another_writer_makes_meanwhile_is_not_replaced(store):
    """Neither its document nor what it says of the array."""
    writer = open_writer(store)
    writer.create_array("new", shape=(3,), dtype="i4")
    zarr.open_group(store, mode="r+").create_array("new", data=np.arange(2))
    with pytest.raises(StoreError, match=re.escape("'new/zarr.json'")):
        writer.close()
    assert read_tree(store)["new"].tolist() == [0, 1]


def test_new_store_is_of_one_writer_where_nothing_can_be_renamed(tmp_path):
    """Who begins second takes away what the first has put; the first must not go on."""
    url = new_url()
    first = lazyarr.create(url)
    first.create_array("x", shape=(4,), dtype="i8")[:] = 1
    second = lazyarr.create(url)
    second.create_array("x", shape=(2,), dtype="i8")[:] = 2
    with pytest.raises(StoreError, match="another writer has begun"):
        first.close()
    second.close()
    found = read_tree(download(url, tmp_path / "local"))
    assert found["x"].tolist() == [2, 2]


def test_in_an_object_store_the_last_to_close_gets_the_error(tmp_path):
    """There are no locks: documents are compared before anything is put."""
    url = new_url()
    lazyarr.save(url, {"x": ROWS, "y": ROWS})
    first, second = open_writer(url), open_writer(url)
    first["x"].append([1, 2])
    second["x"].append([3])
    first.close()
    with pytest.raises(StoreError, match=re.escape("'x/zarr.json'")):
        second.close()
    found = read_tree(download(url, tmp_path / "local"))
    assert same(found["x"], np.append(ROWS, [1, 2]))
    assert same(found["y"], ROWS)
