"""What the head of an HTTP answer says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.store.failure import UnusableAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ContentRange",
    "check_given",
    "content_length",
    "parse_content_range",
    "version_of",
]

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


class ContentRange(NamedTuple):
    """Which bytes an answer holds, half open, and the size of the whole object."""

    start: int
    stop: int
    total_nbytes: int | None


def parse_content_range(header: str | None) -> ContentRange:
    """Return what a Content-Range header says (RFC 9110, section 14.4).

    Raises
    ------
    UnusableAnswerError
        When it is missing or not understood.

    Examples
    --------
    >>> parse_content_range("bytes 10-19/100")
    ContentRange(start=10, stop=20, total_nbytes=100)
    >>> parse_content_range("bytes */100")
    ContentRange(start=0, stop=0, total_nbytes=100)
    """
    match = _CONTENT_RANGE.fullmatch((header or "").strip())
    if match is None:
        found = f"the server answered a range with the header Content-Range: {header!r}"
        raise UnusableAnswerError(found)
    first, last, total = match.groups()
    stop = 0 if last is None else int(last) + 1
    return ContentRange(int(first or 0), stop, None if total == "*" else int(total))


def check_given(given: ContentRange, start: int, stop: int) -> None:
    """Refuse another range than was asked for; less is given where the object ends before.

    Raises
    ------
    UnusableAnswerError
        When it is.
    """
    if given.start != start or not start <= given.stop <= stop:
        found = (
            f"the server gave bytes [{given.start}, {given.stop}) of {given.total_nbytes} instead"
        )
        raise UnusableAnswerError(found)


def version_of(headers: Mapping[str, str], total_nbytes: int | None) -> str | None:
    """Return what says that an object has not changed by a byte, if the server gives that.

    A weak entity tag says less.  A date alone does if it has passed for some time when it is
    told: what is written in the same second has the same (RFC 9110, section 8.8.2.2).
    """
    tag: str | None = headers.get("ETag")
    if tag is not None:
        return tag if tag.startswith('"') else None
    from email.utils import parsedate_to_datetime

    try:
        modified, now = (headers[name] for name in ("Last-Modified", "Date"))
        age = parsedate_to_datetime(now) - parsedate_to_datetime(modified)
    except (KeyError, ValueError, TypeError):
        return None
    return f"{modified} {total_nbytes}" if age.total_seconds() >= 60 else None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return how long a body is, if that is said of the body as it arrives."""
    is_plain = headers.get("Content-Encoding", "identity") == "identity"
    length = headers.get("Content-Length", "")
    return int(length) if is_plain and length.isdecimal() else None
