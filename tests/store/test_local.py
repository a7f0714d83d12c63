"""Local directories: descriptors, replaced trees, odd files."""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazyarr
from lazyarr.errors import StoreError
from lazyarr.store import open_reference, open_store, store_reference
from lazyarr.store.base import NoObjectError
from lazyarr.store.local import LocalStore
from tests.process.running import command_of
from tests.programs import local_stores
from tests.store.forked import succeeds_in_child


def open_descriptors():
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(directory):
    store = open_store(directory, writable=True)
    yield store
    store.close()


def fill(store, n_objects):
    for number in range(n_objects):
        store.write(f"c/{number}", str(number).encode() * 50)


def test_many_objects_need_few_descriptors(store):
    """200 objects are read with a bounded number of open files, and none stays after close."""
    before = open_descriptors()
    fill(store, 200)
    for number in range(200):
        assert store.read_range(f"c/{number}", 0, 50) is not None
    assert len(open_descriptors() - before) <= 70
    store.close()
    assert open_descriptors() <= before


def test_no_thread_reads_from_a_descriptor_that_another_closed(store):
    """With more objects than descriptors, eight threads still get the right bytes."""
    fill(store, 150)

    def read(seed):
        numbers = random.Random(seed)
        for _ in range(300):
            n = numbers.randrange(150)
            expected = str(n).encode() * 50
            if store.read_range(f"c/{n}", 0, len(expected)) != expected:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_closing_waits_for_readers(store, directory):
    """A close by one thread does not take the file away from another."""
    store.write("a", b"x" * 1000)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            if store.read_range("a", 0, 1000) != b"x" * 1000:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for _ in range(50):
            store.close()
        stop.set()
        assert all(reader.result() for reader in readers)


def test_a_lock_that_was_held_at_the_fork_does_not_stop_the_child(store):
    """The child has locks and descriptors of its own, whatever other threads were doing."""
    store.write("a", b"data")
    store.read_range("a", 0, 1)
    with store._files._lock, store._root._pool._lock:
        assert succeeds_in_child(lambda: store.read_range("a", 0, 4) == b"data")
    assert store.read("a") == b"data"


def test_a_place_where_nothing_is_has_no_objects(directory):
    """A store that does not exist yet is empty, and is made by the first write."""
    reader = open_store(directory)
    assert reader.read("zarr.json") is None
    assert reader.list_names("") == ()
    open_store(directory, writable=True).write("zarr.json", b"{}")
    assert reader.read("zarr.json") == b"{}"


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_replaced_directory_has_no_missing_objects(store, directory, how):
    """Once the tree is not the one that was opened, "not there" is an error, not an answer."""
    store.write("c/0", b"data")
    assert store.read("c/1") is None
    aside = directory.with_name("aside")
    directory.rename(aside)
    if how == "removed":
        shutil.rmtree(aside)
    if how == "replaced":
        directory.mkdir()
    for call in (
        lambda: store.read("c/1"),
        lambda: store.read_range("c/1", 0, 1),
        lambda: store.read_suffix("c/1", 1),
        lambda: store.size("c/1"),
        lambda: store.list_names("d"),
        lambda: store.exists_any("d"),
    ):
        with pytest.raises(StoreError, match="replaced, moved or removed") as caught:
            call()
        assert not caught.value.transient


def test_a_replaced_directory_does_not_mix_two_trees(store, directory):
    """What is still read comes from the tree that was opened."""
    store.write("c/0", b"old")
    store.write("c/1", b"old")
    store.read("c/0")
    directory.rename(directory.with_name("aside"))
    open_store(directory, writable=True).write("c/1", b"new")
    assert store.read("c/1") == b"old"


def test_a_reference_means_this_directory(store, directory):
    """Another process does not open what was put in the place of the directory meanwhile."""
    store.write("a", b"old")
    description, _ = store_reference(store)
    # Kept, so that the new directory cannot get the old one's inode.
    directory.rename(directory.with_name("aside"))
    directory.mkdir()
    with pytest.raises(StoreError, match="replaced"):
        open_reference(description).read("a")


