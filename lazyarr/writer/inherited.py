"""Attributes that an array had where it was read, as they are stored in Zarr v3."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from lazyarr.formats.zarr.missing_value import encode_missing_value

__all__ = ["inherited_attributes"]


def inherited_attributes(
    attributes: Mapping[str, Any],
    dtype: numpy.dtype[Any],
    dimension_names: Sequence[str | None] | None,
) -> dict[str, Any]:
    """Return the attributes with which a Zarr v3 array says what those of its source said.

    Parameters
    ----------
    attributes : mapping
        As the source has them.  A ``_FillValue`` of byte strings is of type `bytes` where it is
        not encoded yet.
    dtype : numpy.dtype
        The elements.
    dimension_names : sequence of (str or None), or None
        Names of the axes, which are stored beside the attributes.

    Examples
    --------
    >>> inherited_attributes({"_FillValue": 0.5, "units": "m"}, numpy.dtype("f4"), None)
    {'_FillValue': 'AAAAAAAA4D8=', 'units': 'm'}
    """
    found = dict(attributes)
    # In Zarr v2 xarray keeps the names there; in Zarr v3 they have a place of their own.
    if dimension_names is not None and found.get("_ARRAY_DIMENSIONS") == list(dimension_names):
        del found["_ARRAY_DIMENSIONS"]
    if "_FillValue" in found:
        if _is_nan(found["_FillValue"]) and _is_nan(found.get("missing_value")):
            # Both say the same, and only _FillValue has an encoding of NaN in JSON.
            del found["missing_value"]
        found["_FillValue"] = encode_missing_value(_alone(found["_FillValue"]), dtype.kind)
    return found


def _alone(value: Any) -> Any:
    """Return the number of a NumPy scalar, or of a list or an array of one."""
    if isinstance(value, list) and len(value) == 1:
        return value[0]
    if isinstance(value, numpy.ndarray | numpy.generic) and value.size == 1:
        return value.item()
    return value


def _is_nan(value: Any) -> bool:
    value = _alone(value)
    return isinstance(value, float) and math.isnan(value)
