"""This process's tie to its pager: one userfaultfd, one memory object, some channels."""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import socket
import threading
from contextlib import ExitStack, closing, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client.session import finalizers
from lazyarr.client.session.arena import Arena
from lazyarr.client.session.failures import raise_first
from lazyarr.client.session.fork_hooks import fork, release_all
from lazyarr.client.session.raise_in_main_thread import raise_signal
from lazyarr.client.session.region import (
    TRACKING,
    Memory,
    Region,
    adopt_region,
    give_way,
    let_inherit,
    lose,
    map_region,
    map_residency,
    private_kind,
    reserve,
    unmap_region,
)
from lazyarr.client.session.region_table import RegionTable
from lazyarr.client.session.rpc import PendingFlush, PendingRequest, Rpc
from lazyarr.errors import KernelError, LazyarrError, PagerError, PerformanceWarning
from lazyarr.kernel import (
    WRITE_BACK,
    Advice,
    Features,
    Protection,
    Stop,
    Userfaultfd,
    allow_holding,
    arm_lifeline,
    buffer_address,
    current_identity,
    is_fork_seen,
    madvise,
    memory_view,
    must_allow_holding,
    probe,
    protect,
)
from lazyarr.known import CLOSED_BY_OTHERS, KnownDescriptor, identity_of
from lazyarr.memory_kind import MemoryKind
from lazyarr.shortage import naming_shortage
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, channel_pair, close_all
from lazyarr.wire.meeting import listen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazyarr.client.session.launch import Starter
    from lazyarr.layout.geometry import Geometry
    from lazyarr.units import Span
    from lazyarr.wire.meeting import Invitation

__all__ = ["Session"]

_MAX_RANGES = 4096
# How often memory that is being unmapped is waited for before other memory is opened.
_MAX_TRIES = 16
_SHARING = Features.MISSING_SHMEM | Features.MINOR_SHMEM
_USED = _SHARING | Features.POISON | Features.THREAD_ID | TRACKING
# Never with WP_ASYNC: the kernel would lift the protection and tell nobody, and what was written
# would be known to the page tables of this process alone, which end with it.
_USED_TO_WRITE = WRITE_BACK | Features.POISON | Features.THREAD_ID

_NOT_INHERITED = (
    "the memory of this array is not there: this process was forked past Python's hooks, what was "
    "written in mode 'c' stayed in the parent, and another mapping may have taken an array's "
    "place; open the array here again, or fork with os.fork"
)
_NOT_JOINED = "this child could not join its parent's pager: {}; open the dataset again here"


