from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import lazyarr.format

MODULES = [
    f"lazyarr.format.{module.name}" for module in pkgutil.iter_modules(lazyarr.format.__path__)
]
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


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    """Every example in a docstring gives what it says."""
    result = doctest.testmod(importlib.import_module(name))
    assert not result.failed


def test_import_is_light():
    """Importing the package loads nothing that costs start-up time."""
    code = f"import sys, lazyarr.format; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_every_name_is_there():
    """The package gives what it says that it gives."""
    assert all(hasattr(lazyarr.format, name) for name in lazyarr.format.__all__)
