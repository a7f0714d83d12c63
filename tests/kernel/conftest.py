"""Memory of each kind, threads that touch it, and what every test must leave as it was."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import lazyarr
from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
    Fault,
    Features,
    RegisterMode,
    ScratchBuffer,
    Userfaultfd,
    create_memfd,
    madvise,
    map_private,
    map_shared,
    probe,
    reserve,
    unmap,
)
from tests.process.running import command_of

SECONDS = 20
HUGE_PAGES = 8
NR_HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
KINDS = ("anonymous", "memfd", "hugetlbfs")
MODES = {
    "anonymous": RegisterMode.MISSING,
    "memfd": RegisterMode.MISSING | RegisterMode.MINOR,
    "hugetlbfs": RegisterMode.MISSING | RegisterMode.MINOR,
}
FEATURES = (
    Features.MISSING_SHMEM
    | Features.MINOR_SHMEM
    | Features.MISSING_HUGETLBFS
    | Features.MINOR_HUGETLBFS
    | Features.PAGEFAULT_FLAG_WP
    | Features.WP_HUGETLBFS_SHMEM
    | Features.POISON
    | Features.THREAD_ID
)


@dataclass
class Memory:
    """Some pages of one kind; page numbers count pages of that kind's size."""

    kind: str
    fd: int
    address: int
    page_nbytes: int
    pages: int
    _second: list[int] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return self.pages * self.page_nbytes

    @property
    def mode(self) -> RegisterMode:
        return MODES[self.kind]

    def at(self, page: int) -> int:
        """Return the address of a page."""
        return self.address + page * self.page_nbytes

    def second(self) -> int:
        """Return the address of another mapping of the same memory, not registered."""
        if not self._second:
            self._second.append(map_shared(self.fd, 0, self.nbytes, writable=True))
        return self._second[0]

    def fill(self, page: int, byte: bytes) -> None:
        """Give the memory object a page, through the second mapping."""
        ctypes.memset(self.second() + page * self.page_nbytes, byte[0], self.page_nbytes)

    def zap(self, page: int) -> None:
        """Take a page out of the page tables, and leave it in the memory object."""
        madvise(self.at(page), self.page_nbytes, Advice.DONTNEED)

    def close(self) -> None:
        for address in (self.address, *self._second):
            unmap(address, self.nbytes)
        if self.fd >= 0:
            os.close(self.fd)


class Toucher:
    """A thread that touches memory in C, without the GIL, as any C library may."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.ended: list[object] = []
        self.thread_id = 0
        started = threading.Event()

        def run() -> None:
            self.thread_id = threading.get_native_id()
            started.set()
            self.ended.append(call())

        self.thread = threading.Thread(target=run, name="toucher", daemon=True)
        self.thread.start()
        assert started.wait(SECONDS)

    def result(self) -> object:
        """Return what the call returned, once it has."""
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "the toucher still waits for its page"
        return self.ended[0]


def huge_page_nbytes() -> int:
    """Return the default size of a huge page."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Hugepagesize:"):
            return int(line.split()[1]) * 1024
    return 0


def free_huge_pages() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("HugePages_Free:"):
            return int(line.split()[1])
    return 0


