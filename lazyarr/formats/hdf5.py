"""HDF5, and so NetCDF 4: one file with groups, attributes and arrays in chunks.

Source: HDF5 File Format Specification 3.0, and what h5py says of a file; for NetCDF the notes on
its format ("NetCDF-4 Format", Unidata), and h5netcdf.

h5py lists what a file holds and where each chunk lies, once, when the file is opened.  It reads
through the store as everything else does.  The chunks themselves are read and decoded by the
pager, as those of any format are: several at a time, and without HDF5's lock.
"""

from __future__ import annotations

import contextlib
import math
import struct
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lazyarr.checks import as_shape, bounded_product, shown
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.registry import make_codec
from lazyarr.errors import FormatError
from lazyarr.formats.base import GroupDescription
from lazyarr.formats.object_file import ListedFormat, ObjectFile, reason
from lazyarr.formats.paths import join_path
from lazyarr.formats.runs import run_chunks
from lazyarr.formats.tables import ListedArray, check_count, check_end, named_type
from lazyarr.layout.datatype import DataType, Field, parse_data_type_document
from lazyarr.layout.entries import Entries, Entry
from lazyarr.layout.pipeline import Pipeline
from lazyarr.shortage import is_shortage
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lazyarr.codecs.base import BytesCodec
    from lazyarr.formats.base import Node, ObjectReader

__all__ = ["FORMAT", "Hdf5Array", "Hdf5Group"]

# How long a header of an object with compact elements may be: these have 64 KiB, at most.
_MAX_HEADER_NBYTES = 2**17
# What is cut into no chunks, and must be decoded, is one chunk.
_MAX_WHOLE_NBYTES = 2**28

# Reads of h5py are short and near one another.  Over a network each costs a round trip, in which a
# megabyte could have come.
_LOCAL_BLOCK_NBYTES = 64 << 10
_REMOTE_BLOCK_NBYTES = 1 << 20

# A global heap (H5HGpkg.h): the size of all of it, then objects, each with its number and size.
_HEAP_MAGIC = b"GCOL"
_HEAP_HEADER = struct.Struct("<4sB3xQ")
_HEAP_OBJECT = struct.Struct("<H6xQ")

_REWRITE = "write it anew with h5py or h5repack"
_READ_OTHERWISE = "read it with h5py"

# --- what a file holds ----------------------------------------------------------------


class Hdf5Group(GroupDescription):
    """A group of an HDF5 file.

    Attributes
    ----------
    path, attributes, format_name
        As of `GroupDescription`.
    """

    path: str
    attributes: dict[str, Any]
    format_name: tuple[str, str]

    consolidated = None


class Hdf5Array(ListedArray):
    """A dataset of an HDF5 file.

    Attributes
    ----------
    path, shape, dtype, attributes, dimension_names, fill, document, format_name, swap
        As of `ArrayDescription`.
    key, start, chunk_shape, entries, codecs, is_padded
        As of `ListedArray`.
    """

    @property
    def missing_value(self) -> Any:
        """What means "missing" by the CF conventions; None where nothing does."""
        said = super().missing_value
        return said.encode() if isinstance(said, str) else said


