"""Fixtures for all tests, what they must leave alone, and which may not run side by side."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from lazyarr.settings import current
from tests.engines import engine
from tests.servers import http_server, s3_bucket, s3_server

__all__ = ["engine", "http_server", "s3_bucket", "s3_server"]

ROOT = Path(__file__).parent.parent

# They run in processes of their own.
collect_ignore = ["programs"]


def pytest_configure(config: pytest.Config) -> None:
    """Leave out the examples of a module whose library is not there; any other must be imported."""
    # Not --doctest-ignore-import-errors: it skips files of tests that cannot be imported.
    if find_spec("torch") is None:
        config.option.ignore = [*(config.option.ignore or ()), str(ROOT / "lazyarr" / "torch.py")]


# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell's background jobs ignore it, and so would the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

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

        # xdist's own gives what is left of a process that has died to the others with all that it
        # had finished, and the test that it died of.  A process that gets nothing but finished
        # tests never reports, so the run never ends.
        def remove_node(self, node: Any) -> str | None:
            scopes = self.assigned_work.pop(node)
            left = [
                test for tests in scopes.values() for test, is_done in tests.items() if not is_done
            ]
            for scope, tests in scopes.items():
                rest = dict.fromkeys((test for test in tests if test in left[1:]), False)
                if rest:
                    self.workqueue[scope] = rest
            for other in self.nodes:
                self._reschedule(other)
            return left[0] if left else None

        # A process runs a test when it knows the next one, or that there is none.
        def _reschedule(self, node: Any) -> None:
            waiting = -1
            while len(self.workqueue) != waiting and not node.shutting_down:
                waiting = len(self.workqueue)
                super()._reschedule(node)

    return ByFile(config, log)
