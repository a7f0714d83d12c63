"""Fixtures for all tests, and which of them may not run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import engine
from tests.servers import http_server, s3_bucket, s3_server

__all__ = ["engine", "http_server", "s3_bucket", "s3_server"]

_TESTS = Path(__file__).parent
# They change what holds for the machine (huge pages), or measure what depends on it.
_ONE_AFTER_THE_OTHER = (
    _TESTS / "kernel",
    _TESTS / "process" / "test_leaks.py",
    _TESTS / "process" / "test_memory_limit.py",
    _TESTS / "process" / "test_silent_zeros.py",
)


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file's tests together, for their fixtures, when several processes run them."""
    for item in items:
        is_alone = not any(item.path.is_relative_to(path) for path in _ONE_AFTER_THE_OTHER)
        item.add_marker(pytest.mark.xdist_group(str(item.path) if is_alone else "machine"))
