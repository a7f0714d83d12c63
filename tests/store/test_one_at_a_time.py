"""File systems that serve one thread at a time are asked so: also archives, which do not say it."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from lazyarr.store import open_store
from lazyarr.store.transport import FsspecTransport, turn_of

N_THREADS = 4
# Each member of other bytes, and longer than any buffer.
MEMBERS = {f"m{n}": bytes([n + 1]) * 200_000 for n in range(8)}


def zip_at(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return f"zip://::{path}"


def tar_at(path):
    with tarfile.open(path, "w") as archive:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return f"tar://::{path}"


@pytest.mark.parametrize("make", [zip_at, tar_at])
def test_threads_that_read_an_archive_get_their_own_bytes(tmp_path, make):
    """The members share one open file, whose position each read moves."""
    store = open_store(make(tmp_path / "archive"))
    start = threading.Barrier(N_THREADS)

    def read(number):
        start.wait()
        wrong = 0
        for step in range(60):
            name = f"m{(number + step) % len(MEMBERS)}"
            begin = 1000 + (step * 997) % 100_000
            found = store.read_range(name, begin, begin + 50_000)
            wrong += bytes(found) != MEMBERS[name][begin : begin + 50_000]
        return wrong

    with ThreadPoolExecutor(N_THREADS) as threads:
        assert sum(threads.map(read, range(N_THREADS))) == 0
    store.close()


class Counting(fsspec.AbstractFileSystem):
    """A synchronous file system that notes whether two calls were under way at once."""

    protocol = "counting"
    cachable = False

    def __init__(self):
        super().__init__()
        self.n_inside = self.n_most = 0

    def cat_file(self, path, start=None, end=None, **_):
        self.n_inside += 1
        self.n_most = max(self.n_most, self.n_inside)
        # Others come in meanwhile, if they can.
        threading.Event().wait(0.01)
        self.n_inside -= 1
        return b"x" * ((end or 10) - (start or 0))


class Known(Counting):
    """The same, by the name of a file system whose calls may overlap."""


Known.__name__ = "LocalFileSystem"


def most_at_once(asked, *ways):
    """Return how many calls were under way at once, of threads that go all of these ways."""
    transports = [FsspecTransport(fs, 10.0) for fs in ways or (asked,)]
    with ThreadPoolExecutor(N_THREADS) as threads:
        jobs = [threads.submit(t.fetch, "a", 0, 10) for _ in range(N_THREADS) for t in transports]
    assert all(len(job.result().data) == 10 for job in jobs)
    return asked.n_most


def test_a_synchronous_file_system_is_called_by_one_thread_at_a_time():
    """Whatever it is, unless it is known; also behind a directory's file system."""
    alone, inside, known = Counting(), Counting(), Known()
    assert most_at_once(alone) == 1
    assert most_at_once(inside, inside, DirFileSystem("d", inside)) == 1
    assert most_at_once(known) > 1


def test_file_systems_behind_one_are_each_called_by_one_thread():
    """As references do, which ask several; two ways to one of them wait for each other."""
    first, second = Counting(), Counting()
    both = Known()
    both.fss = {"a": first, "b": second}
    held = threading.Event(), threading.Event()

    def hold(fs, is_held):
        with turn_of(fs):
            is_held.set()

    threads = [
        threading.Thread(target=hold, args=each) for each in zip((first, second), held, strict=True)
    ]
    with turn_of(both):
        for thread in threads:
            thread.start()
        assert not any(each.wait(0.05) for each in held)
    for thread in threads:
        thread.join(20)
    assert all(each.is_set() for each in held)
