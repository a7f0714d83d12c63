"""Two queues: who goes first, who stays, and what is remembered."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.plan.eviction import TwoQueues


def anybody(_: tuple[int, int]) -> bool:
    """Let every unit go."""
    return False


def policy_with(*units: int) -> TwoQueues:
    """Return a policy that holds units of ten bytes."""
    policy = TwoQueues()
    for unit in units:
        policy.add((1, unit), 10)
    return policy


def evict(policy: TwoQueues) -> int:
    """Take a unit out for want of room, and return it."""
    key = policy.victim(anybody)
    assert key is not None
    policy.evict(key)
    return key[1]


def load(policy: TwoQueues, *units: int) -> list[int]:
    """Bring units into the room that there is, and return what goes for that."""
    gone = []
    for unit in units:
        policy.add((1, unit), 10)
        gone.append(evict(policy))
    return gone


def units_in(policy: TwoQueues, among: range) -> set[int]:
    """Return which units are held."""
    return {unit for unit in among if (1, unit) in policy}


def test_oldest_goes_first():
    """Without anything else known, the one that came first has been there longest."""
    policy = policy_with(3, 1, 2)
    assert [evict(policy) for _ in range(3)] == [3, 1, 2]


def test_used_unit_goes_to_the_end_once():
    """It loses its mark on the way, so that it goes the next time."""
    policy = policy_with(0, 1, 2)
    policy.touch((1, 0))
    assert [evict(policy) for _ in range(3)] == [1, 2, 0]


def test_all_used_is_as_none_used():
    """The search ends, and the order is that of their coming."""
    policy = policy_with(0, 1, 2)
    for unit in (2, 0, 1):
        policy.touch((1, unit))
    assert [evict(policy) for _ in range(3)] == [0, 1, 2]


def test_use_right_after_a_unit_came_is_no_second_use():
    """Other processes that read along map each unit once, and want it no more after that."""
    policy = policy_with(*range(100))
    for unit in range(100, 200):
        policy.add((1, unit), 10)
        policy.touch((1, unit))
        evict(policy)
    assert len(units_in(policy, range(90))) > 80


def test_unit_that_must_stay_is_passed_over():
    """The next one goes; where all must stay none does."""
    policy = policy_with(0, 1)
    assert policy.victim(lambda key: key == (1, 0)) == (1, 1)
    assert policy.victim(lambda _: True) is None
    assert policy.statistics().resident_nbytes == 20


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
    policy.evict((1, 0))
    policy.touch((1, 0))
    assert policy.resident_nbytes == 0
    assert repr(policy) == "<TwoQueues: 0 + 0 units, 0 bytes>"


def test_what_came_last_stays_while_it_is_waited_for():
    """A request larger than the nursery finds all of it there when the last unit has come."""
    policy = policy_with(*range(100))
    for unit in range(100, 150):
        policy.add((1, unit), 10)
        policy.evict(policy.victim(anybody, recent_nbytes=50 * 10))
    assert units_in(policy, range(100, 150)) == set(range(100, 150))


def test_a_few_units_stay_for_a_moment_however_small_the_room():
    """A thread that was woken needs time to get to its page."""
    policy = policy_with(*range(16))
    for unit in range(100, 200):
        load(policy, unit)
        assert {unit - back for back in range(min(7, unit - 99))} <= units_in(policy, range(200))


def test_unit_that_comes_back_soon_is_kept():
    """The second time it survives a scan of ten times the room."""
    policy = policy_with(*range(100))
    gone = load(policy, *range(1000, 1040))[5]
    load(policy, gone, *range(2000, 2200))
    assert (1, gone) in policy


def test_unit_that_comes_back_late_is_as_new():
    """More was loaded meanwhile than there is room for: keeping it would not have helped."""
    policy = policy_with(*range(100))
    gone = load(policy, *range(1000, 1150))[5]
    load(policy, gone, *range(2000, 2040))
    assert (1, gone) not in policy


def test_what_was_taken_out_on_request_is_not_remembered():
    """Whoever asked for that has no use for it."""
    policy = policy_with(*range(100))
    policy.remove((1, 99))
    assert policy.statistics().n_remembered == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("add", "touch", "remove", "evict")),
            st.integers(0, 9),
            st.integers(1, 20),
        ),
        max_size=200,
    )
)
@settings(max_examples=100)
def test_policy_holds_what_was_added_and_not_removed(steps):
    """A victim is always one of those and may go, and there is one whenever one may go."""
    policy = TwoQueues()
    held: dict[tuple[int, int], int] = {}
    for step, unit, number in steps:
        key = (unit % 2, unit)
        if step == "add":
            policy.add(key, number)
            held.setdefault(key, number)
        elif step == "touch":
            policy.touch(key)
        elif step == "remove":
            policy.remove(key)
            held.pop(key, None)
        else:
            staying = {k for k in held if k[1] * 7 % 10 < number % 10}
            victim = policy.victim(staying.__contains__, recent_nbytes=number)
            assert victim in held.keys() - staying if held.keys() - staying else victim is None
            if victim is not None:
                policy.evict(victim)
                del held[victim]
    found = policy.statistics()
    assert (found.n_units, found.resident_nbytes) == (len(held), sum(held.values()))
    assert {key for key in [(u % 2, u) for u in range(10)] if key in policy} == held.keys()


@given(st.lists(st.integers(0, 400), max_size=2000), st.integers(1, 50))
@settings(max_examples=25)
def test_memory_of_what_has_gone_is_bounded(units, n_room):
    """It never has more units than there is room for, counted in bytes as that is."""
    policy = TwoQueues()
    for unit in units:
        policy.add((1, unit), 10)
        while policy.resident_nbytes > n_room * 10:
            evict(policy)
        assert policy.statistics().n_remembered <= n_room + 1


def test_the_search_for_a_victim_is_bounded():
    """However many units were used, or must stay, no one search goes through all of them."""
    policy = policy_with(*range(20_000))
    evict(policy)
    for unit in range(20_000):
        policy.touch((1, unit))
    looked_at = []

    def must_stay(key: tuple[int, int]) -> bool:
        looked_at.append(key)
        return len(looked_at) % 2 == 0

    for _ in range(50):
        looked_at.clear()
        key = policy.victim(must_stay)
        assert key is not None
        policy.evict(key)
        assert len(looked_at) <= 2048
    looked_at.clear()
    assert policy.victim(lambda key: looked_at.append(key) is None) is None
    assert len(looked_at) <= 2048
