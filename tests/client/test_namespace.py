"""What everything in NumPy gives for a lazy array: a lazy view, or a plain array."""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
import warnings

import numpy as np
import pytest
from numpy.lib import recfunctions, stride_tricks

import lazyarr
from lazyarr import LazyArray
from lazyarr.client.arrays.lazyarray import OwnArray
from tests.stores import write_zarr

MODULES = {
    "np": np,
    "np.linalg": np.linalg,
    "np.fft": np.fft,
    "np.ma": np.ma,
    "np.char": np.char,
    "np.strings": np.strings,
    "np.emath": np.emath,
    "np.rec": np.rec,
    "stride_tricks": stride_tricks,
    "recfunctions": recfunctions,
}
# They write files, change what holds for NumPy, print, or do not end for what is no list.
NOT_CALLED = {
    "save", "savez", "savez_compressed", "savetxt", "load", "loadtxt", "genfromtxt", "fromfile",
    "fromregex", "memmap", "DataSource", "test", "info", "show_config", "show_runtime", "seterr",
    "seterrcall", "setbufsize", "set_printoptions", "printoptions", "errstate", "flatten_inplace",
    "busdaycalendar",
}  # fmt: skip
# What looks at an array and shares its memory gives a lazy view.
VIEWS = {
    "np": {
        "array_split", "atleast_2d", "atleast_3d", "broadcast_arrays", "broadcast_to", "diagonal",
        "expand_dims", "flip", "fliplr", "flipud", "hsplit", "imag", "matrix_transpose", "moveaxis",
        "permute_dims", "ravel", "real", "reshape", "rollaxis", "rot90", "split", "squeeze",
        "swapaxes", "transpose", "vsplit",
    },
    "np.linalg": {"diagonal", "matrix_transpose"},
    "np.ma": {"expand_dims", "reshape", "transpose"},
    "stride_tricks": {"as_strided"},
}  # fmt: skip
# What NumPy makes in C, of the class of its argument and without asking that.
OWN = {
    "np": {"array", "asanyarray", "require"},
    "np.ma": {"MaskType", "make_mask", "mvoid", "sort"},
}
METHODS = {"diagonal", "getfield", "ravel", "reshape", "squeeze", "swapaxes", "transpose"}
METHODS |= {"T", "mT", "view"}
# They change what the array is, or write files.
NOT_TRIED = {
    "__init__", "__init_subclass__", "__new__", "__setstate__", "__setattr__", "__delattr__",
    "__subclasshook__", "__class__", "__class_getitem__", "__getattribute__", "__array_finalize__",
    "__reduce__", "__reduce_ex__", "__dir__", "__sizeof__", "resize", "setflags", "tofile", "dump",
    "base",
}  # fmt: skip


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    directory = tmp_path_factory.mktemp("namespace")
    numbers = np.arange(1.0, 17).reshape(4, 4)
    data = {
        "numbers": numbers,
        "complex": numbers * (1 + 2j),
        "mask": numbers % 3 == 0,
        "vector": np.arange(6),
        "text": numbers.astype("U4"),
    }
    found = {"numbers": [], "texts": []}
    for name, array in data.items():
        url = write_zarr(
            directory / f"{name}.zarr", array, chunks=(2, *array.shape[1:]), zarr_format=2
        )
        kind = "texts" if name == "text" else "numbers"
        found[kind] += [lazyarr.open(url)]
        if name in ("numbers", "text"):
            found[kind] += [lazyarr.open(url, mode="c")]
    return found


def calls(function, x):
    """Give ways to call something, most of which are wrong."""
    masked = functools.partial(np.ma.array, mask=np.asarray(x) == np.asarray(x)[:1])
    yield from (
        lambda: function(x),
        lambda: function(x, x),
        lambda: function(x, 1),
        lambda: function(x, 1, 0),
        lambda: function(x, [1, 2]),
        lambda: function(x, (0, 1)),
        lambda: function((x, x)),
        lambda: function([x, x], axis=1),
        lambda: function(x, x, x),
        lambda: function(x, axis=0),
        lambda: function(x, x, axis=0),
        lambda: function(x, 2, axis=0),
        lambda: function(x, x.shape),
        lambda: function(x, subok=True),
        lambda: function(x, copy=True, subok=True),
        lambda: function(x, dtype="f4"),
        lambda: function(x, dtype="f4", subok=True),
        lambda: function(x, order="F"),
        lambda: function(x, keepdims=True),
        lambda: function(x, "f4"),
        lambda: function(x, 0, -1),
        lambda: function(lambda *_: x, x),
        lambda: function(lambda part: part, 0, x),
        lambda: function("ij->ji", x),
        lambda: function(x, [x > 3], [x]),
        lambda: function(x > 3, x, x),
        lambda: function(masked(x)),
        lambda: function(masked(x), 1),
        lambda: function(masked(x), axis=0),
        lambda: function(masked(x), masked(x)),
    )


def parts(value, depth=0):
    """Give the arrays in a result, those that masked arrays consist of among them."""
    if value is np.ma.masked:
        return
    if isinstance(value, np.ma.MaskedArray):
        yield from (value.data, value.mask)
    elif isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple) and depth < 3:
        for item in value[:8]:
            yield from parts(item, depth + 1)


