"""Counts and times."""

from __future__ import annotations

import threading

import pytest

from lazyarr.pager.measure import Measurements


def test_document_has_count_total_and_percentiles_of_each_step():
    """Percentiles are upper bounds, within a factor of two."""
    measurements = Measurements()
    for _ in range(98):
        measurements.add("load", 10e-6)
    measurements.add("load", 1e-3)
    measurements.add("load", 0.5)
    measurements.add("install", 3e-6)
    load = measurements.document()["load"]
    assert load["count"] == 100
    assert load["total_seconds"] == pytest.approx(0.50198)
    assert 10e-6 <= load["p50_seconds"] == load["p90_seconds"] <= 20e-6
    assert 1e-3 <= load["p99_seconds"] <= 2e-3
    assert measurements.document()["install"]["count"] == 1


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-6, 1.5e-6, 0.001, 0.999, 3600.0])
def test_percentiles_of_one_time_are_its_upper_bound(seconds):
    """Nothing is faster than a microsecond."""
    measurements = Measurements()
    measurements.add("step", seconds)
    step = measurements.document()["step"]
    bound = step["p50_seconds"]
    assert bound == step["p90_seconds"] == step["p99_seconds"]
    assert max(seconds, 1e-6) <= bound <= max(2 * seconds, 1e-6)


def test_clock_that_goes_back_counts_as_no_time():
    """It must not break the statistics."""
    measurements = Measurements()
    measurements.add("step", -1e-9)
    assert measurements.document()["step"]["p50_seconds"] == 1e-6


def test_nothing_measured_is_an_empty_document():
    """A pager that has just begun has statistics too."""
    assert Measurements().document() == {}


def test_counts_of_several_threads_add_up():
    """None is lost."""
    measurements = Measurements()

    def count() -> None:
        for _ in range(1000):
            measurements.count("retries", 2)
            measurements.add("step", 1e-6)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert measurements.counters["retries"] == 8000
    assert measurements.document()["step"]["count"] == 4000
