"""What the machine does about memory that is written back."""

from __future__ import annotations

import pytest

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.units import Span

PAGES = Geometry((64,), (16,), 1, 16)  # four units of one page
LONG = Geometry((96,), (40,), 1, 16)  # units of several pages; page 2 has units 0 and 1
FAILURE = m.Failure("the disk is full", {})
ADDRESS = 1 << 20


class Pager:
    """A machine, and loads that end at once."""

    def __init__(
        self,
        geometry: Geometry = PAGES,
        *,
        limit: int = 1 << 20,
        n_clients: int = 1,
        per_object: tuple[int, ...] = (),
    ):
        self.machine = Machine(limit)
        self.geometry = geometry
        self.log: list[m.Command] = []
        for client in range(1, n_clients + 1):
            where, kind = (client, 1, client * ADDRESS, geometry), MemoryKind.TRACKED
            self.do(m.Attached(*where, kind, chunks_per_object=per_object))

    def do(self, event: m.Event) -> list[m.Command]:
        """Return the commands of an event, and of what it leaves to be done."""
        commands = self.machine.handle(event)
        while self.machine.has_more:
            commands += self.machine.proceed()
        self.log += commands
        for command in [command for command in commands if isinstance(command, m.Load)]:
            shares = [
                (page, self.geometry.unit_bytes(command.unit) & self.geometry.page_bytes(page))
                for page in self.geometry.edge_pages(command.unit)
            ]
            fragments = tuple(
                m.Fragment(page, share.start - page * 16, b"x" * share.size)
                for page, share in shares
            )
            where = (command.region, command.unit, command.client)
            commands += self.do(m.Loaded(*where, fragments))
        return commands

    def write(self, page: int, client: int = 1) -> list[m.Command]:
        """Have a thread write to a page."""
        return self.do(m.Faulted(client, client * ADDRESS + page * 16, is_write=True))

    def write_back(self, *units: int, failure: m.Failure | None = None) -> list[m.Command]:
        """Carry out a write back."""
        commands = self.do(m.CopyBegan(1, units)) + self.do(m.Copied(1, units))
        return commands + self.do(m.WrittenBack(1, units, failure, 10))


def of(commands: list[m.Command], kind: type) -> list[m.Command]:
    """Return the commands of one kind."""
    return [command for command in commands if isinstance(command, kind)]


def test_a_unit_is_published_as_dirty_before_it_is_unprotected():
    """Whoever is let in may write at once, and all may die then."""
    pager = Pager()
    commands = pager.write(2)
    assert of(commands, m.Load) == [m.Load(1, 2, 1, True, writes=True)]
    dirty = commands.index(m.Publish(1, 2, resident=True, dirty=True))
    assert commands.index(m.Unprotect(1, 1, Span(2, 3))) > dirty
    assert (pager.machine.n_dirty, pager.machine.dirty_nbytes) == (1, 16)


def test_protection_is_lifted_for_the_client_that_writes():
    """Another one has a protection of its own."""
    pager = Pager(n_clients=2)
    pager.write(0)
    assert of(pager.write(0, client=2), m.Unprotect) == [m.Unprotect(1, 2, Span(0, 1))]
    assert pager.machine.n_dirty == 1


def test_both_units_of_a_shared_page_are_dirty_before_it_is_unprotected():
    """And a unit is not dirty before its shared pages are in memory."""
    pager = Pager(LONG)
    commands = pager.write(0)
    assert [load.unit for load in of(commands, m.Load)] == [0, 1, 2][: len(of(commands, m.Load))]
    assert of(commands, m.Unprotect) == [m.Unprotect(1, 1, Span(0, 2))]
    assert pager.machine.n_dirty == 1
    commands = pager.write(2)
    assert pager.machine.n_dirty == 2
    assert of(commands, m.Unprotect) == [m.Unprotect(1, 1, Span(0, 5))]