class _File(ObjectFile):
    """A file for h5py, whose heaps are checked as they are read."""

    def __init__(self, objects: ObjectReader, key: str, nbytes: int) -> None:
        is_local = objects.url.startswith("file:")
        block_nbytes = _LOCAL_BLOCK_NBYTES if is_local else _REMOTE_BLOCK_NBYTES
        super().__init__(objects, key, nbytes, block_nbytes=block_nbytes)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the object goes."""
        start, nbytes = self.tell(), super().readinto(buffer)
        if nbytes > _HEAP_HEADER.size and memoryview(buffer).cast("B")[:4] == _HEAP_MAGIC:
            self._check_heap(start)
        return nbytes

    def _check_heap(self, start: int) -> None:
        """Refuse a heap of strings, and the like, in which HDF5 would go round for ever.

        It goes from object to object by their sizes (`H5HG__cache_heap_deserialize`), also by one
        of zero, or by one so large that the sum begins anew.
        """
        _, version, nbytes = _HEAP_HEADER.unpack(self.bytes_at(start, start + _HEAP_HEADER.size))
        # Sizes may have other than 8 bytes, which no library writes.
        heap = self.bytes_at(start, start + nbytes) if version == 1 else b""
        at = _HEAP_HEADER.size
        while at + _HEAP_OBJECT.size <= len(heap):
            number, size = _HEAP_OBJECT.unpack_from(heap, at)
            # Number 0 is what is free, and counts from its own header on.
            step = size if not number else _HEAP_OBJECT.size + -(-size // 8) * 8
            if step < _HEAP_OBJECT.size or step > len(heap) - at:
                raise self.refuse(
                    f"its heap at byte {start} has an object of {size} bytes at byte {at} of"
                    f" {nbytes}: it is damaged; copy it again"
                )
            at += step


def _check_magic(file: ObjectFile) -> None:
    """Refuse what is often given the name of an HDF5 file."""
    if file.bytes_at(0, 3) == b"CDF":
        raise FormatError(
            "it is a NetCDF file of the classic format, which is no HDF5; make one of NetCDF 4 of"
            " it with 'nccopy -k nc4', or open it with xarray and give it to lazyarr.save"
        )


def _h5py() -> Any:
    # Here: it takes a tenth of a second, and most processes open other formats.
    try:
        import h5py
    except ImportError as error:
        if is_shortage(error):
            raise
        raise FormatError(
            "h5py, which finds what HDF5 files hold, is not installed; pip install 'lazyarr[hdf5]'"
        ) from error
    return h5py


def _describe(file: _File) -> dict[str, Node | FormatError]:
    _check_magic(file)
    with _h5py().File(file, "r") as opened:
        return _Survey(opened, file).nodes()


FORMAT = ListedFormat(_File, _describe)


class _Survey:
    """All nodes of an opened file.

    Parameters
    ----------
    opened : h5py.File
        The file.
    file : ObjectFile
        The same, as bytes.
    """

    def __init__(self, opened: Any, file: ObjectFile) -> None:
        self._opened = opened
        self._file = file
        self._key = key = file.key
        self._found: dict[str, Node | FormatError] = {}
        # By an object's address: a group or a dataset may have several paths.
        self._paths: dict[int, str] = {}
        self._soft: dict[str, str] = {}
        self._dimension_ids: dict[int, str] = {}
        self._coordinates: dict[str, tuple[int, ...]] = {}
        # Of arrays that grow: for each axis without a limit, the path of its dimension.
        self._growing: dict[str, tuple[str | None, ...]] = {}
        self._unfilled: set[str] = set()
        is_named_so = key.lower().endswith((".nc", ".nc4"))
        self._is_netcdf = is_named_so or "_NCProperties" in opened.attrs
        self._format_name = ("netcdf", "4") if self._is_netcdf else ("hdf5", _version(opened))

    def nodes(self) -> dict[str, Node | FormatError]:
        """Return the nodes by their paths; the root is ""."""
        waiting = [("", self._opened["/"])]
        self._enter(self._opened["/"], "")
        while waiting:
            path, group = waiting.pop()
            try:
                waiting += self._enter_group(group, path)
            except Exception as error:  # noqa: BLE001 - raised where it is not the node's
                self._refuse(path, error)
        self._name_dimensions()
        self._grow()
        for path, target in self._soft.items():
            self._found[path] = self._follow(path, target)
        return self._found

    def _enter_group(self, group: Any, path: str) -> list[tuple[str, Any]]:
        """Take in a group and its datasets; return the groups below it, with their paths."""
        attributes = _plain_attributes(_read_attributes(group), is_netcdf=self._is_netcdf)
        self._found[path] = Hdf5Group(path, attributes, self._format_name)
        groups = []
        for name in group:
            shown = _readable(name)
            # A variable that is called as a dimension of NetCDF, and is not its coordinate.
            shown = shown.removeprefix("_nc4_non_coord_") if self._is_netcdf else shown
            child = join_path(path, shown)
            try:
                below = self._child(group, name, child)
            except Exception as error:  # noqa: BLE001 - raised where it is not the node's
                self._refuse(child, error)
            else:
                if below is not None:
                    groups.append((child, below))
        return groups

    def _refuse(self, path: str, error: Exception) -> None:
        """Note why a node cannot be mapped; raise what the whole file fails with."""
        if self._file.failure is not None:
            raise self._file.failure
        if is_shortage(error):
            raise error
        if not isinstance(error, FormatError):
            error = FormatError(f"it cannot be read: {reason(error)}")
        self._found[path] = FormatError(f"cannot map '/{path}': {error.message}", path=path)

    def _enter(self, node: Any, path: str) -> str | None:
        """Note an object's path; return the one that it has already."""
        address = _h5py().h5o.get_info(node.id).addr
        known = self._paths.get(address)
        if known is None:
            self._paths[address] = path
        return known

    def _child(self, group: Any, name: str, path: str) -> Any:
        """Take in what a link leads to; return it if it is a group that is new."""
        h5py = _h5py()
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):
            target = _readable(link.path)
            is_absolute = target.startswith("/")
            self._soft[path] = target if is_absolute else join_path(_parent(path), target)
            return None
        if isinstance(link, h5py.ExternalLink):
            raise FormatError(
                f"it is a link to {shown(link.path)} in another file, {shown(link.filename)};"
                " open that file"
            )
        node = group[name]
        if not isinstance(node, h5py.Group | h5py.Dataset):
            return None  # a data type with a name
        known = self._enter(node, path)
        if isinstance(node, h5py.Group):
            if known is None:
                return node
            raise FormatError(f"it is the group {known or '/'!r}, by another link; open that")
        same = None if known is None else self._found.get(known)
        if isinstance(same, Hdf5Array):
            self._found[path] = same._replace(path=path)
            return None
        said = _read_attributes(node)
        # First: what cannot be mapped, as text, names axes of others all the same.
        self._note_dimension(said, path)
        if not (self._is_netcdf and _is_bare_dimension(said)):
            self._found[path] = self._array(node, path, said)
            self._note_growth(node, path, said)
        return None

    def _follow(self, path: str, target: str) -> Node | FormatError:
        """Return the node to which a soft link leads."""
        seen = {path}
        wanted = join_path(target)
        while wanted in self._soft and wanted not in seen:
            seen.add(wanted)
            wanted = join_path(self._soft[wanted])
        found = self._found.get(wanted)
        if isinstance(found, Hdf5Array):
            return found._replace(path=path)
        if isinstance(found, Hdf5Group):
            why = "a group; open that"
        else:
            why = "what cannot be mapped" if found is not None else "nothing that can be found"
        return FormatError(f"cannot map '/{path}': it is a link to {target!r}, {why}", path=path)

    # --- dimensions of NetCDF -------------------------------------------------------------

    def _note_dimension(self, said: Mapping[str, Any], path: str) -> None:
        """Note what a dataset says of dimensions by their numbers, as NetCDF writes it."""
        number = said.get("_Netcdf4Dimid")
        if number is not None and _is_scale(said):
            self._dimension_ids[int(number)] = _last(path)
        coordinates = said.get("_Netcdf4Coordinates")
        if coordinates is not None:
            self._coordinates[path] = tuple(int(n) for n in coordinates)

    def _name_dimensions(self) -> None:
        """Name the axes of datasets that are scales themselves, of several axes."""
        for path, numbers in self._coordinates.items():
            found = self._found.get(path)
            if isinstance(found, Hdf5Array) and len(numbers) == len(found.shape) > 1:
                names = tuple(self._dimension_ids.get(number) for number in numbers)
                self._found[path] = found._replace(dimension_names=names)

    def _note_growth(self, node: Any, path: str, said: Mapping[str, Any]) -> None:
        """Note the axes of an array of NetCDF of which its dataset may not have the length yet."""
        if self._is_netcdf and None in node.maxshape:
            is_own = _is_scale(said) and len(node.shape) == 1
            scales = [path] if is_own else list(_scale_paths(node, said))
            scales += [None] * (len(node.shape) - len(scales))
            sides = zip(scales, node.maxshape, strict=False)
            self._growing[path] = tuple(s if most is None else None for s, most in sides)
            if not _fills(node.id.get_create_plist()):
                self._unfilled.add(path)

    def _grow(self) -> None:
        """Have arrays of NetCDF be as long as their dimensions.

        A dimension without a limit is as long as the longest array that has it (netCDF-C,
        `nc4_find_dim_len`).  The others read as the fill value behind their own end.
        """
        lengths: dict[str, int] = {}
        growing = {p: s for p, s in self._growing.items() if isinstance(self._found[p], Hdf5Array)}
        for path, scales in growing.items():
            for scale, n in zip(scales, self._found[path].shape, strict=True):  # type: ignore[union-attr]
                if scale is not None:
                    lengths[scale] = max(n, lengths.get(scale, 0))
        for path, scales in growing.items():
            array: Any = self._found[path]
            sides = zip(scales, array.shape, strict=True)
            shape = tuple(n if s is None else lengths[s] for s, n in sides)
            if shape != array.shape:
                try:
                    self._found[path] = _grown(array, shape, fills=path not in self._unfilled)
                except FormatError as error:
                    self._refuse(path, error)

    # --- datasets -------------------------------------------------------------------------

    def _array(self, node: Any, path: str, said: Mapping[str, Any]) -> Hdf5Array:
        if node.shape is None:
            raise FormatError("it has no elements, not even one: its dataspace is null")
        dtype, mending = _data_type(node.id.get_type())
        shape = as_shape(list(node.shape), "shape")
        bounded_product((*shape, dtype.itemsize), "the array")
        stored = _find_storage(node, shape, dtype, self._file, self._opened.userblock_size)
        if mending is not None and stored.is_stored:
            stored = _mended(stored, shape, dtype, mending)
        fill = _fill_value(node.id.get_create_plist(), dtype)
        return Hdf5Array(
            path=path,
            shape=shape,
            dtype=dtype,
            attributes=_plain_attributes(said, is_netcdf=self._is_netcdf),
            dimension_names=_dimension_names(node, path, said),
            fill=fill.tobytes(),
            document={
                "codecs": list(stored.filters) or ["none"],
                "fill_value": _shown_element(fill),
                "attribute_types": _attribute_types(said),
            },
            format_name=self._format_name,
            key=self._key,
            start=stored.start,
            chunk_shape=stored.chunk_shape,
            entries=stored.entries,
            codecs=stored.codecs,
        )


