"""A process that joins another one's pager and talks nonsense: ``CONTROL SEED COUNT``.

Each conversation is held by a child of its own, which ends without a word.
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
    map_shared,
)
from lazyarr.layout.document import layout_text
from lazyarr.memory_kind import MemoryKind
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel
from lazyarr.wire.packets import encode
from tests.fuzz.mutation import mutate_input

_FEATURES = Features.MISSING_SHMEM | Features.MINOR_SHMEM
_NBYTES = 16 * PAGE_NBYTES
_SETTINGS = {
    "memory_limit": 1 << 28,
    "threads": 2,
    "timeout": 1.5,
    "retries": 1,
    "connections": 4,
    "readahead": 1 << 20,
}
_DOCUMENT = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [16, PAGE_NBYTES],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, PAGE_NBYTES]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 3,
    "codecs": [{"name": "bytes"}],
}
_NODE = parse_node(json.dumps(_DOCUMENT).encode(), path="x")
assert isinstance(_NODE, ArrayMetadata)
_LAYOUT = layout_text(_NODE.layout())


class Hostile:
    """One conversation.

    Parameters
    ----------
    control : Channel
        Of a client that is one already; it announces this one.
    random : Random
        Decides what is said.
    """

    def __init__(self, control: Channel, random: Random) -> None:
        self._random = random
        # A socket of our own, and a copy of the pager's end.
        self._socket, self._theirs = _pair(socket.SOCK_SEQPACKET)
        control.send(w.Join([]), (self._theirs.fileno(),))
        self._uffd = Userfaultfd.open(_FEATURES)
        self._memfd, self._map = os.memfd_create("pages"), os.memfd_create("map")
        for memfd in (self._memfd, self._map):
            os.truncate(memfd, 4 * _NBYTES)
        self._address = map_shared(self._memfd, 0, _NBYTES, writable=False)
        self._uffd.register(self._address, _NBYTES, RegisterMode.MISSING | RegisterMode.MINOR)
        self._files = [
            *(end.detach() for kind in (1, 2, 5) for end in _pair(kind)),
            *(self._uffd.fileno(), self._memfd, self._theirs.fileno(), *os.pipe()),
            *(os.open("/dev/null", os.O_RDWR), os.open("/", os.O_RDONLY), os.eventfd(7)),
        ]

    def talk(self) -> None:
        """Say who one is, more or less; then say anything."""
        random = self._random
        self._introduce(os.getpid(), change=random.random() < 0.5)
        for _ in range(random.randrange(5)):
            self._say(self._opening(), (), change=random.random() < 0.5)
            self._say(random.choice(self._words()), (), change=random.random() < 0.7)

    def ask_and_leave(self) -> None:
        """Say that one is the parent, ask on one's first channel, and do not listen."""
        self._introduce(os.getppid(), change=False)
        self._socket.shutdown(socket.SHUT_RD)
        for _ in range(50):
            self._say(w.WantStatistics(1), (), change=False)

    def _introduce(self, pid: int, *, change: bool) -> None:
        lifeline, _ = _pair(socket.SOCK_STREAM)
        rights = (self._uffd.fileno(), self._memfd, self._map, lifeline.fileno())
        hello = w.Hello(w.VERSION, pid, int(_FEATURES), _SETTINGS)
        self._say(hello, rights, change=change)

    def _opening(self) -> w.Message:
        store = {"kind": "packed", "url": "u", "index": {}}
        offset = self._random.choice((0, 0, 0, 1, _NBYTES, 2**62))
        number = self._random.choice((1, 2))
        kind = self._random.choice((*MemoryKind.__members__, "HUGE"))
        place = (number, self._address, offset, offset)
        return w.OpenRegion(*place, "u", "x", _LAYOUT, store, False, kind)

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
            w.Evict(3, 1, -1, 2**62),
            w.Configure(4, _SETTINGS),
            w.WantStatistics(5),
            w.Done(6, []),
            w.Record(0, {}),
            w.Pong(),
        ]

    def _say(self, message: w.Message, rights: tuple[int, ...], *, change: bool) -> None:
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
        self._socket.sendmsg([packet], ancillary if rights else [])


def _pair(kind: int) -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, kind)


def _hold(control: Channel, random: Random, *, is_first: bool) -> None:
    signal.alarm(20)  # the pager no longer reads
    hostile = Hostile(control, random)
    try:
        if is_first:
            hostile.ask_and_leave()
        else:
            hostile.talk()
    except (LazyarrError, BrokenPipeError, ConnectionResetError):
        return  # it has hung up


def main() -> None:
    """Hold one conversation after the other; end with an error when one hangs."""
    descriptor, seed, count = (int(argument) for argument in sys.argv[1:])
    control = Channel.from_descriptor(descriptor)
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            _hold(control, Random(f"{seed}-{number}"), is_first=number < 5)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"conversation {number} hangs or fails")


if __name__ == "__main__":
    main()
