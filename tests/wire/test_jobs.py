"""Jobs and results are the same on both sides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.units import Span
from lazyarr.wire.jobs import RESULT_NBYTES, Job, News, Result

NUMBERS = st.integers(0, 2**64 - 1)
SECONDS = st.floats(0, 1e9)


@given(
    st.lists(NUMBERS, min_size=6, max_size=6),
    st.none() | st.builds(Span, NUMBERS, NUMBERS),
    st.lists(st.booleans(), min_size=2, max_size=2),
    st.sampled_from((0, 2)),
    st.binary(),
)
def test_a_job_comes_as_it_was_sent(numbers, awaited, flags, mode, pipeline):
    """Whatever is in it."""
    job = Job(*numbers, awaited, *flags, mode, pipeline)
    assert Job.decode(job.encode()) == job


@given(
    st.builds(
        Result,
        NUMBERS,
        NUMBERS,
        st.sampled_from(News),
        SECONDS,
        SECONDS,
        st.integers(-(2**63), 2**63 - 1),
        NUMBERS,
    )
)
def test_a_result_comes_as_it_was_sent(result):
    """In a packet that is always as long."""
    packet = result.encode()
    assert len(packet) == RESULT_NBYTES
    assert Result.decode(packet) == result
