from __future__ import annotations

import subprocess
import sys

import pytest

from lazyarr import codecs, layout
from lazyarr.formats import zarr

PACKAGES = [codecs, layout, zarr]
HEAVY = [
    "numpy",
    "numcodecs",
    "zstandard",
    "google_crc32c",
    "ml_dtypes",
    "fsspec",
    "ctypes",
    "lzma",
    "bz2",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_import_is_light(package):
    """Importing a package loads nothing that costs start-up time."""
    code = f"import sys, {package.__name__}; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there(package):
    """A package gives what it says that it gives."""
    assert all(hasattr(package, name) for name in package.__all__)
