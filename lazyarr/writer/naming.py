"""Options that are given for all arrays of a store, or by the names of arrays.  Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

if TYPE_CHECKING:
    from lazyarr.writer.options import ChunksOption, ShardsOption

__all__ = ["ArrayOptions", "fit_rows"]

_LEAST_NBYTES = 1 << 16
"""Smallest chunk that a number of rows gives where it is for several arrays."""

_DEFAULTS: dict[str, Any] = {"chunks": "auto", "shards": "auto", "dimension_names": None}


class _Fitted(NamedTuple):
    path: str
    nbytes: int
    rows: int


class ArrayOptions:
    """The options that `save` was given, as they apply to each array.

    Parameters
    ----------
    paths : collection of str
        The paths of the arrays; ``{""}`` where the root is an array.
    chunks, shards, dimension_names : object
        As `save` takes them: one value for all arrays, or a mapping by path.
    attributes : mapping or None
        A mapping by path, where each key is an array's path, or ``""`` for the root, and each
        value is a mapping.  Any other mapping has the attributes of the root.

    Attributes
    ----------
    root_attributes : mapping or None
        The root's attributes, where the root is a group.

    Raises
    ------
    ValueError
        When an option is given for an array that is not in `paths`.

    Examples
    --------
    >>> given = {"shards": "auto", "dimension_names": None, "attributes": {"a": {"unit": "K"}}}
    >>> options = ArrayOptions({"a", "b"}, chunks={"a": 1}, **given)
    >>> [options.of(path, (100,), 8)["chunks"] for path in "ab"], options.of("a", (100,), 8)[
    ...     "attributes"
    ... ]
    ([1, 'auto'], {'unit': 'K'})
    """

    def __init__(self, paths: Collection[str], *, attributes: Any, **given: Any) -> None:
        self._is_alone = len(paths) == 1
        self._given = given
        self._fitted: dict[str, list[_Fitted]] = {"chunks": [], "shards": []}
        self.root_attributes, self._attributes = attributes, {}
        if "" in paths:
            self.root_attributes, self._attributes = None, {"": attributes}
        elif _is_by_name(attributes, paths):
            self.root_attributes = attributes.get("")
            self._attributes = dict(attributes)
        for option, value in given.items():
            unknown = [name for name in value if name not in paths] if _is_mapping(value) else []
            if unknown:
                there_is = ", ".join(map(repr, sorted(paths)[:10])) or "none"
                raise ValueError(
                    f"{option} are given for {unknown[0]!r:.80}, which is no array here; "
                    f"arrays are {there_is}"
                )

    def of(self, path: str, shape: tuple[int, ...], itemsize: int) -> dict[str, Any]:
        """Return the options of one array, as `plan_array` takes them."""
        options = {
            name: value.get(path, _DEFAULTS[name]) if _is_mapping(value) else value
            for name, value in self._given.items()
        }
        is_own = self._is_alone or any(
            _is_mapping(value) and path in value and name in self._fitted
            for name, value in self._given.items()
        )
        if not is_own:
            self._fit(path, shape, itemsize, options)
        return {**options, "attributes": self._attributes.get(path)}

    def warnings(self) -> Iterator[str]:
        """Yield warnings of numbers of rows that were too small for some arrays, and raised."""
        for option, fitted in self._fitted.items():
            named = [f"{name!r} ({nbytes} bytes, now {rows} rows)" for name, nbytes, rows in fitted]
            more = f" and {len(named) - 5} more" if len(named) > 5 else ""
            if named:
                given = self._given[option]
                yield (
                    f"{option}={given} is for all arrays, and is too little for "
                    f"{', '.join(named[:5])}{more}: less than {_LEAST_NBYTES // 1024} KiB takes "
                    f"longer to find than to read; say {option}={{{fitted[0].path!r}: {given}}} "
                    "where it is meant"
                )

    def _fit(
        self, path: str, shape: tuple[int, ...], itemsize: int, options: dict[str, Any]
    ) -> None:
        before = options["chunks"], options["shards"]
        after = fit_rows(shape, itemsize, *before)
        options["chunks"], options["shards"] = after
        row_nbytes = math.prod(shape[1:]) * itemsize
        for option, old, new in zip(self._fitted, before, after, strict=True):
            if new != old and _is_rows(old) and _is_rows(new):
                self._fitted[option].append(_Fitted(path, old * row_nbytes, new))
                return  # the shards grew only because their chunks did


def fit_rows(
    shape: tuple[int, ...], itemsize: int, chunks: ChunksOption, shards: ShardsOption
) -> tuple[ChunksOption, ShardsOption]:
    """Return chunks and shards of one array where a number of rows was given for several.

    A row of one array may have a million times the bytes of a row of another.  So the number
    is multiplied until a chunk has 64 KiB, or all rows.

    Examples
    --------
    >>> fit_rows((200_000,), 8, 1, "auto")
    (8192, 'auto')
    >>> fit_rows((200_000, 64, 64), 2, 16, 64)
    (16, 64)
    """
    row_nbytes = math.prod(shape[1:]) * itemsize
    if not shape or not row_nbytes:
        return chunks, shards
    if not _is_rows(chunks):
        if _is_rows(shards) and chunks == "auto":
            shards = _multiplied(shards, shape[0], row_nbytes)
        return chunks, shards
    rows = _multiplied(chunks, shape[0], row_nbytes)
    if _is_rows(shards):
        # A shard keeps the number of chunks that the user asked for.
        return (rows, rows * (shards // chunks)) if shards % chunks == 0 else (chunks, shards)
    # Shards of a given shape hold whole chunks: only those of the given number of rows fit.
    return (rows, shards) if shards is None or shards == "auto" else (chunks, shards)


def _is_by_name(attributes: Any, paths: Collection[str]) -> bool:
    return (
        _is_mapping(attributes)
        and bool(attributes)
        and all(key in paths or key == "" for key in attributes)
        and all(map(_is_mapping, attributes.values()))
    )


def _is_mapping(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_rows(given: Any) -> TypeGuard[int]:
    return isinstance(given, int) and not isinstance(given, bool) and given > 0


def _multiplied(rows: int, n_rows: int, row_nbytes: int) -> int:
    wanted = min(-(-_LEAST_NBYTES // row_nbytes), max(1, n_rows))
    return -(-wanted // rows) * rows
