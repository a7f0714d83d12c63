"""Pages that several units fill."""

from __future__ import annotations

from lazyarr.layout.geometry import Geometry
from lazyarr.plan.edges import EdgePages
from lazyarr.plan.messages import Fragment

# Units of 6 bytes on pages of 16: page 0 has units 0-2, page 1 has 2-4 and its padding.
GEOMETRY = Geometry((30,), (6,), 1, 16)


def share(unit: int, page: int) -> Fragment:
    """Return a unit's bytes of a page, each of them the unit's number."""
    span = GEOMETRY.unit_bytes(unit) & GEOMETRY.page_bytes(page)
    return Fragment(page, span.start - page * 16, bytes([unit + 1]) * span.size)


def test_page_is_given_out_with_its_last_share():
    """In whatever order they come, each byte at its place."""
    edges = EdgePages(GEOMETRY)
    assert edges.add(2, share(2, 0)) is None
    assert edges.add(0, share(0, 0)) is None
    assert not edges.is_installed(0)
    assert edges.add(1, share(1, 0)) == b"\1" * 6 + b"\2" * 6 + b"\3" * 4
    assert edges.is_installed(0)


def test_padding_behind_the_array_is_zero():
    """The last page is short of a page of bytes."""
    edges = EdgePages(GEOMETRY)
    edges.add(2, share(2, 1))
    edges.add(3, share(3, 1))
    assert edges.add(4, share(4, 1)) == b"\3" * 2 + b"\4" * 6 + b"\5" * 6 + b"\0" * 2


def test_page_is_given_out_once():
    """A unit that is loaded again does not install it again."""
    edges = EdgePages(GEOMETRY)
    for unit in (0, 1, 2):
        edges.add(unit, share(unit, 0))
    assert edges.add(1, share(1, 0)) is None


def test_discarded_share_is_lacking_again():
    """A unit that was evicted before its page was whole must come again."""
    edges = EdgePages(GEOMETRY)
    edges.add(0, share(0, 0))
    edges.add(1, share(1, 0))
    edges.discard(0, (0,))
    assert edges.add(2, share(2, 0)) is None
    assert edges.add(0, share(0, 0)) is not None


def test_uninstalled_page_begins_anew():
    """Every unit has to give its share again."""
    edges = EdgePages(GEOMETRY)
    for unit in (0, 1, 2):
        edges.add(unit, share(unit, 0))
    edges.uninstall(0)
    assert not edges.is_installed(0)
    assert [edges.add(unit, share(unit, 0)) is None for unit in (0, 1, 2)] == [True, True, False]


def test_repr_counts_pages():
    """Partial ones cost memory, so that their number is of interest."""
    edges = EdgePages(GEOMETRY)
    for unit in (0, 1, 2):
        edges.add(unit, share(unit, 0))
    edges.add(2, share(2, 1))
    assert repr(edges) == "<EdgePages: 1 partial, 1 installed>"
    edges.discard(2, (0, 1))
    assert repr(edges) == "<EdgePages: 0 partial, 1 installed>"
