from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from lazyarr.errors import KernelUnsupportedError, StoreError
from lazyarr.writer.staging import StagedDirectory
from tests.process.running import command_of
from tests.programs import writers
from tests.writer.stores import partials


def publish(path, content, **options):
    place = StagedDirectory(str(path), overwrite=options.pop("overwrite", False))
    place.put("zarr.json", [content])
    place.publish(**options)
    place.close()


def make_store(path, content=b"old"):
    path.mkdir()
    (path / "zarr.json").write_bytes(content)


def content(path):
    return (path / "zarr.json").read_bytes()


def test_nothing_is_seen_before_publishing(tmp_path):
    """The place stays empty while objects are put; afterwards nothing lies beside it."""
    place = StagedDirectory(str(tmp_path / "x"), overwrite=False)
    place.put("a/b/c", [b"12", b"3"])
    assert place.read("a/b/c") == b"123"
    assert not (tmp_path / "x").exists()
    place.publish()
    assert (tmp_path / "x/a/b/c").read_bytes() == b"123"
    assert os.listdir(tmp_path) == ["x"]
    place.close()


def test_store_is_as_readable_as_any_directory(tmp_path):
    """Its mode is what the umask leaves, as with mkdir, not that of temporary files."""
    publish(tmp_path / "x", b"")
    (tmp_path / "other").mkdir()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_directories_above_are_made(tmp_path):
    """The parents of the store need not exist."""
    publish(tmp_path / "a/b/x", b"new")
    assert content(tmp_path / "a/b/x") == b"new"


def test_empty_directory_counts_as_nothing(tmp_path):
    """A store may be put where somebody made a directory for it."""
    (tmp_path / "x").mkdir()
    publish(tmp_path / "x", b"new")
    assert content(tmp_path / "x") == b"new"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["file", "directory", "link to nothing"])
def test_what_is_no_store_is_never_replaced(tmp_path, kind, overwrite):
    """Not even when told so: a wrong path must not cost somebody's files."""
    path = tmp_path / "x"
    if kind == "file":
        path.write_bytes(b"mine")
    elif kind == "directory":
        path.mkdir()
        (path / "mine").write_bytes(b"mine")
    else:
        (tmp_path / "loop").symlink_to("x")
        path.symlink_to("loop")
    with pytest.raises((FileExistsError, StoreError), match=r"is no store|symbolic links"):
        StagedDirectory(str(path), overwrite=overwrite)
    assert partials(tmp_path) == []
    assert os.path.lexists(path)


def test_old_store_is_replaced_when_told(tmp_path):
    """All of it, in one step; without being told it is refused before anything is written."""
    make_store(tmp_path / "x")
    (tmp_path / "x/stale").write_bytes(b"1")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        StagedDirectory(str(tmp_path / "x"), overwrite=False)
    publish(tmp_path / "x", b"new", overwrite=True)
    assert content(tmp_path / "x") == b"new"
    assert os.listdir(tmp_path / "x") == ["zarr.json"]
    assert partials(tmp_path) == []


def test_store_behind_a_symbolic_link_is_replaced_there(tmp_path):
    """The link stays a link."""
    make_store(tmp_path / "x")
    (tmp_path / "link").symlink_to("x")
    publish(tmp_path / "link", b"new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "x") == b"new"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_came_in_between_is_not_replaced_by_mistake(tmp_path, overwrite):
    """Somebody else's files that appear while a store is written stay; the writer fails."""
    place = StagedDirectory(str(tmp_path / "x"), overwrite=overwrite)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/mine").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        place.publish()
    place.abort()
    place.close()
    assert (tmp_path / "x/mine").read_bytes() == b"mine"
    assert partials(tmp_path) == []


def test_abort_leaves_nothing_beside(tmp_path):
    """Neither the store nor its beginnings."""
    place = StagedDirectory(str(tmp_path / "x"), overwrite=False)
    place.put("a", [b"1"])
    place.abort()
    place.close()
    assert os.listdir(tmp_path) == []


def no_exchange(*_, **__):
    raise KernelUnsupportedError("no", missing=("renameat2",), remedy="none")


def test_old_store_is_replaced_where_directories_can_not_be_exchanged(tmp_path):
    """As on network file systems: in two steps, with the same result."""
    make_store(tmp_path / "x")
    publish(tmp_path / "x", b"new", overwrite=True, exchange=no_exchange)
    assert content(tmp_path / "x") == b"new"
    assert partials(tmp_path) == []


def test_old_store_comes_back_after_death_between_the_steps(tmp_path):
    """The next writer puts it in its place again, and then respects it."""
    make_store(tmp_path / "x")
    command = [sys.executable, *command_of(writers.dies_between_the_steps, tmp_path / "x")]
    assert subprocess.run(command, check=False).returncode == -9
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileExistsError):
        StagedDirectory(str(tmp_path / "x"), overwrite=False)
    assert content(tmp_path / "x") == b"old"
    assert partials(tmp_path) == []


