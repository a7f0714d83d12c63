"""The order of installs: every byte once, the awaited page first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.kernel import PAGE_NBYTES
from lazyarr.pager.work.loader import ProgressiveInstall
from lazyarr.units import Span

FIRST_NBYTES = 16 * PAGE_NBYTES


def install(n_pages, page, decoded):
    """Return what is installed after each step, and whether all of it is said to be in."""
    steps = []
    nbytes = n_pages * PAGE_NBYTES
    awaited = None if page is None else Span(page * PAGE_NBYTES, (page + 1) * PAGE_NBYTES)
    front = ProgressiveInstall(lambda a, b: steps.append((a, b)) is None, nbytes, awaited)
    for decoded_nbytes in decoded:
        front.advance(decoded_nbytes)
    return steps, front.finish()


@given(st.data())
def test_every_page_is_installed_once(data):
    """Whatever is waited for and however far decoding is told to be."""
    n_pages = data.draw(st.integers(1, 100))
    page = data.draw(st.none() | st.integers(0, n_pages - 1))
    longest = 2 * n_pages * PAGE_NBYTES  # a chunk may be longer than its unit
    decoded = sorted(data.draw(st.lists(st.integers(1, longest), max_size=8)))
    steps, is_right = install(n_pages, page, decoded)
    pages = [p for a, b in steps for p in range(a // PAGE_NBYTES, b // PAGE_NBYTES)]
    assert sorted(pages) == list(range(n_pages))
    assert pages[0] == (page or 0)
    assert is_right
    assert all(a % PAGE_NBYTES == b % PAGE_NBYTES == 0 for a, b in steps)


def test_nothing_is_installed_that_is_not_decoded():
    """What is told of ends in the middle of a page, and before the page that is waited for."""
    steps = []
    awaited = Span(8 * PAGE_NBYTES, 9 * PAGE_NBYTES)
    front = ProgressiveInstall(lambda a, b: steps.append((a, b)) is None, 64 * PAGE_NBYTES, awaited)
    front.advance(8 * PAGE_NBYTES)
    assert steps == []
    front.advance(10 * PAGE_NBYTES + 17)
    assert steps == [(8 * PAGE_NBYTES, 10 * PAGE_NBYTES)]


def test_the_beginning_goes_ahead_of_the_rest():
    """A large unit that is decoded at once is installed in three steps."""
    steps, _ = install(100, 40, [])
    middle = 40 * PAGE_NBYTES + FIRST_NBYTES
    whole = 100 * PAGE_NBYTES
    assert steps == [(40 * PAGE_NBYTES, middle), (middle, whole), (0, 40 * PAGE_NBYTES)]


def test_one_step_is_enough_where_nobody_gains_from_several():
    """For a small unit, and where no page is waited for."""
    assert install(32, 0, []) == ([(0, 32 * PAGE_NBYTES)], True)
    assert install(100, None, []) == ([(0, 100 * PAGE_NBYTES)], True)


def test_a_failed_copy_is_told_and_nothing_more_is_copied():
    """The first copy that fails is the last."""
    steps = []

    def copy(start, stop):
        steps.append((start, stop))
        return False

    arrived = []
    awaited = Span(0, PAGE_NBYTES)
    front = ProgressiveInstall(copy, 64 * PAGE_NBYTES, awaited, lambda: arrived.append(True))
    front.advance(4 * PAGE_NBYTES)
    assert not front.finish()
    assert steps == [(0, 4 * PAGE_NBYTES)]
    assert not arrived


@given(st.data())
def test_it_is_told_once_when_the_awaited_pages_are_in(data):
    """As soon as all of them are, and before what comes ahead of them."""
    n_pages = data.draw(st.integers(33, 100))
    start = data.draw(st.integers(0, n_pages - 1))
    stop = data.draw(st.integers(start + 1, n_pages))
    decoded = sorted(data.draw(st.lists(st.integers(1, n_pages * PAGE_NBYTES), max_size=8)))
    installed: set[int] = set()
    told = []

    def copy(begin, end):
        installed.update(range(begin // PAGE_NBYTES, end // PAGE_NBYTES))
        return True

    awaited = Span(start * PAGE_NBYTES, stop * PAGE_NBYTES)
    front = ProgressiveInstall(
        copy, n_pages * PAGE_NBYTES, awaited, lambda: told.append(set(installed))
    )
    for nbytes in decoded:
        front.advance(nbytes)
        assert bool(told) == (nbytes >= awaited.stop)
    assert front.finish()
    assert len(told) == 1
    assert set(range(start, stop)) <= told[0] <= set(range(start, n_pages))
