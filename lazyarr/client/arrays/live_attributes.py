"""Attributes of what is open in mode "r+": to be changed, and stored at the next flush."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from lazyarr.formats.zarr import plain_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["AttributesRoot", "LiveDict", "LiveList", "is_same_json"]


class AttributesRoot:
    """The attributes of one node, as they are here and as the store has them.

    Parameters
    ----------
    stored : dict
        What the store has.
    require_own : callable
        Raises where they cannot be changed.
    read : callable
        Returns what the store has now.

    Attributes
    ----------
    attributes : LiveDict
        What users change.
    stored : dict
        What the store is known to have.
    is_changed : bool
        Whether something was changed that the store does not have.
    is_in_conflict : bool
        Whether another writer has changed them too, which was said, and no flush has succeeded
        since.
    """

    def __init__(
        self,
        stored: dict[str, Any],
        require_own: Callable[[], None],
        read: Callable[[], dict[str, Any]],
    ) -> None:
        self.lock = threading.RLock()
        self.stored = stored
        self.is_changed = False
        self.is_in_conflict = False
        self._require_own = require_own
        self._read = read
        self.attributes: LiveDict = _live(stored, self)

    def begin_change(self) -> None:
        """Take note that something is changed, under the lock; raise where that is not possible."""
        self._require_own()
        self.is_changed = True

    def take(self) -> dict[str, Any]:
        """Return what the store is to have; nothing counts as changed then."""
        with self.lock:
            self.is_changed = False
            taken: dict[str, Any] = _plain(self.attributes)
            return taken

    def take_back(self) -> None:
        """Take note that the store does not have what was taken."""
        with self.lock:
            self.is_changed = True

    def put_on(self, found: dict[str, Any]) -> None:
        """Have what was changed here, name by name, and all else as another writer has put it."""
        with self.lock:
            for name in {*self.stored, *found}:
                is_theirs = not _is_same(self.stored, found, name)
                if is_theirs and _is_same(self.stored, self.attributes, name):
                    dict.pop(self.attributes, name, None)
                    if name in found:
                        dict.__setitem__(self.attributes, name, _live(found[name], self))
            self.stored = found
            self.is_changed = self.is_in_conflict = True

    def refresh(self) -> None:
        """Have what the store has now, and nothing of what was changed here."""
        found = self._read()
        with self.lock:
            self.stored = found
            self.is_changed = self.is_in_conflict = False
            dict.clear(self.attributes)
            dict.update(self.attributes, _live(found, self))


class LiveDict(dict[str, Any]):
    """A dict whose changes, at any depth, are stored at the next flush.

    It is one, so that `json` and others take it.  What is put into it becomes what JSON has:
    lists of tuples and of NumPy's arrays, numbers of NumPy's.
    """

    __slots__ = ("root",)

    root: AttributesRoot

    def _converted(self, key: Any, value: Any) -> Any:
        if not isinstance(key, str):
            raise TypeError(f"attribute name {key!r:.80} is a {type(key).__name__}; give a str")
        return _live(plain_attribute(value, f"attribute {key!r}"), self.root)

    def __setitem__(self, key: str, value: Any) -> None:
        converted = self._converted(key, value)
        with self.root.lock:
            self.root.begin_change()
            super().__setitem__(key, converted)

    def __delitem__(self, key: str) -> None:
        with self.root.lock:
            self.root.begin_change()
            super().__delitem__(key)

    def clear(self) -> None:
        """Remove all."""
        with self.root.lock:
            self.root.begin_change()
            super().clear()

    def pop(self, key: str, *default: Any) -> Any:
        """Remove one and return it; see `dict.pop`."""
        with self.root.lock:
            self.root.begin_change()
            return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last one, and return its name and value."""
        with self.root.lock:
            self.root.begin_change()
            return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return one, which is put there if it is missing."""
        with self.root.lock:
            if key not in self:
                self[key] = default
            return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """Set several at once; none if one of them cannot be stored."""
        given: dict[str, Any] = dict(*others, **named)
        converted = {key: self._converted(key, value) for key, value in given.items()}
        with self.root.lock:
            self.root.begin_change()
            super().update(converted)

    def replace(self, others: Any) -> None:
        """Have these attributes and no others."""
        if others is self:  # what `x.attrs |= others` ends with
            return
        converted = {key: self._converted(key, value) for key, value in dict(others).items()}
        with self.root.lock:
            self.root.begin_change()
            super().clear()
            super().update(converted)

    def refresh(self) -> None:
        """Have what the store has now; what was changed here since the last flush is dropped.

        All attributes of the array or the group, also where this is a dict in one of them.

        Raises
        ------
        StoreError
            The store cannot be read.  Nothing is dropped.

        Examples
        --------
        >>> import lazyarr, numpy
        >>> lazyarr.save("memory://doc-refresh", {"x": numpy.arange(3)})
        >>> with lazyarr.configure(engine="copy"), lazyarr.open("memory://doc-refresh", "r+") as ds:
        ...     ds.attrs["title"] = "no"
        ...     ds.attrs.refresh()
        ...     ds.attrs
        {}
        """
        self.root.refresh()

    def __ior__(self, other: Any) -> LiveDict:  # type: ignore[override, misc]
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        """Pickle and copy as a plain dict."""
        return dict, (dict(self),)


class LiveList(list[Any]):
    """A list whose changes, at any depth, are stored at the next flush."""

    __slots__ = ("root",)

    root: AttributesRoot

    def _converted(self, value: Any) -> Any:
        return _live(plain_attribute(value, "an attribute's element"), self.root)

    def _all_converted(self, values: Iterable[Any]) -> list[Any]:
        return [self._converted(value) for value in values]

    def __setitem__(self, index: Any, value: Any) -> None:
        is_slice = isinstance(index, slice)
        converted = self._all_converted(value) if is_slice else self._converted(value)
        with self.root.lock:
            self.root.begin_change()
            super().__setitem__(index, converted)

    def __delitem__(self, index: Any) -> None:
        with self.root.lock:
            self.root.begin_change()
            super().__delitem__(index)

    def append(self, value: Any) -> None:
        """Add an element at the end."""
        self.extend([value])

    def extend(self, values: Iterable[Any]) -> None:
        """Add elements at the end."""
        converted = self._all_converted(values)
        with self.root.lock:
            self.root.begin_change()
            super().extend(converted)

    def insert(self, index: Any, value: Any) -> None:
        """Add an element before a place."""
        self[index:index] = [value]

    def clear(self) -> None:
        """Remove all elements."""
        del self[:]

    def pop(self, index: Any = -1) -> Any:
        """Remove an element and return it."""
        with self.root.lock:
            self.root.begin_change()
            return super().pop(index)

    def remove(self, value: Any) -> None:
        """Remove the first element that is equal."""
        with self.root.lock:
            del self[self.index(value)]

    def reverse(self) -> None:
        """Turn the elements around."""
        self[:] = self[::-1]

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort the elements."""
        self[:] = sorted(self, key=key, reverse=reverse)

    def __iadd__(self, values: Iterable[Any]) -> LiveList:  # type: ignore[misc]
        self.extend(values)
        return self

    def __imul__(self, n: Any) -> LiveList:  # type: ignore[misc]
        self[:] = list(self) * n
        return self

    def __reduce__(self) -> Any:
        """Pickle and copy as a plain list."""
        return list, (list(self),)


def _live(value: Any, root: AttributesRoot) -> Any:
    """Return a copy of a value of which changes are noticed at any depth."""
    if isinstance(value, dict):
        live = LiveDict()
        live.root = root
        for key, member in value.items():
            dict.__setitem__(live, key, _live(member, root))
        return live
    if isinstance(value, list):
        members = LiveList()
        members.root = root
        list.extend(members, (_live(member, root) for member in value))
        return members
    return value


def _is_same(one: dict[str, Any], other: dict[str, Any], name: str) -> bool:
    """Return whether two nodes have the same attribute of a name, or neither has any."""
    return is_same_json(*({name: each[name]} if name in each else {} for each in (one, other)))


def is_same_json(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two dicts are the same as JSON."""
    # As texts: NaN does not equal itself, and True equals 1.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _plain(value: Any) -> Any:
    """Return a copy of a value as plain dicts and lists."""
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value
