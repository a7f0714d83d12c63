"""Programs of tests/process/test_machines.py: processes of a machine that is not the sender's.

A program gets the sum of an array, its number of units, and files that hold references to it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import fsspec.implementations.http  # noqa: F401 - here, and not in each process
import numpy as np

import lazyarr
from lazyarr.client.pickling.shared_reference import SharedReference
from lazyarr.client.session import joining
from lazyarr.client.session.joining import join_pager
from lazyarr.wire.meeting import Invitation, invitation_away, listen
from tests.programs.support import read_all, settled


class Reader:
    """A process that reads what a reference means, tells of it when asked, and ends when told."""

    def __init__(self, sent):
        # Forked from a process that has no pager: as good as a new one, and sooner ready.
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        with theirs:
            self.process = context.Process(target=self._run, args=(sent, theirs), daemon=True)
            self.process.start()

    def _run(self, sent, pipe):
        self._pipe.close()
        pipe.recv()
        x = pickle.loads(Path(sent).read_bytes())
        pipe.send(int(np.frombuffer(read_all(x), "i4").sum(dtype="i8")))
        while pipe.recv():
            total = int(x.sum(dtype="i8"))
            pipe.send({**found(), "total": total})

    def begin(self):
        self._pipe.send(True)

    def total(self):
        return self._pipe.recv()

    def found(self):
        self._pipe.send(True)
        return self._pipe.recv()

    def kill(self):
        self.process.kill()
        self.process.join()

    def end(self):
        self._pipe.send(False)
        self.process.join()
        assert self.process.exitcode == 0


def found():
    stats = settled()
    return {
        "pager": stats["pid"],
        "clients": stats["clients"],
        "arrays": len(stats["arrays"]),
        "units": stats["units_loaded"],
    }


def all_at_once(total, n_units, *pickles):
    """Several processes, which get the same reference at once, have one pager and one region."""
    for sent in pickles:
        readers = [Reader(sent) for _ in range(3)]
        for reader in readers:
            reader.begin()
        assert [reader.total() for reader in readers] == [int(total)] * 3
        told = [reader.found() for reader in readers]
        assert {each["pager"] for each in told} == {told[0]["pager"]}
        assert {(each["clients"], each["arrays"]) for each in told} == {(3, 1)}, told
        assert {each["total"] for each in told} == {int(total)}
        assert {each["units"] for each in told} == {int(n_units)}
        for reader in readers:
            reader.end()
    print("right")


def one_is_killed_while_all_come(total, n_units, *pickles):
    """Whether it starts the pager or not, the others read right, in one pager and one region."""
    for n, sent in enumerate(pickles):
        killed, *others = (Reader(sent) for _ in range(3))
        for reader in (killed, *others):
            reader.begin()
        time.sleep(n * 0.1)
        killed.kill()
        assert [reader.total() for reader in others] == [int(total)] * 2
        told = [reader.found() for reader in others]
        assert {each["arrays"] for each in told} == {1}, told
        assert len({each["pager"] for each in told}) == 1
        for reader in others:
            reader.end()
    print("right")


def the_first_is_killed(total, n_units, sent, chunk):
    """The second goes on in its pager, also in the next worker; so does who comes after that."""
    first, second = Reader(sent), Reader(sent)
    first.begin()
    assert first.total() == int(total)
    # The store has something else now, and the reference means what the first one found.
    os.rename(chunk, chunk + ".gone")
    second.begin()
    assert second.total() == int(total)
    os.rename(chunk + ".gone", chunk)
    pager = first.found()["pager"]
    first.kill()
    told = second.found()
    assert (told["pager"], told["total"]) == (pager, int(total))
    os.kill(pager, signal.SIGKILL)
    second.found()  # by the next worker, which takes all pages out
    told = second.found()
    assert told["pager"] != pager
    assert (told["arrays"], told["total"]) == (1, int(total)), told
    third = Reader(sent)
    third.begin()
    assert third.total() == int(total)
    told = second.found(), third.found()
    assert told[0]["pager"] == told[1]["pager"]
    assert told[1]["arrays"] == 1
    for reader in (second, third):
        reader.end()
    print("right")


def who_was_not_invited(total, n_units, sent):
    """The name can be seen, and the secret does not follow from it."""
    reader = Reader(sent)
    reader.begin()
    reader.total()
    invited = invitation_of(sent)
    assert f"@lazyarr-{invited.name}\n" in Path("/proc/net/unix").read_text()
    assert join_pager(Invitation(invited.name, sender_of(sent).secret)) is None
    joined = join_pager(invited)
    joined.control.close()
    reader.end()
    print("right")


def invitation_of(sent):
    """Return how processes on other machines than the sender's come together."""
    return invitation_away(sender_of(sent))


def sender_of(sent):
    """Return the invitation to the sender's pager."""
    (origin,) = (part for part in _reference(sent) if isinstance(part, SharedReference))
    return Invitation(*origin.pager.split(":"))


def _reference(sent):
    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if name == "reopen_view":
                return lambda *fields: fields
            return super().find_class(module, name)

    with open(sent, "rb") as file:
        return Unpickler(file).load()


def nobody_lets_in(total, n_units, sent):
    """A process that finds the name taken and no pager there has one of its own in time."""
    with listen(invitation_of(sent).name) as listener:
        joining._PATIENCE_SECONDS = 0.5
        readers = [Reader(sent) for _ in range(2)]
        for reader in readers:
            reader.begin()
        assert [reader.total() for reader in readers] == [int(total)] * 2
        assert len({reader.found()["pager"] for reader in readers}) == 2
        assert listener.fileno() >= 0
        for reader in readers:
            reader.end()
    print("right")


def who_has_a_pager_stays_with_it(total, n_units, sent, other):
    """And has the same region for the same reference."""
    lazyarr.open(other).sum()
    before = found()["pager"]
    x, y = (pickle.loads(Path(sent).read_bytes()) for _ in range(2))
    assert int(x.sum(dtype="i8")) == int(y.sum(dtype="i8")) == int(total)
    assert found()["pager"] == before
    assert x._region is y._region
    print("right")
