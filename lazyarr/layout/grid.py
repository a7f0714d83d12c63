"""Which object holds which chunk: the chunk grid and the keys of its chunks."""

from __future__ import annotations

from typing import Any, Literal

from lazyarr.checks import as_configuration, chunk_lengths, refuse_unknown, shown
from lazyarr.errors import FormatError
from lazyarr.values import Value

__all__ = ["KeyEncoding", "as_separator", "parse_chunk_grid", "parse_key_encoding"]

_NUMBER = "(?:0|[1-9][0-9]*)"


class KeyEncoding(Value):
    """How the key of a chunk follows from its place in the grid.

    Attributes
    ----------
    name : {"default", "v2"}
        ``default`` puts a ``c`` in front.
    separator : {"/", "."}
        What stands between the coordinates.
    """

    name: Literal["default", "v2"] = "default"
    separator: Literal["/", "."] = "/"

    def key(self, coordinates: tuple[int, ...]) -> str:
        """Return the key of a chunk, relative to its array.

        Parameters
        ----------
        coordinates : tuple of int
            The chunk's place in the grid, along the array's own axes.

        Examples
        --------
        >>> KeyEncoding().key((1, 2)), KeyEncoding("v2", ".").key((1, 2))
        ('c/1/2', '1.2')
        >>> KeyEncoding().key(()), KeyEncoding("v2", ".").key(())
        ('c', '0')
        """
        parts = map(str, coordinates)
        if self.name == "default":
            return self.separator.join(("c", *parts))
        return self.separator.join(parts) or "0"

    def patterns(self, ndim: int) -> tuple[str, ...]:
        r"""Return regular expressions for the names that keys of chunks are made of.

        One for what stands between two slashes; coordinates are not bounded.

        Examples
        --------
        >>> KeyEncoding().patterns(1), KeyEncoding("v2", ".").patterns(2)
        (('c', '(?:0|[1-9][0-9]*)'), ('(?:0|[1-9][0-9]*)\\.(?:0|[1-9][0-9]*)',))
        """
        names = [_NUMBER] * ndim
        if self.name == "default":
            names.insert(0, "c")
        names = names or ["0"]
        return tuple(names) if self.separator == "/" else (r"\.".join(names),)


def parse_key_encoding(value: object) -> KeyEncoding:
    """Return the encoding that a v3 document names.

    Raises
    ------
    FormatError
        It is not one of `default` and `v2` with a separator of "/" or ".".
    """
    name, configuration = as_configuration(value, "chunk_key_encoding")
    refuse_unknown(configuration, ("separator",), f"chunk_key_encoding {shown(name)}")
    if name == "default":
        return KeyEncoding("default", as_separator(configuration.get("separator", "/")))
    if name == "v2":
        return KeyEncoding("v2", as_separator(configuration.get("separator", ".")))
    raise FormatError(f"chunk_key_encoding {shown(name)} is not known; use 'default' or 'v2'")


def as_separator(value: Any) -> Literal["/", "."]:
    """Return the separator of chunk keys that a document has."""
    if value == "/":
        return "/"
    if value == ".":
        return "."
    raise FormatError(
        f"the separator of chunk_key_encoding is {shown(value)}; it must be '/' or '.'"
    )


def parse_chunk_grid(value: object, *, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the chunks of a regular grid over an array.

    Raises
    ------
    FormatError
        The grid is not regular, or its chunks do not have the array's axes.
    """
    name, configuration = as_configuration(value, "chunk_grid")
    if name != "regular":
        raise FormatError(
            f"chunk_grid {shown(name)} cannot be mapped; rewrite the array with a regular grid:"
            " 'lazyarr convert'"
        )
    refuse_unknown(configuration, ("chunk_shape",), "chunk_grid 'regular'")
    return chunk_lengths(configuration.get("chunk_shape"), "chunk_shape", shape)
