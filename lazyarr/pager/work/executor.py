"""Carries out the commands of the state machine."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from lazyarr.errors import KernelError
from lazyarr.kernel import PAGE_NBYTES, Features, ScratchBuffer, Stop
from lazyarr.pager.log import report
from lazyarr.pager.memory import installer
from lazyarr.pager.memory.clients import Client, Region
from lazyarr.pager.onerror.refusals import Refusals
from lazyarr.pager.onerror.shown_zeros import ShownZeros
from lazyarr.pager.work.core import Core
from lazyarr.pager.work.loader import GONE
from lazyarr.pager.work.loads import Loads
from lazyarr.pager.work.write_back import WriteBacks
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.reading.workspace import Workspace
from lazyarr.units import Span
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lazyarr.kernel import Fault
    from lazyarr.pager.lifecycle.inflight_record import Deed, InflightRecord
    from lazyarr.pager.measure import Measurements
    from lazyarr.plan.machine import FastLoad
    from lazyarr.wire.channel import Channel

__all__ = ["Executor"]

# A unit of this size is read and decoded in less time than waking a thread takes.
_AT_ONCE_NBYTES = 32 << 10
# So much memory is given back in a few milliseconds.
_LARGE_NBYTES = 64 << 20


class Executor(Core):
    """Carries out the machine's commands, and serves small units without its events.

    `Load` alone runs outside of the lock, in `Loads`.  All other commands are carried out at once.
    Work that a step of the machine has left for later is a job of its own, so that other threads
    get the lock in between.

    Parameters
    ----------
    machine, measurements, inflight, doomed
        As of `Core`.

    Attributes
    ----------
    loads : Loads
        Starts loads, and gives `Core` the events by which they end.
    write_backs : WriteBacks
        Writes dirty units to their stores, and gives `Core` the events by which that ends.
    refusals : Refusals
        Knows which threads wait to write, and tells those that cannot.
    retired : callable
        Told of a client and a region, when that is retired, before the client hears of it.
    said : set of int
        Regions of which their last client says itself what could not be written.
    """

    def __init__(
        self,
        machine: Machine,
        measurements: Measurements,
        *,
        inflight: InflightRecord,
        doomed: set[Deed],
    ) -> None:
        super().__init__(machine, measurements, inflight=inflight, doomed=doomed)
        self.loads = Loads(self)
        self.write_backs = WriteBacks(self, self.loads)
        self.refusals = Refusals()
        self.retired: Callable[[int, int], None] = lambda *_: None
        # By client and ticket, the regions that are being retired.
        self._retiring: dict[tuple[int, int], int] = {}
        # And those that are flushed for a client that ends.
        self._ending: dict[tuple[int, int], int] = {}
        self.said: set[int] = set()
        self._is_proceeding = False
        self._unmapped: dict[int, set[int]] = {}
        self._fast_workspace = Workspace()
        self._page = ScratchBuffer(PAGE_NBYTES)  # grows where pages are larger
        self._shown_zeros = ShownZeros(machine, self.clients, self.regions)
        self._do: dict[type, Callable[[Any], None]] = {
            m.Load: self._do_load,
            m.Promote: self.loads.promote,
            m.InstallPage: self._do_install_page,
            m.MapPages: self._do_map_pages,
            m.Wake: self._do_wake,
            m.Punch: self._do_punch,
            m.Publish: self._do_publish,
            m.Poison: self._do_poison,
            m.Protect: self._do_protect,
            m.Unprotect: self._do_unprotect,
            m.Refuse: self._do_refuse,
            m.WriteBack: self.write_backs.start,
            m.Flushed: self._do_flushed,
            m.Lost: self._do_lost,
            m.Answer: self._do_answer,
            m.Forget: self._do_forget,
        }

    def carry_out(self, commands: Iterable[m.Command]) -> None:
        """Carry out commands of the machine; the lock is held."""
        for command in commands:
            try:
                self._do[type(command)](command)
            except KernelError as error:
                # Of a client's memory.  The step goes on: others are answered by what follows.
                client = getattr(command, "client", None)
                if client not in self.clients:
                    raise
                self.expel(client, error)
        # Loads are given out together at the end: neighbouring small units become one job.
        self.loads.start_queued()

    def end_step(self) -> None:
        """Start the fetches of a step, and plan the step that the machine has left for later."""
        # All fetches of a step at once, so that neighbours in an object become one request.
        self.loads.flush()
        # One such job at a time.  Urgent, for a request may wait for its later units.
        if self.machine.has_more and not self._is_proceeding:
            self._is_proceeding = True
            self.loads.threads.add(self._proceed, urgent=True)

    def _proceed(self, _: Workspace) -> None:
        """Take the next step of work that was left for later; others had the lock meanwhile."""
        with self.lock:
            self._is_proceeding = False
            self.carry_out(self.machine.proceed())
            self.step(())

    def serve_fast(self, client: Client, address: int) -> bool:
        """Serve a fault by the fast path, or begin to; return False where the events must do it.

        The same as `Faulted`, `Load` and `Loaded` one after the other, without the
        objects between them.  For a small unit these objects cost several times what the unit
        does.  Where anything is out of the ordinary nothing has been recorded, and the
        events find out what it is.
        """
        begin = time.perf_counter()
        # One lock around plan and record: nothing can happen to the unit in between.
        with self.lock:
            fast = self.machine.fast_path.plan(client.number, address)
            # Only the events refuse a unit that has killed workers.
            if fast is None or (fast.region, fast.unit) in self.doomed:
                return False
            region = self.regions[fast.region]
            if region.kind.writes_back and not self._is_at_once(fast, region):
                return False
            if fast.nbytes <= _AT_ONCE_NBYTES:
                is_done = self._load_at_once(fast, region, client)
            elif region.is_remote:
                # Its chunks are fetched first, which the events do.
                return False
            else:
                # A larger unit is loaded by a thread, outside of the lock.
                commands = self.machine.fast_path.begin(fast)
                self.loads.start_fast(fast)
                if commands:
                    self.carry_out(commands)
                return True
        if is_done:
            self.measurements.add("quick", time.perf_counter() - begin)
        return is_done

    def _is_at_once(self, fast: FastLoad, region: Region) -> bool:
        """Return whether a unit of memory that is written back can be loaded under the lock."""
        # A load that goes on without the lock must be known to `Replacements`.
        shards = region.source.shards_of(fast.unit)
        is_replaced = self.loads.replacements.are_under_way(fast.region, shards)
        return fast.nbytes <= _AT_ONCE_NBYTES and not is_replaced

    def _load_at_once(self, fast: FastLoad, region: Region, client: Client) -> bool:
        """Load a unit under the lock; return False where the events must do it."""
        # A workspace of its own: the lock makes it one thread's, and it stays in the cache.
        workspace = self._fast_workspace
        self.inflight.begin(fast.region, fast.unit)
        # Never waits for a disk: other threads wait for the lock.
        has_bytes = region.source.load_quickly(fast.unit, workspace, may_wait=False)
        self.inflight.end()
        if has_bytes is None:
            return False
        if has_bytes:
            source = workspace.unit.address
            is_installed = client.uffd_of(region.kind).copy_at_once(
                fast.address, source, fast.nbytes, region.kind.copy_mode
            )
        else:
            outcome = installer.install_zeros(
                client.uffd_of(region.kind),
                fast.address,
                fast.nbytes,
                mode=region.kind.copy_mode,
                copies=region.kind.writes_back,
            )
            is_installed = outcome.stop is Stop.DONE
        # An install that did not do all is repeated by the events, which is harmless: what is
        # there stays, or is brought up to date.
        if not is_installed:
            return False
        self.machine.fast_path.take_down(fast)
        region.publish(fast.unit, resident=True)
        return True

    def serve_raising(self, client: Client, faults: Sequence[Fault], n_raised: int) -> list[Fault]:
        """Serve the faults of a main thread that is about to raise; return the other faults."""
        with self.lock:
            return self._shown_zeros.serve(client, faults, n_raised)

    def note_writers(self, client: int, faults: Sequence[Fault], addresses: Iterable[int]) -> None:
        """Note which threads wait to write, and where to pages that their process lacks."""
        # A page that is mapped is found write-protected.  Only of the others it is known that
        # they have to be mapped before the protection is lifted, and to try each page of a unit
        # takes long.
        with self.lock:
            self.refusals.note(client, faults)
            self._unmapped.setdefault(client, set()).update(addresses)

    def remove_client(self, number: int) -> None:
        """Stop serving a client, as `Core.remove_client`, and forget where its threads wait."""
        super().remove_client(number)
        with self.lock:
            self._unmapped.pop(number, None)
            self.refusals.forget(number)

    def end_raising(self, client: Client, ticket: int, channel: Channel) -> None:
        """Tell a client's main thread which failure it raises."""
        with self.lock:
            failure = self._shown_zeros.end(client)
        self.expect(client.number, ticket, channel)
        self.answer(client.number, w.Done(ticket, [_document(failure)] if failure else []))

    def _do_load(self, command: m.Load) -> None:
        """Start a load, or let it fail if it has killed workers before."""
        key = (command.region, command.unit)
        if key not in self.doomed:
            self.loads.start(command)
            return
        self.doomed.discard(key)
        reason = "the process that decoded it died, repeatedly"
        error = self.regions[command.region].source.unit_error(command.unit, reason)
        self.follow_with(self.loads.loader.failed(command, error))

    # --- all other commands: at once, under the lock ----------------------------

    def _do_install_page(self, command: m.InstallPage) -> None:
        # UFFDIO_COPY needs an address.  A scratch page has one, and the bytes of the
        # command do not tell theirs.
        self._page.grow(len(command.data))
        self._page.view[: len(command.data)] = command.data
        stop = self.loads.loader.install(
            command.region,
            command.client,
            Span(command.page, command.page + 1),
            source=self._page.address,
            data=self._page.view,
        )
        # The client has ended, and the machine will hear of it.  It has the page down as there, so
        # others may be let write to the units that share it: it must be in the memory object.
        if stop in GONE and self._fill_page(command):
            return
        if stop is not Stop.DONE:
            # The client may not have more memory now (ENOMEM).  The units are loaded again, and
            # there may be some by then.
            self.follow_with(m.HoleFound(command.client, command.region, command.page))

    def _fill_page(self, command: m.InstallPage) -> bool:
        """Write a page to the memory object, mapped nowhere; return whether that was done."""
        region = self.regions[command.region]
        page_nbytes = region.kind.page_nbytes
        backing = region.backing_at(command.page * page_nbytes)
        # Private memory went with its client.
        return backing is None or installer.fill(backing, page_nbytes, self._page.view)

    def _do_map_pages(self, command: m.MapPages) -> None:
        state = self.machine.region(command.region)
        owner = self.clients.get(command.client)
        if state is None or owner is None or command.client not in state.addresses:
            return
        page_nbytes = state.kind.page_nbytes
        address = state.addresses[command.client] + command.pages.start * page_nbytes
        nbytes = command.pages.size * page_nbytes
        # Private pages are in the client's page table or nowhere.  A thread whose fault
        # was read late is woken, and looks again.
        uffd = owner.uffd_of(state.kind)
        if not state.kind.is_shared:
            uffd.wake(address, nbytes)
            return
        # A hole shows that the record was wrong.  The machine has the unit loaded again.
        # Protected where pages are copied so: what is protected though it is dirty costs one
        # more fault, and what is not though it is clean would be a write that nobody knows of.
        mode = state.kind.copy_mode
        _, holes = installer.map_resident(uffd, address, nbytes, page_nbytes, mode=mode)
        first = command.pages.start
        self.follow_with(
            *(m.HoleFound(command.client, command.region, first + h // page_nbytes) for h in holes)
        )

    def _do_wake(self, command: m.Wake) -> None:
        owner = self.clients.get(command.client)
        if owner is not None:
            # The kernel wakes the threads whose address lies in this range (userfaultfd.c,
            # UFFDIO_WAKE).  So one page of the system is enough, however large the region's are.
            owner.wake(command.address & -PAGE_NBYTES, PAGE_NBYTES)

    def _do_punch(self, command: m.Punch) -> None:
        self.regions[command.region].punch(command.pages)

    def _do_publish(self, command: m.Publish) -> None:
        region = self.regions[command.region]
        region.publish(command.unit, resident=command.resident, dirty=command.dirty)

    def _do_poison(self, command: m.Poison) -> None:
        """Report a failure, and let the threads that wait for its pages die of SIGBUS."""
        pages = self._shown_zeros.pages_to_poison(command)
        if not pages:
            return
        # Reported before the signal: on the user's stderr the reason stands above the traceback.
        report(f"{command.failure.message}; a thread that waits for it gets SIGBUS")
        state = self.machine.region(command.region)
        owner = self.clients.get(command.client)
        if state is None or owner is None or command.client not in state.addresses:
            return
        # Linux 6.6 and later can poison a page.  Before, the whole process is sent the signal
        # that poison would be for the thread.
        uffd = owner.uffd_of(state.kind)
        if Features.POISON not in uffd.features:
            signal.pidfd_send_signal(owner.pidfd, signal.SIGBUS)
            return
        for page in pages:
            address = state.addresses[command.client] + page * state.kind.page_nbytes
            # The page is not there, so the protection that is lifted is nobody's.
            installer.poison(uffd, address, state.kind.page_nbytes, lifts=state.kind.writes_back)

    def _do_protect(self, command: m.Protect) -> None:
        state = self.machine.region(command.region)
        if state is None:  # nobody has it any more, and it is forgotten in the same step
            return
        page_nbytes = state.kind.page_nbytes
        for number, address in state.addresses.items():
            if number in self.clients:
                start = address + command.pages.start * page_nbytes
                self.protect(number, state.kind, start, command.pages.size * page_nbytes)

    def _do_unprotect(self, command: m.Unprotect) -> None:
        """Let a client write to pages of dirty units."""
        state = self.machine.region(command.region)
        owner = self.clients.get(command.client)
        if state is None or owner is None or command.client not in state.addresses:
            return
        page_nbytes = state.kind.page_nbytes
        first = command.pages.start
        address = state.addresses[command.client] + first * page_nbytes
        uffd, nbytes = owner.uffd_of(state.kind), command.pages.size * page_nbytes
        self.refusals.let_in(command.client)
        unmapped = self._unmapped.get(command.client, set())
        awaited = [a for a in unmapped if address <= a < address + nbytes]
        unmapped.difference_update(awaited)
        offsets = [(a - address) // page_nbytes * page_nbytes for a in awaited]
        _, holes = installer.unprotect(uffd, address, nbytes, awaited=offsets)
        self.follow_with(
            *(m.HoleFound(command.client, command.region, first + h // page_nbytes) for h in holes)
        )

    def _do_refuse(self, command: m.Refuse) -> None:
        """Report a failure, and let the threads that wait to write die of SIGBUS."""
        state = self.machine.region(command.region)
        owner = self.clients.get(command.client)
        if state is None or owner is None or command.client not in state.addresses:
            return
        report(f"{command.failure.message}; a thread that writes there gets SIGBUS")
        start, page_nbytes = state.addresses[command.client], state.kind.page_nbytes
        pages = set(command.pages)
        if self.refusals.refuse(owner, lambda at: (at - start) // page_nbytes in pages):
            return
        # Nobody knows which thread it is, and the process may live on.  Its thread is woken and
        # faults anew: a message that was read does not come twice.
        for page in command.pages:
            owner.uffd_of(state.kind).wake(start + page * page_nbytes, page_nbytes)

    def _do_flushed(self, command: m.Flushed) -> None:
        failures = [_document(failure) for failure in command.failures]
        region = self._retiring.pop((command.client, command.ticket), None)
        # The next worker must know of it before the client goes on to change the array.
        if region is not None and not failures:
            self.retired(command.client, region)
        ended = self._ending.pop((command.client, command.ticket), None)
        if ended is not None and failures:
            state = self.machine.region(ended)
            # Not where others have the region: they go on writing.
            if state is not None and [*state.addresses] == [command.client]:
                self.said.add(ended)
        done = w.Done(command.ticket, failures, n_units=command.n_units, nbytes=command.nbytes)
        self.answer(command.client, done)

    def _do_lost(self, command: m.Lost) -> None:
        state = self.machine.region(command.region)
        if command.region in self.said and not (state and state.addresses):
            return
        label = self.regions[command.region].label
        report(
            f"what was written to {len(command.units)} units of {label} is lost: "
            f"{command.failure.message}"
        )

    def retire(self, event: m.Retired) -> None:
        """Have a region retired, whose ticket is expected."""
        with self.lock:
            self._retiring[event.client, event.ticket] = event.region
            self.step([event])

    def flush_last(self, event: m.FlushAsked) -> None:
        """Have units written back, whose ticket is expected, for a client that ends then."""
        with self.lock:
            self._ending[event.client, event.ticket] = event.region
            self.step([event])

    def _do_answer(self, command: m.Answer) -> None:
        failures = [_document(failure) for failure in command.failures]
        self.answer(command.client, w.Done(command.ticket, failures))

    def _do_forget(self, command: m.Forget) -> None:
        region = self.regions.pop(command.region)
        self.said.discard(command.region)
        self.note_gone(command.region, region)
        self.write_backs.forget(command.region)
        self.let_go(command.region, region)
        # The region's units may have been larger than those of all others.
        counted_nbytes = self.loads.threads.drop_workspaces()
        if counted_nbytes:
            self.follow_with(m.ScratchGrew(-counted_nbytes))
        if region.memory_nbytes <= _LARGE_NBYTES:
            region.close()
        else:
            # No client has this region any more.  Its very many pages are freed by a job of its
            # own, outside of the lock.  Urgent, for others need the memory.
            self.loads.threads.add(partial(self._close_region, region), urgent=True)

    def _close_region(self, region: Region, _: Workspace) -> None:
        """Free a large region's memory outside of the lock, then close it."""
        region.wipe()
        # `close` wipes again, and finds nothing left.
        with self.lock:
            region.close()


def _document(failure: m.Failure) -> dict[str, Any]:
    """Return a failure as it is sent to a client."""
    return {"message": failure.message, **failure.fields}
