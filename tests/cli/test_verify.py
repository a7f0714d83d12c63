"""`lazyarr verify`."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

import lazyarr
from tests.cli.running import run, run_command


@pytest.fixture
def url(tmp_path):
    """A store of 4 chunks, in one shard."""
    data = np.arange(4000).reshape(40, 100)
    lazyarr.save(tmp_path / "s", {"x": data}, chunks=(10, 100), shards=(40, 100))
    return str(tmp_path / "s")


def damage(url):
    path = f"{url}/x/c/0/0"
    with open(path, "r+b") as file:
        file.write(b"\xff\xff")
    return path


def test_an_intact_store_is_done(url):
    """Exit code 0, the report on stdout, the progress on stderr."""
    done = run_command("verify", url)
    assert done.returncode == 0
    assert done.stdout.startswith(f"ok: file://{url}\n  checked  4 chunks of 1 array, ")
    assert "4/4" in done.stderr


def test_a_damaged_store_is_1(url):
    """Exit code 1, and a line that names array, chunk, key, bytes and cause."""
    damage(url)
    done = run_command("verify", "-q", url)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("DAMAGED: ")
    assert re.search(r"chunk \(0, 0\) of 'x', bytes \[0, \d+\) of x/c/0/0: crc32c", done.stdout)
    assert "of x/c/0/0" in done.stdout


def test_machines_get_json(url):
    """The same as fields, with the same exit code."""
    result = run("verify", "--json", "--quiet", url)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"], report["damaged"]) == (0, True, [])
    size = os.path.getsize(damage(url))
    result = run("verify", "--json", "--quiet", url)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"], report["chunks_checked"]) == (1, False, 4)
    (error,) = report["damaged"]
    assert (error["array"], error["chunk"], error["key"]) == ("x", [0, 0], "x/c/0/0")
    assert error["byte_range"][0] == 0
    assert error["byte_range"][1] < size
    assert error["reason"].startswith("crc32c expected")


def test_a_file_of_numpys_is_read_to_its_end(tmp_path):
    """Its last chunk is as long as what is left, and nothing tells whether a byte was changed."""
    np.save(tmp_path / "x.npy", np.zeros((1000, 1001)))
    result = run("verify", str(tmp_path / "x.npy"), "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (report["stored_nbytes"], report["unguarded"]) == (1000 * 1001 * 8, [""])
