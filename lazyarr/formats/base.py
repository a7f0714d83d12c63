"""What a file format is: something that turns what a store holds into descriptions of arrays.

A format whose nodes are directories of objects, as Zarr, is read by `lazyarr.opening`.
A format whose nodes lie in one file is a module with a `FileFormat`, and a line in `registry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from lazyarr.errors import FormatError
from lazyarr.layout.swap import find_swap
from lazyarr.values import Value

if TYPE_CHECKING:
    from typing import Self

    import numpy

    from lazyarr.layout import DataType, Layout
    from lazyarr.layout.swap import Swap

__all__ = [
    "ArrayDescription",
    "Crc32Range",
    "FileFormat",
    "FileGroup",
    "GroupDescription",
    "Node",
    "ObjectReader",
    "in_byte_order",
    "in_groups",
    "is_path",
]


class Crc32Range(NamedTuple):
    """Bytes of an object that have one checksum together, a CRC-32.

    Attributes
    ----------
    key : str
        The object in its store.
    start, stop : int
        The half-open range of bytes.
    crc : int
        What their CRC-32 is.
    """

    key: str
    start: int
    stop: int
    crc: int


class ArrayDescription(Value):
    """An array as its file describes it, along its logical axes: those that its users see.

    Each format has a subclass, whose fields are these attributes and what only the format knows.

    Attributes
    ----------
    path : str
        Its place among the nodes of the store or file, as users name it.  Where its bytes lie,
        its layout says.
    shape : tuple of int
        Its lengths, in elements.
    dtype : DataType
        Its elements in memory, in the byte order in which they are stored unless `swap` says
        otherwise.
    attributes : dict
        What users have put there.
    dimension_names : tuple of (str or None), or None
        Names of the axes.
    swap : Swap or None
        What turns elements around between store and memory.
    fill : bytes
        One element that holds the fill value.
    shards : tuple of int or None
        Shape of the shards; None without any.
    document : dict
        What the file says of the array, for those who look at it: `codecs`, and `fill_value`
        where there is one.
    format_name : tuple of (str, str)
        What the format is called, and its version.
    checked_whole : Crc32Range or None
        The bytes that all chunks are part of, where these have no checksums and those do.
    """

    # Not at run time: a subclass has fields of these names, which a property would hide.
    if TYPE_CHECKING:

        @property
        def path(self) -> str: ...  # noqa: D102 - see above
        @property
        def shape(self) -> tuple[int, ...]: ...  # noqa: D102 - see above
        @property
        def dtype(self) -> DataType: ...  # noqa: D102 - see above
        @property
        def attributes(self) -> dict[str, Any]: ...  # noqa: D102 - see above
        @property
        def dimension_names(self) -> tuple[str | None, ...] | None: ...  # noqa: D102 - see above
        @property
        def swap(self) -> Swap | None: ...  # noqa: D102 - see above
        @property
        def fill(self) -> bytes: ...  # noqa: D102 - see above
        @property
        def shards(self) -> tuple[int, ...] | None: ...  # noqa: D102 - see above
        @property
        def document(self) -> dict[str, Any]: ...  # noqa: D102 - see above
        @property
        def format_name(self) -> tuple[str, str]: ...  # noqa: D102 - see above
        @property
        def checked_whole(self) -> Crc32Range | None: ...  # noqa: D102 - see above

    checked_whole = None  # type: ignore[assignment]

    def layout(self) -> Layout:
        """Return how the array lies in memory and where its bytes are."""
        raise NotImplementedError

    def native(self) -> Self:
        """Return the array with its elements in the machine's byte order, however it is stored."""
        swap = find_swap(self.dtype)
        return self if swap is None else self._replace(dtype=swap.native, swap=swap)

    @property
    def missing_value(self) -> Any:
        """What means "missing" by the CF conventions (``_FillValue``); None where nothing does.

        A number, or `bytes`, however the format spells it; what is spelled wrong, as it is.
        """
        return self.attributes.get("_FillValue")

    @property
    def nbytes(self) -> int:
        """Size of the array in memory, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the smallest chunks, what is read at once."""
        layout = self.layout()
        lengths = [0] * len(layout.axes)
        for axis, length in zip(layout.axes, layout.chunk_shape, strict=True):
            lengths[axis] = length
        return tuple(lengths)

    @property
    def fill_value(self) -> numpy.generic:
        """What elements that were never written read as.  Imports NumPy."""
        import numpy

        value: numpy.generic = numpy.frombuffer(self.fill, dtype=self.dtype.to_numpy())[0]
        return value


