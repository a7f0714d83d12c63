"""Every public name of a package is found, and imported no sooner than it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = [
    "lazyarr",
    "lazyarr.codecs",
    "lazyarr.formats.zarr",
    "lazyarr.kernel",
    "lazyarr.layout",
    "lazyarr.store",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_found(name):
    """Those of ``__all__``, each once."""
    package = importlib.import_module(name)
    assert len(package.__all__) == len(set(package.__all__))
    for each in package.__all__:
        assert getattr(package, each) is not None


@pytest.mark.parametrize("name", PACKAGES)
def test_a_name_that_is_not_there_is_an_error(name):
    """As that of any module, with the package's name."""
    package = importlib.import_module(name)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_imports_none_of_its_parts(name):
    """Before one of its names is used; errors and values are no parts."""
    program = (
        f"import sys, {name}; print(*sorted(n for n in sys.modules if n.startswith({name!r})))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    found = set(ended.stdout.split()) - {"lazyarr", "lazyarr._version", "lazyarr.errors"}
    assert found - {"lazyarr.parts", name} == set()
