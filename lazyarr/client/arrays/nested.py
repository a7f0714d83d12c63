"""Arguments of NumPy's functions, which may hold arrays in lists, tuples and dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["replace_items"]


def replace_items(value: Any, replaced: Callable[[Any], Any]) -> Any:
    """Return a value with `replaced` applied to it, or to the items of lists, tuples and dicts.

    Examples
    --------
    >>> replace_items([1, (2, {"a": 3})], lambda item: item * 10)
    [10, (20, {'a': 30})]
    """
    # Of exactly these types: a named tuple or a subclass may not be made from its items.
    if type(value) in (list, tuple):
        return type(value)(replace_items(item, replaced) for item in value)
    if type(value) is dict:
        return {key: replace_items(item, replaced) for key, item in value.items()}
    return replaced(value)
