"""Dirty units are copied, encoded, put and synced, and each comes to an event; whatever fails.

The machine, the executor and the memory object are real.  What commits is a store of a dictionary,
which fails where a test says so.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading

import pytest

from lazyarr.errors import ChunkError, StoreError
from lazyarr.kernel import PAGE_NBYTES, ScratchBuffer, punch_hole
from lazyarr.kernel.refusal import refusal
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.work import write_back
from lazyarr.plan import messages as m
from lazyarr.units import Span
from lazyarr.wire import messages as w
from tests.pager.serving import CLIENT, REGION, letter

PAGE = PAGE_NBYTES
SECONDS = 20


class FakeCommitting:
    """Four units lie in one object each; everything is written down."""

    def __init__(self) -> None:
        self.stored: dict[int, bytes] = {}
        self.n_puts = self.n_syncs = 0
        self.failing: dict[str, Exception] = {}
        self.doing: dict[str, object] = {}
        self.is_closed = False

    def _do(self, what: str) -> None:
        if what in self.doing:
            self.doing[what]()
        if what in self.failing:
            raise self.failing[what]

    def group(self, units):
        self._do("group")
        units = sorted(units)
        return [tuple(u for u in units if u // 4 == n) for n in sorted({u // 4 for u in units})]

    def encode(self, unit, data):
        self._do(f"encode {unit}")
        return {(unit,): bytes(data)}

    def put(self, chunks):
        (number,) = {chunk[0] // 4 for chunk in chunks}
        self._do(f"put {number}")
        self.n_puts += 1
        self.stored.update({chunk[0]: data for chunk, data in chunks.items()})
        return (str(number),)

    def sync(self):
        self._do("sync")
        self.n_syncs += 1

    def close(self):
        self.is_closed = True


class Written:
    """An executor with a region that is written back, and what commits its units."""

    def __init__(self, serve, n_units: int = 12, unit_nbytes: int = 2 * PAGE) -> None:
        self.served = serve(n_units, unit_nbytes, kind=MemoryKind.TRACKED)
        self.executor = self.served.executor
        self.committing = FakeCommitting()
        self.region = self.executor.regions[REGION]
        self.region.open_committing = lambda: self.committing
        self.memfd = self.region.backing.memfd
        self.ticket = 100
        self.executor.write_backs.failed = self._failed
        self.errors: list[BaseException] = []

    def _failed(self, error: BaseException) -> None:
        self.errors.append(error)

    def write(self, *units: int) -> None:
        """Write an upper-case letter all over units, as a client that asks first."""
        self.ticket += 1
        spans = tuple(Span(unit, unit + 1) for unit in units)
        self.served.ask(m.Requested(CLIENT, REGION, self.ticket, spans, writes=True))
        self.served.jobs.run()
        assert self.heard().failures == []
        for unit in units:
            span = self.served.geometry.unit_bytes(unit)
            os.pwrite(self.memfd, letter(unit).upper() * span.size, span.start)

    def flush(self, start: int = 0, stop: int = 1 << 30) -> w.Done:
        """Ask for a flush and return the answer."""
        self.ask_to_flush(start, stop)
        return self.finish()

    def ask_to_flush(self, start: int = 0, stop: int = 1 << 30) -> None:
        self.ticket += 1
        self.served.ask(m.FlushAsked(CLIENT, REGION, self.ticket, Span(start, stop)))

    def finish(self) -> w.Done:
        """Run jobs until an answer has come."""
        deadline = threading.Event()
        for _ in range(SECONDS * 1000):
            self.served.jobs.run()
            if self.served.ours.is_readable():
                return self.heard()
            assert not self.errors, self.errors
            deadline.wait(0.001)
        raise AssertionError("no answer has come")

    def heard(self) -> w.Done:
        received = self.served.ours.receive(wait=False)
        assert received is not None
        assert received.message.ticket == self.ticket
        return received.message


@pytest.fixture
def written(serve):
    return Written(serve)


def capitals(*units: int) -> dict[int, bytes]:
    return {unit: letter(unit).upper() * 2 * PAGE for unit in units}


def test_what_is_dirty_is_put_and_synced_once_and_then_clean(written):
    """The map shows it, and a second flush has nothing to do."""
    written.write(1, 5, 6)
    assert written.served.residency == [0, 3, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0]
    done = written.flush()
    assert (done.failures, done.n_units, done.nbytes) == ([], 3, 6 * PAGE)
    assert written.committing.stored == capitals(1, 5, 6)
    assert (written.committing.n_puts, written.committing.n_syncs) == (2, 1)
    assert written.served.residency == [0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    # Side by side, so that one call protects both.
    assert set(written.served.uffd.protected) == {Span(2, 4), Span(10, 14)}
    done = written.flush()
    assert (done.failures, done.n_units, done.nbytes) == ([], 0, 0)
    assert written.committing.n_puts == 2
    statistics = written.executor.statistics()
    assert statistics["units_written"] == 3
    assert statistics["bytes_written"] == 6 * PAGE


def test_a_flush_of_a_part_writes_that_part(written):
    """What is dirty elsewhere stays so."""
    written.write(1, 5)
    assert written.flush(4, 8).n_units == 1
    assert written.committing.stored == capitals(5)
    assert written.executor.statistics()["units_dirty"] == 1
    assert written.executor.statistics()["bytes_dirty"] == 2 * PAGE


def test_much_is_copied_in_portions_and_put_object_by_object(written, monkeypatch):
    """No more is in memory twice than a batch allows, but for the chunks of one object."""
    monkeypatch.setattr(write_back, "_BATCH_NBYTES", 4 * PAGE)
    sizes = []
    grow = written.executor.machine.handle

    def handle(event):
        if isinstance(event, m.ScratchGrew):
            sizes.append(event.nbytes)
        if isinstance(event, m.CopyBegan):
            assert len(event.units) <= 2
        return grow(event)

    monkeypatch.setattr(written.executor.machine, "handle", handle)
    written.write(*range(12))
    sizes.clear()
    assert written.flush().n_units == 12
    assert written.committing.stored == capitals(*range(12))
    assert written.committing.n_puts == 3
    # A portion, what it is encoded to, and what the portion before it was.  The copies are given
    # back before the object is put, while the next batch is encoded or not yet.
    assert 8 * PAGE <= max(itertools.accumulate(sizes)) <= 20 * PAGE
    assert sum(sizes) == 0


@pytest.mark.parametrize(
    ("what", "failed"),
    [
        ("encode 5", {4, 5}),
        ("put 1", {4, 5}),
        ("sync", {1, 4, 5}),
        ("group", {1, 4, 5}),
        ("open", {1, 4, 5}),
        ("memory", {1, 4, 5}),
    ],
)
def test_what_cannot_be_written_stays_dirty_and_is_written_later(
    written, monkeypatch, what, failed
):
    """The others are written; the flush says which store, and why."""
    written.write(1, 4, 5)
    error = StoreError("the disk is full; make room", url="u", key="k", transient=False)
    if what == "open":

        def fail():
            raise error

        written.region.open_committing = fail
    if what == "memory":
        monkeypatch.setattr(ScratchBuffer, "grow", refuse)
    written.committing.failing[what] = error
    done = written.flush()
    monkeypatch.undo()
    assert done.failures
    assert all("'a' in u: the disk is full; make room" in f["message"] for f in done.failures)
    dirty = {unit for unit, value in enumerate(written.served.residency) if value == 3}
    assert dirty == failed
    written.region.open_committing = lambda: written.committing
    written.committing.failing.clear()
    assert written.flush().failures == []
    assert written.committing.stored == capitals(1, 4, 5)


def refuse(scratch, nbytes):
    raise refusal("the disk is full; make room", errno.ENOMEM)


def test_a_damaged_neighbour_is_named(written):
    """A shard whose other chunks are damaged cannot be written; the error has its fields."""
    written.write(4)
    written.committing.failing["put 1"] = ChunkError(
        "chunk (6,) is damaged", url="u", array="a", chunk=(6,), key="c/1", byte_range=None,
        reason="it is damaged",
    )  # fmt: skip
    (failure,) = written.flush().failures
    assert (failure["key"], failure["chunk"], failure["reason"]) == ("c/1", [6], "it is damaged")


def test_pages_that_are_missing_are_no_zeros(written):
    """Were one punched out by a mistake, zeros would be written, and nobody would know."""
    written.write(4, 9)
    punch_hole(written.memfd, 9 * PAGE, PAGE)
    done = written.flush()
    assert "not in memory any more" in done.failures[0]["message"]
    assert 4 not in written.committing.stored


@pytest.mark.parametrize("is_loaded_again", [False, True])
def test_pages_that_go_while_they_are_copied_are_no_zeros(written, monkeypatch, is_loaded_again):
    """A hole that is made just before the read, and one that a load has filled by its end."""
    read = write_back._read

    def read_hole(region, span, view):
        monkeypatch.undo()
        punch_hole(written.memfd, 9 * PAGE, PAGE)
        read(region, span, view)
        if is_loaded_again:
            written.executor.handle([m.HoleFound(CLIENT, REGION, 9)])
            written.served.jobs.run()

    written.write(4)
    monkeypatch.setattr(write_back, "_read", read_hole)
    done = written.flush()
    assert "gone" in done.failures[0]["message"] or "not in memory" in done.failures[0]["message"]
    assert 4 not in written.committing.stored
    assert written.served.residency[4] == (1 if is_loaded_again else 3)


def test_a_hole_fails_its_own_object_alone(written):
    """What else was copied with it is written."""
    written.write(1, 4)
    punch_hole(written.memfd, 9 * PAGE, PAGE)
    done = written.flush()
    assert (done.n_units, len(done.failures)) == (1, 1)
    assert written.committing.stored == capitals(1)


def test_a_client_goes_when_what_it_has_written_is_gone_and_on_its_way_to_the_store(written):
    """The region stays until nobody looks anything up in it."""
    written.write(4)
    written.ask_to_flush()
    punch_hole(written.memfd, 9 * PAGE, PAGE)
    written.executor.handle([m.HoleFound(CLIENT, REGION, 9), m.ClientLeft(CLIENT)])
    assert REGION in written.executor.regions
    written.served.jobs.run()
    assert not written.executor.regions
    assert written.committing.stored == {}


def test_what_cannot_be_written_for_nobody_is_lost_and_the_region_forgotten(written):
    """In one step, whose commands find the region gone."""
    written.write(4)
    written.committing.failing["put 1"] = StoreError("no", url="u", key="k", transient=False)
    written.executor.handle([m.ClientLeft(CLIENT)])
    deadline = threading.Event()
    for _ in range(SECONDS * 1000):
        written.served.jobs.run()
        if not written.executor.regions:
            break
        deadline.wait(0.001)
    assert not written.executor.regions
    assert written.executor.machine.n_dirty == 0


def test_what_was_lost_and_is_dirty_again_is_put_last(written):
    """The copy from before is on its way to the store still."""
    is_putting, may_put = threading.Event(), threading.Event()

    def wait_to_put():
        is_putting.set()
        assert may_put.wait(SECONDS)

    written.write(4)
    written.committing.doing["put 1"] = wait_to_put
    written.ask_to_flush()
    written.served.jobs.run()
    assert is_putting.wait(SECONDS)
    written.committing.doing.clear()
    punch_hole(written.memfd, 9 * PAGE, PAGE)
    written.executor.handle([m.HoleFound(CLIENT, REGION, 9)])
    written.served.jobs.run()
    assert "is gone" in written.heard().failures[0]["message"]
    written.write(4)
    os.pwrite(written.memfd, b"!" * 2 * PAGE, 8 * PAGE)
    written.ask_to_flush()
    written.served.jobs.run()
    assert written.committing.stored == {}
    may_put.set()
    assert written.finish().n_units == 1
    assert written.committing.stored == {4: b"!" * 2 * PAGE}
    assert written.served.residency[4] == 1


def test_a_shared_page_is_in_memory_though_its_client_has_ended(serve):
    """Others may be let write next to it, and what is dirty must be whole."""
    served = serve(4, PAGE // 2, kind=MemoryKind.TRACKED)
    ended, address = CLIENT + 1, 1 << 41
    kind = MemoryKind.TRACKED
    served.executor.handle([m.Attached(ended, REGION, address, served.geometry, kind)])
    served.executor.handle([m.Faulted(ended, address)])
    served.jobs.run()
    served.ask(m.Requested(CLIENT, REGION, 5, (Span(0, 2),), writes=True))
    served.jobs.run()
    assert served.residency == [3, 3, 0, 0]
    region = served.executor.regions[REGION]
    assert region.lacking([Span(0, 1)]) == []
    assert os.pread(region.backing.memfd, PAGE, 0) == letter(0) * (PAGE // 2) + letter(1) * (
        PAGE // 2
    )


def test_spans_that_are_not_whole_are_found(serve):
    """In any order, and however many have no hole between them."""
    served = serve(12, PAGE, kind=MemoryKind.TRACKED)
    served.ask(m.Requested(CLIENT, REGION, 5, (Span(0, 12),)))
    served.jobs.run()
    region = served.executor.regions[REGION]
    spans = [Span(0, 2), Span(2, 3), Span(3, 6), Span(6, 7), Span(7, 12)]
    assert region.lacking(spans) == []
    punch_hole(region.backing.memfd, 5 * PAGE, PAGE)
    punch_hole(region.backing.memfd, 11 * PAGE, PAGE)
    assert region.lacking(spans) == [2, 4]
    assert region.lacking(spans[::-1]) == [0, 2]
    assert region.lacking([]) == []


def test_a_unit_that_kills_workers_fails_once(serve):
    """And is tried again at the next flush."""
    written = Written(serve)
    written.write(2)
    written.executor.doomed.add((REGION, 2))
    (failure,) = written.flush().failures
    assert "the process that encoded it died, repeatedly" in failure["message"]
    assert written.flush().failures == []
    assert written.committing.stored == capitals(2)


def test_what_is_written_meanwhile_is_written_too(written):
    """A unit that becomes dirty again while it is put is put once more by the next flush."""
    written.write(2)

    def again():
        written.committing.doing.clear()
        os.pwrite(written.memfd, b"!" * 2 * PAGE, 4 * PAGE)
        written.executor.handle([m.Faulted(CLIENT, (1 << 40) + 4 * PAGE, is_write=True)])

    written.committing.doing["put 0"] = again
    assert written.flush().failures == []
    assert written.committing.stored == capitals(2)
    assert written.served.residency[2] == 3
    assert written.flush().failures == []
    assert written.committing.stored == {2: b"!" * 2 * PAGE}
    assert written.served.residency[2] == 1


def test_loads_and_puts_of_a_shard_do_not_meet(written):
    """A put waits for a load that reads, and a load that comes meanwhile waits for the put."""
    source = written.served.source
    source.shards_of = lambda unit: (str(unit // 4),)
    source.forgotten = []
    source.forget = lambda units: source.forgotten.extend(units)
    source._is_open = False
    written.write(4)
    # A load of the same shard is under way.
    written.served.fault(2 * 6)
    (load,) = list(written.served.jobs)
    written.served.jobs.clear()
    written.ask_to_flush()
    written.served.jobs.run()
    threading.Event().wait(0.05)
    assert not written.committing.stored
    # The next one waits for the put, which has not begun.
    written.served.fault(2 * 7)
    assert not written.served.jobs
    workspace = write_back_workspace()
    load(workspace)
    workspace.close()
    assert written.finish().failures == []
    assert written.committing.stored == capitals(4)
    assert source.forgotten == [4]
    written.served.jobs.run()
    assert written.served.residency[4:8] == [1, 0, 1, 1]


def write_back_workspace():
    from lazyarr.reading.workspace import Workspace

    return Workspace()


def test_a_region_is_written_back_before_it_is_forgotten(written):
    """Its last client has gone without a flush; then the supervisor is told."""
    told = []
    written.executor.forgotten = told.append
    written.write(3)
    written.executor.handle([m.ClientLeft(CLIENT)])
    assert written.executor.has_unwritten()
    for _ in range(SECONDS * 1000):
        written.served.jobs.run()
        if told:
            break
        threading.Event().wait(0.001)
    written.served.jobs.run()
    assert told == [REGION]
    assert not written.executor.has_unwritten()
    assert written.committing.stored == capitals(3)
    assert written.committing.is_closed


def test_what_is_lost_is_said_loudly(written, capfd):
    """One more try, and then a line that names the array and the reason."""
    written.write(3)
    written.committing.failing["put 0"] = StoreError("no", url="u", key="k", transient=False)
    written.executor.handle([m.ClientLeft(CLIENT)])
    for _ in range(SECONDS * 1000):
        written.served.jobs.run()
        if not written.executor.regions:
            break
        threading.Event().wait(0.001)
    written.served.jobs.run()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("lazyarr: what was written to 1 units of 'a' in u is lost: ")


def test_a_region_is_retired_after_the_supervisor_knows(written):
    """What is dirty is written first; a retirement that fails is none."""
    told = []
    written.executor.retired = lambda *call: told.append(call)
    written.write(3)
    written.committing.failing["put 0"] = StoreError("no", url="u", key="k", transient=False)
    for is_right in (False, True):
        written.ticket += 1
        written.executor.expect(CLIENT, written.ticket, written.served.theirs)
        written.executor.retire(m.Retired(CLIENT, written.ticket, REGION))
        assert (not written.finish().failures) == is_right
        written.committing.failing.clear()
    assert told == [(CLIENT, REGION)]
    assert written.committing.stored == capitals(3)


def test_nothing_is_copied_while_a_client_cannot_be_kept_from_writing(written, capfd):
    """What it writes after the copy would be lost: the unit stays dirty, and the client goes."""
    expelled, writeprotect = [], written.served.uffd.writeprotect
    written.executor.expelled = expelled.append

    def refuse(*_: int, **__: int) -> None:
        raise refusal("no such memory", errno.EFAULT)

    written.write(1)
    written.served.uffd.writeprotect = refuse
    done = written.flush()
    assert "could not be kept from writing" in done.failures[0]["message"]
    assert (expelled, written.committing.stored) == ([CLIENT], {})
    assert "no such memory" in capfd.readouterr().err
    assert written.served.residency[1] == 3
    written.served.uffd.writeprotect = writeprotect
    assert written.flush().failures == []
    assert written.committing.stored == capitals(1)