def test_failure_between_the_steps_puts_the_old_store_back(tmp_path):
    """When the new one cannot be moved, aborting leaves the old one."""
    make_store(tmp_path / "x")
    place = StagedDirectory(str(tmp_path / "x"), overwrite=True)
    (staged,) = tmp_path.glob(".x.partial-*/store")

    def exchange(*_, **__):
        staged.rename(tmp_path / "elsewhere")
        no_exchange()

    with pytest.raises(StoreError):
        place.publish(exchange=exchange)
    place.abort()
    place.close()
    assert content(tmp_path / "x") == b"old"
    assert partials(tmp_path) == []


def test_leftovers_of_dead_writers_are_removed(tmp_path):
    """Those of this place; what belongs to another store, or only looks alike, stays."""
    for name in (".x.partial-12345678", ".xy.partial-12345678", "x.partial-1"):
        (tmp_path / name / "store").mkdir(parents=True)
    publish(tmp_path / "x", b"new")
    assert sorted(os.listdir(tmp_path)) == [".xy.partial-12345678", "x", "x.partial-1"]


def test_living_writer_of_the_same_place_is_left_alone(tmp_path):
    """The second is refused before anything of the first is touched."""
    first = StagedDirectory(str(tmp_path / "x"), overwrite=False)
    first.put("zarr.json", [b"first"])
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="this process has a writer"):
            publish(tmp_path / "x", b"second", overwrite=overwrite)
    assert first.read("zarr.json") == b"first"
    first.publish()
    first.close()
    assert content(tmp_path / "x") == b"first"
    assert partials(tmp_path) == []


def test_writer_in_another_process_is_left_alone_until_it_dies(tmp_path):
    """A lock tells the living from the dead, whatever their process ids."""
    command = [sys.executable, *command_of(writers.holds_a_directory, tmp_path / "x")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        before = partials(tmp_path)
        with pytest.raises(StoreError, match=f"process {other.pid} is writing"):
            publish(tmp_path / "x", b"first")
        assert partials(tmp_path) == before
        other.kill()
    publish(tmp_path / "x", b"second")
    assert partials(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_leaves_the_directory_to_its_parent(tmp_path):
    """A child that ends within the ``with`` of its parent must not take the store away."""
    place = StagedDirectory(str(tmp_path / "x"), overwrite=False)
    place.put("zarr.json", [b"1"])
    pid = os.fork()
    if pid == 0:
        place.abort()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    place.publish()
    place.close()
    assert content(tmp_path / "x") == b"1"


def test_file_that_can_not_be_as_large_is_a_store_error(tmp_path):
    """As on a full disk: what the file system says is named with the key."""
    place = StagedDirectory(str(tmp_path / "x"), overwrite=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write 'large'.*File too large"):
            place.put("large", [b"1" * 100_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    place.close()
    assert os.listdir(tmp_path) == []


def test_place_that_can_not_be_written_is_a_store_error():
    """Before anything is compressed."""
    with pytest.raises(StoreError, match="cannot write"):
        StagedDirectory("/proc/x", overwrite=False)
