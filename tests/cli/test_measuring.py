"""`lazyarr info --measure`: what samples of an array cost, and what would be better."""

from __future__ import annotations

import json
import os
import shlex
import shutil

import h5py
import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.cli.measuring import Measured, Speed, advise
from lazyarr.opening.nodes import open_nodes
from tests.cli.running import run

RNG = np.random.default_rng(3)
FIELD = np.cumsum(RNG.normal(size=(2048, 256)), axis=0).round(2).astype("f4")  # 2 MiB


def measured(url, *options):
    result = run("info", "--json", "--measure", url, *options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def advice_on(url, found=None, path=""):
    """Return the advice on an array, by what it is about."""
    nodes = open_nodes(url)
    try:
        return {advice.kind: advice for advice in advise(nodes.node(path), found)}
    finally:
        nodes.store.close()


def test_samples_are_decoded_as_they_are_and_by_other_compressors(tmp_path):
    """Sizes are exact, and speeds are those of the moment."""
    lazyarr.save(tmp_path / "x", FIELD, chunks=256, shards=None)
    found = measured(tmp_path / "x")["measured"][""]
    assert (found["chunks"], found["nbytes"]) == (8, FIELD.nbytes)
    ways = found["ways"]
    assert list(ways) == ["now", "zstd", "blosc"]
    stored = sum(path.stat().st_size for path in (tmp_path / "x" / "c").rglob("*/0"))
    assert ways["now"]["ratio"] == stored / FIELD.nbytes
    for other in ("zstd", "blosc"):
        lazyarr.save(tmp_path / other, FIELD, compressor=other, shards=None)
        stored = sum(p.stat().st_size for p in (tmp_path / other / "c").rglob("*/0"))
        assert ways[other]["ratio"] == stored / FIELD.nbytes
    assert all(way["decoded_bytes_per_second"] > 1e6 for way in ways.values())
    assert found["fetch_seconds"] > 0


def test_the_text_and_its_command(tmp_path):
    """What is advised does what is said of it."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=FIELD, chunks=(64, 256), compression="gzip")
        file["few"] = np.arange(9)
    result = run("info", "--measure", tmp_path / "x.h5")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "Samples, decoded by one thread" in lines
    assert any("few" in line and "not measured: a sample of it has 72 B" in line for line in lines)
    assert any("  x " in line and "as blosc it is decoded" in line for line in lines)
    command = shlex.split(lines[-1])
    assert command[:2] == ["lazyarr", "convert"]
    new = tmp_path / "new.zarr"
    assert run(*command[1:3], new, *command[4:]).exit_code == 0
    np.testing.assert_array_equal(zarr.open_array(str(new), path="x", mode="r")[...], FIELD)


SPEEDS = {"zstd": Speed(500, 1.0), "blosc": Speed(450, 0.5)}


@pytest.mark.parametrize(
    ("now", "others", "expected"),
    [
        (Speed(500, 1.05), SPEEDS, ("compressor blosc", 2.1, "decoded 2.1 times as fast, in 0.90")),
        (Speed(450, 0.5), SPEEDS, None),
        (Speed(300, 1.0), SPEEDS, None),  # much smaller than the faster ones
        (Speed(1000, 0.1), SPEEDS, ("compressor blosc", 1000 / 450, "0.45 of the space, decoded")),
        (Speed(1000, 0.5), SPEEDS, ("compressor blosc", 1000 / 450, "no slower to decode")),
    ],
)
def test_a_compressor_is_advised_by_what_was_measured(tmp_path, now, others, expected):
    """Faster and not much larger, or else smaller; nothing where neither is worth it."""
    lazyarr.save(tmp_path / "x", FIELD)
    found = advice_on(tmp_path / "x", Measured(4, 1000, 0.01, now, others))
    if expected is None:
        assert found == {}
    else:
        kind, factor, words = expected
        assert found[kind].factor == pytest.approx(factor)
        assert words in found[kind].text


def test_what_one_touch_decodes(tmp_path):
    """An archive's array comes as a whole: with a measurement it is said how long that takes."""
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((64, 512, 512), "u1"))
    text = advice_on(tmp_path / "x.npz", path="x")["touch"].text
    assert "one touch decodes 16 MiB in 1 chunk; in chunks of (2, 512, 512) it is 32 times" in text
    sample = Measured(1, 1000, 0.1, Speed(10, 1e-6), {"zstd": Speed(10, 1e-6)})
    text = advice_on(tmp_path / "x.npz", sample, path="x")["touch"].text
    assert "16 MiB in 1 chunk, 16.78 ms of one thread" in text


