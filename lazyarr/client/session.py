"""This process's tie to its pager: one userfaultfd, one memory object, some channels."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client import janitor, sharing
from lazyarr.client.arena import Arena
from lazyarr.client.failures import raise_first
from lazyarr.client.holdings import Holdings
from lazyarr.client.questions import Questions
from lazyarr.client.raising import raise_signal
from lazyarr.client.region import (
    Memory,
    Region,
    adopt_region,
    forbid,
    let_inherit,
    map_region,
    map_residency,
    unmap_region,
)
from lazyarr.errors import LazyarrError, PagerError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Features,
    Userfaultfd,
    allow_holding,
    arm_lifeline,
    memory_view,
    must_allow_holding,
    probe,
    unmap,
)
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, channel_pair
from lazyarr.wire.meeting import listen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazyarr.client.launch import Starter
    from lazyarr.plan.geometry import Geometry
    from lazyarr.units import Span

__all__ = ["Session"]

_MAX_RANGES = 4096
# How often memory that is being unmapped is waited for before other memory is opened.
_MAX_TRIES = 16
_SHARING = Features.MISSING_SHMEM | Features.MINOR_SHMEM
_USED = _SHARING | Features.POISON | Features.THREAD_ID


class Session:
    """What a client process shares with its pager.

    All methods are safe to call from several threads.

    Parameters
    ----------
    control : Channel
        To the pager, which may still be starting: what is sent waits for it.
    name : str
        The pager's, by which processes that were not forked can find it.
    is_alone : bool
        Whether no other process can have regions in the pager.

    Attributes
    ----------
    starter : Starter or None
        The child that has started the pager, until it is known to have ended.
    """

    def __init__(self, control: Channel, name: str, *, is_alone: bool) -> None:
        self.name = name
        self.is_alone = is_alone
        self.starter: Starter | None = None
        self._is_listening = False
        self._sharing = threading.Lock()
        self._control = control
        self._raise_signal = 0
        self._lock = threading.Lock()
        self.questions = Questions(control, self._let_hold)
        self._holdings = Holdings()
        self._for_child = control
        self._uffd = Userfaultfd.open(probe().features & _USED)
        self._pages = Arena("lazyarr")
        # Apart from the pages: where shared memory comes in huge pages, a byte
        # written to one object makes two mebibytes of it that are zeros.
        self._maps = Arena("lazyarr-residency")
        self._lifeline = self._say_hello()

    def __repr__(self) -> str:
        return f"<Session: {len(self._holdings)} regions, {self._uffd!r}>"

    @property
    def can_share(self) -> bool:
        """Whether the kernel lets several processes share pages that fill on touch."""
        return _SHARING in self._uffd.features

    @property
    def control(self) -> Channel:
        """The channel that this process came to the pager on."""
        return self._control

    def _settings(self) -> dict[str, Any]:
        """Return what the pager must know of the settings."""
        self._raise_signal = raise_signal()
        self._let_hold()
        return {**settings.current().document(), "raise_signal": self._raise_signal}

    def _let_hold(self) -> None:
        """Let the pager's worker soon hold this process's threads while zeros are shown."""
        if self._raise_signal and must_allow_holding():
            janitor.defer(lambda: allow_holding(self.statistics()["pid"]))

    def renew(self) -> None:
        """Tell the pager when this is the first call from the main thread, which can raise."""
        if self._raise_signal != raise_signal():
            self.configure()

    def _say_hello(self) -> socket.socket:
        """Introduce this process to the pager; return the lifeline."""
        ours, theirs = socket.socketpair()
        hello = w.Hello(w.VERSION, os.getpid(), int(self._uffd.features), self._settings())
        carried = (self._uffd.fileno(), self._pages.memfd, self._maps.memfd, theirs.fileno())
        # Without a traceback the death that the lifeline brings would be a riddle.
        if not faulthandler.is_enabled():
            with suppress(RuntimeError, ValueError, OSError, AttributeError):
                faulthandler.enable()
        try:
            self._control.send(hello, carried)
            theirs.close()
            arm_lifeline(ours.fileno(), signal.SIGBUS)
        except LazyarrError as error:
            for end in (ours, theirs, self._control):
                end.close()
            raise PagerError("the pager could not start, or ended at once") from error
        return ours

    # --- regions ------------------------------------------------------------------

    def open_region(
        self,
        geometry: Geometry,
        *,
        private: bool,
        array: dict[str, Any],
        descriptors: Sequence[int],
    ) -> Memory:
        """Map memory for an array and tell the pager what belongs there.

        Parameters
        ----------
        geometry : Geometry
            The array's arithmetic; it must have at least one byte.
        private : bool
            Whether the memory is this process's own and writable.
        array : dict
            The fields of `OpenRegion` that say which array it is.
        descriptors : sequence of int
            What the store's reference speaks of.
        """
        is_shared = self.can_share and not private
        if not is_shared or descriptors:
            return self._open_region(geometry, array, descriptors, is_shared=is_shared)
        for _ in range(_MAX_TRIES):
            with self._sharing:
                found = sharing.find(self, geometry, array)
                if found is None:
                    return self._open_region(geometry, array, descriptors, is_shared=True)
            if isinstance(found, Memory):
                return found
            found.wait()
        return self._open_region(geometry, array, descriptors, is_shared=True)

    def _open_region(
        self,
        geometry: Geometry,
        array: dict[str, Any],
        descriptors: Sequence[int],
        *,
        is_shared: bool,
    ) -> Memory:
        with self._lock:
            region = Region(
                owner=self,
                number=_new_number(),
                geometry=geometry,
                memfd=self._pages.memfd,
                offset=self._pages.allot(geometry.nbytes) if is_shared else -1,
                map_memfd=self._maps.memfd,
                map_offset=self._maps.allot(geometry.n_units),
                array=array,
                descriptors=tuple(descriptors),
            )
            map_region(region, self._uffd)
            memory = Memory(region)
            self._announce(region)
        return memory

    def _announce(self, region: Region) -> None:
        message = w.OpenRegion(
            region=region.number,
            address=region.address,
            offset=region.offset,
            map_offset=region.map_offset,
            **region.array,
        )
        self._control.send(message, region.descriptors)
        self._holdings.enter(region)

    def attach(self, number: int, geometry: Geometry, array: dict[str, Any]) -> Memory | None:
        """Return memory on a region of another process of this pager; None when it is gone."""
        for _ in range(_MAX_TRIES if self.can_share else 0):
            with self._sharing:
                found = self.memory_of(number)
                if found is None:
                    found = sharing.attach(self, number, geometry, array)
            if not isinstance(found, threading.Event):
                return found
            found.wait()
        return None

    def take_on(self, region: Region) -> Memory:
        """Map a region that was promised to this process."""
        try:
            with self._lock:
                map_region(region, self._uffd)
                self._control.send(w.AttachRegion(region.number, region.address))
                self._holdings.enter(region)
                return Memory(region)
        except BaseException:
            self._close(region)
            raise

    def memory_of(self, number: int) -> Memory | threading.Event | None:
        """Return memory on a region that is mapped here; None when it is not.

        One that is about to be unmapped can not be had before that is done, which is
        waited for with what is returned then.
        """
        with self._lock:
            return self._holdings.memory_of(number)

    def has_region_of(self, array: dict[str, Any]) -> bool:
        """Return whether memory for an array is mapped here that others could use too."""
        with self._lock:
            return self._holdings.has_region_of(array)

    def invite(self) -> str:
        """Return the name by which other processes find the pager, after letting them in."""
        with self._lock:
            if not self._is_listening:
                listener = listen(self.name)
                if listener is not None:
                    with listener:
                        self._control.send(w.Listen(), (listener.fileno(),))
                self._is_listening = True
            self.is_alone = False
        return self.name

    def find(self, address: int) -> Region | None:
        """Return the region that an address lies in."""
        return self._holdings.find(address)

    def let_go(self, region: Region) -> None:
        """Have one user of a region less; unmap it after the last, once nothing is on its way.

        Its addresses mean something else after that, and an install that came
        late would land there.
        """
        if self.questions.is_leaving:
            return
        with self._lock:
            region.n_users -= 1
            # Nothing refers to it any more: a child that is forked meanwhile goes without.
            if region.n_users or not self._holdings.begin_leaving(region):
                return
        try:
            self._close(region)
        finally:
            self._holdings.end_leaving(region)
        unmap_region(region)
        for descriptor in region.descriptors:
            os.close(descriptor)

    def _close(self, region: Region) -> None:
        """Have the pager let go of a region, if there is one."""
        with suppress(PagerError):
            self.questions.ask(w.CloseRegion(self.questions.new_ticket(), region.number), w.Done)

    # --- asking -------------------------------------------------------------------

    def leave(self) -> None:
        """Let go of the sockets without closing them, when the interpreter ends.

        Faults are served until the process has ended; requests are not made any more.
        """
        with self._lock:
            self.questions.leave()
            self._lifeline.detach()

    def request(self, region: Region, units: Sequence[Span], pages: Span | None = None) -> None:
        """Wait, without the GIL, until units are resident; or, of one unit, some pages.

        Raises
        ------
        ChunkError
            For the first unit that can not be had; the others are in its notes.
        PagerError
            When the pager is gone.
        """
        if self.questions.is_leaving:
            return
        for start in range(0, len(units), _MAX_RANGES):
            ranges = [list(span) for span in units[start : start + _MAX_RANGES]]
            ticket = self.questions.new_ticket()
            request = w.Request(ticket, region.number, ranges, list(pages or ()))
            failures = self.questions.ask(request, w.Done).failures
            self._forget_starter()
            raise_first(failures)

    def _forget_starter(self) -> None:
        """See to it that nobody's os.wait() finds who has started the pager, which is up now.

        The janitor does that too, but may not have had its turn.
        """
        starter, self.starter = self.starter, None
        if starter is not None:
            starter.wait()

    @property
    def is_user_mode_only(self) -> bool:
        """Whether system calls do not wait for pages, and fail."""
        return self._uffd.user_mode_only

    def map_here(self, region: Region, units: Sequence[Span]) -> None:
        """Have resident units mapped in this process, where system calls do not wait for pages.

        Readahead may have brought them, or another process.
        """
        if not self._uffd.user_mode_only:
            return
        for span in units:
            start = region.geometry.unit_bytes(span.start).start // PAGE_NBYTES * PAGE_NBYTES
            nbytes = region.geometry.unit_bytes(span.stop - 1).stop - start
            memory_view(region.address + start, nbytes, writable=False)[::PAGE_NBYTES].tobytes()

    def evict(self, region: Region, units: Span) -> None:
        """Have units taken out of memory."""
        if self.questions.is_leaving:
            return
        ticket = self.questions.new_ticket()
        self.questions.ask(w.Evict(ticket, region.number, units.start, units.stop), w.Done)

    def advise(self, region: Region, units: Span, advice: str) -> None:
        """Say how units will be read."""
        if self.questions.is_leaving:
            return
        ticket = self.questions.new_ticket()
        self.questions.ask(w.Advise(ticket, region.number, units.start, units.stop, advice), w.Done)

    def statistics(self) -> dict[str, Any]:
        """Return what the pager has counted."""
        want = w.WantStatistics(self.questions.new_ticket())
        return self.questions.ask(want, w.Statistics).document

    def configure(self) -> None:
        """Tell the pager what holds now."""
        self.questions.ask(w.Configure(self.questions.new_ticket(), self._settings()), w.Done)

    # --- fork -----------------------------------------------------------------------

    def before_fork(self) -> None:
        """Stand still, announce the child, and let it inherit the regions' mappings.

        The child is announced by its parent, so that the parent can not have a region
        forgotten that the child has and has not spoken of yet.
        """
        self._lock.acquire()
        self.is_alone = False
        ours, theirs = channel_pair()
        numbers = [region.number for region in self._holdings]
        with suppress(PagerError):
            self._control.send(w.Join(numbers), (theirs.fileno(),))
        theirs.close()
        self._for_child = ours
        for region in self._holdings:
            let_inherit(region, inherit=True)

    def after_fork_in_parent(self) -> None:
        """Go on; a child that was not born is seen to hang up."""
        self._for_child.close()
        for region in self._holdings:
            let_inherit(region, inherit=False)
        self._lock.release()

    def after_fork_in_child(self) -> Session:
        """Return the child's own tie to the parent's pager, with the parent's regions.

        Until it returns the regions are mapped and not registered, so nothing else
        may run: no thread, no other hook of ours.  An inherited userfaultfd acts on the
        parent's memory, so the child needs its own.
        """
        try:
            self.questions.close()
            self._lifeline.close()
            self._uffd.close()
            session = Session(self._for_child, self.name, is_alone=False)
            session._is_listening = self._is_listening
            for region in self._holdings:
                session.adopt(region)
        except BaseException:
            for region in self._holdings:
                forbid(region)
            raise
        return session

    def adopt(self, region: Region) -> None:
        """Take over a region that this process has inherited by fork."""
        adopt_region(region, self._uffd)
        region.owner = self
        if region.is_shared:
            self._control.send(w.AttachRegion(region.number, region.address))
            self._holdings.enter(region)
            return
        region.number = _new_number()
        region.map_memfd = self._maps.memfd
        region.map_offset = self._maps.allot(region.geometry.n_units)
        unmap(region.map_address, region.map_nbytes)
        map_residency(region)
        self._announce(region)


def _new_number() -> int:
    """Return a name for a region that no other client of the pager uses."""
    return int.from_bytes(os.urandom(6))
