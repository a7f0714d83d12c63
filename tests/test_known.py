"""Descriptors that are known again."""

from __future__ import annotations

import os

from lazyarr.known import KnownDescriptor, identity_of
from lazyarr.store.descriptors import DescriptorPool


def closed_and_reused(fd: int) -> int:
    """Close a descriptor behind its owner's back; return another file under its number."""
    other = os.open("/dev/null", os.O_RDONLY)
    os.dup2(other, fd)
    os.close(other)
    return fd


def test_a_number_that_is_anothers_is_not_closed():
    """Neither by `close` nor by `detach`, which gives none then."""
    known = KnownDescriptor(os.memfd_create("example"))
    assert known.is_own()
    fd = closed_and_reused(known.fileno())
    assert not known.is_own()
    assert known.detach() == -1
    known.close()
    os.close(fd)


def test_closing_twice_closes_once():
    """The number may be another's by the second time."""
    known = KnownDescriptor(os.memfd_create("example"))
    fd = known.fileno()
    known.close()
    assert identity_of(fd) is None
    known.close()
    assert (known.fileno(), known.is_own()) == (-1, False)


def test_a_pool_lends_only_what_it_opened(tmp_path):
    """A file that other code has closed is opened anew, and the other one left alone."""
    (tmp_path / "file").write_bytes(b"data")
    pool = DescriptorPool(2)
    lent = pool.lend("file", os.open(tmp_path / "file", os.O_RDONLY))
    pool.give_back(lent)
    assert pool.borrow("file") is lent
    pool.give_back(lent)
    fd = closed_and_reused(lent.fd)
    assert pool.borrow("file") is None
    pool.close()
    os.close(fd)
