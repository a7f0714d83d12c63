"""Codecs as plain documents: a name and parameters, the same for every file format.

A process that reads chunks is told of their codecs by another one, so a document is untrusted.
"""

from __future__ import annotations

import importlib
from typing import Any

from lazyarr.checks import as_object, as_string, shown
from lazyarr.codecs.base import BytesCodec
from lazyarr.errors import FormatError

__all__ = ["CODECS", "codec_document", "make_codec", "parse_codec"]

CODECS = {
    "zstd": ("zstd", "Zstd"),
    "crc32c": ("checksum", "Crc32c"),
    "blosc": ("blosc", "Blosc"),
    "deflate": ("standard_library", "Deflate"),
    "bz2": ("standard_library", "Bz2"),
    "lzma": ("standard_library", "Lzma"),
    "shuffle": ("shuffle", "Shuffle"),
    "bitshuffle": ("shuffle", "Bitshuffle"),
    "lz4_blocks": ("shuffle", "Lz4Blocks"),
    "strings": ("strings", "Strings"),
    "scale_offset": ("packed", "ScaleOffset"),
    "nbit": ("packed", "Nbit"),
    "narrow_integers": ("packed", "NarrowIntegers"),
    "lzf": ("by_imagecodecs", "Lzf"),
    "szip": ("by_imagecodecs", "Szip"),
    "blosc2": ("blosc2", "Blosc2"),
    "zfp": ("zfp", "Zfp"),
    "bit_order": ("tiff", "BitOrder"),
    "lzw": ("tiff", "Lzw"),
    "jpeg": ("tiff", "Jpeg"),
    "packbits": ("tiff", "PackBits"),
    "packed_bits": ("tiff", "PackedBits"),
    "predictor": ("tiff", "Predictor"),
    "numcodec": ("numcodec", "Numcodec"),
    "zip_member": ("zip_member", "ZipMember"),
}
"""The module and the class of each codec, by its name.

A module is imported where a chunk needs it: most processes meet two of these codecs, and
each module costs start-up time.
"""


def make_codec(name: str, parameters: dict[str, Any]) -> BytesCodec:
    """Return the codec of a name, with its parameters checked.

    Parameters
    ----------
    name : str
        One of `CODECS`.
    parameters : dict
        All parameters of the codec, by the names of its fields.

    Raises
    ------
    FormatError
        There is no such codec, or its parameters are wrong.

    Examples
    --------
    >>> make_codec("zstd", {"level": 5, "checksum": False})
    Zstd(level=5, checksum=False)
    """
    found = CODECS.get(name)
    if found is None:
        raise FormatError(f"codec {shown(name)} is not known; it must be one of {tuple(CODECS)}")
    module, class_name = found
    kind: type[BytesCodec] = getattr(
        importlib.import_module(f"lazyarr.codecs.{module}"), class_name
    )
    if parameters.keys() != set(kind.parameter_names()):
        raise FormatError(
            f"codec {name!r} has the parameters {shown(sorted(parameters))}; they must be"
            f" {sorted(kind.parameter_names())}"
        )
    return kind.from_parameters(parameters)


def codec_document(codec: BytesCodec) -> dict[str, Any]:
    """Return a codec as an object that JSON can hold.

    Examples
    --------
    >>> codec_document(make_codec("zstd", {"level": 5, "checksum": False}))
    {'name': 'zstd', 'level': 5, 'checksum': False}
    """
    return {"name": codec.name, **codec.parameters()}


def parse_codec(document: object) -> BytesCodec:
    """Return the codec that `codec_document` has described.

    Raises
    ------
    FormatError
        The document describes no codec.
    """
    members = as_object(document, "a codec")
    name = as_string(members.get("name"), "the name of a codec")
    return make_codec(name, {key: value for key, value in members.items() if key != "name"})
