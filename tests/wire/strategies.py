"""Messages of every kind, with anything in their fields that fits."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lazyarr.wire import messages as w

KINDS = tuple(w.KINDS.values())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
numbers = st.integers(-1, (1 << 63) - 1)

_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "int": numbers,
    "bool": st.booleans(),
    "str": st.text(max_size=20),
    "dict[str, Any]": objects,
    "list[int]": st.lists(st.integers(), max_size=4),
    "list[list[int]]": st.lists(st.lists(st.integers(), min_size=2, max_size=2), max_size=4),
    "list[dict[str, Any]]": st.lists(objects, max_size=2),
}


def messages_of(kind: type) -> st.SearchStrategy[Any]:
    """Return a strategy for one kind of message."""
    annotations = kind.__annotations__.items()
    return st.builds(kind, **{name: _FIELDS[a] for name, a in annotations})


messages = st.one_of([messages_of(kind) for kind in KINDS])