def test_a_flush_is_answered_when_what_was_dirty_is_written():
    """And not by what becomes dirty later."""
    pager = Pager()
    pager.write(0)
    commands = pager.do(m.FlushAsked(1, 1, 7, Span(0, 4)))
    assert commands == [m.WriteBack(1, (0,))]
    pager.write(1)
    commands = pager.write_back(0)
    assert of(commands, m.Flushed) == [m.Flushed(1, 7, (), 1, 10)]
    assert m.Publish(1, 0, resident=True) in commands
    assert pager.machine.n_dirty == 1
    assert pager.do(m.FlushAsked(1, 1, 8, Span(3, 4))) == [m.Flushed(1, 8, (), 0, 0)]


def test_who_writes_to_what_is_being_copied_waits_and_makes_it_dirty_again():
    """A flush that is asked for after that waits for another round."""
    pager = Pager()
    pager.write(0)
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 4)))
    pager.do(m.CopyBegan(1, (0,)))
    assert pager.machine.is_being_written(1, 0)
    assert pager.write(0) == []
    assert of(pager.do(m.Copied(1, (0,))), m.Unprotect) == [m.Unprotect(1, 1, Span(0, 1))]
    assert pager.do(m.FlushAsked(1, 1, 8, Span(0, 4))) == []
    commands = pager.do(m.WrittenBack(1, (0,), None, 10))
    assert commands == [m.Flushed(1, 7, (), 1, 10), m.WriteBack(1, (0,))]
    assert of(pager.write_back(0), m.Flushed) == [m.Flushed(1, 8, (), 1, 10)]
    assert pager.machine.n_dirty == 0


def test_what_could_not_be_written_stays_dirty_and_is_tried_again():
    """The flush names the reason."""
    pager = Pager()
    pager.write(0)
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 4)))
    assert pager.write_back(0, failure=FAILURE) == [m.Flushed(1, 7, (FAILURE,), 0, 0)]
    assert pager.machine.n_dirty == 1
    assert pager.do(m.FlushAsked(1, 1, 8, Span(0, 4))) == [m.WriteBack(1, (0,))]


def test_dirty_units_stay():
    """Whoever evicts, and however little room there is."""
    pager = Pager()
    pager.write(0)
    pager.do(m.EvictionAsked(1, 1, 7, Span(0, 4)))
    assert pager.do(m.LimitChanged(0)) == [m.WriteBack(1, (0,))]
    assert of(pager.log, m.Punch) == []
    pager.write_back(0)
    pager.do(m.EvictionAsked(1, 1, 8, Span(0, 4)))
    assert of(pager.log, m.Punch) == [m.Punch(1, Span(0, 1))]


def test_writers_wait_above_half_of_the_limit_and_fail_if_nothing_can_be_written():
    """With room for two units and a page at least; a request is told, a thread is refused."""
    pager = Pager(Geometry((160,), (16,), 1, 16), limit=32)
    for page in range(4):
        pager.write(page)
    assert of(pager.write(4), m.Unprotect) == []
    pager.do(m.Requested(1, 1, 9, (Span(5, 6),), writes=True))
    commands = pager.write_back(0)
    assert of(commands, m.Unprotect) == [m.Unprotect(1, 1, Span(4, 5))]
    commands = [c for unit in range(1, 5) for c in pager.write_back(unit, failure=FAILURE)]
    assert of(commands, m.Answer) == [m.Answer(1, 9, (FAILURE,))]
    assert pager.machine.n_dirty == 4


@pytest.mark.parametrize("n_failures", [0, 1, 2])
def test_a_region_whose_last_client_goes_is_written_back_and_then_forgotten(n_failures):
    """After a second failure what is lost is said."""
    pager = Pager()
    pager.write(0)
    commands = pager.do(m.ClientLeft(1))
    assert commands == [m.WriteBack(1, (0,))]
    for _ in range(n_failures):
        commands = pager.write_back(0, failure=FAILURE)
    if n_failures == 2:
        # Said before it is clean: a worker that dies between the two leaves it to the next one.
        lost, clean = m.Lost(1, (0,), FAILURE), m.Publish(1, 0, resident=True)
        assert of(commands, m.Lost) == [lost]
        assert commands.index(lost) < commands.index(clean)
    else:
        commands = pager.write_back(0)
        assert of(commands, m.Lost) == []
    assert commands[-1] == m.Forget(1)
    assert (pager.machine.n_dirty, pager.machine.held_nbytes) == (0, 0)


