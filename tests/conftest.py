"""Fixtures for all tests, what they must leave alone, and which may not run side by side."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

from lazyarr.settings import current
from tests.engines import engine
from tests.servers import http_server, s3_bucket, s3_server

__all__ = ["engine", "http_server", "s3_bucket", "s3_server"]

# They run in processes of their own.
collect_ignore = ["programs"]

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# They are read from the environment once in a process, and some tests set that for the programs
# that they start.  Read here, they are the same for every test, in whatever order tests run.
current()

# They change what holds for the machine (huge pages), or measure what depends on it.
_ONE_AFTER_THE_OTHER = (
    "tests/kernel/",
    "tests/process/test_leaks.py",
    "tests/process/test_memory_limit.py",
    "tests/process/test_silent_zeros.py",
)

# Nothing that costs much is made for all tests of a file, so they need not run in one process.
_EACH_BY_ITSELF = (
    "tests/process/",
    "tests/client/arrays/test_large.py",
    "tests/writer/test_crash.py",
)
# What takes longest in one process, first, so that no process is left alone with it at the end.
_FIRST = (*_ONE_AFTER_THE_OTHER, "tests/test_benchmarks.py")


@pytest.fixture(autouse=True)
def settings_are_left_as_they_were():
    """Fail where a test leaves settings that would hold for those that follow it."""
    before = current()
    yield
    assert current() == before


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest in one piece, and end with the smallest pieces."""

    def place(item: pytest.Item) -> int:
        if item.nodeid.startswith(_FIRST):
            return 0
        return 2 if item.nodeid.startswith(_EACH_BY_ITSELF) else 1

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have several processes take a file at a time, for its fixtures' sake, or a test."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(_ONE_AFTER_THE_OTHER):
                return "one after the other"
            return nodeid if nodeid.startswith(_EACH_BY_ITSELF) else nodeid.split("::")[0]

    return ByFile(config, log)
