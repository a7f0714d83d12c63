"""Places that a writer leaves half-way, and another one goes on with."""

from __future__ import annotations

import os

import pytest

from lazyarr.errors import StoreError
from lazyarr.kernel import exchange_paths
from lazyarr.store import open_store
from lazyarr.writer.place import NewPrefix
from lazyarr.writer.resuming import Plan
from lazyarr.writer.staging import StagedDirectory
from tests.writer.stores import new_url

PLAN = Plan("source", "documents")


class Local:
    """Where a store is written in a directory beside it."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "x"

    def begin(self, **options):
        return StagedDirectory(str(self.path), **{"overwrite": False, "plan": PLAN, **options})

    def published(self):
        return {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()}


class Remote:
    """Where a store is written to its place."""

    def __init__(self, _):
        self.url = new_url()

    def begin(self, **options):
        store = open_store(self.url, writable=True)
        return NewPrefix(store, **{"overwrite": False, "plan": PLAN, **options})

    def published(self):
        store = open_store(self.url)
        return {n for n in ("c/0", "c/1", "zarr.json", ".lazyarr-partial") if store.size(n)}


@pytest.fixture(params=[Local, Remote])
def where(request, tmp_path):
    return request.param(tmp_path)


def test_a_place_that_was_left_is_gone_on_with(where):
    """What was put is there for the next one with the same plan."""
    first = where.begin()
    assert (first.is_resumable, first.is_resumed) == (True, False)
    assert not first.suspend()  # of nothing
    first.put("c/0", [b"a", b"b"])
    assert first.suspend()
    first.close()
    second = where.begin()
    assert second.is_resumed
    assert (second.has("c/0"), second.has("c/1")) == (True, False)
    assert second.read("c/0") == b"ab"
    second.put("c/1", [b"c"])
    second.sync()
    second.put("zarr.json", [b"{}"])
    second.publish()
    second.close()
    assert where.published() == {"c/0", "c/1", "zarr.json"}


@pytest.mark.parametrize("plan", [Plan("other", "documents"), Plan("source", "other")])
def test_another_plan_is_refused_or_begins_anew(where, plan):
    """And the one that was left stays until it is to be given up."""
    first = where.begin()
    first.put("c/0", [b"a"])
    first.suspend()
    first.close()
    with pytest.raises(StoreError, match="restart=True"):
        where.begin(plan=plan)
    second = where.begin()
    assert second.is_resumed
    second.suspend()
    second.close()
    third = where.begin(plan=plan, restart=True)
    assert (third.is_resumed, third.has("c/0")) == (False, False)
    third.abort()
    third.close()
    assert not where.begin().is_resumed


def test_a_writer_without_a_plan_takes_away_what_was_left(where):
    """As it does with what any dead writer left."""
    first = where.begin()
    first.put("c/0", [b"a"])
    first.suspend()
    first.close()
    second = where.begin(plan=None)
    assert (second.is_resumed, second.is_resumable, second.suspend()) == (False, False, False)
    second.abort()
    second.close()
    assert where.published() == set()


def test_a_writer_that_lives_is_left_alone(tmp_path):
    """The name is locked; another one of the same plan does not go on, but is refused."""
    where = Local(tmp_path)
    first = where.begin()
    first.put("zarr.json", [b"{}"])
    for restart in (False, True):
        with pytest.raises(StoreError, match="this process has a writer"):
            where.begin(restart=restart)
    first.publish()
    first.close()
    assert where.published() == {"zarr.json"}


def test_another_writer_of_the_same_plan_ends_the_one_that_is_not_local():
    """Nothing tells whether it lives, so it must not publish any more."""
    where = Remote(None)
    first = where.begin()
    first.put("c/0", [b"a"])
    second = where.begin()
    assert second.is_resumed
    with pytest.raises(StoreError, match="another writer has begun"):
        first.sync()
    first.abort()
    second.sync()
    assert second.has("c/0")


def test_an_old_store_is_not_taken_for_what_was_written(tmp_path):
    """A writer that died after the exchange leaves the old store where the new one was."""
    where = Local(tmp_path)
    old = where.begin(plan=None)
    for key in ("c/0", "zarr.json"):
        old.put(key, [b"old"])
    old.publish()
    old.close()
    first = where.begin(overwrite=True)
    for key in ("c/0", "zarr.json"):
        first.put(key, [b"new"])
    first._move_into_place(exchange_paths)
    first._partial.leave()
    first.close()
    second = where.begin(overwrite=True)
    assert not second.is_resumed
    second.abort()
    second.close()
    assert (where.path / "c/0").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("plan", [b"", b"{}", b"1\n{}", b"\xff" * 100])
def test_a_plan_that_is_none_is_of_no_use(tmp_path, plan):
    """What is left beside it is taken away."""
    where = Local(tmp_path)
    first = where.begin()
    first.put("c/0", [b"a"])
    name = first._partial.name
    first.suspend()
    first.close()
    (tmp_path / name / "plan").write_bytes(plan)
    second = where.begin()
    assert not second.is_resumed
    assert name not in os.listdir(tmp_path)
    second.abort()
    second.close()
