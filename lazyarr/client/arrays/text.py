"""Values as text for people: sizes, counts, columns, and nothing that a terminal obeys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazyarr.errors import FormatError

__all__ = ["columns", "count", "format_nbytes", "one_line", "printable", "reason"]

_MAX_VALUE = 400  # characters


def format_nbytes(nbytes: int) -> str:
    """Return a size as people read it, to three digits.

    Examples
    --------
    >>> format_nbytes(402_653_184), format_nbytes(1536), format_nbytes(17)
    ('384 MiB', '1.5 KiB', '17 B')
    """
    if nbytes < 1024:
        return f"{nbytes} B"
    size = float(nbytes)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        size /= 1024
        if size < 999.5:  # more would round to four digits
            return f"{size:.3g} {unit}"
    return f"{size / 1024:.3g} EiB"


def printable(text: str) -> str:
    r"""Return text with everything spelled out that a terminal might obey.

    Examples
    --------
    >>> printable("red \x1b[31m")
    'red \\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(path: str, error: FormatError) -> str:
    """Return why a node cannot be used, for a place that names the node already."""
    found = error.message.removeprefix(f"cannot read the metadata of '/{path}': ")
    return found.removeprefix(f"cannot map '/{path}': ")


def one_line(value: Any) -> str:
    """Return a value out of a JSON document on one line, cut to a readable length."""
    try:
        text = value
        if not isinstance(value, str):
            text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "nested too deeply to be shown"
    return printable(text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + " ...")


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count(1, "chunk"), count(2500, "chunk")
    ('1 chunk', '2,500 chunks')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows with their cells below one another; the last cell of a row is as long as it is."""
    widths: dict[int, int] = {}
    for row in rows:
        for place, cell in enumerate(row[:-1]):
            widths[place] = max(widths.get(place, 0), len(cell))
    for row in rows:
        cells = [cell.ljust(widths[place]) for place, cell in enumerate(row[:-1])]
        yield "  ".join([*cells, *row[-1:]])