class GroupDescription(Value):
    """A group as its file describes it.  Which nodes lie below it, the opened store says.

    Each format with groups has a subclass, whose fields are these attributes and what only the
    format knows.

    Attributes
    ----------
    path : str
        Its place in the store; "" for the root.
    attributes : dict
        What users have put there.
    consolidated : dict or None
        All nodes below the group, where one document describes them together.
    format_name : tuple of (str, str)
        What the format is called, and its version.
    """

    # Not at run time: as in `ArrayDescription`.
    if TYPE_CHECKING:

        @property
        def path(self) -> str: ...  # noqa: D102 - see above
        @property
        def attributes(self) -> dict[str, Any]: ...  # noqa: D102 - see above
        @property
        def consolidated(self) -> Mapping[str, object] | None: ...  # noqa: D102 - see above
        @property
        def format_name(self) -> tuple[str, str]: ...  # noqa: D102 - see above


Node: TypeAlias = ArrayDescription | GroupDescription
"""What a place in a store is."""


class FileGroup(GroupDescription):
    """A group of a file that says nothing of it but which arrays it has.

    Attributes
    ----------
    path, attributes, format_name
        As of `GroupDescription`.
    """

    path: str
    format_name: tuple[str, str]
    attributes: Any = {}  # noqa: RUF012 - a value: nobody changes it

    consolidated = None

    def __hash__(self) -> int:
        return hash((self.path, self.format_name))


def in_groups(
    arrays: Mapping[str, ArrayDescription | FormatError],
    format_name: tuple[str, str],
    attributes: Mapping[str, Any],
) -> dict[str, Node | FormatError]:
    """Return the nodes of a file that has names with slashes, and no groups.

    Parameters
    ----------
    arrays : mapping
        The arrays, and errors in place of those that cannot be mapped, by their names.
    format_name : tuple of (str, str)
        What the format is called, and its version.
    attributes : mapping
        What users have said of the whole file.

    Examples
    --------
    >>> sorted(in_groups({"a/b/x": FormatError("example")}, ("npz", "1"), {}))
    ['', 'a', 'a/b', 'a/b/x']
    """
    nodes: dict[str, Node | FormatError] = {"": FileGroup("", format_name, dict(attributes))}
    for name in arrays:
        parent = name.rpartition("/")[0]
        while parent and parent not in nodes and parent not in arrays:
            nodes[parent] = FileGroup(parent, format_name)
            parent = parent.rpartition("/")[0]
    return nodes | dict(arrays)


def is_path(name: str) -> bool:
    """Return whether a name can be that of a node: parts between single slashes, none of dots.

    Examples
    --------
    >>> is_path("layers/0.weight"), is_path("/x"), is_path("a/../b"), is_path("")
    (True, False, False, False)
    """
    return all(part not in ("", ".", "..") for part in name.split("/"))


def in_byte_order(metadata: ArrayDescription, order: str) -> ArrayDescription:
    """Return an array with elements in a byte order: ``"native"``, or as they are ``"stored"``."""
    return metadata.native() if order == "native" else metadata


class ObjectReader(Protocol):
    """The part of a store that a format needs."""

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        ...

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        ...

    def read_range(self, key: str, start: int, stop: int) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when the object does not exist."""
        ...


class FileFormat(Protocol):
    """A format in which one file holds arrays."""

    def describe(self, objects: ObjectReader, key: str) -> Mapping[str, Node | FormatError] | None:
        """Return what a file holds, by the path in it; None when there is no such file.

        The root, "", is there; an array that lazyarr cannot map is the error that says why.

        Parameters
        ----------
        objects : ObjectReader
            The store that has the file.
        key : str
            The file in it.

        Raises
        ------
        FormatError
            The file is not what the format allows, or not what lazyarr can map.
        StoreError
            The store cannot be reached.
        """
        ...
