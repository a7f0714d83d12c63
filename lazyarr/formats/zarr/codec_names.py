"""The names and parameters of single codecs, in Zarr v3 and v2.

Codecs other than those that lazyarr writes are imported where a document names
them: most processes meet none of them, and each costs start-up time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lazyarr.checks import (
    MAX_NBYTES,
    as_list,
    as_object,
    as_shape,
    as_string,
    as_written_integer,
    refuse_unknown,
    shown,
)
from lazyarr.codecs.base import BytesCodec
from lazyarr.codecs.checksum import Crc32c
from lazyarr.codecs.registry import make_codec
from lazyarr.errors import FormatError
from lazyarr.layout.datatype import DataType

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
_PREFIX = "numcodecs."
_IMAGECODECS = "imagecodecs_"
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
            f"codec {shown(name)} {'cannot be mapped here' if known else 'is not known'};"
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
        refuse_unknown(parameters, ("elementsize",), "codec 'shuffle'")
        return make_codec("shuffle", {"elementsize": parameters.get("elementsize") or typesize})
    if name.startswith(_IMAGECODECS):
        return _parse_imagecodec(name.removeprefix(_IMAGECODECS), parameters)
    if name in FILTERS or name in _NOT_MAPPABLE:
        raise FormatError(f"codec {shown(known)} cannot be mapped here; read it with zarr-python")
    return _numcodec(config, None)


def _parse_imagecodec(name: str, parameters: dict[str, Any]) -> BytesCodec:
    """Return a codec as tifffile names those of TIFF in references.

    By our own code, for imagecodecs takes any amount of memory, and crashes on some bad chunks.
    """
    if name in ("lzw", "packbits"):
        return make_codec(name, {})
    if name in ("zstd", "zlib", "deflate"):
        return _NUMCODECS[name.replace("deflate", "zlib")]({})
    if name in ("delta", "floatpred"):
        what = f"codec 'imagecodecs_{name}'"
        axis, shape = parameters.get("axis", -1), as_shape(parameters.get("shape"), "shape")
        if axis in (-1, -2) and len(shape) >= -axis and parameters.get("dist", 1) == 1:
            kind = "delta" if name == "delta" else "floating_point"
            row, samples = (shape[-1], 1) if axis == -1 else shape[-2:]
            rows = {"dtype": parameters.get("dtype"), "row": row, "samples": samples}
            # LZW may give more than the chunk.
            return make_codec("predictor", {**rows, "kind": kind, "cuts": True})
        raise FormatError(f"{what} has the parameters {shown(parameters)}; open the file itself")
    raise FormatError(f"codec 'imagecodecs_{name}' cannot be mapped here; open the file itself")


def _numcodec(config: dict[str, Any], dtype: str | None) -> BytesCodec:
    from lazyarr.codecs.numcodec import Numcodec

    return Numcodec.from_config(config, dtype=dtype)


def _parse_zstd(configuration: dict[str, Any]) -> BytesCodec:
    refuse_unknown(configuration, ("level", "checksum"), "codec 'zstd'")
    checksum = configuration.get("checksum", False)
    level = _written(configuration, "level", "zstd", 0)
    return make_codec("zstd", {"level": level, "checksum": checksum})


def _parse_deflate(container: str) -> Callable[[dict[str, Any]], BytesCodec]:
    def parse(configuration: dict[str, Any]) -> BytesCodec:
        refuse_unknown(configuration, ("level",), f"codec {container!r}")
        level = _written(configuration, "level", container, 1)
        return make_codec("deflate", {"container": container, "level": level})

    return parse


def _parse_crc32c(configuration: dict[str, Any]) -> BytesCodec:
    refuse_unknown(configuration, (), "codec 'crc32c'")
    return Crc32c()


def _parse_bz2(configuration: dict[str, Any]) -> BytesCodec:
    refuse_unknown(configuration, ("level",), "codec 'bz2'")
    return make_codec("bz2", {"level": _written(configuration, "level", "bz2", 1)})


def _parse_lzma(configuration: dict[str, Any]) -> BytesCodec:
    refuse_unknown(configuration, ("format", "check", "preset", "filters"), "codec 'lzma'")
    parameters = {
        "container": configuration.get("format", 1),
        "check": configuration.get("check", -1),
        "preset": configuration.get("preset"),
        "filters": _lzma_filters(configuration.get("filters")),
    }
    return make_codec("lzma", parameters)


def _lzma_filters(value: object) -> list[list[list[Any]]]:
    """Return filters, which are objects in documents, as lists of their members."""
    filters = [] if value is None else as_list(value, "filters of codec 'lzma'")
    what = "a filter of codec 'lzma'"
    return [[list(member) for member in sorted(as_object(f, what).items())] for f in filters]


def _written(configuration: dict[str, Any], parameter: str, codec: str, default: int) -> int:
    """Return a number that only writers need, however others have spelled it."""
    what = f"{parameter} of codec {codec!r}"
    value = configuration.get(parameter)
    return as_written_integer(value, what, default=default, minimum=-MAX_NBYTES)


def _parse_blosc(configuration: dict[str, Any], *, typesize: int) -> BytesCodec:
    known = ("cname", "clevel", "shuffle", "blocksize", "typesize")
    refuse_unknown(configuration, known, "codec 'blosc'")
    shuffle = configuration.get("shuffle")
    if isinstance(shuffle, str):
        configuration = {**configuration, "shuffle": _SHUFFLES.get(shuffle, shuffle)}
    defaults = {"clevel": 5, "shuffle": 1, "blocksize": 0, "typesize": typesize}
    numbers = {name: _written(configuration, name, "blosc", n) for name, n in defaults.items()}
    return make_codec("blosc", {"cname": configuration.get("cname") or "lz4", **numbers})


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
