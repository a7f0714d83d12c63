"""The files that ``lazyarr convert`` writes: what each format has around the elements.

The elements of an array are one run of bytes in all of them.  So a writer makes a file in which the
runs have their places and hold nothing yet, and says where they are; what fills them knows no
format (`lazyarr.cli.exporting`), and can go on where it was stopped.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy

from lazyarr.errors import FormatError
from lazyarr.formats.safetensors import TYPES

if TYPE_CHECKING:
    from lazyarr.formats.base import ArrayDescription

__all__ = ["WRITERS", "FileWriter", "Outgoing"]

_BLOCK_NBYTES = 1 << 20  # of what is read at once
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # the same arrays give the same archive

_OF_ELEMENTS = frozenset(["missing_value", "valid_min", "valid_max", "valid_range"])

_Groups: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The attributes of all groups by path, parents first."""


class Outgoing(NamedTuple):
    """An array on its way to a file.

    Attributes
    ----------
    name : str
        Its path in the file.
    path : str
        Its path in the source.
    found : ArrayDescription
        What it is there, in the machine's byte order.
    """

    name: str
    path: str
    found: ArrayDescription

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths, in elements."""
        return self.found.shape

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """Its elements."""
        return self.found.dtype.to_numpy()

    @property
    def nbytes(self) -> int:
        """The size of its elements."""
        return self.found.nbytes

    def attributes(self) -> dict[str, Any]:
        """Return its attributes, numbers in the types that the source has them in.

        Where it does not tell, those that are elements by the CF conventions have that type.
        """
        kept: dict[str, Any] = dict(self.found.attributes)
        if self.found.dimension_names is not None:
            kept.pop("_ARRAY_DIMENSIONS", None)  # of Zarr v2, which has no other place for them
        said = self.found.document.get("attribute_types", {})
        for name in kept.keys() & said:
            kept[name] = numpy.asarray(kept[name]).astype(said[name])[()]
        for name in kept.keys() & _OF_ELEMENTS - said.keys():
            element = _as_element(kept[name], self.dtype)
            if numpy.array_equal(element, kept[name]):
                kept[name] = element
        missing = self.found.missing_value
        if missing is not None:
            kept["_FillValue"] = _as_element(missing, self.dtype)
        return kept


class FileWriter(NamedTuple):
    """How files of a format are written.

    Attributes
    ----------
    called : str
        What people call such files.
    suffixes : tuple of str
        How their names end.
    find_unfit : callable
        Gives what says of an array why such a file cannot hold it; None where it can.
    make : callable
        Writes a file of some arrays and groups but for the elements, and returns where those of
        each array begin.
    place : callable
        Returns the path by which `lazyarr.open` knows an array, from the array, its number and how
        many there are.
    finish : callable
        Writes what depends on the elements, when they are there.
    root_name : str
        What an array is called that has no name.
    keeps_attributes : bool
        Whether such files have a place for them.
    keeps_names : callable
        Says of some names of axes whether such files have a place for them.
    """

    called: str
    suffixes: tuple[str, ...]
    find_unfit: Callable[[], Callable[[ArrayDescription], str | None]]
    make: Callable[[str, Sequence[Outgoing], _Groups], list[int]]
    place: Callable[[Outgoing, int, int], str | None] = lambda array, _, __: array.name
    finish: Callable[[str, Sequence[Outgoing], Sequence[int]], None] = lambda *_: None
    root_name: str = "array"
    keeps_attributes: bool = False
    keeps_names: Callable[[Sequence[str | None]], bool] = lambda _: False


def _as_element(value: Any, dtype: numpy.dtype[Any]) -> Any:
    """Return a value as an element of some type; as it is where it is none."""
    try:
        found = numpy.asarray(value).astype(dtype)
    except (ValueError, TypeError, OverflowError):
        return value
    return found[()] if found.ndim == 0 else found


def _unfit_types(
    called: str, has: Callable[[numpy.dtype[Any]], bool]
) -> Callable[[ArrayDescription], str | None]:
    """Return what says of an array that files do not have its type."""

    def find(array: ArrayDescription) -> str | None:
        dtype = array.dtype.to_numpy()
        return None if has(dtype) else f"it is of dtype {dtype}, which {called} files do not have"

    return find


def _stretch(file: IO[bytes], nbytes: int) -> None:
    """Have a file be as long as this, or longer."""
    file.flush()
    if os.fstat(file.fileno()).st_size < nbytes:
        os.ftruncate(file.fileno(), nbytes)


# --- .npy, .npz -----------------------------------------------------------------------


def _find_unfit_npy() -> Callable[[ArrayDescription], str | None]:
    from numpy.lib import format as numpy_format

    def has(dtype: numpy.dtype[Any]) -> bool:
        return bool(numpy_format.descr_to_dtype(numpy_format.dtype_to_descr(dtype)) == dtype)

    return _unfit_types(".npy", has)


def _make_npy(path: str, arrays: Sequence[Outgoing], _: _Groups) -> list[int]:
    if len(arrays) != 1:
        raise ValueError(
            f"a .npy file holds one array, and there are {len(arrays)}; convert SRC/PATH of one of "
            "them, or write a .npz file"
        )
    with open(path, "wb") as file:
        _write_npy_header(file, arrays[0])
        start = file.tell()
        _stretch(file, start + arrays[0].nbytes)
    return [start]


def _write_npy_header(file: IO[bytes], array: Outgoing) -> None:
    from numpy.lib import format as numpy_format

    header = {
        "descr": numpy_format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    try:
        numpy_format.write_array_header_1_0(file, header)
    except ValueError:  # a long one
        numpy_format.write_array_header_2_0(file, header)


def _make_npz(path: str, arrays: Sequence[Outgoing], _: _Groups) -> list[int]:
    starts = []
    with open(path, "wb") as file:
        for array in arrays:
            member = _member(array)
            begins = file.tell()
            file.write(member.FileHeader(zip64=True))
            after = file.tell()
            _write_npy_header(file, array)
            starts.append(file.tell())
            # Its size is known now, and stands before it.
            member.file_size = member.compress_size = starts[-1] - after + array.nbytes
            file.seek(begins)
            file.write(member.FileHeader(zip64=True))
            file.seek(starts[-1] + array.nbytes)
            _stretch(file, file.tell())
    return starts


def _member(array: Outgoing) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{array.name}.npy", _FIRST_TIME)
    member.external_attr = 0o644 << 16
    member.CRC = 0
    return member


def _finish_npz(path: str, arrays: Sequence[Outgoing], starts: Sequence[int]) -> None:
    """Write checksums of all members, and the directory."""
    with open(path, "r+b") as file:
        begins, members = 0, []
        for array, start in zip(arrays, starts, strict=True):
            member = _member(array)
            member.header_offset = begins
            after = begins + len(member.FileHeader(zip64=True))
            begins = start + array.nbytes
            member.file_size = member.compress_size = begins - after
            member.CRC = _checksum(file, after, begins)
            file.seek(member.header_offset)
            file.write(member.FileHeader(zip64=True))
            members.append(member)
        file.seek(begins)
        file.truncate()  # of a writer that was stopped here
        # At the end of what is there: it writes the directory alone.
        with zipfile.ZipFile(file, "w") as archive:
            archive.filelist.extend(members)


def _checksum(file: IO[bytes], start: int, stop: int) -> int:
    found = 0
    file.seek(start)
    while start < stop and (part := file.read(min(_BLOCK_NBYTES, stop - start))):
        found = zlib.crc32(part, found)
        start += len(part)
    return found


# --- safetensors ----------------------------------------------------------------------


def _find_unfit_safetensors() -> Callable[[ArrayDescription], str | None]:
    return _unfit_types("safetensors", _safetensors_words().__contains__)


def _safetensors_words() -> dict[numpy.dtype[Any], str]:
    return {found.to_numpy(): word for word, found in TYPES.items() if _has_numpy(found)}


def _has_numpy(found: Any) -> bool:
    try:
        found.to_numpy()
    except FormatError:  # ml_dtypes is not installed
        return False
    return True


def _make_safetensors(path: str, arrays: Sequence[Outgoing], groups: _Groups) -> list[int]:
    words = _safetensors_words()
    header: dict[str, Any] = {}
    texts = {name: text for name, text in groups.get("", {}).items() if isinstance(text, str)}
    if texts:
        header["__metadata__"] = texts
    starts, stop = [], 0
    for array in arrays:
        start, stop = stop, stop + array.nbytes
        header[array.name] = {
            "dtype": words[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
        starts.append(start)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that elements lie where processors want them
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        first = file.tell()
        _stretch(file, first + stop)
    return [first + start for start in starts]


# --- HDF5 -----------------------------------------------------------------------------

# The first in which attributes may be larger than 64 KiB; HDF5 1.8 reads it, and so netCDF-C does.
_HDF5_VERSIONS = ("v108", "v108")


def _import(library: str, called: str, extra: str) -> Any:
    """Return the library that writes files of some format."""
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise FormatError(
            f"cannot write {called} files: {library} is not installed; "
            f"pip install 'lazyarr[{extra}]'"
        ) from error


def _h5py(called: str) -> Any:
    return _import("h5py", called, "hdf5")


def _find_unfit_hdf5() -> Callable[[ArrayDescription], str | None]:
    h5py = _h5py("HDF5")

    def has(dtype: numpy.dtype[Any]) -> bool:
        try:
            h5py.h5t.py_create(dtype, logical=True)
        except TypeError:
            return False
        return True

    return _unfit_types("HDF5", has)


def _make_hdf5(path: str, arrays: Sequence[Outgoing], groups: _Groups) -> list[int]:
    h5py = _h5py("HDF5")
    with h5py.File(path, "w", libver=_HDF5_VERSIONS) as file:
        for name, attributes in groups.items():
            _set_attributes(file.require_group(name or "/"), attributes)
        starts = []
        for array in arrays:
            made = _make_dataset(file, array.name, array)
            _set_attributes(made, array.attributes())
            for axis, label in enumerate(array.found.dimension_names or ()):
                if label is not None:
                    made.dims[axis].label = label
            starts.append(made.id.get_offset() or 0)
    _stretch_to(path, arrays, starts)
    return starts


def _make_dataset(file: Any, name: str, array: Outgoing) -> Any:
    """Return a new dataset whose elements have their place in the file, and are not written."""
    from h5py import Dataset, h5d, h5p, h5s, h5t

    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_layout(h5d.CONTIGUOUS)
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    creation.set_fill_value(numpy.asarray(array.found.fill_value, array.dtype))
    above, _, last = name.rpartition("/")
    group = file.require_group(above) if above else file
    kind = h5t.py_create(array.dtype, logical=True)
    space = h5s.create_simple(array.shape) if array.shape else h5s.create(h5s.SCALAR)
    return Dataset(h5d.create(group.id, last.encode(), kind, space, creation))


def _stretch_to(path: str, arrays: Sequence[Outgoing], starts: Sequence[int]) -> None:
    stops = [start + array.nbytes for array, start in zip(arrays, starts, strict=True)]
    with open(path, "r+b") as file:
        _stretch(file, max(stops, default=0))


def _set_attributes(node: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        try:
            node.attrs[name] = value
        except (TypeError, ValueError):
            # What HDF5 has no type for, as objects in lists have none.
            node.attrs[name] = json.dumps(value)


# --- NetCDF 4 -------------------------------------------------------------------------

_NETCDF_TYPES = frozenset(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "S1"])
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable. {:9d}"
# Of NetCDF's own, by which it would take the file for another.
_NETCDF_OWN = frozenset(
    ["CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Coordinates", "_Netcdf4Dimid"]
)


class _Dimension(NamedTuple):
    """A dimension of NetCDF: a name has one length in a group, and in those below."""

    group: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.group}/{self.name}".lstrip("/")


def _find_unfit_netcdf() -> Callable[[ArrayDescription], str | None]:
    _h5py("NetCDF")
    return _unfit_types("NetCDF", lambda dtype: dtype.str[1:] in _NETCDF_TYPES)


def _make_netcdf(path: str, arrays: Sequence[Outgoing], groups: _Groups) -> list[int]:
    """Write what NetCDF has around the elements ("NetCDF-4 Format", Unidata)."""
    h5py = _h5py("NetCDF")
    lengths, axes = _find_dimensions(arrays, groups)
    with h5py.File(path, "w", libver=_HDF5_VERSIONS, track_order=True) as file:
        versions = f"hdf5={h5py.version.hdf5_version},h5py={h5py.__version__}"
        file.attrs["_NCProperties"] = numpy.bytes_(f"version=2,{versions}")
        for name, attributes in groups.items():
            group = file.create_group(name, track_order=True) if name else file
            _set_netcdf_attributes(group, attributes)
        made, scales = [], {}
        for array, dimensions in zip(arrays, axes, strict=True):
            above, _, last = array.name.rpartition("/")
            own = _Dimension(above, last)
            if own in lengths and dimensions != [own]:
                last = f"_nc4_non_coord_{last}"  # a dimension has the name
            made.append(_make_dataset(file, f"{above}/{last}".lstrip("/"), array))
            _set_netcdf_attributes(made[-1], array.attributes())
            if dimensions == [own]:
                scales[own] = made[-1]
                made[-1].make_scale(last)
        for number, (dimension, length) in enumerate(lengths.items()):
            if dimension not in scales:
                scales[dimension] = file.create_dataset(dimension.path, (length,), ">f4")
                scales[dimension].make_scale(_BARE_DIMENSION.format(length))
            scales[dimension].attrs["_Netcdf4Dimid"] = numpy.int32(number)
        for array, dataset, dimensions in zip(arrays, made, axes, strict=True):
            if [each.path for each in dimensions] != [array.name]:
                for axis, dimension in enumerate(dimensions):
                    dataset.dims[axis].attach_scale(scales[dimension])
        starts = [dataset.id.get_offset() or 0 for dataset in made]
    _stretch_to(path, arrays, starts)
    return starts


def _find_dimensions(
    arrays: Sequence[Outgoing], groups: _Groups
) -> tuple[dict[_Dimension, int], list[list[_Dimension]]]:
    """Return the lengths of all dimensions, and those of each array.

    An axis has the dimension of its name that is in the array's group or above it.  Axes without
    names get those that `LazyArray.to_xarray` gives them, for NetCDF has no others.
    """
    lengths: dict[_Dimension, int] = {}
    found: dict[str, list[_Dimension]] = {}
    for array in sorted(arrays, key=lambda array: array.name.count("/")):
        above, _, last = array.name.rpartition("/")
        labels = array.found.dimension_names or (None,) * len(array.shape)
        found[array.name] = []
        for axis, (label, length) in enumerate(zip(labels, array.shape, strict=True)):
            name = label if label and "/" not in label else f"{last}_dim_{axis}"
            dimension = _in_scope(_Dimension(above, name), length, lengths)
            if lengths.setdefault(dimension, length) != length or dimension.path in groups:
                other = f"another array of its group has {lengths[dimension]} there"
                if dimension.path in groups:
                    other = "a group has that name"
                raise FormatError(
                    f"cannot write array {array.path or '/'!r}: it has {length} elements along "
                    f"{name!r}, and {other}; a NetCDF file cannot have both: name its axes "
                    "otherwise, or write HDF5 (.h5)",
                    path=array.path,
                )
            found[array.name].append(dimension)
    return lengths, [found[array.name] for array in arrays]


def _in_scope(wanted: _Dimension, length: int, lengths: Mapping[_Dimension, int]) -> _Dimension:
    """Return the nearest dimension of a name above a group, if it has the length; else its own."""
    group = wanted.group
    while (dimension := _Dimension(group, wanted.name)) not in lengths and group:
        group = group.rpartition("/")[0]
    return dimension if lengths.get(dimension) == length else wanted


def _set_netcdf_attributes(node: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        if name not in _NETCDF_OWN and not name.lower().startswith("_nc"):
            node.attrs[name] = _netcdf_attribute(value)


def _netcdf_attribute(value: Any) -> Any:
    """Return a value as NetCDF has attributes: a text, texts, or numbers; other ones as JSON."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list | tuple) and texts and all(isinstance(v, str) for v in texts):
        if any("\0" in text for text in texts):  # where HDF5's texts end
            return numpy.bytes_(json.dumps(value).encode())
        if isinstance(value, str) and value.isascii() and value:
            # Of characters, as older tools expect it; HDF5 has no such text of no characters.
            return numpy.bytes_(value.encode())
        return value
    try:
        found = numpy.asarray(value)
    except ValueError:  # lists of different lengths
        found = numpy.asarray(None)
    if found.dtype.kind == "b":
        found = found.astype("i1")
    if found.dtype.str[1:] in _NETCDF_TYPES and found.ndim < 2 and found.size:
        return found[()]
    plain = value.tolist() if hasattr(value, "tolist") else value
    return numpy.bytes_(json.dumps(plain).encode())


