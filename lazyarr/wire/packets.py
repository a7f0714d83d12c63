"""Makes packets of messages, and messages of packets.

Every message is one JSON object in one packet: ``{"is": NAME, ...fields}``.  Whatever comes on
a socket is untrusted, so each field is checked, and nothing is ever unpickled.  A message can
carry a value, never code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lazyarr.errors import PagerError
from lazyarr.wire.messages import KINDS, Message, Record

__all__ = ["decode", "document_of", "encode", "message_of"]

# Made once: json.dumps makes an encoder for each call that names separators.  Values
# that JSON does not know go as text.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)

_DECODER = json.JSONDecoder()

# How deep a field may nest that holds any value.  The sender's JSON encoder can nest deeper than
# the reader's.  A message that was read must also fit into a record, which nests it by one more.
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
        When the packet holds no message: the two sides are of different versions, or the
        sender is no client and no pager.
    """
    try:
        # Not `json.loads`, which asks first which of six encodings it is.
        text = packet.decode()
        document, stop = _DECODER.raw_decode(text)
        if stop != len(text):
            raise ValueError("more than one object")
        return message_of(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = packet[:80].decode("ascii", "backslashreplace")
        raise PagerError(
            f"cannot read a message: {type(error).__name__} in {shown!r}; "
            "client and pager must be of one version"
        ) from None


def message_of(document: dict[str, Any]) -> Message:
    """Return the message that an object describes; raise ValueError or its like if it is none."""
    # Neither more fields nor fewer: a field that one side alone knows is a change of meaning,
    # for which versions are compared.
    fields = {name: value for name, value in document.items() if name != "is"}
    kind = KINDS[document["is"]]
    if fields.keys() != set(kind._fields):
        raise ValueError("other fields")
    for name, annotation in kind.__annotations__.items():
        _check(fields[name], annotation)
        if annotation in _FREE and fields[name]:
            _refuse_deep(fields[name], _MAX_DEPTH + (kind is Record))
    return kind(**fields)


def _refuse_deep(value: Any, limit: int) -> None:
    """Raise ValueError when a value nests deeper than a limit."""
    # Level by level, for a function that calls itself could be nested too deeply as well.
    level = [value]
    for _ in range(limit):
        inner = [node.values() if isinstance(node, dict) else node for node in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not level:
            return
    raise ValueError("nests too deeply")


def _check(value: Any, annotation: str) -> None:
    """Raise ValueError when a field does not hold a value of its type."""
    wanted = _JSON_TYPES[annotation]
    # bool is a subclass of int.
    if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        raise ValueError(annotation)
    # JSON's integers have no limit, and the kernel's do: struct.pack would fail later, in a worker
    # that serves other clients too.  -1 stands for "none".
    if wanted is int and not -1 <= value < 1 << 63:
        raise ValueError("no address, offset or count")
    check_item = _ITEM_CHECKS.get(annotation)
    if check_item is not None and value and not all(check_item(item) for item in value):
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
