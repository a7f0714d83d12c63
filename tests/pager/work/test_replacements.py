"""No load reads from a shard that is being replaced, and all go on in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.pager.work.replacements import Replacements

REGION = 7


def test_a_load_waits_for_the_end_of_a_replacement():
    """And one from another shard, or of another array, does not."""
    replacements, told = Replacements(), []
    replacements.begin(REGION, ["a"], lambda: told.append("put"))
    assert told == ["put"]
    assert not replacements.begin_load(REGION, 1, ("b", "a"), lambda: told.append("again"))
    assert replacements.begin_load(REGION, 2, ("b",), lambda: told.append("never"))
    assert replacements.begin_load(REGION + 1, 1, ("a",), lambda: told.append("never"))
    assert replacements.are_under_way(REGION, ["a"])
    assert not replacements.are_under_way(REGION, ["b"])
    replacements.end(REGION, ["a"])
    assert told == ["put", "again"]
    assert replacements.begin_load(REGION, 1, ("b", "a"), lambda: told.append("never"))


def test_a_replacement_waits_for_the_loads_that_read():
    """For all of them, and loads that come meanwhile wait for it."""
    replacements, told = Replacements(), []
    for unit in (1, 2):
        assert replacements.begin_load(REGION, unit, ("a", "b"), lambda: told.append("never"))
    replacements.begin(REGION, ["a"], lambda: told.append("put"))
    replacements.end_load(REGION, 1)
    assert not replacements.begin_load(REGION, 3, ("a",), lambda: told.append("again"))
    assert told == []
    replacements.end_load(REGION, 2)
    assert told == ["put"]
    replacements.end(REGION, ["a"])
    assert told == ["put", "again"]


def test_a_shard_is_replaced_twice_at_once():
    """By two batches: loads wait for the end of both."""
    replacements, told = Replacements(), []
    replacements.begin(REGION, ["a", "b"], lambda: told.append("first"))
    replacements.begin(REGION, ["a"], lambda: told.append("second"))
    assert told == ["first", "second"]
    assert not replacements.begin_load(REGION, 1, ("a",), lambda: told.append("again"))
    replacements.end(REGION, ["a", "b"])
    assert told == ["first", "second"]
    assert replacements.begin_load(REGION, 2, ("b",), lambda: told.append("never"))
    replacements.end(REGION, ["a"])
    assert told == ["first", "second", "again"]


def test_loads_of_no_shards_are_not_held_up():
    """An object that is one chunk is not loaded while it is replaced."""
    replacements = Replacements()
    assert replacements.begin_load(REGION, 1, (), lambda: None)
    replacements.end_load(REGION, 1)
    replacements.end_load(REGION, 9)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.sets(st.sampled_from("abc")))))
def test_never_both_at_once(steps):
    """Whatever comes in whatever order; and when all has ended nobody waits."""
    replacements = Replacements()
    reading: dict[int, set[str]] = {}
    replacing: dict[int, set[str]] = {}
    begun: dict[int, set[str]] = {}

    def load(unit: int, keys: set[str]) -> None:
        again = lambda: load(unit, keys)  # noqa: E731
        if replacements.begin_load(REGION, unit, tuple(keys), again):
            assert not any(keys & other for other in begun.values())
            reading[unit] = keys

    def put(number: int, keys: set[str]) -> None:
        assert not any(keys & other for other in reading.values())
        replacing[number] = keys

    n_units = 0
    for is_load, number, keys in steps:
        if is_load:
            load(n_units := n_units + 1, keys)
        elif number not in begun:
            begun[number] = keys
            replacements.begin(REGION, keys, lambda n=number, k=keys: put(n, k))
        elif number in reading:
            del reading[number]
            replacements.end_load(REGION, number)
        elif number in replacing:
            del begun[number]
            replacements.end(REGION, replacing.pop(number))
    while reading or replacing:
        while reading:
            unit, _ = reading.popitem()
            replacements.end_load(REGION, unit)
        while replacing:
            number, keys = replacing.popitem()
            del begun[number]
            replacements.end(REGION, keys)
    assert not begun
    assert repr(replacements) == "<Replacements: 0 shards, 0 loads>"
