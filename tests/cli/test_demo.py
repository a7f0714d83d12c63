"""`lazyarr demo`."""

from __future__ import annotations

import os
import re

from tests.cli.running import run_command, run_limited


def test_the_demo_shows_how_little_is_read(tmp_path):
    """At most twenty lines: an array of 60 MiB, of which a tenth is loaded."""
    done = run_command("demo", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 20
    assert all(len(line) <= 120 for line in lines)
    read = re.search(
        r"read +([\d.]+) MiB of the array's 60 MiB, from about ([\d.]+) MiB", done.stdout
    )
    assert float(read[1]) < 10
    assert float(read[2]) < float(read[1])
    resident = [int(n) for n in re.findall(r"(\d+) of 120 units resident", done.stdout)]
    assert resident == [0, 1, 2, 3, 13]
    assert re.search(r"C code: [1-9]\d* page fault", done.stdout)


def test_the_demo_leaves_nothing_behind(tmp_path):
    """Its store is gone when it ends."""
    run_command("demo", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_no_rights():
    """It runs for a user who has user-mode-only userfaultfds."""
    done = run_limited("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "13 of 120 units resident" in done.stdout
