"""TIFF: stacks of images, as microscopes and geodata have them, in strips or tiles.

Sources: TIFF 6.0; BigTIFF; and tifffile, whose series and levels these arrays are.

tifffile lists what a file holds and where each strip or tile lies, once, when the file is opened.
It reads through the store as everything else does.  The strips and tiles themselves are read and
decoded by the pager, as the chunks of any format are.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import math
import struct
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from lazyarr.checks import as_shape, bounded_product, shown
from lazyarr.codecs.registry import make_codec
from lazyarr.errors import FormatError
from lazyarr.formats.base import FileGroup
from lazyarr.formats.object_file import ListedFormat, ObjectFile, reason
from lazyarr.formats.paths import join_path
from lazyarr.formats.runs import run_chunks
from lazyarr.formats.tables import ListedArray, check_count, check_end, named_type
from lazyarr.layout.entries import Entries
from lazyarr.shortage import is_shortage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lazyarr.codecs.base import BytesCodec
    from lazyarr.formats.base import Node, ObjectReader
    from lazyarr.layout.entries import Entry

__all__ = ["FORMAT", "TiffArray"]

# Directories are short, and may lie far from one another: with the pixels between them.  What
# follows from one to the next is read in growing steps.
_LOCAL_BLOCK_NBYTES = 4 << 10
_REMOTE_BLOCK_NBYTES = 16 << 10
_MOST_READ_NBYTES = 1 << 20

# tifffile comes to a directory several times.  A file may have many that share their contents, or
# lead back to one another: it ends when this much has been read.
_READ_FACTOR = 8
_READ_NBYTES = 16 << 20

_MAX_TAGS = 4096  # of tifffile
_MAX_SERIES = 2**16

_CLASSIC, _BIG = 42, 43

_REWRITE = "write it anew with tifffile"
_READ_OTHERWISE = "read it with tifffile"


class TiffArray(ListedArray):
    """A series of images of a file, or one level of it.

    Attributes
    ----------
    path, shape, dtype, attributes, dimension_names, fill, document, format_name, swap
        As of `ArrayDescription`.
    key, start, chunk_shape, entries, codecs, is_padded
        As of `ListedArray`.
    """


class _File(ObjectFile):
    """A file for tifffile, which may not read for ever."""

    def __init__(self, objects: ObjectReader, key: str, nbytes: int) -> None:
        is_local = objects.url.startswith("file:")
        block_nbytes = _LOCAL_BLOCK_NBYTES if is_local else _REMOTE_BLOCK_NBYTES
        most_blocks = _MOST_READ_NBYTES // block_nbytes
        super().__init__(objects, key, nbytes, block_nbytes=block_nbytes, most_blocks=most_blocks)
        self._left_nbytes = _READ_NBYTES + _READ_FACTOR * nbytes

    def bytes_at(self, start: int, stop: int) -> bytes:
        """Return a part of the object, as far as the object goes."""
        if self.failure is not None:
            raise self.failure
        found = super().bytes_at(start, stop)
        self._left_nbytes -= max(1, len(found))
        if self._left_nbytes < 0:
            raise self.refuse(
                "its directories lead back to one another, or share what they say: it is damaged"
            )
        return found


def _tifffile() -> Any:
    # Here: it takes a tenth of a second, and most processes open other formats.
    try:
        import tifffile
    except ImportError as error:
        if is_shortage(error):
            raise
        raise FormatError(
            "tifffile, which finds what TIFF files hold, is not installed;"
            " pip install 'lazyarr[tiff]'"
        ) from error
    return tifffile


def _describe(file: _File) -> dict[str, Node | FormatError]:
    tifffile = _tifffile()
    directories = _Directories(file)
    name = file.key.rpartition("/")[2]
    # Stacks of Micro-Manager are of OME or ImageJ as well.  What it says of them itself needs
    # other files, and is believed as it is.
    options = {"is_mmstack": False, "is_ndtiff": False}
    with tifffile.TiffFile(file, name=name, **options) as opened:
        if opened.is_ome:
            _check_ome(opened.ome_metadata, directories)
        found = opened.series
        if file.failure is not None:
            raise file.failure
        if not 0 < len(found) <= _MAX_SERIES:
            raise FormatError(f"tifffile finds {len(found)} series of images in it")
        return _Survey(opened, file, ("tiff", str(directories.version))).nodes(found)


FORMAT = ListedFormat(_File, _describe)


# --- what tifffile believes -----------------------------------------------------------


class _Directories:
    """The chain of directories of a file, one for each image: they are followed to the end.

    tifffile leaves out what it cannot follow, and would go round for ever in some chains.

    Parameters
    ----------
    file : ObjectFile
        The file.

    Attributes
    ----------
    version : int
        42 for TIFF, 43 for BigTIFF.
    offsets : list of int
        Where each directory lies in the file.
    """

    def __init__(self, file: ObjectFile) -> None:
        self._file = file
        magic = file.bytes_at(0, 2)
        order = {b"II": "<", b"MM": ">"}.get(magic)
        if order is None:
            raise FormatError(f"it begins with {magic!r}, expected b'II' or b'MM': it is no TIFF")
        head = file.bytes_at(2, 16)
        if len(head) < 6:
            raise FormatError(f"it has {file.nbytes} bytes: it was cut off; copy it again")
        self.version = struct.unpack_from(f"{order}H", head)[0]
        if self.version not in (_CLASSIC, _BIG) or (self.version == _BIG and len(head) < 14):
            raise FormatError(f"its version is {self.version}, expected 42 (TIFF) or 43 (BigTIFF)")
        is_big = self.version == _BIG
        self._count = struct.Struct(f"{order}{'Q' if is_big else 'H'}")
        self._offset = struct.Struct(f"{order}{'Q' if is_big else 'I'}")
        self._tag = struct.Struct(f"{order}HH{'Q8s' if is_big else 'I4s'}")
        self._order = order
        self.offsets = list(self._follow(self._offset.unpack_from(head, 6 if is_big else 2)[0]))
        if not self.offsets:
            raise FormatError("it has no images")

    def __repr__(self) -> str:
        return f"<_Directories: {len(self.offsets)} of {self._file!r}>"

    def _follow(self, offset: int) -> Iterator[int]:
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise FormatError(f"its directories lead back to byte {offset}: it is damaged")
            seen.add(offset)
            check_count(len(seen), _REWRITE)
            yield offset
            tags = self._tags(offset)
            at = offset + self._count.size + len(tags)
            following = self._file.bytes_at(at, at + self._offset.size)
            if len(following) < self._offset.size:
                raise _cut_off(at)
            offset = self._offset.unpack(following)[0]

    def _tags(self, offset: int) -> bytes:
        """Return what a directory says, 12 or 20 bytes for each tag."""
        start = offset + self._count.size
        head = self._file.bytes_at(offset, start)
        if len(head) < self._count.size:
            raise _cut_off(offset)
        count = self._count.unpack(head)[0]
        if count > _MAX_TAGS:
            raise FormatError(f"its directory at byte {offset} has {count} tags: it is damaged")
        nbytes = count * self._tag.size
        tags = self._file.bytes_at(start, start + nbytes)
        if len(tags) < nbytes:
            raise _cut_off(start)
        return tags

    def smallest_image(self) -> int:
        """Return how many pixels the smallest image has, at least 1."""
        return max(1, min(self._count_pixels(offset) for offset in self.offsets))

    def _count_pixels(self, offset: int) -> int:
        n_pixels = 1
        for code, kind, _, value in self._tag.iter_unpack(self._tags(offset)):
            if code in (256, 257):  # ImageWidth, ImageLength: short, or long
                n_pixels *= struct.unpack_from(f"{self._order}{'H' if kind == 3 else 'I'}", value)[
                    0
                ]
        return n_pixels


def _cut_off(at: int) -> FormatError:
    return FormatError(
        f"its directory at byte {at} goes on beyond its end: it is damaged or was cut off; copy it"
        " again"
    )


def _check_ome(text: str | None, directories: _Directories) -> None:
    """Refuse numbers of OME-XML that tifffile would believe, and what lies in several files.

    tifffile makes a list as long as they say, and takes what it does not find for zeros.
    """
    try:
        root = ElementTree.fromstring(text or "")  # noqa: S314 - expat bounds what entities become
    except ElementTree.ParseError:
        return  # tifffile takes it for a TIFF like others then
    files: set[str | None] = {root.get("UUID")}
    n_images = 0
    for element in root.iter():
        kind = element.tag.rpartition("}")[2]
        number = _numbers(element)
        if kind == "UUID":
            files.add(element.text)
        elif kind == "Pixels":
            n_pixels = math.prod(max(1, number.get(f"Size{axis}", 1)) for axis in "CZTXY")
            n_images += n_pixels // directories.smallest_image()
        elif kind == "TiffData":
            counts = (number.get("PlaneCount", 0), number.get("NumPlanes", 0))
            n_images += max(1, *counts) if any(counts) else len(directories.offsets)
        elif kind.startswith("ModuloAlong"):
            span = float(element.get("End", 0)) - float(element.get("Start", 0))
            n_images += int(abs(span / float(element.get("Step", 1))))
        check_count(n_images, _REWRITE)
    if len(files - {None}) > 1:
        raise FormatError(
            f"its OME-XML says that its images lie in several files; {_READ_OTHERWISE}, or"
            " write it as one file"
        )


def _numbers(element: ElementTree.Element) -> dict[str, int]:
    """Return those attributes of an element that are whole numbers."""
    found = {}
    for name, text in element.attrib.items():
        if text.isascii() and text.isdigit() and len(text) < 20:
            found[name] = int(text)
    return found


# --- series and levels ----------------------------------------------------------------


class _Survey:
    """The arrays of an opened file.

    Parameters
    ----------
    opened : tifffile.TiffFile
        The file.
    file : ObjectFile
        The same, as bytes.
    format_name : tuple of (str, str)
        What the format is called, and its version.
    """

    def __init__(self, opened: Any, file: ObjectFile, format_name: tuple[str, str]) -> None:
        self._opened = opened
        self._file = file
        self._format_name = format_name

    def nodes(self, found: Sequence[Any]) -> dict[str, Node | FormatError]:
        """Return the nodes by their paths; the root is "".

        A series of one level is an array; of several, a group with one for each.  The root is the
        only series, or a group of all of them.
        """
        nodes: dict[str, Node | FormatError] = {}
        is_alone = len(found) == 1
        said = _file_attributes(self._opened)
        if not is_alone:
            nodes[""] = FileGroup("", self._format_name, said)
            said = {}
        for number, series in enumerate(found):
            path = "" if is_alone else str(number)
            levels = list(series.levels)
            if len(levels) == 1:
                nodes[path] = self._node(series, path, said)
                continue
            attributes = said | _series_attributes(series) | _multiscales(levels)
            nodes[path] = FileGroup(path, self._format_name, attributes)
            for place, level in enumerate(levels):
                child = join_path(path, str(place))
                nodes[child] = self._node(level, child, {})
        return nodes

    def _node(self, series: Any, path: str, said: Mapping[str, Any]) -> Node | FormatError:
        try:
            return self._array(series, path, said)
        except Exception as error:
            if self._file.failure is not None:
                raise self._file.failure from None
            if is_shortage(error):
                raise
            why = error.message if isinstance(error, FormatError) else reason(error)
            return FormatError(f"cannot map '/{path}': {why}", path=path)

    def _array(self, series: Any, path: str, said: Mapping[str, Any]) -> TiffArray:
        stored = _Storage(series, self._opened, self._file.nbytes)
        return TiffArray(
            path=path,
            shape=stored.shape,
            dtype=named_type(stored.typestr),
            attributes={**said, **_series_attributes(series)},
            dimension_names=_axes(series),
            fill=stored.fill(),
            document={"codecs": list(stored.known_as) or ["none"], "fill_value": stored.nodata},
            format_name=self._format_name,
            key=self._file.key,
            start=stored.start,
            chunk_shape=stored.chunk_shape,
            entries=stored.entries,
            codecs=stored.codecs,
            is_padded=stored.is_padded,
        )


def _axes(series: Any) -> tuple[str | None, ...] | None:
    """Return tifffile's letters for axes, each with a number where it comes again."""
    axes = str(series.axes)
    if len(axes) != len(series.shape):
        return None
    return tuple(
        axis if axes.index(axis) == place else f"{axis}{place}" for place, axis in enumerate(axes)
    )


