"""Memory whose faults are reported, and what every test must leave as it was."""

from __future__ import annotations

import ctypes
import os
import select
import threading
from collections.abc import Iterator

import pytest
import zarr

from lazyarr.kernel import (
    PAGE_NBYTES,
    WRITE_BACK,
    Features,
    RegisterMode,
    Userfaultfd,
    create_memfd,
    map_private,
    map_shared,
    memory_view,
    probe,
    punch_hole,
    unmap,
)
from lazyarr.pager.memory.installer import Backing
from tests.pager.serving import serve

__all__ = ["serve"]

SECONDS = 20
N_PAGES = 6
FEATURES = Features.MISSING_SHMEM | Features.MINOR_SHMEM | Features.POISON


class ClientMemory:
    """Some registered pages, private or in a memory object, and threads that touch them."""

    def __init__(self, uffd: Userfaultfd, *, shared: bool, is_written_back: bool = False) -> None:
        self.uffd = uffd
        self.nbytes = N_PAGES * PAGE_NBYTES
        self.memfd = create_memfd("test", nbytes=2 * self.nbytes) if shared else -1
        # Not at the object's beginning: an offset that is forgotten shows.
        self.backing = Backing(self.memfd, self.nbytes) if shared else None
        if shared:
            self.address = map_shared(self.memfd, self.nbytes, self.nbytes, writable=True)
        else:
            self.address = map_private(self.nbytes, writable=True)
        mode = RegisterMode.MISSING | RegisterMode.MINOR if shared else RegisterMode.MISSING
        if is_written_back:
            mode |= RegisterMode.WP
        uffd.register(self.address, self.nbytes, mode)
        self.threads: list[threading.Thread] = []

    def at(self, page: int) -> int:
        """Return the address of a page."""
        return self.address + page * PAGE_NBYTES

    def backing_at(self, page: int) -> Backing | None:
        """Return where a page lies in the memory object."""
        if self.backing is None:
            return None
        return self.backing._replace(offset=self.backing.offset + page * PAGE_NBYTES)

    def read(self, page: int, n_pages: int = 1) -> bytes:
        """Return pages as a system call sees them: OSError where one is missing or poisoned."""
        view = memory_view(self.at(page), n_pages * PAGE_NBYTES, writable=False)
        there, here = os.pipe()
        try:
            return os.read(there, os.write(here, view))
        finally:
            os.close(there)
            os.close(here)

    def write_behind(self, page: int, data: bytes) -> None:
        """Put bytes into the memory object past the registered mapping."""
        backing = self.backing_at(page)
        assert backing is not None
        os.pwrite(backing.memfd, data, backing.offset)

    def punch(self, page: int) -> None:
        """Take a page out of the memory object."""
        backing = self.backing_at(page)
        assert backing is not None
        punch_hole(backing.memfd, backing.offset, PAGE_NBYTES)

    def touch(self, page: int, write: bytes = b"") -> list[bytes]:
        """Start a thread that reads a byte of a page, or writes one, and wait for its fault."""
        found: list[bytes] = []

        def run() -> None:
            byte = ctypes.create_string_buffer(1)
            if write:
                ctypes.memmove(self.at(page), write, 1)
            ctypes.memmove(byte, self.at(page), 1)
            found.append(byte.raw)

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()
        self.wait_for_fault()
        return found

    def wait_for_fault(self) -> int:
        """Return the address of the next fault that is reported."""
        poll = select.poll()
        poll.register(self.uffd.fileno(), select.POLLIN)
        assert poll.poll(SECONDS * 1000), "no fault was reported"
        return self.uffd.read_faults(max=1)[0].address

    def join(self) -> None:
        """Wait until every thread has got its page."""
        for thread in self.threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), "a thread still waits for its page"

    def close(self) -> None:
        """Let go of everything."""
        unmap(self.address, self.nbytes)
        if self.memfd >= 0:
            os.close(self.memfd)


@pytest.fixture
def uffd() -> Iterator[Userfaultfd]:
    """A userfaultfd for user-mode faults, which lets system calls tell what a page is."""
    lacking = FEATURES & ~probe().features
    if lacking:
        pytest.skip(f"this kernel lacks {lacking!r}")
    with Userfaultfd.open(FEATURES, user_mode_only=True) as opened:
        yield opened


@pytest.fixture(params=["private", "shared"])
def memory(request: pytest.FixtureRequest, uffd: Userfaultfd) -> Iterator[ClientMemory]:
    """Some pages of each kind, all of them missing."""
    made = ClientMemory(uffd, shared=request.param == "shared")
    yield made
    made.close()


@pytest.fixture
def shared_memory(uffd: Userfaultfd) -> Iterator[ClientMemory]:
    """Some pages in a memory object, all of them holes."""
    made = ClientMemory(uffd, shared=True)
    yield made
    made.close()


@pytest.fixture
def written_memory() -> Iterator[ClientMemory]:
    """Some pages in a memory object that are written back, all of them holes."""
    if not probe().write_back:
        pytest.skip("this kernel lacks what memory that is written back needs")
    with Userfaultfd.open(WRITE_BACK | Features.POISON, user_mode_only=True) as uffd:
        made = ClientMemory(uffd, shared=True, is_written_back=True)
        yield made
        made.close()


@pytest.fixture
def private_memory(uffd: Userfaultfd) -> Iterator[ClientMemory]:
    """Some private pages, all of them missing."""
    made = ClientMemory(uffd, shared=False)
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def zarr_loop() -> None:
    """Let zarr-python start its thread, which it keeps, before anything is counted."""
    zarr.create_group(store={})


def _open_files() -> set[str]:
    paths = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    # The listing's own descriptor is closed by now.
    return {f"{path} {os.readlink(path)}" for path in paths if os.path.lexists(path)}


def _threads() -> set[threading.Thread]:
    # zarr-python adds to its pool as it goes.
    return {t for t in threading.enumerate() if not t.name.startswith(("asyncio", "zarr"))}


@pytest.fixture(autouse=True)
def leave_no_trace() -> Iterator[None]:
    """Fail the test that leaves a descriptor or a thread behind."""
    files, threads = _open_files(), _threads()
    yield
    assert _open_files() - files == set()
    assert _threads() - threads == set()