def kinds(function, x):
    """Return what a function gives, however it can be called."""
    found = set()
    for call in calls(function, x):
        try:
            result = call()
        except Exception:
            continue
        found |= kinds_of(result, x)
    return found


def kinds_of(result, x):
    """Return what is in a result: "view" for lazy views, "plain", "own" (see `OwnArray`)."""
    found = set()
    for part in parts(result):
        if isinstance(part, LazyArray):
            plain = part.view(np.ndarray)
            assert not part.size or np.shares_memory(plain, x.view(np.ndarray))
            found |= set() if part is x else {"view"}  # itself, where it was the output
        elif type(part) is OwnArray:
            found.add("own")
        else:
            found.add("plain")
    return found


def is_scalar_type(value):
    return isinstance(value, type) and issubclass(value, np.generic)


@pytest.mark.parametrize("module", MODULES)
def test_functions_give_lazy_views_or_plain_arrays(arrays, module, capfd):
    """What shares a stored array's memory is lazy; all else is plain, with memory of its own."""
    kind = "texts" if module in ("np.char", "np.strings") else "numbers"
    found = {"view": set(), "own": set(), "plain": set()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in getattr(MODULES[module], "__all__", dir(MODULES[module])):
            function = getattr(MODULES[module], name)
            if name.startswith("_") or name in NOT_CALLED or not callable(function):
                continue
            for x in arrays[kind]:
                for what in kinds(function, x):
                    found[what] |= {name}
    assert found["view"] == VIEWS.get(module, set())
    types = {name for name in found["own"] if is_scalar_type(getattr(MODULES[module], name))}
    assert found["own"] - types == OWN.get(module, set()) - types
    assert found["plain"] or module == "stride_tricks"


def test_methods_give_lazy_views_or_plain_arrays(arrays):
    """The same of every method and attribute that an ndarray has."""
    views, own = set(), set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(set(dir(np.ndarray)) - NOT_TRIED):
            if name.startswith("_") and not name.startswith("__"):
                continue
            for x in arrays["numbers"]:
                found = kinds(lambda v, *args, name=name, **kw: getattr(v, name)(*args, **kw), x)
                with contextlib.suppress(ValueError):  # mT of a vector
                    found |= kinds_of(getattr(x, name, None), x)
                views |= {name} if "view" in found else set()
                own |= {name} if "own" in found else set()
    assert views - {"real", "imag"} == METHODS
    assert own == set()


def test_an_array_in_memory_of_its_own_is_as_good_as_plain(arrays):
    """What C code makes of the class shows, computes and pickles as a plain array does."""
    x = arrays["numbers"][0]
    own = np.array(x, subok=True)
    assert not isinstance(own, LazyArray)
    assert not hasattr(own, "chunks")
    plain = np.array(x)
    assert repr(own) == repr(plain)
    assert type(own + 1) is type(np.sqrt(own)) is np.ndarray
    assert type(own.sum()) is np.float64
    assert type(pickle.loads(pickle.dumps(own))) is np.ndarray
    np.testing.assert_array_equal(own, plain)
    for made in (np.zeros_like(x), np.ones_like(x), np.full_like(x, 3), np.empty_like(x), x.copy()):
        assert type(made) is np.ndarray
        assert made.flags.owndata
    assert type(x.imag) is np.ndarray
    assert not x.imag.any()


def test_masked_arrays_are_of_plain_ones(tmp_path):
    """Their elements are asked for when one is made, so that a damaged chunk is an exception."""
    data = np.arange(12.0).reshape(4, 3)
    x = lazyarr.open(write_zarr(tmp_path / "x.zarr", data, chunks=(2, 3)))
    masked = np.ma.masked_array(x, data > 7)
    assert type(masked.data) is type((masked + 1).data) is np.ndarray
    assert x.residency().resident_nbytes == x.nbytes
    for copied in (copy.deepcopy(masked), copy.copy(masked), pickle.loads(pickle.dumps(masked))):
        np.testing.assert_array_equal(copied, masked)
    np.testing.assert_array_equal(masked.filled(0), np.where(data > 7, 0, data))
    (tmp_path / "x.zarr" / "c" / "1" / "0").write_bytes(b"damaged")
    x.evict()
    with pytest.raises(lazyarr.ChunkError):
        np.ma.masked_array(x, data > 7)


def test_an_array_without_a_store_has_no_attributes_of_one(arrays):
    """To ask for them is an AttributeError, as of any object, and one of lazyarr's."""
    orphan = np.arange(3).view(LazyArray)
    for name in ("chunks", "shards", "nchunks", "fill_value", "attrs", "url", "path", "nothing"):
        assert not hasattr(orphan, name)
        assert getattr(orphan, name, 7) == 7
    with pytest.raises(lazyarr.LazyarrError, match="has no store behind it"):
        orphan.chunks  # noqa: B018
    assert orphan.sum() == 3
    assert repr(orphan) == "array([0, 1, 2])"
