"""Small inputs that claim or make a lot are refused, in little memory and little time."""

from __future__ import annotations

import pytest

from tests.process.running import run_program
from tests.programs import fuzz_bombs as programs

VALUES = ("many large elements", "fifty thousand lists", "nested attributes")


@pytest.mark.timeout(90)
def test_bombs_are_refused_in_little_memory():
    """32 MiB more than before are enough for inputs that would fill 64, or terabytes."""
    ended = run_program(programs.bombs_are_refused_in_little_memory, seconds=80)
    assert ended.returncode == 0, ended.stderr
    outcomes = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
    assert len(outcomes) > 20
    expected = dict.fromkeys(outcomes, "FormatError") | dict.fromkeys(VALUES, "a value")
    assert outcomes == expected