@pytest.fixture(scope="session", autouse=True)
def huge_page_pool() -> Iterator[None]:
    """A pool of huge pages where we may have one, put back also when the tests are killed."""
    if free_huge_pages() >= HUGE_PAGES or os.geteuid() != 0 or not NR_HUGEPAGES.exists():
        yield
        return
    before = NR_HUGEPAGES.read_text().strip()
    # It writes when its pipe ends, and Ctrl-C does not reach it.
    restorer = subprocess.Popen(
        ["sh", "-c", f"cat; echo {before} > {NR_HUGEPAGES}"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    NR_HUGEPAGES.write_text(str(int(before) + HUGE_PAGES))
    yield
    restorer.communicate()


def make_memory(kind: str, pages: int) -> Memory:
    """Return memory of a kind, all of it missing."""
    page_nbytes = PAGE_NBYTES
    if kind == "hugetlbfs":
        if free_huge_pages() < HUGE_PAGES:
            pytest.skip(f"fewer than {HUGE_PAGES} huge pages are free, and no right to have more")
        page_nbytes = huge_page_nbytes()
    nbytes = pages * page_nbytes
    if kind == "anonymous":
        return Memory(kind, -1, map_private(nbytes, writable=True), page_nbytes, pages)
    fd = create_memfd("test", nbytes=nbytes, hugetlb=kind == "hugetlbfs")
    return Memory(kind, fd, map_shared(fd, 0, nbytes, writable=True), page_nbytes, pages)


@pytest.fixture(params=KINDS)
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    """Four pages of each kind in turn."""
    made = make_memory(request.param, 4)
    yield made
    made.close()


@pytest.fixture(params=KINDS[1:])
def shared_memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    """Four pages of each kind that several mappings can share."""
    made = make_memory(request.param, 4)
    yield made
    made.close()


@pytest.fixture
def memfd_memory() -> Iterator[Memory]:
    """Four pages of a memfd."""
    made = make_memory("memfd", 4)
    yield made
    made.close()


@pytest.fixture
def anonymous_memory() -> Iterator[Memory]:
    """Four pages of private anonymous memory."""
    made = make_memory("anonymous", 4)
    yield made
    made.close()


@pytest.fixture
def huge_memory() -> Iterator[Memory]:
    """One huge page more than the pool has."""
    made = make_memory("hugetlbfs", free_huge_pages() + 1)
    yield made
    made.close()


@pytest.fixture
def uffd() -> Iterator[Userfaultfd]:
    """A userfaultfd with every feature in use; what waits for it is let go at the end."""
    lacking = FEATURES & ~probe().features
    if lacking:
        pytest.skip(f"this kernel lacks {lacking!r}")
    with Userfaultfd.open(FEATURES) as opened:
        yield opened


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[ScratchBuffer]:
    """Bytes to install: four pages of the size that the test uses, no two alike."""
    used = [name for name in request.fixturenames if name.endswith("memory")]
    page_nbytes = request.getfixturevalue(used[0]).page_nbytes if used else PAGE_NBYTES
    with ScratchBuffer(4 * page_nbytes) as scratch:
        for page in range(4):
            scratch.view[page * page_nbytes : (page + 1) * page_nbytes] = (
                bytes([ord("a") + page]) * page_nbytes
            )
        yield scratch


@pytest.fixture
def touch() -> Callable[..., Toucher]:
    """Start a thread that reads one byte at an address, or writes one there."""

    def start(address: int, write: bytes | None = None) -> Toucher:
        def call() -> bytes:
            if write is not None:
                ctypes.memmove(address, write, 1)
                return write
            byte = ctypes.create_string_buffer(1)
            ctypes.memmove(byte, address, 1)
            return byte.raw

        return Toucher(call)

    return start


@pytest.fixture
def in_thread() -> type[Toucher]:
    """Start a thread that makes a call."""
    return Toucher


@pytest.fixture
def next_faults() -> Callable[..., list[Fault]]:
    """Wait until faults are reported, and return them."""

    def wait(uffd: Userfaultfd, count: int = 1) -> list[Fault]:
        poll = select.poll()
        poll.register(uffd.fileno(), select.POLLIN)
        faults: list[Fault] = []
        while len(faults) < count:
            assert poll.poll(SECONDS * 1000), f"{len(faults)} of {count} faults were reported"
            faults += uffd.read_faults()
        return faults

    return wait


@pytest.fixture
def start_python() -> Callable[..., subprocess.Popen[str]]:
    """Start a program in an interpreter of its own, which may die of it."""

    def start(
        program: Callable[..., object], *arguments: str, **options: object
    ) -> subprocess.Popen[str]:
        root = str(Path(lazyarr.__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *command_of(program, *arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
            **options,
        )

    return start


@pytest.fixture
def run_python(
    start_python: Callable[..., subprocess.Popen[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in an interpreter of its own to its end, whatever that is."""

    def run(
        program: Callable[..., object], *arguments: str, **options: object
    ) -> subprocess.CompletedProcess[str]:
        with start_python(program, *arguments, **options) as child:
            try:
                output = child.communicate(timeout=3 * SECONDS)
            finally:
                child.kill()
        return subprocess.CompletedProcess(child.args, child.returncode, *output)

    return run


@pytest.fixture
def free_range() -> Iterator[int]:
    """The address of 16 pages where nothing is mapped."""
    address = reserve(16 * PAGE_NBYTES)
    unmap(address, 16 * PAGE_NBYTES)
    yield address
    with contextlib.suppress(OSError):
        unmap(address, 16 * PAGE_NBYTES)


def _open_files() -> set[str]:
    paths = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    # The listing's own descriptor is closed by now.
    return {f"{path} {os.readlink(path)}" for path in paths if os.path.lexists(path)}


def _test_mappings() -> list[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "memfd:test" in line]


@pytest.fixture(autouse=True)
def leave_no_trace() -> Iterator[None]:
    """Fail the test that leaves a descriptor, a thread or a mapping behind."""
    threads, files, mappings = threading.active_count(), _open_files(), _test_mappings()
    yield
    for thread in threading.enumerate():
        if thread.name == "toucher":
            thread.join(SECONDS)
    assert _open_files() - files == set()
    assert threading.active_count() <= threads
    assert _test_mappings() == mappings
