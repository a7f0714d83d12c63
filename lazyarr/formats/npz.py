"""NumPy's ``.npz``: a zip archive of ``.npy`` files, stored as they are or deflated.

Sources: `numpy.savez`, and PKWARE's APPNOTE.TXT 6.3 for zip.  What is stored is mapped as it
lies in the archive: its CRC-32, which is of all of it, is looked at by `lazyarr.verify` alone.
What is deflated can be read from its beginning alone, so the whole array is one chunk, and its
first touch loads all of it.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from lazyarr.codecs.zip_member import ZipMember
from lazyarr.errors import FormatError
from lazyarr.formats.base import ArrayDescription, Crc32Range, in_groups, is_path
from lazyarr.formats.npy import header_nbytes, parse_header
from lazyarr.formats.runs import BareArray, RunArray
from lazyarr.layout.datatype import DataType
from lazyarr.layout.layout import Layout
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import ChunkTable

if TYPE_CHECKING:
    from lazyarr.formats.base import Node, ObjectReader
    from lazyarr.formats.npy import NpyArray
    from lazyarr.layout.swap import Swap

__all__ = ["FORMAT", "DeflatedArray", "StoredArray"]

_NAME = ("npz", "1")
_SUFFIX = ".npy"
# APPNOTE 4.3.7: signature to length of the extra field.
_LOCAL_HEADER_NBYTES = 30
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 1
# The local header, with a long name and what zip64 needs, and the header of nearly every array.
_FIRST_NBYTES = 4096
_MOST_FIRST_NBYTES = 1 << 18
# Of the archive's directory, read at once.
_BLOCK_NBYTES = 1 << 16


class StoredArray(RunArray):
    """An array that lies in the archive as it is.

    Attributes
    ----------
    path, shape, dtype, start, is_fortran, file, swap
        As of `RunArray`.
    checked_whole : Crc32Range
        The member, its header included.
    """

    path: str
    shape: tuple[int, ...]
    dtype: DataType
    start: int
    is_fortran: bool
    file: str
    checked_whole: Crc32Range
    swap: Swap | None = None

    attributes: Any = {}  # noqa: RUF012 - a value: nobody changes it

    format_name = _NAME


class DeflatedArray(BareArray):
    """An array that is compressed in one piece.

    Attributes
    ----------
    path, shape, dtype, swap
        As of `ArrayDescription`.
    is_fortran : bool
        Whether the first axis varies fastest.
    file : str
        The archive, in its store.
    start, stop : int
        Where the compressed bytes lie in it.
    codec : ZipMember
        What they go through.
    """

    path: str
    shape: tuple[int, ...]
    dtype: DataType
    is_fortran: bool
    file: str
    start: int
    stop: int
    codec: ZipMember
    swap: Swap | None = None

    attributes: Any = {}  # noqa: RUF012 - a value: nobody changes it

    format_name = _NAME

    @property
    def document(self) -> dict[str, Any]:
        """What the only chunk goes through."""
        return {"codecs": ["deflate"]}

    def layout(self) -> Layout:
        """Return how the array lies in memory and where its bytes are."""
        axes = tuple(range(len(self.shape)))
        axes = axes[::-1] if self.is_fortran else axes
        shape = tuple(self.shape[axis] for axis in axes)
        grid_shape = tuple(min(n, 1) for n in shape)
        there = () if 0 in shape else ((0, self.start, self.stop),)
        return Layout(
            shape=shape,
            axes=axes,
            chunk_shape=tuple(n or 1 for n in shape),
            grid_shape=grid_shape,
            itemsize=self.dtype.itemsize,
            fill=self.fill,
            pipeline=Pipeline(self.nbytes or self.dtype.itemsize, (self.codec,), self.swap),
            placement=ChunkTable((1,) * len(shape), (), (), grid_shape, ("",), there),
            witnesses=("",),
            place=self.file,
        )


class _Npz:
    """The format of ``.npz`` files."""

    def describe(self, objects: ObjectReader, key: str) -> dict[str, Node | FormatError] | None:
        """Return the arrays of an archive, by their names without ``.npy``."""
        nbytes = objects.size(key)
        if nbytes is None:
            return None
        try:
            # The library reads and checks the directory; the members are found by hand, for it
            # tells where none of them begins.
            file = io.BufferedReader(_Object(objects, key, nbytes), _BLOCK_NBYTES)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        # Beside the first, what the library lets through of damaged directories.
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            what = f"it is no zip archive, or was cut off: {error}"
            message = f"cannot map {key!r} in {objects.url}: {what}"
            raise FormatError(message, path=key) from error
        if members and not any(member.filename.endswith(_SUFFIX) for member in members):
            raise FormatError(
                f"cannot map {key!r} in {objects.url}: it is a zip archive without .npy files; a "
                "Zarr store in one opens by a name that ends with .zip, or with format='zarr'",
                path=key,
            )
        found: dict[str, ArrayDescription | FormatError] = {}
        for member in members:
            name = member.filename.removesuffix(_SUFFIX)
            if not is_path(name):
                # A directory has a member of its own, which says nothing.
                if member.is_dir():
                    continue
                message = f"cannot map {key!r} in {objects.url}: it has a member called {name!r}"
                raise FormatError(message, path=key)
            try:
                found[name] = _describe(objects, key, nbytes, member, name)
            except FormatError as error:
                message = f"cannot map {member.filename!r} in {key!r}: {error.message}"
                found[name] = FormatError(message, path=name)
        return in_groups(found, _NAME, {})


FORMAT = _Npz()


def _describe(
    objects: ObjectReader, key: str, nbytes: int, member: zipfile.ZipInfo, name: str
) -> StoredArray | DeflatedArray:
    if member.flag_bits & _ENCRYPTED:
        raise FormatError("it is encrypted; extract it")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(
            f"its method of compression is {member.compress_type}; lazyarr reads members that are "
            "stored (0) or deflated (8)"
        )
    if not member.filename.endswith(_SUFFIX):
        raise FormatError("it is no .npy file")
    is_deflated = member.compress_type == zipfile.ZIP_DEFLATED
    n_first = _FIRST_NBYTES
    while True:
        first, start = _read_member(objects, key, member, nbytes, n_first)
        content = _inflate_beginning(first) if is_deflated else first
        wanted = header_nbytes(content[:12])
        if wanted <= len(content) or n_first >= _MOST_FIRST_NBYTES:
            break
        n_first *= 8
    header = parse_header(content[:wanted], path=name, file=key)
    if header.start + header.nbytes != member.file_size:
        raise FormatError(
            f"it has {member.file_size} bytes, expected {header.start + header.nbytes}"
        )
    if is_deflated:
        return _deflated(header, key, member, start)
    if member.compress_size != member.file_size:
        raise FormatError(f"it takes {member.compress_size} bytes, expected {member.file_size}")
    member_bytes = Crc32Range(key, start, start + member.file_size, member.CRC)
    return StoredArray(
        name, header.shape, header.dtype, start + header.start, header.is_fortran, key, member_bytes
    )


def _deflated(header: NpyArray, key: str, member: zipfile.ZipInfo, start: int) -> DeflatedArray:
    return DeflatedArray(
        header.path,
        header.shape,
        header.dtype,
        header.is_fortran,
        key,
        start,
        start + member.compress_size,
        ZipMember(header.start, member.CRC),
    )


def _read_member(
    objects: ObjectReader, key: str, member: zipfile.ZipInfo, nbytes: int, n_first: int
) -> tuple[bytes, int]:
    """Return how a member's bytes begin, and where in the archive.

    The lengths before them stand in a header of the member's own, not in the directory.
    """
    if not 0 <= member.header_offset <= nbytes - _LOCAL_HEADER_NBYTES:
        raise FormatError(f"it would begin at byte {member.header_offset} of {nbytes}")
    stop = min(nbytes, member.header_offset + n_first)
    begin = objects.read_range(key, member.header_offset, stop)
    if begin is None or bytes(begin[:4]) != _LOCAL_MAGIC:
        raise FormatError("its header is damaged; check the archive with 'python -m zipfile -t'")
    n_name, n_extra = (int.from_bytes(begin[at : at + 2], "little") for at in (26, 28))
    skipped = _LOCAL_HEADER_NBYTES + n_name + n_extra
    start = member.header_offset + skipped
    if start + member.compress_size > nbytes:
        raise FormatError(f"it ends at byte {start + member.compress_size} of {nbytes}")
    return bytes(begin[skipped : skipped + member.compress_size]), start


def _inflate_beginning(data: bytes) -> bytes:
    """Return what the beginning of a deflated stream holds, as far as a header needs."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _MOST_FIRST_NBYTES)
    except zlib.error as error:
        raise FormatError(f"it does not decompress: {error}") from error


class _Object(io.RawIOBase):
    """An object of a store as a file that can be read anywhere, for `zipfile`."""

    def __init__(self, objects: ObjectReader, key: str, nbytes: int) -> None:
        self._objects = objects
        self._key = key
        self._nbytes = nbytes
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._nbytes}[whence]
        if base + offset < 0:
            raise OSError(f"cannot seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._nbytes)
        if stop <= self._at:
            return 0
        data = self._objects.read_range(self._key, self._at, stop)
        if data is None:
            raise FormatError(f"cannot map {self._key!r}: it has gone while it was read")
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
