"""Programs of tests/kernel."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import select
import signal
import socket
import sys
import threading
import time

from lazyarr.errors import KernelError, KernelUnsupportedError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
    Features,
    RegisterMode,
    ScratchBuffer,
    Stop,
    Userfaultfd,
    arm_lifeline,
    arm_once,
    create_memfd,
    disarm_lifeline,
    has_handler,
    is_armed,
    madvise,
    map_private,
    map_shared,
    memory_view,
    probe,
    try_lock,
)
from lazyarr.kernel.libc import call


def holds_a_lock(path):
    assert try_lock(os.open(path, os.O_RDONLY))
    print("locked", flush=True)
    sys.stdin.read()


def lacks_descriptors():
    call("getpid")
    Userfaultfd.open(Features(0)).close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    try:
        Userfaultfd.open(Features(0))
    except KernelError as error:
        print(isinstance(error, KernelUnsupportedError), error.errno, "ulimit -n" in str(error))


def touches_poison():
    uffd = Userfaultfd.open(Features.POISON)
    address = map_private(PAGE_NBYTES, writable=True)
    uffd.register(address, PAGE_NBYTES, RegisterMode.MISSING)
    print(uffd.poison(address, PAGE_NBYTES).stop.value, flush=True)
    ctypes.string_at(address, 1)
    print("read")


def sends_what_it_has_registered(fd):
    features = Features.MISSING_SHMEM | Features.MINOR_SHMEM | Features.WP_HUGETLBFS_SHMEM
    mode = RegisterMode.MISSING | RegisterMode.MINOR | RegisterMode.WP
    uffd = Userfaultfd.open(features | Features.PAGEFAULT_FLAG_WP | Features.POISON)
    memfd = create_memfd("gone", nbytes=PAGE_NBYTES)
    address = map_shared(memfd, 0, PAGE_NBYTES, writable=True)
    uffd.register(address, PAGE_NBYTES, mode)
    with socket.socket(fileno=int(fd)) as channel:
        socket.send_fds(channel, [address.to_bytes(8, "little")], [uffd.fileno()])


def serves_once(number, way):
    number, pid = int(number), os.getpid()
    print(is_armed(pid, number))
    signal.signal(number, lambda *_: print("handled"))
    arm_once(number)
    print(is_armed(pid, number))
    if way == "blocked":
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        print(is_armed(pid, number), has_handler(pid, number), flush=True)
        os._exit(0)
    if way == "replaced":
        signal.signal(number, lambda *_: print("replaced"))
    os.kill(pid, number)
    print(is_armed(pid, number), flush=True)
    os.kill(pid, number)
    print("lived")


def counts(memfd):
    """Have threads count in shared memory, of which the main one is the first.

    Some are in Python, which sleep and wait for the GIL, some in C without it; and some start
    and end.
    """
    memory = mmap.mmap(int(memfd), 4096)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    counters = [ctypes.c_uint64.from_address(base + 64 * i) for i in range(8)]

    def count(i, seconds=None):
        while True:
            counters[i].value += 1
            if seconds is not None:
                time.sleep(seconds)

    def copy(i):
        scratch = ctypes.create_string_buffer(1 << 16)
        n = ctypes.c_uint64(0)
        while True:
            n.value += 1
            ctypes.CDLL(None).memcpy(scratch, scratch, 1 << 16)
            ctypes.memmove(base + 64 * i, ctypes.byref(n), 8)

    def wait(i):
        read, write = os.pipe()
        while True:
            os.write(write, b"x")
            os.read(read, 1)
            counters[i].value += 1

    def start(i):
        while True:
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()
            counters[i].value += 1

    def on_signal(*_):
        counters[7].value += 1

    signal.signal(signal.SIGUSR1, on_signal)
    for target, *arguments in [(count, 1), (count, 2, 0.0005), (copy, 3), (wait, 4), (start, 5)]:
        threading.Thread(target=target, args=arguments, daemon=True).start()
    print("ready", flush=True)
    while True:
        # The main thread waits for nobody: it must go on while the others stand still.
        ctypes.c_uint64.from_address(base).value += 1


# --- lifelines


def armed(fd):
    arm_lifeline(int(fd), signal.SIGBUS)
    print("armed", flush=True)
    signal.pause()


def disarmed(fd):
    lifeline = socket.socket(fileno=int(fd))
    arm_lifeline(lifeline.fileno(), signal.SIGBUS)
    disarm_lifeline(lifeline.fileno())
    print("armed", flush=True)
    assert lifeline.recv(1) == b""
    print("end of file")


def stuck(fd):
    """Wait for a page of a userfaultfd that nobody serves, with the GIL held."""
    uffd = Userfaultfd.open(Features(0))
    address = map_private(PAGE_NBYTES, writable=True)
    uffd.register(address, PAGE_NBYTES, RegisterMode.MISSING)
    arm_lifeline(int(fd), signal.SIGBUS)
    print("armed", flush=True)
    ctypes.string_at(address, 1)
    print("read zeros")


# --- without memory


def no_memory_is_an_outcome(group, operation):
    """Install pages in a cgroup until it is full, and say what came of the last one.

    Every page lies 2 MiB from the last, so that it needs a page table of its own; both are
    charged to the cgroup.  Between entering and leaving it nothing else may need memory, which
    would be waited for without end: what Python has is locked, and each way was gone before.
    """
    step, pages = 2 << 20, 4096
    mcl_current = 1
    locked = ctypes.CDLL(None, use_errno=True).mlockall(mcl_current)
    assert locked == 0, os.strerror(ctypes.get_errno())
    fd = create_memfd("test", nbytes=step * pages)
    if operation == "continue_":
        for page in range(pages):
            os.pwrite(fd, b"page", page * step)
    address = map_shared(fd, 0, step * pages, writable=False)
    leave = os.open(os.path.dirname(group) + "/cgroup.procs", os.O_WRONLY)
    enter = os.open(group + "/cgroup.procs", os.O_WRONLY)
    scratch = ScratchBuffer(PAGE_NBYTES)
    scratch.view[:] = bytes(PAGE_NBYTES)
    features = Features.MISSING_SHMEM | Features.MINOR_SHMEM | Features.POISON
    uffd = Userfaultfd.open(features)
    uffd.register(address, step * pages, RegisterMode.MISSING | RegisterMode.MINOR)

    def provide(page):
        if operation == "copy":
            return uffd.copy(address + page * step, scratch.address, PAGE_NBYTES)
        return getattr(uffd, operation)(address + page * step, PAGE_NBYTES)

    for page in (0, 1, 0):
        outcome = provide(page)
    assert outcome.stop is not Stop.DONE  # for it is there
    os.write(leave, b"0")
    os.write(enter, b"0")
    for page in range(2, pages):
        outcome = provide(page)
        if outcome.stop is not Stop.DONE:
            break
    os.write(leave, b"0")
    print(outcome.stop.value, outcome.done_nbytes)


# --- without rights


class Nobodys:
    """Memory of a process that has become a user without rights, and its userfaultfd."""

    features = Features.MISSING_SHMEM | Features.MINOR_SHMEM | Features.POISON | Features.THREAD_ID

    def __init__(self):
        call("getpid")
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        self.uffd = Userfaultfd.open(self.features)
        nbytes = 4 * PAGE_NBYTES
        self.address = map_shared(create_memfd("test", nbytes=nbytes), 0, nbytes, writable=False)
        self.uffd.register(self.address, nbytes, RegisterMode.MISSING | RegisterMode.MINOR)
        self.scratch = ScratchBuffer(nbytes)
        self.scratch.view[:] = b"d" * nbytes
        self.view = memory_view(self.address, nbytes, writable=False)


def outcome_of(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno]


def nobody_probes():
    nobodys = Nobodys()
    support = probe()
    print(support.full_rights, support.usable, support.missing, "setfacl" in support.remedy)
    print([attempt.errno is None for attempt in support.attempts])
    print(nobodys.uffd.user_mode_only, nobodys.uffd.source)
    try:
        Userfaultfd.open(nobodys.features, user_mode_only=False)
    except OSError as error:
        print(type(error).__name__, error.missing)


def nobody_touches():
    nobodys = Nobodys()
    uffd, address = nobodys.uffd, nobodys.address
    byte = ctypes.create_string_buffer(1)
    toucher = threading.Thread(target=ctypes.memmove, args=(byte, address, 1))
    toucher.start()
    poll = select.poll()
    poll.register(uffd.fileno(), select.POLLIN)
    assert poll.poll(20_000)
    (fault,) = uffd.read_faults()
    print(fault.address == address, fault.thread_id == toucher.native_id)
    print(uffd.copy(address, nobodys.scratch.address, PAGE_NBYTES).stop.value)
    toucher.join(20)
    print(byte.raw)


def nobody_makes_system_calls():
    nobodys = Nobodys()
    uffd, address, view = nobodys.uffd, nobodys.address, nobodys.view
    reading, writing = os.pipe()
    missing, present = view[:PAGE_NBYTES], view[PAGE_NBYTES : 2 * PAGE_NBYTES]
    uffd.copy(address + PAGE_NBYTES, nobodys.scratch.address, PAGE_NBYTES)
    print(outcome_of(lambda: os.write(writing, missing)))
    print(outcome_of(lambda: os.write(writing, present)))
    print(outcome_of(lambda: os.read(reading, 3)))
    print(outcome_of(lambda: madvise(address, PAGE_NBYTES, Advice.POPULATE_READ)))
    print(uffd.read_faults())
