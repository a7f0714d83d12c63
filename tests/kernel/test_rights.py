"""A user without rights: user-mode-only, and what system calls say of missing memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lazyarr.kernel import probe
from tests.programs import kernel as programs

SYSCTL = Path("/proc/sys/vm/unprivileged_userfaultfd")


@pytest.fixture
def run_as_nobody(run_python):
    """Run a program as a user to whom the kernel gives no more than user-mode faults."""
    if SYSCTL.exists() and SYSCTL.read_text().strip() != "0":
        pytest.skip("vm.unprivileged_userfaultfd gives every user of this machine full rights")
    if os.geteuid() != 0 and probe().full_rights:
        pytest.skip("this user has full rights, and not the right to become one without")

    def run(program: Callable[..., object]) -> list[str]:
        ended = run_python(program)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.splitlines()

    return run


def test_user_without_rights_gets_user_mode_only(run_as_nobody):
    """It opens by the last way, the probe says so, and how to have more."""
    assert run_as_nobody(programs.nobody_probes) == [
        "False True () True",
        "[False, False, True]",
        "True syscall",
        "KernelUnsupportedError ('userfaultfd',)",
    ]


def test_touch_in_user_mode_is_served(run_as_nobody):
    """What a C library touches arrives, whatever the rights."""
    assert run_as_nobody(programs.nobody_touches) == ["True True", "done", "b'd'"]


def test_system_calls_on_missing_memory_get_efault(run_as_nobody):
    """Loud, not wrong: no data and no zeros; memory that is present is written."""
    assert run_as_nobody(programs.nobody_makes_system_calls) == [
        "EFAULT",
        "4096",
        "b'ddd'",
        "EFAULT",
        "[]",
    ]