def _fills(creation: Any) -> bool:
    """Return whether what was never written is the fill value, also beyond the end, in chunks."""
    from h5py import h5d

    is_defined = creation.fill_value_defined() != h5d.FILL_VALUE_UNDEFINED
    return bool(is_defined and creation.get_fill_time() != h5d.FILL_TIME_NEVER)


def _grown(array: Hdf5Array, shape: tuple[int, ...], *, fills: bool) -> Hdf5Array:
    """Return an array with more elements, which read as the fill value."""
    import numpy as np

    if not fills:
        raise FormatError(
            f"it has the shape {array.shape}, its dimensions {shape}, and no fill value for what is"
            f" missing; {_READ_OTHERWISE}"
        )
    bounded_product((*shape, array.dtype.itemsize), "the array")
    old, new = (
        tuple(-(-n // c) for n, c in zip(lengths, array.chunk_shape, strict=True))
        for lengths in (array.shape, shape)
    )
    entries: list[Entry] = [None] * _count_chunks(shape, array.chunk_shape)
    coordinates = np.unravel_index(np.arange(math.prod(old)), old) if math.prod(old) else None
    if coordinates is not None:
        places = np.ravel_multi_index(coordinates, new).tolist()
        for place, entry in zip(places, array.entries, strict=True):
            entries[place] = entry
    return array._replace(shape=shape, entries=Entries.of(entries))


def _version(opened: Any) -> str:
    """Return the version of the file's superblock."""
    return str(opened.id.get_create_plist().get_version()[0])


def _readable(name: str | bytes) -> str:
    """Return a name as text that can be written, whatever bytes it is."""
    data = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


# --- where the elements of a dataset are ----------------------------------------------


class _Storage(Value):
    """Where the elements of a dataset are, and what they go through.

    Attributes
    ----------
    start, chunk_shape, entries, codecs
        As of `Hdf5Array`.
    filters : tuple of dict
        The codecs as people know them, for those who look at the array.
    """

    start: int | None
    chunk_shape: tuple[int, ...]
    entries: Sequence[Entry] = ()
    codecs: tuple[BytesCodec, ...] = ()
    filters: tuple[dict[str, Any], ...] = ()

    @property
    def is_stored(self) -> bool:
        """Whether any element is."""
        return self.start is not None or Entries.of(self.entries).is_any_stored


def _find_storage(
    node: Any, shape: tuple[int, ...], dtype: DataType, file: ObjectFile, userblock_nbytes: int
) -> _Storage:
    from h5py import h5d

    creation = node.id.get_create_plist()
    kind = creation.get_layout()
    nbytes = math.prod(shape) * dtype.itemsize
    if kind == h5d.VIRTUAL:
        raise FormatError(f"it is a virtual dataset, of parts of others; open those, or {_REWRITE}")
    if creation.get_external_count():
        raise FormatError(f"its elements are in other files, without HDF5; {_REWRITE}")
    if kind == h5d.CHUNKED:
        return _find_chunks(node, shape, dtype, file, userblock_nbytes)
    if not nbytes:
        return _Storage(0, ())
    if kind == h5d.COMPACT:
        start = _find_compact(node, nbytes, file, userblock_nbytes)
    elif node.id.get_storage_size():
        start = node.id.get_offset()
    else:
        # Never written.  What HDF5 gives as its place is none then.
        chunk_shape = run_chunks(shape, dtype.itemsize)
        return _Storage(None, chunk_shape, Entries.none(_count_chunks(shape, chunk_shape)))
    check_end(start + nbytes, file.nbytes)
    return _Storage(start, ())


def _count_chunks(shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> int:
    n_chunks = math.prod(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    return check_count(n_chunks, _REWRITE)


def _find_compact(node: Any, nbytes: int, file: ObjectFile, userblock_nbytes: int) -> int:
    """Return where elements lie that are in the header of their dataset.

    HDF5 does not tell where.  Its message of the layout is a version, 3 or 4, the class 0, the
    size in two bytes, and the elements.  Something else that begins so and has the same bytes
    would do as well.
    """
    import numpy as np
    from h5py import h5o, h5s

    content: Any = np.empty(nbytes, "u1")
    node.id.read(h5s.ALL, h5s.ALL, content, node.id.get_type())
    start = h5o.get_info(node.id).addr + userblock_nbytes
    header = file.bytes_at(start, start + _MAX_HEADER_NBYTES)
    for version in (3, 4):
        message = bytes((version, 0)) + nbytes.to_bytes(2, "little")
        at = header.find(message + content.tobytes())
        if at >= 0:
            return int(start + at + len(message))
    raise FormatError(f"its elements are in the header of the dataset (compact); {_REWRITE}")


def _find_chunks(
    node: Any, shape: tuple[int, ...], dtype: DataType, file: ObjectFile, userblock_nbytes: int
) -> _Storage:
    import numpy as np

    chunk_shape = as_shape(list(node.chunks), "the shape of chunks", minimum=1, ndim=len(shape))
    chunk_nbytes = bounded_product((*chunk_shape, dtype.itemsize), "a chunk")
    n_chunks = _count_chunks(shape, chunk_shape)
    found = _stored_chunks(node.id, len(shape)) if n_chunks else None
    if found is None or not found.starts.size:
        return _Storage(None, chunk_shape, Entries.none(n_chunks))
    lengths: Any = np.array(chunk_shape, np.uint64)
    grid_shape = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    coordinates, rest = np.divmod(found.offsets, lengths)
    if rest.any() or (coordinates >= np.array(grid_shape, np.uint64)).any():
        raise FormatError("its table of chunks names chunks that it does not have: it is damaged")
    shift = _address_shift(node.id, found, file, userblock_nbytes)
    # Both are 64 bits of the file's, so their sum may have more.
    for start, size in ((found.starts.max(), 0), (0, found.sizes.max())):
        check_end(int(start) + int(size) + shift, file.nbytes)
    starts = found.starts.astype(np.int64) + shift
    stops = starts + found.sizes.astype(np.int64)
    check_end(int(stops.max()), file.nbytes)
    masks, kinds = np.unique(found.masks, return_inverse=True)
    used, codecs, known_as = _parse_filters(node, set(masks.tolist()), dtype.itemsize)
    omitted = [sum(1 << k for k, n in enumerate(used) if mask >> n & 1) for mask in masks.tolist()]
    left_out: Any = np.array(omitted, np.uint64)[kinds]
    edges = ((coordinates + np.uint64(1)) * lengths > np.array(shape, np.uint64)).any(axis=1)
    pipeline = Pipeline(chunk_nbytes, codecs)
    if codecs and _are_plain(node, found, edges.nonzero()[0], chunk_shape, pipeline):
        left_out[edges] = (1 << len(codecs)) - 1
    places = np.ravel_multi_index(tuple(coordinates.T.astype(np.intp)), grid_shape)

    def column(typecode: str, n_columns: int, values: Any) -> array[int]:
        table = np.zeros((n_chunks, n_columns), typecode)
        table[places] = values
        made = array(typecode)
        made.frombytes(table.tobytes())
        return made

    entries = Entries(
        column("q", 2, np.stack([starts, stops], axis=1)),
        left_out=column("Q", 1, left_out[:, None]),
        stored=column("B", 1, 1),
    )
    return _Storage(None, chunk_shape, entries, codecs, known_as)


class _StoredChunks(NamedTuple):
    """The chunks of a dataset that are stored, in any order.

    Attributes
    ----------
    offsets : ndarray of uint64
        The first element of each, in the dataset: a row for each chunk.
    masks, starts, sizes : ndarray of uint64
        The filters that each did not go through, a bit for each; where it begins in the file, as
        HDF5 tells it; its length in bytes.
    """

    offsets: Any
    masks: Any
    starts: Any
    sizes: Any


def _stored_chunks(dataset: Any, ndim: int) -> _StoredChunks:
    import numpy as np

    # Numbers alone: there may be millions, and HDF5's objects take a hundred times the room.
    found = array("Q")

    def note(info: Any) -> None:
        if info.byte_offset is not None:
            found.extend((*info.chunk_offset, info.filter_mask, info.byte_offset, info.size))

    n_chunks = dataset.get_num_chunks()
    if hasattr(dataset, "chunk_iter"):
        if n_chunks:
            dataset.chunk_iter(note)
    else:  # HDF5 before 1.12.3
        for number in range(n_chunks):
            note(dataset.get_chunk_info(number))
    rows = np.frombuffer(found, np.uint64).reshape(-1, ndim + 3)
    return _StoredChunks(rows[:, :ndim], *rows[:, ndim:].T)


def _are_plain(
    node: Any,
    chunks: _StoredChunks,
    edges: Any,
    chunk_shape: tuple[int, ...],
    pipeline: Pipeline,
) -> bool:
    """Return whether chunks that go beyond the dataset went through no filter.

    Writers may choose that (`H5Pset_chunk_opts`).  Neither h5py nor the masks of chunks tell of it.
    Such chunks are as long as if they were not filtered, as others are at most by chance, unless
    no filter changes the length.  Then HDF5 reads one of them, to compare.
    """
    import numpy as np
    from h5py import h5s

    if (chunks.sizes[edges] != pipeline.chunk_nbytes).any() or chunks.masks[edges].any():
        return False
    for offset in map(tuple, chunks.offsets[edges].tolist()):
        sides = zip(node.shape, offset, chunk_shape, strict=True)
        extent = tuple(min(n - start, length) for n, start, length in sides)
        space = node.id.get_space()
        space.select_hyperslab(offset, extent)
        itemsize = pipeline.chunk_nbytes // math.prod(chunk_shape)
        read: Any = np.empty(extent, f"V{itemsize}")
        try:
            node.id.read(h5s.create_simple(extent), space, read, node.id.get_type())
        except OSError:  # it does not have the filter, which it would not need for plain bytes
            return False
        _, stored = node.id.read_direct_chunk(offset)
        decoded = memoryview(bytearray(pipeline.chunk_nbytes))
        with contextlib.suppress(DamagedChunkError):
            pipeline.decode(stored, decoded)
        inside = tuple(slice(n) for n in extent)
        plain, filtered = (
            np.frombuffer(data, f"V{itemsize}").reshape(chunk_shape)[inside].tobytes()
            for data in (stored, decoded)
        )
        if plain != filtered:
            return bool(read.tobytes() == plain)
    return False


def _address_shift(
    dataset: Any, chunks: _StoredChunks, file: ObjectFile, userblock_nbytes: int
) -> int:
    """Return what is to be added to the places of chunks.

    Addresses in a file begin behind its user block.  Versions of HDF5 differ in whether a chunk's
    place, as they tell it, does too, so one chunk is looked at.
    """
    if not userblock_nbytes:
        return 0
    _, chunk = dataset.read_direct_chunk(tuple(chunks.offsets[0].tolist()))
    for shift in (0, userblock_nbytes):
        start = int(chunks.starts[0]) + shift
        if file.bytes_at(start, start + int(chunks.sizes[0])) == bytes(chunk):
            return shift
    raise FormatError("its first chunk is not where the table of chunks says; it is damaged")


# --- filters --------------------------------------------------------------------------

_Parsed: TypeAlias = tuple[str, "BytesCodec", dict[str, Any]] | None
"""What people call a filter, its codec, and the parameters that people look at.

None for one that leaves chunks as they are.
"""

_UNKNOWN_FILTERS = {
    305: "lzo",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32028: "sperr",
}


def _filter_name(found: Any) -> str:
    number, _, _, name = found
    if number in _UNKNOWN_FILTERS:
        return _UNKNOWN_FILTERS[number]
    text = _readable(name).partition(";")[0].strip()
    return text or str(number)


def _parse_filters(
    node: Any, masks: set[int], itemsize: int
) -> tuple[list[int], tuple[BytesCodec, ...], tuple[dict[str, Any], ...]]:
    """Return which filters any chunk went through, these as codecs, and as people know them.

    A bit of a chunk's mask says that the chunk did not go through a filter, as where compression
    would have made it longer.
    """
    creation = node.id.get_create_plist()
    filters = [creation.get_filter(number) for number in range(creation.get_nfilters())]
    used, parsed = [], []
    for k, found in enumerate(filters):
        is_used = any(not mask >> k & 1 for mask in masks)
        said = _parse_filter(found, itemsize) if is_used else None
        if said is not None:
            used.append(k)
            parsed.append(said)
    known_as = tuple({"name": name, "configuration": given} for name, _, given in parsed)
    return used, tuple(codec for _, codec, _ in parsed), known_as


def _parse_filter(found: Any, itemsize: int) -> _Parsed:
    number, _, values, _ = found
    parse = _FILTERS.get(number)
    if parse is None:
        raise FormatError(
            f"its chunks went through the filter {shown(_filter_name(found))} ({number}), which"
            f" lazyarr does not know; {_READ_OTHERWISE}, or {_REWRITE}, with gzip or zstd"
        )
    return parse(values, itemsize)


def _value(values: Sequence[int], place: int, default: int) -> int:
    """Return one of the values of a filter, or what it is without them."""
    return values[place] if place < len(values) else default


def _parse_deflate(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001 - as the others
    level = min(_value(values, 0, 6), 9)
    return "zlib", make_codec("deflate", {"container": "zlib", "level": level}), {"level": level}


def _parse_shuffle(values: Sequence[int], itemsize: int) -> _Parsed:
    size = _value(values, 0, itemsize)
    return "shuffle", make_codec("shuffle", {"elementsize": size}), {"elementsize": size}


def _parse_fletcher32(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    config = {"config": '{"id": "fletcher32"}', "dtype": None}
    return "fletcher32", make_codec("numcodec", config), {}


def _parse_bzip2(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    level = min(max(_value(values, 0, 9), 1), 9)
    return "bz2", make_codec("bz2", {"level": level}), {"level": level}


def _parse_blosc(values: Sequence[int], itemsize: int) -> _Parsed:
    # A buffer says itself how it is to be decompressed.
    numbers = {"clevel": min(_value(values, 4, 5), 9), "shuffle": min(_value(values, 5, 1), 2)}
    size = max(1, _value(values, 2, itemsize))
    parameters = {"cname": "lz4", "blocksize": 0, "typesize": size, **numbers}
    return "blosc", make_codec("blosc", parameters), {}


def _parse_lz4(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    return "lz4", make_codec("lz4_blocks", {}), {}


def _parse_bitshuffle(values: Sequence[int], itemsize: int) -> _Parsed:
    # The first two values are the version of the filter.
    compressor = {0: "none", 2: "lz4", 3: "zstd"}.get(_value(values, 4, 0), "unknown")
    parameters = {
        "elementsize": _value(values, 2, itemsize),
        "block_elements": _value(values, 3, 0),
        "compressor": compressor,
    }
    return "bitshuffle", make_codec("bitshuffle", parameters), {"compressor": compressor}


def _parse_lzf(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    # Before these are the versions of h5py's filter and of the library.
    return "lzf", make_codec("lzf", {"content_nbytes": _value(values, 2, 0)}), {}


def _parse_szip(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    if len(values) != 4:
        raise FormatError(f"its filter szip has {len(values)} parameters; it must have 4")
    names = ("options", "pixels_per_block", "bits_per_pixel", "pixels_per_scanline")
    parameters = dict(zip(names, values, strict=True))
    return "szip", make_codec("szip", parameters), parameters


_N_SCALE_OFFSET_VALUES = 20
_SCALES_BY_TEN, _SCALES_INTEGERS = 0, 2
_NEGATIVE = 2**31


def _parse_scale_offset(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    """Parse what H5Zscaleoffset.c calls `cd_values`."""
    if len(values) != _N_SCALE_OFFSET_VALUES:
        raise FormatError(
            f"its filter scaleoffset has {len(values)} parameters; it must have"
            f" {_N_SCALE_OFFSET_VALUES}"
        )
    scaling, factor, count, kind, size, is_signed, is_big_endian, has_fill = values[:8]
    factor = factor - 2 * _NEGATIVE if factor >= _NEGATIVE else factor
    if scaling != (_SCALES_BY_TEN if kind == 1 else _SCALES_INTEGERS):
        raise FormatError(
            f"its filter scaleoffset scales in the way {scaling}, as no library does; {_REWRITE}"
        )
    # So many bits are wanted that there would be nothing to pack.
    if kind != 1 and factor == 8 * size:
        return None
    letter = "f" if kind == 1 else "i" if is_signed else "u"
    fill = b"".join(value.to_bytes(4, "little") for value in values[8:])[:size].hex()
    parameters = {
        "dtype": _typestr(letter, size, is_big_endian=bool(is_big_endian)),
        "elements": count,
        "decimals": factor if kind == 1 else 0,
        "fill": fill if has_fill else None,
    }
    known_as = {"decimals": factor} if kind == 1 else {}
    return "scaleoffset", make_codec("scale_offset", parameters), known_as


_NBIT_ATOMIC = 1


def _parse_nbit(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    """Parse what H5Znbit.c calls `cd_values`: of numbers, and of what has no bit to spare."""
    if len(values) < 2 or len(values) != values[0]:
        raise FormatError(f"its filter nbit has the parameters {shown(list(values))}; {_REWRITE}")
    if values[1]:
        return None
    if len(values) != 8 or values[3] != _NBIT_ATOMIC:
        raise FormatError(
            "its chunks went through the filter 'nbit' (5), and its elements are compounds or"
            f" arrays; {_READ_OTHERWISE}, or {_REWRITE}, with gzip or zstd"
        )
    _, _, count, _, size, is_big_endian, precision, offset = values
    bits = {"precision": precision, "offset": offset}
    dtype = _typestr("u", size, is_big_endian=bool(is_big_endian))
    return "nbit", make_codec("nbit", {"dtype": dtype, "elements": count, **bits}), bits


def _parse_zfp(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    # Before the header are the versions of the library and of the filter.
    header = b"".join(value.to_bytes(4, "little") for value in values[1:])
    return "zfp", make_codec("zfp", {"header": header.hex()}), {}


def _parse_blosc2(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    # A frame says itself how it is to be decompressed.
    return "blosc2", make_codec("blosc2", {}), {}


def _parse_zstd(values: Sequence[int], itemsize: int) -> _Parsed:  # noqa: ARG001
    level = min(_value(values, 0, 3), 22)
    return "zstd", make_codec("zstd", {"level": level, "checksum": False}), {"level": level}


_FILTERS: Mapping[int, Callable[[Sequence[int], int], _Parsed]] = {
    1: _parse_deflate,
    2: _parse_shuffle,
    3: _parse_fletcher32,
    4: _parse_szip,
    5: _parse_nbit,
    6: _parse_scale_offset,
    307: _parse_bzip2,
    32000: _parse_lzf,
    32001: _parse_blosc,
    32004: _parse_lz4,
    32008: _parse_bitshuffle,
    32013: _parse_zfp,
    32015: _parse_zstd,
    32026: _parse_blosc2,
}
"""By the numbers of filters, which The HDF Group registers."""


# --- data types -----------------------------------------------------------------------


class _Padding(Value):
    """Strings of fixed size in each element that do not end as NumPy's do, with zeros alone.

    Attributes
    ----------
    start, nbytes : int
        Where the string lies in an element.
    is_spaces : bool
        Whether it ends with spaces; else at the first zero, behind which may be anything.
    """

    start: int
    nbytes: int
    is_spaces: bool


def _data_type(tid: Any) -> tuple[DataType, BytesCodec | None]:
    """Return the type of elements, and what makes of stored ones such as NumPy has, if any does."""
    paddings: list[_Padding] = []
    mending = _widening(tid)
    found = named_type(mending.dtype) if mending is not None else _find_type(tid, 0, paddings)
    # Checked as what comes from another process is, which will be told of it.
    checked = parse_data_type_document(found.document())
    if checked.itemsize != tid.get_size():
        raise FormatError(f"its elements have {tid.get_size()} bytes, expected {checked.itemsize}")
    if paddings:
        fields = [[each.start, each.nbytes, each.is_spaces] for each in paddings]
        mending = make_codec("strings", {"elementsize": found.itemsize, "fields": fields})
    return found, mending


def _widening(tid: Any) -> Any:
    """Return the codec for integers of which some bits mean nothing; None for all other types."""
    from h5py import h5t

    if tid.get_class() != h5t.INTEGER or tid.get_size() not in _INTEGER_SIZES:
        return None
    bits = {"precision": tid.get_precision(), "offset": tid.get_offset()}
    if bits["precision"] == 8 * tid.get_size():
        return None
    kind = "i" if tid.get_sign() == h5t.SGN_2 else "u"
    dtype = _typestr(kind, tid.get_size(), is_big_endian=_order(tid) == ">")
    return make_codec("narrow_integers", {"dtype": dtype, **bits})


def _find_type(tid: Any, start: int, paddings: list[_Padding]) -> DataType:
    from h5py import h5t

    kind = tid.get_class()
    if kind in (h5t.INTEGER, h5t.BITFIELD):
        return named_type(_integer_typestr(tid))
    if kind == h5t.ENUM:
        # What h5py makes of NumPy's booleans.
        is_boolean = tid.get_size() == 1 and tid.dtype.kind == "b"
        return named_type("|b1" if is_boolean else _integer_typestr(tid.get_super()))
    if kind == h5t.FLOAT:
        return named_type(_float_typestr(tid))
    if kind == h5t.STRING and not tid.is_variable_str():
        _note_padding(tid, start, paddings)
        return named_type(f"|S{tid.get_size()}")
    if kind == h5t.COMPOUND:
        return _compound_type(tid, start, paddings)
    if kind == h5t.OPAQUE:
        # A date of NumPy's, as h5py marks it, or bytes.
        found = tid.dtype
        return named_type(found.str if found.kind in "mM" else f"|V{tid.get_size()}")
    if kind == getattr(h5t, "COMPLEX", None):
        return named_type(_complex_typestr(_float_typestr(tid.get_super())))
    raise FormatError(f"its elements are {_unmappable(tid)}; {_READ_OTHERWISE}")


def _unmappable(tid: Any) -> str:
    """Return what elements are that cannot be mapped."""
    from h5py import h5t

    return {
        h5t.STRING: "strings of variable length, which lie elsewhere in the file",
        h5t.VLEN: "sequences of variable length, which lie elsewhere in the file",
        h5t.REFERENCE: "references to other objects of the file",
        h5t.ARRAY: "arrays themselves",
    }.get(tid.get_class(), "of a type that NumPy does not have")


def _typestr(kind: str, nbytes: int, *, is_big_endian: bool) -> str:
    """Return what NumPy calls numbers of some kind and size."""
    return f"{'|' if nbytes == 1 else '>' if is_big_endian else '<'}{kind}{nbytes}"


def _order(tid: Any) -> str:
    from h5py import h5t

    order: str | None = {h5t.ORDER_LE: "<", h5t.ORDER_BE: ">"}.get(tid.get_order())
    if order is None:
        raise FormatError(f"its elements have the byte order of a VAX; {_REWRITE}")
    return order


_INTEGER_SIZES = (1, 2, 4, 8)


def _integer_typestr(tid: Any) -> str:
    from h5py import h5t

    nbytes = tid.get_size()
    if tid.get_precision() != 8 * nbytes or tid.get_offset() or nbytes not in _INTEGER_SIZES:
        raise FormatError(
            f"its elements are integers of {tid.get_precision()} bits in {nbytes} bytes; NumPy has"
            f" no such type: {_READ_OTHERWISE}"
        )
    is_signed = tid.get_class() == h5t.INTEGER and tid.get_sign() == h5t.SGN_2
    is_big_endian = nbytes > 1 and _order(tid) == ">"
    return _typestr("i" if is_signed else "u", nbytes, is_big_endian=is_big_endian)


def _float_typestr(tid: Any) -> str:
    from h5py import h5t

    for nbytes in (2, 4, 8):
        for order, letters in (("<", "LE"), (">", "BE")):
            if tid.equal(getattr(h5t, f"IEEE_F{8 * nbytes}{letters}")):
                return f"{order}f{nbytes}"
    raise FormatError(
        f"its elements are floating-point numbers of {tid.get_size()} bytes that are none of"
        f" IEEE 754's of 2, 4 or 8 bytes; {_READ_OTHERWISE}"
    )


def _complex_typestr(part: str) -> str:
    if part[2:] == "2":
        raise FormatError(f"its elements are complex numbers of 4 bytes; {_READ_OTHERWISE}")
    return f"{part[0]}c{2 * int(part[2:])}"


def _compound_type(tid: Any, start: int, paddings: list[_Padding]) -> DataType:
    """Return the type of a struct, or of the complex number that h5py stores as one."""
    from h5py import h5t

    fields, end = [], 0
    for number in range(tid.get_nmembers()):
        at, member = tid.get_member_offset(number), tid.get_member_type(number)
        if at != end:
            break
        end += member.get_size()
        shape: tuple[int, ...] = ()
        if member.get_class() == h5t.ARRAY:
            shape, member = member.get_array_dims(), member.get_super()
        n_before = len(paddings)
        found = _find_type(member, start + at, paddings)
        _repeat(paddings, n_before, math.prod(shape), found.itemsize)
        fields.append(Field(_readable(tid.get_member_name(number)), found, tuple(shape)))
    if end != tid.get_size() or len(fields) != tid.get_nmembers():
        raise FormatError(f"its elements are compounds with gaps between the members; {_REWRITE}")
    if tid.dtype.kind == "c" and len(fields) == 2 and fields[0].dtype == fields[1].dtype:
        return named_type(_complex_typestr(fields[0].dtype.typestr))
    return DataType("struct", end, f"|V{end}", tuple(fields))


def _note_padding(tid: Any, start: int, paddings: list[_Padding]) -> None:
    from h5py import h5t

    nbytes, kind = tid.get_size(), tid.get_strpad()
    # A string of one byte that ends at the first zero has nothing behind it.
    if kind == h5t.STR_SPACEPAD or (kind == h5t.STR_NULLTERM and nbytes > 1):
        paddings.append(_Padding(start, nbytes, kind == h5t.STR_SPACEPAD))


def _repeat(paddings: list[_Padding], first: int, count: int, nbytes: int) -> None:
    """Have what was noted of one element of an array hold for all of them."""
    for padding in paddings[first:]:
        starts = range(padding.start + nbytes, padding.start + count * nbytes, nbytes)
        paddings.extend(padding._replace(start=start) for start in starts)


def _mended(
    stored: _Storage, shape: tuple[int, ...], dtype: DataType, codec: BytesCodec
) -> _Storage:
    """Return storage from which elements come as NumPy has them, by way of a codec."""
    if stored.start is None:
        # It is the first codec now, and no chunk leaves it out.
        entries = Entries.of(stored.entries).with_codec_before()
        return stored._replace(codecs=(codec, *stored.codecs), entries=entries)
    # One run goes through no codecs: it becomes a chunk.
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > _MAX_WHOLE_NBYTES:
        raise FormatError(
            f"its elements are not as NumPy has them, and are in no chunks; {_REWRITE}, in chunks"
        )
    chunk_shape = tuple(n or 1 for n in shape)
    entries = Entries.of([(0, stored.start, stored.start + nbytes)] if nbytes else [])
    return _Storage(None, chunk_shape, entries, (codec,))


def _fill_value(creation: Any, dtype: DataType) -> Any:
    """Return what elements are that were never written, as an array of one."""
    import numpy as np
    from h5py import h5d

    value = np.zeros((), dtype.to_numpy())
    if creation.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        creation.get_fill_value(value)
    return value


# --- attributes and dimensions --------------------------------------------------------

# As netCDF4 and h5netcdf hide them.
_HIDDEN = frozenset(
    [
        "_NCProperties",
        "_Netcdf4Coordinates",
        "_Netcdf4Dimid",
        "_nc3_strict",
        "DIMENSION_LIST",
    ]
)
_HIDDEN_OF_SCALES = frozenset(["CLASS", "NAME"])


class _NoValueError(Exception):
    """The value of an attribute is nothing that JSON can hold."""


def _read_attributes(node: Any) -> dict[str, Any]:
    """Return all attributes of a group or a dataset as h5py gives them, but what it cannot read."""
    found = {}
    for name in node.attrs:
        # Of every array along a dimension, which NetCDF has at each scale, and nobody reads here.
        if name == "REFERENCE_LIST":
            continue
        try:
            found[name] = node.attrs[name]
        # Data types that NumPy does not have.
        except (TypeError, ValueError):
            continue
    return found


def _plain_attributes(said: Mapping[str, Any], *, is_netcdf: bool) -> dict[str, Any]:
    """Return what users have put there, as values that JSON can hold; without what is none.

    Parameters
    ----------
    said : mapping
        All attributes.
    is_netcdf : bool
        Whether an array of one number is that number, as NetCDF has it.
    """
    hidden = _HIDDEN | _HIDDEN_OF_SCALES if _is_scale(said) else _HIDDEN
    found = {}
    for name, given in said.items():
        if name in hidden:
            continue
        try:
            value = _plain(given)
        except _NoValueError:
            continue
        is_alone = is_netcdf and isinstance(value, list) and len(value) == 1
        found[_readable(name)] = value[0] if is_alone else value
    return found


def _attribute_types(said: Mapping[str, Any]) -> dict[str, str]:
    """Return the data types of attributes that are numbers, where they are not Python's."""
    found = {name: getattr(value, "dtype", None) for name, value in said.items()}
    return {
        _readable(name): dtype.str
        for name, dtype in found.items()
        if dtype is not None and dtype.kind in "iuf" and dtype.str not in _TYPES_OF_PYTHON
    }


_TYPES_OF_PYTHON = ("<i8", "<f8")


def _shown_element(value: Any) -> Any:
    """Return an element as JSON can hold it; what it cannot hold, as a date, is text."""
    try:
        return _plain(value)
    except _NoValueError:
        return str(value)


def _plain(value: Any) -> Any:
    """Return a value of an attribute, or of an element, as JSON can hold it."""
    import h5py
    import numpy as np

    if isinstance(value, h5py.Empty):
        return "" if value.dtype.kind in "SO" else None
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes | str):
        return _readable(value)
    if isinstance(value, complex):
        return [value.real, value.imag]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise _NoValueError


def _is_scale(said: Mapping[str, Any]) -> bool:
    """Return whether a dataset with some attributes is a scale of a dimension."""
    return _text(said.get("CLASS")) == "DIMENSION_SCALE"


def _is_bare_dimension(said: Mapping[str, Any]) -> bool:
    """Return whether a dataset stands for a dimension of NetCDF, and is no variable."""
    return _is_scale(said) and _text(said.get("NAME")).startswith(_BARE_DIMENSION)


_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable"


def _text(value: object) -> str:
    return _readable(value) if isinstance(value, bytes | str) else ""


def _dimension_names(
    node: Any, path: str, said: Mapping[str, Any]
) -> tuple[str | None, ...] | None:
    """Return the names of the scales of the axes, or their labels; None where there are none."""
    ndim = len(node.shape)
    names: list[str | None] = [None] * ndim
    if _is_scale(said) and ndim == 1:
        return (_last(path),)
    for axis, scale in zip(range(ndim), _scale_paths(node, said), strict=False):
        names[axis] = None if scale is None else _last(scale)
    labels = said.get("DIMENSION_LABELS")
    for axis, label in zip(range(ndim), () if labels is None else labels, strict=False):
        names[axis] = names[axis] or _text(label) or None
    return tuple(names) if any(names) else None


def _scale_paths(node: Any, said: Mapping[str, Any]) -> Iterator[str | None]:
    """Yield the path of the first scale of each axis."""
    from h5py import h5r

    scales = said.get("DIMENSION_LIST")
    for references in () if scales is None else scales:
        found = h5r.get_name(references[0], node.id) if len(references) else None
        yield join_path(_readable(found)) if found else None
