"""What each operation reads, by the tables of docs/what-reads-what.md, whose code is run here."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from tests.engines import ARRAYS
from tests.stores import images

PAGE = Path(__file__).parents[2] / "docs/what-reads-what.md"
N_CHUNKS = 40
STANDARD = (
    "copy", "gc", "inspect", "io", "json", "operator", "pickle", "pprint", "pydoc", "random",
    "reprlib", "sys", "weakref",
)  # fmt: skip
# Imported for the tests alone: it takes seconds, and each process collects all tests.
LIBRARIES = {
    "cloudpickle": "cloudpickle", "dask": "dask.base", "joblib": "joblib", "numba": "numba",
    "np": "numpy", "pa": "pyarrow", "pd": "pandas", "PIL": "PIL.Image", "pl": "polars",
    "sklearn": "sklearn.model_selection",
}  # fmt: skip


def completions(text, names):
    """Return what IPython offers at the end of a line."""
    from IPython.core.completer import IPCompleter, provisionalcompleter

    # Without a shell there are no magics; jedi, which looks at classes alone, takes seconds.
    options = {"use_jedi": False, "disable_matchers": ["IPCompleter.magic_matcher"]}
    with provisionalcompleter():
        found = IPCompleter(namespace=names, **options).completions(text, len(text))
        return {completion.text for completion in found}


def complete_attribute(names):
    assert {".shape", ".chunks"} <= completions("x.", names)


def complete_name(names):
    assert completions('ds["', names) == {"x"}


def display(value):
    """Have IPython show a value that stands alone."""
    from IPython.core.formatters import DisplayFormatter

    assert DisplayFormatter().format(value)[0]["text/plain"] == repr(value)


def describe(value):
    """Have IPython say what there is to say of a value."""
    from IPython.core.oinspect import Inspector

    assert Inspector(theme_name="nocolor").info(value, detail_level=1)["found"]


def fail_by_identity(names):
    x, v = names["x"], names["v"]
    with pytest.raises(AssertionError, match="is"):
        assert x is v


def fail_by_elements(names):
    x = names["x"]
    with pytest.raises(AssertionError, match="all"):
        assert (x == 0).all()


# What stands in the tables and is no code.
ACTIONS = {
    "in IPython: x.<TAB>": complete_attribute,
    'in IPython: ds["<TAB>': complete_name,
    "in IPython: x": lambda names: display(names["x"]),
    "in IPython: ds": lambda names: display(names["ds"]),
    "in IPython: x?": lambda names: describe(names["x"]),
    "in IPython: ds?": lambda names: describe(names["ds"]),
    "in pytest, where it fails: assert x is v": fail_by_identity,
    "in pytest, where it fails: assert (x == 0).all()": fail_by_elements,
}


def rows(columns):
    """Return each operation of the tables with so many columns, and what is read by column."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = re.findall(r"(?:`[^`]*`|[^|`])+", line) if line.startswith("| ") else []
        if len(cells) != 1 + len(columns) or not cells[0].strip():
            continue
        operations, *reads = cells
        place = re.match(r" *(in [^`]*: )?", operations)[1] or ""
        by_column = dict(zip(columns, reads, strict=True))
        codes = re.findall(r"`([^`]+)`", operations)
        found += [pytest.param(place + code, by_column, id=code) for code in codes]
    return found


