"""``_FillValue`` of the CF conventions, as xarray spells it among the attributes of Zarr v3.

Source: `xarray.backends.zarr.FillValueCoder`.
"""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

__all__ = ["decode_missing_value", "encode_missing_value"]


def encode_missing_value(value: Any, kind: str) -> Any:
    """Return a ``_FillValue`` as it is spelled in Zarr v3.

    xarray opens no array where it is spelled otherwise.

    Parameters
    ----------
    value : object
        A number, or `bytes`.  A `str` is spelled so already.
    kind : str
        NumPy's letter for the kind of the elements.

    Examples
    --------
    >>> encode_missing_value(0.5, "f"), encode_missing_value(-9.0, "i")
    ('AAAAAAAA4D8=', -9)
    """
    if isinstance(value, bytes):
        is_bytes = kind == "S"
        return base64.standard_b64encode(value).decode() if is_bytes else value.decode("latin1")
    if isinstance(value, bool | int | float):
        if kind == "f":
            return _encode_float(value)
        if kind == "c":
            return [_encode_float(value), _encode_float(0)]
        if kind in "iu" and math.isfinite(value):
            return int(value)
    if kind == "c" and isinstance(value, complex):
        return [_encode_float(value.real), _encode_float(value.imag)]
    return value


def decode_missing_value(value: Any, kind: str) -> Any:
    """Return the number or the `bytes` of a ``_FillValue`` that is spelled so.

    What is spelled otherwise comes back as it is.

    Examples
    --------
    >>> decode_missing_value("AAAAAAAA4D8=", "f"), decode_missing_value(-9, "i")
    (0.5, -9)
    """
    try:
        if kind == "S" and isinstance(value, str):
            return base64.b64decode(value, validate=True)
        if kind == "f" and isinstance(value, str):
            return _decode_float(value)
        if kind == "c" and isinstance(value, list | tuple):
            real, imaginary = value
            return complex(_decode_float(real), _decode_float(imaginary))
    except (ValueError, TypeError, struct.error):
        pass
    return value


def _encode_float(value: float) -> str:
    return base64.standard_b64encode(struct.pack("<d", value)).decode()


def _decode_float(text: str) -> float:
    (value,) = struct.unpack("<d", base64.b64decode(text, validate=True))
    return float(value)
