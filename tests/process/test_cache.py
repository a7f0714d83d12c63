"""Fetched chunks that are kept from one run to the next."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import Behaviour
from tests.process.running import run_program, wait_until
from tests.programs import cache as programs

SHAPE = (64, 5000)


def numbers(seed):
    return np.random.default_rng(seed).integers(0, 60000, SHAPE).astype(np.uint16)


@pytest.fixture(params=["shards", "objects"])
def shards(request):
    return (16, 5000) if request.param == "shards" else None


@pytest.fixture(autouse=True)
def engine_of_processes(request, monkeypatch):
    """Have an engine in the processes that are started; the cache is the same for both."""
    monkeypatch.setenv("LAZYARR_ENGINE", getattr(request, "param", "userfaultfd"))


each_engine = pytest.mark.parametrize("engine_of_processes", ["userfaultfd", "copy"], indirect=True)


@pytest.fixture
def run(http_server, tmp_path):
    """Reads all of an array in a new process, gives the bytes fetched and the ranges asked for."""
    cache = tmp_path / "cache"

    def run(data, *, limit="1 GiB", cache=str(cache), engine=None, said=""):
        engine = engine or os.environ["LAZYARR_ENGINE"]
        http_server.requests()
        done = run_program(
            programs.reads_all, f"{http_server.url}/a.zarr", cache, limit, engine, int(data.sum())
        )
        assert done.returncode == 0
        assert re.fullmatch(said, done.stderr), done.stderr
        asked = [r for r in http_server.requests() if "/c/" in r.path]
        return int(done.stdout), asked

    return run


def save(http_server, data, shards):
    options = {"chunks": (4, SHAPE[1]), "shards": shards, "overwrite": True}
    lazyarr.save(f"{http_server.directory}/a.zarr", {"x": data}, **options)


def keeps_all(run, data, **options):
    """Return what was asked for by the first run to fetch nothing: one may end before all is kept.

    None when each of them fetches something.
    """
    asked = []

    def fetches_nothing():
        nbytes, asked[:] = run(data, **options)
        return nbytes == 0

    return asked if wait_until(fetches_nothing, 60) else None


def files(directory):
    return [path for path in Path(directory).rglob("*") if path.is_file()]


def asks_for_little(asked, shards):
    """Return whether it is shard indexes, or whether whole objects have changed."""
    return len(asked) == (4 if shards else 16) and all(
        (request.range or "").startswith("bytes=-" if shards else "") for request in asked
    )


def test_a_second_run_fetches_no_chunk(http_server, run, shards):
    """It asks for shard indexes, or whether whole objects have changed, and for nothing else."""
    data = numbers(1)
    save(http_server, data, shards)
    nbytes, _ = run(data)
    assert nbytes > data.nbytes // 2
    assert asks_for_little(keeps_all(run, data), shards)


def test_the_engine_that_copies_keeps_and_finds_the_same(http_server, run, shards):
    """What one engine has fetched the other need not, and it asks for as little."""
    data = numbers(1)
    save(http_server, data, shards)
    assert run(data, engine="copy")[0] > 0
    assert asks_for_little(keeps_all(run, data, engine="copy"), shards)
    assert run(data, engine="userfaultfd")[0] == 0


def test_what_has_changed_is_fetched_again(http_server, run, shards):
    """Also where it is as long as it was: the server names another version."""
    save(http_server, numbers(1), shards)
    run(numbers(1))
    save(http_server, numbers(2), shards)
    nbytes, _ = run(numbers(2))
    assert nbytes > 0
    assert keeps_all(run, numbers(2)) is not None


@each_engine
def test_nothing_is_kept_where_no_directory_is_named_or_no_version(http_server, run, tmp_path):
    """A server that does not say which version an object is cannot be asked about it."""
    data = numbers(1)
    save(http_server, data, None)
    assert run(data, cache="")[0] > 0
    assert not (tmp_path / "cache").exists()
    http_server.behave(Behaviour(etags=False))
    assert run(data)[0] == run(data)[0] > 0
    assert files(tmp_path / "cache") == []


def test_damaged_entries_are_fetched_again(http_server, run, shards, tmp_path):
    """Changed, cut off or emptied: as if they were not there; and they are mended."""
    data = numbers(1)
    save(http_server, data, shards)
    assert keeps_all(run, data) is not None
    entries = sorted(files(tmp_path / "cache"))
    assert len(entries) == 16
    for path, damage in zip(entries[:3], (b"\0" * 7, b"", None), strict=True):
        content = bytearray(path.read_bytes())
        content[-9:] = content[-9:][::-1]
        path.write_bytes(content if damage is None else damage)
    nbytes, _ = run(data)
    assert 0 < nbytes < data.nbytes // 2
    assert keeps_all(run, data) is not None


def test_the_directory_is_bounded_and_the_users_alone(http_server, run, tmp_path):
    """Old entries go when there is no room."""
    data = numbers(1)
    save(http_server, data, (16, 5000))
    assert wait_until(lambda: run(data, limit="200 kB")[0] < 500_000, 60)
    for path in (tmp_path / "cache").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    kept = files(tmp_path / "cache")
    assert 100_000 < sum(path.stat().st_size for path in kept) <= 200_000


def test_a_directory_that_others_may_write_to_is_not_used(http_server, run, tmp_path):
    """What they put there would be believed."""
    data = numbers(1)
    save(http_server, data, None)
    (tmp_path / "cache").mkdir()
    os.chmod(tmp_path / "cache", 0o777)
    said = "lazyarr: nothing can be kept in cache_dir .* nobody else can write to\n"
    assert run(data, said=said)[0] == run(data, said=said)[0] > 0
    assert files(tmp_path / "cache") == []


@each_engine
def test_s3_tells_versions_too(s3_server, tmp_path):
    """Of whole objects and of shards."""
    url, options = f"s3://{s3_server.make_bucket()}/a.zarr", s3_server.storage_options
    data = numbers(3)
    lazyarr.save(url, {"x": data, "y": data}, chunks=(4, 5000), storage_options=options)
    cache = tmp_path / "cache"

    def run():
        done = run_program(
            programs.reads_two_of_a_bucket, url, cache, json.dumps(options), int(data.sum())
        )
        assert (done.returncode, done.stderr) == (0, "")
        return int(done.stdout)

    assert run() > 0
    assert wait_until(lambda: run() == 0, 60)
