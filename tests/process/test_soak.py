"""The soak, for ten seconds: readers and writers, and everything that can fail beneath them."""

from __future__ import annotations

import re
import subprocess
import sys


def test_no_wrong_answer_in_ten_seconds():
    """Readers get what is stored, or an error where one is due; what is written is stored then."""
    command = [sys.executable, "-m", "tests.process.soak", "--seconds", "10"]
    command += ["--readers", "2", "--writers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = {name: int(n) for name, n in re.findall(r"^([a-z ]+?) +(\d+)", ended.stdout, re.M)}
    assert found["wrong answers"] == found["writes lost"] == 0
    for name in (
        *("operations done", "kills survived", "evictions", "errors expected"),
        *("writers killed", "stores that fail"),
    ):
        assert found[name] > 0, ended.stdout
