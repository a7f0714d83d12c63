"""Second chance: who goes first, and who stays."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.plan.eviction import SecondChance, Statistics


def anybody(_: tuple[int, int]) -> bool:
    """Let every unit go."""
    return False


def policy_with(*units: int) -> SecondChance:
    """Return a policy that holds units of ten bytes."""
    policy = SecondChance()
    for unit in units:
        policy.add((1, unit), 10)
    return policy


def drained(policy: SecondChance) -> list[int]:
    """Take every unit out, and return them in that order."""
    order = []
    while (key := policy.victim(anybody)) is not None:
        policy.remove(key)
        order.append(key[1])
    return order


def test_oldest_goes_first():
    """Without anything else known, the one that came first has been there longest."""
    assert drained(policy_with(3, 1, 2)) == [3, 1, 2]


def test_used_unit_goes_to_the_end_once():
    """It loses its mark on the way, so that it goes the next time."""
    policy = policy_with(0, 1, 2)
    policy.touch((1, 0))
    assert drained(policy) == [1, 2, 0]


def test_all_used_is_as_none_used():
    """The search ends, and the order is that of their coming."""
    policy = policy_with(0, 1, 2)
    for unit in (2, 0, 1):
        policy.touch((1, unit))
    assert drained(policy) == [0, 1, 2]


def test_unit_that_must_stay_is_passed_over():
    """The next one goes; where all must stay none does."""
    policy = policy_with(0, 1)
    assert policy.victim(lambda key: key == (1, 0)) == (1, 1)
    assert policy.victim(lambda _: True) is None
    assert policy.statistics() == Statistics(2, 20)


def test_victim_is_not_removed_by_being_named():
    """Whoever asks carries it out, and says so."""
    policy = policy_with(0)
    assert policy.victim(anybody) == policy.victim(anybody) == (1, 0)
    assert (1, 0) in policy


def test_bytes_are_counted_once():
    """Adding twice and removing twice change nothing."""
    policy = policy_with(0, 0)
    assert policy.resident_nbytes == 10
    policy.remove((1, 0))
    policy.remove((1, 0))
    policy.touch((1, 0))
    assert policy.statistics() == Statistics(0, 0)
    assert repr(policy) == "<SecondChance: 0 units, 0 bytes>"


@given(st.lists(st.tuples(st.sampled_from(("add", "touch", "remove", "evict")), st.integers(0, 5))))
@settings(max_examples=100, deadline=None)
def test_policy_holds_what_was_added_and_not_removed(steps):
    """A victim is always one of those, and there is one whenever anything is held."""
    policy = SecondChance()
    held: dict[tuple[int, int], int] = {}
    for step, unit in steps:
        key = (unit % 2, unit)
        if step == "add":
            policy.add(key, unit)
            held.setdefault(key, unit)
        elif step == "touch":
            policy.touch(key)
        elif step == "remove":
            policy.remove(key)
            held.pop(key, None)
        else:
            victim = policy.victim(anybody)
            assert victim in held if held else victim is None
            if victim is not None:
                policy.remove(victim)
                del held[victim]
    assert policy.statistics() == Statistics(len(held), sum(held.values()))