def test_ranges_stay_in_one_file_until_the_suffix_is_read_again(store, directory):
    """A shard that is replaced is not mixed with the index that was read before."""
    store.write("shard", b"old-index")
    reader = open_store(directory)
    assert reader.read_suffix("shard", 5) == (b"index", 9)
    store.write("shard", b"brand-new-index")
    assert reader.read_range("shard", 0, 3) == b"old"
    assert reader.read_suffix("shard", 5) == (b"index", 15)
    assert reader.read_range("shard", 0, 5) == b"brand"
    reader.close()


def test_a_size_and_the_ranges_after_it_are_of_one_object(store, directory):
    """An object that is replaced while it is open is not read with the size of the new one."""
    store.write("chunk", b"old")
    reader = open_store(directory)
    assert reader.read_range("chunk", 0, 3) == b"old"
    store.write("chunk", b"longer")
    assert reader.size("chunk") == 6
    assert reader.read_range("chunk", 0, 6) == b"longer"
    reader.close()


def test_a_file_that_shrinks_raises(store, directory):
    """A file truncated while it is open gives an error that says where it ends."""
    store.write("a", b"0123456789")
    store.read_range("a", 0, 10)
    os.truncate(directory / "a", 4)
    with pytest.raises(StoreError, match=r"\[2, 10\).*byte 4"):
        store.read_range("a", 2, 10)


def test_a_write_that_fails_leaves_the_old_object(store, directory):
    """Data that cannot be written changes nothing and leaves no file behind."""
    store.write("a", b"old")
    with pytest.raises(TypeError):
        store.write("a", memoryview(b"01234567")[::2])
    assert store.read("a") == b"old"
    assert os.listdir(directory) == ["a"]


def test_readers_see_whole_objects_while_one_writes(store):
    """An object that is replaced over and over is always read whole."""
    objects = [bytes([n]) * 50_000 for n in range(4)]
    store.write("a", objects[0])
    stop = threading.Event()

    def read():
        while not stop.is_set():
            if store.read("a") not in objects:
                return False
        return True

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for n in range(200):
            store.write("a", objects[n % 4])
        stop.set()
        assert all(reader.result() for reader in readers)


def test_what_a_dead_writer_left_is_no_object(store, directory):
    """Temporary files are neither listed nor counted as contents."""
    (directory / "c").mkdir(parents=True)
    (directory / "c" / ".lazyarr-tmp-1-2-3").write_bytes(b"half")
    assert store.list_names("c") == ()
    assert not store.exists_any("")


def test_empty_directories_are_no_contents(store, directory):
    """A tree of directories alone holds nothing."""
    (directory / "a" / "b").mkdir(parents=True)
    assert not store.exists_any("")
    assert not store.exists_any("a")
    assert store.read("a/c") is None
    assert store.size("a/b/c") is None


def test_a_fifo_is_refused(store, directory):
    """What is no regular file raises, and does not wait for a writer."""
    directory.mkdir()
    os.mkfifo(directory / "pipe")
    for look in (store.read, store.size, store.version):
        with pytest.raises(NoObjectError, match="not a regular file"):
            look("pipe")
    assert store.exists_any("pipe")
    with pytest.raises(StoreError, match="neither a directory nor a regular file"):
        open_store(directory / "pipe").read("zarr.json")


def test_a_fifo_is_no_document(directory):
    """Nor does opening a directory wait for a writer."""
    directory.mkdir()
    for name, said in {".zmetadata": "no array", "zarr.json": "not a regular file"}.items():
        os.mkfifo(directory / name)
        with pytest.raises(lazyarr.LazyarrError, match=said):
            lazyarr.open(directory)


LOOKS = {
    "read": lambda store, key: store.read(key),
    "read_range": lambda store, key: store.read_range(key, 0, 1),
    "read_suffix": lambda store, key: store.read_suffix(key, 1),
    "size": lambda store, key: store.size(key),
}


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