def test_what_is_lost_keeps_no_region_when_the_last_unit_is_written():
    """One unit fails twice, and is given up when the other one, that failed once, is written."""
    pager = Pager()
    pager.write(0)
    pager.write(1)
    pager.do(m.ClientLeft(1))
    for unit in (0, 1, 0):
        pager.write_back(unit, failure=FAILURE)
    commands = pager.write_back(1)
    assert of(commands, m.Lost) == [m.Lost(1, (0,), FAILURE)]
    assert commands[-1] == m.Forget(1)
    assert (pager.machine.n_dirty, pager.machine.held_nbytes) == (0, 0)


def test_what_nobody_has_is_not_tried_again_for_others_that_want_room():
    """It would be given up while it is written, when the last of its region has failed."""
    pager = Pager(limit=0)
    pager.do(m.Attached(2, 2, 2 * ADDRESS, PAGES, MemoryKind.TRACKED))
    for page in range(4):
        pager.write(page)
    pager.do(m.ClientLeft(1))
    pager.write_back(0, failure=FAILURE)
    pager.write_back(0, failure=FAILURE)
    assert pager.do(m.Requested(2, 2, 8, (Span(0, 1),), writes=True)) == []
    for unit in (1, 2, 3, 1, 2):
        pager.write_back(unit, failure=FAILURE)
    commands = pager.write_back(3, failure=FAILURE)
    assert [set(lost.units) for lost in of(commands, m.Lost)] == [{0, 1, 2, 3}]
    assert m.Forget(1) in commands


@pytest.mark.parametrize("is_copied", [True, False])
def test_what_was_lost_while_it_was_written_is_not_written_again_before_that_has_ended(is_copied):
    """The older copy could be put last, and its end would answer a flush that came since."""
    pager = Pager()
    pager.write(0)
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 4)))
    if is_copied:
        pager.do(m.CopyBegan(1, (0,)))
        pager.do(m.Copied(1, (0,)))
    (flushed,) = of(pager.do(m.HoleFound(1, 1, 0)), m.Flushed)
    assert (flushed.ticket, len(flushed.failures)) == (7, 1)
    pager.write(0)
    assert pager.do(m.FlushAsked(1, 1, 8, Span(0, 4))) == []
    assert pager.do(m.WrittenBack(1, (0,), None, 10)) == [m.WriteBack(1, (0,))]
    assert of(pager.write_back(0), m.Flushed) == [m.Flushed(1, 8, (), 1, 10)]
    assert pager.machine.n_dirty == 0


def test_a_region_stays_while_what_was_lost_of_it_is_written():
    """Who writes looks up its memory and its store."""
    pager = Pager()
    pager.write(0)
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 4)))
    pager.do(m.HoleFound(1, 1, 0))
    assert of(pager.do(m.ClientLeft(1)), m.Forget) == []
    assert pager.do(m.WrittenBack(1, (0,), FAILURE, 0)) == [m.Forget(1)]


def test_the_pages_of_a_lost_unit_are_protected_before_it_is_clean():
    """One stays with a neighbour that is dirty, and what is written there is of both."""
    pager = Pager(LONG)
    pager.write(2)
    commands = pager.do(m.HoleFound(1, 1, 0))
    clean = commands.index(m.Publish(1, 0, resident=True))
    assert commands.index(m.Protect(1, Span(2, 3))) < clean
    assert pager.machine.n_dirty == 1
    assert m.Publish(1, 0, resident=True, dirty=True) in pager.write(2)


