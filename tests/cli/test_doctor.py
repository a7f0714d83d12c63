"""`lazyarr doctor`."""

from __future__ import annotations

import json

from lazyarr import doctor
from tests.cli.running import run, run_limited, run_refused


def test_a_kernel_that_allows_all_is_well():
    """The verdict comes first, and agrees with `lazyarr.doctor`."""
    result = run("doctor")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].endswith("lazyarr works here")
    assert doctor().release in result.stdout
    assert "what to do                      nothing: all is well" in result.stdout


def test_machines_get_json():
    """Every fact is a field."""
    found = json.loads(run("doctor", "--json").stdout)
    support = doctor()
    assert (found["usable"], found["full_rights"]) == (True, support.full_rights)
    assert (found["page_nbytes"], found["minor_shmem"]) == (4096, support.minor_shmem)
    assert len(found["attempts"]) == len(support.attempts)
    assert "MISSING_SHMEM" in found["features"]


def test_a_refusing_kernel_is_1():
    """Without userfaultfd the exit code is 1, and there is something to do."""
    done = run_refused("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "arrays CANNOT be memory here" in done.stdout.splitlines()[0]
    assert "refused: EPERM" in done.stdout
    assert "a system call filter, as in containers" in done.stdout
    assert "start the container with --device /dev/userfaultfd" in done.stdout
    found = json.loads(run_refused("doctor", "--json").stdout)
    assert (found["usable"], found["missing"]) == (False, ["userfaultfd"])
    assert {attempt["errno"] for attempt in found["attempts"]} == {"EPERM"}


def test_a_user_without_rights_can_work():
    """User-mode-only is enough, with one limit that is told."""
    done = run_limited("doctor")
    assert done.returncode == 0
    assert "lazyarr works here, with one limit: system calls" in done.stdout.splitlines()[0]
    assert "/dev/userfaultfd" in done.stdout.splitlines()[-1]
    found = json.loads(run_limited("doctor", "--json").stdout)
    assert (found["usable"], found["full_rights"]) == (True, False)
