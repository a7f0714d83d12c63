"""NetCDF 4 files of netCDF-C: what netCDF4-python reads is what lazyarr maps."""

from __future__ import annotations

import os

import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyarr

# By this the package offers filters of its own to HDF5 in other libraries too, h5py's included,
# which would run them in tests that write what they like as parameters.
os.environ.pop("HDF5_PLUGIN_PATH", None)

DTYPES = ["i1", "u1", "<i2", ">i2", "u4", "<i4", "i8", "u8", "<f4", ">f4", "f8", "S1"]
# Without gaps, which netCDF4 leaves where C does.
RECORD = np.dtype([("x", "<f8"), ("v", "<i2", (2,)), ("n", "<i4")])


def dimensions(x):
    return x.dimension_names or ()


def assert_same(x, variable):
    """Compare an array with a variable as netCDF4 reads it: raw values, names, attributes."""
    expected = np.asarray(variable[...])
    assert x.shape == variable.shape
    assert dimensions(x) == variable.dimensions
    assert x.dtype == variable.dtype.newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(x[...]), expected)
    assert set(x.attrs) == set(variable.ncattrs())
    for name in variable.ncattrs():
        said = variable.getncattr(name)
        said = said.decode() if isinstance(said, bytes) else said
        np.testing.assert_array_equal(np.asarray(x.attrs[name]), np.asarray(said))


def compare(group, found):
    """Compare a group, and those below, with what netCDF4 has."""
    dimension_only = set(group.dimensions) - set(group.variables)
    assert set(found) == set(group.variables) | set(group.groups)
    assert not dimension_only & set(found)
    assert found.attrs == {name: group.getncattr(name) for name in group.ncattrs()}
    for name, variable in group.variables.items():
        assert_same(found[name], variable)
    for name, below in group.groups.items():
        compare(below, found[name])


def open_raw(path):
    file = netCDF4.Dataset(path)
    file.set_auto_maskandscale(False)
    file.set_auto_chartostring(False)
    return file