# --- attributes -----------------------------------------------------------------------


class _NoValueError(Exception):
    """A value of some metadata is nothing that JSON can hold."""


def _file_attributes(opened: Any) -> dict[str, Any]:
    """Return what a file says of all that it holds."""
    found: dict[str, Any] = {}
    if opened.is_ome:
        found["ome_xml"] = str(opened.ome_metadata)
    for name in ("imagej", "geotiff", "gdal"):
        if getattr(opened, f"is_{name}"):
            found[name] = _plain_or_none(functools.partial(getattr, opened, f"{name}_metadata"))
    return {name: value for name, value in found.items() if value}


def _series_attributes(series: Any) -> dict[str, Any]:
    """Return what the first image of a series says of it: for people, and in which resolution."""
    frame = series.keyframe
    found: dict[str, Any] = {"name": str(series.name)}
    if series.kind in ("generic", "uniform"):
        found["description"] = str(frame.description)
    if {282, 283} <= {*frame.tags.keys()}:  # XResolution, YResolution
        found["resolution"] = _plain_or_none(functools.partial(_resolution, frame))
    return {name: value for name, value in found.items() if value and value != _NO_RESOLUTION}


_NO_RESOLUTION = {"x": 1, "y": 1, "unit": "none"}


def _resolution(frame: Any) -> dict[str, Any]:
    x, y = frame.get_resolution()
    return {"x": x, "y": y, "unit": getattr(frame.resolutionunit, "name", "NONE").lower()}