def test_a_retired_region_is_flushed_and_its_writers_are_refused():
    """A thread that waits meanwhile, too."""
    pager = Pager()
    pager.write(0)
    assert pager.do(m.Retired(1, 7, 1, FAILURE)) == [m.WriteBack(1, (0,))]
    assert pager.write(0) == []
    commands = pager.write_back(0)
    assert of(commands, m.Flushed) == [m.Flushed(1, 7, (), 1, 10)]
    assert of(commands, m.Refuse) == [m.Refuse(1, 1, (0,), FAILURE)]
    assert pager.do(m.Requested(1, 1, 9, (Span(0, 1),), writes=True)) == [
        m.Answer(1, 9, (FAILURE,))
    ]


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_thread_that_may_not_write_is_refused_when_its_page_came_before_the_unit(is_loaded):
    """It is told at the end of the load: a page that is there cannot be poisoned."""
    machine = Machine(1 << 20)
    geometry = Geometry((128,), (64,), 1, 16)
    machine.handle(m.Attached(1, 1, ADDRESS, geometry, MemoryKind.TRACKED))
    machine.handle(m.Retired(1, 7, 1, FAILURE))
    machine.handle(m.Requested(1, 1, 8, (Span(0, 1),), pages=Span(1, 2)))
    assert machine.handle(m.Arrived(1, 0, Span(1, 2))) == [m.Answer(1, 8)]
    assert of(machine.handle(m.Faulted(1, ADDRESS + 16, is_write=True)), m.Poison) == []
    end = m.Loaded(1, 0, 1, ()) if is_loaded else m.LoadFailed(1, 0, 1, FAILURE)
    refused = [m.Refuse(1, 1, (1,), FAILURE)]
    assert of(machine.handle(end), m.Refuse) == refused
    assert machine.handle(m.Faulted(1, ADDRESS + 16, is_write=True)) == refused


def test_who_stands_behind_a_hopeless_writer_has_its_turn():
    """Of two regions that of larger units may have more dirty; no other event has to come."""
    pager = Pager(LONG, limit=0)
    pager.do(m.Attached(2, 2, 2 * ADDRESS, PAGES, MemoryKind.TRACKED))
    for page in (0, 3):
        pager.write(page)
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 3)))
    pager.do(m.CopyBegan(1, (0, 1)))
    pager.do(m.Copied(1, (0, 1)))
    assert pager.do(m.Requested(2, 2, 8, (Span(0, 1),), writes=True)) == []
    assert of(pager.do(m.Requested(1, 1, 9, (Span(0, 1),), writes=True)), m.Answer) == []
    commands = pager.do(m.WrittenBack(1, (0, 1), FAILURE, 0))
    assert of(commands, m.Answer) == [m.Answer(2, 8, (FAILURE,)), m.Answer(1, 9)]


def test_who_needs_no_room_is_not_refused_for_want_of_it():
    """A write back that fails meets threads that write to the very units, which stay dirty.

    They go on when it has ended; others, which need room, are told that there is none.
    """
    pager = Pager(Geometry((96,), (16,), 1, 16), limit=0)
    units = (0, 1, 2, 3, 4)
    pager.do(m.Restored(1, units))
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 6)))
    pager.do(m.CopyBegan(1, units))
    pager.do(m.Copied(1, units))
    for page in (5, 0, 4):
        assert pager.write(page) == []
    first = pager.do(m.WrittenBack(1, units[:4], FAILURE, 0))
    assert of(first, m.Unprotect) == [m.Unprotect(1, 1, Span(0, 1))]
    last = pager.do(m.WrittenBack(1, units[4:], FAILURE, 0))
    assert of(last, m.Unprotect) == [m.Unprotect(1, 1, Span(4, 5))]
    assert of(pager.log, m.Poison) == [m.Poison(1, 1, (5,), FAILURE)]
    assert of(pager.log, m.Refuse) == []


@pytest.mark.parametrize("is_evicted", [False, True])
def test_who_was_let_in_before_its_unit_was_written_is_let_in_without_room(is_evicted):
    """It cannot be told by an exception any more; others, and what is beyond that, are refused."""
    pager = Pager(Geometry((320,), (16,), 1, 16), limit=160)
    pager.do(m.Requested(1, 1, 9, (Span(0, 5),), writes=True))
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 5)))
    pager.write_back(0, 1, 2, 3, 4)
    begin = len(pager.log)
    for page in range(10, 16):
        pager.write(page)
    if is_evicted:
        pager.do(m.EvictionAsked(1, 1, 8, Span(0, 5)))
    assert of(pager.write(0), m.Unprotect) == []
    assert of(fail_all(pager, begin), m.Unprotect) == [m.Unprotect(1, 1, Span(0, 1))]
    assert is_refused(pager, 17)  # nobody was let in to that
    begin = len(pager.log)
    pager.do(m.Requested(1, 1, 10, (Span(1, 2),), writes=True))
    assert of(fail_all(pager, begin), m.Answer) == [m.Answer(1, 10, (FAILURE,))]
    assert [is_refused(pager, page) for page in (1, 2, 3)] == [False, False, True]


