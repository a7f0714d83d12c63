"""Fixtures for all tests, and which of them may not run side by side."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

from tests.engines import engine
from tests.servers import http_server, s3_bucket, s3_server

__all__ = ["engine", "http_server", "s3_bucket", "s3_server"]

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# They change what holds for the machine (huge pages), or measure what depends on it.
_ONE_AFTER_THE_OTHER = (
    "tests/kernel/",
    "tests/process/test_leaks.py",
    "tests/process/test_memory_limit.py",
    "tests/process/test_silent_zeros.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have several processes take a file at a time, for its fixtures' sake."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return (
                "one after the other"
                if nodeid.startswith(_ONE_AFTER_THE_OTHER)
                else nodeid.split("::")[0]
            )

    return ByFile(config, log)
