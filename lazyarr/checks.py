"""Values out of a metadata document, checked before anything relies on them.

Metadata is untrusted: it comes from whoever wrote the store.  Each function here
returns a value of the type and range that it names, or raises `FormatError`
with what was found; no other exception leaves this package for bad metadata.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Collection, Iterable
from typing import Any

from lazyarr.errors import FormatError

__all__ = [
    "MAX_NBYTES",
    "as_configuration",
    "as_integer",
    "as_list",
    "as_object",
    "as_shape",
    "as_string",
    "as_written_integer",
    "bounded_product",
    "chunk_lengths",
    "parse_json",
    "refuse_unknown",
    "shown",
]

MAX_NBYTES = 2**62
"""Largest size of anything, in elements or bytes: sums of two still fit in int64."""

MAX_NDIM = 64
"""Largest number of axes: NumPy's NPY_MAXDIMS since 2.0."""

_MAX_DOCUMENT_NBYTES = 256 * 2**20
_MAX_DEPTH = 64


def shown(value: object) -> str:
    """Return a value as it appears in a message: its repr, cut to a readable length."""
    return reprlib.repr(value)


def parse_json(document: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object that a document holds.

    Parameters
    ----------
    document : bytes
        The object as the store gave it.
    what : str
        What the document is, for the message.

    Raises
    ------
    FormatError
        It is too large, no JSON, nested too deeply, or not an object.
    """
    if len(document) > _MAX_DOCUMENT_NBYTES:
        raise FormatError(
            f"{what} has {len(document)} bytes; lazyarr reads up to {_MAX_DOCUMENT_NBYTES}"
        )
    try:
        value = json.loads(document)
    # ValueError covers bad syntax, bad UTF-8 and integers of too many digits.
    except (ValueError, RecursionError) as error:
        found = f"{what} is not JSON: {error}, it begins with {document[:40]!r}"
        raise FormatError(f"{found}; check the URL, or write it again") from error
    # Fewer brackets than the limit cannot nest deeper than it: no need to look.
    if what != ".zattrs" and document.count(b"[") + document.count(b"{") > _MAX_DEPTH:
        _refuse_deep(value, what)
    return as_object(value, what)


def _refuse_deep(value: object, what: str) -> None:
    """Refuse what nests so deeply that reading it by recursion could fail, but in attributes."""
    level: list[Any] = [value]
    for depth in range(_MAX_DEPTH):
        inner: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                inner.extend(v for name, v in node.items() if not _is_attributes(name, depth))
            elif isinstance(node, list):
                inner.extend(node)
        level = [v for v in inner if isinstance(v, dict | list)]
        if not level:
            return
    raise FormatError(f"{what} nests deeper than {_MAX_DEPTH} levels; flatten it")


def _is_attributes(name: str, depth: int) -> bool:
    """Return whether a member of a document holds what users have put there, as they like it.

    In a node's document, in the copy of one in consolidated metadata, in a ``.zmetadata``.
    """
    return (name == "attributes" and depth in (0, 3)) or (depth == 1 and name.endswith(".zattrs"))


def as_object(value: object, what: str) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise FormatError(f"{what} is {shown(value)}; it must be an object")
    return value


def as_list(value: object, what: str) -> list[Any]:
    """Return a JSON array."""
    if not isinstance(value, list):
        raise FormatError(f"{what} is {shown(value)}; it must be a list")
    return value


def as_string(value: object, what: str) -> str:
    """Return a JSON string."""
    if not isinstance(value, str):
        raise FormatError(f"{what} is {shown(value)}; it must be a string")
    return value


def as_integer(value: object, what: str, *, minimum: int = 0, maximum: int = MAX_NBYTES) -> int:
    """Return a whole number between two bounds, both included; booleans are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{what} is {shown(value)}; it must be a whole number")
    if not minimum <= value <= maximum:
        raise FormatError(f"{what} is {shown(value)}; it must lie between {minimum} and {maximum}")
    return value


def as_written_integer(
    value: object, what: str, *, default: int, minimum: int = 0, maximum: int = MAX_NBYTES
) -> int:
    """Return a whole number that only writers need, however others have spelled it.

    Readers that do not look at it take any: ``"6"``, ``6.0``, or null for the default.
    """
    if value is None:
        return default
    if (isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value)) or (
        isinstance(value, float) and value.is_integer()
    ):
        value = int(value)
    return as_integer(value, what, minimum=minimum, maximum=maximum)


def chunk_lengths(value: object, what: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths of chunks; along an axis of no length they may have none."""
    lengths = as_shape(value, what, ndim=len(shape))
    found = tuple(c or int(n == 0) for c, n in zip(lengths, shape, strict=True))
    return tuple(as_integer(c, f"a length in {what}", minimum=1) for c in found)


def as_shape(
    value: object, what: str, *, minimum: int = 0, ndim: int | None = None
) -> tuple[int, ...]:
    """Return the lengths of some axes.

    Parameters
    ----------
    value : object
        What the document holds there; a number alone is the length of the only axis.
    what : str
        Its name, for the message.
    minimum : int
        The least length of an axis: 0 for arrays, 1 for chunks.
    ndim : int or None
        How many axes there must be; None when any number will do.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    lengths = [value] if is_number else as_list(value, what)
    if len(lengths) > MAX_NDIM:
        raise FormatError(f"{what} has {len(lengths)} axes; NumPy has up to {MAX_NDIM}")
    if ndim is not None and len(lengths) != ndim:
        raise FormatError(
            f"{what} has {len(lengths)} axes where the array has {ndim}; make them equal"
        )
    return tuple(as_integer(length, f"a length in {what}", minimum=minimum) for length in lengths)


def bounded_product(values: Iterable[int], what: str) -> int:
    """Return a product of lengths that are not negative, at most 2**62.

    Raises
    ------
    FormatError
        The product is larger, or would be if no axis had length zero:
        NumPy refuses such shapes too.

    Examples
    --------
    >>> bounded_product((3, 4, 2), "the array")
    24
    """
    product, zero = 1, False
    for value in values:
        zero |= value == 0
        product *= value or 1
        if product > MAX_NBYTES:
            raise FormatError(f"{what} has more than 2**62 bytes; no memory can map it")
    return 0 if zero else product


def as_configuration(value: object, what: str) -> tuple[str, dict[str, Any]]:
    """Return name and configuration of an extension point (Zarr v3.1 core, "extension definition").

    Either an object with `name` and, if it likes, `configuration`, or the name alone.
    """
    if isinstance(value, str):
        return value, {}
    definition = as_object(value, what)
    name = as_string(definition.get("name"), f"the name of {what}")
    refuse_unknown(definition, ("name", "configuration", "must_understand"), f"{what} {name!r}")
    return name, as_object(definition.get("configuration", {}), f"the configuration of {name!r}")


def refuse_unknown(members: dict[str, Any], known: Collection[str], what: str) -> None:
    """Refuse members that may change the meaning of what is known.

    A member may be left aside when it is an object that says
    `"must_understand": false` (Zarr v3.1 core, "extension points").
    """
    for name, value in members.items():
        if name in known:
            continue
        if isinstance(value, dict) and value.get("must_understand") is False:
            continue
        raise FormatError(
            f"{what} has the unknown member {shown(name)}; a newer lazyarr may know it"
        )
