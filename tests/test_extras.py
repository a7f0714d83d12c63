"""Each extra of `pyproject.toml` brings all that its part of lazyarr needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
import venv
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import h5py
import numpy as np
import pytest

import lazyarr
from tests.process.running import command_of
from tests.programs import extras as programs
from tests.stores import images

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DATA = images((6, 40, 50), np.uint16)


def test_each_extra_has_a_test():
    """But gcs, for which there is no server."""
    tested = {*PROGRAMS, "http", "s3", "gcs"}
    assert tested == PROJECT["optional-dependencies"].keys()


def required(requirements):
    """Return the distributions that some requirements bring, by their names."""
    from packaging.requirements import Requirement

    found, waiting = {}, [(Requirement(text), "") for text in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        for wanted in {"", *requirement.extras}:
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            found[name] = distribution(name)
            waiting += [(Requirement(text), wanted) for text in found[name].requires or ()]
    return found


@pytest.fixture
def python_of(tmp_path):
    """Return what makes an interpreter that has lazyarr with one extra, and nothing else."""

    def make(extra):
        chosen = PROJECT["optional-dependencies"][extra]
        try:
            found = required([*PROJECT["dependencies"], *chosen])
        except PackageNotFoundError as error:
            pytest.skip(f"{error.name} is not installed")
        venv.create(tmp_path / "venv", symlinks=True)
        python = tmp_path / "venv" / "bin" / "python"
        (place,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
        own = distribution("lazyarr")
        for each in (*found.values(), own):
            for file in each.files or ():
                top = file.parts[0]
                target = Path(each.locate_file(top)).resolve()
                is_code = each is not own or top.endswith(".dist-info")
                if top != ".." and target.exists() and is_code and not (place / top).exists():
                    (place / top).symlink_to(target)
        (place / "lazyarr.pth").write_text(str(ROOT))
        return python

    return make


def run(python, program, *arguments):
    ended = subprocess.run(
        [python, "-W", "error", *command_of(program, *arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LAZYARR_THREADS": "2",
        },
    )
    assert ended.returncode == 0, ended.stderr


def write_xarray(directory):
    import xarray

    times = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(1, "D")
    ds = xarray.Dataset({"t": (("time", "y", "x"), 0.5 * DATA)}, {"time": times})
    ds["t"].encoding = {"dtype": "u2", "scale_factor": 0.5, "_FillValue": 65535}
    for version in (2, 3):
        ds.to_zarr(directory / f"v{version}.zarr", zarr_format=version, consolidated=False)


def write_hdf5(directory):
    chosen = [
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"compression": "szip"},
        {"scaleoffset": 0},
    ]
    with h5py.File(directory / "x.h5", "w") as file:
        for options in chosen:
            file.create_dataset(f"x{len(file)}", data=DATA, chunks=(2, 20, 20), **options)


def write_tiff(directory):
    import tifffile

    for compression in ("zstd", "lzw", "zlib"):
        path = directory / f"{compression}.tif"
        tifffile.imwrite(path, DATA, compression=compression, photometric="minisblack")


def write_references(directory):
    from kerchunk.df import refs_to_dataframe

    document = {
        "zarr_format": 2,
        "shape": DATA.shape,
        "chunks": DATA.shape,
        "dtype": "<u2",
        "compressor": None,
        "filters": None,
        "fill_value": 0,
        "order": "C",
    }
    start = (directory / "x.npy").stat().st_size - DATA.nbytes
    refs = {
        ".zgroup": '{"zarr_format": 2}',
        "x/.zarray": json.dumps(document),
        "x/0.0.0": [str(directory / "x.npy"), start, DATA.nbytes],
    }
    (directory / "refs.json").write_text(json.dumps({"version": 1, "refs": refs}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library that it writes them with
        refs_to_dataframe({"version": 1, "refs": refs}, str(directory / "refs.parq"))


def write_icechunk(directory):
    import icechunk
    import zarr

    storage = icechunk.local_filesystem_storage(str(directory / "ice"))
    session = icechunk.Repository.create(storage).writable_session("main")
    zarr.create_array(session.store, name="x", data=DATA)
    session.commit("x")


def write_bfloat16(directory):
    import ml_dtypes

    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    elements = np.ones(2, ml_dtypes.bfloat16).tobytes()
    data = len(text).to_bytes(8, "little") + text + elements
    (directory / "x.safetensors").write_bytes(data)


PROGRAMS = {
    "xarray": write_xarray,
    "dask": None,
    "hdf5": write_hdf5,
    "tiff": write_tiff,
    "kerchunk": write_references,
    "icechunk": write_icechunk,
    "ray": None,
    "ml": write_bfloat16,
    "torch": None,
}


@pytest.mark.parametrize("extra", PROGRAMS)
def test_an_extra_is_enough(tmp_path, python_of, extra):
    """Without the libraries of the other extras."""
    python = python_of(extra)
    np.save(tmp_path / "x.npy", DATA)
    if PROGRAMS[extra] is not None:
        PROGRAMS[extra](tmp_path)
    run(python, getattr(programs, extra), tmp_path)


@pytest.mark.parametrize("extra", ["http", "s3"])
def test_an_extra_of_a_server_is_enough(request, tmp_path, python_of, extra):
    """Without the libraries of the other extras."""
    python = python_of(extra)
    np.save(tmp_path / "x.npy", DATA)
    options = {}
    if extra == "http":
        server = request.getfixturevalue("http_server")
        lazyarr.save(Path(server.directory) / "x.zarr", DATA)
        url = f"{server.url}/x.zarr"
    else:
        options = request.getfixturevalue("s3_server").storage_options
        url = f"{request.getfixturevalue('s3_bucket')}/x.zarr"
        lazyarr.save(url, DATA, storage_options=options)
    run(python, programs.remote, tmp_path, url, json.dumps(options))


def test_without_the_extra_it_is_named(tmp_path, python_of):
    """An interpreter that is made so lacks what is not in the extra."""
    python = python_of("dask")
    np.save(tmp_path / "x.npy", DATA)
    write_hdf5(tmp_path)
    command = [python, "-m", "lazyarr", "info", tmp_path / "x.h5"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert ended.returncode == 1
    assert "pip install 'lazyarr[hdf5]'" in ended.stderr
