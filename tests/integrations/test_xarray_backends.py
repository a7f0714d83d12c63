"""xarray's own tests of its engines hold for what the engine "lazyarr" reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Marks of xarray's; and no warning comes from lazyarr.
SETTINGS = r"""
[pytest]
markers =
    asyncio
    flaky
    network
    slow
filterwarnings =
    error:::lazyarr(\..*)?
"""


def test_xarrays_tests_of_engines_hold(tmp_path):
    """tests/programs/xarray_backends.py says which are left out, and why."""
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    program = ROOT / "tests/programs/xarray_backends.py"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", tmp_path / "pytest.ini"]
    # The fixtures of lazyarr's own tests are not for these.
    options += [f"--rootdir={ROOT}", f"--confcutdir={program.parent}"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *options,
            f"--rootdir={ROOT}",
            f"--confcutdir={program.parent}",
            program,
        ],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 200
