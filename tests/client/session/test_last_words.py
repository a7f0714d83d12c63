"""A process that has lost something ends as a failure, and otherwise as it would have."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, logging, sys
from lazyarr.client.session.last_words import say_lost

logging.basicConfig()

def at_end():
    print("registered before", file=sys.stderr, flush=True)
    logging.warning("logged at the end")

atexit.register(at_end)
"""
SAID = "lazyarr: x is lost\n"
REST = "registered before\nWARNING:root:logged at the end\n"


def run(end: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a program with some end."""
    command = [sys.executable, "-c", PROGRAM + end]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("say_lost('x is lost')\nprint('goes on')", (120, "goes on\n", SAID + REST)),
        ("say_lost('x is lost')\nsys.exit(3)", (120, "", SAID + REST)),
        ("atexit.register(say_lost, 'x is lost', is_at_end=True)", (120, "", SAID + REST)),
        ("say_lost('x is lost')\nsys.stderr.flush()\nsys.exit(0)", (120, "", SAID + REST)),
        ("sys.exit(3)", (3, "", REST)),
    ],
    ids=["in the middle", "with a code", "at the end", "stderr is flushed", "nothing is lost"],
)
def test_the_exit_code(end, expected):
    """What is registered for the end is called all the same, and can flush its stream."""
    assert run(end) == expected


def test_nobody_hears_it():
    """With stderr closed, or none, the exit code is all that tells."""
    for end in ("sys.stderr = None", "sys.stderr.close()"):
        quiet = f"atexit.unregister(at_end)\n{end}\nsay_lost('x is lost')\nprint('goes on')"
        code, out, _ = run(quiet)
        assert (code, out) == (120, "goes on\n")
