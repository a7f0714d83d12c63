"""The data: several kinds of synthetic images and numbers, the same for the same seed.

The 16-bit images look like a camera's in the one way that matters here: zstd 3 makes
half of them, and gives them back at about the speed of real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["IMAGES", "KINDS", "LEVEL", "Array", "make_images", "make_rows"]

LEVEL = 3
"""Level of zstd, everywhere."""

IMAGES = "uint16 images"
"""What is measured wherever nothing else is said."""

Array = np.ndarray[Any, Any]
_Make = Callable[[np.random.Generator, Array, Array], Array]


def _signal(rng: np.random.Generator, y: Array, x: Array) -> Array:
    """Return smooth waves between -1 and 1."""
    along_x, along_y = rng.uniform(0.005, 0.05, 2)
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
    waves: Array = np.sin(along_x * x + phase_x) * np.cos(along_y * y + phase_y)
    return waves


def _noise(rng: np.random.Generator, y: Array) -> Array:
    return rng.standard_normal(y.shape, np.float32)


def _uint8_image(rng: np.random.Generator, y: Array, x: Array) -> Array:
    return np.clip(128 + 60 * _signal(rng, y, x) + 3 * _noise(rng, y), 0, 255)


def _uint16_image(rng: np.random.Generator, y: Array, x: Array) -> Array:
    signal = np.maximum(_signal(rng, y, x), 0)
    return np.clip(100 + 1000 * signal + 4 * _noise(rng, y), 0, None)


def _float32_field(rng: np.random.Generator, y: Array, x: Array) -> Array:
    return 280 + 20 * _signal(rng, y, x) + np.float32(0.01) * _noise(rng, y)


def _sparse(rng: np.random.Generator, y: Array, x: Array) -> Array:
    return np.where(rng.random(x.shape) < 0.01, _noise(rng, y), np.float32(0))


def _growing(rng: np.random.Generator, y: Array, x: Array) -> Array:
    return np.cumsum(rng.integers(0, 5, y.size)).reshape(x.shape)


def _float64_noise(rng: np.random.Generator, y: Array, x: Array) -> Array:
    return rng.standard_normal(np.broadcast_shapes(y.shape, x.shape))


def _random_bytes(rng: np.random.Generator, y: Array, x: Array) -> Array:
    return rng.integers(0, 256, np.broadcast_shapes(y.shape, x.shape), "u1")


class Kind(NamedTuple):
    """One kind of data: its dtype, and what makes a row of it from coordinates."""

    dtype: str
    make: _Make

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize


KINDS = {
    "uint8 images": Kind("uint8", _uint8_image),
    IMAGES: Kind("uint16", _uint16_image),
    "float32 fields": Kind("float32", _float32_field),
    "float32, 1 % not zero": Kind("float32", _sparse),
    "int64 that grow": Kind("int64", _growing),
    "float64 noise": Kind("float64", _float64_noise),
    "random bytes": Kind("uint8", _random_bytes),
}


def make_rows(kind: str, n_rows: int, height: int, width: int, *, seed: int) -> Array:
    """Return rows of a kind, each of so many lines and columns."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dtype, make = KINDS[kind]
    rows = np.empty((n_rows, height, width), dtype)
    for row in rows:
        row[:] = make(rng, y, x)
    return rows


def make_images(n_images: int, height: int, width: int, *, seed: int) -> Array:
    """Return 16-bit images."""
    return make_rows(IMAGES, n_images, height, width, seed=seed)
