"""A process that joins another one's pager and talks nonsense: ``CONTROL SEED COUNT DIRECTORY``.

Each conversation is held by a child of its own, which ends without a word.  What is printed is how
many messages came after which the pager served their sender still.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
from random import Random

from lazyarr.errors import LazyarrError
from lazyarr.formats.zarr import ArrayMetadata, parse_node
from lazyarr.kernel import (
    PAGE_NBYTES,
    Features,
    RegisterMode,
    Userfaultfd,
    create_memfd,
    map_shared,
    memory_view,
)
from lazyarr.layout.document import layout_text
from lazyarr.memory_kind import MemoryKind
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, channel_pair
from lazyarr.wire.packets import encode
from tests.fuzz.mutation import mutate_input

_FEATURES = Features.MISSING_SHMEM | Features.MINOR_SHMEM
_WRITABLE_FEATURES = (
    _FEATURES | Features.PAGEFAULT_FLAG_WP | Features.WP_HUGETLBFS_SHMEM | Features.THREAD_ID
)
NBYTES = 16 * PAGE_NBYTES
# More would not be told from the exit code of a process that fails.
_MOST_TAKEN = 12
SETTINGS = {
    "memory_limit": 1 << 28,
    "threads": 2,
    "timeout": 1.5,
    "retries": 1,
    "connections": 4,
    "readahead": 1 << 20,
    "cache_dir": None,
    "cache_limit": 1 << 30,
}
DOCUMENT = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [16, PAGE_NBYTES],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, PAGE_NBYTES]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 3,
    "codecs": [{"name": "bytes"}],
}
_NODE = parse_node(json.dumps(DOCUMENT).encode(), path="x")
assert isinstance(_NODE, ArrayMetadata)
LAYOUT = layout_text(_NODE.layout())


class Hostile:
    """One conversation.

    Parameters
    ----------
    control : Channel
        Of a client that is one already; it announces this one.
    random : Random
        Decides what is said.
    directory : str
        A store that may be written to, with an array "x".
    """

    def __init__(self, control: Channel, random: Random, directory: str) -> None:
        self._random = random
        self._directory = directory
        # A socket of our own, and a copy of the pager's end.
        self._socket, self._theirs = _pair(socket.SOCK_SEQPACKET)
        control.send(w.Join([]), (self._theirs.fileno(),))
        self._uffd = Userfaultfd.open(_FEATURES)
        self._memfd, self._map = create_memfd("pages"), create_memfd("map")
        for memfd in (self._memfd, self._map):
            os.truncate(memfd, 4 * NBYTES)
        self._address = map_shared(self._memfd, 0, NBYTES, writable=False)
        self._uffd.register(self._address, NBYTES, RegisterMode.MISSING | RegisterMode.MINOR)
        self._writable = Userfaultfd.open(_WRITABLE_FEATURES)
        self._written = map_shared(self._memfd, NBYTES, NBYTES, writable=True)
        mode = RegisterMode.MISSING | RegisterMode.MINOR | RegisterMode.WP
        self._writable.register(self._written, NBYTES, mode)
        self._files = [
            *(end.detach() for kind in (1, 2, 5) for end in _pair(kind)),
            *(self._uffd.fileno(), self._memfd, *os.pipe()),
            *(os.open("/dev/null", os.O_RDWR), os.open("/", os.O_RDONLY), os.eventfd(7)),
        ]
        # With a copy of the pager's end nobody would see that the pager has closed it.
        self._is_closed_seen = random.random() < 0.8
        if self._is_closed_seen:
            self._theirs.close()
        else:
            self._files.append(self._theirs.fileno())

    def talk(self) -> int:
        """Say who one is, more or less; then say anything; return how much of it was taken."""
        random = self._random
        self._introduce(os.getpid(), change=random.random() < 0.3)
        side = self.open_channel()
        n_taken = 0
        try:
            for _ in range(random.randrange(1, 7)):
                self._say(*self._opening(), change=random.random() < 0.3)
                n_taken += self.is_served(side)
                # What is wrong on any but the first channel costs no more than that channel.
                place = random.choice((None, self.open_channel()))
                word = random.choice(self._words())
                self._say(word, (), change=random.random() < 0.5, channel=place)
                n_taken += self.is_served(side)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has hung up
        return n_taken

    def open_channel(self) -> Channel:
        """Open another channel to the pager."""
        ours, theirs = channel_pair()
        self._say(w.OpenChannel(), (theirs.fileno(),), change=False)
        theirs.close()
        return ours

    def is_served(self, side: Channel) -> bool:
        """Ask the pager for its statistics on another channel, and return whether they come."""
        try:
            side.send(w.WantStatistics(1))
            return self._is_closed_seen and side.receive() is not None
        except LazyarrError:
            return False

    def ask_and_leave(self) -> None:
        """Say that one is the parent, ask on one's first channel, and do not listen."""
        self._introduce(os.getppid(), change=False)
        self._socket.shutdown(socket.SHUT_RD)
        for _ in range(50):
            self._say(w.WantStatistics(1), (), change=False)

    def write_and_leave(self) -> None:
        """Write to an array, be heard, and go; the pager writes it back for nobody."""
        self._introduce(os.getpid(), change=False, is_writer=True)
        # A number that nobody has: a region stays as long as it is written back.
        region = self._random.randrange(10, 2**40)
        place = (region, self._written, NBYTES, 0)
        store = {"kind": "local", "path": self._directory, "writable": True, "identity": None}
        opening = w.OpenRegion(*place, "u", "x", LAYOUT, store, False, "TRACKED")
        self._say(opening, (os.open(self._directory, os.O_RDONLY),), change=False)
        self._say(w.Request(2, region, [[0, 16]], [], True), (), change=False)
        while b'"Done"' not in self._socket.recv(1 << 16):
            pass
        memory_view(self._written, NBYTES, writable=True)[:] = b"h" * NBYTES
        self._say(w.Flush(3, region, 0, 8), (), change=False)
        self._say(w.Retire(4, region), (), change=self._random.random() < 0.5)

    def _introduce(self, pid: int, *, change: bool, is_writer: bool = False) -> None:
        lifeline, _ = _pair(socket.SOCK_STREAM)
        rights = (self._uffd.fileno(), self._memfd, self._map, lifeline.fileno())
        hello = w.Hello(w.VERSION, pid, int(_FEATURES), SETTINGS)
        if is_writer or self._random.random() < 0.9:
            hello = hello._replace(writable_features=int(_WRITABLE_FEATURES))
            rights = (*rights, self._writable.fileno())
        self._say(hello, rights, change=change)

    def _opening(self) -> tuple[w.Message, tuple[int, ...]]:
        """Return a message that opens a region, more or less, and what comes with it."""
        offset = self._random.choice((0, 0, 0, 0, 0, 0, 1, NBYTES, 2**62))
        number = self._random.choice((1, 2))
        kind = self._random.choice((*MemoryKind.__members__, *("TRACKED",) * 5, "HUGE"))
        store: dict[str, object] = {"kind": "packed", "url": "u", "index": {}}
        place: tuple[int, ...] = (number, self._address, offset, offset)
        rights: tuple[int, ...] = ()
        if kind == "TRACKED" and self._random.random() < 0.9:
            store = {"kind": "local", "path": self._directory, "writable": True, "identity": None}
            place = (number, self._written, NBYTES, offset)
            rights = (os.open(self._directory, os.O_RDONLY),)
        return w.OpenRegion(*place, "u", "x", LAYOUT, store, False, kind), rights

    def _words(self) -> list[w.Message]:
        return [
            w.OpenChannel(),
            w.Join([1]),
            w.AttachRegion(1, self._address),
            w.CloseRegion(1, 1),
            w.Request(2, 1, [[0, 16]], []),
            w.Request(2, 1, [[-5, 2**62], [3, 1]], []),
            w.Request(2, 1, [[0, 16]], [0, 2]),
            w.Request(2, 1, [[0, 1], [0, 1]], [-(2**62), 2**62, 0]),
            w.Request(2, 1, [[0, 16]], [], True),
            w.Request(2, 1, [[0, 1]], [-(2**62), 2**62], True),
            w.Evict(3, 1, -1, 2**62),
            w.Flush(11, 1, 0, 2**62),
            w.Flush(11, 1, -1, -1),
            w.Retire(12, 1),
            w.Forgotten(1),
            w.BeginRecording(7),
            w.WantTrace(8, 7, -5, 2**62),
            w.EndRecording(9, 7),
            w.Schedule(10, 10, 0, [1, 2**62], [0, 1, 0], [[0, 2**62], [3, 1], [-5, 2]], False),
            w.Schedule(10, 10, 3, [1], [0, 7], [[0, 1]], True),
            w.Configure(4, SETTINGS),
            w.WantStatistics(5),
            w.Done(6, []),
            w.Record(0, {}),
            w.Pong(),
        ]

    def _say(
        self,
        message: w.Message,
        rights: tuple[int, ...],
        *,
        change: bool,
        channel: Channel | None = None,
    ) -> None:
        packet = encode(message)
        if not rights and len(message.carries) == 1:
            rights = (self._files[4],) * message.carries.start
        if change:
            kind = self._random.randrange(4)
            if kind == 0:
                packet = mutate_input(packet, self._random)
            elif kind == 1:
                packet = packet[: self._random.randrange(len(packet) + 1)]
            elif kind == 2:
                count = self._random.choice((0, 1, 1, 3, 4, 4, 5, 9, 12))
                rights = tuple(self._random.choices(self._files, k=count))
            else:
                packet, rights = b"spilled", (self._random.choice(self._files), *rights)[:8]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", rights))]
        place = self._socket if channel is None else channel._socket
        place.sendmsg([packet], ancillary if rights else [])


def _pair(kind: int) -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, kind)


def _hold(control: Channel, random: Random, directory: str, *, number: int) -> int:
    """Hold a conversation; return after how many messages the pager served its sender still."""
    signal.alarm(20)  # the pager no longer reads
    hostile = Hostile(control, random, directory)
    try:
        if number < 5:
            hostile.ask_and_leave()
        elif number < 10:
            hostile.write_and_leave()
        else:
            return hostile.talk()
    except (LazyarrError, BrokenPipeError, ConnectionResetError):
        pass  # it has hung up
    return 0


def main() -> None:
    """Hold one conversation after the other; end with an error when one hangs."""
    descriptor, seed, count = (int(argument) for argument in sys.argv[1:4])
    directory = sys.argv[4]
    os.makedirs(f"{directory}/x")
    with open(f"{directory}/x/zarr.json", "w") as file:
        json.dump(DOCUMENT, file)
    control = Channel.from_descriptor(descriptor)
    n_taken = 0
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(_hold(control, Random(f"{seed}-{number}"), directory, number=number))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not 0 <= code <= _MOST_TAKEN:
            raise SystemExit(f"conversation {number} hangs or fails")
        n_taken += code
    print(n_taken)


if __name__ == "__main__":
    main()
