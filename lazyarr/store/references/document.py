"""The JSON document of references: kerchunk's versions 0 and 1.

Source: kerchunk's specification, and fsspec's `ReferenceFileSystem`, which reads the same.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
import re
from typing import TYPE_CHECKING, Any

from lazyarr.checks import as_list, as_object, shown
from lazyarr.errors import FormatError
from lazyarr.store.base import METADATA_NAMES
from lazyarr.store.references.entries import MAX_NBYTES, Target
from lazyarr.store.references.templates import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazyarr.store.references.entries import Reference

__all__ = ["parse_references"]

_MAX_GENERATED = 1 << 22
"""How many references `gen` may make: as many as the longest document has."""
_MAX_TARGET_CHARACTERS = 1 << 30
"""How many characters the URLs that templates make may have, all together."""
_ODD_KEY = re.compile(r"\0|(?:^|/)\.{0,2}(?:/|\Z)")
_HEAD_NBYTES = 64
"""A document has its brace among the first bytes: other files are told apart by these alone."""


def parse_references(
    document: bytes, what: str, *, overrides: Mapping[str, str] | None = None
) -> dict[str, Reference]:
    """Return the references of a document by key.

    Parameters
    ----------
    document : bytes
        JSON.
    what : str
        Which document it is, for messages.
    overrides : mapping, optional
        Templates in place of those that the document has.

    Raises
    ------
    FormatError
        It is no such document, or asks for what lazyarr does not do.

    Examples
    --------
    >>> refs = {"x/0": ["s3://bucket/a.nc", 512, 64], "x/.zarray": "{}"}
    >>> parse_references(json.dumps({"version": 1, "refs": refs}).encode(), "it")["x/0"]
    Target(url='s3://bucket/a.nc', start=512, nbytes=64)
    """
    try:
        return _Parser(overrides or {}).parse(_load(document))
    except FormatError as error:
        raise FormatError(f"cannot open {what}: {error}") from error


def _load(document: bytes) -> dict[str, Any]:
    if not document[:_HEAD_NBYTES].lstrip().startswith(b"{"):
        raise FormatError(f"it is no JSON object: it begins with {document[:16]!r}")
    try:
        return as_object(json.loads(document), "it")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is no JSON: {error}") from error


class _Parser:
    def __init__(self, overrides: Mapping[str, str]) -> None:
        self._overrides = overrides
        self._templates: dict[str, str] = {}
        self._rendered: dict[str, str] = {}
        self._n_characters = 0

    def parse(self, members: dict[str, Any]) -> dict[str, Reference]:
        version = members.get("version")
        if version is None and "refs" not in members:
            return self._references(_flat(members))
        if version not in (None, 1) or isinstance(version, bool):
            raise FormatError(f"its references are of version {shown(version)}; it must be 1")
        templates = as_object(members.get("templates") or {}, "templates") | dict(self._overrides)
        for name, text in templates.items():
            if not isinstance(text, str):
                raise FormatError(f"template {name!r} is {shown(text)}; it must be text")
        self._templates = templates
        refs = as_object(members.get("refs", {}), "refs")
        generated = self._generate(as_list(members.get("gen") or [], "gen"))
        return self._references(refs) | generated

    def _references(self, refs: dict[str, Any]) -> dict[str, Reference]:
        # In place, so that what was parsed of a million references is let go on the way.
        found: dict[str, Any] = refs
        for key, value in refs.items():
            found[key] = self._reference(key, value)
        for key in [key for key in found if not _is_key(key)]:
            # VirtualiZarr 2.8 writes the only chunk of an array without axes so.
            array = key.removesuffix("/")
            if not (_is_key(array) and f"{array}/.zarray" in found):
                raise FormatError(f"it has the key {shown(key)}, which leaves the store")
            found.setdefault(f"{array}/0", found.pop(key))
        return found

    def _reference(self, key: str, value: object) -> Reference:
        # Nearly all are plain ones, and there may be a million.
        if type(value) is list and len(value) == 3 and not self._templates:
            url, start, nbytes = value
            is_plain = type(url) is str and type(start) is type(nbytes) is int
            if is_plain and 0 <= start < MAX_NBYTES and 0 <= nbytes < MAX_NBYTES:
                return Target(url, start, nbytes)
        if isinstance(value, str):
            return _inlined(key, value)
        if isinstance(value, dict):
            return json.dumps(value).encode()
        if not isinstance(value, list) or len(value) not in (1, 3):
            raise FormatError(f"reference {key!r} is {shown(value)}; it must be text, [url] or "
                              "[url, offset, length]")  # fmt: skip
        what = f"the target of {key!r}"
        if not isinstance(value[0], str):
            raise FormatError(f"{what} is {shown(value[0])}; it must be a URL")
        url = self._render(value[0], what)
        if len(value) == 1:
            return Target(url, 0, None)
        return Target(url, _number(value[1], key, "offset"), _number(value[2], key, "length"))

    def _render(self, text: str, what: str) -> str:
        # Without templates braces are parts of a name.
        if not self._templates or "{" not in text:
            return text
        found = self._rendered.get(text)
        if found is None:
            found = self._rendered[text] = render(text, self._templates, what)
            self._count(found)
        return found

    def _count(self, text: str) -> None:
        self._n_characters += len(text)
        if self._n_characters > _MAX_TARGET_CHARACTERS:
            raise FormatError(f"its templates make more than {_MAX_TARGET_CHARACTERS} characters")

    def _generate(self, gens: list[Any]) -> dict[str, Reference]:
        found: dict[str, Reference] = {}
        n_left = _MAX_GENERATED
        for number, value in enumerate(gens):
            what = f"gen[{number}]"
            gen = as_object(value, what)
            dimensions = _dimensions(gen.get("dimensions"), what)
            n_references = math.prod(len(each) for each in dimensions.values())
            n_left -= n_references
            if n_left < 0:
                raise FormatError(
                    f"{what} makes too many references: all of gen may make {_MAX_GENERATED}"
                )
            # A product with nothing would list what it is multiplied with all the same.
            for names in _products(dimensions) if n_references else ():
                key, target = self._generated(gen, {**self._templates, **names}, what)
                if not _is_key(key):
                    raise FormatError(f"{what} makes the key {shown(key)}, which leaves the store")
                found[key] = target
        return found

    def _generated(
        self, gen: dict[str, Any], names: dict[str, Any], what: str
    ) -> tuple[str, Target]:
        texts: dict[str, str] = {}
        for part in ("key", "url", "offset", "length"):
            text = gen.get(part)
            if isinstance(text, int) and not isinstance(text, bool):
                text = str(text)
            if text is None and part in ("offset", "length"):
                continue
            if not isinstance(text, str):
                raise FormatError(f"{part} of {what} is {shown(text)}; it must be text")
            texts[part] = render(text, names, f"{part} of {what}")
            self._count(texts[part])
        key, url = texts["key"], texts["url"]
        if not ("offset" in texts and "length" in texts):
            return key, Target(url, 0, None)
        numbers = []
        for part in ("offset", "length"):
            try:
                numbers.append(_number(int(texts[part][:32]), key, part))
            except ValueError:
                raise FormatError(f"{part} of {what} is {shown(texts[part])}; it must be a number"
                                  ) from None  # fmt: skip
        return key, Target(url, numbers[0], numbers[1])


def _flat(members: dict[str, Any]) -> dict[str, Any]:
    """Return a document of version 0, which is nothing but references, if it is one."""
    if not any(key.rpartition("/")[2] in METADATA_NAMES for key in members):
        found = f"it has {', '.join(map(repr, list(members)[:5]))}" if members else "it is empty"
        raise FormatError(
            f"it is JSON, but no kerchunk references: {found}, and neither 'refs' nor any metadata "
            "of Zarr's; give the directory of a Zarr store, or a file of references"
        )
    return members


def _inlined(key: str, text: str) -> bytes:
    if not text.startswith("base64:"):
        return text.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text[len("base64:") :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"reference {key!r} is no base64: {error}") from error


def _number(value: object, key: str, name: str) -> int:
    if type(value) is not int or not 0 <= value < MAX_NBYTES:
        raise FormatError(
            f"the {name} of reference {key!r} is {shown(value)}; it must be a number of bytes"
        )
    return value


def _is_key(key: str) -> bool:
    return _ODD_KEY.search(key) is None


def _dimensions(value: object, what: str) -> dict[str, range | list[Any]]:
    found: dict[str, range | list[Any]] = {}
    for name, given in as_object(value, f"dimensions of {what}").items():
        if isinstance(given, list):
            found[name] = given
            continue
        bounds = as_object(given, f"dimension {name!r} of {what}")
        numbers = [bounds.get("start", 0), bounds.get("stop"), bounds.get("step", 1)]
        # Half of what `len` can say of a range.
        is_valid = all(type(n) is int and abs(n) < MAX_NBYTES >> 1 for n in numbers)
        if not is_valid or numbers[2] == 0:
            raise FormatError(f"dimension {name!r} of {what} is {shown(given)}; it must be a list, "
                              "or have integers as start, stop and step")  # fmt: skip
        found[name] = range(*numbers)
    return found


def _products(dimensions: dict[str, range | list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*dimensions.values()):
        yield dict(zip(dimensions, values, strict=True))
