"""Tasks of Ray get references, and share the pages of the process that started Ray."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile

import numpy as np
import psutil
import pytest

import lazyarr
from tests.process.running import wait_until
from tests.stores import images, write_zarr

# What Ray asks the network for, and what it warns of; read when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
ray = pytest.importorskip("ray")

pytestmark = pytest.mark.timeout(200)

DATA = images((40, 32, 64), np.int32)
N_UNITS = 10
SECONDS = 60


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Ray on this machine, in processes that are gone afterwards."""
    directory = tempfile.mkdtemp(prefix="ray-")  # it makes sockets, whose paths must be short
    before = set(psutil.Process().children(recursive=True))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=80 << 20,
        _node_ip_address="127.0.0.1",
        _temp_dir=directory,
    )
    started = set(psutil.Process().children(recursive=True)) - before
    yield
    ray.shutdown()
    shutil.rmtree(directory, ignore_errors=True)
    assert wait_until(lambda: not any(process.is_running() for process in started), SECONDS)


@pytest.fixture
def url(tmp_path):
    """A store of an array of ten units that nobody has opened before."""
    return write_zarr(tmp_path / "d.zarr", DATA, name="x", chunks=(4, 32, 64))


def loaded(url):
    """Return how often the pager of this process has loaded a unit of a store's array."""
    (array,) = (each for each in lazyarr.stats()["arrays"] if url in each["url"])
    return array["units_loaded"]


@ray.remote
def row_sum(x, row):
    return int(x[row].sum()), os.getpid(), lazyarr.stats()["pid"]


@ray.remote
class Reader:
    def __init__(self, x):
        self._x = x

    def rows(self, start, stop):
        return self._x[start:stop]

    def copies(self, start, stop):
        return np.array(self._x[start:stop])


def found_by(references):
    return ray.get(references, timeout=SECONDS)


def test_tasks_share_one_pager(url):
    """The array is an argument, or an object of Ray's; each chunk is decompressed once."""
    x = lazyarr.open(url)["x"]
    put = ray.put(x)
    for given in (x, put):
        found = found_by([row_sum.remote(given, row) for row in range(40)])
        assert [total for total, *_ in found] == [int(row.sum()) for row in DATA]
        assert os.getpid() not in {process for _, process, _ in found}
        assert {pager for *_, pager in found} == {lazyarr.stats()["pid"]}
    assert loaded(url) == N_UNITS
    assert type(ray.get(put)) is lazyarr.LazyArray


def test_what_ray_stores_is_a_reference(url):
    """No buffer of elements goes beside the pickle, whether the array is loaded or not."""
    x = lazyarr.open(url)["x"]
    x.prefetch()
    buffers = []
    sent = ray.cloudpickle.dumps(x, protocol=5, buffer_callback=buffers.append)
    assert len(sent) < 2**13
    assert buffers == []
    np.testing.assert_array_equal(pickle.loads(sent), DATA)


def test_actors_and_what_they_return(url):
    """A view comes back as a reference; a copy as elements."""
    reader = Reader.remote(lazyarr.open(url)["x"])
    view = ray.get(reader.rows.remote(5, 30), timeout=SECONDS)
    assert type(view) is lazyarr.LazyArray
    np.testing.assert_array_equal(view, DATA[5:30])
    np.testing.assert_array_equal(ray.get(reader.copies.remote(5, 30), timeout=SECONDS), DATA[5:30])
    assert loaded(url) == N_UNITS - 2


def test_a_store_that_is_not_there(url, tmp_path):
    """It is the error of the task, which says what is missing and where."""
    x = lazyarr.open(url, mode="c")["x"]
    (tmp_path / "d.zarr").rename(tmp_path / "e.zarr")
    with pytest.raises(ray.exceptions.RayError, match=r"d\.zarr.* on host "):
        ray.get(row_sum.remote(x, 3), timeout=SECONDS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of settings that Ray itself sets
def test_datasets_of_rows(url):
    """Rows of a `ray.data.Dataset` are numbers of samples, which tasks read."""
    data = pytest.importorskip("ray.data")
    x = lazyarr.open(url)["x"]

    def read(batch):
        return {"sample": x[batch["item"]]}

    rows = data.from_items([{"item": row} for row in range(40)])
    found = rows.map_batches(read, batch_size=8).take_all()
    found.sort(key=lambda row: row["sample"][0, 0])
    expected = sorted(DATA, key=lambda row: row[0, 0])
    np.testing.assert_array_equal([row["sample"] for row in found], expected)
    assert loaded(url) == N_UNITS