@st.composite
def variables(draw, lengths):
    """What a variable is made of: its type, dimensions, filters, chunks and fill value."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    names = tuple(draw(st.permutations(sorted(lengths)))[: draw(st.integers(0, len(lengths)))])
    names = tuple(sorted(names, key=lambda name: name != "x"))
    options = {}
    if names and draw(st.booleans()):
        options = {"zlib": True, "complevel": draw(st.integers(1, 9))}
        options["shuffle"] = draw(st.booleans())
    if names and draw(st.booleans()):
        options["fletcher32"] = True
    if names and draw(st.booleans()):
        options["chunksizes"] = tuple(draw(st.integers(1, lengths[name] or 3)) for name in names)
    if dtype.kind == "f" and draw(st.booleans()):
        options["least_significant_digit"] = draw(st.integers(0, 4))
    fill = draw(st.sampled_from([None, False, 5]))
    if fill is not None:
        options["fill_value"] = b"x" if dtype.kind == "S" and fill else fill
    if dtype.byteorder == ">":
        options["endian"] = "big"
    # Without a fill value, what was never written is whatever netCDF-C finds in memory.
    is_partial = fill is not False and draw(st.booleans())
    return dtype, names, options, draw(st.integers(0, 2**32)), is_partial


def write(group, name, lengths, drawn):
    dtype, names, options, seed, is_partial = drawn
    variable = group.createVariable(name, dtype, names, **options)
    variable.set_auto_maskandscale(False)
    shape = tuple(lengths[each] for each in names)
    random = np.random.default_rng(seed)
    if dtype.kind == "S":
        data = random.choice([b"a", b"b", b""], shape).astype("S1")
    else:
        data = (random.normal(size=shape) * 50).astype(dtype.newbyteorder("="))
    if is_partial and names:
        half = tuple(slice(n // 2) for n in shape[:1])
        variable[half] = data[half]
    else:
        variable[...] = data
    variable.units = "K"
    variable.levels = np.array([1, 2], "i4")
    variable.scale_factor = 0.5


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_what_netcdf_writes_is_what_it_reads(tmp_path, data):
    """Whatever dimensions, some without limit, types, filters, chunks and fill values."""
    lengths = {name: data.draw(st.integers(1, 9)) for name in "xyz"[: data.draw(st.integers(1, 3))]}
    # One, which variables have first: of others netCDF-C gives what it finds in memory for elements
    # that a longer variable has.
    unlimited = data.draw(st.sampled_from(["", "x"]))
    with netCDF4.Dataset(tmp_path / "x.nc", "w") as file:
        file.title = "text"
        file.number = np.float32(1.5)
        for name, length in lengths.items():
            file.createDimension(name, None if name == unlimited else length)
        below = file.createGroup("g/h")
        for k in range(4):
            group = below if k == 3 else file
            write(group, f"v{k}", lengths, data.draw(variables(lengths)))
        if data.draw(st.booleans()):
            name = sorted(lengths)[0]
            file.createVariable(name, "f8", (name,))[:] = np.arange(lengths[name]) / 2
    with open_raw(tmp_path / "x.nc") as expected, lazyarr.open(tmp_path / "x.nc") as found:
        compare(expected, found)


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF4_CLASSIC"])
def test_types_of_netcdf(tmp_path, form):
    """Chars, enums and compounds map; strings of any length and sequences say why not."""
    with netCDF4.Dataset(tmp_path / "x.nc", "w", format=form) as file:
        file.createDimension("n", 5)
        file.createDimension("time", None)
        file.createDimension("length", 4)
        names = file.createVariable("names", "S1", ("n", "length"))
        names[:] = netCDF4.stringtochar(np.array(["ab", "", "abcd", "x", "yz"], "S4"))
        file.createVariable("time", "f8", ("time",), zlib=True)[:] = np.arange(3.0)
        grown = file.createVariable("grown", "i4", ("time", "n"), fill_value=-1)
        grown[2, 1:3] = 7
        if form == "NETCDF4":
            kind = file.createEnumType("u1", "kind", {"clear": 0, "cloud": 1, "none": 255})
            file.createVariable("enum", kind, ("n",), fill_value=255)[:3] = [0, 1, 1]
            record = file.createCompoundType(RECORD, "record")
            rows = np.zeros(5, RECORD)
            rows["n"], rows["v"][:, 1] = np.arange(5), 3
            file.createVariable("records", record, ("n",), zlib=True)[:] = rows
            file.createVariable("text", str, ("n",))[0] = "some"
            file.createVariable("lists", file.createVLType("i4", "list"), ("n",))
    path = tmp_path / "x.nc"
    with open_raw(path) as expected, lazyarr.open(path) as found:
        assert set(found) == set(expected.variables)
        for name, variable in expected.variables.items():
            if name in ("text", "lists"):
                with pytest.raises(lazyarr.FormatError, match="of variable length"):
                    found[name]
            elif name == "records":
                assert np.asarray(found[name]).tobytes() == np.asarray(variable[:]).tobytes()
            elif name == "enum":
                assert found[name].tolist() == [0, 1, 1, 255, 255]
            else:
                assert_same(found[name], variable)


def test_what_netcdf_masks_and_scales_xarray_decodes_too(tmp_path):
    """From what lazyarr maps: the same numbers, and the same that are missing."""
    pytest.importorskip("xarray")
    values = np.ma.masked_less(np.arange(-3, 9, dtype="f8").reshape(3, 4) / 4, 0)
    with netCDF4.Dataset(tmp_path / "x.nc", "w") as file:
        file.createDimension("y", 3)
        file.createDimension("x", 4)
        packed = file.createVariable("packed", "i2", ("y", "x"), zlib=True, fill_value=-999)
        packed.scale_factor, packed.add_offset = 0.25, 10.0
        packed[:] = values
    with netCDF4.Dataset(tmp_path / "x.nc") as file:
        expected = file["packed"][:]
    found = lazyarr.open(tmp_path / "x.nc").to_xarray()["packed"]
    assert found.dims == ("y", "x")
    np.testing.assert_array_equal(np.isnan(found.values), expected.mask)
    np.testing.assert_array_equal(found.values[~expected.mask], expected.compressed())


def test_filters_that_netcdf_writes(tmp_path):
    """Those that it has itself, and numbers of which the last bits are zero."""
    data = np.round(np.random.default_rng(0).normal(size=(40, 30)) * 3).astype("f4")
    names = []
    with netCDF4.Dataset(tmp_path / "x.nc", "w") as file:
        file.createDimension("y", 40)
        file.createDimension("x", 30)
        for name in ("zlib", "szip"):
            try:
                made = file.createVariable(
                    name, "f4", ("y", "x"), compression=name, chunksizes=(16, 30)
                )
                made[:] = data
            except (RuntimeError, ValueError):  # built without it
                continue
            names.append(name)
        for mode in ("BitGroom", "GranularBitRound", "BitRound"):
            options = {"significant_digits": 3, "quantize_mode": mode, "zlib": True}
            file.createVariable(mode, "f4", ("y", "x"), **options)[:] = data
    assert "zlib" in names
    with open_raw(tmp_path / "x.nc") as expected, lazyarr.open(tmp_path / "x.nc") as found:
        for name in (*names, "BitGroom", "BitRound"):
            assert_same(found[name], expected[name])


def test_arrays_are_as_long_as_their_dimensions(tmp_path):
    """Where a dimension has no limit and another variable is longer; in groups below, too."""
    with netCDF4.Dataset(tmp_path / "x.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("n", 3)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(2.0)
        file.createVariable("long", "i4", ("n", "time"), chunksizes=(2, 4))[:, :] = np.ones((3, 9))
        short = file.createVariable("short", "i2", ("time", "n"), chunksizes=(2, 3), fill_value=-7)
        short[:3] = 5
        file.createVariable("none", "f4", ("time",))
        below = file.createGroup("g")
        below.createVariable("inner", "u1", ("time",), zlib=True, shuffle=True)[:4] = 1
        other = file.createGroup("h")
        other.createDimension("time", None)
        other.createVariable("own", "u1", ("time",))[:5] = 1
        never = file.createVariable("never", "i4", ("time",), fill_value=False)
        never[:2] = 1
    path = tmp_path / "x.nc"
    with open_raw(path) as expected, lazyarr.open(path) as found:
        for name in ("time", "long", "short", "none", "g/inner", "h/own"):
            assert_same(found[name], expected[name])
        assert found["short"].shape == (9, 3)
        assert found["h/own"].shape == (5,)
        with pytest.raises(lazyarr.FormatError, match="no fill value for what is missing"):
            found["never"]
    assert dict(lazyarr.open(path).to_xarray().sizes) == {"time": 9, "n": 3}
