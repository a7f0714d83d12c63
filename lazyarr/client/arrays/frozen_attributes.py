"""Attributes as they are given to users: to be read, and not to be changed in vain."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["FrozenDict", "FrozenList", "freeze"]


def _refuse(self: FrozenDict | FrozenList, *_: object, **__: object) -> NoReturn:
    raise TypeError(
        f"cannot change the attributes of {self.where}: they are what the store says, and it "
        "would not hear of it; those of a Zarr store can be changed where it is open with "
        "lazyarr.open(url, 'r+'), others after copy.deepcopy(attrs)"
    )


class FrozenDict(dict[str, Any]):
    """A dict that refuses to be changed.

    It is one, so that `json` and others take it.
    """

    __slots__ = ("where",)

    where: str

    __setitem__ = __delitem__ = _refuse

    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> Any:
        """Pickle and copy as a plain dict."""
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """A list that refuses to be changed."""

    __slots__ = ("where",)

    where: str

    __setitem__ = __delitem__ = _refuse

    append = clear = extend = insert = pop = remove = _refuse
    reverse = sort = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> Any:
        """Pickle and copy as a plain list."""
        return list, (list(self),)


def freeze(attributes: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a copy of attributes in which nothing can be changed, at any depth.

    Parameters
    ----------
    attributes : dict
        What JSON can hold.
    where : str
        Whose they are, for the error.

    Examples
    --------
    >>> attrs = freeze({"a": [1, {"b": 2}]}, "'x' in file:///data")
    >>> attrs["a"][1]["b"], attrs == {"a": [1, {"b": 2}]}
    (2, True)
    >>> attrs["a"].append(3)
    Traceback (most recent call last):
    ...
    TypeError: cannot change the attributes of 'x' in file:///data: they are what the store says, \
and it would not hear of it; those of a Zarr store can be changed where it is open with \
lazyarr.open(url, 'r+'), others after copy.deepcopy(attrs)
    """
    root: dict[str, Any] = _empty(attributes, where)
    # Not by recursion: what JSON holds may be nested as deeply as a parser goes.
    waiting: list[tuple[Any, Any]] = [(attributes, root)]
    while waiting:
        given, frozen = waiting.pop()
        items = given.items() if isinstance(given, dict) else enumerate(given)
        for key, value in items:
            kept = value
            if isinstance(value, dict | list):
                kept = _empty(value, where)
                waiting.append((value, kept))
            if isinstance(given, dict):
                dict.__setitem__(frozen, key, kept)
            else:
                list.append(frozen, kept)
    return root


def _empty(value: Any, where: str) -> Any:
    frozen = FrozenDict() if isinstance(value, dict) else FrozenList()
    frozen.where = where
    return frozen
