"""Arrays that are opened for references from elsewhere are kept for the next ones."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

import lazyarr
from lazyarr.opening import open_array
from tests.stores import images, write_zarr

pytestmark = pytest.mark.usefixtures("engine")

DATA = images((40, 32, 64), np.int32)


@pytest.fixture
def url(tmp_path):
    return write_zarr(tmp_path / "d.zarr", DATA, chunks=(4, 32, 64))


@pytest.fixture
def sent(url, engine, monkeypatch):
    """What a process has pickled whose pager is gone; nothing of it is kept afterwards."""
    program = (
        "import lazyarr, pickle, sys;"
        f"sys.stdout.buffer.write(pickle.dumps(lazyarr.open({url!r})[5:]))"
    )
    monkeypatch.setenv("LAZYARR_ENGINE", engine)
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    yield done.stdout
    open_array.forget_reopened()


def resident(array):
    return array.residency().resident_units


def test_the_next_reference_finds_what_is_loaded(url, sent, monkeypatch):
    """Until none has come for a while: then the store is opened anew."""
    lazyarr.open(url)  # a pager of this process: it cannot join another one
    first = pickle.loads(sent)
    np.testing.assert_array_equal(first, DATA[5:])
    loaded = resident(first)
    del first
    again = pickle.loads(sent)
    assert resident(again) == loaded > 0
    np.testing.assert_array_equal(again[3:], DATA[8:])
    (before,) = open_array._reopened.values()
    monkeypatch.setattr(open_array, "_KEPT_SECONDS", -1.0)
    anew = pickle.loads(sent)
    (after,) = open_array._reopened.values()
    assert after[0] is not before[0]
    np.testing.assert_array_equal(anew[30:], DATA[35:])


def test_few_are_kept(url, sent, monkeypatch):
    """The one that has been there longest goes first."""
    lazyarr.open(url)
    monkeypatch.setattr(open_array, "_MAX_REOPENED", 2)
    monkeypatch.setattr(open_array, "_reopened", kept := {"a": (), "b": ()})
    pickle.loads(sent)
    assert len(kept) == 2
    assert "a" not in kept


def test_what_is_kept_keeps_nothing_from_ending(sent):
    """`lazyarr.shutdown` lets go of it."""
    program = (
        "import lazyarr, pickle, sys; x = pickle.load(sys.stdin.buffer); total = x.sum(); del x;"
        "lazyarr.shutdown(); print(total)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True)
    assert int(done.stdout) == DATA[5:].sum(), done.stderr