OBSTACLES = {
    "a link to nothing": (lambda root: link(root / "x/c/0/0", "../.git/annex/1"), "x/c/0/0"),
    "above it": (lambda root: link(root / "x/c", "../.git/annex/1"), "x/c"),
    "a chain of links": (
        lambda root: (link(root / "x/c/0/0", "1"), link(root / "x/c/0/1", "nowhere")),
        "x/c/0/0",
    ),
    "a ring of links": (lambda root: link(root / "x/c/0/0", "0"), "x/c/0/0"),
    "a ring above it": (lambda root: link(root / "x/c", "c"), "x/c"),
    "a directory": (lambda root: (root / "x/c/0/0").mkdir(parents=True), "x/c/0/0"),
    "a directory with something in it": (lambda root: link(root / "x/c/0/0/1", "2"), "x/c/0/0"),
    "a file above it": (lambda root: write(root / "x/c/0"), "x/c/0"),
    "a file far above it": (lambda root: write(root / "x"), "x"),
}


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"1")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_is_in_the_way_of_an_object_is_named(directory, obstacle, look):
    """It is an error, not a missing object, for good; without it the object is missing."""
    make, place = OBSTACLES[obstacle]
    (directory / "y").mkdir(parents=True)
    make(directory)
    with pytest.raises(NoObjectError, match=r"cannot (read|look up) 'x/c/0/0'") as caught:
        LOOKS[look](open_store(directory), "x/c/0/0")
    assert "a directory" in str(caught.value) or repr(place) in str(caught.value)
    assert not caught.value.transient
    (directory / "x").unlink() if place == "x" else shutil.rmtree(directory / "x")
    assert LOOKS[look](open_store(directory), "x/c/0/0") is None


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_was_deleted_is_missing(store, directory, obstacle):
    """A link is deleted; what leads nowhere, and stays, is an error as it is to readers."""
    make, place = OBSTACLES[obstacle]
    make(directory)
    if (directory / "x/c/0/0").is_symlink():
        store.delete("x/c/0/0")
        assert store.read("x/c/0/0") is None
        return
    error = StoreError if (directory / place).is_symlink() else NoObjectError
    with pytest.raises(error, match="cannot delete 'x/c/0/0'") as caught:
        store.delete("x/c/0/0")
    assert not caught.value.transient
    assert os.path.lexists(directory / place)
    with pytest.raises(NoObjectError):
        store.read("x/c/0/0")


@pytest.mark.parametrize("obstacle", [o for o in OBSTACLES if "director" in o or "file" in o])
def test_what_is_in_the_way_of_a_writer_is_named(store, directory, obstacle):
    """It stays, and so does what has it in the way of its new name."""
    make, place = OBSTACLES[obstacle]
    make(directory)
    what = "it is a directory" if place == "x/c/0/0" else f"'{place}' is a file"
    store.write("z/0", b"1")
    for change in (
        lambda: store.write("x/c/0/0", b"2"),
        lambda: store.write("x/c/0/0", b"2", expected=None),
        lambda: store.rename("z/0", "x/c/0/0"),
    ):
        with pytest.raises(NoObjectError, match=f"x/c/0/0' in .*: {what}"):
            change()
    assert os.path.lexists(directory / place)
    assert store.read("z/0") == b"1"


@pytest.mark.parametrize("old", ["a/0", "a"])
@pytest.mark.parametrize("new", ["b", "pipe", "ring", "nowhere", "full"])
def test_nothing_is_renamed_over(store, directory, old, new):
    """Neither an object nor anything else is lost to what gets its name."""
    store.write("a/0", b"1")
    store.write("b", b"2")
    store.write("full/0", b"3")
    os.mkfifo(directory / "pipe")
    link(directory / "ring", "ring")
    link(directory / "nowhere", "absent")
    before = os.lstat(directory / new)
    with pytest.raises(StoreError, match=f"cannot rename '{old}' to '{new}'"):
        store.rename(old, new)
    assert os.lstat(directory / new) == before
    assert store.read("a/0") == b"1"


def test_objects_behind_a_link_are_contents(store, directory, tmp_path):
    """As they are read through it; and so is a link that leads nowhere."""
    write(tmp_path / "outside/c/0")
    link(directory / "x", tmp_path / "outside")
    link(directory / "y/c", tmp_path / "outside/c")
    link(directory / "z/c", "nowhere")
    (directory / "empty").mkdir()
    assert store.read("x/c/0") == store.read("y/c/0") == b"1"
    assert all(store.exists_any(prefix) for prefix in ("", "x", "x/c", "y", "y/c", "z"))
    assert not store.exists_any("empty")