# --- TIFF -----------------------------------------------------------------------------

_TIFF_TYPES = frozenset(
    ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
)
_DIRECTORY_NBYTES = 512  # of one image, or more than that
_COLOURS = ("u1", "u2")
_NAMES_OF_COLOURS = ("s", "c", "sample", "samples", "channel", "channels", "band", "rgb", "rgba")
_MOST_OF_TIFF_NBYTES = 2**32 - 2**25  # places have four bytes


def _find_unfit_tiff() -> Callable[[ArrayDescription], str | None]:
    _tifffile()
    by_type = _unfit_types("TIFF", lambda dtype: dtype.str[1:] in _TIFF_TYPES)

    def find(array: ArrayDescription) -> str | None:
        if len(array.shape) < 2 or not array.nbytes:
            return f"its shape is {array.shape}, and TIFF files hold images, of two axes or more"
        return by_type(array)

    return find


def _tifffile() -> Any:
    return _import("tifffile", "TIFF", "tiff")


def _make_tiff(path: str, arrays: Sequence[Outgoing], _: _Groups) -> list[int]:
    """Write directories of all images, as tifffile does."""
    n_images = sum(math.prod(a.shape[: -3 if _is_coloured(a) else -2]) for a in arrays)
    nbytes = sum(array.nbytes for array in arrays) + _DIRECTORY_NBYTES * n_images
    is_big = nbytes > _MOST_OF_TIFF_NBYTES
    starts = []
    with _tifffile().TiffWriter(path, bigtiff=is_big) as file:
        for array in arrays:
            said: dict[str, Any] = {"name": array.path} if array.path.isascii() else {}
            axes = _letters(array.found.dimension_names)
            if axes is not None:
                said["axes"] = axes
            start, _nbytes = file.write(
                shape=array.shape,
                dtype=array.dtype,
                photometric="rgb" if _is_coloured(array) else "minisblack",
                contiguous=False,
                metadata=said,
                software=False,
                returnoffset=True,
            )
            starts.append(start)
    _stretch_to(path, arrays, starts)
    return starts


