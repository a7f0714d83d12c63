"""From a fresh process to the first row: who imports what, and when the pager is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import starting
from tests.stores import images, write_zarr

# None of these is needed for a row of a local array; each takes a millisecond or more.
HEAVY = {
    *("ast", "asyncio", "concurrent", "dataclasses", "decimal", "email", "fsspec", "hashlib"),
    *("http", "inspect", "logging", "multiprocessing", "numcodecs", "random", "shutil", "ssl"),
    *("subprocess", "tempfile", "traceback", "unittest", "urllib", "uuid"),
    *("lazyarr.cli", "lazyarr.copying", "lazyarr.testing", "lazyarr.verification"),
    *(
        "lazyarr.writer",
        "lazyarr.codecs.blosc",
        "lazyarr.codecs.shuffle",
        "lazyarr.formats.zarr.document_v2",
    ),
    *(
        "lazyarr.formats.zarr.written_documents",
        "lazyarr.codecs.numcodec",
        "lazyarr.reading.fetcher",
    ),
    *("lazyarr.store.asynchronous", "lazyarr.store.cache", "lazyarr.store.remote"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the client had imported when it started the pager, both at the first row."""
    directory = tmp_path_factory.mktemp("starting")
    url = write_zarr(directory / "x.zarr", images(), chunks=(4, 32, 128))
    log, python = directory / "imports", directory / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -X importtime "$@" 2>>"{log}"\n')
    python.chmod(0o755)
    answer = subprocess.run(
        [sys.executable, starting.__file__, os.fspath(url), os.fspath(python)],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    total, before_pager, at_first_row = json.loads(answer.stdout)
    assert total == images()[5].sum()
    return before_pager, at_first_row, _imported(log)


def _imported(log: Path) -> list[str]:
    """Return the modules that a log of ``-X importtime`` names."""
    lines = (line.rpartition("|") for line in log.read_text().splitlines())
    return [name.strip() for rest, _, name in lines if rest.startswith("import time:")]


def _heavy(modules: list[str], known: set[str] = HEAVY) -> set[str]:
    """Return what is among some modules, or around one, of what is heavy."""
    return {h for h in known for name in modules if f"{name}.".startswith(f"{h}.")}


def test_the_pager_imports_nothing_heavy_before_the_first_row(found):
    """Supervisor, worker and sentinel do without what other arrays or other stores need."""
    _, _, pager = found
    assert {
        "lazyarr.pager.lifecycle.supervisor",
        "lazyarr.pager.service.server",
        "zstandard",
    } <= set(pager)
    assert _heavy(pager, HEAVY | {"numpy", "lazyarr.client"}) == set()


def test_the_client_imports_nothing_heavy_before_the_first_row(found):
    """But for what NumPy imports."""
    _, client, _ = found
    numpys = subprocess.run(
        [sys.executable, "-c", "import numpy, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    own = sorted(set(client) - set(numpys.stdout.split()))
    assert {"lazyarr.client.arrays.lazyarray", "lazyarr.client.session.session"} <= set(own)
    assert _heavy(own, HEAVY | {"google_crc32c", "zstandard", "lazyarr.pager"}) == set()


def test_the_pager_is_started_before_anything_else(found):
    """It begins while the client imports NumPy and reads metadata."""
    before_pager, _, _ = found
    assert "lazyarr.client.session.launch" in before_pager
    later = {"ctypes", "json", "numpy", "lazyarr.formats.zarr", "lazyarr.store", "lazyarr.wire"}
    assert _heavy(before_pager, HEAVY | later) == set()
    kernels = {name for name in before_pager if name.startswith("lazyarr.kernel.")}
    assert kernels <= {"lazyarr.kernel.birth"}