def n_chunks(words, of_all=N_CHUNKS):
    """Return how many chunks are read, by the words of a table."""
    before, _, since = words.strip().partition("; ")
    if since and sys.version_info >= (3, 12):
        before = since.removesuffix(" from Python 3.12 on")
    known = {"nothing": 0, "refused": 0, "all": of_all}
    return known[before] if before in known else int(re.fullmatch(r"(\d+) chunks?", before)[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A store whose array has a chunk for each row."""
    directory = tmp_path_factory.mktemp("reads") / "d.zarr"
    data = images((N_CHUNKS, 32, 64), np.float32)
    lazyarr.save(directory, {"x": data}, chunks=(1, 32, 64), dimension_names=["time", "a", "b"])
    return str(directory)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The same array, with coordinates along time, one of which is an index."""
    directory = tmp_path_factory.mktemp("reads") / "d.zarr"
    times = np.arange(N_CHUNKS)
    lazyarr.save(
        directory,
        {"x": images((N_CHUNKS, 32, 64), np.float32), "height": times * 1.0, "time": times},
        chunks={"x": (1, 32, 64)},
        shards=None,
        dimension_names={"x": ["time", "a", "b"], "height": ["time"], "time": ["time"]},
        attributes={"x": {"coordinates": "height"}},
    )
    return str(directory)


@pytest.fixture(scope="module")
def libraries():
    """What the page calls by name and arrays are not; ends the processes that joblib starts."""
    for name in ("dask.sizeof", "sklearn.utils", "matplotlib.figure"):
        import_module(name)
    found = {name: import_module(name) for name in STANDARD}
    for name, module in LIBRARIES.items():
        found[name] = import_module(module)
        if "." in module:
            found[name] = sys.modules[module.partition(".")[0]]
    found["LinearRegression"] = import_module("sklearn.linear_model").LinearRegression
    found["axes"] = sys.modules["matplotlib.figure"].Figure().subplots()
    found["queue"] = multiprocessing.Queue()
    yield found
    found["queue"].close()
    found["queue"].join_thread()
    import_module("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def names(url, engine, tmp_path, libraries):
    """What the code of the tables knows."""
    ds = lazyarr.open(url)
    x = ds["x"]
    assert isinstance(x, ARRAYS[engine])
    own = {
        "ds": ds,
        "x": x,
        "v": x.reshape(-1),
        "m": x.reshape(N_CHUNKS, -1),
        "log": logging.getLogger("tests.reads"),
        "memory": libraries["joblib"].Memory(tmp_path / "memory", verbose=0),
        "rows": lambda x, name: len(x),
        "tmp": str(tmp_path / "file.npy"),
    }
    return {**libraries, **own}


def n_loaded():
    """Return how many chunks were loaded in this process, and none is on its way."""
    found = lazyarr.stats()
    while found.get("units_loading"):
        os.sched_yield()
        found = lazyarr.stats()
    return found["units_loaded"]


@pytest.mark.parametrize(("operation", "reads"), rows(ARRAYS))
def test_operations_read_what_the_page_says(operation, reads, names, engine):
    """As many chunks as stand there, each of them once."""
    x, words = names["x"], reads[engine]
    with lazyarr.configure(readahead=0):
        x.evict()
        before = n_loaded()
        try:
            result = ACTIONS[operation](names) if operation in ACTIONS else eval(operation, names)
        except (TypeError, ValueError, AttributeError):
            assert words.strip() == "refused"
        else:
            assert words.strip() != "refused"
            del result
        assert n_loaded() - before == n_chunks(words)


@pytest.fixture(scope="module")
def known():
    """What xarray's own engine gives, by operation."""
    return {}


def open_in_xarray(ds, way):
    """Return a group as xarray has it, opened in one of three ways."""
    import xarray

    if way != "by hand":
        chunks = {"chunks": {}} if way == "blocks" else {}
        return xarray.open_dataset(ds, engine="lazyarr", **chunks)
    x, height = (("time", "a", "b"), ds["x"]), ("time", ds["height"])
    return xarray.Dataset({"x": x}, {"height": height, "time": np.asarray(ds["time"])})


def assert_same(found, expected):
    """Fail unless a result is what xarray's own engine gives, where it is of xarray's."""
    import xarray

    if isinstance(expected, xarray.Dataset | xarray.DataArray):
        xarray.testing.assert_allclose(found, expected)


WAYS = ("opened", "blocks", "by hand")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("operation", "reads"), rows(WAYS))
def test_operations_of_xarray_read_what_the_page_says(
    operation, reads, way, names, labelled, known, tmp_path
):
    """As many chunks as stand there, and the values are right."""
    import dask
    import pandas
    import xarray

    ds = lazyarr.open(labelled)
    x, days = ds["x"], pandas.date_range("2020-01-01", periods=N_CHUNKS)
    words = reads[way].strip()
    with lazyarr.configure(readahead=0), dask.config.set(scheduler="sync"):
        names |= {"xr": xarray, "x": x, "ds": ds, "days": days, "d": open_in_xarray(ds, way)}
        x.evict()
        ds["height"].evict()
        before = n_loaded()
        found = eval(operation, names)
        n_read = n_loaded() - before
        theirs = xarray.open_dataset(labelled, engine="zarr", consolidated=False)
        assert_same(found, eval(operation, {**names, "d": theirs, "tmp": str(tmp_path / "theirs")}))
    at_most = words.removeprefix("up to ")
    assert (
        n_read == n_chunks(words, N_CHUNKS + 1) if words == at_most else n_read <= int(at_most[0])
    )


def test_the_page_has_tables():
    """Each with operations; what is no code is on the page."""
    found = rows(ARRAYS)
    assert len(found) > 100
    assert len(rows(WAYS)) > 30
    assert ACTIONS.keys() <= {operation for operation, _ in (row.values for row in found)}