def test_a_ring_of_links_spoils_no_listing(store, directory):
    """It may be anything, until somebody asks for what is in it."""
    store.write("a/0", b"1")
    link(directory / "ring", "ring")
    assert store.list_names("") == store.list_directories("") == ("a", "ring")


def test_a_name_that_is_too_long_is_an_error(store):
    """Whatever is done with it; and a path that no call takes leads to nobody knows what."""
    store.write("z/0", b"1")
    reads = (store.read, store.size, store.version, store.list_names, store.exists_any)
    changes = (store.delete, lambda key: store.write(key, b"1"), lambda key: store.rename("z", key))
    for key, acts in (("a" * 300, reads + changes), ("/".join(["a" * 200] * 30), reads)):
        for act in acts:
            with pytest.raises(StoreError, match="File name too long; use shorter names") as caught:
                act(key)
            assert not caught.value.transient
    assert store.read("z/0") == b"1"


def test_without_the_right_nothing_is_changed():
    """An error that says so; nothing is deleted, and nothing counts as missing."""

    def refused(act):
        try:
            act()
        except StoreError as error:
            return "check the owner and the mode" in str(error) and not error.transient
        return False

    def change():
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        store = open_store(path, writable=True)
        return all(
            refused(act)
            for act in (
                lambda: store.delete("x/c/0"),
                lambda: store.delete_prefix("x"),
                lambda: store.write("x/c/0", b"2"),
                lambda: store.rename("x/c", "x/d"),
                lambda: store.read("secret/0"),
                lambda: store.size("secret/0"),
                lambda: store.exists_any("secret"),
                lambda: store.delete("secret/0"),
            )
        )

    with tempfile.TemporaryDirectory() as above:
        path = f"{above}/store"
        store = open_store(path, writable=True)
        store.write("x/c/0", b"1")
        store.write("secret/0", b"1")
        os.chmod(above, 0o755)
        os.chmod(f"{path}/secret", 0)
        for directory in (f"{path}/x/c", f"{path}/x", path):
            os.chmod(directory, 0o555)
        try:
            assert succeeds_in_child(change)
            assert store.read("x/c/0") == b"1"
        finally:
            for directory in (path, f"{path}/x", f"{path}/x/c", f"{path}/secret"):
                os.chmod(directory, 0o755)


def test_a_link_to_an_object_is_one(directory):
    """As git-annex has them where the content is there; also when a directory is linked."""
    write(directory / "annex/1")
    link(directory / "x/c/0", "../../annex/1")
    link(directory / "y", "x")
    reader = open_store(directory)
    assert reader.read("x/c/0") == reader.read("y/c/0") == b"1"
    assert reader.read("y/c/1") is None


def test_an_object_that_comes_while_it_is_looked_for_is_missing_or_read(directory):
    """Links that point to nothing are replaced by files again and again: never missing."""
    write(directory / "data")
    (directory / "c").mkdir()
    ended = threading.Event()

    def replace():
        number = 0
        while not ended.is_set():
            number += 1
            os.symlink("nowhere", directory / f"new{number}")
            os.rename(directory / f"new{number}", directory / "c/0")
            os.link(directory / "data", directory / f"new{number}")
            os.rename(directory / f"new{number}", directory / "c/0")

    os.symlink("nowhere", directory / "c/0")
    writer = threading.Thread(target=replace)
    writer.start()
    found = []
    try:
        for _ in range(2000):
            try:
                found.append(open_store(directory).read("c/0"))
            except NoObjectError:
                found.append("link")
    finally:
        ended.set()
        writer.join()
    assert set(found) <= {b"1", "link"}


