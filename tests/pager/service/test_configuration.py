"""What settings are set where, and what holds when they are set again.

The parts of a pager that get them write down what they are told.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lazyarr import settings
from lazyarr.errors import PagerError
from lazyarr.pager.measure import Measurements
from lazyarr.pager.service.configuration import Policy
from lazyarr.plan import messages as m

GIB = 1 << 30
GOOD = settings.current().document() | {
    "memory_limit": 4 * GIB,
    "threads": 3,
    "connections": 5,
    "readahead": 1 << 20,
    "timeout": 2.5,
    "retries": 4,
    "cache_dir": None,
    "_shared_limit": 0,
}


class Told:
    """A policy, and what it has told the parts of its pager; jobs wait until they are run."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.jobs: list[object] = []
        loads = SimpleNamespace(
            threads=SimpleNamespace(
                resize=lambda n: self.calls.append(("threads", n)),
                add=lambda job, *, urgent: self.jobs.append(job),
            ),
            decoders=SimpleNamespace(resize=lambda n: self.calls.append(("decoders", n))),
            resize_fetcher=lambda n: self.calls.append(("fetcher", n)),
        )
        executor = SimpleNamespace(
            handle=self.calls.extend, loads=loads, machine=SimpleNamespace(held_nbytes=7)
        )
        self.policy = Policy(executor, Measurements(), failed=self.calls.append)
        self.policy._neighbours = self
        self.asked: list[tuple[int, int]] = []

    def begin(self) -> bool:
        return True

    def part_of(self, limit_nbytes: int, held_nbytes: int) -> int:
        self.asked.append((limit_nbytes, held_nbytes))
        return limit_nbytes // 2


def test_each_part_gets_what_concerns_it():
    """The machine its limits, threads and decoders their number, the fetcher connections."""
    told = Told()
    limits = told.policy.apply(GOOD)
    assert told.calls == [
        m.LimitChanged(4 * GIB),
        m.ReadaheadChanged(1 << 20),
        ("threads", 3),
        ("decoders", 3),
        ("fetcher", 5),
    ]
    assert told.policy.settings == GOOD
    assert told.policy.limits == (2.5, 4, None)
    assert limits.memory_limit == 4 * GIB


def test_settings_that_cannot_be_used_change_nothing():
    """What held before goes on to hold."""
    told = Told()
    told.policy.apply(GOOD)
    told.calls.clear()
    with pytest.raises(PagerError, match="cannot use settings"):
        told.policy.apply(GOOD | {"timeout": 9, "threads": 0})
    assert (told.calls, told.policy.settings) == ([], GOOD)
    assert told.policy.limits == (2.5, 4, None)


def test_a_cache_is_made_once_for_a_directory(tmp_path):
    """Regions that were opened with it go on to be shared; only how much it may take changes."""
    policy = Told().policy
    here = GOOD | {"cache_dir": str(tmp_path / "here"), "cache_limit": 100}
    policy.apply(here)
    cache = policy.limits[2]
    policy.apply(here | {"cache_limit": 200})
    assert policy.limits[2] is cache
    assert cache.limit_nbytes == 200
    policy.apply(here | {"cache_dir": str(tmp_path / "there")})
    assert policy.limits[2].directory == str(tmp_path / "there")
    policy.apply(GOOD)
    assert policy.limits[2] is None


def test_a_shared_limit_is_the_machines_part_of_it():
    """Found out by a job, for reading /proc takes its time."""
    told = Told()
    told.policy.apply(GOOD | {"_shared_limit": 4 * GIB})
    told.calls.clear()
    told.policy.update_shared_limit()
    assert told.calls == []
    told.jobs.pop()(None)
    assert told.asked == [(4 * GIB, 7)]
    assert told.calls == [m.LimitChanged(2 * GIB)]


def test_a_part_is_at_most_what_the_pager_may_hold():
    """A worker of a cluster may hold less than what is shared."""
    told = Told()
    told.policy.apply(GOOD | {"memory_limit": GIB, "_shared_limit": 4 * GIB})
    told.calls.clear()
    told.policy.update_shared_limit()
    told.jobs.pop()(None)
    assert told.asked == [(4 * GIB, 7)]
    assert told.calls == [m.LimitChanged(GIB)]


def test_a_limit_of_its_own_is_not_shared():
    """The others are told what this pager holds all the same."""
    told = Told()
    told.policy.apply(GOOD | {"_shared_limit": 4 * GIB})
    told.policy.apply(GOOD)
    told.calls.clear()
    told.policy.update_shared_limit()
    told.jobs.pop()(None)
    assert (told.asked, told.calls) == ([(0, 7)], [])


def test_a_limit_that_is_set_while_the_part_is_found_out_holds():
    """The part is of another limit by then."""
    told = Told()
    told.policy.apply(GOOD | {"_shared_limit": 4 * GIB})
    told.calls.clear()
    find = told.part_of

    def part_of(*asked: int) -> int:
        told.policy.apply(GOOD | {"memory_limit": GIB})
        return find(*asked)

    told.part_of = part_of
    told.policy.update_shared_limit()
    told.jobs.pop()(None)
    limits = [call for call in told.calls if isinstance(call, m.LimitChanged)]
    assert limits == [m.LimitChanged(GIB)]