def fail_all(pager: Pager, begin: int) -> list[m.Command]:
    """Let whatever is to be written fail; return the commands that this leads to."""
    place, stop = begin, len(pager.log)
    while place < len(pager.log):
        command = pager.log[place]
        if isinstance(command, m.WriteBack):
            pager.write_back(*command.units, failure=FAILURE)
        place += 1
    return pager.log[stop:]


def is_refused(pager: Pager, page: int) -> bool:
    """Return whether a thread may not write to a page when nothing can be written."""
    begin = len(pager.log)
    pager.write(page)
    fail_all(pager, begin)
    is_in, *others = (of(pager.log[begin:], kind) for kind in (m.Unprotect, m.Poison, m.Refuse))
    assert bool(is_in) != any(others)
    return not is_in


def test_what_another_worker_has_left_dirty_is_written_back():
    """Also where nobody has the region any more."""
    pager = Pager(LONG)
    pager.do(m.Restored(1, (0,)))
    assert pager.machine.n_dirty == 1
    assert pager.do(m.FlushAsked(1, 1, 7, Span(0, 3))) == [m.WriteBack(1, (0,))]
    pager.write_back(0)
    pager.do(m.ClientLeft(1))
    assert pager.machine.held_nbytes == 0


# --- what is written first ------------------------------------------------------------------

OBJECTS = Geometry((64 * 16,), (16,), 1, 16)  # 64 units of one page, four to an object


def write_backs(commands: list[m.Command]) -> list[set[int]]:
    """Return the units of each write back."""
    return [set(command.units) for command in of(commands, m.WriteBack)]


def test_who_fills_objects_in_order_has_each_written_once():
    """When it is whole, and a quarter of the limit is dirty."""
    pager = Pager(OBJECTS, limit=32 * 16, per_object=(4,))
    for unit in range(64):
        for written in write_backs(pager.write(unit)):
            assert len(written) % 4 == 0
            pager.write_back(*written)
    pager.do(m.FlushAsked(1, 1, 7, Span(0, 64)))
    written = [unit for command in of(pager.log, m.WriteBack) for unit in command.units]
    assert sorted(written) == list(range(64))


def test_an_object_larger_than_the_dirty_share_is_waited_for():
    """As long as nobody waits for room; then as much of it is written as there is."""
    pager = Pager(OBJECTS, limit=32 * 16, per_object=(64,))
    commands = [command for unit in range(17) for command in pager.write(unit)]
    assert write_backs(commands) == []
    assert write_backs(pager.write(17)) == [set(range(17))]


def test_objects_that_were_written_to_last_are_left():
    """Up to an eighth of the limit: who writes here and there may come back to them."""
    pager = Pager(OBJECTS, limit=64 * 16, per_object=(4,))
    order = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 1, 5]
    commands = [command for unit in order for command in pager.write(unit)]
    assert write_backs(commands) == [{8, 12, 16, 20, 24, 28, 32, 36, 40, 44}]


def test_whole_objects_are_written_first():
    """Nothing has to be read for them, and they need not be written again."""
    pager = Pager(OBJECTS, limit=64 * 16, per_object=(4,))
    order = [0, 4, 8, 12, 16, 20, 24, 28, 60, 61, 62, 63, 32, 36, 40, 44, 48]
    commands = [command for unit in order for command in pager.write(unit)]
    assert write_backs(commands) == [{60, 61, 62, 63, 0, 4, 8, 12, 16}]


def test_what_waits_for_room_is_not_stuck_behind_an_object_that_is_not_whole():
    """However it came to be the only one that is dirty."""
    pager = Pager(OBJECTS, limit=4 * 16, per_object=(64,))
    commands = [command for unit in range(6) for command in pager.write(unit)]
    (written,) = write_backs(commands)
    assert of(pager.write_back(*written), m.Unprotect)