STRANGERS = {
    "b.nc": (b"CDF\1", "NetCDF 3.*xarray"),
    "a.tif": (b"II*\0", "TIFF.*format='tiff'"),
    "a.txt": (b"hello", "it is a file, not a directory"),
    "empty": (b"", "it is a file, not a directory"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_is_no_store(tmp_path, name):
    """Opening one says what it is, by its first bytes, and what to do with it."""
    begin, match = STRANGERS[name]
    (tmp_path / name).write_bytes(begin + bytes(20))
    with pytest.raises(StoreError, match=match):
        open_store(tmp_path / name).read("zarr.json")
    with pytest.raises(StoreError, match="what is above it is a file"):
        open_store(tmp_path / name / "below").read("zarr.json")


def test_a_directory_that_nobody_may_list_is_read():
    """With mode 0111 names can be looked for, and that is all that reading takes."""

    def read():
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)  # with root's rights every directory can be listed
        store = open_store(path)
        found = store.read("x/c/0"), store.read("x/c/1"), store.size("x/c/0")
        return found == (b"1", None, 1) and store.is_unchanged()

    with tempfile.TemporaryDirectory() as above:
        path = f"{above}/store"
        open_store(path, writable=True).write("x/c/0", b"1")
        time.sleep(0.02)  # beyond the step of the clock that files have: is_unchanged is a proof
        os.chmod(above, 0o755)
        for directory in (f"{path}/x/c", f"{path}/x", path):
            os.chmod(directory, 0o111)
        try:
            assert succeeds_in_child(read)
        finally:
            for directory in (path, f"{path}/x", f"{path}/x/c"):
                os.chmod(directory, 0o755)


def test_a_path_with_two_colons_is_a_path_where_it_exists(tmp_path, monkeypatch):
    """Otherwise it is a chain of file systems."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a::b").mkdir()
    (tmp_path / "a::b/c").write_bytes(b"1")
    for url in ("a::b", str(tmp_path / "a::b")):
        store = open_store(url)
        assert store.read("c") == b"1"
        description, descriptors = store_reference(store)
        assert open_reference(description, descriptors).read("c") == b"1"
    with pytest.raises(StoreError):
        open_store("a::nothing")


def test_a_zip_archive_is_a_store(tmp_path):
    """The URL that the message gives works."""
    (tmp_path / "in" / "images").mkdir(parents=True)
    (tmp_path / "in" / "images" / "0").write_bytes(b"0123456789")
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in")
    store = open_store(f"zip://::{archive}")
    assert store.read_range("images/0", 2, 5) == b"234"
    assert store.read_suffix("images/0", 3) == (b"789", 10)
    assert store.read("images/1") is None
    assert store.list_names("") == ("images",)


def test_a_link_is_removed_and_not_followed(store, directory, tmp_path):
    """Deleting a prefix that is a symbolic link leaves what it points to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    directory.mkdir()
    (directory / "link").symlink_to(outside)
    store.delete_prefix("link")
    assert (outside / "precious").exists()
    assert not (directory / "link").is_symlink()


@pytest.mark.parametrize("at", ["a", "a/b", "a/b/c"])
@pytest.mark.parametrize("change", ["write", "delete", "delete_prefix"])
def test_changes_reach_nothing_through_a_link(store, directory, tmp_path, at, change):
    """A link at any place of a key: the object behind it stays, and a link above is an error."""
    outside = tmp_path / "outside"
    for name in ("c", "b/c", "zarr.json"):
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_bytes(b"precious")
    link = directory / at
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "c" if at == "a/b/c" else outside)
    act = getattr(store, change)
    if change == "write":
        act = functools.partial(store.write, data=b"new")
    if at == "a/b/c":
        act("a/b/c")
        assert not link.is_symlink()
    else:
        with pytest.raises(StoreError, match="is a symbolic link") as caught:
            act("a/b/c")
        assert not caught.value.transient
        assert link.is_symlink()
    assert all(path.read_bytes() == b"precious" for path in outside.rglob("*") if path.is_file())
    assert len(list(outside.rglob("*"))) == 4


