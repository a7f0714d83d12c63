"""Programs that are scripts."""

from __future__ import annotations

import runpy
import subprocess
import sys


def run(path, *arguments):
    """Run a script in this process, as the main program."""
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def start(path, *arguments):
    """Run a script in a process of its own."""
    sys.exit(subprocess.call([sys.executable, path, *arguments]))