class Session:
    """What a client process shares with its pager.

    All methods are safe to call from several threads.

    Parameters
    ----------
    control : Channel
        To the pager, which may still be starting: what is sent waits for it.
    invitation : Invitation
        By which processes that were not forked can come to the pager.
    is_alone : bool
        Whether no other process can have regions in the pager.

    Attributes
    ----------
    starter : Starter or None
        The child that has started the pager, until it is known to have ended.
    """

    def __init__(self, control: Channel, invitation: Invitation, *, is_alone: bool) -> None:
        self.invitation = invitation
        # The user and groups at the pager's start: the pager opens stores with their rights.
        self._identity = current_identity()
        # The pager is started with the effective ids.  Those of setfsuid belong to one
        # thread and are not inherited, so it would open files with other rights.
        if self._identity[:2] != (os.geteuid(), os.getegid()):
            control.close()
            raise PagerError(
                "cannot open arrays as the user that setfsuid has set, which the pager does not "
                "become; set LAZYARR_ENGINE=copy"
            )
        self.is_alone = is_alone
        self.starter: Starter | None = None
        self._is_listening = False
        self._is_over = False
        self._sharing = threading.Lock()
        self._control = control
        self._raise_signal = 0
        self._pid = os.getpid()
        # Whoever forks holds it, and must not wait for itself if it was interrupted there.
        self._lock = threading.RLock()
        self.rpc = Rpc(control, self._let_hold)
        self._region_table = RegionTable()
        self._inheritable: list[Region] = []
        self._has_written = False
        with ExitStack() as undoing, naming_shortage("begin with the pager"):
            undoing.callback(control.close)
            support = probe()
            self._uffd = undoing.enter_context(Userfaultfd.open(support.features & _USED))
            self._writable_uffd: Userfaultfd | None = None
            if support.write_back:
                # What a userfaultfd has turned on holds for all that is registered with it.
                features = support.features & _USED_TO_WRITE
                self._writable_uffd = undoing.enter_context(Userfaultfd.open(features))
            self._pages = Arena("lazyarr")
            undoing.callback(self._pages.close)
            # Apart from the pages: where shared memory comes in huge pages, a byte
            # written to one object makes two mebibytes of it that are zeros.
            self._maps = Arena("lazyarr-residency")
            undoing.callback(self._maps.close)
            ours, theirs = socket.socketpair()
            # Nothing is ever sent on it.  Supervisor, worker and sentinel hold the far end,
            # and when the last of them has died the kernel sends SIGBUS: no Python has to
            # run for it, as none can while a thread waits in a fault with the GIL held.
            self._lifeline = KnownDescriptor(ours.detach())
            # Before the channel: the pager closes its end when that closes, which would kill.
            undoing.callback(self._lifeline.close)
            self._say_hello(theirs)
            undoing.pop_all()

    def __repr__(self) -> str:
        return f"<Session: {len(self._region_table)} regions, {self._uffd!r}>"

    @property
    def can_share(self) -> bool:
        """Whether the kernel lets several processes share pages that fill on touch."""
        return _SHARING in self._uffd.features

    @property
    def control(self) -> Channel:
        """The channel that this process came to the pager on."""
        return self._control

    def _uffd_of(self, kind: MemoryKind) -> Userfaultfd:
        """Return the userfaultfd with which memory of a kind is registered here.

        Raises
        ------
        KernelUnsupportedError
            The memory is to be written back, which this process's kernel does not allow.
        """
        if not kind.writes_back:
            return self._uffd
        if self._writable_uffd is None:
            probe().require_write_back()
            raise PagerError("cannot write to arrays in memory; run 'lazyarr doctor'")
        return self._writable_uffd

    def _settings(self) -> dict[str, Any]:
        """Return what the pager must know of the settings."""
        self._raise_signal = raise_signal()
        self._let_hold()
        return {**settings.current().document(), "raise_signal": self._raise_signal}

    def _let_hold(self) -> None:
        """Let the pager's worker soon hold this process's threads while zeros are shown."""
        if self._raise_signal and must_allow_holding():
            finalizers.defer(lambda: allow_holding(self.statistics()["pid"]))

    def update_raise_signal(self) -> None:
        """Tell the pager when this is the first call from the main thread, which can raise."""
        if self._raise_signal != raise_signal():
            self.configure()

    def _say_hello(self, lifeline: socket.socket) -> None:
        """Introduce this process to the pager, which is given the far end of the lifeline."""
        # Without a traceback the death that the lifeline brings would be a riddle.
        if not faulthandler.is_enabled():
            with suppress(RuntimeError, ValueError, OSError, AttributeError):
                faulthandler.enable()
        try:
            with lifeline:
                # With descriptors of the userfaultfds for the pager.  This process keeps its
                # own: when the last one closes, those who wait read zeros.
                hello = w.Hello(w.VERSION, os.getpid(), int(self._uffd.features), self._settings())
                objects = (self._uffd.fileno(), self._pages.memfd, self._maps.memfd)
                last = []
                if self._writable_uffd is not None:
                    hello = hello._replace(writable_features=int(self._writable_uffd.features))
                    last.append(self._writable_uffd.fileno())
                self._control.send(hello, (*objects, lifeline.fileno(), *last))
            # After the far end was sent: were that to fail, the end of this process's copy
            # would kill it.
            arm_lifeline(self._lifeline.fileno(), signal.SIGBUS)
        except LazyarrError as error:
            raise PagerError(
                "the pager could not start, or ended at once; see stderr for why"
            ) from error

    # --- regions ------------------------------------------------------------------

    def open_region(
        self,
        geometry: Geometry,
        *,
        wants_private: bool,
        array: dict[str, Any],
        descriptors: Sequence[int],
        writes_back: bool = False,
    ) -> Memory:
        """Map memory for an array and tell the pager what belongs there.

        Parameters
        ----------
        geometry : Geometry
            The array's arithmetic; it must have at least one byte.
        wants_private : bool
            Whether the memory is to be this process's own and writable.  It is where pages cannot
            be shared, too.
        array : dict
            The fields of `OpenRegion` that say which array it is.
        descriptors : sequence of int
            What the store's reference speaks of; they are the session's now.
        writes_back : bool
            Whether what is written to the memory goes to the store.  Then the claim on the store,
            where it can be claimed, is the last of the descriptors.
        """
        if writes_back:
            return self._open_written(geometry, array, descriptors)
        is_shared = self.can_share and not wants_private
        kind = MemoryKind.SHARED if is_shared else private_kind(self._uffd)
        # What comes with descriptors may differ where its description does not, unless that has a
        # digest of it.
        is_described = not descriptors or array["store"].get("digest") is not None
        if not (kind.is_shared and is_described):
            return self._open_region(geometry, array, descriptors, kind=kind)
        # A region that is being unmapped, here or while the pager was asked, is waited
        # for.  After so many times it is opened anew: the same bytes twice, and no
        # livelock.
        for _ in range(_MAX_TRIES):
            with self._sharing:
                found = self._find(kind, geometry, array)
                if found is None:
                    return self._open_region(geometry, array, descriptors, kind=kind)
            if isinstance(found, Memory):
                close_all(descriptors)
                return found
            found.wait()
        return self._open_region(geometry, array, descriptors, kind=kind)

    def _open_written(
        self, geometry: Geometry, array: dict[str, Any], descriptors: Sequence[int]
    ) -> Memory:
        """Return memory that is written back: that which the pager has of the array, if it has any.

        Two regions of one array would each write back what the other does not know of.
        """
        for _ in range(_MAX_TRIES):
            with self._sharing:
                found = self._find(MemoryKind.TRACKED, geometry, array)
                if found is None:
                    return self._open_region(geometry, array, descriptors, kind=MemoryKind.TRACKED)
            if isinstance(found, Memory):
                close_all(descriptors)
                return found
            found.wait()
        close_all(descriptors)
        raise PagerError(
            f"cannot write to array {array['path']!r} of {array['url']}: it is let go by other "
            "threads again and again; try again"
        )

    def _open_region(
        self,
        geometry: Geometry,
        array: dict[str, Any],
        descriptors: Sequence[int],
        *,
        kind: MemoryKind,
    ) -> Memory:
        with self._lock:
            region = Region(
                owner=self,
                number=_new_number(),
                geometry=geometry,
                kind=kind,
                memfd=self._pages.memfd,
                offset=self._pages.hand_out(geometry.nbytes) if kind.is_shared else -1,
                map_memfd=self._maps.memfd,
                map_offset=self._maps.hand_out(geometry.n_units),
                array=array,
                descriptors=tuple(map(KnownDescriptor, descriptors)),
                memfd_identity=identity_of(self._pages.memfd) if kind.writes_back else None,
            )
            # Mapped, registered, announced, and only then given to anybody.  The message is
            # on its way before the first touch, and the pager handles messages before
            # faults.
            map_region(region, self._uffd_of(kind))
            memory = Memory(region)
            self._announce(region)
        return memory

    def _announce(self, region: Region) -> None:
        message = w.OpenRegion(
            region=region.number,
            address=region.address,
            offset=region.offset,
            map_offset=region.map_offset,
            kind=region.kind.name,
            **region.array,
        )
        if not all(descriptor.is_own() for descriptor in region.descriptors):
            raise PagerError(CLOSED_BY_OTHERS)
        self._control.send(message, [descriptor.fileno() for descriptor in region.descriptors])
        self._region_table.enter(region)

    def attach(
        self,
        number: int,
        geometry: Geometry,
        array: dict[str, Any],
        *,
        kind: MemoryKind = MemoryKind.SHARED,
    ) -> Memory | None:
        """Return memory on a region of another process of this pager; None when it is gone.

        Parameters
        ----------
        number : int
            What the pager calls the region.
        geometry : Geometry
            The array's arithmetic.
        array : dict
            The fields of `OpenRegion` that say which array it is, as far as they are known.
        kind : MemoryKind
            What kind of memory it is.
        """
        for _ in range(_MAX_TRIES if self.can_share else 0):
            with self._sharing:
                found = self.memory_of(number)
                if found is None:
                    want = w.WantRegion(self.rpc.new_ticket(), number, array["layout"])
                    found = self._take(want, kind, geometry, array)
            if not isinstance(found, threading.Event):
                return found
            found.wait()
        return None

    def _find(
        self, kind: MemoryKind, geometry: Geometry, array: dict[str, Any]
    ) -> Memory | threading.Event | None:
        """Return memory on a region of an array, if one is alive that is still true; else None.

        The pager is asked only if there can be one, for an array that is opened first should
        wait for nothing.  While this process itself is about to unmap the region, what is
        returned is to be waited for before asking again.
        """
        # What is written back may still be so after the last array of it has gone.
        has_written, self._has_written = self._has_written, self._has_written or kind.writes_back
        may_be_there = has_written if kind.writes_back else self.has_region_of(array)
        if self.is_alone and not may_be_there:
            return None
        fields = {name: array[name] for name in ("url", "path", "layout", "store", "origin")}
        want = w.FindRegion(self.rpc.new_ticket(), **fields, kind=kind.name)
        return self._take(want, kind, geometry, array)

    def _take(
        self,
        message: w.WantRegion | w.FindRegion,
        kind: MemoryKind,
        geometry: Geometry,
        array: dict[str, Any],
    ) -> Memory | threading.Event | None:
        """Ask for a region and map it, or find where it is mapped; returns as `_find_shared`."""
        found, descriptors = self.rpc.exchange(message, w.Found)
        assert isinstance(found, w.Found)
        try:
            if found.region < 0:
                return None
            if not descriptors:
                # It has been unmapped since the pager looked: the pager knows by now.
                return self.memory_of(found.region) or _passed()
            region = Region(
                owner=self,
                number=found.region,
                kind=kind,
                geometry=geometry,
                memfd=descriptors[0],
                offset=found.offset,
                map_memfd=descriptors[1],
                map_offset=found.map_offset,
                array=array,
                descriptors=(),
            )
            memory = self._take_on(region)
            self._keep_object(region, *descriptors[::2])
            return memory
        finally:
            close_all(descriptors)

    def _keep_object(self, region: Region, memfd: int, *claim: int) -> None:
        """Keep the memory object of another process, if what is in it may have to be rescued.

        And the claim on the store, where there is one.  Without the pager the process that has
        opened the array may end.  Whoever opened it anew then would lose what it writes to what
        this process writes back.
        """
        region.memfd = region.map_memfd = -1
        if region.kind.writes_back and memfd >= 0:
            with suppress(OSError):  # without it only this process cannot rescue anything
                for found in (*claim, memfd):
                    region.descriptors = (*region.descriptors, KnownDescriptor(os.dup(found)))
                region.memfd = region.descriptors[-1].fileno()
                region.memfd_identity = identity_of(region.memfd)

    def _keep_no_object(self, region: Region) -> None:
        """Leave memory object and claim to other processes: this one cannot have written."""
        if region.kind.writes_back:
            region.memfd = -1
            for descriptor in region.descriptors:
                descriptor.close()
            region.descriptors = ()

    def _take_on(self, region: Region) -> Memory:
        """Map a region that was promised to this process."""
        try:
            with self._lock:
                map_region(region, self._uffd_of(region.kind))
                self._control.send(w.AttachRegion(region.number, region.address))
                self._region_table.enter(region)
                return Memory(region)
        except BaseException:
            self._close(region)
            raise

    def find_claim(self, directory: tuple[int, int]) -> int | None:
        """Return a descriptor of the claim on a store, by device and inode, if the pager has it."""
        if self.rpc.is_leaving:
            return None
        want = w.WantClaim(self.rpc.new_ticket(), *directory)
        _, descriptors = self.rpc.exchange(want, w.ClaimFound)
        return descriptors[0] if descriptors else None

    def memory_of(self, number: int) -> Memory | threading.Event | None:
        """Return memory on a region that is mapped here; None when it is not.

        One that is about to be unmapped cannot be had before that is done, which is
        waited for with what is returned then.
        """
        with self._lock:
            return self._region_table.memory_of(number)

    def has_region_of(self, array: dict[str, Any]) -> bool:
        """Return whether memory for an array is mapped here that others could use too."""
        with self._lock:
            return self._region_table.has_region_of(array)

    def invite(self) -> str:
        """Return what other processes need to come to the pager, after letting them in."""
        with self._lock:
            if not self._is_listening:
                listener = listen(self.invitation.name)
                if listener is not None:
                    with listener:
                        self.let_in(listener)
                self._is_listening = True
            self.is_alone = False
        return ":".join(self.invitation)

    def let_in(self, listener: socket.socket) -> None:
        """Have the pager take on the processes that connect to a socket."""
        with self._lock:
            self._control.send(w.Listen(self.invitation.secret), (listener.fileno(),))
            self._is_listening, self.is_alone = True, False

    def find(self, address: int) -> Region | None:
        """Return the region that an address lies in."""
        return self._region_table.find(address)

    def let_go(self, region: Region) -> None:
        """Have one user of a region less; unmap it after the last, once nothing is on its way.

        Its addresses mean something else after that, and an install that came
        late would land there.
        """
        if self.rpc.is_leaving:
            return
        with self._lock:
            region.n_users -= 1
            # Nothing refers to it any more: a child that is forked meanwhile goes without.
            # The table says first that it is gone.  A thread that opens the same array in
            # the next instant finds the event to wait for, not memory that is about to be
            # unmapped.
            if region.n_users or not self._region_table.begin_leaving(region):
                return
        try:
            if region.kind.writes_back:
                self._flush(region)
            self._close(region)
            if region.kind.writes_back:
                self._save(region)
        finally:
            self._region_table.end_leaving(region)
        # After the pager's answer, or when there is no pager.  An install that was on
        # its way would land in whatever is mapped there next.
        unmap_region(region)
        for descriptor in region.descriptors:
            descriptor.close()
        self._close_if_over()

    def _flush(self, region: Region) -> None:
        """Have what was written to a region that nobody refers to be in the store.

        The pager would write it too, some time after its answer.  Who edits the store next, or
        reads it, must find it there.
        """
        from lazyarr.client.session.flushing import flush_regions, whole

        # What cannot be written the pager tries again, and says so.
        with suppress(LazyarrError, PerformanceWarning):
            flush_regions([whole(region)])

    def _save(self, region: Region) -> None:
        """Write back what is in a region that nobody refers to, if the pager is gone."""
        from lazyarr.client.session.flushing import rescue_or_say

        if self.rpc.is_broken:
            rescue_or_say([region])

    def _close(self, region: Region) -> None:
        """Have the pager let go of a region, if there is one.

        In the thread of `finalizers`, which a warning that the user wants as an error would end.
        """
        with suppress(PagerError, PerformanceWarning):
            self.rpc.ask(w.CloseRegion(self.rpc.new_ticket(), region.number), w.Done)

    def is_usable(self) -> bool:
        """Return whether arrays can be opened with it: the pager is there, with the same rights."""
        writable = () if self._writable_uffd is None else (self._writable_uffd,)
        mine = (self._uffd, self._pages, self._maps, *writable)
        if not all(each.is_own() for each in mine):
            self.rpc.give_up(CLOSED_BY_OTHERS)
        # Checked each time that something is opened: a server may give up its rights
        # between two arrays, and the old pager would read with those that it had.
        return self.rpc.is_usable() and current_identity() == self._identity

    def retire(self) -> None:
        """Close what another session makes useless; memory that is mapped stays as it is."""
        if not self.rpc.is_usable():
            self.rpc.close()
            self._is_over = True
            self._close_if_over()

    def _close_if_over(self) -> None:
        """Close the rest of what another session has replaced, when nothing of it is mapped."""
        # A program that lives long may see many pagers die.
        with self._lock:
            if self._is_over and self._region_table.is_empty():
                self._is_over = False
                self._close_memory()

    def _require_identity(self) -> None:
        """Raise when the pager would read what this process, as it is now, might not.

        Or the other way round.  A touch of the memory is served all the same, as what a file
        descriptor stands for stays readable.
        """
        found = current_identity()
        if found != self._identity:
            raise PagerError(
                f"cannot read what was opened as another user: this process was {self._identity}, "
                f"and is {found}; open the dataset again"
            )

    # --- asking -------------------------------------------------------------------

    def leave(self) -> None:
        """Let go of the sockets without closing them, when the interpreter ends.

        Faults are served until the process has ended; requests are not made any more.
        """
        # In a child that has not begun anew another thread of the parent may have the lock.
        # Detached, not closed: closing the last channel tells the pager that the client
        # is gone, while other threads of this process may still touch arrays.
        with self._lock if self._pid == os.getpid() else nullcontext():
            self.rpc.leave()
            self._lifeline.detach()

    def request(
        self,
        region: Region,
        units: Sequence[Span],
        pages: Span | None = None,
        *,
        writes: bool = False,
    ) -> None:
        """Wait, without the GIL, until units are resident; or, of one unit, some pages.

        With `writes` until they can be written to without a fault.

        Raises
        ------
        ChunkError
            For the first unit that cannot be had; the others are in its notes.
        PagerError
            When the pager is gone, or was started by another user than this process is now.
        """
        if self.rpc.is_leaving:
            return
        self._require_identity()
        # A bound for one message, and for what a request that is cancelled has asked
        # for in vain.
        for start in range(0, len(units), _MAX_RANGES):
            part = units[start : start + _MAX_RANGES]
            request = self._message_for(region, part, pages, writes=writes)
            self._end_request(self.rpc.ask(request, w.Done))

    def begin_request(self, region: Region, units: Sequence[Span]) -> PendingRequest | None:
        """Request units, to be waited for later.

        None where that is not possible: `request` must be called once they are needed.

        Raises
        ------
        PagerError
            As for `request`.
        """
        if self.rpc.is_leaving or not 0 < len(units) <= _MAX_RANGES:
            return None
        self._require_identity()
        asked = self.rpc.begin(self._message_for(region, units, None))
        return PendingRequest(asked, self._end_request)

    def _message_for(
        self, region: Region, units: Sequence[Span], pages: Span | None, *, writes: bool = False
    ) -> w.Request:
        ranges = [list(span) for span in units]
        ticket = self.rpc.new_ticket()
        return w.Request(ticket, region.number, ranges, list(pages or ()), writes)

    def _end_request(self, done: w.Done) -> None:
        if self.starter is not None:
            self._forget_starter()
        if done.failures:
            raise_first(done.failures)

    def _forget_starter(self) -> None:
        """See to it that nobody's os.wait() finds who has started the pager, which is up now.

        `finalizers` does that too, but may not have had its turn.
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
        # A touch of each page: the one way in which this process waits for a page, where a
        # system call would fail.
        if not self._uffd.user_mode_only:
            return
        for span in units:
            page_nbytes = region.kind.page_nbytes
            start = region.geometry.unit_bytes(span.start).start // page_nbytes * page_nbytes
            nbytes = region.geometry.unit_bytes(span.stop - 1).stop - start
            memory_view(region.address + start, nbytes, writable=False)[::page_nbytes].tobytes()

    def unmap_pages(self) -> None:
        """Have no page of shared memory mapped in this process; a touch maps it again.

        The pager keeps the pages.  Nothing is done while another thread opens or closes an array.
        """
        # Under the lock: what is unmapped meanwhile may be another mapping's place, whose
        # pages would be lost.
        if self._lock.acquire(blocking=False):
            try:
                for region in self._region_table:
                    if region.kind.is_shared and region.is_mapped:
                        madvise(region.address, region.memory_nbytes, Advice.DONTNEED)
            finally:
                self._lock.release()

    def install(self, region: Region, start: int, data: bytes) -> None:
        """Install some bytes as whole pages of private memory, without loading their units."""
        source, done, page_nbytes = buffer_address(data), 0, region.kind.page_nbytes
        while done < len(data):
            address = region.address + start + done
            outcome = self._uffd.copy(address, source + done, len(data) - done)
            done += outcome.done_nbytes
            # The pager has installed it, with the bytes of the store.  What the pickle
            # brings is newer.
            if outcome.stop is Stop.PRESENT:
                page = memory_view(address, page_nbytes, writable=True)
                page[:] = data[done : done + page_nbytes]
                done += page_nbytes
            elif outcome.stop not in (Stop.DONE, Stop.PARTIAL, Stop.CHANGING):
                raise PagerError(f"the kernel could not install a page: {outcome.stop.value}")

    def evict(self, region: Region, units: Span) -> None:
        """Have units taken out of memory."""
        if self.rpc.is_leaving:
            return
        ticket = self.rpc.new_ticket()
        self.rpc.ask(w.Evict(ticket, region.number, units.start, units.stop), w.Done)

    def begin_flush(self, region: Region, units: Span, *, is_last: bool = False) -> PendingFlush:
        """Have what was written to some units be written back, to be waited for later.

        With `is_last` the pager does not say what is lost when this process has ended.
        """
        ticket = self.rpc.new_ticket()
        message = w.Flush(ticket, region.number, units.start, units.stop, is_last)
        return PendingFlush(self.rpc.begin(message))

    def retire_region(self, region: Region) -> tuple[int, int]:
        """Have what was written to a region be written back, and nobody write to it any more.

        Returns how many units and bytes were written.

        Raises
        ------
        StoreError
            When something could not be written.  The region is as it was then.
        PagerError
            When the pager is gone.
        """
        found = PendingFlush(self.rpc.begin(w.Retire(self.rpc.new_ticket(), region.number))).wait()
        region.is_retired = True
        self.forbid_writes(region)
        return found

    def forbid_writes(self, region: Region) -> None:
        """Make every write to a region SIGSEGV."""
        region.is_forbidden = True
        if region.is_mapped:
            protect(region.address, region.memory_nbytes, Protection.READ)

    def has_pager(self) -> bool:
        """Return whether the pager is not known to be gone."""
        return self.rpc.is_leaving or self.rpc.is_usable()

    def written_regions(self) -> list[Region]:
        """Return the regions that are written back, while the pager is there or is not."""
        return [region for region in self._region_table if region.kind.writes_back]

    def advise(self, region: Region, units: Span, advice: str) -> None:
        """Say how units will be read."""
        if self.rpc.is_leaving:
            return
        ticket = self.rpc.new_ticket()
        self.rpc.ask(w.Advise(ticket, region.number, units.start, units.stop, advice), w.Done)

    def schedule(self, runs: Iterable[tuple[Region, Span]]) -> None:
        """Say which units will be touched, in order; the pager loads them ahead of that."""
        if self.rpc.is_leaving:
            return
        self._require_identity()
        name, n_before, rest = self.rpc.new_ticket(), 0, iter(runs)
        part = list(itertools.islice(rest, _MAX_RANGES))
        while part:
            following = list(itertools.islice(rest, _MAX_RANGES))
            numbers = dict.fromkeys(region.number for region, _ in part)
            places = {number: place for place, number in enumerate(numbers)}
            message = w.Schedule(
                ticket=self.rpc.new_ticket(),
                schedule=name,
                n_before=n_before,
                regions=list(places),
                places=[places[region.number] for region, _ in part],
                runs=[list(units) for _, units in part],
                is_last=not following,
            )
            self.rpc.ask(message, w.Done)
            n_before, part = n_before + len(part), following

    def begin_recording(self) -> int:
        """Have the order of first touches be noted; return what names the recording."""
        ticket = self.rpc.new_ticket()
        self.rpc.ask(w.BeginRecording(ticket), w.Done)
        return ticket

    def end_recording(self, recording: int) -> None:
        """Have what was noted be forgotten."""
        if not self.rpc.is_leaving:
            self.rpc.ask(w.EndRecording(self.rpc.new_ticket(), recording), w.Done)

    def trace(self, recording: int, start: int, n_arrays: int) -> dict[str, Any]:
        """Return a part of what was noted, from these runs and arrays on; see `Core.trace`."""
        want = w.WantTrace(self.rpc.new_ticket(), recording, start, n_arrays)
        return self.rpc.ask(want, w.Trace).document

    def statistics(self) -> dict[str, Any]:
        """Return what the pager has counted."""
        want = w.WantStatistics(self.rpc.new_ticket())
        return self.rpc.ask(want, w.Statistics).document

    def configure(self) -> None:
        """Tell the pager what holds now; where it is gone, the next one is told when it begins."""
        try:
            self.rpc.ask(w.Configure(self.rpc.new_ticket(), self._settings()), w.Done)
        except PagerError:
            if self.rpc.is_usable():
                raise

    # --- fork -----------------------------------------------------------------------

    def before_fork(self) -> None:
        """Stand still, announce the child, and let it inherit the regions' mappings.

        The child is announced by its parent, so that the parent cannot have a region
        forgotten that the child has and has not spoken of yet.  All that can fail comes before
        anything is changed: a child that was not announced inherits nothing, and comes by
        itself (`join_as_child`).
        """
        if self._pid != os.getpid():
            return  # nor could this process join its parent's pager
        self._lock.acquire()
        self._disinherit()
        if not self.rpc.is_usable():
            return
        self.is_alone = False
        regions = list(self._region_table)
        try:
            ours, theirs = channel_pair()
            with closing(theirs):
                # Before the fork, by the parent.  The child could announce itself only once
                # it runs, and the parent may let go of a region in between.
                self._control.send(w.Join([r.number for r in regions]), (theirs.fileno(),))
            fork.channel = ours
            self._inheritable = regions
            # Last of all, and each undone by `_disinherit`: a region that stayed
            # inheritable would be in children that do not register it, and read as zeros
            # there.
            for region in tuple(regions):
                let_inherit(region, inherit=True)
        except BaseException as error:
            self._disinherit()
            if not isinstance(error, OSError | LazyarrError):
                raise

    def after_fork_in_parent(self) -> None:
        """Go on; a child that was not born is seen to hang up.  May be called again.

        The second call of two finds the lock released, and perhaps taken by another thread
        that forks: what that thread's child is to inherit is not for this thread to take back.
        """
        if self._pid != os.getpid():
            return
        try:
            self._lock.acquire()
            self._disinherit()
        finally:
            release_all(self._lock)

    def _disinherit(self) -> None:
        """Let children inherit nothing; after an interruption, go on where that was."""
        while self._inheritable:
            let_inherit(self._inheritable[-1], inherit=False)
            self._inheritable.pop()
        if fork.channel is not None:
            fork.channel.close()
            fork.channel = None

    def join_as_child(self) -> Session:
        """Return the tie of this process, a child, to its parent's pager, with its regions.

        Until it returns the regions are mapped and not registered, or not mapped at all, so
        nothing else may run: no thread, no other hook of ours.  An inherited userfaultfd
        acts on the parent's memory, so the child needs its own.  Where it can have none
        the memory is forbidden, and this session is returned, which gives the reason.

        Raises
        ------
        PagerError
            For a child that was not announced, and may try again.
        """
        if self._pid == os.getpid():
            return self
        self._lock = threading.RLock()
        self.rpc.give_up(_NOT_INHERITED)
        regions = tuple(self._region_table)
        # A fork that Python has not made has called no hook: a channel that is found
        # then was made for another child.
        for_child, fork.channel = fork.channel if is_fork_seen() else None, None
        self._keep_objects(regions)
        try:
            if for_child is None:
                for region in regions:
                    region.is_mapped = any(found is region for found in self._inheritable)
                    if not region.is_mapped:
                        # First of all: what follows maps memory, which could come to lie there.
                        reserve(region)
                if self._inheritable:
                    raise PagerError("the hooks of its fork were interrupted; fork again")
                for_child = self._come_late()
            # The inherited userfaultfd acts on the parent's memory.  It is closed before
            # anything could use it, and descriptors that parent and child share are closed
            # here alone.
            self.close()
            return self._move_in(for_child, regions)
        except _TryAgainError as error:
            raise PagerError(f"this child could not join its parent's pager: {error}") from error
        except BaseException as error:
            # Forbidden rather than readable: an unregistered page reads as zeros, and on a
            # shared mapping the zeros would become the parent's data.
            for region in regions:
                lose(region)
                region.owner = self
                self._keep_no_object(region)
            self._pid = os.getpid()
            self.rpc.give_up(_NOT_JOINED.format(f"{type(error).__name__}: {error}"))
            if not isinstance(error, OSError | LazyarrError):
                raise
        return self

    def _keep_objects(self, regions: Iterable[Region]) -> None:
        """Keep the memory objects of the parent that may have to be rescued, in a child."""
        for region in regions:
            if region.kind.writes_back:
                # The claim is among the descriptors that the region has.
                self._keep_object(region, region.memfd)

    def _come_late(self) -> Channel:
        """Have the pager await this process, on the channel that its parent speaks on."""
        self._close_memory()
        if self._control.is_hung_up():
            reason = "the pager is gone" if self._control.is_own() else CLOSED_BY_OTHERS
            raise PagerError(reason)
        try:
            ours, theirs = channel_pair()
        except OSError as error:
            raise _TryAgainError(f"{error}; close descriptors, or raise 'ulimit -n'") from error
        with ExitStack() as opened:
            opened.callback(ours.close)
            with closing(theirs):
                self._control.send(w.Join([]), (theirs.fileno(),))
            # With an answer to what came after it, the pager is known to wait for this process:
            # it may be about to end with the parent, and a lifeline that ends is SIGBUS.
            rpc = opened.enter_context(closing(Rpc(self._control, lambda: None)))
            rpc.ask(w.WantStatistics(rpc.new_ticket()), w.Statistics)
            opened.pop_all()
            rpc.close()
        return ours

    def close(self) -> None:
        """Close every descriptor; nobody may rely on memory being filled any more.

        The lifeline before the channels: the pager lets go of a client that hangs up and has
        no arrays.
        """
        self._close_memory()
        self.rpc.close()

    def held_arrays(self) -> list[str]:
        """Return the arrays that are mapped, by name and store."""
        arrays = (region.array for region in self._region_table)
        return [f"{a.get('path') or '/'!r} of {a.get('url', 'another process')}" for a in arrays]

    def _close_memory(self) -> None:
        self._lifeline.close()
        self._uffd.close()
        if self._writable_uffd is not None:
            self._writable_uffd.close()
        self._pages.close()
        self._maps.close()

    def _move_in(self, control: Channel, regions: Sequence[Region]) -> Session:
        """Return a session of this process that has the regions of its parent."""
        session = Session(control, self.invitation, is_alone=False)
        session._is_listening = self._is_listening
        session._identity = self._identity
        try:
            for region in regions:
                if region.is_mapped:
                    session.adopt(region)
                elif not session.bring_back(region):
                    lose(region)
        except BaseException:
            # Before its userfaultfd closes: memory that is not registered reads as zeros.
            for region in regions:
                lose(region)
            session.close()
            raise
        return session

    def adopt(self, region: Region) -> None:
        """Take over a region that this process has inherited by fork."""
        adopt_region(region, self._uffd_of(region.kind))
        if region.kind.is_shared:
            region.owner = self
            self._control.send(w.AttachRegion(region.number, region.address))
            self._region_table.enter(region)
            return
        self._place_anew(region)
        map_residency(region)
        self._announce(region)

    def bring_back(self, region: Region) -> bool:
        """Map a region where the parent has it, for a child that has not inherited it.

        Returns
        -------
        bool
            Whether that was done: not where something else lies there by now, nor for private
            memory, for what was written there has stayed in the parent.
        """
        if not region.kind.is_shared:
            return False
        want = w.WantRegion(self.rpc.new_ticket(), region.number, region.array["layout"])
        found, descriptors = self.rpc.exchange(want, w.Found)
        assert isinstance(found, w.Found)
        try:
            if descriptors:
                region.memfd, region.map_memfd, *_ = descriptors
                region.offset, region.map_offset = found.offset, found.map_offset
            elif "store" in region.array and not region.kind.writes_back:
                self._place_anew(region)
            else:
                return False
            give_way(region)
            map_region(region, self._uffd_of(region.kind), address=region.address)
        except KernelError:
            self._close(region)
            return False
        finally:
            self._keep_object(region, descriptors[0] if descriptors else -1)
            close_all(descriptors)
        if descriptors:
            region.owner = self
            self._control.send(w.AttachRegion(region.number, region.address))
            self._region_table.enter(region)
        else:
            self._announce(region)
        return True

    def _place_anew(self, region: Region) -> None:
        """Have a region of the parent lie in memory objects of this process, as one of its own."""
        # A new number: private memory is this process's own from the fork on, and the
        # parent's region of the old number lives on.
        region.owner, region.number = self, _new_number()
        if region.kind.is_shared:
            region.memfd = self._pages.memfd
            region.offset = self._pages.hand_out(region.geometry.nbytes)
        region.map_memfd = self._maps.memfd
        region.map_offset = self._maps.hand_out(region.geometry.n_units)


class _TryAgainError(Exception):
    """A child that was not announced cannot come just now."""


def _new_number() -> int:
    """Return a name for a region that no other client of the pager uses."""
    # At random, so that nobody has to be asked for one: an opening waits for no answer.
    return int.from_bytes(os.urandom(6))


def _passed() -> threading.Event:
    """Return an event that nobody need wait for."""
    event = threading.Event()
    event.set()
    return event