def _multiscales(levels: Sequence[Any]) -> dict[str, Any]:
    """Return how levels belong together, as OME-Zarr has it."""
    first = levels[0]
    axes = [
        {"name": (name or "").lower(), "type": _AXIS_TYPES[axis]}
        if (axis := (name or "")[:1]) in _AXIS_TYPES
        else {"name": (name or "").lower()}
        for name in _axes(first) or ()
    ]
    datasets = []
    for place, level in enumerate(levels):
        sides = zip(first.shape, level.shape, strict=False)
        scale = [float(n / m) if m else 1.0 for n, m in sides]
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(place), "coordinateTransformations": transformations})
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}


_AXIS_TYPES = {"X": "space", "Y": "space", "Z": "space", "T": "time", "C": "channel"}


def _plain_or_none(read: Callable[[], Any]) -> Any:
    """Return some metadata as values that JSON can hold; None where it cannot be read."""
    try:
        return _plain(read())
    # tifffile raises whatever suits it for metadata that is damaged.
    except Exception as error:
        if is_shortage(error):
            raise
        return None


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it; members of it that cannot be held are left out."""
    if isinstance(value, dict):
        found = {}
        for name, member in value.items():
            with contextlib.suppress(_NoValueError):
                found[str(name)] = _plain(member)
        return found
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise _NoValueError


# --- where the elements of a series are -----------------------------------------------


class _Compression(NamedTuple):
    """A codec of strips and tiles: what people call it, and what lazyarr does."""

    known_as: str
    codec: str
    parameters: dict[str, Any]


_DEFLATE = _Compression("deflate", "deflate", {"container": "zlib", "level": 6})
_ZSTD = _Compression("zstd", "zstd", {"level": 3, "checksum": False})
_JPEGS = (7, 33007)
_RGB, _YCBCR = 2, 6  # PhotometricInterpretation
_LZW = 5
_COMPRESSIONS: Mapping[int, _Compression] = {
    _LZW: _Compression("lzw", "lzw", {}),
    8: _DEFLATE,
    32946: _DEFLATE,
    50013: _DEFLATE,
    32773: _Compression("packbits", "packbits", {}),
    34925: _Compression(
        "lzma", "lzma", {"container": 1, "check": -1, "preset": None, "filters": []}
    ),
    34926: _ZSTD,
    50000: _ZSTD,
}
"""By the number that TIFF has for them; without what is not compressed, 1."""

_PREDICTORS: Mapping[int, str] = {2: "delta", 3: "floating_point"}
"""By the number that TIFF has for them."""


class _Storage:
    """Where the elements of a series are, and what they go through.

    Attributes
    ----------
    shape : tuple of int
        The lengths of the series.
    typestr : str
        Its elements, as they are stored.
    start, chunk_shape, entries, codecs, is_padded
        As of `ListedArray`.
    known_as : list of dict
        The codecs as people know them, for those who look at the array.
    nodata : int, float or complex
        What is not stored reads as.
    """

    def __init__(self, series: Any, opened: Any, nbytes: int) -> None:
        self._series = series
        self._frame = series.keyframe
        self._nbytes = nbytes
        self.nodata = self._frame.nodata
        _check_frame(self._frame, series)
        self.shape = as_shape([int(n) for n in series.shape], "shape")
        compression, predictor = int(self._frame.compression), int(self._frame.predictor)
        self.typestr = self._stored_type(opened.byteorder, predictor)
        self._itemsize = int(series.dtype.itemsize)
        bounded_product((*self.shape, self._itemsize), "the array")
        self.start: int | None = None
        self.chunk_shape: tuple[int, ...] = ()
        self.entries: Sequence[Entry] = ()
        self.codecs: tuple[BytesCodec, ...] = ()
        self.known_as: list[dict[str, Any]] = []
        self.is_padded = False
        if 0 in self.shape:
            self.start = 0
        elif series.dataoffset:
            self.start = int(series.dataoffset)
            check_end(self.start + math.prod(self.shape) * self._itemsize, nbytes)
        else:
            self._find_codecs(compression, predictor)
            self._find_chunks()

    def fill(self) -> bytes:
        """Return one element of what is not stored."""
        import numpy as np

        return np.array([self.nodata]).astype(self.typestr).tobytes()

    def _stored_type(self, order: str, predictor: int) -> str:
        dtype = self._series.dtype
        # The floating-point predictor has an order of bytes of its own.
        if dtype.itemsize > 1 and _PREDICTORS.get(predictor) != "floating_point":
            dtype = dtype.newbyteorder(order)
        return str(dtype.str)

    def _find_codecs(self, compression: int, predictor: int) -> None:
        frame = self._frame
        codecs = []
        bits, samples = int(frame.bitspersample), int(frame.samplesperpixel)
        rows = {
            "dtype": self.typestr,
            "row": int(frame.tilewidth if frame.is_tiled else frame.imagewidth),
            "samples": samples if frame.planarconfig == 1 else 1,
            "cuts": compression in (1, _LZW),
        }
        if compression in _JPEGS:
            self._find_jpeg(rows)
            return
        if predictor != 1:
            kind = {"kind": _PREDICTORS[predictor]}
            codecs.append(make_codec("predictor", rows | kind))
            self.known_as.append({"name": "predictor", "configuration": kind})
        if bits != 8 * self._itemsize:
            codecs.append(make_codec("packed_bits", {**rows, "bits": bits}))
            self.known_as.append({"name": "packed_bits", "configuration": {"bits": bits}})
        if compression != 1:
            known_as, codec, parameters = _COMPRESSIONS[compression]
            codecs.append(make_codec(codec, parameters))
            self.known_as.append({"name": known_as, "configuration": {}})
        if frame.fillorder == 2:
            codecs.append(make_codec("bit_order", {}))
            self.known_as.append({"name": "bit_order", "configuration": {}})
        self.codecs = tuple(codecs)

    def _find_jpeg(self, rows: Mapping[str, Any]) -> None:
        """Find how tifffile tells imagecodecs to decode JPEG: RGB comes out of colours."""
        frame = self._frame
        tables = frame.jpegtables
        if any(page is not None and page.jpegtables != tables for page in self._series):
            raise FormatError(f"its images have different tables of JPEG; {_READ_OTHERWISE}")
        colours: dict[str, int | None] = {"colours": None, "out_colours": None}
        if not frame.extrasamples and int(frame.photometric) in (_RGB, _YCBCR):
            is_rgb = int(frame.photometric) == _RGB and not frame.is_jfif
            colours = {"colours": 2 if is_rgb else None, "out_colours": 2}
        if int(frame.planarconfig) != 1:
            colours["out_colours"] = 1
        sizes = {"row": rows["row"], "samples": rows["samples"]}
        codec = make_codec("jpeg", {**sizes, "tables": bytes(tables or b"").hex(), **colours})
        self.codecs = (codec,)
        self.known_as.append({"name": "jpeg", "configuration": {}})

    # --- chunks -----------------------------------------------------------------------

    def _find_chunks(self) -> None:
        import numpy as np

        frame = self._frame
        page_shape = tuple(int(n) for n in frame.shape)
        is_whole = frame.is_contiguous
        chunk = run_chunks(page_shape, self._itemsize) if is_whole else _page_chunk(frame)
        self.chunk_shape = _in_series(self.shape, page_shape, chunk)
        self.is_padded = bool(frame.is_tiled) and not is_whole
        pages = self._pages(page_shape)
        n_parts = math.prod(-(-n // c) for n, c in zip(page_shape, chunk, strict=True))
        check_count(len(pages) * n_parts, _REWRITE)
        if is_whole:
            starts, sizes = _parts(page_shape, chunk, self._itemsize)
            self.entries = self._parts_of_pages(pages, starts, sizes)
            return
        offsets, counts = _segments(pages, n_parts)
        if not self.codecs:
            # What writers have left behind the elements is none of them.
            whole = np.uint64(math.prod(chunk) * self._itemsize)
            sizes = whole if self.is_padded else _parts(page_shape, chunk, self._itemsize)[1]
            counts = np.minimum(counts.reshape(-1, n_parts), sizes).ravel()
        self.entries = self._entries(offsets, counts)

    def _pages(self, page_shape: tuple[int, ...]) -> list[Any]:
        """Return the images of the series; None for those that its metadata names alone."""
        series, frame = self._series, self._frame
        n_pages = len(series)
        if n_pages * math.prod(page_shape) != math.prod(self.shape):
            raise FormatError(
                f"its shape is {self.shape}, and it has {n_pages} images of shape {page_shape}"
            )
        pages = list(series)
        for page in pages:
            if page is not None and page.keyframe is not frame and page.hash != frame.hash:
                raise FormatError(f"its images are not stored alike; {_READ_OTHERWISE}")
        return pages

    def _parts_of_pages(self, pages: Sequence[Any], starts: Any, sizes: Any) -> Entries:
        """Return chunks of images of which each is one run of bytes."""
        import numpy as np

        begins = np.array([_first_offset(page) for page in pages], np.uint64)
        if begins.any():
            check_end(int(begins.max()) + int(starts[-1] + sizes[-1]), self._nbytes)
        offsets = np.add.outer(begins, starts)
        counts = np.where(begins[:, None] > 0, sizes, 0)
        return self._entries(offsets.ravel(), counts.ravel())

    def _entries(self, offsets: Any, counts: Any) -> Entries:
        """Return where chunks lie, of which those of no place or no size are not stored."""
        import numpy as np

        is_stored = (offsets > 0) & (counts > 0)
        offsets, counts = np.where(is_stored, offsets, 0), np.where(is_stored, counts, 0)
        check_end(int(offsets.max()), self._nbytes)
        # Some writers count beyond the end of the file.
        stops = offsets + np.minimum(counts, np.uint64(self._nbytes) - offsets)
        bounds = np.stack([offsets, stops], axis=1).astype(np.int64)
        stored = array("B", is_stored.astype(np.uint8).tobytes())
        return Entries(array("q", bounds.tobytes()), stored=stored)


def _first_offset(page: Any) -> int:
    """Return where the one run of an image lies; 0 where it is not stored."""
    if page is None or not len(page.dataoffsets):
        return 0
    offset = int(page.dataoffsets[0])
    if not offset and any(page.databytecounts):
        raise FormatError("its elements lie at byte 0 of the file: it is damaged; copy it again")
    return offset


def _segments(pages: Sequence[Any], n_segments: int) -> tuple[Any, Any]:
    """Return where the strips or tiles of all images lie, and how long they are; 0 for none."""
    import numpy as np

    offsets: list[int] = []
    counts: list[int] = []
    none = (0,) * n_segments
    for page in pages:
        if page is None:
            offsets += none
            counts += none
            continue
        found = page.dataoffsets, page.databytecounts
        if min(map(len, found)) < n_segments:
            raise FormatError(
                f"it has {len(found[0])} places and {len(found[1])} sizes for {n_segments} strips"
                " or tiles: it is damaged"
            )
        offsets += found[0][:n_segments]
        counts += found[1][:n_segments]
    return np.array(offsets, np.uint64), np.array(counts, np.uint64)


def _parts(shape: tuple[int, ...], chunk: tuple[int, ...], itemsize: int) -> tuple[Any, Any]:
    """Return for each chunk of an array in C order where it begins in it, and its size, in bytes.

    Chunks are runs of the array; at its edge they have no padding.

    Examples
    --------
    >>> [found.tolist() for found in _parts((5, 3), (2, 3), 8)]
    [[0, 48, 96], [48, 48, 24]]
    """
    import numpy as np

    starts, sizes = np.zeros(1, np.uint64), np.full(1, itemsize, np.uint64)
    for n, length in zip(shape, chunk, strict=True):
        first = np.arange(0, n, length, dtype=np.uint64)
        starts = np.add.outer(starts * np.uint64(n), first).ravel()
        inside = np.minimum(np.uint64(length), np.uint64(n) - first)
        sizes = np.multiply.outer(sizes, inside).ravel()
    return starts * np.uint64(itemsize), sizes


def _check_frame(frame: Any, series: Any) -> None:
    """Refuse images that lazyarr cannot decode as tifffile does."""
    bits, sample_format = frame.bitspersample, int(frame.sampleformat)
    is_odd = not isinstance(bits, int) or sample_format == 5 or (bits == 24 and sample_format == 3)
    if frame.dtype is None or is_odd:
        raise FormatError(
            f"its samples have {shown(bits)} bits and the format {sample_format}; lazyarr maps"
            f" whole numbers of up to 64 bits, and floating-point numbers that NumPy has:"
            f" {_READ_OTHERWISE}"
        )
    if series.transform is not None or series.is_multifile:
        raise FormatError(f"tifffile puts it together from what is stored; {_READ_OTHERWISE}")
    compression, predictor = int(frame.compression), int(frame.predictor)
    if compression in _JPEGS:
        is_known = int(frame.photometric) in (0, 1, _RGB, _YCBCR) and frame.jpegheader is None
        if bits != 8 or sample_format != 1 or not is_known or not 1 <= frame.samplesperpixel <= 4:
            raise FormatError(f"its JPEG has {bits} bits or other colours; {_READ_OTHERWISE}")
    elif compression != 1 and compression not in _COMPRESSIONS:
        raise FormatError(
            f"its images are compressed by {shown(getattr(frame.compression, 'name', compression))}"
            f" ({compression}), which lazyarr does not know; {_READ_OTHERWISE}, or {_REWRITE},"
            " with zlib or zstd"
        )
    elif predictor != 1 and (predictor not in _PREDICTORS or bits != 8 * frame.dtype.itemsize):
        raise FormatError(
            f"its predictor is {predictor}, of samples of {bits} bits; {_READ_OTHERWISE}"
        )
    if frame.is_subsampled and (compression not in _JPEGS or int(frame.planarconfig) != 1):
        raise FormatError(f"its chroma is subsampled without JPEG; {_READ_OTHERWISE}")


def _page_chunk(frame: Any) -> tuple[int, ...]:
    """Return the lengths of a strip or tile along the axes of an image."""
    samples = int(frame.samplesperpixel) if frame.planarconfig == 1 else 1
    lengths = {"S": samples, "Z": 1, "Y": int(frame.rowsperstrip), "X": int(frame.imagewidth)}
    if frame.is_tiled:
        lengths |= {
            "Z": int(frame.tiledepth),
            "Y": int(frame.tilelength),
            "X": int(frame.tilewidth),
        }
    axes = str(frame.axes)
    if any(length < 1 for length in lengths.values()) or not set(axes) <= lengths.keys():
        raise FormatError(f"its strips or tiles have the lengths {lengths}: it is damaged")
    if any(length > 1 and axis not in axes for axis, length in lengths.items()):
        raise FormatError(f"its tiles are deeper than its images; {_READ_OTHERWISE}")
    return tuple(lengths[axis] for axis in axes)


def _in_series(
    shape: tuple[int, ...], page_shape: tuple[int, ...], chunk: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the lengths of a chunk along the axes of a series.

    Its last axes are those of an image; but tifffile may leave out some of length one, or add some.

    Examples
    --------
    >>> _in_series((5, 30, 40), (30, 40), (8, 40)), _in_series((5, 40), (1, 40), (1, 40))
    ((1, 8, 40), (1, 40))
    >>> _in_series((30, 40, 1), (30, 40), (16, 16))
    (16, 16, 1)
    """
    n_before = len(shape) - len(page_shape)
    for n_after in range(n_before + 1):
        stop = len(shape) - n_after
        if shape[n_before - n_after : stop] == page_shape:
            return (1,) * (n_before - n_after) + chunk + (1,) * n_after
        if shape[stop - 1] > 1:
            break
    sides = list(zip(page_shape, chunk, strict=True))
    wanted = [side for side in sides if side[0] > 1]
    found = [1] * len(shape)
    if all(length == 1 for n, length in sides if n == 1):
        for axis in range(len(shape) - 1, -1, -1):
            if wanted and shape[axis] > 1:
                n, length = wanted.pop()
                if n != shape[axis]:
                    break
                found[axis] = length
        else:
            if not wanted:
                return tuple(found)
    raise FormatError(
        f"its shape {shape} is not made of images of shape {page_shape}; {_READ_OTHERWISE}"
    )
