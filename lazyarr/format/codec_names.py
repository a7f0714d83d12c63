"""The names and parameters of single codecs, in Zarr v3 and v2.

Codecs other than those that lazyarr writes are imported where a document names
them: most processes meet none of them, and each costs start-up time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lazyarr.errors import FormatError
from lazyarr.format.check import (
    as_integer,
    as_list,
    as_object,
    as_string,
    refuse_unknown,
    shown,
)
from lazyarr.format.checksum import Crc32c
from lazyarr.format.codec import BytesCodec
from lazyarr.format.datatype import DataType
from lazyarr.format.zstd import Zstd

if TYPE_CHECKING:
    from lazyarr.format.blosc import Blosc
    from lazyarr.format.compress import Bz2, Deflate, Lzma

__all__ = ["FILTERS", "check_count", "parse_bytes_codec", "parse_filter", "parse_v2_codec"]

FILTERS: Mapping[str, str | None] = {
    "delta": "dtype",
    "fixedscaleoffset": "dtype",
    "quantize": "dtype",
    "astype": "decode_dtype",
    "bitround": None,
    "packbits": None,
}
"""Filters of numcodecs on elements, with the parameter that names the type of these."""

_MAX_CODECS = 32  # a chunk goes through all of them, one after the other
_MAX_LZMA_FILTERS = 4  # LZMA_FILTERS_MAX, lzma/filter.h
_PREFIX = "numcodecs."
_CNAMES = ("lz4", "lz4hc", "blosclz", "snappy", "zlib", "zstd")
_SHUFFLES: Mapping[str, int] = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_NOT_MAPPABLE = ("packbits", "zfp", "zfpy", "pcodec", "vlen-utf8", "vlen-bytes", "vlen_utf8")


def check_count(codecs: Sequence[object], what: str) -> None:
    """Refuse more codecs than anybody would have a chunk go through."""
    if len(codecs) > _MAX_CODECS:
        raise FormatError(f"{what} are {len(codecs)}; lazyarr reads up to {_MAX_CODECS}")


def parse_bytes_codec(name: str, configuration: dict[str, Any], *, typesize: int) -> BytesCodec:
    """Return the codec from bytes to bytes that a v3 document names.

    Parameters
    ----------
    name : str
        Its name; those of numcodecs may have the prefix ``numcodecs.``.
    configuration : dict
        Its parameters.
    typesize : int
        Size of an element in bytes, for shuffles that do not say.

    Raises
    ------
    FormatError
        There is no such codec, or its parameters are wrong.
    """
    if name in _V3:
        return _V3[name](configuration)
    if name == "blosc":
        return _parse_blosc(configuration, typesize=typesize)
    return _parse_numcodec(
        {**configuration, "id": name.removeprefix(_PREFIX)}, typesize, known=name
    )


def parse_filter(name: str, configuration: dict[str, Any], dtype: DataType) -> BytesCodec:
    """Return the codec from elements to elements that a v3 document names before `bytes`."""
    plain = name.removeprefix(_PREFIX)
    if name == plain or plain not in FILTERS:
        known = name in ("transpose", "sharding_indexed") or name in _NOT_MAPPABLE
        raise FormatError(
            f"codec {shown(name)} {'can not be mapped here' if known else 'is not known'};"
            " read the array with the library that wrote it"
        )
    config = {**configuration, "id": plain}
    parameter = FILTERS[plain]
    if parameter is not None:
        config.setdefault(parameter, dtype.typestr)
    return _numcodec(config, dtype.typestr)


def parse_v2_codec(value: object, *, dtype: DataType, is_filter: bool) -> BytesCodec:
    """Return the codec that `compressor`, or an element of `filters`, of a ``.zarray`` names."""
    config = as_object(value, "a codec")
    name = as_string(config.get("id"), "the id of a codec")
    if is_filter and name in FILTERS:
        return _numcodec(config, None if dtype.fields else dtype.typestr)
    return _parse_numcodec(config, dtype.itemsize, known=name)


def _parse_numcodec(config: dict[str, Any], typesize: int, *, known: str) -> BytesCodec:
    """Return a codec as numcodecs names it, in our own code where there is some."""
    name = config["id"]
    parameters = {key: value for key, value in config.items() if key != "id"}
    if name in _NUMCODECS:
        return _NUMCODECS[name](parameters)
    if name == "blosc":
        return _parse_blosc(parameters, typesize=typesize)
    if name == "lzma":
        return _parse_lzma(parameters)
    if name == "crc32c" and parameters.get("location", "end") == "end":
        return Crc32c()
    if name == "shuffle":
        config = {**config, "elementsize": config.get("elementsize") or typesize}
    elif name in FILTERS or name in _NOT_MAPPABLE:
        raise FormatError(f"codec {shown(known)} can not be mapped here; read it with zarr-python")
    return _numcodec(config, None)


def _numcodec(config: dict[str, Any], dtype: str | None) -> BytesCodec:
    from lazyarr.format.numcodec import Numcodec

    return Numcodec.from_config(config, dtype=dtype)


def _parse_zstd(configuration: dict[str, Any]) -> Zstd:
    refuse_unknown(configuration, ("level", "checksum"), "codec 'zstd'")
    checksum = configuration.get("checksum", False)
    if not isinstance(checksum, bool):
        raise FormatError(
            f"checksum of codec 'zstd' is {shown(checksum)}; it must be true or false"
        )
    # Bounds of libzstd; level 0 is its default.
    return Zstd(_level(configuration, "zstd", 0, minimum=-131072, maximum=22), checksum)


def _parse_deflate(container: str) -> Callable[[dict[str, Any]], Deflate]:
    def parse(configuration: dict[str, Any]) -> Deflate:
        from lazyarr.format.compress import Deflate

        refuse_unknown(configuration, ("level",), f"codec {container!r}")
        level = _level(configuration, container, 1, minimum=-1, maximum=9)
        return Deflate("gzip" if container == "gzip" else "zlib", level)

    return parse


def _parse_crc32c(configuration: dict[str, Any]) -> Crc32c:
    refuse_unknown(configuration, (), "codec 'crc32c'")
    return Crc32c()


def _parse_bz2(configuration: dict[str, Any]) -> Bz2:
    from lazyarr.format.compress import Bz2

    refuse_unknown(configuration, ("level",), "codec 'bz2'")
    return Bz2(_level(configuration, "bz2", 1, minimum=1, maximum=9))


def _parse_lzma(configuration: dict[str, Any]) -> Lzma:
    from lazyarr.format.compress import Lzma

    refuse_unknown(configuration, ("format", "check", "preset", "filters"), "codec 'lzma'")
    container = configuration.get("format", 1)
    check = configuration.get("check", -1)
    preset = configuration.get("preset")
    filters = _parse_lzma_filters(configuration.get("filters"))
    codec = Lzma(
        as_integer(container, "format of codec 'lzma'", minimum=1, maximum=2 if not filters else 3),
        as_integer(check, "check of codec 'lzma'", minimum=-1, maximum=10),
        None if preset is None else as_integer(preset, "preset of codec 'lzma'", maximum=2**32 - 1),
        filters,
    )
    codec.check_filters()
    return codec


def _parse_lzma_filters(value: object) -> tuple[tuple[tuple[str, int], ...], ...]:
    filters = [] if value is None else as_list(value, "filters of codec 'lzma'")
    if len(filters) > _MAX_LZMA_FILTERS:
        raise FormatError(f"filters of codec 'lzma' are {len(filters)}; it has up to 4")
    return tuple(
        tuple(
            (name, as_integer(number, f"{shown(name)} of a filter of codec 'lzma'", maximum=2**62))
            for name, number in sorted(as_object(spec, "a filter of codec 'lzma'").items())
        )
        for spec in filters
    )


def _level(
    configuration: dict[str, Any], name: str, default: int, *, minimum: int, maximum: int
) -> int:
    level = configuration.get("level", default)
    return as_integer(level, f"level of codec {name!r}", minimum=minimum, maximum=maximum)


def _parse_blosc(configuration: dict[str, Any], *, typesize: int) -> Blosc:
    from lazyarr.format.blosc import Blosc

    known = ("cname", "clevel", "shuffle", "blocksize", "typesize")
    refuse_unknown(configuration, known, "codec 'blosc'")
    cname = configuration.get("cname", "lz4")
    if cname not in _CNAMES:
        raise FormatError(f"cname of codec 'blosc' is {shown(cname)}; it must be one of {_CNAMES}")
    shuffle = configuration.get("shuffle", 1)
    if isinstance(shuffle, str):
        shuffle = _SHUFFLES.get(shuffle)
    typesize = configuration.get("typesize") or typesize
    return Blosc(
        cname,
        as_integer(configuration.get("clevel", 5), "clevel of codec 'blosc'", maximum=9),
        as_integer(shuffle, "shuffle of codec 'blosc'", minimum=-1, maximum=2),
        as_integer(
            configuration.get("blocksize", 0), "blocksize of codec 'blosc'", maximum=2**31 - 1
        ),
        # c-blosc takes elements of up to 255 bytes, and larger ones for bytes.
        as_integer(typesize, "typesize of codec 'blosc'", minimum=1),
    )


_V3: Mapping[str, Callable[[dict[str, Any]], BytesCodec]] = {
    "zstd": _parse_zstd,
    "gzip": _parse_deflate("gzip"),
    "crc32c": _parse_crc32c,
}
_NUMCODECS: Mapping[str, Callable[[dict[str, Any]], BytesCodec]] = {
    "zstd": _parse_zstd,
    "gzip": _parse_deflate("gzip"),
    "zlib": _parse_deflate("zlib"),
    "bz2": _parse_bz2,
}