def test_metadata_behind_a_link_stays(store, directory, tmp_path):
    """When what is deleted is the link itself."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/zarr.json").write_bytes(b"1")
    directory.mkdir()
    (directory / "link").symlink_to(tmp_path / "outside")
    store.delete_prefix("link")
    assert (tmp_path / "outside/zarr.json").exists()
    assert not (directory / "link").is_symlink()


def test_urls_and_paths_mean_the_same(directory, monkeypatch):
    """Paths, file URLs, relative and home-relative paths open the same directory."""
    open_store(directory, writable=True).write("a", b"1")
    monkeypatch.chdir(directory.parent)
    monkeypatch.setenv("HOME", str(directory.parent))
    for url in (directory, str(directory), f"file://{directory}", "store", "~/store"):
        store = open_store(url)
        assert store.read("a") == b"1"
        assert store.url == f"file://{directory}"
        store.close()


def test_local_stores_import_neither_fsspec_nor_numpy(directory):
    """Opening and reading a local store stays light."""
    open_store(directory, writable=True).write("a", b"1")
    program = (
        "import sys; from lazyarr.store import open_store;"
        f"assert open_store({str(directory)!r}).read_range('a', 0, 1) == b'1';"
        "heavy = {'fsspec', 'numpy', 'asyncio', 'random', 'shutil', 'urllib.parse', 'socket'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, b"")


@given(
    data=st.binary(max_size=300),
    ranges=st.lists(st.tuples(st.integers(0, 310), st.integers(0, 310)), max_size=8),
)
def test_ranges_are_slices_or_errors(tmp_path_factory, data, ranges):
    """Any range is the slice of the object, or, where that is shorter, an error."""
    store = open_store(tmp_path_factory.mktemp("ranges"), writable=True)
    store.write("a", data)
    for first, second in ranges:
        start, stop = sorted((first, second))
        if stop <= len(data) or start == stop:
            assert store.read_range("a", start, stop) == data[start:stop]
        else:
            with pytest.raises(StoreError):
                store.read_range("a", start, stop)
    store.close()


def test_first_write_removes_what_dead_writers_left(tmp_path):
    """In its directory alone; what belongs to a writer that lives, or to no writer, stays."""
    for name in ("c/.lazyarr-tmp-1-2-3", "c/0", "d/.lazyarr-tmp-1-2-3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "c/.lazyarr-tmp-directory").mkdir()
    living = tmp_path / "c/.lazyarr-tmp-4-5-6"
    command = [sys.executable, *command_of(local_stores.holds_a_lock, living)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    store = LocalStore(str(tmp_path), writable=True)
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == b"locked\n"
        store.write("c/1", b"whole")
        found = sorted(path.name for path in (tmp_path / "c").iterdir())
        assert found == [".lazyarr-tmp-4-5-6", ".lazyarr-tmp-directory", "0", "1"]
        holder.stdin.close()
    assert (tmp_path / "d/.lazyarr-tmp-1-2-3").exists()
    store.close()


@pytest.mark.parametrize("n_times", [1, 2])
def test_file_that_is_cleared_away_is_written_again(tmp_path, n_times):
    """Another process may take it for a dead writer's just before it is renamed: once."""
    command = [
        sys.executable,
        *command_of(local_stores.file_that_is_cleared_away_is_written_again, tmp_path, n_times),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if n_times == 1:
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "c/0").read_bytes() == b"whole"
    else:
        assert "StoreError" in result.stderr
    assert [path.name for path in tmp_path.rglob(".lazyarr-tmp-*")] == []


def test_threads_of_a_writer_do_not_clear_each_other_away(tmp_path):
    """Many first writes to one directory at once, through stores of their own."""

    def write(number):
        store = LocalStore(str(tmp_path), writable=True)
        store.write(f"c/{number}", bytes(100_000))
        store.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(64)))
    assert len(list((tmp_path / "c").iterdir())) == 64


def test_stores_of_one_directory_hold_it_together(tmp_path):
    """It stays the same one while any of them is open, though all others are closed or rest."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"old")
    first = open_store(tmp_path / "d")
    reference = store_reference(first)
    before = len(os.listdir("/proc/self/fd"))
    stores = [open_reference(reference.description) for _ in range(20)]
    assert [store.read("a") for store in stores] == [b"old"] * 20
    for store in stores:
        store.rest()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    (tmp_path / "d").rename(tmp_path / "e")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"new")
    for store in stores[1:]:
        store.close()
    assert stores[0].read("a") == b"old"
    with pytest.raises(StoreError, match="replaced"):
        stores[0].read("b")
    stores[0].close()
    assert len(os.listdir("/proc/self/fd")) == before
    first.close()
