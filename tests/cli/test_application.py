"""Exit codes, where what is printed goes, and errors as one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from tests.cli.running import run, run_command, run_refused
from tests.process.running import command_of
from tests.programs import measures
from tests.stores import write_zarr


@pytest.fixture
def url(tmp_path):
    """A small array."""
    return write_zarr(tmp_path / "x.zarr", np.arange(1000), chunks=(100,))


def test_done_is_0(url):
    """A command that did what it was asked for, with nothing on stderr but progress."""
    done = run_command("info", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Array /\n")


@pytest.mark.parametrize("command", ["info", "tree", "verify"])
def test_failed_is_1(tmp_path, command):
    """An error of lazyarr is one line on stderr, no traceback, and nothing on stdout."""
    done = run_command(command, tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"Error: cannot open file://.*/nothing: there is no such directory; check the path", line
    )


def test_a_warning_is_one_line(tmp_path):
    """On stderr; the command goes on."""
    lazyarr.save(tmp_path / "x.zarr", {"a": np.arange(3)}, consolidated=True)
    lazyarr.save(tmp_path / "x.zarr/b", np.arange(4))
    done = run_command("tree", tmp_path / "x.zarr")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("(4,) int64, 32 B")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Warning: the consolidated metadata of file://")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["info"],
        ["info", "a", "b"],
        ["info", "a", "--nonsense"],
        ["info", "a", "-o", "novalue"],
        ["info", "a", "-o", "=value"],
        ["info", "a", "--storage-options", "[1]"],
        ["verify", "a", "--storage-options", "{"],
        ["convert", "a"],
        ["convert", "a", "b", "--chunks", "0"],
        ["convert", "a", "b", "--chunks", "3,x"],
        ["convert", "a", "b", "--chunks", "none"],
        ["convert", "a", "b", "--shards", "-1"],
        ["convert", "a", "b", "--level", "99"],
        ["convert", "s3://b/x", "s3://b/x/", "--overwrite"],
        ["convert", "s3://b/x/images", "s3://b/x", "--overwrite"],
        ["demo", "extra"],
        ["doctor", "extra"],
    ],
)
def test_wrong_usage_is_2(arguments):
    """What cannot be meant is refused before anything is done."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


def test_a_wrong_setting_is_wrong_usage(url):
    """An environment variable that cannot be understood is named."""
    environment = {**os.environ, "LAZYARR_MEMORY_LIMIT": "much"}
    done = run_command("info", url, env=environment)
    assert done.returncode == 2
    assert "LAZYARR_MEMORY_LIMIT" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version_are_there():
    """Every command has help that says what it does."""
    assert run("--version").stdout == f"lazyarr {lazyarr.__version__}\n"
    listed = run("--help").stdout
    for command in ("demo", "info", "tree", "convert", "verify", "doctor"):
        assert f"\n  {command} " in listed
        assert run(command, "--help").exit_code == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    """`lazyarr tree | head -1` ends quietly."""
    lazyarr.save(tmp_path / "many", {f"array{i}": np.zeros(1) for i in range(1000)})
    command = f"'{sys.executable}' -m lazyarr tree --json '{tmp_path / 'many'}' | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_a_terminal_without_unicode_gets_what_it_can_show(url):
    """Characters that the encoding does not have are replaced; nothing fails."""
    lazyarr.save(Path(url).parent / "g", {"x": np.zeros(1)})
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run_command("tree", Path(url).parent / "g", env=environment)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1] == "??? x  (1,) float64, 8 B"


def test_messages_can_not_command_a_terminal(tmp_path):
    """What comes out of a store is spelled out in errors too."""
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "\\u001b[31m"}')
    result = run("info", tmp_path)
    assert result.exit_code == 1
    assert "\x1b" not in result.stderr


def test_a_kernel_that_refuses_is_explained():
    """Without userfaultfd: what is missing and what to do about it, on one line."""
    done = run_refused("demo")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: cannot open userfaultfd: EPERM")
    assert "--device /dev/userfaultfd" in line


@pytest.mark.parametrize("command", ["info", "tree", "verify"])
def test_looking_needs_no_userfaultfd(url, command):
    """Metadata and verification work wherever Python does."""
    assert run_refused(command, url).returncode == 0


def test_converting_needs_no_userfaultfd(url, tmp_path):
    """All is read, and once, so nobody is warned that arrays are no memory."""
    done = run_refused("convert", url, tmp_path / "y.zarr", "-q")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Warning" not in done.stderr
    assert lazyarr.verify(tmp_path / "y.zarr", progress=False).ok


def test_opening_imports_no_command_line(url):
    """`lazyarr.open` pays for neither click nor tqdm."""
    done = subprocess.run(
        [sys.executable, *command_of(measures.opening_imports_no_command_line, url)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
