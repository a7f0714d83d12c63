"""Programs of tests/kernel/test_written_back.py, and of writes when the pager is killed."""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace

from lazyarr.kernel import (
    PAGE_NBYTES,
    WRITE_BACK,
    Features,
    InstallMode,
    RegisterMode,
    ScratchBuffer,
    Stop,
    Userfaultfd,
    create_memfd,
    find_written,
    map_shared,
    memory_view,
    punch_hole,
)
from lazyarr.pager.lifecycle import sentinel
from lazyarr.wire.channel import Channel
from lazyarr.wire.messages import VERSION, Hello

_MODE = RegisterMode.MISSING | RegisterMode.MINOR | RegisterMode.WP
_PROTECTED = int(InstallMode.WP)
_SECONDS = 20


class Writer:
    """A forked process that has mapped a memory object, with its userfaultfd here too."""

    def __init__(self, memfd: int, n_pages: int, features: Features, run: Callable[[int], bytes]):
        self.features = features
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                ours.close()
                self._run(theirs, memfd, n_pages, run)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        self.channel = ours
        message, descriptors, _, _ = socket.recv_fds(ours, 8, 1)
        self.address = int.from_bytes(message, "little")
        self.uffd = Userfaultfd.from_fd(descriptors[0], features)

    def _run(self, channel, memfd, n_pages, run):
        uffd = Userfaultfd.open(self.features)
        address = map_shared(memfd, 0, n_pages * PAGE_NBYTES, writable=True)
        uffd.register(address, n_pages * PAGE_NBYTES, _MODE)
        socket.send_fds(channel, [address.to_bytes(8, "little")], [uffd.fileno()])
        assert channel.recv(1) == b"g"
        channel.send(run(address))
        assert channel.recv(1) == b"e"

    def say(self, word: bytes) -> None:
        self.channel.send(word)

    def end(self) -> int:
        """Let the process end; return its exit code."""
        self.say(b"e")
        self.uffd.close()
        self.channel.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def next_fault(writer):
    poll = select.poll()
    poll.register(writer.uffd.fileno(), select.POLLIN)
    assert poll.poll(_SECONDS * 1000), "no fault was reported"
    (fault,) = writer.uffd.read_faults()
    return fault


def a_child_has_its_own_protection():
    """The mapping is inherited, and registered by the child, as lazyarr's hooks do it."""
    memfd = create_memfd("test", nbytes=2 * PAGE_NBYTES)
    address = map_shared(memfd, 0, 2 * PAGE_NBYTES, writable=True)
    with Userfaultfd.open(WRITE_BACK) as uffd, ScratchBuffer(2 * PAGE_NBYTES) as scratch:
        uffd.register(address, 2 * PAGE_NBYTES, _MODE)
        scratch.view[:] = b"p" * (2 * PAGE_NBYTES)
        uffd.copy(address, scratch.address, 2 * PAGE_NBYTES, mode=_PROTECTED)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            own = Userfaultfd.open(WRITE_BACK)
            own.register(address, 2 * PAGE_NBYTES, _MODE)
            socket.send_fds(theirs, [b"a"], [own.fileno()])
            uffd.close()
            view = memory_view(address, 2 * PAGE_NBYTES, writable=True)
            read = view[0]
            view[0] = ord("r")
            view[PAGE_NBYTES] = ord("w")
            os._exit(0 if read == ord("p") else 1)
        descriptor = socket.recv_fds(ours, 1, 1)[1][0]
        child = SimpleNamespace(uffd=Userfaultfd.from_fd(descriptor, WRITE_BACK))
        fault = next_fault(child)
        assert (fault.write, fault.wp, fault.minor) == (False, False, True), fault
        child.uffd.continue_(address, PAGE_NBYTES, mode=_PROTECTED)
        fault = next_fault(child)
        assert (fault.write, fault.wp, fault.minor) == (True, True, False), fault
        child.uffd.writeprotect(address, PAGE_NBYTES, mode=0)
        fault = next_fault(child)
        assert (fault.write, fault.wp, fault.minor) == (True, False, True), fault
        child.uffd.continue_(address + PAGE_NBYTES, PAGE_NBYTES)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        child.uffd.close()
        ours.close()
        theirs.close()
        # What the child was allowed to write to is still protected here.
        view = memory_view(address, 2 * PAGE_NBYTES, writable=False)
        assert bytes(view[::PAGE_NBYTES]) == b"rw"
        assert uffd.read_faults() == []
        assert _waits_to_write(uffd, address)