def test_small_chunks_objects_and_pages(tmp_path):
    """By numbers that follow from the metadata alone."""
    options = {"shape": (100_000, 16), "dtype": "f4", "compressors": None}
    zarr.create_array(tmp_path / "small", chunks=(50, 16), **options)
    found = advice_on(tmp_path / "small")
    assert "2,000 chunks of 3.12 KiB; 13 would do" in found["small chunks"].text
    assert "up to 2,000; in shards there are 1" in found["objects"].text
    zarr.create_array(tmp_path / "odd", chunks=(2001, 16), **options)
    assert "a chunk is 31.27 pages" in advice_on(tmp_path / "odd")["pages"].text
    lazyarr.save(tmp_path / "good", np.zeros((100_000, 16), "f4"))
    assert advice_on(tmp_path / "good") == {}


def test_the_order_of_axes(tmp_path):
    """Rows of an array in Fortran order are spread over all of it."""
    np.save(tmp_path / "f.npy", np.asfortranarray(FIELD))
    text = advice_on(tmp_path / "f.npy")["order"].text
    assert "a row of 1 KiB lies in up to 256 pages, in C order in 1" in text
    np.save(tmp_path / "c.npy", FIELD)
    assert "order" not in advice_on(tmp_path / "c.npy")


def test_metadata_of_a_remote_store():
    """Without copies each node is a request, and more."""
    url = "memory://measured"
    for consolidated in (False, True):
        arrays = {"x": FIELD, "y": FIELD[:9]}
        lazyarr.save(url, arrays, consolidated=consolidated, overwrite=True)
        kinds = {advice["kind"]: advice for advice in measured(url)["advice"]}
        assert ("consolidated metadata" in kinds) != consolidated
        if not consolidated:
            assert "3 documents are read one by one" in kinds["consolidated metadata"]["text"]


def test_metadata_of_what_is_no_remote_store(tmp_path):
    """An archive on this machine, and references, cost no request for each node."""
    lazyarr.save(tmp_path / "s.zarr", {"x": FIELD, "y": FIELD[:9]})
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "s.zarr")
    documents = {
        str(path.relative_to(tmp_path / "s.zarr")): path.read_text()
        for path in (tmp_path / "s.zarr").rglob("zarr.json")
    }
    (tmp_path / "r.json").write_text(json.dumps(documents))
    for name in ("s.zarr", "a.zip", "r.json"):
        kinds = {advice["kind"] for advice in measured(tmp_path / name)["advice"]}
        assert "consolidated metadata" not in kinds


def test_what_cannot_be_measured_is_said(tmp_path):
    """A chunk that is too large, one that is damaged, nothing at all."""
    root = zarr.open_group(str(tmp_path / "s"), mode="w")
    root.create_array("large", shape=(300, 2**20), chunks=(300, 2**20), dtype="u1")
    root.create_array("empty", shape=(0,), dtype="u1")
    lazyarr.save(tmp_path / "s" / "bad", FIELD, shards=None)
    for path in (tmp_path / "s" / "bad" / "c").rglob("*/0"):
        os.truncate(path, 20)
    found = measured(tmp_path / "s")
    assert found["measured"] == {}
    assert found["not_measured"]["large"] == "one chunk takes 300 MiB"
    assert "cannot be read" in found["not_measured"]["bad"]
    assert "too little" in found["not_measured"]["empty"]
    assert {advice["path"] for advice in found["advice"]} == {"large"}
    assert found["command"].endswith("NEW.zarr")


def test_nothing_is_measured_that_nobody_asked_for(tmp_path):
    """And nothing is said of it."""
    lazyarr.save(tmp_path / "x", FIELD)
    assert "measured" not in json.loads(run("info", "--json", tmp_path / "x").stdout)
    assert "Samples" not in run("info", tmp_path / "x").stdout
