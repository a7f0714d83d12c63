"""Every target keeps its promise for inputs that are right, changed, and found before."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import mutate_input
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.rglob("*") if path.is_file())
_EXAMPLES = {"shard": 60, "channel": 60, "ledger": 60}


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_are_right_keep_the_promise(name):
    """What zarr-python, TensorStore and lazyarr write, and what clients say."""
    assert seeds(name)
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(60)
def test_inputs_with_changes_keep_the_promise(name):
    """Values replaced, removed, doubled, of other types; bytes changed, cut off, put in."""

    @given(st.sampled_from(seeds(name)), st.randoms(use_true_random=False), st.integers(1, 3))
    @settings(
        max_examples=_EXAMPLES.get(name, 150),
        deadline=5000,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    def check(seed, random, count):
        for _ in range(count):
            seed = mutate_input(seed, random)
        TARGETS[name](seed)

    check()


@given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=100))
@settings(max_examples=200, deadline=5000)
def test_random_bytes_keep_the_promise(name, data):
    """Any bytes at all."""
    TARGETS[name](data)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: "/".join(path.parts[-2:]))
@pytest.mark.timeout(30)
def test_what_was_found_stays_found(path):
    """Inputs that once broke a promise, or took for ever, do not any more."""
    TARGETS[path.parent.name](path.read_bytes())


def test_every_directory_of_the_corpus_has_a_target():
    """A case that nothing replays would be no test."""
    assert FOUND
    assert {path.parent.name for path in FOUND} <= TARGETS.keys()