def _waits_to_write(uffd, address):
    """Return whether a write to a page of this process is a fault; lift its protection."""
    writer = threading.Thread(target=ctypes.memmove, args=(address, b"!", 1))
    writer.start()
    is_waiting = next_fault(SimpleNamespace(uffd=uffd)).wp
    uffd.writeprotect(address, PAGE_NBYTES, mode=0)
    writer.join(_SECONDS)
    return is_waiting and not writer.is_alive()


# --- no write is lost

_N_WRITERS, _N_PAGES, _N_WRITES = 4, 8, 60_000


def _count(number):
    """Return a function that adds one to a counter of its own, in some page, again and again."""

    def run(address):
        view = memory_view(address, _N_PAGES * PAGE_NBYTES, writable=True).cast("Q")
        chance = random.Random(number)
        written = [0] * _N_PAGES
        for _ in range(_N_WRITES):
            page = chance.randrange(_N_PAGES)
            written[page] += 1
            view[page * (PAGE_NBYTES // 8) + number] += 1
        return struct.pack(f"={_N_PAGES}Q", *written)

    return run


class _Pager:
    """Serves the faults of some writers, and writes back what they have written."""

    def __init__(self, writers, memfd):
        self.writers, self.memfd = writers, memfd
        self.store = [bytes(PAGE_NBYTES)] * _N_PAGES
        self.resident = [False] * _N_PAGES
        self.dirty = [False] * _N_PAGES
        self.scratch = ScratchBuffer(PAGE_NBYTES)
        self.n_write_backs = self.n_punched = 0

    def serve(self):
        """Serve the faults that wait."""
        for writer in self.writers:
            for fault in writer.uffd.read_faults():
                page = (fault.address - writer.address) // PAGE_NBYTES
                # Noted before anything is lifted.
                self.dirty[page] = self.dirty[page] or fault.write
                self._resolve(writer, page, fault.address)

    def _resolve(self, writer, page, address):
        mode = 0 if self.dirty[page] else _PROTECTED
        if not self.resident[page]:
            self.scratch.view[:] = self.store[page]
            outcome = writer.uffd.copy(address, self.scratch.address, PAGE_NBYTES, mode=mode)
            self.resident[page] = True
        else:
            outcome = writer.uffd.continue_(address, PAGE_NBYTES, mode=mode)
        assert outcome.stop in (Stop.DONE, Stop.PRESENT), outcome
        if self.dirty[page]:
            writer.uffd.writeprotect(address, PAGE_NBYTES, mode=0)
        writer.uffd.wake(address, PAGE_NBYTES)

    def write_back(self, page):
        """Copy a page to the store; nobody writes to it meanwhile, nor unseen after it."""
        if not self.dirty[page]:
            return
        for writer in self.writers:
            offset = page * PAGE_NBYTES
            assert writer.uffd.writeprotect(writer.address + offset, PAGE_NBYTES).stop is Stop.DONE
        self.store[page] = os.pread(self.memfd, PAGE_NBYTES, page * PAGE_NBYTES)
        self.dirty[page] = False
        self.n_write_backs += 1

    def punch(self, page):
        """Take a clean page out of memory."""
        if self.resident[page] and not self.dirty[page]:
            punch_hole(self.memfd, page * PAGE_NBYTES, PAGE_NBYTES)
            self.resident[page] = False
            self.n_punched += 1


def no_write_is_lost(way):
    memfd = create_memfd("test", nbytes=_N_PAGES * PAGE_NBYTES)
    features = WRITE_BACK
    writers = [Writer(memfd, _N_PAGES, features, _count(n)) for n in range(_N_WRITERS)]
    pager = _Pager(writers, memfd)
    chance = random.Random(7)
    poll = select.poll()
    waiting = {writer.channel.fileno(): writer for writer in writers}
    for writer in writers:
        writer.say(b"g")
        poll.register(writer.channel.fileno(), select.POLLIN)
        poll.register(writer.uffd.fileno(), select.POLLIN)
    expected = {}
    while waiting:
        for descriptor, _ in poll.poll(1):
            writer = waiting.pop(descriptor, None)
            if writer is not None:
                poll.unregister(descriptor)
                expected[writer] = struct.unpack(f"={_N_PAGES}Q", writer.channel.recv(1 << 10))
        pager.serve()
        page = chance.randrange(_N_PAGES)
        pager.write_back(page)
        if way == "punch what was copied":
            pager.punch(page)
        else:
            # Whatever is clean by now: it may have been read, and written to, since it was copied.
            pager.punch(chance.randrange(_N_PAGES))
    for page in range(_N_PAGES):
        pager.write_back(page)
    assert [writer.end() for writer in writers] == [0] * _N_WRITERS
    for number, writer in enumerate(writers):
        found = [struct.unpack_from("=Q", stored, 8 * number)[0] for stored in pager.store]
        assert found == list(expected[writer]), (number, found, expected[writer])
        assert sum(found) == _N_WRITES
    assert pager.n_write_backs > 100, pager.n_write_backs
    assert pager.n_punched > 50, pager.n_punched
    print(pager.n_write_backs, pager.n_punched)


# --- WP_ASYNC


def a_record_that_ends_with_its_process():
    for is_async in (True, False):
        memfd = create_memfd("test", nbytes=4 * PAGE_NBYTES)
        os.pwrite(memfd, b"p" * (4 * PAGE_NBYTES), 0)
        features = WRITE_BACK | (Features.WP_ASYNC if is_async else Features(0))

        def write(address):
            ctypes.memset(address + 2 * PAGE_NBYTES, ord("!"), 1)
            # Its own record, as long as it lives.
            return b"".join(
                bytes([span.start // PAGE_NBYTES, span.size // PAGE_NBYTES])
                for span in find_written(address, 4 * PAGE_NBYTES)
            )

        writer = Writer(memfd, 4, features, write)
        # This process has mapped it too, as a worker or another client would have.
        address = map_shared(memfd, 0, 4 * PAGE_NBYTES, writable=True)
        uffd = Userfaultfd.open(features)
        uffd.register(address, 4 * PAGE_NBYTES, _MODE)
        for mine, at in ((uffd, address), (writer.uffd, writer.address)):
            assert mine.continue_(at, 4 * PAGE_NBYTES, mode=_PROTECTED).stop is Stop.DONE
        writer.say(b"g")
        if is_async:
            assert writer.channel.recv(8) == bytes([2, 1])
            assert writer.uffd.read_faults() == []
        else:
            assert next_fault(writer).address == writer.address + 2 * PAGE_NBYTES
            assert os.pread(memfd, 1, 2 * PAGE_NBYTES) == b"p", "not before it is let through"
            writer.uffd.writeprotect(writer.address, 4 * PAGE_NBYTES, mode=0)
            writer.channel.recv(8)
        assert writer.end() == 0
        # The write is there, and nothing tells of it.
        assert os.pread(memfd, 1, 2 * PAGE_NBYTES) == b"!"
        assert find_written(address, 4 * PAGE_NBYTES) == []
        uffd.close()
        os.close(memfd)
    sys.exit(0)


# --- the sentinel


def keeps_watch(fd):
    sentinel.keep_watch(Channel.from_descriptor(int(fd)))


def wants_to_write(fd, way):
    """Say Hello as a client does, wait for a word, and then do something with a page."""
    channel = Channel.from_descriptor(int(fd))
    optional = Features(0) if way == "without a name" else Features.THREAD_ID
    features = WRITE_BACK | Features.POISON | optional
    with Userfaultfd.open(features) as uffd, Userfaultfd.open(features) as writable:
        memfd = create_memfd("test", nbytes=4 * PAGE_NBYTES)
        address = map_shared(memfd, 0, 4 * PAGE_NBYTES, writable=True)
        writable.register(address, 4 * PAGE_NBYTES, _MODE)
        lifeline, far = os.pipe()
        hello = Hello(VERSION, os.getpid(), int(features), {}, int(features))
        given = (uffd.fileno(), memfd, memfd, far, writable.fileno())
        channel.send(hello, given)
        print(address, flush=True)
        os.close(far)
        assert sys.stdin.readline() == "go\n"
        _act(way, address)
        print("done", flush=True)
        os.close(lifeline)


def _act(way, address):
    assert memory_view(address, 1, writable=False)[0] == ord("p"), "what is there can be read"
    page = ctypes.c_char.from_address(address)
    if way == "blocked":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
    elif way == "ignored":
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
    elif way == "handled":
        signal.signal(signal.SIGBUS, lambda *_: None)
    elif way == "a system call":
        source = os.open("/dev/zero", os.O_RDONLY)
        os.readv(source, [memory_view(address, 1, writable=True)])
    elif way == "another thread":
        writer = threading.Thread(target=ctypes.memset, args=(address, ord("!"), 1))
        writer.start()
        writer.join()
    elif way == "missing":
        page = ctypes.c_char.from_address(address + PAGE_NBYTES)
    elif way == "punched":
        page = ctypes.c_char.from_address(address + 2 * PAGE_NBYTES)
    page.value = b"!"