def _is_coloured(array: Outgoing) -> bool:
    """Return whether the last axis of an array is that of red, green and blue."""
    is_fit = len(array.shape) > 2 and array.shape[-1] in (3, 4) and array.dtype.str[1:] in _COLOURS
    label = (array.found.dimension_names or (None,))[-1]
    return is_fit and (label is None or label.lower() in _NAMES_OF_COLOURS)


def _letters(names: Sequence[str | None] | None) -> str | None:
    """Return names of axes as TIFF has them, a letter for each; None where they are none.

    Examples
    --------
    >>> _letters(("t", "Y", "x")), _letters(("time", "y", "x")), _letters(None)
    ('TYX', None, None)
    """
    letters = "".join(name or "" for name in names or ()).upper()
    is_one_each = all(name and len(name) == 1 for name in names or ())
    is_fit = letters.isascii() and letters.isalpha() and len({*letters}) == len(letters)
    return letters if names and is_one_each and is_fit else None


def _place_in_tiff(_: Outgoing, number: int, count: int) -> str | None:
    return None if count == 1 else str(number)


WRITERS = {
    "npy": FileWriter(".npy", (".npy",), _find_unfit_npy, _make_npy, place=lambda *_: None),
    "npz": FileWriter(
        ".npz", (".npz",), _find_unfit_npy, _make_npz, finish=_finish_npz, root_name="arr_0"
    ),
    "safetensors": FileWriter(
        "safetensors", (".safetensors",), _find_unfit_safetensors, _make_safetensors
    ),
    "hdf5": FileWriter(
        "HDF5",
        (".h5", ".hdf5", ".he5"),
        _find_unfit_hdf5,
        _make_hdf5,
        keeps_attributes=True,
        keeps_names=lambda _: True,
    ),
    "netcdf": FileWriter(
        "NetCDF",
        (".nc", ".nc4"),
        _find_unfit_netcdf,
        _make_netcdf,
        keeps_attributes=True,
        keeps_names=lambda _: True,
    ),
    "tiff": FileWriter(
        "TIFF",
        (".tif", ".tiff", ".btf"),
        _find_unfit_tiff,
        _make_tiff,
        _place_in_tiff,
        keeps_names=lambda names: _letters(names) is not None,
    ),
}
"""How files are written, by format."""
