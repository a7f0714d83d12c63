"""Arrays of very many units, and of very many chunks: nobody else notices, and the pager lives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import lazyarr
from tests.process.running import run_program
from tests.programs import many_units as programs


def write_document(path: Path, n_elements: int, chunk: int, dtype: str = "int8") -> Path:
    """Write an array of which nothing is stored but what it is."""
    path.mkdir()
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n_elements],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 7,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    (path / "zarr.json").write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("n_elements", [30_000, 30_001])
def test_a_document_of_a_few_bytes_does_not_stop_the_pager(tmp_path, n_elements):
    """Chunks of one element that are not stored: the sum is that of the fill value."""
    path = write_document(tmp_path / "x.zarr", n_elements, 1)
    ended = run_program(programs.a_document_of_a_few_bytes_does_not_stop_the_pager, path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(7 * n_elements), str(n_elements), "0"]


def test_what_is_asked_of_a_sparse_array_costs_what_is_in_memory(tmp_path):
    """Of 2**33 units a few are there: to say so, and to take them out, takes no time or memory."""
    path = write_document(tmp_path / "x.zarr", 1 << 45, 4096)
    ended = run_program(programs.what_is_asked_of_a_sparse_array_costs_what_is_in_memory, path)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split()[:2] for line in ended.stdout.splitlines()]
    n_units = 1 << 33
    assert lines == [["4", str(n_units)], ["2", str(n_units - 512)], ["4", str(n_units)]]


def test_others_are_served_while_very_much_is_asked_for(tmp_path):
    """A fault and a request of another array, during a request of twenty thousand units."""
    many = write_document(tmp_path / "many.zarr", 20_000 * 4096, 4096)
    few = tmp_path / "few.zarr"
    rows = np.arange(64 * 1024, dtype="i8").reshape(64, 1024)
    lazyarr.save(few, rows, chunks=(1, 1024), shards=rows.shape)
    ended = run_program(programs.others_are_served_while_very_much_is_asked_for, many, few)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.split()[1]) < 1.0


@pytest.mark.parametrize("sharded", [True, False])
def test_chunks_of_one_element_are_what_zarr_python_has_written(tmp_path, sharded):
    """Each of thousands, through the array and through raw memory."""
    data = np.arange(3001, dtype="i4")
    options = {"shards": (1500,)} if sharded else {}
    n = len(data) if sharded else 500
    stored = zarr.create_array(tmp_path / "x", shape=(n,), chunks=(1,), dtype="i4", **options)
    stored[:] = data[:n]
    x = lazyarr.open(tmp_path / "x")
    assert x.nchunks == n
    assert x[n - 1] == n - 1
    assert np.array_equal(x, data[:n])
    assert int(np.asarray(x)[300]) == 300
    assert x.residency().total_units == -(-n // 1024)
