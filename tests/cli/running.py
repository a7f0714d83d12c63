"""Running commands: in this process, in one of their own, and where the kernel refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from click.testing import CliRunner

from lazyarr.cli import main
from lazyarr.kernel.uapi import USER_MODE_ONLY
from tests.programs import filtered

if TYPE_CHECKING:
    from click.testing import Result

__all__ = ["run", "run_command", "run_limited", "run_refused"]


def run(*arguments: object) -> Result:
    """Return how a command ended in this process; an unexpected exception is raised."""
    result = CliRunner().invoke(
        main, [str(argument) for argument in arguments], prog_name="lazyarr"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Return how ``python -m lazyarr`` ended."""
    return _run("-m", "lazyarr", *arguments, **options)


def run_refused(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Return how a command ended that was given no userfaultfd, as in Docker."""
    return _run(filtered.__file__, 0, *arguments)


def run_limited(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Return how a command ended that was given user-mode-only ones, as most users are."""
    return _run(filtered.__file__, USER_MODE_ONLY, *arguments)


def _run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(argument) for argument in arguments)]
    given = {"capture_output": True, "text": True, "timeout": 60, **options}
    return subprocess.run(command, check=False, **given)
