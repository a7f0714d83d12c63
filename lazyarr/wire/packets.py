"""Messages as packets, and packets as messages.

Every message is one JSON object in one packet: ``{"is": NAME, ...fields}``.
Messages are checked field by field before they are believed, and nothing is
ever unpickled: a message can carry a value, never code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lazyarr.errors import PagerError
from lazyarr.wire.messages import KINDS, Message, Record

__all__ = ["decode", "document_of", "encode", "message_of"]

_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)

# Of what may hold anything.  The sender's JSON encoder can nest deeper than the
# reader's, and a message that can be read must also go into a record.
_MAX_DEPTH = 32

_JSON_TYPES: dict[str, type[Any]] = {
    "int": int,
    "bool": bool,
    "str": str,
    "dict[str, Any]": dict,
    "list[int]": list,
    "list[list[int]]": list,
    "list[dict[str, Any]]": list,
}


def encode(message: Message) -> bytes:
    """Return the packet for a message."""
    return _ENCODER.encode(document_of(message)).encode()


def document_of(message: Message) -> dict[str, Any]:
    """Return a message as an object that JSON can hold."""
    return {"is": type(message).__name__, **vars(message)}


def decode(packet: bytes) -> Message:
    """Return the message in a packet.

    Raises
    ------
    PagerError
        When it is not one: the two sides are of different versions, or the
        sender is not what it says.
    """
    try:
        return message_of(json.loads(packet))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = packet[:80].decode("ascii", "backslashreplace")
        raise PagerError(
            f"cannot read a message: {type(error).__name__} in {shown!r}; "
            "client and pager must be of one version"
        ) from None


def message_of(document: dict[str, Any]) -> Message:
    """Return the message that an object describes; raise ValueError or its like when none."""
    fields = {name: value for name, value in document.items() if name != "is"}
    kind = KINDS[document["is"]]
    if fields.keys() != set(kind._fields):
        raise ValueError("other fields")
    for name, annotation in kind.__annotations__.items():
        _check(fields[name], annotation)
        if annotation in _FREE:
            _refuse_deep(fields[name], _MAX_DEPTH + (kind is Record))
    return kind(**fields)


def _refuse_deep(value: Any, limit: int) -> None:
    """Raise ValueError when a value nests deeper than it may."""
    level = [value]
    for _ in range(limit):
        inner = [node.values() if isinstance(node, dict) else node for node in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not level:
            return
    raise ValueError("nests too deeply")


def _check(value: Any, annotation: str) -> None:
    """Raise ValueError when a field does not hold what it should."""
    wanted = _JSON_TYPES[annotation]
    if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        raise ValueError(annotation)
    if wanted is int and not -1 <= value < 1 << 63:
        raise ValueError("no address, offset or count")
    check_item = _ITEM_CHECKS.get(annotation)
    if check_item is not None and not all(check_item(item) for item in value):
        raise ValueError(annotation)


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)


def _is_number(value: Any) -> bool:
    return type(value) is int


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_FREE = ("dict[str, Any]", "list[dict[str, Any]]")
_ITEM_CHECKS: dict[str, Callable[[Any], bool]] = {
    "list[int]": _is_number,
    "list[list[int]]": _is_range,
    "list[dict[str, Any]]": _is_object,
}
