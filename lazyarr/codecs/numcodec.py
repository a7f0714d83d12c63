"""Codecs and filters of numcodecs' registry, for what lazyarr has no code of its own.

Zarr v2 names them by `id`, Zarr v3 as ``numcodecs.<id>``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from lazyarr.checks import as_string, parse_json, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.shortage import is_shortage
from lazyarr.values import Value

__all__ = ["Numcodec"]

# These make or take Python objects; `pickle` would run code from the store.
_REFUSED = frozenset(
    [
        "pickle",
        "json",
        "json2",
        "msgpack",
        "msgpack2",
        "categorize",
        "vlen-utf8",
        "vlen-bytes",
        "vlen-array",
    ]
)
_DTYPE_PARAMETERS = ("dtype", "astype", "encode_dtype", "decode_dtype")
_MAX_ELEMENT_NBYTES = 16
# What NumPy's array interface calls a type of fixed size, or the name of one of ml_dtypes.
_DTYPE = re.compile(r"[<>|][a-zA-Z][0-9]+(\[[0-9]*[a-zA-Z]+\])?|[a-z][a-z0-9_]*")
_MAX_CONFIG_CHARACTERS = 1 << 20
_LZ4_HEADER_NBYTES = 4  # numcodecs puts the size of the content there, little endian


class Numcodec(Value, BytesCodec):
    """A codec that numcodecs runs.

    Attributes
    ----------
    config : str
        What `numcodecs.get_codec` takes, as JSON.
    dtype : str or None
        The type of the elements that `encode` shows to the codec; None for
        bytes.
    """

    name = "numcodec"

    config: str
    dtype: str | None = None

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Numcodec:
        """Return the codec with some parameters, each of them checked."""
        what = "config of codec 'numcodec'"
        config = as_string(parameters["config"], what)
        if len(config) > _MAX_CONFIG_CHARACTERS:
            raise FormatError(
                f"{what} has {len(config)} characters; it may have up to {_MAX_CONFIG_CHARACTERS}"
            )
        dtype = parameters["dtype"]
        is_type = isinstance(dtype, str) and len(dtype) < 64 and _DTYPE.fullmatch(dtype)
        if dtype is not None and not is_type:
            raise FormatError(f"dtype of codec 'numcodec' is {shown(dtype)}; it must be a type")
        return cls.from_config(parse_json(config.encode("utf-8", "replace"), what), dtype=dtype)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, dtype: str | None = None) -> Numcodec:
        """Return the codec that a configuration names.

        Parameters
        ----------
        config : mapping
            With `id` and the parameters of the codec.
        dtype : str or None
            As the attribute.

        Raises
        ------
        FormatError
            There is no such codec, its parameters are wrong, or it works on
            Python objects.
        """
        codec = cls(json.dumps(config, sort_keys=True), dtype)
        name = config.get("id")
        if not isinstance(name, str) or name in _REFUSED:
            raise FormatError(f"codec {shown(name)} cannot be mapped; read it with zarr-python")
        for parameter in _DTYPE_PARAMETERS:
            _check_dtype(name, config.get(parameter))
        try:
            _load(codec.config)
        # Codecs come from any package, and check their parameters in any way.
        except Exception as error:
            if is_shortage(error):
                raise
            raise FormatError(
                f"codec {shown(name)} cannot be used: {error}; install the package that has it"
            ) from error
        return codec

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what the codec makes of some bytes."""
        from numcodecs.compat import ensure_contiguous_ndarray

        codec = _load(self.config)
        if codec.codec_id == "lz4":
            header = bytes(as_view(data)[:_LZ4_HEADER_NBYTES])
            check_length("lz4", int.from_bytes(header, "little"), limit_nbytes)
        try:
            content = ensure_contiguous_ndarray(codec.decode(data)).reshape(-1).view("u1")
        except Exception as error:
            raise DamagedChunkError(f"{codec.codec_id} cannot decode: {error}") from error
        check_length(codec.codec_id, content.nbytes, limit_nbytes)
        return memoryview(content)

    def encode(self, data: Buffer) -> Buffer:
        """Return what the codec stores of some bytes."""
        import numpy
        from numcodecs.compat import ensure_contiguous_ndarray

        elements = numpy.frombuffer(data, dtype=self.dtype or "u1")
        encoded = _load(self.config).encode(elements)
        return memoryview(ensure_contiguous_ndarray(encoded).reshape(-1).view("u1"))


@functools.lru_cache(maxsize=64)
def _load(config: str) -> Any:
    # Not at the top: numcodecs brings NumPy and five compressors with it.
    import numcodecs

    return numcodecs.get_codec(json.loads(config))


def _check_dtype(name: str, value: object) -> None:
    """Refuse types that make more of an element than a number."""
    if value is None:
        return
    import numpy

    try:
        dtype = numpy.dtype(value if isinstance(value, str) and len(value) < 32 else "O")
    except (TypeError, ValueError, SyntaxError) as error:
        raise FormatError(f"codec {name!r} has the type {shown(value)}: {error}") from error
    if dtype.kind not in "biufcmM" or dtype.itemsize > _MAX_ELEMENT_NBYTES:
        raise FormatError(f"codec {name!r} has the type {shown(value)}; it must be one of numbers")
