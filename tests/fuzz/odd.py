"""A process whose children join another one's pager, each odd in a way of its own.

It is started with ``CONTROL DIRECTORY``: a channel of a client, and where to make a store.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from random import Random

from lazyarr.errors import LazyarrError
from lazyarr.kernel import Advice, RegisterMode, madvise, map_private, punch_hole
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, channel_pair
from tests.fuzz.hostile import DOCUMENT, LAYOUT, NBYTES, SETTINGS, Hostile

_REGION = 77
_F_SEAL_FUTURE_WRITE = 0x10
_SECONDS = 5


class Odd(Hostile):
    """A client that is odd in one way.

    Parameters
    ----------
    control, random, directory
        As of `Hostile`.
    """

    def __init__(self, control: Channel, random: Random, directory: str) -> None:
        super().__init__(control, random, directory)
        self.control = control

    def say(self, message: w.Message, *rights: int, channel: Channel | None = None) -> None:
        """Send a message as it is."""
        self._say(message, rights, change=False, channel=channel)

    def hello(self) -> None:
        """Say what every client says first."""
        self._introduce(os.getpid(), change=False, is_writer=True)

    def ask(self, message: w.Message) -> str:
        """Return the answer to a question; nothing when the pager has let go of this client."""
        channel = self.open_channel()
        channel._socket.settimeout(_SECONDS)
        try:
            channel.send(message)
            received = channel.receive()
        except LazyarrError:
            return ""
        return "" if received is None else type(received.message).__name__

    def wait(self) -> None:
        """Return when what was said is handled."""
        self.ask(w.Evict(1, 0, 0, 0))

    def open(self, address: int = 0, kind: str = "TRACKED") -> None:
        """Open a region of the store, at the place for it or at another one."""
        store = {"kind": "local", "path": self._directory, "writable": True, "identity": None}
        place = (_REGION, address or self._written, NBYTES, 0)
        message = w.OpenRegion(*place, "u", "x", LAYOUT, store, False, kind)
        self.say(message, os.open(self._directory, os.O_RDONLY))

    def write(self) -> None:
        """Have all of the region be dirty."""
        self.ask(w.Request(2, _REGION, [[0, 16]], [], True))

    # --- ways -------------------------------------------------------------------------------

    def listens_without_a_socket(self) -> None:
        """Each later worker would listen there too."""
        self.hello()
        self.say(w.Listen("secret"), os.open("/dev/null", os.O_RDWR))
        self.wait()

    def listens_with_a_socket_of_another_kind(self) -> None:
        self.hello()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.say(w.Listen("secret"), sock.fileno())
            self.wait()

    def listens_before_hello(self) -> None:
        self.say(w.Listen("secret"), os.open("/dev/null", os.O_RDWR))
        self.wait()

    def announces_a_child_before_hello(self) -> None:
        """The supervisor would keep its channel."""
        self.say(w.Join([]), _spare_end())
        self.wait()

    def announces_both_ends_of_a_channel(self) -> None:
        """Neither would ever say anything, and the pager would wait for both."""
        self.hello()
        ours, theirs = channel_pair()
        self.say(w.Join([]), ours.fileno())
        self.say(w.Join([]), theirs.fileno())
        self.wait()

    def sets_times_that_no_clock_has(self) -> None:
        """One that the supervisor's poll cannot wait for, and one in which no worker answers."""
        self.hello()
        for seconds in (1e300, 10**400, float("inf"), float("nan"), -1, "soon", 1e-300):
            self.ask(w.Configure(5, {**SETTINGS, "stop_timeout": seconds}))

    def says_on_another_channel_what_the_ledger_must_have(self) -> None:
        self.hello()
        self.open()
        for message, rights in (
            (w.Listen("secret"), (self._files[0],)),
            (w.Join([]), (_spare_end(),)),
            (w.AttachRegion(_REGION, self._address), ()),
        ):
            channel = self.open_channel()
            self.say(message, *rights, channel=channel)
            assert channel.receive() is None

    def cuts_its_memory_off(self) -> None:
        """The pager would die of SIGBUS."""
        self.hello()
        self.open()
        self.write()
        for memfd in (self._map, self._memfd):
            try:
                os.truncate(memfd, 0)
            except PermissionError:
                continue
        self.ask(w.Flush(3, _REGION, 0, 16))
        self.write()

    def has_memory_that_nobody_may_write_to(self) -> None:
        fcntl.fcntl(self._map, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        self.hello()
        self.open()
        self.write()

    def has_memory_that_is_open_for_reading(self) -> None:
        fcntl.fcntl(self._map, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK)
        self._map = os.open(f"/proc/self/fd/{self._map}", os.O_RDONLY)
        self.hello()
        self.open()
        self.write()

    def has_private_memory_and_says_that_it_is_shared(self) -> None:
        """A page that is given back is in no memory object, from which it could be mapped."""
        self.hello()
        address = map_private(NBYTES, writable=True)
        self._uffd.register(address, NBYTES, RegisterMode.MISSING)
        self.open(address, "SHARED")
        page = (ctypes.c_ubyte * NBYTES).from_address(address)
        _ = page[0]
        madvise(address, NBYTES, Advice.DONTNEED)
        self.waits_in_vain()
        _ = page[0]

    def has_private_memory_and_says_that_it_is_written_back(self) -> None:
        self.hello()
        address = map_private(NBYTES, writable=True)
        self._writable.register(address, NBYTES, RegisterMode.MISSING | RegisterMode.WP)
        self.open(address)
        page = (ctypes.c_ubyte * NBYTES).from_address(address)
        self.waits_in_vain()
        page[0] = 7

    def waits_in_vain(self) -> None:
        """End soon: nobody answers the fault that comes next."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 1)

    def says_that_memory_is_where_none_can_be(self) -> None:
        self.hello()
        self.open(2**62)
        self.write()
        self.ask(w.Flush(3, _REGION, 0, 16))

    def takes_pages_out_and_goes(self) -> None:
        """Before what it has written to them is in the store."""
        self.hello()
        self.open()
        self.write()
        punch_hole(self._memfd, NBYTES, NBYTES)
        self.say(w.Flush(3, _REGION, 0, 16))
        self.write()


WAYS = [
    Odd.listens_without_a_socket,
    Odd.listens_with_a_socket_of_another_kind,
    Odd.listens_before_hello,
    Odd.announces_a_child_before_hello,
    Odd.announces_both_ends_of_a_channel,
    Odd.sets_times_that_no_clock_has,
    Odd.says_on_another_channel_what_the_ledger_must_have,
    Odd.cuts_its_memory_off,
    Odd.has_memory_that_nobody_may_write_to,
    Odd.has_memory_that_is_open_for_reading,
    Odd.has_private_memory_and_says_that_it_is_shared,
    Odd.has_private_memory_and_says_that_it_is_written_back,
    Odd.says_that_memory_is_where_none_can_be,
    Odd.takes_pages_out_and_goes,
]


def _spare_end() -> int:
    ours, theirs = channel_pair()
    ours.detach()  # open as long as this process lives
    return theirs.detach()


def _go(way: Callable[[Odd], None], control: Channel, directory: str) -> None:
    signal.alarm(20)  # the pager no longer reads
    try:
        way(Odd(control, Random(1), directory))
    except (LazyarrError, BrokenPipeError, ConnectionResetError):
        return  # it has hung up


def main() -> None:
    """Go each way; end with an error when one fails."""
    control, directory = Channel.from_descriptor(int(sys.argv[1])), sys.argv[2]
    os.makedirs(f"{directory}/x")
    with open(f"{directory}/x/zarr.json", "w") as file:
        json.dump(DOCUMENT, file)
    for way in WAYS:
        pid = os.fork()
        if pid == 0:
            _go(way, control, directory)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, -signal.SIGALRM, -signal.SIGBUS):
            raise SystemExit(f"{way.__name__} ends with {code}")


if __name__ == "__main__":
    main()
